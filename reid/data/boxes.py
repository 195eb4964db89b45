"""Boxes in pixels of the upright picture."""

from math import ceil, floor

SLACK = 1e-6  # pixels by which an edge, or the sum of an edge and a length, may be off: 0.1 + 0.2 is above 0.3

SAME = 0.01  # of a box's side, by which each edge of another may differ that is of the same subject


def whole_box(x: float, y: float, w: float, h: float) -> tuple[int, int, int, int]:
    """All pixels that a box x, y, w, h touches, as x, y, w, h: left and top rounded down, right and bottom up."""
    left, top = floor(x + SLACK), floor(y + SLACK)
    return left, top, max(1, ceil(x + w - SLACK) - left), max(1, ceil(y + h - SLACK) - top)


def same_box(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Whether each edge of two boxes x, y, w, h of one picture agrees within 1 % of the longer side: one subject."""
    across, down = SAME * max(one[2], other[2]), SAME * max(one[3], other[3])
    left, top = abs(one[0] - other[0]), abs(one[1] - other[1])
    right, bottom = abs(one[0] + one[2] - other[0] - other[2]), abs(one[1] + one[3] - other[1] - other[3])
    return max(left, right) <= across and max(top, bottom) <= down
