import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from reid.naming.probability import BOUNDS, ENOUGH, FEATURES, PRECISION, PRIOR, Answered, fit_odds


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
    weights = np.array([-0.5, 1.5, 0.8, -1.0, 0.2, 0.1, 0.5, 0.6, 0.0])
    features, same = asked(0, 400, weights, lambda f: f @ weights > 0.5)
    odds = fit_odds(features, same)
    others, truth = asked(1, 4000, weights)
    predicted = odds.probability(others, np.zeros(len(others), int))
    for low in (0.5, 0.7, 0.9):
        chosen = predicted >= low
        assert predicted[chosen].mean() == pytest.approx(truth[chosen].mean(), abs=0.1)


def test_answers_lessen_doubt():
    weights = PRIOR
    features, same = asked(0, 400, weights)
    few, many = fit_odds(features[:20], same[:20]), fit_odds(features, same)
    doubts = [np.einsum("ij,jk,ik->i", features, odds.covariance, features).mean() for odds in (few, many)]
    assert doubts[0] > 4 * doubts[1] > 0


def test_more_evidence_never_tells_against():
    features, same = asked(0, 300, -PRIOR)
    weights = fit_odds(features, same).weights
    assert (np.delete(weights, [0, FEATURES.index("rivals")]) >= 0).all()
    assert weights[FEATURES.index("rivals")] <= 0


def of_two_views(seed, count, offsets):
    """Pairs of two views, of which one is truly likelier to be the same than its features tell, and one less."""
    features, _ = asked(seed, count, PRIOR)
    views = np.arange(count) % 2
    chances = expit(features @ PRIOR + np.array(offsets)[views])
    return features, (np.random.default_rng(seed + 1).random(count) < chances).astype(float), views


def test_each_view_with_enough_answers_is_calibrated_for_itself():
    features, same, views = of_two_views(0, 600, (1.5, -1.5))
    odds = fit_odds(features, same, views=views, view_count=2)
    others, truth, of = of_two_views(5, 6000, (1.5, -1.5))
    pooled = fit_odds(features, same).probability(others, np.zeros(len(others), int))
    predicted = odds.probability(others, of)
    for view in (0, 1):
        assert abs(pooled[of == view].mean() - truth[of == view].mean()) > 0.1, "which the views together hide"
        for low, high in ((0, 0.3), (0.3, 0.7), (0.7, 1)):
            chosen = (of == view) & (predicted >= low) & (predicted < high)
            assert predicted[chosen].mean() == pytest.approx(truth[chosen].mean(), abs=0.06)
    one = others[:1]
    assert odds.probability(one, np.array([0]))[0] > odds.probability(one, np.array([1]))[0] + 0.2


def test_a_view_with_few_answers_has_no_offset_and_one_with_hardly_enough_a_small_one():
    features, same, views = of_two_views(0, 2 * ENOUGH, (1.5, -1.5))
    few = fit_odds(features[:-2], same[:-2], views=views[:-2], view_count=3)
    assert few.offsets.tolist() == [0, 0, 0]
    odds = fit_odds(features, same, views=views, view_count=3)
    assert 0 < odds.offsets[0] < 1.5 and -1.5 < odds.offsets[1] < 0 == odds.offsets[2]


def test_one_view_is_fitted_as_without_views():
    features, same = asked(0, 120, PRIOR)

    def loss(weights):
        logits = features @ weights
        value = np.logaddexp(0, (1 - 2 * same) * logits).sum() + (PRECISION * (weights - PRIOR) ** 2).sum() / 2
        return value, features.T @ (expit(logits) - same) + PRECISION * (weights - PRIOR)

    plain = minimize(loss, PRIOR, jac=True, method="L-BFGS-B", bounds=BOUNDS).x
    odds = fit_odds(features, same, views=np.zeros(120, int), view_count=1)
    assert (odds.weights == plain).all()
    assert (odds.probability(features, np.zeros(120, int)) == expit(features @ plain)).all()
    answer = Answered(tuple(features[0].tolist()), True, 0.02)
    assert odds.without_view(answer) == answer


def test_an_answer_without_its_view_has_the_odds_that_it_had_with_it():
    features, same, views = of_two_views(0, 200, (1.5, -1.5))
    odds = fit_odds(features, same, views=views, view_count=2)
    answer = odds.without_view(Answered(tuple(features[1].tolist()), True, 0.02, view=1))
    assert np.array(answer.evidence) @ odds.weights == pytest.approx(odds.logits(features[1:2], views[1:2])[0])
