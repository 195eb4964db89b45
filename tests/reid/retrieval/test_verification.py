"""Checked against all pairs written out, and scikit-learn's ROC curve over them."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve

from reid.retrieval import metrics, verification
from reid.retrieval.distances import FeatureDistances
from reid.retrieval.verification import identify, verify


class MatrixDistances:
    """A (Q, G) matrix as Distances."""

    def __init__(self, matrix):
        self.matrix = torch.tensor(np.asarray(matrix, np.float32))
        self.shape = tuple(self.matrix.shape)
        self.device = self.matrix.device

    def rows(self, start, stop, out=None):
        block = self.matrix[start:stop]
        return block.clone() if out is None else out.copy_(block)


def random_case(seed, queries=30, gallery=120, decimals=2):
    """Distances with ties, closer within an identity; identities far apart; unknown groups; queries without a match."""
    rng = np.random.default_rng(seed)
    query_ids, gallery_ids = rng.choice([4, 7, 10**9, 999], queries), rng.choice([0, 4, 7, 10**9], gallery)
    same = query_ids[:, None] == gallery_ids
    distances = np.clip(rng.normal(1 - 0.3 * same, 0.2), 0, 2).round(decimals).astype(np.float32)
    groups = rng.choice([-1, 0, 3], queries), rng.choice([-1, 0, 3], gallery)
    return distances, query_ids, groups[0], gallery_ids, groups[1]


def pairs(distances, query_ids, query_groups, gallery_ids, gallery_groups):
    """Each query's positive and negative scores, by the definitions."""
    positives, negatives = [[] for _ in query_ids], [[] for _ in query_ids]
    for q in range(len(query_ids)):
        for g in range(len(gallery_ids)):
            score = np.float32(1) - distances[q, g]
            if query_ids[q] != gallery_ids[g]:
                negatives[q].append(score)
            elif query_groups[q] == -1 or query_groups[q] != gallery_groups[g]:
                positives[q].append(score)
    return positives, negatives


def test_every_positive_has_its_query():
    case = random_case(3)
    found = verify(MatrixDistances(case[0]), *case[1:])
    expected = [(query, score) for query, scores in enumerate(pairs(*case)[0]) for score in scores]
    assert sorted(zip(found.positive_queries.tolist(), found.positive_scores.tolist(), strict=True)) == sorted(
        (query, float(score)) for query, score in expected
    )
    for point in found.tpr_at_fpr.values():
        assert point is None or np.mean(found.positive_scores >= point.threshold) == point.tpr


def bin_width(distances):
    """The narrowest power of two of which 2^18 span the scores, but not below the step of float32."""
    return max(2.0 ** np.ceil(np.log2(distances.max() / 2**18)), 2.0**-24)


def in_bins(scores, width):
    """Scores moved down to the edges of their bins, as float64."""
    return np.floor(np.concatenate(scores).astype(np.float64) / width) * width


@pytest.mark.parametrize("decimals", [2, 7])
@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_all_pairs(seed, decimals):
    case = random_case(seed, decimals=decimals)
    found = verify(MatrixDistances(case[0]), *case[1:])
    positive, negative = (in_bins(scores, bin_width(case[0])) for scores in pairs(*case))
    assert (found.positives, found.negatives) == (len(positive), len(negative))

    fpr, tpr, thresholds = roc_curve(
        np.repeat([1, 0], [len(positive), len(negative)]), np.concatenate([positive, negative]), drop_intermediate=False
    )
    best = found.tpr_at_fpr[1e-2]
    allowed = tpr[fpr <= 1e-2]
    assert best.tpr == pytest.approx(allowed.max(), abs=1e-12)
    assert best.tpr == np.mean(positive >= best.threshold)
    assert best.fpr == np.mean(negative >= best.threshold) <= 1e-2
    gap = np.abs(fpr - (1 - tpr))
    at = found.equal_error_threshold
    rates = np.mean(negative >= at), np.mean(positive < at)
    assert found.equal_error_rate == pytest.approx(np.mean(rates))
    assert abs(rates[0] - rates[1]) == pytest.approx(gap[np.isfinite(thresholds)].min())

    roc = found.roc
    assert len(roc.fpr) <= 500
    assert (roc.fpr[0], roc.tpr[0], roc.fpr[-1], roc.tpr[-1]) == (0, 0, 1, 1)
    for threshold, false, true in zip(roc.thresholds, roc.fpr, roc.tpr, strict=True):
        assert false == np.mean(negative >= threshold)
        assert true == np.mean(positive >= threshold)
    np.testing.assert_array_equal(found.positive_histogram, np.histogram(positive, 2**16, (-1, 1))[0])
    np.testing.assert_array_equal(found.negative_histogram, np.histogram(negative, 2**16, (-1, 1))[0])


@pytest.mark.parametrize("seed", range(6))
def test_shares_at_a_threshold_are_exact_in_the_scores_themselves(seed):
    """Binned or not: a score is at or above a bin's edge exactly when its bin is."""
    case = random_case(seed, decimals=9)
    found = verify(MatrixDistances(case[0]), *case[1:])
    positive, negative = (np.concatenate(scores) for scores in pairs(*case))
    point = found.tpr_at_fpr[1e-2]
    assert (point.fpr, point.tpr) == (np.mean(negative >= point.threshold), np.mean(positive >= point.threshold))
    # Any threshold at all would gain no more than what lies in the one bin below.
    best = max(np.mean(positive >= score) for score in [*positive, 2] if np.mean(negative >= score) <= 1e-2)
    assert point.tpr <= best <= np.mean(positive >= point.threshold - bin_width(case[0]))


def test_scores_crowded_near_1_are_told_apart_to_the_last_bit():
    distances, *labels = random_case(0, queries=60, decimals=9)
    crowded = (distances * np.float32(1e-3)).astype(np.float32)
    found = verify(MatrixDistances(crowded), *labels)
    positive, negative = (np.concatenate(scores) for scores in pairs(crowded, *labels))
    best = max(np.mean(positive >= score) for score in positive if np.mean(negative >= score) <= 1e-2)
    assert found.tpr_at_fpr[1e-2].tpr == best


def test_a_low_score_that_comes_late_changes_nothing(monkeypatch):
    """Bins are joined when it comes: the counts are those of a pass that knew of it."""
    distances, *labels = random_case(1, queries=40, decimals=9)
    distances = distances * np.float32(0.01)
    distances[-1, 0] = 1.9
    whole = verify(MatrixDistances(distances), *labels)
    monkeypatch.setattr("reid.retrieval.metrics.BLOCK_DISTANCES", 1)
    assert verify(MatrixDistances(distances), *labels).as_json() == whole.as_json()
    first = [distances[::-1], labels[0][::-1], labels[1][::-1], *labels[2:]]
    assert verify(MatrixDistances(first[0].copy()), *first[1:]).as_json() == whole.as_json()


@pytest.mark.parametrize("rate", [0.01, 0.29, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_open_set_figures_are_those_of_the_trials_one_by_one(seed, rate):
    case = random_case(seed, queries=100, decimals=2)
    found = verify(MatrixDistances(case[0]), *case[1:], false_alarm_rate=rate)
    positives, negatives = pairs(*case)
    impostors = [max(scores) for scores in negatives if scores]
    mated = [(max(right), max(wrong)) for right, wrong in zip(positives, negatives, strict=True) if right]
    open_set = found.open_set
    assert (open_set.impostor_trials, open_set.mated_trials) == (len(impostors), len(mated))
    assert len(mated) < len(positives), "the case has a query without a match"

    def false_alarms(threshold):
        return sum(score >= threshold for score in impostors) / len(impostors)

    assert false_alarms(open_set.threshold) <= rate
    one_lower = np.nextafter(np.float32(open_set.threshold), np.float32(-2))
    assert false_alarms(one_lower) > rate
    assert open_set.rejected == pytest.approx(1 - false_alarms(open_set.threshold))
    assert open_set.identified == np.mean([right > wrong and right >= open_set.threshold for right, wrong in mated])
    assert open_set.missed == np.mean([right < open_set.threshold for right, _ in mated])

    expected = [max(scores, default=np.nan) for scores in positives]
    np.testing.assert_array_equal(found.best_positive, np.array(expected, np.float32))
    np.testing.assert_array_equal(found.best_negative, np.array([max(s) for s in negatives], np.float32))


def test_ties_with_an_impostor_are_read_against_us():
    open_set = identify(np.array([0.75, 0.5], np.float32), np.array([0.75, 0.25], np.float32), 0.5)
    assert open_set.threshold == np.nextafter(np.float32(0.25), np.float32(1))
    assert (open_set.identified, open_set.missed, open_set.rejected) == (0.5, 0.0, 0.5)


def test_a_mated_query_without_any_wrong_row_is_identified():
    best = np.array([0.5, 0.5], np.float32), np.array([np.nan, 0.25], np.float32)
    open_set = identify(*best, 0.01)
    assert (open_set.impostor_trials, open_set.mated_trials, open_set.identified) == (1, 2, 1.0)


def test_results_do_not_depend_on_blocks_tiles_or_order(monkeypatch):
    case = random_case(3, queries=50)
    whole = verify(MatrixDistances(case[0]), *case[1:])
    monkeypatch.setattr(metrics, "BLOCK_DISTANCES", 1)
    monkeypatch.setattr(verification, "TILE_SCORES", 7)
    seen = []
    rows = np.random.default_rng(0).permutation(120)
    shuffled = verify(
        MatrixDistances(case[0][:, rows]),
        case[1],
        case[2],
        case[3][rows],
        case[4][rows],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 50) for done in range(1, 51)]
    assert shuffled.as_json() == whole.as_json()
    np.testing.assert_array_equal(shuffled.best_positive, whole.best_positive)
    np.testing.assert_array_equal(shuffled.best_negative, whole.best_negative)


def test_all_junk_counts_as_neither():
    distances = MatrixDistances([[0.0, 0.5, 1.0], [0.25, 0.5, 0.5]])
    found = verify(distances, np.array([1, 2]), np.array([5, 5]), np.array([1, 1, 2]), np.array([5, 6, 5]))
    assert (found.positives, found.negatives) == (1, 3)
    assert found.best_positive[0] == 0.5
    assert np.isnan(found.best_positive[1])
    assert found.best_negative.tolist() == [0.0, 0.75]


def test_rates_that_the_negatives_cannot_resolve_are_none():
    ids, groups = np.array([1]), np.array([-1])
    gallery_ids = np.array([1] + [2] * 100)
    found = verify(
        MatrixDistances([np.linspace(0, 1, 101)]), ids, groups, gallery_ids, np.full(101, -1), false_alarm_rate=0.5
    )
    assert found.tpr_at_fpr[1e-2].tpr == 1.0
    assert found.tpr_at_fpr[1e-3] is None
    written = json.loads(json.dumps(found.as_json()))
    assert written["tpr_at_fpr"]["0.001"] is None
    assert written["tpr_at_fpr"]["0.01"]["fpr"] == 0.01
    assert written["open_set"]["false_alarm_rate"] == 0.5
    assert written["equal_error_rate"] == 0.0


def test_a_negative_with_the_score_1_can_still_be_kept_out():
    """Duplicate images under two names: no score is safe, and the threshold says so."""
    found = verify(
        MatrixDistances(np.zeros((1, 200))), np.array([1]), np.array([-1]), np.repeat([1, 2], 100), np.full(200, -1)
    )
    point = found.tpr_at_fpr[1e-2]
    assert (point.fpr, point.tpr) == (0, 0)
    assert point.threshold > 1
    assert found.open_set.threshold > 1
    assert found.open_set.missed == 1


@pytest.mark.parametrize(
    ("gallery_ids", "query_group", "message"),
    [
        ([2, 2], -1, "0 pairs of a query and a gallery row are of one identity and not junk, 2 are of two"),
        ([1, 1], -1, "2 pairs .* 0 are of two"),
        ([1, 2], 0, "0 pairs .* junk=none"),
    ],
)
def test_a_kind_of_pair_that_is_missing_is_named(gallery_ids, query_group, message):
    with pytest.raises(ValueError, match=message):
        verify(
            MatrixDistances([[0.5, 0.5]]),
            np.array([1]),
            np.array([query_group]),
            np.array(gallery_ids),
            np.zeros(2, int),
        )


@pytest.mark.parametrize(("distance", "shown"), [(7.25, "7.25"), (np.nan, "nan"), (-0.5, "-0.5")])
def test_what_is_no_cosine_distance_is_refused(distance, shown):
    with pytest.raises(ValueError, match=f"distances lie between .*{shown}.*cosine distances, in \\[0, 2\\]"):
        verify(MatrixDistances([[0.5, distance]]), np.array([1]), np.array([0]), np.array([1, 2]), np.array([1, 1]))


def test_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="labels are for \\(1, 3\\) .* distances for \\(1, 2\\)"):
        verify(MatrixDistances([[0.5, 0.5]]), np.array([1]), np.array([0]), np.array([1, 2, 2]), np.array([1, 1, 1]))


@pytest.mark.parametrize("rate", [0, 1, -0.5])
def test_a_false_alarm_rate_is_a_share(rate):
    best = np.array([0.5], np.float32)
    with pytest.raises(ValueError, match=f"false_alarm_rate is {rate}"):
        identify(best, best, rate)


def test_features_as_they_are_stored_give_the_scores_of_their_cosines():
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(20, 16)), rng.normal(size=(60, 16))
    ids = rng.integers(0, 5, 20), rng.integers(0, 5, 60)
    found = verify(FeatureDistances(query, gallery), ids[0], np.full(20, -1), ids[1], np.full(60, -1))
    cosine = (query / np.linalg.norm(query, axis=1)[:, None]) @ (gallery / np.linalg.norm(gallery, axis=1)[:, None]).T
    same = ids[0][:, None] == ids[1]
    np.testing.assert_allclose(found.best_positive, np.where(same, cosine, -2).max(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.best_negative, np.where(same, -2, cosine).max(axis=1), atol=1e-6)
