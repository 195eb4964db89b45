import numpy as np
import pytest

from reid.naming.walks import GO_ON, KEPT, SHARPNESS, STEPS, dots, walk


def test_walks_are_the_powers_of_the_step_matrix():
    """Dense and by the definition: stay where one is, or go on, a few steps long."""
    random = np.random.default_rng(0)
    count = 9  # fewer than the destinations kept, so that nothing is cut off
    assert count <= KEPT
    unit = random.normal(size=(count, 4)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    low, high = np.triu_indices(count, 1)
    chosen = random.random(len(low)) < 0.4
    low, high = low[chosen], high[chosen]
    labels = np.array([0, 0, 2, 3, 3, 5, 6, 0, 8])
    steps = np.zeros((count, count))
    for a, b in zip(low, high, strict=True):
        steps[a, b] = steps[b, a] = np.exp(SHARPNESS * (unit[a] @ unit[b] - 1))
    degree = np.maximum(steps.sum(axis=1), 1e-12)
    steps = GO_ON * steps / np.sqrt(degree[:, None] * degree)
    expected = sum(np.linalg.matrix_power(steps, number) for number in range(STEPS + 1)) @ np.eye(count)[labels]
    found = np.zeros((count, count))
    item, label, mass = walk(unit, low, high, labels)
    found[item, label] = mass
    assert found == pytest.approx(expected, abs=1e-5)


def test_only_the_destinations_of_most_mass_are_kept():
    random = np.random.default_rng(1)
    unit = random.normal(size=(60, 4)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    low, high = np.triu_indices(60, 1)
    item, label, _ = walk(unit, low, high, np.arange(60))
    assert np.bincount(item).max() <= KEPT
    assert (item == label).sum() == 60  # everybody's own


def test_dots_are_those_of_the_pairs():
    vectors = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    assert dots(vectors, np.array([0, 4]), np.array([1, 2])) == pytest.approx(
        [vectors[0] @ vectors[1], vectors[4] @ vectors[2]]
    )
