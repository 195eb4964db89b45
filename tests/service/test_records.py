"""Regions: which pixels a box stands for, and which boxes are refused."""

import math

import pytest

from service.records import Region, UnusableBox


@pytest.mark.parametrize(
    ("box", "whole"),
    [
        ((3, 4, 5, 6), (3, 4, 5, 6)),
        ((3.2, 4.9, 5, 6), (3, 4, 6, 7)),
        ((0.5, 0.5, 0.1, 0.1), (0, 0, 1, 1)),
        ((-0.5, 1, 1, 1), (-1, 1, 2, 1)),
        ((0.1 * 3, 0.7, 99.7, 0.3), (0, 0, 100, 1)),  # 0.1 * 3 + 99.7 is above 100 by rounding alone
        ((33.1, 0, 66.9, 1), (33, 0, 67, 1)),
        ((2.9999999, 0, 2, 1), (3, 0, 2, 1)),
    ],
)
def test_a_box_stands_for_all_pixels_that_it_touches(box, whole):
    assert Region.around(*box, frame=7) == Region(*whole, frame=7)


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 1), (0, 0, 1, -2), (math.nan, 0, 1, 1), (0, math.inf, 1, 1), (0, 0, math.inf, 1)]
)
def test_a_box_of_no_pixels_is_refused(box):
    with pytest.raises(ValueError, match=r"^box .* is empty or not finite; expected x,y,w,h in pixels$"):
        Region.around(*box)


def test_a_box_lies_within_its_photo():
    Region(0, 0, 100, 50).require_inside(100, 50)
    Region(99, 49, 1, 1).require_inside(100, 50)
    with pytest.raises(UnusableBox, match=r"^box 1,0,100,50 of frame 3 is not within the picture of 100x50 pixels$"):
        Region(1, 0, 100, 50, 3).require_inside(100, 50)
