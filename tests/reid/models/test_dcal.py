from dataclasses import replace

import pytest
import timm
import torch

from reid.models import dcal, layers
from reid.models.dcal import build_dcal, embedding
from reid.models.options import DcalOptions
from reid.models.rollout import local_queries
from reid.models.specs import BACKBONES
from reid.names import BRANCHES

SIZE = (32, 16)


def build(method="dcal", **kwargs):
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", SIZE, 5, DcalOptions(method=method, **{"drop_path": 0.0, **kwargs}))
    return model


def images(count=4):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def perturb(model):
    """Move the weights off their symmetric start, so that attention is not uniform."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    return model


def test_baseline_has_timms_parameters_and_its_head_and_nothing_else():
    model = build("baseline")
    reference = timm.create_model(
        "vit_tiny_patch16_224", img_size=SIZE, num_classes=0, **BACKBONES["vit_toy"].overrides
    )
    ours = {name: tuple(p.shape) for name, p in model.named_parameters()}
    expected = {f"backbone.{name}": tuple(p.shape) for name, p in reference.named_parameters()}
    head = {"heads.sa.neck.weight": (96,), "heads.sa.neck.bias": (96,), "heads.sa.classifier.weight": (5, 96)}
    assert ours == expected | head


def test_tensor_names_are_the_contracts():
    names = build("dcal").state_dict()
    groups = {name.split(".")[0] for name in names}
    assert groups == {"backbone", "glca", "heads", "log_variances"}
    assert {".".join(name.split(".")[:3]) for name in names if name.startswith("heads")} == {
        f"heads.{branch}.{part}" for branch in ("sa", "glca") for part in ("neck", "classifier")
    }
    block = {name.removeprefix("glca.block.") for name in names if name.startswith("glca.block.")}
    assert block == {n.removeprefix("backbone.blocks.0.") for n in names if n.startswith("backbone.blocks.0.")}
    assert {n for n in names if n.startswith("glca.norm.")} == {"glca.norm.weight", "glca.norm.bias"}
    assert not any("pwca" in name for name in names)


def test_pwca_adds_no_parameters():
    baseline, pwca = build("baseline"), build("pwca")
    added = {name for name, _ in pwca.named_parameters()} - {name for name, _ in baseline.named_parameters()}
    assert added == {"log_variances"}
    glca, both = build("glca"), build("dcal")
    assert [n for n, _ in glca.named_parameters()] == [n for n, _ in both.named_parameters()]


def test_self_attention_branch_is_timms_own_forward():
    model = perturb(build()).eval()
    torch.testing.assert_close(model(images()).sa.token, model.backbone(images()))


def test_every_image_its_own_partner_gives_the_self_attention_branch():
    model = perturb(build("pwca")).train()
    output = model(images(), torch.arange(4))
    torch.testing.assert_close(output.pwca.token, output.sa.token)
    torch.testing.assert_close(output.pwca.logits, output.sa.logits)


def test_another_partner_changes_the_pair_wise_branch_only():
    model = perturb(build()).train()
    one, other = model(images(), torch.tensor([1, 2, 3, 0])), model(images(), torch.tensor([3, 0, 1, 2]))
    assert not torch.allclose(one.pwca.token, other.pwca.token)
    torch.testing.assert_close(one.sa.token, other.sa.token)
    torch.testing.assert_close(one.glca.token, other.glca.token)


def test_the_pair_wise_stream_advances_by_itself():
    """Replaying the two streams block by block, with timm's own modules and a masked-out copy, gives the same token."""
    model = perturb(build("pwca")).train()
    partner = torch.tensor([1, 0, 3, 2])
    vit = model.backbone
    tokens = paired = dcal.embed_tokens(vit, images())
    for block in vit.blocks:
        before = tokens
        tokens = block(tokens)
        joined = torch.cat([paired, before[partner]], dim=1)  # 2T tokens; the partner's rows are thrown away after
        paired = block(joined)[:, : paired.shape[1]]
    expected = vit.norm(paired)[:, 0]
    torch.testing.assert_close(model(images(), partner).pwca.token, expected, atol=1e-5, rtol=1e-4)


def test_evaluation_calls_nothing_of_pwca(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("pair-wise attention ran in evaluation")

    monkeypatch.setattr(dcal, "pair_wise_attention", forbidden)
    model = build().eval()
    assert model(images()).pwca is None
    assert model(images(), torch.tensor([1, 0, 3, 2])).pwca is None
    with pytest.raises(AssertionError, match="pair-wise"):
        model.train()(images(), torch.tensor([1, 0, 3, 2]))


def test_training_without_partners_is_refused():
    with pytest.raises(ValueError, match="needs `partner` in training"):
        build().train()(images())
    assert build("glca").train()(images()).pwca is None


def test_chosen_patches_are_those_of_a_rollout_by_timms_own_attention(monkeypatch):
    """The maps are read from timm's unfused attention by a hook on its softmax input, the product is the full one."""
    model = perturb(build(ratio=0.4)).eval()
    output = model(images(), rollout=True)
    maps = []
    for block in model.backbone.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, result: maps.append(inputs[0]))
    model.backbone(images())
    product = torch.eye(9)
    for attention in maps:
        product = (0.5 * attention.mean(1) + 0.5 * torch.eye(9)) @ product
    torch.testing.assert_close(output.rollout, product[:, 0])
    expected = [sorted(range(1, 9), key=lambda t, row=row: -row[t].item())[:4] for row in product[:, 0]]
    assert [sorted(chosen) for chosen in output.chosen.tolist()] == [sorted(chosen) for chosen in expected]
    assert 0 not in output.chosen


def test_glca_reads_the_tokens_after_the_last_block_before_the_norm():
    model = perturb(build()).eval()
    tokens = model.backbone.blocks(dcal.embed_tokens(model.backbone, images()))
    output = model(images(), rollout=True)
    every = model.glca.norm(model.glca.block(tokens))
    torch.testing.assert_close(output.glca.token, every[:, 0])
    assert torch.equal(output.chosen, local_queries(output.rollout, model.options.ratio, 1))


def test_the_number_of_patches_never_reaches_the_class_token():
    """One block deep, the class token reads all keys and values whatever else asks: R changes what is shown alone."""
    few, all_ = (perturb(build(ratio=ratio)).eval()(images(), rollout=True) for ratio in (0.1, 1.0))
    assert few.chosen.shape != all_.chosen.shape
    torch.testing.assert_close(few.glca.token, all_.glca.token)


def test_stochastic_depth_rises_linearly_in_all_streams():
    model = build(drop_path=0.3)
    rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in model.backbone.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert model.glca.block.drop_path1.drop_prob == pytest.approx(0.3)


def test_neck_is_frozen_in_bias_and_classifier_has_none():
    head = build().heads["sa"]
    assert not head.neck.bias.requires_grad
    assert head.neck.weight.requires_grad
    assert head.classifier.bias is None
    fgvc = build(head="fgvc").heads
    assert set(dict(fgvc.named_parameters())) == {
        f"{branch}.classifier.{part}" for branch in ("sa", "glca") for part in ("weight", "bias")
    }


@pytest.mark.parametrize("method", list(BRANCHES))
def test_branches_and_loss_weights_match_the_method(method):
    model = build(method).train()
    output = model(images(), torch.tensor([1, 0, 3, 2]))
    assert tuple(output.branches()) == BRANCHES[method]
    assert all(branch.logits.shape == (4, 5) for branch in output.branches().values())
    if method == "baseline":
        assert not hasattr(model, "log_variances")
    else:
        assert torch.equal(model.log_variances, torch.zeros(len(BRANCHES[method])))


def test_embedding_is_two_unit_tokens_made_unit_again():
    output = build().eval()(images())
    vector = embedding(output)
    sa, glca = (token / token.norm(dim=1, keepdim=True) for token in (output.sa.token, output.glca.token))
    torch.testing.assert_close(vector, torch.cat([sa, glca], dim=1) / 2**0.5)
    torch.testing.assert_close(embedding(output, "sa"), sa)
    torch.testing.assert_close(embedding(output, "glca"), glca)
    assert embedding(build("baseline").eval()(images())).shape == (4, 96)


def test_sa_embedding_needs_no_glca():
    output = build().eval()(images(), glca=False)
    assert output.glca is None
    assert output.rollout is None


@pytest.mark.parametrize("method", list(BRANCHES))
def test_every_method_has_a_rollout_when_asked(method):
    """It is that of the self-attention branch, whatever runs beside it."""
    plain, model = perturb(build("glca")).eval(), perturb(build(method))
    model.backbone.load_state_dict(plain.backbone.state_dict())
    expected = plain(images(), rollout=True).rollout
    torch.testing.assert_close(model.eval()(images(), glca=False, rollout=True).rollout, expected)
    torch.testing.assert_close(model.train()(images(), torch.tensor([1, 0, 3, 2]), rollout=True).rollout, expected)


@pytest.mark.parametrize("method", list(BRANCHES))
def test_nobody_pays_for_a_rollout_that_is_not_asked_for(method, monkeypatch):
    monkeypatch.setattr(dcal, "class_row", lambda *args: pytest.fail("the rollout was computed"))
    assert build(method).train()(images(), torch.tensor([1, 0, 3, 2])).rollout is None


def test_the_partners_pair_wise_stream_is_the_second_reading():
    model = perturb(build("pwca", partner_stream="pwca")).train()
    partner = torch.tensor([1, 0, 3, 2])
    other = model(images(), partner).pwca.token
    model.options = replace(model.options, partner_stream="sa")
    assert not torch.allclose(model(images(), partner).pwca.token, other)


@pytest.mark.parametrize(
    ("kwargs", "message"), [({"method": "both"}, "unknown method 'both'"), ({"ratio": 0.0}, "ratio")]
)
def test_unusable_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_attention_is_fused(monkeypatch):
    calls = []
    real = layers.F.scaled_dot_product_attention
    monkeypatch.setattr(
        layers.F, "scaled_dot_product_attention", lambda *args, **kw: calls.append(1) or real(*args, **kw)
    )
    build().train()(images(), torch.tensor([1, 0, 3, 2]))
    assert len(calls) == 4 * 2 + 1


def test_a_branch_names_its_head_and_holds_what_its_neck_gave():
    model = build().train()
    with torch.no_grad():
        output = model(images(), torch.tensor([1, 0, 3, 2]))
    assert [branch.head for branch in (output.sa, output.glca, output.pwca)] == ["sa", "glca", "sa"]
    for branch in output.branches().values():
        normed = (branch.token - branch.token.mean(dim=0)) / (branch.token.var(dim=0, correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(branch.features, normed, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(branch.logits, branch.features @ model.heads[branch.head].classifier.weight.T)
    assert build(head="fgvc").eval()(images()).sa.features is None
