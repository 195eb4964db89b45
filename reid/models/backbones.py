"""Backbones: timm vision transformers by name, what each offers, and their pretrained weights.

B images, N patch tokens, D width, P prefix tokens (class token first, then registers).
"""

import difflib
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.cait import Cait
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from reid.models.layers import ROTARY, TimmModule, open_layers
from reid.models.specs import BACKBONES, BackboneSpec, Offers
from reid.models.weights import WeightsReport, load_weights, patch_size, prefix_places, read_weights

# The modules of timm whose networks can be opened.
MODULES = ("vision_transformer", "vision_transformer_hybrid", "deit", "eva", "cait", "swin_transformer")


def build_backbone(
    name: str,
    image_size: tuple[int, int],
    *,
    weights: str = "none",
    drop_path: float = 0.0,
    stride: int | None = None,
) -> tuple[TimmModule, WeightsReport]:
    """Build a timm vision transformer without its head, for images of one size.

    `name` is a key of BACKBONES or timm's own name of a ViT, DeiT, EVA, CaiT or Swin; `image_size` is (height, width)
    in pixels; `weights` is `imagenet` (the name's own from timm's hub), `none`, or the path of a file (safetensors, pth
    or npz); `drop_path` in [0, 1) is the stochastic depth of the last block, falling linearly to 0 at the first;
    `stride`, smaller than the patch, makes patches overlap, as TransReID does.

    Raises ValueError for an unknown or unsupported name, an image size or stride that the backbone cannot take, or
    weights of another architecture; FileNotFoundError for a missing weights file; OSError when the hub cannot be
    reached.
    """
    spec = resolve(name)
    model = _create(name, spec, image_size, drop_path)
    _require_size(name, model, image_size)
    if stride is not None:
        _overlap(name, model, stride)
    _spread_drop_path(model, drop_path)
    _keep_rotary_table(model)
    if weights == "none":
        return model, WeightsReport("none (random initialisation)")
    if weights == "imagenet" and spec.tag is None and spec.overrides:
        raise ValueError(f"backbone {name!r} has no ImageNet weights; use weights=none or a file")
    return model, load_weights(model, read_weights(model, weights, spec.timm_name))


def timm_name(name: str) -> str:
    """timm's name of a network, with the tag of its weights; raises ValueError for an unknown one."""
    return resolve(name, whole=True).timm_name


def native_size(name: str) -> tuple[int, int]:
    """The image size (height, width) that timm has a network for; raises ValueError for an unknown one."""
    height, width = timm.get_pretrained_cfg(timm_name(name)).input_size[1:]
    return height, width


def offers(model: TimmModule) -> Offers:
    """What a built backbone has for the method."""
    class_token = getattr(model, "cls_token", None) is not None
    jigsaw = class_token and isinstance(model, VisionTransformer | Eva)
    return Offers(class_token, jigsaw and type(model.patch_embed) is PatchEmbed, jigsaw)


def architecture(model: TimmModule) -> str:
    """timm's name of a built backbone."""
    return str(model.pretrained_cfg.get("architecture") or type(model).__name__)


def normalisation(model: TimmModule) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Per-channel mean and standard deviation, RGB in [0, 1], that the backbone's weights were trained with."""
    config = model.pretrained_cfg
    return tuple(config["mean"]), tuple(config["std"])


def embed_tokens(model: TimmModule, images: Tensor) -> Tensor:
    """Images (B, 3, height, width), normalised, to the tokens x_0 that enter the first block.

    They are (B, P + N, D); of CaiT, whose class token comes later, (B, N, D); of Swin (B, rows, columns, D).
    """
    patches: Tensor = model.patch_embed(images)
    if isinstance(model, SwinTransformer):
        return patches
    if isinstance(model, Cait):
        placed: Tensor = model.pos_drop(patches + model.pos_embed)
        return placed
    tokens = model._pos_embed(patches)
    if isinstance(model, Eva):
        tokens, _ = tokens  # its rotary table is kept by the blocks
    normed: Tensor = model.norm_pre(tokens)
    return normed


def resolve(name: str, *, whole: bool = False) -> BackboneSpec:
    """What a name stands for; raises ValueError for one that is unknown, or of a network that cannot be opened.

    `whole` allows every network of timm.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if timm.is_model(name) and (whole or opens(name)):
        architecture, _, tag = name.partition(".")
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:  # a tag that timm does not know
            tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
            raise ValueError(f"backbone {name!r}: {error} Known tags: {', '.join(tags)}") from None
        return BackboneSpec(architecture, tag or None)
    if timm.is_model(name):
        raise ValueError(
            f"backbone {name!r} is no ViT, DeiT, EVA, CaiT or Swin, which training needs; choose "
            f"{', '.join(BACKBONES)} or timm's name of one"
        )
    of_timm = timm.list_models() if whole else [model for part in MODULES for model in timm.list_models(module=part)]
    near = difflib.get_close_matches(name, [*BACKBONES, *of_timm], n=3, cutoff=0.5)
    hint = f"near ones: {', '.join(near)}; " if near else ""
    kinds = "any network" if whole else "a ViT, DeiT, EVA, CaiT or Swin"
    raise ValueError(f"unknown backbone {name!r}; {hint}known: {', '.join(BACKBONES)}, or timm's own name of {kinds}")


def opens(name: str) -> bool:
    """Whether a backbone's layers can be opened, as the method needs, as far as its name tells."""
    return name in BACKBONES or timm.models.is_model_in_modules(name.partition(".")[0], MODULES)


def _create(name: str, spec: BackboneSpec, image_size: tuple[int, int], drop_path: float) -> TimmModule:
    options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path, **spec.overrides}
    if timm.models.is_model_in_modules(spec.architecture, ("eva",)):
        options["dynamic_img_size"] = False  # which DINOv3 asks for
    for pooling in ({"global_pool": "token"}, {}):  # without a class token: as timm pools
        try:
            model = timm.create_model(spec.timm_name, img_size=image_size, **options, **pooling)
            break
        except AssertionError:
            continue
    else:
        raise ValueError(f"backbone {name!r} cannot be built for images of {image_size[0]}x{image_size[1]} pixels")
    if isinstance(model, VisionTransformerDistilled):
        raise ValueError(f"backbone {name!r} has a distillation token; choose its plain twin, e.g. 'deit_tiny'")
    if getattr(model, "rope_mixed", False):
        raise ValueError(f"backbone {name!r} turns queries and keys differently in each block, which is not supported")
    try:
        open_layers(model)
    except ValueError as error:
        raise ValueError(f"backbone {name!r}: {error}") from None
    return model


def _require_size(name: str, model: TimmModule, image_size: tuple[int, int]) -> None:
    patch = patch_size(model)
    if image_size[0] % patch or image_size[1] % patch:
        near = "x".join(str(max(patch, round(side / patch) * patch)) for side in image_size)
        raise ValueError(
            f"image size {image_size[0]}x{image_size[1]} (height x width) is no multiple of the {patch}x{patch} "
            f"patch of backbone {name!r}; the nearest is {near}"
        )


def _overlap(name: str, model: TimmModule, stride: int) -> None:
    """Cut patches at a smaller stride than their size, and make room for the places of all of them."""
    if not offers(model).overlap:
        raise ValueError(f"stride={stride}: the patches of backbone {name!r} cannot overlap")
    embed = model.patch_embed
    patch = embed.patch_size[0]
    if not 0 < stride <= patch:
        raise ValueError(f"stride={stride}: expected 1 to {patch}, the patch of backbone {name!r}")
    embed.proj.stride = (stride, stride)
    embed.grid_size = tuple((side - patch) // stride + 1 for side in embed.img_size)
    embed.num_patches = embed.grid_size[0] * embed.grid_size[1]
    if model.pos_embed is not None:
        places = embed.num_patches + prefix_places(model)
        model.pos_embed = nn.Parameter(torch.empty(1, places, model.embed_dim))
        nn.init.trunc_normal_(model.pos_embed, std=0.02)
    if getattr(model, "rope", None) is not None:
        model.rope.update_feat_shape(embed.grid_size)


def _spread_drop_path(model: TimmModule, drop_path: float) -> None:
    """Let stochastic depth rise linearly also in CaiT, where timm keeps it level."""
    if isinstance(model, Cait) and drop_path:
        last = len(model.blocks) - 1
        for depth, block in enumerate(model.blocks):
            block.drop_path.drop_prob = drop_path * depth / last


def _keep_rotary_table(model: TimmModule) -> None:
    """Give the blocks that turn queries and keys a row for each token, which leaves prefix tokens as they are."""
    if getattr(model, "rope", None) is None:
        return
    patches = model.rope.get_embed(list(model.patch_embed.grid_size)).detach()
    still = torch.zeros(model.num_prefix_tokens, patches.shape[1] // 2)
    table = torch.cat([torch.cat([still, still + 1], dim=1), patches])
    for block in model.blocks:
        block.attn.register_buffer(ROTARY, table.clone(), persistent=False)
