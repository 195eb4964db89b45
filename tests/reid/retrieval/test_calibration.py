import json

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression

from reid.retrieval.calibration import Calibration, calibration_error, cross_fit, fit_calibration, reliability_bins
from reid.retrieval.verification import identify


def world(seed, identities=40, queries=200, decimals=3):
    """Best right and wrong scores that overlap, with ties, for queries of identities with gaps between them."""
    rng = np.random.default_rng(seed)
    right, wrong = rng.normal(0.6, 0.1, queries), rng.normal(0.4, 0.1, queries)
    ids = np.concatenate([np.arange(identities), rng.integers(0, identities, queries - identities)]) * 1000 + 7
    return right.round(decimals).astype(np.float32), wrong.round(decimals).astype(np.float32), ids


def fit(seed=0, **options):
    right, wrong, ids = world(seed)
    return fit_calibration(right, wrong, ids, np.unique(ids), **options)


def trials(right, wrong):
    """Score and rightness of each query's best match, with its subject in the gallery, then without."""
    inside = [(r, 1) if r > w else (w, 0) for r, w in zip(right, wrong, strict=True)]
    outside = [(w, 0) for w in wrong]
    scores, labels = zip(*inside, *outside, strict=True)
    return np.array(scores, float), np.array(labels, float)


def true_probability(scores):
    """What `world` makes of a score: densities of the best match in each case, all as likely."""
    right, wrong = norm(0.6, 0.1), norm(0.4, 0.1)
    is_right = right.pdf(scores) * wrong.cdf(scores)
    return is_right / (is_right + wrong.pdf(scores) * right.cdf(scores) + wrong.pdf(scores))


def scikit_map(scores, labels):
    """Isotonic regression with the two pseudo matches, and straight lines in the gaps between its levels."""
    scores, labels = np.append(scores, [min(scores), max(scores)]), np.append(labels, [1, 0])
    levels = IsotonicRegression().fit_transform(scores, labels)
    knots = [(end(scores[levels == level]), level) for level in np.unique(levels) for end in (np.min, np.max)]
    return np.transpose(knots)


@pytest.mark.parametrize("seed", range(10))
def test_the_map_is_isotonic_regression_joined_up_and_never_certain(seed):
    right, wrong, _ = world(seed)
    scores, labels = trials(right, wrong)
    calibration = fit(seed)
    grid = np.linspace(-1, 1, 2001)
    np.testing.assert_allclose(calibration.probability(grid), np.interp(grid, *scikit_map(scores, labels)), atol=1e-9)
    assert (np.diff(calibration.probability(grid)) >= 0).all()
    assert 0 < calibration.probability(-1) < calibration.probability(1) < 1


def test_scores_that_never_overlap_follow_the_rule_of_succession():
    ids = np.arange(20)
    calibration = fit_calibration(
        np.linspace(0.7, 0.9, 20, dtype=np.float32), np.linspace(0.1, 0.3, 20, dtype=np.float32), ids, ids
    )
    assert calibration.probability([0.0, 1.0]) == pytest.approx([1 / 21, 20 / 21])


@pytest.mark.parametrize("seed", range(3))
def test_a_world_of_known_probability_is_found_again(seed):
    right, wrong, ids = world(seed, identities=2000, queries=4000, decimals=7)
    calibration = fit_calibration(right, wrong, ids, np.unique(ids))
    grid = np.linspace(0.35, 0.75, 200)
    error = np.abs(calibration.probability(grid) - true_probability(grid))
    assert error.mean() < 0.02
    assert error.max() < 0.1
    assert calibration.calibration_error < 0.03
    assert sum(bin.samples for bin in calibration.reliability) == 8000
    scores, labels = trials(right, wrong)
    best = np.mean((true_probability(scores) - labels) ** 2)  # no map beats it by more than chance
    assert best - 0.002 < calibration.brier_score < best + 0.005


def test_a_weak_model_is_not_flattered():
    """Right scores hardly above wrong ones: what is promised on the whole is what is kept."""
    rng = np.random.default_rng(0)
    right, wrong = rng.normal([[0.55], [0.5]], 0.1, (2, 2000)).astype(np.float32)
    ids = np.arange(2000)
    calibration = fit_calibration(right, wrong, ids, ids)
    scores, labels = trials(right, wrong)
    assert calibration.probability(scores).mean() == pytest.approx(labels.mean(), abs=0.02)
    assert labels.mean() < 0.35


@pytest.mark.parametrize("separation", [3, 6, 8, 30])
def test_new_queries_are_judged_well_in_every_range(separation):
    """However well right and wrong scores are apart, among all predictions alike the share right is near them."""
    rng = np.random.default_rng(separation)

    def draw(count):
        return rng.normal([[0.2 + separation * 0.02], [0.2]], 0.02, (2, count)).astype(np.float32)

    calibration = fit_calibration(*draw(1500), np.repeat(np.arange(300), 5), np.arange(300))
    scores, labels = trials(*draw(50_000))
    predicted = calibration.probability(scores)
    for low in np.arange(0, 1, 0.1):
        inside = (predicted >= low) & (predicted < low + 0.1)
        if inside.sum() > 200:
            assert abs(predicted[inside].mean() - labels[inside].mean()) < 0.12, f"from {low:.1f} on"
    assert np.abs(predicted - labels).mean() <= 2 * np.mean((predicted - labels) ** 2) + 0.02


def test_an_identity_is_judged_without_its_own_samples():
    right, wrong, ids = world(1)
    (scores, labels), identities = trials(right, wrong), np.tile(ids, 2)
    predicted = cross_fit(scores, labels, identities)
    for subject in np.unique(identities)[:7]:
        own = identities == subject
        turned = cross_fit(scores, np.where(own, 1 - labels, labels), identities)
        np.testing.assert_array_equal(turned[own], predicted[own])
        assert (turned[~own] != predicted[~own]).any(), "the samples of one identity matter to others"


@pytest.mark.parametrize("seed", range(3))
def test_reliability_is_that_of_the_held_out_folds(seed):
    right, wrong, ids = world(seed)
    (scores, labels), identities = trials(right, wrong), np.tile(ids, 2)
    predicted = np.empty(len(scores))
    for fold in range(5):
        inside = np.isin(identities, np.unique(ids)[fold::5])
        predicted[inside] = np.interp(scores[inside], *scikit_map(scores[~inside], labels[~inside]))
    np.testing.assert_allclose(cross_fit(scores, labels, identities), predicted, atol=1e-9)

    calibration = fit(seed)
    assert calibration.brier_score == pytest.approx(np.mean((predicted - labels) ** 2))
    error = 0.0
    for bin in calibration.reliability:
        tenth = np.floor(bin.predicted * 10)
        members = np.floor(predicted * 10) == tenth
        assert bin.samples == members.sum()
        assert (bin.predicted, bin.observed) == pytest.approx((predicted[members].mean(), labels[members].mean()))
        error += members.mean() * abs(bin.predicted - bin.observed)
    assert sum(bin.samples for bin in calibration.reliability) == len(scores)
    assert calibration.calibration_error == pytest.approx(error)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_verdicts_err_at_the_chosen_rate(seed, rate):
    right, wrong, _ = world(seed)
    calibration = fit(seed, false_alarm_rate=rate)
    found = right[right > wrong]
    assert calibration.known_from == identify(right, wrong, rate).threshold
    assert np.mean([calibration.verdict(score) == "known" for score in wrong]) <= rate
    assert np.mean([calibration.verdict(score) == "unknown" for score in found]) <= rate
    # The highest such score, unless the two thresholds meet.
    assert np.mean(found <= calibration.unknown_below) > rate or calibration.unknown_below == calibration.known_from
    assert (calibration.unknown_below < calibration.known_from) == (rate < 0.2)
    likely = calibration.probability(calibration.known_from) >= 0.5
    assert likely == (rate < 0.2)
    assert calibration.verdict(calibration.known_from) == ("known" if likely else "ambiguous")
    assert calibration.verdict(-1) == "unknown"
    middle = (calibration.known_from + calibration.unknown_below) / 2
    assert calibration.verdict(middle) == "ambiguous"


def test_known_takes_a_probability_of_one_half():
    calibration = Calibration(np.array([-1.0, 1.0]), np.array([0.03, 0.6]), 0.2, 0, 0.01, 10, 10, 10, 10, 0.1, 0.1, ())
    assert [calibration.verdict(score) for score in (-0.5, 0.1, 0.3, 0.7, 1)] == [
        *("unknown", "ambiguous", "ambiguous", "known", "known")
    ]


def test_a_threshold_that_finds_nobody_is_refused():
    """Two strangers look more alike than any two photos of one: no score tells that somebody is known."""
    right, wrong, ids = world(0)
    wrong[:10] = right.max() + 0.1
    with pytest.raises(
        ValueError, match="none of 200 queries would be called known: that takes a score of .* raise fal"
    ):
        fit_calibration(right, wrong, ids, ids)
    assert fit_calibration(right, wrong, ids, ids, false_alarm_rate=0.1).known_from < right.max()


def test_scores_far_apart_leave_nothing_ambiguous():
    ids = np.arange(20)
    calibration = fit_calibration(np.full(20, 0.9, np.float32), np.full(20, 0.1, np.float32), ids, ids)
    assert calibration.unknown_below == calibration.known_from
    assert {calibration.verdict(score) for score in (-1, 0, 0.1)} == {"unknown"}
    assert {calibration.verdict(score) for score in (0.9, 1)} == {"known"}


def test_it_says_what_it_rests_on_and_leaves_queries_without_a_match_out():
    right, wrong, ids = world(2)
    right[5:8] = np.nan
    calibration = fit_calibration(right, wrong, ids, np.repeat(np.arange(300), 2))
    assert (calibration.queries, calibration.identities) == (197, len(np.unique(np.delete(ids, [5, 6, 7]))))
    assert (calibration.gallery, calibration.gallery_identities) == (600, 300)


def test_too_few_identities_are_refused():
    ids = np.arange(100) % 9
    right, wrong, _ = world(0, queries=100)
    with pytest.raises(ValueError, match="9 identities .* at least 10: use a dataset with more identities"):
        fit_calibration(right, wrong, ids, ids)


def test_a_model_that_finds_nobody_is_refused():
    ids = np.arange(20)
    with pytest.raises(ValueError, match="the best match is wrong for each of 20 queries"):
        fit_calibration(np.full(20, 0.5, np.float32), np.full(20, 0.5, np.float32), ids, ids)


def test_written_and_read_again_it_is_the_same():
    calibration = fit()
    read = Calibration.from_json(json.loads(json.dumps(calibration.as_json())))
    assert read.as_json() == calibration.as_json()
    assert read.reliability == calibration.reliability
    grid = np.linspace(-1, 1, 100)
    np.testing.assert_array_equal(read.probability(grid), calibration.probability(grid))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "reid-calibration 9"}, "format is 'reid-calibration 9', expected 'reid-calibration 1'"),
        ({"format": None}, "format is None"),
        ({"scores": [0.1]}, "damaged calibration: expected ascending"),
        ({"scores": "high"}, "damaged calibration: could not convert"),
        ({"probabilities": [0.9, 0.1]}, "damaged calibration: expected ascending"),
        ({"probabilities": [0.1, 1.1]}, "damaged calibration: expected ascending"),
        ({"probabilities": [0.1, float("nan")]}, "damaged calibration: expected ascending"),
        ({"known_from": float("nan")}, "damaged calibration: expected ascending"),
        ({"known_from": -1.0}, "damaged calibration: expected ascending"),
        ({"known_from": "high"}, "damaged calibration: '<=' not supported"),
        ({"reliability": [{"predicted": 1}]}, "damaged calibration: .*missing"),
        ({"surplus": 1}, "damaged calibration: .*surplus"),
    ],
)
def test_foreign_or_damaged_content_is_refused_in_one_line(change, message):
    ids = np.arange(20)
    right, wrong = np.linspace(0.7, 0.9, 20, dtype=np.float32), np.linspace(0.1, 0.3, 20, dtype=np.float32)
    values = fit_calibration(right, wrong, ids, ids).as_json()
    values |= {name: values[name][1:3] for name in ("scores", "probabilities")}
    assert Calibration.from_json(values).probability(0.5) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=message) as caught:
        Calibration.from_json({**values, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{}, [], None, "text", {"mAP": 0.5}])
def test_something_else_is_no_calibration(values):
    with pytest.raises(ValueError, match="no calibration of this version"):
        Calibration.from_json(values)


@pytest.mark.parametrize("name", ["scores", "reliability", "known_from", "queries"])
def test_a_missing_part_is_named(name):
    values = fit().as_json()
    del values[name]
    with pytest.raises(ValueError, match=f"damaged calibration: .*{name}"):
        Calibration.from_json(values)


def test_reliability_bins_and_calibration_error_by_hand():
    bins = reliability_bins([0.05, 0.95, 0.96, 1.0, 0.31], [0, 1, 0, 1, 1])
    assert [(part.samples, part.observed) for part in bins] == [(1, 0.0), (1, 1.0), (3, 2 / 3)]
    assert [part.predicted for part in bins] == pytest.approx([0.05, 0.31, 0.97])
    expected = (1 * 0.05 + 1 * 0.69 + 3 * (0.97 - 2 / 3)) / 5
    assert calibration_error(bins) == pytest.approx(expected)
