"""Global-local and pair-wise cross-attention on the layers of any backbone (DCAL, sections 3.2 and 3.3).

B images, T tokens (class token first), D width, H heads, d width of a head, R chosen patches.
"""

import copy

import torch
from torch import Tensor, nn

from reid.models.layers import Layer, TimmModule, open_block
from reid.names import PartnerStream


def self_attention(layer: Layer, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The layer on tokens (B, T, D), giving also the queries and keys (B, T, H, d) that the rollout needs."""
    tokens = layer.enter(tokens)
    query, key, value = layer.project(tokens)
    return layer.finish(tokens, layer.attend(query, key, value)), query, key


def pair_wise_attention(
    layer: Layer, streams: Tensor, partner: Tensor, partner_stream: PartnerStream = "sa"
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer of the self-attention and of the pair-wise stream, sharing the weights (PWCA, equation 6).

    `streams` (2B, T, D) holds the self-attention tokens of all images, then their pair-wise tokens; both go through the
    linear layers as one batch. `partner` (B,) int64 names each image's distractor. The queries of the pair-wise stream
    of image i meet its own keys and values and those of its partner in one softmax over 2T; the partner's come from its
    self-attention stream at this depth (`sa`) or from its pair-wise stream (`pwca`). Returns the streams after the
    layer, and the queries and keys (B, T, H, d) of the self-attention stream.
    """
    streams = layer.enter(streams)
    (query, query_pair), (key, key_pair), (value, value_pair) = (part.chunk(2) for part in layer.project(streams))
    key_both, value_both = (
        torch.cat([own, (single if partner_stream == "sa" else own).index_select(0, partner)], dim=-3)
        for single, own in ((key, key_pair), (value, value_pair))
    )
    attended = torch.cat([layer.attend(query, key, value), layer.attend(query_pair, key_both, value_both, images=2)])
    return layer.finish(streams, attended), query, key


class GlobalLocalCrossAttention(nn.Module):
    """A whole encoder block of its own in which only the class token and the chosen patches ask (GLCA, equation 5).

    Starts as a copy of the last self-attention block and of the final norm.
    """

    def __init__(self, block: TimmModule, norm: nn.Module) -> None:
        super().__init__()
        self.block = copy.deepcopy(block)
        self.norm = copy.deepcopy(norm)

    def forward(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """Tokens (B, T, D) after the last SA block and chosen (B, R) indices to normed queries (B, 1 + R, D).

        The class token comes first, then the chosen patches in their order. They meet all tokens.
        """
        layer = open_block(self.block)
        asking = torch.cat([torch.zeros_like(chosen[:, :1]), chosen], dim=1)
        first = tokens.shape[1] * torch.arange(tokens.shape[0], device=tokens.device).unsqueeze(1)
        # Whole rows, because gather's backward pass goes number by number.
        queries = tokens.flatten(0, 1).index_select(0, (first + asking).flatten()).view(*asking.shape, -1)
        (query,) = layer.project(queries, "q", asking)
        key, value = layer.project(tokens, "kv")
        normed: Tensor = self.norm(layer.finish(queries, layer.attend(query, key, value)))
        return normed


def derangement(count: int, generator: torch.Generator) -> Tensor:
    """A uniformly random permutation (count,) of 0 ... count - 1 without a fixed point, on the CPU.

    Raises ValueError for a count below 2, of which there is none.
    """
    if count < 2:
        raise ValueError(f"pair-wise cross-attention needs at least 2 images in a batch, got {count}")
    identity = torch.arange(count)
    while True:  # a random permutation is a derangement with probability near 1/e
        permutation = torch.randperm(count, generator=generator)
        if not (permutation == identity).any():
            return permutation
