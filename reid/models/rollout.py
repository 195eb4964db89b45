"""Attention rollout and the choice of local queries (DCAL, section 3.2).

B images, H heads, T tokens (class token first, other prefix tokens, then the N patches), d width of a head.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def class_row(queries: Sequence[Tensor], keys: Sequence[Tensor], scale: float) -> Tensor:
    """The class token's row of the accumulated attention Sbar_L ... Sbar_1, with Sbar_l = 0.5 S_l + 0.5 I (equation 4).

    `queries` and `keys` are each layer's (B, H, T, d), first layer first; `scale` multiplies their products before the
    softmax. S_l, the mean over heads, is recomputed here in float32 and let go layer by layer: only the row is carried,
    from the last layer to the first. Returns (B, T) float32; each row sums to 1.
    """
    with torch.autocast(queries[0].device.type, enabled=False):
        row = _mean_attention(queries[-1][:, :, :1], keys[-1], scale).squeeze(1)
        row = 0.5 * row
        row[:, 0] += 0.5
        for query, key in zip(reversed(queries[:-1]), reversed(keys[:-1]), strict=True):
            row = 0.5 * row + 0.5 * (row.unsqueeze(1) @ _mean_attention(query, key, scale)).squeeze(1)
    return row


def _mean_attention(query: Tensor, key: Tensor, scale: float) -> Tensor:
    scores = (query.float() * scale) @ key.float().transpose(-2, -1)
    return scores.softmax(dim=-1).mean(dim=1)


def local_queries(row: Tensor, ratio: float, prefix: int) -> Tensor:
    """The R = max(1, ceil(ratio N)) patches that the class token draws most from, by their token index.

    `row` is (B, T), `ratio` in (0, 1], `prefix` the number of tokens before the patches. Returns (B, R) int64 indices
    into the T tokens, strongest first; the class token, always a query, is not among them.
    """
    patches = row[:, prefix:]
    count = max(1, math.ceil(ratio * patches.shape[1]))
    return patches.topk(count, dim=1).indices + prefix
