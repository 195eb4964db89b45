import numpy as np
import pytest
from scipy import stats

from reid.retrieval import bootstrap


def paired_difference(baseline, candidate, **options):
    """Each query of an identity of its own, which is the plain bootstrap over queries."""
    return bootstrap.paired_difference(baseline, candidate, np.arange(len(baseline)), **options)


def two_evaluations(seed, queries=80, gain=0.03):
    """Average precisions of two models that find the same queries hard."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0.5, 0.2, queries)
    return shared + rng.normal(0, 0.05, queries), shared + rng.normal(gain, 0.1, queries)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_the_interval_is_scipys(seed, confidence):
    baseline, candidate = two_evaluations(seed)
    found = paired_difference(baseline, candidate, confidence=confidence, seed=seed)
    reference = stats.bootstrap(
        (baseline, candidate),
        lambda a, b, axis: np.mean(b - a, axis=axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        confidence_level=confidence,
        rng=seed,
    ).confidence_interval
    assert found.mean == pytest.approx(np.mean(candidate) - np.mean(baseline))
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=6e-4)
    assert found.low < found.mean < found.high


@pytest.mark.slow
def test_the_p_value_is_near_that_of_the_t_test():
    for seed in range(5):
        baseline, candidate = two_evaluations(seed, gain=0.015)
        found = paired_difference(baseline, candidate)
        assert found.p_value == pytest.approx(stats.ttest_rel(candidate, baseline).pvalue, abs=0.03)


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says():
    gain = 0.02
    options = {"resamples": 500, "confidence": 0.9}
    found = [paired_difference(*two_evaluations(seed, 100, gain), **options, seed=seed) for seed in range(500)]
    assert np.mean([one.low <= gain <= one.high for one in found]) == pytest.approx(0.9, abs=0.03)


def test_it_is_paired():
    """A small gain on every query is clear, however far apart the queries are."""
    baseline = np.linspace(0, 0.9, 50)
    found = paired_difference(baseline, baseline + 0.001)
    assert (found.low, found.high) == pytest.approx((0.001, 0.001))
    assert found.p_value < 0.01
    back = paired_difference(baseline + 0.001, baseline)
    assert (back.mean, back.low, back.high) == pytest.approx((-found.mean, -found.high, -found.low))


def test_no_difference_is_none():
    found = paired_difference(np.linspace(0, 1, 20), np.linspace(0, 1, 20))
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_the_seed_decides():
    pair = two_evaluations(0)
    one = paired_difference(*pair, resamples=200, seed=1)
    assert paired_difference(*pair, resamples=200, seed=1) == one
    assert paired_difference(*pair, resamples=200, seed=2) != one


def test_queries_skipped_in_both_are_left_out():
    baseline, candidate = two_evaluations(0, queries=30)
    with_skipped = [np.insert(values, [0, 7, 30], np.nan) for values in (baseline, candidate)]
    assert paired_difference(*with_skipped, resamples=50) == paired_difference(baseline, candidate, resamples=50)


@pytest.mark.parametrize(
    ("baseline", "candidate", "options", "message"),
    [
        ([0.1, np.nan, 0.3], [0.1, 0.2, np.nan], {}, "2 queries, the first is number 1 .* skipped in one evaluation"),
        ([0.1, 0.2], [0.1, 0.2, 0.3], {}, "shapes \\(2,\\), \\(3,\\) and"),
        ([[0.1, 0.2]], [[0.1, 0.2]], {}, "expected one a query"),
        ([0.1, np.nan], [0.2, np.nan], {}, "1 queries of 1 identities are scored; an interval needs 2"),
        ([0.1, 0.2], [0.1, 0.2], {"resamples": 0}, "resamples=0"),
        ([0.1, 0.2], [0.1, 0.2], {"confidence": 1.0}, "confidence=1.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(baseline, candidate, options, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(np.array(baseline), np.array(candidate), **options)


def clustered(seed, identities=60, queries=5, gain=0.02):
    """Differences that the queries of an identity share in part, as those of average precision do."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(rng.permutation(1000)[:identities], queries)
    differences = gain + rng.normal(0, 0.05, identities).repeat(queries) + rng.normal(0, 0.08, len(ids))
    baseline = rng.uniform(0.3, 0.7, len(ids))
    return baseline, baseline + differences, ids


@pytest.mark.slow
def test_the_interval_holds_the_truth_also_with_several_queries_an_identity():
    options = {"resamples": 400, "confidence": 0.9}
    found = [bootstrap.paired_difference(*clustered(seed), **options, seed=seed) for seed in range(400)]
    assert np.mean([one.low <= 0.02 <= one.high for one in found]) == pytest.approx(0.9, abs=0.04)
    alone = [paired_difference(*clustered(seed)[:2], **options, seed=seed) for seed in range(400)]
    assert np.mean([one.low <= 0.02 <= one.high for one in alone]) < 0.8, "the case would not show the difference"


def test_an_identity_is_drawn_with_all_its_queries():
    baseline, candidate, ids = clustered(3, identities=6, queries=3)
    sums = {one: (candidate - baseline)[ids == one] for one in np.unique(ids)}
    generator, means = np.random.default_rng(5), []
    for _ in range(100):
        drawn = np.unique(ids)[generator.integers(0, 6, 6)]
        means.append(np.concatenate([sums[one] for one in drawn]).mean())
    found = bootstrap.paired_difference(baseline, candidate, ids, resamples=100, seed=5)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_one_identity_is_not_enough():
    with pytest.raises(ValueError, match="4 queries of 1 identities are scored; an interval needs 2"):
        bootstrap.paired_difference(np.zeros(4), np.ones(4), np.zeros(4, int))


def test_intervals_of_means_hold_the_truth_as_often_as_they_say():
    """40 identities of 1 to 5 queries that succeed or fail together, as the queries of one individual do."""
    generator, held = np.random.default_rng(5), 0
    for trial in range(200):
        identities = np.repeat(np.arange(40), generator.integers(1, 6, 40))
        values = (generator.random(40) < 0.6)[identities].astype(float)
        values = np.where(generator.random(len(values)) < 0.1, np.nan, values)
        ((low, high),) = bootstrap.mean_intervals(values[None], identities, resamples=200, seed=trial)
        held += low <= 0.6 <= high
    assert 0.9 <= held / 200 <= 0.99


def test_intervals_of_several_figures_rest_on_the_same_resamples():
    values = np.random.default_rng(0).random((2, 50))
    ends = bootstrap.mean_intervals(np.stack([values[0], values[0], values[1]]), np.arange(50))
    assert ends[0].tolist() == ends[1].tolist() != ends[2].tolist()
    assert (ends[:, 0] < values[[0, 0, 1]].mean(axis=1)).all()
    assert (ends[:, 1] > values[[0, 0, 1]].mean(axis=1)).all()


def test_of_one_identity_no_interval_is_known():
    assert np.isnan(bootstrap.mean_intervals(np.ones((2, 3)), np.zeros(3, np.int64))).all()
