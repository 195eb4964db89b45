import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from fgvc.metrics import class_accuracy, class_mean_interval, confusions, top_k_accuracy


def world(images=200, classes=7, seed=0):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), images).astype(np.float32)
    labels = random.integers(0, classes, images)
    probabilities[: images // 2, :] += np.eye(classes, dtype=np.float32)[labels[: images // 2]]
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("k", [1, 2, 5, 7, 9])
def test_top_k_is_that_of_scikit_learn(k):
    probabilities, labels = world()
    expected = top_k_accuracy_score(labels, probabilities, k=k, labels=range(7)) if k < 7 else 1.0
    assert top_k_accuracy(probabilities, labels, k) == expected


def test_a_class_as_probable_as_the_right_one_ranks_before_it():
    even = np.full((1, 4), 0.25)
    assert [top_k_accuracy(even, np.array([2]), k) for k in (1, 3, 4)] == [0, 0, 1]


def test_accuracy_by_class_and_its_mean_are_those_of_scikit_learn():
    probabilities, labels = world()
    predicted = probabilities.argmax(axis=1)
    shares = class_accuracy(predicted, labels, 9)
    matrix = confusion_matrix(labels, predicted)
    np.testing.assert_array_equal(shares[:7], matrix.diagonal() / matrix.sum(axis=1))
    assert np.isnan(shares[7:]).all()
    assert np.nanmean(shares) == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_confusions_are_the_matrix_off_its_diagonal_the_largest_first():
    probabilities, labels = world()
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted)
    found = confusions(predicted, labels)
    assert {(pair.label, pair.predicted): pair.count for pair in found} == {
        (i, j): matrix[i, j] for i in range(7) for j in range(7) if i != j and matrix[i, j]
    }
    assert all(pair.images == matrix[pair.label].sum() for pair in found)
    counts = [pair.count for pair in found]
    assert counts == sorted(counts, reverse=True)


def test_nothing_is_confused_where_everything_is_right():
    assert confusions(np.array([1, 0]), np.array([1, 0])) == []


def test_the_interval_of_a_mean_over_classes_weighs_each_alike():
    images = np.array([400, 4, 0])
    low, high = class_mean_interval(np.array([0.5, 0.5, np.nan]), images)
    # The four images of the small class make up most of the spread: half of 0.25 x 1.96.
    assert low == pytest.approx(0.5 - 0.245, abs=0.04)
    assert high == pytest.approx(0.5 + 0.245, abs=0.04)
