import pytest
import torch

from reid.models.backbones import embed_tokens
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions


def build():
    torch.manual_seed(0)
    return build_dcal("vit_toy", (16, 16), 5, DcalOptions(drop_path=0.0, method="baseline", sides=3))[0].eval()


def test_three_times_the_row_of_a_side_is_added_to_every_token():
    model, images = build(), torch.randn(3, 3, 16, 16)
    tokens = embed_tokens(model.backbone, images)
    sides = torch.tensor([2, 0, -1])
    rows = torch.stack([*model.side_information.embedding[[2, 0]], torch.zeros(96)])
    expected = model.backbone.norm(model.backbone.blocks(tokens + 3.0 * rows.unsqueeze(1)))[:, 0]
    torch.testing.assert_close(model(images, sides=sides).sa.token, expected)


def test_unknown_sides_and_none_at_all_are_the_same():
    model, images = build(), torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(images, sides=torch.tensor([-1, -1])).sa.token, model(images).sa.token)


def test_a_row_learns_from_its_own_images_alone():
    model = build().train()
    model(torch.randn(2, 3, 16, 16), sides=torch.tensor([1, -1])).sa.token[:, 0].sum().backward()
    moved = model.side_information.embedding.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == [False, True, False]


def test_a_backbone_without_class_token_beside_the_patches_is_refused():
    with pytest.raises(ValueError, match="side information needs a class token beside the patches"):
        build_dcal("swin_tiny", (64, 64), 5, DcalOptions(method="pwca", sides=3))
