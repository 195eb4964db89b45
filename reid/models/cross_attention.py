"""Global-local and pair-wise cross-attention on the layers of any backbone (DCAL, sections 3.2 and 3.3).

B images, T tokens (class token first), D width, H heads, d width of a head.
"""

import copy

import torch
from torch import Tensor, nn

from reid.models.layers import Layer, TimmModule, open_block
from reid.names import PartnerStream


def self_attention(layer: Layer, tokens: Tensor, *, whole: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """The layer on tokens (B, T, D), giving also the queries and keys (B, T, H, d) that the rollout needs.

    Without `whole` the class token alone asks, (B, 1, D): enough of a last layer of which nothing else is read.
    """
    asking, query, key, value = _asked(layer, layer.enter(tokens), whole)
    return layer.finish(asking, layer.attend(query, key, value)), query, key


def pair_wise_attention(
    layer: Layer, streams: Tensor, partner: Tensor, partner_stream: PartnerStream = "sa"
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer of the self-attention and of the pair-wise stream, sharing the weights (PWCA, equation 6).

    `streams` (2B, T, D) holds the self-attention tokens of all images, then their pair-wise tokens; both go through the
    linear layers as one batch. Before the first layer they are the same, and given once, (B, T, D). `partner` (B,)
    int64 names each image's distractor. The queries of the pair-wise stream of image i meet its own keys and values and
    those of its partner in one softmax over 2T; the partner's come from its self-attention stream at this depth (`sa`)
    or from its pair-wise stream (`pwca`). Returns the streams after the layer (2B, T, D), and the queries and keys
    (B, T, H, d) of the self-attention stream.
    """
    streams = layer.enter(streams)
    (query, query_pair), *meeting = (_apart(part, partner) for part in layer.project(streams))
    (key, key_both), (value, value_both) = (_beside(pair, partner, partner_stream) for pair in meeting)
    attended = torch.cat([layer.attend(query, key, value), layer.attend(query_pair, key_both, value_both, images=2)])
    if len(streams) == len(partner):
        streams = torch.cat([streams, streams])
    return layer.finish(streams, attended), query, key


def pair_wise_class_attention(
    layer: Layer, streams: Tensor, partner: Tensor, partner_stream: PartnerStream = "sa", *, whole: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`pair_wise_attention` of which the pair-wise stream's class token alone is read.

    Returns the self-attention tokens (B, T, D), without `whole` the class token alone, and the pair-wise class token
    (B, 1, D); then queries and keys of the self-attention stream, as `self_attention` does.
    """
    tokens, paired = _apart(layer.enter(streams), partner)
    asking, query, *meeting = _asked(layer, tokens, whole)
    asking_pair, query_pair, *own = _asked(layer, paired, False)
    (key, key_both), (value, value_both) = (
        _beside(pair, partner, partner_stream) for pair in zip(meeting, own, strict=True)
    )
    token = layer.finish(asking_pair, layer.attend(query_pair, key_both, value_both, images=2))
    return layer.finish(asking, layer.attend(query, key, value)), token, query, key


def _asked(layer: Layer, tokens: Tensor, whole: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of tokens (B, T, D) those that ask, all or the class token alone, their queries, and all keys and values."""
    if whole:
        query, key, value = layer.project(tokens)
        return tokens, query, key, value
    first = torch.zeros(1, 1, dtype=torch.long, device=tokens.device)
    (query,), (key, value) = layer.project(tokens[:, :1], "q", first), layer.project(tokens, "kv")
    return tokens[:, :1], query, key, value


def _apart(streams: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """What of both streams (2B, ...), or given once for both (B, ...), belongs to each."""
    if len(streams) == len(partner):
        return streams, streams
    own, paired = streams.chunk(2)
    return own, paired


def _beside(pair: tuple[Tensor, Tensor], partner: Tensor, partner_stream: PartnerStream) -> tuple[Tensor, Tensor]:
    """Keys or values (B, T, H, d) of the self-attention stream; and of the pair-wise one, those of partners behind."""
    single, own = pair
    others = (single if partner_stream == "sa" else own).index_select(0, partner)
    return single, torch.cat([own, others], dim=-3)


class GlobalLocalCrossAttention(nn.Module):
    """A whole encoder block of its own, in which local queries meet all tokens (GLCA, equation 5).

    Starts as a copy of the last self-attention block and of the final norm. What is read of it is the class token. In
    one block that depends on its own query and on all keys and values, but on no other query: what the chosen patches
    ask is not computed.
    """

    def __init__(self, block: TimmModule, norm: nn.Module) -> None:
        super().__init__()
        self.block = copy.deepcopy(block)
        self.norm = copy.deepcopy(norm)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, D) after the last SA block to the normed class token (B, D)."""
        normed: Tensor = self.norm(self_attention(open_block(self.block), tokens, whole=False)[0])
        return normed[:, 0]


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
