"""Backbones: timm vision transformers by name, with their pretrained weights.

B images, N patch tokens, D width, P prefix tokens (class token first, then registers).
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.layers import Attention, resample_abs_pos_embed
from timm.models import load_state_dict
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn


@dataclass(frozen=True)
class BackboneSpec:
    """What a short name stands for: a timm architecture, its pretrained tag, and changes to its sizes."""

    architecture: str
    tag: str | None
    overrides: Mapping[str, int] = field(default_factory=dict)


# The paper's backbones first. The ViT-B tag is the conversion of Google's ImageNet-21k weights that TransReID, the
# paper's baseline, starts from; the DeiT names are those without a distillation token.
BACKBONES: dict[str, BackboneSpec] = {
    "deit_tiny": BackboneSpec("deit_tiny_patch16_224", "fb_in1k"),
    "deit_small": BackboneSpec("deit_small_patch16_224", "fb_in1k"),
    "deit_base": BackboneSpec("deit_base_patch16_224", "fb_in1k"),
    "vit_base": BackboneSpec("vit_base_patch16_224", "orig_in21k_ft_in1k"),
    "vit_tiny": BackboneSpec("vit_tiny_patch16_224", "augreg_in21k_ft_in1k"),
    "vit_small": BackboneSpec("vit_small_patch16_224", "augreg_in21k_ft_in1k"),
    "vit_toy": BackboneSpec(
        "vit_tiny_patch16_224", None, {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3}
    ),
}


@dataclass(frozen=True)
class WeightsReport:
    """What became of the tensors of a weights source: names by outcome."""

    source: str
    loaded: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    interpolated: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.loaded:
            return f"weights: {self.source}"
        line = f"weights: {self.source}: {len(self.loaded)} tensors loaded, none missing"
        if self.interpolated:
            line += f"; interpolated: {', '.join(self.interpolated)}"
        if self.ignored:
            shown = ", ".join(self.ignored[:4]) + (", ..." if len(self.ignored) > 4 else "")
            line += f"; {len(self.ignored)} not used ({shown})"
        return line


def build_backbone(
    name: str, image_size: tuple[int, int], *, weights: str = "none", drop_path: float = 0.0
) -> tuple[VisionTransformer, WeightsReport]:
    """Build a timm vision transformer without its head, for images of one size.

    `name` is a key of BACKBONES or timm's own name of a plain ViT with a class token; `image_size` is (height, width)
    in pixels; `weights` is `imagenet` (timm's hub), `none`, or the path of a file (safetensors, pth or npz);
    `drop_path` in [0, 1) is the stochastic depth of the last block, falling linearly to 0 at the first.

    Raises ValueError for an unknown or unsupported name, an image size that is no multiple of the patch, or weights of
    another architecture; FileNotFoundError for a missing weights file; OSError when the hub cannot be reached.
    """
    spec = _resolve(name)
    try:
        model = timm.create_model(
            f"{spec.architecture}.{spec.tag}" if spec.tag else spec.architecture,  # the tag brings its normalisation
            img_size=image_size,
            num_classes=0,
            global_pool="token",
            drop_path_rate=drop_path,
            **spec.overrides,
        )
    except AssertionError as error:  # timm's own word for a ViT that cannot pool by token
        raise ValueError(f"backbone {name!r} has no class token, which DCAL's branches read") from error
    _require_plain(name, model)
    patch = model.patch_embed.patch_size
    if image_size[0] % patch[0] or image_size[1] % patch[1]:
        raise ValueError(
            f"image size {image_size[0]}x{image_size[1]} (height x width) is no multiple of the {patch[0]}x{patch[1]} "
            f"patch of backbone {name!r}"
        )
    if weights == "none":
        return model, WeightsReport("none (random initialisation)")
    source, state, grid = _fetch(name, spec, weights, model)
    return model, _load(model, source, state, grid)


def normalisation(model: VisionTransformer) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Per-channel mean and standard deviation, RGB in [0, 1], that the backbone's weights were trained with."""
    config = model.pretrained_cfg
    return tuple(config["mean"]), tuple(config["std"])


def embed_tokens(model: VisionTransformer, images: Tensor) -> Tensor:
    """Images (B, 3, height, width), normalised, to the tokens x_0 (B, P + N, D) that enter the first block."""
    tokens: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    return tokens


def _resolve(name: str) -> BackboneSpec:
    if name in BACKBONES:
        return BACKBONES[name]
    if timm.is_model(name) and timm.models.is_model_in_modules(name.split(".")[0], ("vision_transformer", "deit")):
        architecture, _, tag = name.partition(".")
        return BackboneSpec(architecture, tag or None)
    if timm.is_model(name):
        raise ValueError(
            f"backbone {name!r} is not a plain vision transformer; choose {', '.join(BACKBONES)} or a timm ViT or DeiT"
        )
    known = [*BACKBONES, *timm.list_models(module="vision_transformer"), *timm.list_models(module="deit")]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"near ones: {', '.join(near)}; " if near else ""
    raise ValueError(
        f"unknown backbone {name!r}; {hint}known: {', '.join(BACKBONES)}, or timm's own name of a plain ViT"
    )


def _require_plain(name: str, model: VisionTransformer) -> None:
    """Refuse what the cross-attention would silently get wrong: other tokens, block or attention kinds."""
    if isinstance(model, VisionTransformerDistilled):
        raise ValueError(f"backbone {name!r} has a distillation token; choose its plain twin, e.g. 'deit_tiny'")
    for block in model.blocks:
        attention = block.attn if type(block) is Block else None
        # getattr, because older releases of timm have neither.
        gated = getattr(attention, "gate", None) is not None
        if type(attention) is not Attention or gated or not isinstance(getattr(attention, "norm", None), _ABSENT):
            kind = type(block).__name__
            raise ValueError(f"backbone {name!r} has blocks of kind {kind} that are not timm's plain pre-norm Block")


_ABSENT = (nn.Identity, type(None))


def _fetch(
    name: str, spec: BackboneSpec, weights: str, model: VisionTransformer
) -> tuple[str, dict[str, Tensor], tuple[int, int] | None]:
    """Return the source's printable name, its tensors, and its patch grid where it states one."""
    if weights == "imagenet":
        return (*_from_hub(name, spec), None)
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"weights {weights!r}: no such file (expected 'imagenet', 'none' or a file)")
    try:
        if path.suffix == ".npz":
            donor = timm.create_model(spec.architecture, num_classes=0, **spec.overrides)
            donor.load_pretrained(str(path))
            return str(path), donor.state_dict(), None
        state = load_state_dict(str(path))
    except (SafetensorError, RuntimeError, KeyError, ValueError, EOFError, OSError, AttributeError) as error:
        raise ValueError(
            f"weights {weights!r}: cannot be read as safetensors, pth or npz ({_first_line(error)})"
        ) from error
    own = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    return str(path), own or state, _grid_of_run(path, model) if own else None


def _from_hub(name: str, spec: BackboneSpec) -> tuple[str, dict[str, Tensor]]:
    if spec.overrides:
        raise ValueError(f"backbone {name!r} has no ImageNet weights; use weights=none or a file")
    full_name = f"{spec.architecture}.{spec.tag}" if spec.tag else spec.architecture
    try:
        donor = timm.create_model(full_name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub client raises its own, changing kinds
        raise OSError(
            f"weights 'imagenet': {full_name!r} could not be downloaded ({_first_line(error)}); "
            "check the network, or give the weights as a file, or 'none'"
        ) from error
    return f"timm hub {full_name}", donor.state_dict()


def _grid_of_run(path: Path, model: VisionTransformer) -> tuple[int, int] | None:
    """The patch grid of one of our own checkpoints, which may not be square."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(str(path), framework="pt") as file:
        size = json.loads((file.metadata() or {}).get("preprocessing", "{}")).get("image_size")
    patch = model.patch_embed.patch_size
    return (size[0] // patch[0], size[1] // patch[1]) if size else None


def _load(
    model: VisionTransformer, source: str, state: dict[str, Tensor], grid: tuple[int, int] | None
) -> WeightsReport:
    """Copy tensors into the model, interpolating the position embedding; refuse what would train from noise."""
    if "dist_token" in state:  # a distilled DeiT: its token and its place in the position embedding go
        position = state["pos_embed"]
        state = {key: value for key, value in state.items() if key != "dist_token"}
        state["pos_embed"] = torch.cat([position[:, :1], position[:, 2:]], dim=1)
    before = state.get("pos_embed")
    if grid is not None and before is not None:
        state["pos_embed"] = resample_abs_pos_embed(
            before, list(model.patch_embed.grid_size), list(grid), num_prefix_tokens=model.num_prefix_tokens
        )
    try:
        state = checkpoint_filter_fn(state, model)
    except (RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"weights {source!r} do not fit {_title(model)}: {_first_line(error)}") from error
    wanted = model.state_dict()
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
    interpolated: tuple[str, ...] = ()
    if before is not None and (
        grid not in (None, model.patch_embed.grid_size) or before.shape != wanted["pos_embed"].shape
    ):
        old = f"{grid[0]}x{grid[1]}" if grid else f"{before.shape[1] - model.num_prefix_tokens} patches"
        new = "x".join(str(side) for side in model.patch_embed.grid_size)
        interpolated = (f"pos_embed ({old} to {new}, height x width)",)
    model.load_state_dict({key: state[key] for key in wanted})
    ignored = tuple(key for key in state if key not in wanted)
    return WeightsReport(source, tuple(wanted), ignored, interpolated)


def _title(model: VisionTransformer) -> str:
    return f"a ViT of width {model.embed_dim}, {len(model.blocks)} blocks, {model.blocks[0].attn.num_heads} heads"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
