import pytest
import torch

from reid.models.dcal import build_dcal, embedding
from reid.models.jigsaw import JigsawPatches, shuffled
from reid.models.options import DcalOptions
from reid.training.losses import ReidLoss, branch_losses


def shuffle_unit(features, shift, group):
    """The published code's order, spelled as there: features (T,) with the class token first."""
    x = torch.cat([features[shift:], features[1:shift]])
    if len(x) % group:
        x = torch.cat([x, x[-2:-1]])
    return x.view(group, -1).transpose(0, 1).reshape(-1)


@pytest.mark.parametrize(("patches", "shift"), [(210, 5), (256, 8), (21, 5), (8, 1)])
def test_patches_are_shuffled_as_published(patches, shift):
    assert shuffled(patches, shift) == (shuffle_unit(torch.arange(1 + patches), shift, 2) - 1).tolist()


def build(name="vit_toy", **kwargs):
    torch.manual_seed(0)
    size = (64, 48) if name == "dinov3_small" else (32, 24)
    model, _ = build_dcal(name, size, 5, DcalOptions(drop_path=0.0, jigsaw=5, **kwargs))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model, torch.randn(4, 3, *size)


def test_each_part_is_the_class_token_of_timms_block_on_it():
    model, images = build()
    model.eval()
    seen = []
    model.backbone.blocks[-1].norm1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    output = model(images)
    tokens = seen[0]
    order = shuffle_unit(torch.arange(1 + 12), 5, 2)
    assert len(output.jigsaw) == 4
    for part, branch in enumerate(output.jigsaw):
        own = torch.cat([tokens[:, :1], tokens[:, order[3 * part : 3 * part + 3]]], dim=1)
        expected = model.jigsaw.norm(model.jigsaw.block(own))[:, 0]
        torch.testing.assert_close(branch.token, expected)
        torch.testing.assert_close(branch.logits, model.heads[f"jigsaw_{part + 1}"](branch.token)[0])


def test_rotary_parts_keep_their_places():
    """A part of all tokens in another order gives the class token of the block on them in theirs."""
    model, _ = build("dinov3_small")
    block = model.jigsaw.block.eval()
    jigsaw = JigsawPatches(block, torch.nn.Identity(), patches=12, prefix=5, shift=5)
    everything = torch.cat([torch.arange(5), 5 + torch.tensor(shuffled(12, 5))])
    jigsaw.order = everything.unsqueeze(0).repeat(4, 1)
    tokens = torch.randn(2, 17, 384)
    with torch.no_grad():
        got = jigsaw.eval()(tokens)
        expected = block(tokens, rope=model.backbone.rope.get_embed([4, 3]))[:, 0]
    for part in got.unbind(1):
        torch.testing.assert_close(part, expected, atol=1e-4, rtol=1e-4)


def test_embedding_follows_the_token_by_a_quarter_of_each_part():
    model, images = build()
    output = model.eval()(images)
    parts = [branch.token / 4 for branch in output.jigsaw]
    sa = torch.nn.functional.normalize(torch.cat([output.sa.token, *parts], dim=1), dim=1)
    torch.testing.assert_close(embedding(output, "sa"), sa)
    glca = torch.nn.functional.normalize(output.glca.token, dim=1)
    torch.testing.assert_close(embedding(output), torch.cat([sa, glca], dim=1) / 2**0.5)
    for features in ("concat", "sa", "glca"):
        assert embedding(output, features).shape[1] == model.embedding_size(features)


def test_loss_is_half_the_tokens_and_half_the_parts_mean():
    model, images = build(method="baseline")
    output, labels = model.train()(images), torch.tensor([0, 0, 1, 1])
    losses = branch_losses(output, labels, ReidLoss())
    own = ReidLoss()(output.sa, labels)
    parts = [ReidLoss()(branch, labels) for branch in output.jigsaw]
    for name in ("ce", "triplet"):
        torch.testing.assert_close(losses["sa"][name], own[name] / 2)
        torch.testing.assert_close(losses["sa"][f"jigsaw_{name}"], sum(part[name] for part in parts) / 8)


def test_it_starts_as_a_copy_and_has_its_own_tensors():
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", (32, 24), 5, DcalOptions(jigsaw=5))
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"backbone", "glca", "jigsaw", "heads", "log_variances"}
    for mine, theirs in zip(model.jigsaw.block.parameters(), model.backbone.blocks[-1].parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine is not theirs


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_toy", (8, 24), "jigsaw makes 4 parts of the patches, of which there are 3"),
        ("cait_xs24", (64, 64), "jigsaw needs a class token beside the patches in every block, .*'cait_xs24_384'"),
    ],
)
def test_what_cannot_be_is_named(name, size, message):
    with pytest.raises(ValueError, match=message):
        build_dcal(name, size, 5, DcalOptions(jigsaw=5))
