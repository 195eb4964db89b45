"""timm's transformer blocks, opened where the cross-attentions reach in.

B images, T tokens, D width, H heads, d width of a head, W windows. Queries, keys and values are (B, T, H, d), or in
windows (B, W, T, H, d): tokens before heads, so that those of two images are joined by one copy.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.models.cait import Cait, LayerScaleBlock, TalkingHeadAttn
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.swin_transformer import SwinTransformer, window_partition, window_reverse
from timm.models.vision_transformer import Block
from torch import Tensor, nn

TimmModule = Any  # timm's own annotations lose what its modules hold
Parts = Literal["qkv", "q", "kv"]

CACHED = 2 << 20  # bytes of attention maps that a CPU has in its cache until they are used
ROTARY = "rotary_table"  # of a block's attention: a row of sines and cosines for each of its T tokens


class Layer:
    """One pre-norm block on tokens (B, T, D), step by step: `enter`, `project`, `attend`, `finish`.

    Run in this order it computes what timm's block computes. This one is timm's plain `Block`.
    """

    scales: tuple[str, str] = ("ls1", "ls2")
    drops: tuple[str, str] = ("drop_path1", "drop_path2")

    def __init__(self, block: TimmModule) -> None:
        self.block = block

    def enter(self, tokens: Tensor) -> Tensor:
        """What comes between the block before and this one: here nothing."""
        return tokens

    def project(self, tokens: Tensor, parts: Parts = "qkv", at: Tensor | None = None) -> tuple[Tensor, ...]:
        """The queries, keys and values (B, T, H, d) of normed tokens, of these the `parts`.

        `at` (B, T) says which of the block's tokens the given ones are; by default they are all, in their order.
        """
        return self._project(self.block.norm1(tokens), parts, at)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, images: int = 1) -> Tensor:
        """Queries that meet keys and values in one softmax: what they draw, (B, T, D) before the output projection.

        The keys and values are those of so many `images`, one after the other, each in the same order.
        """
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        if query.requires_grad and query.dtype == torch.bfloat16 and query.device.type == "cpu":
            # torch's fused attention takes 2 to 4 times as long here: its backward pass is slow in bfloat16.
            shares = ((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)).softmax(dim=-1)
            drawn: Tensor = shares.to(value.dtype) @ value
            return drawn.transpose(1, 2).flatten(2)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """What follows the attention: output projection, residual, feed-forward, residual."""
        return self._feed(self._add(tokens, self._output(attended)))

    def mean_attention(self, query: Tensor, key: Tensor) -> Tensor:
        """The attention that `attend` applies, (B, T queries, T keys) float32, averaged over heads; rows sum to 1."""
        query, key = query.float().transpose(1, 2) * self.block.attn.scale, key.float().transpose(1, 2)
        return (query @ key.transpose(-2, -1)).softmax(dim=-1).mean(dim=1)

    def roll(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """A row (B, T') of shares of this layer's output tokens, as shares of its input tokens (equation 4).

        T' may count tokens in front of the block's own, which it does not touch.
        """
        before, own = row.split([row.shape[1] - key.shape[1], key.shape[1]], dim=1)
        parts = [(own.unsqueeze(1), query, key)]
        # On a CPU, maps that leave its cache before they are used take twice the time. A graph has no number of images.
        if query.device.type == "cpu" and not torch.compiler.is_compiling():
            at_once = max(1, CACHED // (4 * query.shape[2] * query.shape[1] ** 2))
            parts = list(zip(*(part.split(at_once) for part in parts[0]), strict=True))
        drawn = torch.cat([shares @ self.mean_attention(query, key) for shares, query, key in parts]).squeeze(1)
        return torch.cat([before, 0.5 * own + 0.5 * drawn], dim=1)

    def _project(self, normed: Tensor, parts: Parts, at: Tensor | None = None) -> tuple[Tensor, ...]:
        # Apart, because slicing one joint projection would fill and add whole tensors of zeros in the backward pass.
        heads = self.block.attn.num_heads
        found = {part: F.linear(normed, *self._linear(part)).unflatten(-1, (heads, -1)) for part in parts}
        return tuple(self._place(part, projected, at) for part, projected in found.items())

    def _linear(self, part: str) -> tuple[Tensor, Tensor | None]:
        joint, third = self.block.attn.qkv, "qkv".index(part)
        return joint.weight.chunk(3)[third], None if joint.bias is None else joint.bias.chunk(3)[third]

    def _place(self, part: str, projected: Tensor, at: Tensor | None) -> Tensor:
        norm = getattr(self.block.attn, f"{part}_norm", None)
        return projected if norm is None else norm(projected)

    def _output(self, attended: Tensor) -> Tensor:
        attention = self.block.attn
        norm = getattr(attention, "norm", None)
        output: Tensor = attention.proj_drop(attention.proj(attended if norm is None else norm(attended)))
        return output

    def _add(self, tokens: Tensor, output: Tensor) -> Tensor:
        return self._residual(0, tokens, output)

    def _feed(self, tokens: Tensor) -> Tensor:
        return self._residual(1, tokens, self.block.mlp(self.block.norm2(tokens)))

    def _residual(self, which: int, tokens: Tensor, change: Tensor) -> Tensor:
        scale = getattr(self.block, self.scales[which], None)
        if isinstance(scale, nn.Parameter):
            change = scale * change
        elif scale is not None:
            change = scale(change)
        added: Tensor = tokens + getattr(self.block, self.drops[which])(change)
        return added


class RotaryLayer(Layer):
    """A block of EVA-02 or DINOv3, whose queries and keys turn with the place of their patch."""

    scales = ("gamma_1", "gamma_2")

    def _linear(self, part: str) -> tuple[Tensor, Tensor | None]:
        attention = self.block.attn
        if attention.qkv is None:
            apart = getattr(attention, f"{part}_proj")
            return apart.weight, apart.bias
        if getattr(attention, "q_bias", None) is None:
            return super()._linear(part)
        return attention.qkv.weight.chunk(3)["qkv".index(part)], getattr(attention, f"{part}_bias")

    def _place(self, part: str, projected: Tensor, at: Tensor | None) -> Tensor:
        projected = super()._place(part, projected, at)
        if part == "v" or not hasattr(self.block.attn, ROTARY):
            return projected
        table = getattr(self.block.attn, ROTARY)
        table = table.unsqueeze(-2) if at is None else table[at].unsqueeze(-2)
        turned: Tensor = apply_rot_embed_cat(projected, table, half=self.block.attn.rotate_half)
        return turned


class TalkingHeadsLayer(Layer):
    """A self-attention block of CaiT, whose heads are mixed before and after the softmax."""

    scales = ("gamma_1", "gamma_2")
    drops = ("drop_path", "drop_path")

    def attend(self, query: Tensor, key: Tensor, value: Tensor, images: int = 1) -> Tensor:
        return (self._maps(query, key, images) @ value.transpose(1, 2)).transpose(1, 2).flatten(2)

    def mean_attention(self, query: Tensor, key: Tensor) -> Tensor:
        # The mixed maps may hold negative weights and need not sum to 1, as shares must.
        mixed = self._maps(query.float(), key.float()).mean(dim=1).clamp(min=0) + torch.finfo(torch.float32).tiny
        return mixed / mixed.sum(dim=-1, keepdim=True)

    def _maps(self, query: Tensor, key: Tensor, images: int = 1) -> Tensor:
        attention = self.block.attn
        scores = (query.transpose(1, 2) * attention.scale) @ key.permute(0, 2, 3, 1)
        shares = attention.proj_l(scores.movedim(1, -1)).movedim(-1, 1).softmax(dim=-1)
        # The last bias is a weight on every key, so it is shared among the images: else two would weigh it double, and
        # an image beside itself would not see what it sees alone.
        mixing = attention.proj_w
        return F.linear(shares.movedim(1, -1), mixing.weight, mixing.bias / images).movedim(-1, 1)


class ClassAttentionLayer(Layer):
    """A class-attention block of CaiT: only the class token asks and changes. The first of them brings it in."""

    scales = ("gamma_1", "gamma_2")
    drops = ("drop_path", "drop_path")

    def __init__(self, block: TimmModule, model: Cait, *, first: bool) -> None:
        super().__init__(block)
        self.model = model
        self.first = first

    def enter(self, tokens: Tensor) -> Tensor:
        if not self.first:
            return tokens
        return torch.cat([self.model.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def project(self, tokens: Tensor, parts: Parts = "qkv", at: Tensor | None = None) -> tuple[Tensor, ...]:
        normed = self.block.norm1(tokens)
        if "q" not in parts:
            return self._project(normed, parts)
        query = self._project(normed[:, :1], "q")
        return query + self._project(normed, "kv")[: len(parts) - 1]

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        return torch.cat([super().finish(tokens[:, :1], attended), tokens[:, 1:]], dim=1)

    def roll(self, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
        token, patches = row.split([1, row.shape[1] - 1], dim=1)
        drawn: Tensor = token * self.mean_attention(query, key).squeeze(1)
        return torch.cat([0.5 * token, patches], dim=1) + 0.5 * drawn

    def _linear(self, part: str) -> tuple[Tensor, Tensor | None]:
        linear = getattr(self.block.attn, part)
        return linear.weight, linear.bias


class WindowLayer(Layer):
    """A block of Swin on tokens (B, rows, columns, D): attention in windows, shifted in every other block."""

    def __init__(self, block: TimmModule, merging: TimmModule | None) -> None:
        """`merging` makes one token of four before the first block of a stage."""
        super().__init__(block)
        self.merging = merging

    def enter(self, tokens: Tensor) -> Tensor:
        entered: Tensor = tokens if self.merging is None else self.merging(tokens)
        return entered

    def project(self, tokens: Tensor, parts: Parts = "qkv", at: Tensor | None = None) -> tuple[Tensor, ...]:
        block = self.block
        rows, columns = (-side % window for side, window in zip(tokens.shape[1:3], block.window_size, strict=True))
        shifted = torch.roll(block.norm1(tokens), [-shift for shift in block.shift_size], dims=(1, 2))
        windows = window_partition(F.pad(shifted, (0, 0, 0, columns, 0, rows)), block.window_size)
        return self._project(windows.flatten(1, 2).unflatten(0, (tokens.shape[0], -1)), parts)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, images: int = 1) -> Tensor:
        bias = self._bias().repeat(1, 1, 1, images)  # of places: it holds for the partner's window as for the own one
        scores = (query.transpose(2, 3) * self.block.attn.scale) @ key.permute(0, 1, 3, 4, 2) + bias
        drawn: Tensor = scores.softmax(dim=-1) @ value.transpose(2, 3)
        return drawn.transpose(2, 3).flatten(3)

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        block, (_, rows, columns, _) = self.block, tokens.shape
        padded = [side + -side % window for side, window in zip((rows, columns), block.window_size, strict=True)]
        windows = self._output(attended).flatten(0, 1).unflatten(1, block.window_size)
        whole = window_reverse(windows, block.window_size, *padded)[:, :rows, :columns]
        return self._feed(self._add(tokens, torch.roll(whole, list(block.shift_size), dims=(1, 2))))

    def _bias(self) -> Tensor:
        bias: Tensor = self.block.attn._get_rel_pos_bias()
        mask = self.block.attn_mask
        return bias if mask is None else bias + mask.unsqueeze(1)


def open_block(block: TimmModule) -> Layer:
    """The layer of a self-attention block that stands for itself, without what lies around it in its model.

    Raises ValueError for blocks and attentions whose computation would differ from timm's.
    """
    attention = getattr(block, "attn", None)
    kind = _KINDS.get((type(block), type(attention)))
    if kind is None or getattr(attention, "gate", None) is not None or getattr(attention, "num_kv_groups", 1) > 1:
        raise ValueError(f"blocks of kind {type(block).__name__} with {type(attention).__name__} are not supported")
    return kind(block)


def open_layers(model: TimmModule) -> list[Layer]:
    """The layers of a timm model in the order they run; raises ValueError as `open_block` does."""
    if isinstance(model, SwinTransformer):
        return [_window_layer(stage, index) for stage in model.layers for index in range(len(stage.blocks))]
    layers = [open_block(block) for block in model.blocks]
    if isinstance(model, Cait):
        tokens = enumerate(model.blocks_token_only)
        layers += [ClassAttentionLayer(block, model, first=index == 0) for index, block in tokens]
    return layers


def _window_layer(stage: TimmModule, index: int) -> Layer:
    merging = stage.downsample if index == 0 and not isinstance(stage.downsample, nn.Identity) else None
    return WindowLayer(stage.blocks[index], merging)


_KINDS: dict[tuple[type, type], Callable[[TimmModule], Layer]] = {
    (Block, Attention): Layer,
    (EvaBlock, EvaAttention): RotaryLayer,
    (EvaBlock, AttentionRope): RotaryLayer,
    (LayerScaleBlock, TalkingHeadAttn): TalkingHeadsLayer,
}
