import numpy as np
import pytest
from scipy.stats import multivariate_normal

from reid.naming.evidence import Space, guess_scatter, learn_space, principal


@pytest.mark.parametrize("counts", [(1, 1), (1, 5), (4, 3)])
def test_the_evidence_is_the_ratio_of_the_two_joint_densities(counts):
    """By the definition: all vectors of both groups under one mean, against under a mean each."""
    random = np.random.default_rng(3)
    spread = np.array([2.0, 0.5], np.float32)
    groups = [random.normal(size=(count, 2)) for count in counts]
    expected = 0.0
    for axis, between in enumerate(spread):

        def density(values, between=between):
            covariance = np.eye(len(values)) + between
            return multivariate_normal.logpdf(values, np.zeros(len(values)), covariance)

        parts = [group[:, axis] for group in groups]
        expected += density(np.concatenate(parts)) - sum(density(part) for part in parts)
    space = Space(np.empty((0, 2), np.float32), spread)
    sums = tuple(group.sum(axis=0, keepdims=True).astype(np.float32) for group in groups)
    found = space.log_ratios(sums, tuple(np.array([float(count)]) for count in counts))
    assert found[0] * 10 == pytest.approx(expected, rel=1e-4)


def test_a_group_without_comparable_vectors_is_no_evidence():
    space = Space(np.empty((0, 2), np.float32), np.ones(2, np.float32))
    assert space.log_ratios((np.ones((1, 2), np.float32),) * 2, (np.ones(1), np.zeros(1))).tolist() == [0]


def test_the_likeliest_groups_are_those_of_most_evidence(monkeypatch):
    monkeypatch.setattr("reid.naming.evidence.MOST_RATIOS", 100)  # in several blocks
    random = np.random.default_rng(1)
    space = Space(np.empty((0, 4), np.float32), np.array([4, 2, 1, 0.1], np.float32))
    vectors, means = (random.normal(size=(count, 4)).astype(np.float32) for count in (30, 12))
    counts = random.integers(1, 6, 12).astype(np.float64)
    found = space.likeliest(vectors, means, counts, 3)
    for vector, chosen in zip(vectors, found, strict=True):
        sums = np.tile(vector, (12, 1)), (means * counts[:, None]).astype(np.float32)
        evidence = space.log_ratios(sums, (np.ones(12), counts))
        assert sorted(chosen) == sorted(np.argsort(-evidence)[:3])


def test_known_groups_teach_which_directions_tell_individuals_apart():
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(40), 6)
    scatter = np.array([6.0, 0.3, 0.3, 0.3])
    vectors = 2 * random.normal(size=(40, 4))[truth] + scatter * random.normal(size=(240, 4))
    vectors -= vectors.mean(axis=0)
    guess = np.eye(4)

    def right(labels):
        space = learn_space(vectors, guess, labels)
        near = ((space.vectors[:, None] - space.vectors[None]) ** 2 * space.spread).sum(axis=2)
        np.fill_diagonal(near, np.inf)
        return (truth[near.argmin(axis=1)] == truth).mean()

    taught = np.where(np.arange(240) < 180, truth, 1000 + np.arange(240))
    assert right(taught) > right(np.arange(240)) + 0.1


def test_the_guess_is_half_the_covariance_of_neighbours_differences():
    vectors = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    assert guess_scatter(vectors, np.array([[1], [0], [-1]])).tolist() == [[2, 0], [0, 0]]


def test_long_vectors_keep_their_distances_along_principal_components():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(50, 300)).astype(np.float32)
    kept = principal(vectors)
    assert kept.shape == (50, 192)
    assert ((kept[0] - kept[1]) ** 2).sum() == pytest.approx(((vectors[0] - vectors[1]) ** 2).sum(), rel=1e-4)
