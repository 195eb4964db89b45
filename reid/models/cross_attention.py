"""Global-local and pair-wise cross-attention on timm's transformer blocks (DCAL, sections 3.2 and 3.3).

B images, T tokens (class token first), D width, H heads, d width of a head, R chosen patches.
"""

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

PartnerStream = Literal["sa", "pwca"]


def self_attention(block: Block, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """timm's block on tokens (B, T, D), giving also the queries and keys (B, H, T, d) that the rollout needs."""
    query, key, value = _heads(block, *block.attn.qkv(block.norm1(tokens)).chunk(3, dim=-1))
    attended = _merge(F.scaled_dot_product_attention(query, key, value))
    return _finish(block, tokens, attended), query, key


def pair_wise_attention(
    block: Block, streams: Tensor, partner: Tensor, partner_stream: PartnerStream = "sa"
) -> tuple[Tensor, Tensor, Tensor]:
    """One block of the self-attention and of the pair-wise stream, sharing the weights (PWCA, equation 6).

    `streams` (2B, T, D) holds the self-attention tokens of all images, then their pair-wise tokens; both go through the
    linear layers as one batch. `partner` (B,) int64 names each image's distractor. The queries of the pair-wise stream
    of image i meet its own keys and values and those of its partner in one softmax over 2T; the partner's come from its
    self-attention stream at this depth (`sa`) or from its pair-wise stream (`pwca`). Returns the streams after the
    block, and the queries and keys (B, H, T, d) of the self-attention stream.
    """
    # Apart, because slicing one joint projection would fill and add whole tensors of zeros in the backward pass.
    projections = [part.chunk(2) for part in _project(block, block.norm1(streams), "qkv")]
    (query, query_pair), (key, key_pair), (value, value_pair) = projections
    both = [
        torch.cat([own, (single if partner_stream == "sa" else own).index_select(0, partner)], dim=1)
        for single, own in ((key, key_pair), (value, value_pair))
    ]
    query, key, value = _heads(block, query, key, value)
    paired = F.scaled_dot_product_attention(*_heads(block, query_pair, *both))
    attended = torch.cat([_merge(F.scaled_dot_product_attention(query, key, value)), _merge(paired)])
    return _finish(block, streams, attended), query, key


class GlobalLocalCrossAttention(nn.Module):
    """A whole encoder block of its own in which only the class token and the chosen patches ask (GLCA, equation 5).

    Starts as a copy of the last self-attention block and of the final norm.
    """

    def __init__(self, block: Block, norm: nn.Module) -> None:
        super().__init__()
        self.block = copy.deepcopy(block)
        self.norm = copy.deepcopy(norm)

    def forward(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """Tokens (B, T, D) after the last SA block and chosen (B, R) indices to normed queries (B, 1 + R, D).

        The class token comes first, then the chosen patches in their order.
        """
        asking = torch.cat([torch.zeros_like(chosen[:, :1]), chosen], dim=1)
        first = tokens.shape[1] * torch.arange(tokens.shape[0], device=tokens.device).unsqueeze(1)
        # Whole rows, because gather's backward pass goes number by number.
        queries = tokens.flatten(0, 1).index_select(0, (first + asking).flatten()).view(*asking.shape, -1)
        (query,) = _project(self.block, self.block.norm1(queries), "q")
        key, value = _project(self.block, self.block.norm1(tokens), "kv")
        attended = _merge(F.scaled_dot_product_attention(*_heads(self.block, query, key, value)))
        normed: Tensor = self.norm(_finish(self.block, queries, attended))
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


def _project(block: Block, tokens: Tensor, parts: Literal["qkv", "q", "kv"]) -> tuple[Tensor, ...]:
    """Some of the queries, keys and values (B, T, D) that timm's joint layer gives."""
    layer = block.attn.qkv
    weights = dict(zip("qkv", layer.weight.chunk(3), strict=True))
    biases = dict(zip("qkv", [None] * 3 if layer.bias is None else layer.bias.chunk(3), strict=True))
    return tuple(F.linear(tokens, weights[part], biases[part]) for part in parts)


def _heads(block: Block, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, D) to (B, H, T, d) each; queries and keys go through the block's norms where it has any."""
    query, key, value = (part.unflatten(2, (block.attn.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    return block.attn.q_norm(query), block.attn.k_norm(key), value


def _merge(attended: Tensor) -> Tensor:
    """(B, H, T, d) to (B, T, D)."""
    return attended.transpose(1, 2).flatten(2)


def _finish(block: Block, tokens: Tensor, attended: Tensor) -> Tensor:
    """What follows the attention (B, T, D) in a pre-norm block: projection, residual, feed-forward, residual."""
    merged = block.attn.proj_drop(block.attn.proj(attended))
    tokens = tokens + block.drop_path1(block.ls1(merged))
    finished: Tensor = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
    return finished
