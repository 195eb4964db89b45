"""Attention maps drawn over the pictures they belong to."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reid.inference.predictor import Attention, Predictor
from reid.report.strips import Tile

# Dark to bright at rising attention, as in matplotlib's inferno: readable without colour, and by the colour-blind.
RAMP = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
OUTLINE = (0, 229, 255)


def attended(tiles: Sequence[Tile], predictor: Predictor) -> tuple[Tile, ...]:
    """The same tiles with the attention of `predictor` over their pictures: unscaled, and read as it reads them."""
    attentions = predictor.attention([tile.read(predictor.decoding) for tile in tiles])
    drawn = zip(tiles, attentions, strict=True)
    return tuple(replace(tile, picture=overlay(tile.picture, attention)) for tile, attention in drawn)


def overlay(image: Image.Image, attention: Attention) -> Image.Image:
    """Lay an attention map as heat over its upright RGB picture, and outline the areas of the chosen patches.

    The result has the picture's own size. The heat runs from the least to the most attended patch of this picture; what
    the model does not see stays grey.
    """
    low, high = attention.map.min(), attention.map.max()
    scaled = (attention.map - low) / max(high - low, np.finfo(np.float32).tiny)
    left, top, right, bottom = _pixels(image, attention)
    size = right - left, bottom - top
    heat = np.asarray(Image.fromarray(scaled.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    heat = heat.clip(0, 1)[..., None]
    grey = np.repeat(np.asarray(image.convert("L"), np.float32)[..., None], 3, axis=2)
    stops = np.linspace(0, 1, len(RAMP))
    colour = np.concatenate([np.interp(heat, stops, channel) for channel in RAMP.T], axis=-1)
    seen = grey[top:bottom, left:right]
    seen[:] = 0.5 * seen + 0.5 * colour
    blended = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    if attention.chosen is not None:
        _outline(blended, attention.chosen, (left, top, right, bottom))
    return blended


def _pixels(image: Image.Image, attention: Attention) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what the model sees of a picture, at least a pixel of it."""
    x, y, width, height = attention.seen
    left, top = round(x * image.width), round(y * image.height)
    right, bottom = round((x + width) * image.width), round((y + height) * image.height)
    left, top = min(left, image.width - 1), min(top, image.height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _outline(image: Image.Image, chosen: npt.NDArray[np.bool_], area: tuple[int, int, int, int]) -> None:
    """Draw the borders between chosen and other patches of a grid (rows, columns) that spans an area of the image."""
    rows, columns = chosen.shape
    left, top, right, bottom = area
    width = max(1, round(max(image.size) / 150))
    draw = ImageDraw.Draw(image)
    # Inside the image also where a chosen patch touches its edge.
    x = (left + np.arange(columns + 1) * (right - left) / columns).round().clip(0, image.width - 1).astype(int).tolist()
    y = (top + np.arange(rows + 1) * (bottom - top) / rows).round().clip(0, image.height - 1).astype(int).tolist()
    padded = np.pad(chosen, 1)
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]).tolist():
        draw.line((x[column], y[row], x[column], y[row + 1]), OUTLINE, width)
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]).tolist():
        draw.line((x[column], y[row], x[column + 1], y[row]), OUTLINE, width)
