"""TransReID's side information embeddings: what camera and view add to every token (He et al., 2021, section 3.3).

B images, D width, S combinations of camera and view.
"""

import torch
from torch import Tensor, nn

SCALE = 3.0  # lambda, TransReID's for persons and vehicles


class SideInformation(nn.Module):
    """A learned row for each of S combinations of camera and view."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(count, width))
        nn.init.trunc_normal_(self.embedding, std=0.02)

    def forward(self, tokens: Tensor, sides: Tensor) -> Tensor:
        """Tokens (B, T, D) with the rows that `sides` (B,) int64 in [0, S) name added; -1, unknown, adds nothing."""
        rows = self.embedding[sides.clamp(min=0)] * (sides >= 0).unsqueeze(1)
        return tokens + SCALE * rows.unsqueeze(1)
