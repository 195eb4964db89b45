"""Losses of a branch and of the whole: cross-entropy, batch-hard triplet, uncertainty weighting.

B images, D width, C classes, w log variances, one per branch.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reid.models.dcal import Branch, DcalOutput


def batch_hard_triplet(tokens: Tensor, labels: Tensor, margin: float | None = None) -> Tensor:
    """Batch-hard triplet loss: each image against its farthest positive and nearest negative (Hermans et al., 2017).

    `tokens` (B, D), unnormalised; Euclidean distances in float32 even under autocast. Without a `margin` the soft one,
    log(1 + exp(positive - negative)). Returns the mean over the batch.

    Raises ValueError for a batch of a single class, in which no negative exists.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        tokens = tokens.float()
        # The matrix-product form of cdist loses small distances to cancellation.
        distances = torch.cdist(tokens, tokens, compute_mode="donot_use_mm_for_euclid_dist")
        same = labels.unsqueeze(0) == labels.unsqueeze(1)
        # Not asked on a GPU, which would stand idle for the answer; PKSampler deals at least two identities.
        if not same.is_cuda and bool(same.all()):
            raise ValueError(f"a triplet needs two identities in a batch, got {len(labels)} images of one")
        positive = distances.masked_fill(~same, 0).amax(dim=1)
        negative = distances.masked_fill(same, torch.inf).amin(dim=1)
        if margin is None:
            return F.softplus(positive - negative).mean()
        return F.relu(positive - negative + margin).mean()


@dataclass(frozen=True)
class ReidLoss:
    """A Re-ID branch's loss: cross-entropy on the logits plus the triplet on the token before the neck."""

    label_smoothing: float = 0.0
    margin: float | None = None

    def __call__(self, branch: Branch, labels: Tensor) -> dict[str, Tensor]:
        """The parts of the loss by name, each a float32 scalar."""
        return {
            "ce": F.cross_entropy(branch.logits.float(), labels, label_smoothing=self.label_smoothing),
            "triplet": batch_hard_triplet(branch.token, labels, self.margin),
        }


@dataclass(frozen=True)
class FgvcLoss:
    """A classification branch's loss: cross-entropy on the logits."""

    label_smoothing: float = 0.0

    def __call__(self, branch: Branch, labels: Tensor) -> dict[str, Tensor]:
        """The parts of the loss by name, each a float32 scalar."""
        return {"ce": F.cross_entropy(branch.logits.float(), labels, label_smoothing=self.label_smoothing)}


BranchLoss = ReidLoss | FgvcLoss


def branch_losses(output: DcalOutput, labels: Tensor, branch_loss: BranchLoss) -> dict[str, dict[str, Tensor]]:
    """The parts of every branch's loss, by branch and part."""
    return {name: branch_loss(branch, labels) for name, branch in output.branches().items()}


def total_loss(parts: dict[str, dict[str, Tensor]], log_variances: Tensor | None) -> Tensor:
    """1/2 (sum over branches of e^-w L + w), with w learned (Kendall et al., 2018); one branch alone is unweighted.

    `parts` is what `branch_losses` gives, its branches in the order of `log_variances` (one number a branch).
    """
    losses = torch.stack([torch.stack(list(branch.values())).sum() for branch in parts.values()])
    if log_variances is None:
        return losses.sum()
    return 0.5 * (torch.exp(-log_variances.float()) * losses + log_variances.float()).sum()
