import numpy as np
import pytest

from reid.report.cmc import cmc_curve, draw_cmc
from reid.report.figures import LIGHT, png


def test_the_curve_counts_queries_hit_by_each_rank():
    first_hit = np.array([[1, 3, np.nan, 60, 3]])
    curve = cmc_curve("a", first_hit, np.arange(5), 1000)
    assert len(curve.shares) == 50
    for k in range(1, 51):
        assert curve.shares[k - 1] == sum(hit <= k for hit in (1, 3, 60, 3)) / 4
        assert curve.ends[k - 1, 0] <= curve.shares[k - 1] <= curve.ends[k - 1, 1]
    assert cmc_curve("a", np.array([[1.0]]), np.array([0]), 4).shares.tolist() == [1, 1, 1, 1]


def test_its_interval_is_that_of_identities_not_of_queries():
    """Ten queries of each identity that succeed or fail together say no more than one of each."""
    hits = np.where(np.arange(20) < 10, 1.0, 9.0)
    alone = cmc_curve("a", hits[None], np.arange(20), 50)
    together = cmc_curve("a", np.repeat(hits, 10)[None], np.repeat(np.arange(20), 10), 50)
    assert together.ends == pytest.approx(alone.ends)


def test_a_query_counts_in_every_draw():
    curve = cmc_curve("a", np.array([[1, 2], [2, np.nan]]), np.arange(2), 3)
    assert curve.shares == pytest.approx([1 / 3, 1, 1])


def test_of_one_identity_there_is_no_interval():
    curve = cmc_curve("a", np.array([[1.0, 2.0]]), np.zeros(2, np.int64), 3)
    assert str(curve.share(1)) == "50.0 %"


def test_several_are_in_one_figure_by_name():
    curves = [cmc_curve(name, np.array([[1, 2, 3.0]]), np.arange(3), 60) for name in ("one", "two")]
    shown = []

    def draw(figure):
        draw_cmc(figure, curves)
        shown.extend(text.get_text() for text in figure.axes[0].get_legend().get_texts())
        assert len(figure.axes[0].collections) == 2  # a band each

    assert png(draw, (4, 3), LIGHT, 50)
    assert shown == ["one", "two"]
