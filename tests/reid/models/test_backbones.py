import numpy as np
import pytest
import timm
import torch

from reid.models.backbones import build_backbone, embed_tokens, normalisation, offers
from reid.models.specs import BACKBONES
from reid.models.weights import patch_size


def test_the_table_says_what_each_backbone_offers(backbone):
    """The column of every name against the network it stands for, its blocks cut to two."""
    spec = BACKBONES[backbone]
    sides = (4 * spec.patch, 3 * spec.patch)
    model, _ = build_backbone(backbone, sides)
    assert offers(model) == spec.offers
    assert patch_size(model) == spec.patch
    assert model.patch_embed.grid_size == (4, 3)
    with pytest.raises(ValueError, match=rf"{backbone}'; the nearest is {sides[0]}x{sides[1]}"):
        build_backbone(backbone, (sides[0], sides[1] + 1))


def test_every_name_has_its_weights_in_timm():
    for name, spec in BACKBONES.items():
        if spec.tag:
            assert spec.timm_name in timm.list_models(pretrained=True), name


def test_tokens_are_timms(tmp_path):
    model, _ = build_backbone("vit_toy", (32, 16))
    images = torch.randn(2, 3, 32, 16)
    model.eval()
    torch.testing.assert_close(model.norm(model.blocks(embed_tokens(model, images)))[:, 0], model(images))


def test_normalisation_is_the_weights_own():
    assert normalisation(build_backbone("vit_toy", (16, 16))[0]) == ((0.5,) * 3, (0.5,) * 3)
    deit, _ = build_backbone("deit_tiny", (32, 32))
    np.testing.assert_allclose(normalisation(deit)[0], (0.485, 0.456, 0.406))
    dino, _ = build_backbone("vit_small_patch16_224.dino", (32, 32))
    np.testing.assert_allclose(normalisation(dino)[0], (0.485, 0.456, 0.406))


def test_registers_and_timm_names_are_supported():
    model, _ = build_backbone("vit_small_patch14_reg4_dinov2.lvd142m", (28, 28))
    assert model.num_prefix_tokens == 5


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_smal", (16, 16), "unknown backbone 'vit_smal'; near ones: vit_small"),
        ("resnet50", (16, 16), "'resnet50' is no ViT, DeiT, EVA, CaiT or Swin"),
        ("swinv2_tiny_window8_256", (64, 64), "'swinv2_tiny_window8_256' is no ViT, DeiT, EVA, CaiT or Swin"),
        ("vit_small_patch16_rope_mixed_224.naver_in1k", (32, 32), "turns queries and keys differently in each block"),
        ("eva02_base_patch14_plus_224", (28, 28), "near ones: eva02_base_patch14_224"),
        (
            "deit_tiny_patch16_224.fb_in22k",
            (32, 32),
            "Invalid pretrained tag (fb_in22k) for deit_tiny_patch16_224. Known",
        ),
        ("vit_base_patch16_xp_224", (32, 32), "blocks of kind ParallelScalingBlock"),
        ("deit_tiny_distilled_patch16_224", (32, 32), "distillation token"),
        ("vit_toy", (20, 16), "image size 20x16 (height x width) is no multiple of the 8x8 patch"),
    ],
)
def test_unusable_backbones_are_named(name, size, message):
    with pytest.raises(ValueError) as error:
        build_backbone(name, size)
    assert message in str(error.value)


def test_patches_overlap_as_in_transreid():
    """Stride 12 on 256 x 128: 21 x 10 patches."""
    model, _ = build_backbone("deit_tiny", (256, 128), stride=12)
    assert model.patch_embed.grid_size == (21, 10)
    images = torch.randn(1, 3, 256, 128)
    tokens = embed_tokens(model.eval(), images)
    assert tokens.shape == (1, 1 + 210, 192)
    row, column = 3, 7  # the patch at this place, cut out and projected by itself
    patch = images[:, :, 12 * row : 12 * row + 16, 12 * column : 12 * column + 16]
    place = 1 + 10 * row + column
    own = (
        (model.patch_embed.proj.weight * patch).sum((1, 2, 3)) + model.patch_embed.proj.bias + model.pos_embed[0, place]
    )
    torch.testing.assert_close(tokens[0, place], own, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(images), model.norm(model.blocks(tokens))[:, 0])


def test_overlapping_rotary_patches_have_a_row_each():
    model, _ = build_backbone("dinov3_small", (64, 48), stride=8)
    assert model.patch_embed.grid_size == (7, 5)
    assert model.blocks[0].attn.rotary_table.shape[0] == 5 + 35
    assert model(torch.randn(1, 3, 64, 48)).shape == (1, 384)


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("deit_tiny", 17, "stride=17: expected 1 to 16, the patch of backbone 'deit_tiny'"),
        ("cait_xs24", 12, "stride=12: the patches of backbone 'cait_xs24' cannot overlap"),
        ("swin_tiny", 2, "stride=2: the patches of backbone 'swin_tiny' cannot overlap"),
    ],
)
def test_strides_that_cannot_be_are_named(name, stride, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, (64, 64), stride=stride)
