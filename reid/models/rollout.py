"""Attention rollout and the choice of local queries (DCAL, section 3.2).

B images, H heads, T tokens (class token first, other prefix tokens, then the N patches), d width of a head.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from reid.models.layers import Layer


@torch.no_grad()
def class_row(looks: Iterable[tuple[Layer, Tensor, Tensor]]) -> Tensor:
    """The class token's row of the accumulated attention Sbar_L ... Sbar_1, with Sbar_l = 0.5 S_l + 0.5 I (equation 4).

    `looks` are the layers with their queries and keys (B, T, H, d), the last layer first. S_l, the mean over heads, is
    recomputed here in float32 and let go layer by layer: only the row is carried. Returns (B, T) float32; each row sums
    to 1.
    """
    looks = iter(looks)
    last, query, key = next(looks)
    with torch.autocast(query.device.type, enabled=False):
        row = 0.5 * last.mean_attention(query[:, :1], key).squeeze(1)
        row[:, 0] += 0.5
    for layer, query, key in looks:
        with torch.autocast(query.device.type, enabled=False):
            row = layer.roll(row, query, key)
    return row


def local_queries(row: Tensor, ratio: float, prefix: int) -> Tensor:
    """The R = max(1, ceil(ratio N)) patches that the class token draws most from, by their token index.

    `row` is (B, T), `ratio` in (0, 1], `prefix` the number of tokens before the patches. Returns (B, R) int64 indices
    into the T tokens, strongest first; the class token, always a query, is not among them.
    """
    patches = row[:, prefix:]
    return patches.topk(query_count(patches.shape[1], ratio), dim=1).indices + prefix


def query_count(patches: int, ratio: float) -> int:
    """R, how many of N patches are chosen at a ratio in (0, 1]."""
    return max(1, math.ceil(ratio * patches))
