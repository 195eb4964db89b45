import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from reid.naming.agreement import adjusted_rand, b_cubed, exact_groups


def slow_b_cubed(found, truth):
    """Item by item, as Bagga and Baldwin define it."""
    precision, recall = [], []
    for item in range(len(found)):
        group = {other for other in range(len(found)) if found[other] == found[item]}
        individual = {other for other in range(len(found)) if truth[other] == truth[item]}
        precision.append(len(group & individual) / len(group))
        recall.append(len(group & individual) / len(individual))
    p, r = np.mean(precision), np.mean(recall)
    return 2 * p * r / (p + r)


@pytest.mark.parametrize("seed", range(8))
def test_agreement_equals_definition_and_scikit_learn(seed):
    random = np.random.default_rng(seed)
    truth = random.integers(-3, 5, 40)
    found = np.where(random.random(40) < 0.7, truth * 100 + 7, random.integers(0, 20, 40))
    assert b_cubed(found, truth) == pytest.approx(slow_b_cubed(found, truth))
    assert adjusted_rand(found, truth) == pytest.approx(adjusted_rand_score(truth, found))
    groups = {frozenset(np.nonzero(found == label)[0].tolist()) for label in found}
    individuals = {frozenset(np.nonzero(truth == label)[0].tolist()) for label in truth}
    assert exact_groups(found, truth) == len(groups & individuals)


def test_the_truth_agrees_with_itself_by_any_names():
    truth = np.array([4, 4, 9, 1])
    assert b_cubed(np.array([0, 0, 1, 2]), truth) == 1
    assert adjusted_rand(np.array([0, 0, 1, 2]), truth) == 1
    assert adjusted_rand(np.arange(4), np.arange(4)) == adjusted_rand_score(range(4), range(4))
