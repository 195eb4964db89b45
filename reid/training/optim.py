"""Optimiser and learning rate: which parameter gets what, and how the rate moves."""

import math
from itertools import chain
from typing import Literal

import torch
from torch import nn

OptimizerName = Literal["sgd", "adamw"]


def build_optimizer(
    model: nn.Module,
    name: OptimizerName,
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    bias_lr_factor: float = 1.0,
    fused: bool = False,
    loss: nn.Module | None = None,
) -> torch.optim.Optimizer:
    """SGD with weight decay on everything, biases included, as TransReID; or AdamW, which spares vectors and positions.

    Biases learn at `bias_lr_factor` times `lr`. `log_variances` is never decayed. What a `loss` learns is optimised by
    the same rules, after the model's parameters. Each group carries `base_lr`, which the schedule multiplies.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter_name, parameter in chain(model.named_parameters(), loss.named_parameters() if loss else ()):
        if not parameter.requires_grad:
            continue
        rate = lr * bias_lr_factor if parameter_name.endswith(".bias") else lr
        spared = parameter.ndim <= 1 or parameter_name.rsplit(".")[-1] in ("pos_embed", "cls_token", "reg_token")
        undecayed = parameter_name == "log_variances" or (name == "adamw" and spared)
        groups.setdefault((rate, 0.0 if undecayed else weight_decay), []).append(parameter)
    described = [
        {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    if name == "sgd":
        return torch.optim.SGD(described, lr=lr, momentum=momentum, fused=fused)
    return torch.optim.AdamW(described, lr=lr, fused=fused)


def learning_rate_factor(
    epoch: float, *, epochs: float, warmup_epochs: float, warmup_start: float, floor: float
) -> float:
    """The factor on the base rate at a fractional `epoch` in [0, epochs].

    Linear from `warmup_start` to 1 over `warmup_epochs`, then a cosine from 1 at epoch 0 to `floor` at `epochs`: the
    cosine's clock runs through the warm-up and is not shifted by it, as in TransReID.
    """
    if epoch < warmup_epochs:
        return warmup_start + (1 - warmup_start) * epoch / warmup_epochs
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(epoch, epochs) / epochs))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to `factor` times its base rate."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["base_lr"]
