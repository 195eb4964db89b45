from fractions import Fraction
from math import ceil, floor

import numpy as np

from reid.data.boxes import SLACK, whole_box


def test_a_whole_box_holds_what_the_box_touches_and_no_more():
    """Against exact fractions, for boxes as detectors and tables write them."""
    random = np.random.default_rng(0)
    for box in np.round(random.uniform(0.05, 300, (500, 4)), 2).tolist():
        x, y, w, h = (Fraction(str(number)) for number in box)
        left, top = floor(x), floor(y)
        assert whole_box(*box) == (left, top, ceil(x + w) - left, ceil(y + h) - top)
    assert whole_box(9.9999999, 5, 1, 1) == (10, 5, 1, 1)
    assert whole_box(10 - 2 * SLACK, 5, 1, 1) == (9, 5, 2, 1)
