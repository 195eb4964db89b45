from fractions import Fraction
from math import ceil, floor

import numpy as np

from reid.data.boxes import SLACK, same_box, whole_box


def test_a_whole_box_holds_what_the_box_touches_and_no_more():
    """Against exact fractions, for boxes as detectors and tables write them."""
    random = np.random.default_rng(0)
    for box in np.round(random.uniform(0.05, 300, (500, 4)), 2).tolist():
        x, y, w, h = (Fraction(str(number)) for number in box)
        left, top = floor(x), floor(y)
        assert whole_box(*box) == (left, top, ceil(x + w) - left, ceil(y + h) - top)
    assert whole_box(9.9999999, 5, 1, 1) == (10, 5, 1, 1)
    assert whole_box(10 - 2 * SLACK, 5, 1, 1) == (9, 5, 2, 1)


def test_the_same_box_is_so_by_each_edge():
    assert same_box((0, 0, 100, 100), (1, 1, 99, 100))
    assert not same_box((0, 0, 100, 100), (0, 0, 102, 100))
    assert not same_box((0, 0, 100, 100), (0, 2, 100, 98))
    assert not same_box((0, 0, 10, 1000), (1, 0, 10, 1000))
