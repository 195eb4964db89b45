"""Colours as they were meant: profiles, codes, PNG's gamma and primaries to sRGB, which screens and models take."""

import io
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from reid.data.colour_codes import PRIMARIES, Coding

SCREEN = 2.2  # the exponent of screens for which PNG's gamma is converted
NEARLY = 0.05  # a difference of exponents that nobody sees
SAME = 2  # of 255: profiles that move no colour by more are sRGB by another name
SRGB_PRIMARIES = PRIMARIES[1]  # x, y of white, red, green, blue
SAME_PRIMARIES = 0.005  # a difference that nobody sees
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])  # Lam, 1985
Floats = npt.NDArray[np.floating[Any]]
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}


def to_srgb(image: Image.Image, info: Mapping[Any, Any]) -> Image.Image:
    """A picture of mode RGB, L, CMYK or LAB as RGB, by coding, colour profile, or gamma and primaries of its `info`.

    The first of these that there is counts, as in PNG; in HEIC and AVIF the profile goes first, and `coding` is not
    given beside it. Light above white, of PQ and HLG, is white. A profile that is damaged, or of another kind of
    colours than the picture's, is passed over, as browsers do.
    """
    coding = info.get("coding")
    if isinstance(coding, Coding) and image.mode in ("L", "RGB"):
        return _by_coding(image.convert("RGB"), coding)
    profile = info.get("icc_profile") or b""
    if transform := _transform(profile, image.mode):
        return _apply(image, transform)
    if image.mode == "L" and (transform := _transform(profile, "RGB")):
        return _apply(image.convert("RGB"), transform)
    grey = image.mode == "L"
    image = image.convert("RGB")
    gamma = info.get("gamma")
    if profile or "srgb" in info or not isinstance(gamma, float) or gamma <= 0:
        return image
    if not grey and (matrix := _to_srgb_primaries(info.get("chromaticity"))) is not None:
        return _by_light(image, (np.arange(256) / 255) ** (1 / gamma), matrix)
    if abs(gamma * SCREEN - 1) < NEARLY:
        return image
    curve = np.rint(255 * (np.arange(256) / 255) ** (1 / (gamma * SCREEN))).astype(int).tolist()
    return image.point(3 * curve)


def _by_coding(image: Image.Image, coding: Coding) -> Image.Image:
    if coding.is_srgb:
        return image
    matrix = _to_srgb_primaries(PRIMARIES.get(coding.primaries))
    return _by_light(image, coding.light(), np.eye(3) if matrix is None else matrix)


def _by_light(image: Image.Image, light: Floats, matrix: Floats) -> Image.Image:
    """An RGB picture of whose 256 values each is so much `light`, which `matrix` brings to sRGB's primaries."""
    light = light.astype(np.float32)
    shown = np.linspace(0, 1, 4096)
    curve = np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * shown ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    levels = np.rint(255 * curve).astype(np.uint8)
    rows = [
        levels[np.rint(4095 * (light[row] @ matrix.T.astype(np.float32)).clip(0, 1)).astype(np.uint16)]
        for row in np.array_split(np.asarray(image), max(1, image.height // 256))  # not all of a large one in floats
    ]
    return Image.fromarray(np.concatenate(rows))


def _to_srgb_primaries(chromaticity: object) -> Floats | None:
    """From light of these primaries (x, y of white, red, green and blue) to that of sRGB's; None for those of sRGB."""
    given = np.array(chromaticity if isinstance(chromaticity, tuple) else (), float)
    if given.shape != (8,) or (given[1::2] <= 0).any() or np.abs(given - SRGB_PRIMARIES).max() < SAME_PRIMARIES:
        return None
    try:
        source, target = _to_xyz(given), _to_xyz(np.array(SRGB_PRIMARIES))
        whites = [BRADFORD @ primaries.sum(axis=1) for primaries in (source, target)]
        adapted = np.linalg.inv(BRADFORD) @ np.diag(whites[1] / whites[0]) @ BRADFORD @ source
        matrix: Floats = np.linalg.inv(target) @ adapted
    except np.linalg.LinAlgError:  # primaries on one line
        return None
    return matrix if np.isfinite(matrix).all() else None


def _to_xyz(chromaticity: Floats) -> Floats:
    """The matrix (3, 3) from light of these primaries to CIE XYZ, white having Y = 1."""
    x, y = chromaticity[0::2], chromaticity[1::2]
    white, *primaries = np.stack([x / y, np.ones(4), (1 - x - y) / y], axis=1)
    columns = np.array(primaries).T
    scaled: Floats = columns * np.linalg.solve(columns, white)
    return scaled


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
