"""Files of other projects whose network timm has: its tensors under timm's names, and how its patches were cut.

D width, N patches.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

State = dict[str, Tensor]
Grid = tuple[int, int]

# By the prefix of the network in their files: the neck that stands beside it in those of TransReID and SOLIDER-REID, of
# CLIP-ReID and of fast-reid.
NECKS = {
    "base.": "bottleneck.running_mean",
    "image_encoder.": "bottleneck.running_mean",
    "backbone.": "heads.bottleneck.0.running_mean",
}
# Heights and widths at which re-identification trains, where patches may overlap.
SIZES: tuple[Grid, ...] = ((256, 128), (384, 128), (256, 256))
# What of the parts of a network's file is no part of timm's network, under the names that DCAL has for it.
JIGSAW, SIDES = "jigsaw.", "side_information.embedding"
# The same of MiewID's: the power of its generalised mean, and the batch norm behind it.
POOL, NECK_OF_POOLED = "global_pool.p", "neck."
MIEWID_SIZE: Grid = (440, 440)  # of images, which its files do not tell


@dataclass(frozen=True)
class Cut:
    """How images (height, width) are cut into patches, `stride` pixels from each other."""

    image_size: Grid
    patch: int
    stride: int

    @property
    def grid(self) -> Grid:
        """Rows and columns of the N patches."""
        height, width = ((side - self.patch) // self.stride + 1 for side in self.image_size)
        return height, width

    @property
    def count(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]


def guess_cut(count: int, patch: int, *, reid: bool) -> Cut | None:
    """How images were cut into `count` patches, which is all that a file tells; None where nothing usual fits.

    Without overlap the image is a square, or twice or three times as high as wide. `reid` says that the network was
    trained for re-identification, whose usual sizes then go first.
    """
    widths = {ratio: math.isqrt(count // ratio) for ratio in (1, 2, 3)}
    plain = [
        Cut((ratio * width * patch, width * patch), patch, patch)
        for ratio, width in widths.items()
        if ratio * width**2 == count
    ]
    strides = range(patch, patch // 2 - 1, -1)
    usual = [Cut(size, patch, stride) for size in SIZES for stride in strides if min(size) >= patch]
    fitting = [cut for cut in usual if cut.count == count]
    return next(iter(fitting + plain if reid else plain + fitting), None)


def is_reid(state: State, prefix: str) -> bool:
    """Whether a file's network, whose names start with `prefix`, was trained for re-identification in a known way."""
    return any(f"{prefix.removesuffix(name)}{neck}" in state for name, neck in NECKS.items() if prefix.endswith(name))


def in_timm_names(state: State) -> State:
    """The tensors of a file with those of networks that have other names elsewhere under timm's; the rest as it is.

    TransReID's global branch takes the place of the last block, of which it is a trained copy, and its jigsaw branch
    and embeddings of cameras and views get DCAL's names.
    """
    for anchor, rename in LAYOUTS.items():
        for prefix in [name.removesuffix(anchor) for name in state if f".{name}".endswith(f".{anchor}")]:
            state = rename(state, prefix)
    return state


def _from_transreid(state: State, prefix: str) -> State:
    """`base` is the network without its last block in use; `b1` and `b2` are copies of that block and of the norm."""
    network = f"{prefix}base."
    depths = [int(found[1]) for name in state if (found := re.match(rf"{re.escape(network)}blocks\.(\d+)\.", name))]
    if not depths:
        return state
    parts = {
        f"{prefix}b1.0.": f"{network}blocks.{max(depths)}.",
        f"{prefix}b1.1.": f"{network}norm.",
        f"{prefix}b2.0.": f"{network}{JIGSAW}block.",
        f"{prefix}b2.1.": f"{network}{JIGSAW}norm.",
    }
    renamed = dict(state)
    for before, after in parts.items():
        for name in [name for name in state if name.startswith(before)]:
            renamed[after + name.removeprefix(before)] = renamed.pop(name)
    return renamed


def _from_side_information(state: State, prefix: str) -> State:
    """TransReID's `sie_embed` is (S, 1, D)."""
    kept = {name: value for name, value in state.items() if name != f"{prefix}sie_embed"}
    return {**kept, f"{prefix}{SIDES}": state[f"{prefix}sie_embed"].flatten(1)}


def _from_registers(state: State, prefix: str) -> State:
    """DINOv2's positions have one of the class token; timm adds it to that token where there are registers."""
    names = {name: f"{prefix}{name}" for name in ("cls_token", "pos_embed", "register_tokens", "mask_token")}
    renamed = {name: value for name, value in state.items() if name not in names.values()}
    token, places = state[names["cls_token"]], state[names["pos_embed"]]
    renamed |= {names["cls_token"]: token + places[:, :1], names["pos_embed"]: places[:, 1:]}
    return {**renamed, f"{prefix}reg_token": state[names["register_tokens"]]}


CLIP = {
    r"^class_embedding$": "cls_token",
    r"^positional_embedding$": "pos_embed",
    r"^conv1\.": "patch_embed.proj.",
    r"^ln_pre\.": "norm_pre.",
    r"^ln_post\.": "norm.",
    r"^transformer\.resblocks\.": "blocks.",
    r"\.attn\.in_proj_": ".attn.qkv.",
    r"\.attn\.out_proj\.": ".attn.proj.",
    r"\.ln_([12])\.": r".norm\1.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
}


def _from_clip(state: State, prefix: str) -> State:
    """The image tower of CLIP as OpenAI published it; a text tower has no class token."""
    if f"{prefix}class_embedding" not in state:
        return state
    renamed = {}
    for name, value in state.items():
        if name.startswith(prefix):
            name = prefix + _substituted(name.removeprefix(prefix), CLIP)
            ours = name.removeprefix(prefix)
            value = value.reshape(1, -1, value.shape[-1]) if ours in ("cls_token", "pos_embed") else value
        renamed[name] = value
    return renamed


MM_SWIN = {
    r"^stages\.": "layers.",
    r"^patch_embed\.projection\.": "patch_embed.proj.",
    r"\.attn\.w_msa\.": ".attn.",
    r"\.ffn\.layers\.0\.0\.": ".mlp.fc1.",
    r"\.ffn\.layers\.1\.": ".mlp.fc2.",
}


def _from_mm_swin(state: State, prefix: str) -> State:
    """Swin of OpenMMLab, which SOLIDER and HAP train: four norms at the end, and patches unfolded in another order."""
    last = max(int(found[1]) for name in state if (found := re.match(rf"{re.escape(prefix)}stages\.(\d+)\.", name)))
    renamed = {}
    for name, value in state.items():
        if name.startswith(prefix):
            ours = _substituted(name.removeprefix(prefix), {**MM_SWIN, rf"^norm{last}\.": "norm."})
            if ".downsample." in ours:  # of each channel the four neighbours, which Swin has the other way round
                folded = value.reshape(*value.shape[:-1], -1, 4).transpose(-1, -2)
                value = folded[..., [0, 2, 1, 3], :].flatten(-2)
            name = prefix + ours
        renamed[name] = value
    return renamed


def _substituted(name: str, patterns: dict[str, str]) -> str:
    for pattern, replacement in patterns.items():
        name = re.sub(pattern, replacement, name)
    return name


def _from_miewid(state: State, prefix: str) -> State:
    """`backbone` is timm's network, and the generalised mean beside it or in the place of its own pooling."""
    renamed = {}
    for name, value in state.items():
        ours = name.removeprefix(prefix)
        if name.startswith(prefix) and ours in ("pooling.p", "backbone.global_pool.p"):
            name = f"{prefix}backbone.{POOL}"
        elif name.startswith(prefix) and ours.startswith("bn."):
            name = f"{prefix}backbone.{NECK_OF_POOLED}{ours.removeprefix('bn.')}"
        renamed[name] = value
    return renamed


# By a name that the layout has and no other: how to read those that are under the same prefix.
LAYOUTS: dict[str, Callable[[State, str], State]] = {
    "b1.0.norm1.weight": _from_transreid,
    "sie_embed": _from_side_information,
    "register_tokens": _from_registers,
    "transformer.resblocks.0.ln_1.weight": _from_clip,
    "stages.0.blocks.0.attn.w_msa.qkv.weight": _from_mm_swin,
    "pooling.p": _from_miewid,
    "backbone.global_pool.p": _from_miewid,
}
