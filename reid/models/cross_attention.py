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
    query, key, value = _project(block, tokens)
    return _finish(block, tokens, F.scaled_dot_product_attention(query, key, value)), query, key


def pair_wise_attention(
    block: Block, tokens: Tensor, paired: Tensor, partner: Tensor, partner_stream: PartnerStream = "sa"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One block of the self-attention stream and of the pair-wise stream, sharing the weights (PWCA, equation 6).

    `tokens` and `paired` (B, T, D) are the two streams, `partner` (B,) int64 names each image's distractor. The queries
    of the pair-wise stream of image i meet its own keys and values and those of its partner in one softmax over 2T; the
    partner's come from its self-attention stream at this depth (`sa`) or from its pair-wise stream (`pwca`). Both
    streams go through the linear layers as one batch. Returns both streams after the block, and the queries and keys of
    the self-attention stream.
    """
    both = torch.cat([tokens, paired])
    query, key, value = _project(block, both)
    (query_sa, query_pw), (key_sa, key_pw), (value_sa, value_pw) = query.chunk(2), key.chunk(2), value.chunk(2)
    key_other, value_other = (key_sa, value_sa) if partner_stream == "sa" else (key_pw, value_pw)
    attended = torch.cat(
        [
            F.scaled_dot_product_attention(query_sa, key_sa, value_sa),
            F.scaled_dot_product_attention(
                query_pw,
                torch.cat([key_pw, key_other[partner]], dim=2),
                torch.cat([value_pw, value_other[partner]], dim=2),
            ),
        ]
    )
    tokens, paired = _finish(block, both, attended).chunk(2)
    return tokens, paired, query_sa, key_sa


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
        asking = torch.cat([chosen.new_zeros(len(chosen), 1), chosen], dim=1)
        queries = tokens.gather(1, asking.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        attention = self.block.attn
        width = attention.qkv.out_features // 3
        weight, bias = attention.qkv.weight, attention.qkv.bias
        bias_q, bias_kv = (None, None) if bias is None else (bias[:width], bias[width:])
        query = _split_heads(F.linear(self.block.norm1(queries), weight[:width], bias_q), 1, attention.num_heads)[0]
        key, value = _split_heads(F.linear(self.block.norm1(tokens), weight[width:], bias_kv), 2, attention.num_heads)
        attended = F.scaled_dot_product_attention(attention.q_norm(query), attention.k_norm(key), value)
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


def _split_heads(projected: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    batch, count, width = projected.shape
    return projected.reshape(batch, count, parts, heads, width // (parts * heads)).permute(2, 0, 3, 1, 4).unbind(0)


def _project(block: Block, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    attention = block.attn
    query, key, value = _split_heads(attention.qkv(block.norm1(tokens)), 3, attention.num_heads)
    return attention.q_norm(query), attention.k_norm(key), value


def _finish(block: Block, tokens: Tensor, attended: Tensor) -> Tensor:
    """What follows the attention (B, H, T, d) in a pre-norm block: projection, residual, feed-forward, residual."""
    merged = block.attn.proj_drop(block.attn.proj(attended.transpose(1, 2).flatten(2)))
    tokens = tokens + block.drop_path1(block.ls1(merged))
    finished: Tensor = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
    return finished
