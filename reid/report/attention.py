"""Attention maps drawn over the pictures they belong to."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reid.embedder import Attention, Embedder
from reid.features import Features
from reid.report.strips import Tile

# Dark to bright at rising attention, as in matplotlib's inferno: readable without colour, and by the colour-blind.
RAMP = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
OUTLINE = (0, 229, 255)


def attended(features: Features, tiles: Sequence[Tile], embedder: Embedder) -> tuple[Tile, ...]:
    """The same tiles with the attention of `embedder` over their pictures, which it gets from the files, unscaled."""
    attentions = embedder.attention([features.picture(tile.split, tile.row) for tile in tiles])
    drawn = zip(tiles, attentions, strict=True)
    return tuple(replace(tile, picture=overlay(tile.picture, attention)) for tile, attention in drawn)


def overlay(image: Image.Image, attention: Attention) -> Image.Image:
    """Lay an attention map as heat over its upright RGB picture, and outline the areas of the chosen patches.

    The result has the picture's own size. The heat runs from the least to the most attended patch of this picture.
    """
    low, high = attention.map.min(), attention.map.max()
    scaled = (attention.map - low) / max(high - low, np.finfo(np.float32).tiny)
    heat = np.asarray(Image.fromarray(scaled.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC))
    heat = heat.clip(0, 1)[..., None]
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    stops = np.linspace(0, 1, len(RAMP))
    colour = np.concatenate([np.interp(heat, stops, channel) for channel in RAMP.T], axis=-1)
    mixed = 0.5 * grey + 0.5 * colour
    blended = Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
    if attention.chosen is not None:
        _outline(blended, attention.chosen)
    return blended


def _outline(image: Image.Image, chosen: npt.NDArray[np.bool_]) -> None:
    """Draw the borders between chosen and other patches of a grid (rows, columns) that spans the image."""
    rows, columns = chosen.shape
    width = max(1, round(max(image.size) / 150))
    draw = ImageDraw.Draw(image)
    # Inside the image also where a chosen patch touches its edge.
    x = (np.arange(columns + 1) * image.width / columns).round().clip(0, image.width - 1).astype(int).tolist()
    y = (np.arange(rows + 1) * image.height / rows).round().clip(0, image.height - 1).astype(int).tolist()
    padded = np.pad(chosen, 1)
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]).tolist():
        draw.line((x[column], y[row], x[column], y[row + 1]), OUTLINE, width)
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]).tolist():
        draw.line((x[column], y[row], x[column + 1], y[row]), OUTLINE, width)
