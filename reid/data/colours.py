"""Colours as they were meant: embedded profiles and PNG's gamma to sRGB, which is what screens and models take."""

import io
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

SCREEN = 2.2  # the exponent of screens for which PNG's gamma is converted
NEARLY = 0.05  # a difference of exponents that nobody sees
SAME = 2  # of 255: profiles that move no colour by more are sRGB by another name
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}


def to_srgb(image: Image.Image, info: Mapping[Any, Any]) -> Image.Image:
    """A picture of mode RGB, L, CMYK or LAB as RGB, by the colour profile or the gamma that its file's `info` gives.

    A profile that is damaged, or of another kind of colours than the picture's, is passed over, as browsers do.
    """
    profile = info.get("icc_profile") or b""
    if transform := _transform(profile, image.mode):
        return _apply(image, transform)
    if image.mode == "L" and (transform := _transform(profile, "RGB")):
        return _apply(image.convert("RGB"), transform)
    image = image.convert("RGB")
    gamma = info.get("gamma")
    if profile or "srgb" in info or not isinstance(gamma, float) or gamma <= 0 or abs(gamma * SCREEN - 1) < NEARLY:
        return image
    curve = np.rint(255 * (np.arange(256) / 255) ** (1 / (gamma * SCREEN))).astype(int).tolist()
    return image.point(3 * curve)


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """A picture of mode LAB as RGB, which Pillow does not convert by itself."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")
    return _apply(image, transform)


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # as it is not done in place
    return converted


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What brings colours to sRGB, None for a profile that leaves them as they are or cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES.get(mode):
            return None
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB")
        if mode != "RGB":
            return transform
        probe = Image.fromarray((15 * np.indices((18, 18, 18)).reshape(3, 1, -1).transpose(1, 2, 0)).astype(np.uint8))
        moved = np.abs(np.asarray(_apply(probe, transform)).astype(int) - np.asarray(probe)).max()
        return transform if moved > SAME else None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
