"""Pretrained weights of a backbone: from timm's hub or a file, checked tensor by tensor."""

import hashlib
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import PickleError

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.layers import resample_abs_pos_embed
from timm.models import cait, eva, swin_transformer, swin_transformer_v2, vision_transformer
from timm.models.cait import Cait
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from reid.models.layers import TimmModule
from reid.models.layouts import Grid, State, guess_cut
from reid.models.weight_files import Found, kind_of_file, read_state

Reader = Callable[[State, TimmModule], State]


def _read_swin(state: State, model: TimmModule, *, reader: Reader) -> State:
    """Microsoft's files reduce at the end of a stage, timm's at the start of the next.

    timm before 1.0.31 takes every file without a classifier for one of the former.
    """
    if "layers.0.downsample.reduction.weight" in state:
        state = {_AT_STAGE.sub(lambda found: f"layers.{int(found[1]) + 1}.", key): state[key] for key in state}
    classifier = "head.fc.weight"
    read = reader({classifier: torch.empty(0), **state}, model)
    return {key: value for key, value in read.items() if key != classifier or key in state}


_AT_STAGE = re.compile(r"^layers\.(\d+)\.(?=downsample\.)")

# The kinds of networks, each with timm's function that reads a file made elsewhere.
FILTERS: Mapping[type, Reader] = {
    VisionTransformer: partial(vision_transformer.checkpoint_filter_fn, adapt_layer_scale=True),
    Eva: eva.checkpoint_filter_fn,
    Cait: cait.checkpoint_filter_fn,
    SwinTransformer: partial(_read_swin, reader=swin_transformer.checkpoint_filter_fn),
    SwinTransformerV2: partial(_read_swin, reader=swin_transformer_v2.checkpoint_filter_fn),
}


def _reader(model: TimmModule) -> Reader:
    """timm's function for a network: that of FILTERS, or of the module where it is, or none, which changes nothing."""
    for kind, reader in FILTERS.items():
        if isinstance(model, kind):
            return reader
    found: Reader = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", lambda state, _: state)
    return found


@dataclass(frozen=True)
class WeightsReport:
    """What became of the tensors of a weights source: names by outcome.

    `pooled` says that the network was trained on the mean of its patches, where its class token is taken here.
    """

    source: str
    loaded: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    interpolated: tuple[str, ...] = ()
    pooled: bool = False

    def __str__(self) -> str:
        if not self.loaded:
            return f"weights: {self.source}"
        line = f"weights: {self.source}: {len(self.loaded)} tensors loaded, none missing"
        if self.interpolated:
            line += f"; interpolated: {', '.join(self.interpolated)}"
        if self.ignored:
            shown = ", ".join(self.ignored[:4]) + (", ..." if len(self.ignored) > 4 else "")
            line += f"; {len(self.ignored)} not used ({shown})"
        if self.pooled:
            line += "; trained on the mean of its patches, but its class token is taken"
        return line


@dataclass(frozen=True, eq=False)
class Source:
    """The tensors of a network from the hub or a file, and what is known of them.

    `grid` is that of the positions where the file tells it; `reid` says that it was trained for re-identification.
    """

    name: str
    state: State
    grid: Grid | None = None
    reid: bool = False

    def fingerprint(self) -> str:
        """What tells these tensors from all others, whatever file they came in: a SHA-256, in hexadecimal."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def read_weights(model: TimmModule, weights: str, timm_name: str) -> Source:
    """The tensors for a network like `model`: `imagenet`, what timm's hub has under `timm_name`, or those of a file.

    A file is safetensors, pth or npz. Raises ValueError for one that is damaged, FileNotFoundError for a missing one,
    OSError when the hub cannot be reached.
    """
    if weights == "imagenet":
        return Source(f"timm hub {timm_name}", _without_distillation(_from_hub(timm_name)))
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"weights {weights!r}: no such file (expected 'imagenet', 'none' or a file)")
    try:
        npz = kind_of_file(path) == "npz"
        found = Found(_from_npz(path, model)) if npz else read_state(path, list(model.state_dict()))
    except (
        SafetensorError,
        RuntimeError,
        KeyError,
        ValueError,
        EOFError,
        OSError,
        AttributeError,
        PickleError,
    ) as error:
        raise ValueError(
            f"weights {weights!r}: cannot be read as safetensors, pth or npz ({_first_line(error)})"
        ) from error
    broken = [
        name for name, value in found.state.items() if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    if broken:
        raise ValueError(f"weights {weights!r}: {len(broken)} tensors hold NaN or infinite values, e.g. {broken[0]}")
    name = f"{path} ({found.where})" if found.where else str(path)
    return Source(name, _without_distillation(found.state), _grid_of_run(path, model), found.reid)


def patch_size(model: TimmModule) -> int:
    """The side of a patch of a built backbone, in pixels of the image."""
    return int(model.patch_embed.feat_ratio())


def prefix_places(model: TimmModule) -> int:
    """How many rows of the position embedding are those of prefix tokens."""
    if isinstance(model, Cait) or getattr(model, "no_embed_class", False):
        return 0
    return int(getattr(model, "num_prefix_tokens", 0))


def _from_hub(timm_name: str) -> State:
    try:
        donor = timm.create_model(timm_name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub client raises its own, changing kinds
        raise OSError(
            f"weights 'imagenet': {timm_name!r} could not be downloaded ({_first_line(error)}); "
            "check the network, or give the weights as a file, or 'none'"
        ) from error
    state: State = donor.state_dict()
    return state


def _from_npz(path: Path, model: TimmModule) -> State:
    donor = timm.create_model(model.pretrained_cfg["architecture"], num_classes=0)
    donor.load_pretrained(str(path))
    state: State = donor.state_dict()
    return state


def _grid_of_run(path: Path, model: TimmModule) -> Grid | None:
    """The patch grid of one of our own checkpoints, which may not be square."""
    if kind_of_file(path) != "safetensors":
        return None
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
    size = json.loads(metadata.get("preprocessing", "{}")).get("image_size")
    patch = patch_size(model) if size else 1
    stride = json.loads(metadata.get("config", "{}")).get("model", {}).get("stride") or patch
    return ((size[0] - patch) // stride + 1, (size[1] - patch) // stride + 1) if size else None


def load_weights(model: TimmModule, given: Source) -> WeightsReport:
    """Copy tensors into a network, interpolating positions to its grid.

    Raises ValueError for those of another architecture, and where one is missing, which would stay noise.
    """
    source, state = given.name, given.state
    shapes = {key: value.shape for key, value in state.items()}
    place, moved = _resample_positions(model, state, given.grid)
    rest = {key: value for key, value in state.items() if place is None or key != "pos_embed"}
    try:
        with warnings.catch_warnings():  # of timm's resizing of Swin's tables; a test sees that it is right
            warnings.filterwarnings("ignore", message="torch.searchsorted|Using a non-tuple sequence")
            state = _reader(model)(rest, model)
    except (RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"weights {source!r} do not fit {_title(model)}: {_first_line(error)}") from error
    if place is not None:
        state["pos_embed"] = place
    wanted = model.state_dict()
    pooled = "norm.weight" in wanted and "norm.weight" not in state and "fc_norm.weight" in state
    for name in ("weight", "bias"):  # of models trained on the mean token, whose last norm comes after it
        if f"norm.{name}" in wanted and f"norm.{name}" not in state and f"fc_norm.{name}" in state:
            state[f"norm.{name}"] = state.pop(f"fc_norm.{name}")
    for name in wanted:  # which old files do not have, and only training reads
        if name.endswith(".num_batches_tracked"):
            state.setdefault(name, wanted[name])
    missing = [key for key in wanted if key not in state]
    misshapen = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if missing or misshapen:
        problems = [f"{len(missing)} tensors missing, e.g. {missing[0]}"] if missing else []
        problems += [f"{len(misshapen)} of another shape, e.g. {misshapen[0]}"] if misshapen else []
        raise ValueError(f"weights {source!r} do not fit {_title(model)}: {'; '.join(problems)}")
    # Reductions of Swin move to the next stage, where the file has another under their name.
    named = [key for key in wanted if key in shapes and key != "pos_embed" and ".downsample." not in key]
    resized = [key for key in named if shapes[key] != wanted[key].shape]
    model.load_state_dict({key: state[key] for key in wanted})
    ignored = tuple(key for key in state if key not in wanted)
    return WeightsReport(source, tuple(wanted), ignored, (*moved, *resized), pooled)


def _without_distillation(state: State) -> State:
    """The state of a distilled DeiT without that token and its place; any other state as it is."""
    if "dist_token" not in state:
        return state
    position = state["pos_embed"]
    plain = {key: value for key, value in state.items() if key != "dist_token"}
    return {**plain, "pos_embed": torch.cat([position[:, :1], position[:, 2:]], dim=1)}


def _resample_positions(model: TimmModule, state: State, grid: Grid | None) -> tuple[Tensor | None, tuple[str, ...]]:
    """The position embedding of a state on the model's grid, and what to tell of it; None where timm reads it."""
    before, wanted = state.get("pos_embed"), getattr(model, "pos_embed", None)
    if before is None or wanted is None or before.ndim != 3 or not hasattr(model.patch_embed, "grid_size"):
        return None, ()
    new: Grid = tuple(model.patch_embed.grid_size)
    count = new[0] * new[1]
    # Where a file does not tell its grid it is square, as timm takes it, if the count allows: 16 x 16 is not 32 x 8.
    same = grid == new if grid else new[0] == new[1] or math.isqrt(count) ** 2 != count
    if before.shape == wanted.shape and same:
        return before, ()
    prefix = prefix_places(model)
    places = before.shape[1] - prefix
    if grid is None and math.isqrt(places) ** 2 != places and (cut := guess_cut(places, patch_size(model), reid=True)):
        grid = cut.grid
    try:
        place = resample_abs_pos_embed(
            before, list(new), list(grid) if grid else None, num_prefix_tokens=prefix, verbose=False
        )
    except RuntimeError:  # no square; timm may know what the rest of the file tells
        return None, ()
    old = f"{grid[0]}x{grid[1]}" if grid else f"{places} patches"
    return place, (f"pos_embed ({old} to {new[0]}x{new[1]}, height x width)",)


def _title(model: TimmModule) -> str:
    if isinstance(model, SwinTransformer):
        return f"a Swin transformer of width {model.num_features}"
    if not isinstance(model, VisionTransformer | Eva | Cait):
        return f"timm's {model.pretrained_cfg['architecture']}"
    kind = "ViT" if isinstance(model, VisionTransformer) else type(model).__name__
    return f"a {kind} of width {model.embed_dim}, {len(model.blocks)} blocks, {model.blocks[0].attn.num_heads} heads"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
