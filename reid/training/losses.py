"""Losses of a branch, as named parts, and of the whole: their sum, weighted by learned uncertainty.

B images, D width, C classes, w log variances, one per branch. A part is a module that takes a Branch and labels (B,)
int64 to a float32 scalar, also under autocast. What it learns is trained and saved with the state of a run, and is no
part of the model.
"""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class CrossEntropy(nn.Module):
    """Cross-entropy on the logits."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, branch: Branch, labels: Tensor) -> Tensor:
        return F.cross_entropy(branch.logits.float(), labels, label_smoothing=self.label_smoothing)


class Triplet(nn.Module):
    """`batch_hard_triplet` on the token before the neck."""

    def __init__(self, margin: float | None = None) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, branch: Branch, labels: Tensor) -> Tensor:
        return batch_hard_triplet(branch.token, labels, self.margin)


class Circle(nn.Module):
    """Circle loss with pairs of the batch, on the cosines of the token before the neck (Sun et al., 2020, equation 6).

    `scale` is gamma, `margin` m; an image without another one of its identity in the batch does not count.
    """

    def __init__(self, scale: float = 128.0, margin: float = 0.25) -> None:
        super().__init__()
        from pytorch_metric_learning.losses import CircleLoss  # a slow import, for those who ask for it

        self.loss = CircleLoss(m=margin, gamma=scale)

    def forward(self, branch: Branch, labels: Tensor) -> Tensor:
        with torch.autocast(branch.token.device.type, enabled=False):
            value: Tensor = self.loss(branch.token.float(), labels)
            return value


class ArcFace(nn.Module):
    """Cross-entropy with an additive angular margin, on class weights of its own (Deng et al., 2019, equation 3).

    It reads the features after the neck, as TransReID and fast-reid do, or the token where the head has no neck.
    `margin` is in radians. The C x D class weights are a parameter; only their directions count.
    """

    def __init__(self, classes: int, width: int, scale: float = 64.0, margin: float = 0.5) -> None:
        super().__init__()
        from pytorch_metric_learning.losses import ArcFaceLoss  # a slow import, for those who ask for it

        # Under SGD a weight of length r turns r^2 times slower than a unit one. The library's own would have r^2 = D;
        # these have about 1 where there are as many classes as numbers in a token.
        self.loss = ArcFaceLoss(
            classes, width, margin=math.degrees(margin), scale=scale, weight_init_func=nn.init.xavier_uniform_
        )

    def forward(self, branch: Branch, labels: Tensor) -> Tensor:
        features = branch.token if branch.features is None else branch.features
        with torch.autocast(features.device.type, enabled=False):
            value: Tensor = self.loss(features.float(), labels)
            return value


class Center(nn.Module):
    """Center loss: half the mean squared distance of the token before the neck to its class's center, times `weight`.

    (Wen et al., 2016, equation 2; Luo et al., 2019, for Re-ID.) After each batch in training the centers of its classes
    move towards their tokens by `rate`, alpha in equation 4. They are a buffer: to the optimiser they would be
    parameters whose gradient is as small as the weight, and would stand still.
    """

    centers: Tensor

    def __init__(self, classes: int, width: int, weight: float, rate: float = 0.5) -> None:
        super().__init__()
        self.weight = weight
        self.rate = rate
        self.register_buffer("centers", torch.zeros(classes, width))

    def forward(self, branch: Branch, labels: Tensor) -> Tensor:
        with torch.autocast(branch.token.device.type, enabled=False):
            offsets = branch.token.float() - self.centers[labels]
            if self.training:
                alike = (labels.unsqueeze(0) == labels.unsqueeze(1)).sum(dim=1, keepdim=True)
                self.centers.index_add_(0, labels, self.rate * offsets.detach() / (1 + alike))
            return self.weight * 0.5 * offsets.square().sum(dim=1).mean()


class PerHead(nn.Module):
    """A part that learns, once for each of the `heads`: branches that share a head share what is learned."""

    def __init__(self, heads: Iterable[str], build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({head: build() for head in heads})

    def forward(self, branch: Branch, labels: Tensor) -> Tensor:
        value: Tensor = self.heads[branch.head](branch, labels)
        return value


class BranchLoss(nn.Module):
    """A branch's loss, which is the sum of its parts."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, branch: Branch, labels: Tensor) -> dict[str, Tensor]:
        """The parts of the loss by name, each a float32 scalar."""
        return {name: part(branch, labels) for name, part in self.parts.items()}


class ReidLoss(BranchLoss):
    """The paper's loss of a Re-ID branch: cross-entropy and batch-hard triplet."""

    def __init__(self, label_smoothing: float = 0.0, margin: float | None = None) -> None:
        super().__init__(ce=CrossEntropy(label_smoothing), triplet=Triplet(margin))


class FgvcLoss(BranchLoss):
    """The paper's loss of a classification branch: cross-entropy."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__(ce=CrossEntropy(label_smoothing))


def branch_losses(output: DcalOutput, labels: Tensor, branch_loss: BranchLoss) -> dict[str, dict[str, Tensor]]:
    """The parts of every branch's loss, by branch and part.

    With a jigsaw module, the SA branch's is half that of its own token and half the mean of those of the parts.
    """
    losses = {name: branch_loss(branch, labels) for name, branch in output.branches().items()}
    if output.jigsaw:
        parts = [branch_loss(branch, labels) for branch in output.jigsaw]
        means = {f"jigsaw_{name}": torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        losses["sa"] = {name: 0.5 * value for name, value in (losses["sa"] | means).items()}
    return losses


def total_loss(parts: dict[str, dict[str, Tensor]], log_variances: Tensor | None) -> Tensor:
    """1/2 (sum over branches of e^-w L + w), with w learned (Kendall et al., 2018); one branch alone is unweighted.

    `parts` is what `branch_losses` gives, its branches in the order of `log_variances` (one number a branch).
    """
    losses = torch.stack([torch.stack(list(branch.values())).sum() for branch in parts.values()])
    if log_variances is None:
        return losses.sum()
    return 0.5 * (torch.exp(-log_variances.float()) * losses + log_variances.float()).sum()
