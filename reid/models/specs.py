"""Backbones by short names: which network of timm, with which weights, and what it offers to the method."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Offers:
    """What a backbone has for the method.

    GLCA and the rollout start from a class token; without one the image's token is pooled from all, and there is PWCA
    alone, which every backbone has. `overlap` says whether patches may overlap (option `stride`), `jigsaw` whether the
    class token stands beside the patches before the last block, as jigsaw and side information need.
    """

    class_token: bool = True
    overlap: bool = True
    jigsaw: bool = True

    @property
    def glca(self) -> bool:
        """Whether GLCA, and the rollout that chooses its queries, can be computed."""
        return self.class_token


EVERYTHING = Offers()
FIXED_PATCHES = Offers(overlap=False)
LATE_TOKEN = Offers(overlap=False, jigsaw=False)
POOLED = Offers(class_token=False, overlap=False, jigsaw=False)


@dataclass(frozen=True)
class BackboneSpec:
    """What a short name stands for: a timm architecture, the tag of its weights, changes to its sizes.

    Image sides must be a multiple of `patch`, in pixels.
    """

    architecture: str
    tag: str | None
    patch: int = 16
    offers: Offers = EVERYTHING
    overrides: Mapping[str, int] = field(default_factory=dict)

    @property
    def timm_name(self) -> str:
        """Architecture and tag, which brings the weights' normalisation."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture


# The ViT-B tags are the conversions of Google's ImageNet-21k weights, tuned on ImageNet-1k, from which TransReID, the
# paper's baseline, starts; the DeiT names are those without a distillation token.
BACKBONES: dict[str, BackboneSpec] = {
    # The paper's.
    "deit_tiny": BackboneSpec("deit_tiny_patch16_224", "fb_in1k"),
    "deit_small": BackboneSpec("deit_small_patch16_224", "fb_in1k"),
    "deit_base": BackboneSpec("deit_base_patch16_224", "fb_in1k"),
    "vit_base": BackboneSpec("vit_base_patch16_224", "orig_in21k_ft_in1k"),
    "r50_vit_base": BackboneSpec("vit_base_r50_s16_384", "orig_in21k_ft_in1k", offers=FIXED_PATCHES),
    "cait_xs24": BackboneSpec("cait_xs24_384", "fb_dist_in1k", offers=LATE_TOKEN),
    "swin_tiny": BackboneSpec("swin_tiny_patch4_window7_224", "ms_in1k", 4, POOLED),
    # Others trained on ImageNet.
    "vit_tiny": BackboneSpec("vit_tiny_patch16_224", "augreg_in21k_ft_in1k"),
    "vit_small": BackboneSpec("vit_small_patch16_224", "augreg_in21k_ft_in1k"),
    "vit_large": BackboneSpec("vit_large_patch16_224", "augreg_in21k_ft_in1k"),
    "deit3_small": BackboneSpec("deit3_small_patch16_224", "fb_in22k_ft_in1k"),
    "deit3_base": BackboneSpec("deit3_base_patch16_224", "fb_in22k_ft_in1k"),
    "deit3_large": BackboneSpec("deit3_large_patch16_224", "fb_in22k_ft_in1k"),
    # Trained on more, with other tasks.
    "eva02_tiny": BackboneSpec("eva02_tiny_patch14_336", "mim_in22k_ft_in1k", 14),
    "eva02_small": BackboneSpec("eva02_small_patch14_336", "mim_in22k_ft_in1k", 14),
    "eva02_base": BackboneSpec("eva02_base_patch14_448", "mim_in22k_ft_in22k_in1k", 14),
    "eva02_large": BackboneSpec("eva02_large_patch14_448", "mim_m38m_ft_in22k_in1k", 14),
    "dinov2_small": BackboneSpec("vit_small_patch14_dinov2", "lvd142m", 14),
    "dinov2_base": BackboneSpec("vit_base_patch14_dinov2", "lvd142m", 14),
    "dinov2_large": BackboneSpec("vit_large_patch14_dinov2", "lvd142m", 14),
    "dinov2_small_reg": BackboneSpec("vit_small_patch14_reg4_dinov2", "lvd142m", 14),
    "dinov2_base_reg": BackboneSpec("vit_base_patch14_reg4_dinov2", "lvd142m", 14),
    "dinov2_large_reg": BackboneSpec("vit_large_patch14_reg4_dinov2", "lvd142m", 14),
    "dinov3_small": BackboneSpec("vit_small_patch16_dinov3", "lvd1689m"),
    "dinov3_base": BackboneSpec("vit_base_patch16_dinov3", "lvd1689m"),
    "dinov3_large": BackboneSpec("vit_large_patch16_dinov3", "lvd1689m"),
    "clip_vit_base": BackboneSpec("vit_base_patch16_clip_quickgelu_224", "openai"),
    "clip_vit_large": BackboneSpec("vit_large_patch14_clip_quickgelu_224", "openai", 14),
    "siglip_base": BackboneSpec("vit_base_patch16_siglip_224", "webli", 16, POOLED),
    "siglip_large": BackboneSpec("vit_large_patch16_siglip_256", "webli", 16, POOLED),
    "siglip_so400m": BackboneSpec("vit_so400m_patch14_siglip_224", "webli", 14, POOLED),
    "siglip2_base": BackboneSpec("vit_base_patch16_siglip_224", "v2_webli", 16, POOLED),
    "siglip2_large": BackboneSpec("vit_large_patch16_siglip_256", "v2_webli", 16, POOLED),
    # For demonstrations and tests.
    "vit_toy": BackboneSpec(
        "vit_tiny_patch16_224",
        None,
        8,
        overrides={"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3},
    ),
}
