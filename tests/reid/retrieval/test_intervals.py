import numpy as np
import pytest
from scipy import stats

from reid.retrieval.intervals import wilson


def test_the_interval_of_a_share_is_wilsons():
    for hits, trials in ((0, 10), (3, 10), (10, 10), (731, 1000)):
        expected = stats.binomtest(hits, trials).proportion_ci(method="wilson")
        assert wilson(hits / trials, trials) == pytest.approx([expected.low, expected.high], abs=1e-6)
    assert np.isnan(wilson(np.array([np.nan]), np.array([0]))).all()
    low, high = wilson(1.0, 7)
    assert low < high == 1
