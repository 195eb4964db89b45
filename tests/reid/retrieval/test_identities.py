"""Evidence of all photos of an identity is worth what it says, however many they are."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from reid.retrieval.identities import CANDIDATES, IdentityOdds, learn_identity_odds


def photos(seed, identities=120):
    """Photos of identities, of which most have few and some have many."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(identities, 24))
    counts = rng.choice([1, 2, 3, 6, 15, 40], identities, p=[0.2, 0.25, 0.2, 0.15, 0.1, 0.1])
    shown = np.repeat(np.arange(identities), counts)
    vectors = means[shown] + 1.3 * rng.normal(size=(len(shown), 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), shown, means


def judged(odds, seed):
    """Of new queries, half of which show nobody of the gallery: the probability of each candidate, whether it is right,
    and how many photos it has; and its best cosine."""
    vectors, shown, means = photos(seed)
    rng = np.random.default_rng(seed + 1000)
    told = []
    for _ in range(700):
        there = rng.random() < 0.5
        who = rng.integers(len(means)) if there else -1
        query = (means[who] if there else rng.normal(size=24)) + 1.3 * rng.normal(size=24)
        scores = vectors @ (query / np.linalg.norm(query))
        groups = [scores[shown == one] for one in range(len(means))]
        best = np.argsort([-group.max() for group in groups])[:CANDIDATES]
        chances = odds.probabilities([groups[one] for one in best])
        assert chances.sum() < 1
        told += [(p, one == who, len(groups[one]), groups[one].max()) for p, one in zip(chances, best, strict=True)]
    return np.array(told, float)


def errors_by_count(chances, told):
    """How far the mean probability is from the share of right ones, by the number of photos."""
    bins = [(told[:, 2] >= low) & (told[:, 2] <= high) for low, high in ((1, 1), (2, 3), (6, 15), (40, 40))]
    return [chances[one].mean() / told[one, 1].mean() for one in bins]


def test_the_evidence_is_calibrated_however_many_photos_an_identity_has():
    vectors, shown, _ = photos(1)
    odds = learn_identity_odds(vectors, shown)
    told = np.concatenate([judged(odds, seed) for seed in (2, 3, 4)])
    ratios = errors_by_count(told[:, 0], told)
    assert all(0.7 < ratio < 1.4 for ratio in ratios), ratios  # of 64 to 288 right ones each
    for low, high in ((0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1)):
        some = (told[:, 0] >= low) & (told[:, 0] < high)
        assert abs(told[some, 0].mean() - told[some, 1].mean()) < 0.08, (low, high)

    # The best cosine alone, as well as a map of it can be fitted to these very queries, trusts many photos too much.
    def map_of_best(slope_and_level):
        slope, level = slope_and_level
        return 1 / (1 + np.exp(-(slope * (told[:, 3] - level))))

    def loss(level):
        chances = map_of_best((15.0, level))
        return -np.log(np.where(told[:, 1] > 0, chances, 1 - chances)).mean()

    best = map_of_best((15.0, minimize_scalar(loss, bounds=(0, 1.5), method="bounded").x))
    plain = errors_by_count(best, told)
    assert max(plain) / min(plain) > 1.5 * max(ratios) / min(ratios), (plain, ratios)


@pytest.mark.parametrize("narrow", [1.0, 0.02])
def test_where_all_have_as_many_photos_their_chances_hold_and_a_single_one_of_nobody_is_no_favourite(narrow):
    """And where all cosines are alike but for the third digit, as those of a network that learned little."""
    rng = np.random.default_rng(5)
    means = rng.normal(size=(40, 24))
    shown = np.repeat(np.arange(40), 12)

    def seen(who):
        given = who + 1.3 * rng.normal(size=(len(who), 24))
        given = narrow * given / np.linalg.norm(given, axis=1, keepdims=True)
        given = np.hstack([given, np.sqrt(1 - narrow**2) * np.ones((len(given), 1))])
        return given.astype(np.float32)

    vectors, others = seen(means[shown]), seen(rng.normal(size=(60, 24)))
    odds = learn_identity_odds(vectors, shown)
    told = []
    for who in rng.integers(0, 40, 600):
        there = rng.random() < 0.5
        query = seen(means[[who]] if there else rng.normal(size=(1, 24)))[0]
        groups = [vectors[shown == one] @ query for one in range(40)] + [[one @ query] for one in others]
        best = np.argsort([-max(group) for group in groups])[:CANDIDATES]
        chances = odds.probabilities([groups[one] for one in best])
        told += [(p, there and one == who, one >= 40) for p, one in zip(chances, best, strict=True)]
    told = np.array(told, float)
    single = told[:, 2] > 0
    assert single.sum() > 600 and told[single, 0].mean() < 0.2
    assert told[~single, 0].mean() == pytest.approx(told[~single, 1].mean(), rel=0.3)


def test_without_the_subject_hardly_anybody_is_probable():
    odds = IdentityOdds(np.array([-6.0, 10.0, 2.0, -0.5, 0.0, 0.0]), 100)
    far, near = odds.probabilities([[0.1, 0.0], [0.9, 0.8]])
    assert far < 0.01 < 0.9 < near
    assert odds.probabilities([]).shape == (0,)


def test_too_few_known_identities_are_told():
    vectors, shown, _ = photos(1)
    with pytest.raises(ValueError, match="of 3 identities with several photos; expected 40 of 10"):
        several = np.isin(shown, [one for one in range(120) if (shown == one).sum() == 3][:3])
        learn_identity_odds(vectors[several], shown[several])
