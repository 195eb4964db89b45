"""TransReID's jigsaw patch module: class tokens of shuffled parts of an image (He et al., 2021, section 3.2).

B images, T tokens, N patches, D width.
"""

import copy

import torch
from torch import Tensor, nn

from reid.models.layers import TimmModule, open_block

PARTS = 4
GROUPS = 2


class JigsawPatches(nn.Module):
    """An encoder block of its own over the class token and each of four parts of the patches.

    Starts as a copy of the last block and of the final norm. `shift` is how far the patches are moved before they are
    shuffled: 5 for persons, 8 for vehicles.
    """

    order: Tensor

    def __init__(self, block: TimmModule, norm: nn.Module, *, patches: int, prefix: int, shift: int) -> None:
        """`patches` is N, `prefix` the tokens before them. Raises ValueError for fewer patches than parts."""
        super().__init__()
        if patches < PARTS:
            raise ValueError(f"jigsaw makes {PARTS} parts of the patches, of which there are {patches}")
        self.block = copy.deepcopy(block)
        self.norm = copy.deepcopy(norm)
        order = torch.tensor(shuffled(patches, shift)) + prefix
        size = patches // PARTS
        parts = order[: PARTS * size].view(PARTS, size)
        token = torch.zeros(PARTS, 1, dtype=torch.long)
        self.register_buffer("order", torch.cat([token, parts], dim=1), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """The tokens (B, T, D) before the last block to the normed class token of each part, (B, PARTS, D)."""
        layer, count = open_block(self.block), tokens.shape[0]
        parts = tokens[:, self.order].flatten(0, 1)
        at = self.order.repeat(count, 1)
        query, key, value = layer.project(parts, "qkv", at)
        finished = layer.finish(parts[:, :1], layer.attend(query[:, :1], key, value))
        normed: Tensor = self.norm(finished)
        return normed.view(count, PARTS, -1)


def shuffled(patches: int, shift: int, groups: int = GROUPS) -> list[int]:
    """The patches 0 ... N - 1 in TransReID's order: moved by `shift` - 1, then dealt from `groups` piles in turn.

    Where the piles cannot be equal, the last patch but one is there twice.
    """
    order = [(place + shift - 1) % patches for place in range(patches)]
    if patches % groups:
        order.append(order[-2])
    pile = len(order) // groups
    return [order[group * pile + place] for place in range(pile) for group in range(groups)]
