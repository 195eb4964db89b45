import numpy as np
import pytest
from scipy.special import expit

from reid.naming.probability import FEATURES, PRIOR, fit_odds


def asked(seed, count, weights, selected=None):
    random = np.random.default_rng(seed)
    features = random.normal(size=(count * 4, len(FEATURES)))
    features[:, 0] = 1
    if selected is not None:
        features = features[selected(features)]
    features = features[:count]
    return features, (random.random(len(features)) < expit(features @ weights)).astype(float)


def test_without_answers_the_prior_stands():
    odds = fit_odds(np.empty((0, len(FEATURES))), np.empty(0))
    assert odds.weights == pytest.approx(PRIOR, abs=1e-4)


def test_asking_only_likely_pairs_does_not_bias_what_is_likely_among_all():
    weights = np.array([-0.5, 1.5, 0.8, -1.0, 0.2, 0.1, 0.5, 0.6])
    features, same = asked(0, 400, weights, lambda f: f @ weights > 0.5)
    odds = fit_odds(features, same)
    others, truth = asked(1, 4000, weights)
    predicted = odds.probability(others)
    for low in (0.5, 0.7, 0.9):
        chosen = predicted >= low
        assert predicted[chosen].mean() == pytest.approx(truth[chosen].mean(), abs=0.1)


def test_doubt_lowers_a_probability_and_answers_lessen_it():
    weights = PRIOR
    features, same = asked(0, 400, weights)
    few, many = fit_odds(features[:20], same[:20]), fit_odds(features, same)
    gaps = [(odds.probability(features) - odds.cautious(features, 1.64)).mean() for odds in (few, many)]
    assert gaps[0] > 2 * gaps[1] > 0


def test_more_evidence_never_tells_against():
    features, same = asked(0, 300, -PRIOR)
    weights = fit_odds(features, same).weights
    assert (np.delete(weights, [0, FEATURES.index("rivals")]) >= 0).all()
    assert weights[FEATURES.index("rivals")] <= 0
