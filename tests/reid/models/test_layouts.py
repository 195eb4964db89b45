"""Networks under the names that other projects give their tensors, written here as those projects write them."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from reid.models.backbones import build_backbone
from reid.models.dcal import embedding
from reid.models.jigsaw import shuffled
from reid.models.layouts import Cut, guess_cut
from reid.models.pretrained import build_pretrained


@pytest.mark.parametrize(
    ("count", "reid", "size", "stride"),
    [
        (196, False, (224, 224), 16),
        (128, False, (256, 128), 16),
        (128, True, (256, 128), 16),
        (210, True, (256, 128), 12),  # TransReID's grids, 21 x 10 and so on
        (310, True, (384, 128), 12),
        (192, True, (384, 128), 16),
        (441, True, (256, 256), 12),
        (441, False, (336, 336), 16),
        (256, True, (256, 256), 16),
    ],
)
def test_the_number_of_positions_tells_how_images_were_cut(count, reid, size, stride):
    cut = guess_cut(count, 16, reid=reid)
    assert cut == Cut(size, 16, stride) and cut.count == count


def test_no_usual_image_has_a_prime_number_of_patches():
    assert guess_cut(97, 16, reid=True) is None


def clip_names(name):
    for ours, theirs in (
        ("patch_embed.proj", "conv1"),
        ("norm_pre", "ln_pre"),
        (".norm1", ".ln_1"),
        (".norm2", ".ln_2"),
        ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    ):
        name = name.replace(ours, theirs)
    name = f"ln_post{name.removeprefix('norm')}" if name.startswith("norm.") else name
    return f"transformer.resblocks{name.removeprefix('blocks')}" if name.startswith("blocks") else name


@pytest.mark.parametrize("prefix", ["image_encoder.", "module.visual.", ""])
def test_an_image_tower_of_clip_is_read_at_its_rectangular_overlapping_grid(small, tmp_path, prefix):
    small("clip_vit_base", embed_dim=96, depth=2, num_heads=3)
    donor, _ = build_backbone("clip_vit_base", (256, 128), stride=12)
    nn.init.normal_(donor.cls_token)
    written = {prefix + clip_names(name): value for name, value in donor.state_dict().items()}
    written[f"{prefix}class_embedding"] = written.pop(f"{prefix}cls_token").flatten()
    written[f"{prefix}positional_embedding"] = written.pop(f"{prefix}pos_embed")[0]
    written |= {f"{prefix}proj": torch.zeros(96, 512), "bottleneck.running_mean": torch.zeros(96)}
    written |= {"text.transformer.resblocks.0.ln_1.weight": torch.ones(96)}
    torch.save(written, tmp_path / "clip.pth")
    found = build_pretrained("clip_vit_base", str(tmp_path / "clip.pth"))
    assert (found.image_size, found.model.options.stride) == ((256, 128), 12)
    for name, value in found.model.backbone.state_dict().items():
        assert torch.equal(value, donor.state_dict()[name]), name
    assert found.mean == ((0.5,) * 3 if prefix == "image_encoder." else BACKBONE_MEAN)


BACKBONE_MEAN = tuple(timm.get_pretrained_cfg("vit_base_patch16_clip_quickgelu_224.openai").mean)


@pytest.mark.parametrize("layout", ["timm", "microsoft", "openmmlab"])
def test_swin_is_read_with_its_reductions_wherever_they_stand(small, tmp_path, layout):
    small("swin_tiny", depths=(1, 1, 1, 1))
    donor, _ = build_backbone("swin_tiny", (224, 224))
    for module in donor.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight)
    written = {}
    for name, value in donor.state_dict().items():
        if layout != "timm" and "downsample" in name:  # at the end of the stage before
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}", f"layers.{stage - 1}", 1)
            if layout == "openmmlab":
                value = as_unfolded(value)
        if layout == "openmmlab":
            for ours, theirs in (
                ("layers.", "stages."),
                (".attn.", ".attn.w_msa."),
                ("mlp.fc1", "ffn.layers.0.0"),
                ("mlp.fc2", "ffn.layers.1"),
                ("patch_embed.proj", "patch_embed.projection"),
            ):
                name = name.replace(ours, theirs)
            name = f"norm3{name.removeprefix('norm')}" if name.startswith("norm.") else name
            written |= {"backbone.semantic_embed_w.0.weight": torch.zeros(192, 2)}
            name = f"backbone.{name}"
        written[name] = value
    torch.save({"teacher": written} if layout == "openmmlab" else written, tmp_path / "swin.bin")
    found = build_pretrained("swin_tiny", str(tmp_path / "swin.bin"))
    for name, value in found.model.backbone.state_dict().items():
        assert torch.equal(value, donor.state_dict()[name]), name


def as_unfolded(value):
    """The columns of a reduction, or numbers of its norm, where nn.Unfold puts channel c of the neighbour (h, w)."""
    moved, channels = torch.empty_like(value), value.shape[-1] // 4
    for channel in range(channels):
        for down in range(2):
            for right in range(2):
                moved[..., 4 * channel + 2 * down + right] = value[..., (2 * right + down) * channels + channel]
    return moved


class TransReid(nn.Module):
    """TransReID's forward pass in evaluation, features before the neck, of its paper and the order of its code."""

    def __init__(self, base, cameras):
        super().__init__()
        self.base = base
        self.base.sie_embed = nn.Parameter(torch.randn(cameras, 1, base.embed_dim))
        self.b1 = nn.Sequential(copy.deepcopy(base.blocks[-1]), copy.deepcopy(base.norm))
        self.b2 = nn.Sequential(copy.deepcopy(base.blocks[-1]), copy.deepcopy(base.norm))
        self.bottleneck = nn.BatchNorm1d(base.embed_dim)

    def forward(self, images, cameras):
        tokens = self.base._pos_embed(self.base.patch_embed(images)) + 3.0 * self.base.sie_embed[cameras]
        for block in self.base.blocks[:-1]:
            tokens = block(tokens)
        parts = [self.b1(tokens)[:, 0]]
        patches = tokens[:, 1:][:, shuffled(tokens.shape[1] - 1, 5)]
        size = patches.shape[1] // 4
        for part in range(4):
            chosen = torch.cat([tokens[:, :1], patches[:, part * size : (part + 1) * size]], dim=1)
            parts.append(self.b2(chosen)[:, 0] / 4)
        return F.normalize(torch.cat(parts, dim=1), dim=1)


def test_a_transreid_file_is_read_by_its_own_recipe(small, tmp_path):
    small("deit_tiny", embed_dim=96, depth=3, num_heads=3)
    base, _ = build_backbone("deit_tiny", (256, 128), stride=12)
    theirs = TransReid(base, cameras=6).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save({f"module.{name}": value for name, value in theirs.state_dict().items()}, tmp_path / "transreid.pth")
    found = build_pretrained("deit_tiny", str(tmp_path / "transreid.pth"))
    assert (found.image_size, found.mean, found.std) == ((256, 128), (0.5,) * 3, (0.5,) * 3)
    assert (found.model.options.stride, found.model.options.jigsaw, found.model.options.sides) == (12, 5, 6)
    assert found.report.ignored == ()
    images, cameras = torch.randn(2, 3, 256, 128), torch.tensor([1, 4])
    with torch.no_grad():
        torch.testing.assert_close(embedding(found.model(images, sides=cameras)), theirs(images, cameras))
    wider, report = build_backbone("deit_tiny", (128, 64), weights=str(tmp_path / "transreid.pth"))
    assert "21x10 to 8x4" in str(report)
    assert torch.equal(wider.norm.weight, theirs.b1[1].weight)  # the branch that was trained


def test_positions_of_no_usual_size_are_told(small, tmp_path):
    small("deit_tiny", embed_dim=96, depth=1, num_heads=3)
    donor, _ = build_backbone("deit_tiny", (80, 16 * 7))
    torch.save(donor.state_dict(), tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="35 positions are those of no usual image size; give --image-size HxW"):
        build_pretrained("deit_tiny", str(tmp_path / "odd.pth"))
    found = build_pretrained("deit_tiny", str(tmp_path / "odd.pth"), (80, 112))
    assert torch.equal(found.model.backbone.pos_embed, donor.pos_embed)
