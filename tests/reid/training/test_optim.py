import math

import pytest
import torch

from reid.models.dcal import build_dcal
from reid.training.losses import ArcFace, PerHead
from reid.training.optim import build_optimizer, learning_rate_factor, set_learning_rate


def model():
    return build_dcal("vit_toy", (16, 16), 4)[0]


def groups_by_name(network, optimizer):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


def test_sgd_follows_transreid():
    network = model()
    found = groups_by_name(network, build_optimizer(network, "sgd", lr=0.008, weight_decay=1e-4, bias_lr_factor=2))
    assert found["backbone.blocks.0.attn.qkv.bias"]["lr"] == 0.016
    assert found["backbone.blocks.0.attn.qkv.bias"]["weight_decay"] == 1e-4
    assert found["backbone.blocks.0.norm1.weight"]["weight_decay"] == 1e-4
    assert found["backbone.pos_embed"]["lr"] == 0.008
    assert "heads.sa.neck.bias" not in found
    assert set(found) == {name for name, p in network.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_loss_weights_are_optimised_without_decay(name):
    network = model()
    group = groups_by_name(network, build_optimizer(network, name, lr=0.1, weight_decay=0.5))["log_variances"]
    assert group["weight_decay"] == 0
    assert group["lr"] == 0.1


def test_adamw_spares_vectors_and_positions():
    network = model()
    found = groups_by_name(network, build_optimizer(network, "adamw", lr=1e-4, weight_decay=0.05))
    decayed = {name for name, group in found.items() if group["weight_decay"]}
    assert "backbone.blocks.0.attn.qkv.weight" in decayed
    assert not {"backbone.pos_embed", "backbone.cls_token", "backbone.norm.weight", "glca.norm.bias"} & decayed


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_a_loss_learns_is_optimised_as_the_classifier_it_replaces(name):
    network, loss = model(), PerHead(["sa", "glca"], lambda: ArcFace(4, 96))
    options = {"lr": 0.1, "weight_decay": 0.5, "bias_lr_factor": 2}
    groups = build_optimizer(network, name, loss=loss, **options).param_groups
    group = next(group for group in groups if any(p is network.heads["sa"].classifier.weight for p in group["params"]))
    assert [parameter.shape for parameter in group["params"][-2:]] == [(96, 4), (96, 4)]
    assert all(any(parameter is p for p in group["params"]) for parameter in loss.parameters())
    without = build_optimizer(network, name, **options).param_groups
    assert sum(len(g["params"]) for g in groups) == sum(len(g["params"]) for g in without) + 2


def test_schedule_is_the_papers():
    def at(epoch):
        return learning_rate_factor(epoch, epochs=120, warmup_epochs=5, warmup_start=0.01, floor=0.002)

    assert at(0) == pytest.approx(0.01)
    assert at(2.5) == pytest.approx(0.505)
    # The cosine's clock is not shifted: at the end of the warm-up it stands at 5 of 120.
    assert at(5) == pytest.approx(0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * 5 / 120)))
    assert at(60) == pytest.approx(0.501)
    assert at(120) == pytest.approx(0.002)


def test_setting_the_rate_keeps_the_groups_ratio():
    weight, bias = torch.nn.Linear(2, 2).parameters()
    module = torch.nn.Module()
    module.weight, module.bias = weight, bias
    holder = torch.nn.Module()
    holder.layer = module
    optimizer = build_optimizer(holder, "sgd", lr=1.0, weight_decay=0, bias_lr_factor=2)
    set_learning_rate(optimizer, 0.25)
    set_learning_rate(optimizer, 0.5)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.5, 1.0]
