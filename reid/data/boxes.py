"""Boxes in pixels of the upright picture."""

from math import ceil, floor

SLACK = 1e-6  # pixels by which an edge, or the sum of an edge and a length, may be off: 0.1 + 0.2 is above 0.3


def whole_box(x: float, y: float, w: float, h: float) -> tuple[int, int, int, int]:
    """All pixels that a box x, y, w, h touches, as x, y, w, h: left and top rounded down, right and bottom up."""
    left, top = floor(x + SLACK), floor(y + SLACK)
    return left, top, max(1, ceil(x + w - SLACK) - left), max(1, ceil(y + h - SLACK) - top)
