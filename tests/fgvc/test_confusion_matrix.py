import numpy as np
import pytest
from sklearn import metrics

from fgvc.confusion_matrix import NAMED, confusion_matrix, draw_matrix, most_confused, size, with_alike_together
from fgvc.metrics import confusions
from reid.report.figures import LIGHT, png


def world(classes, images=2000, seed=0):
    """Class k is often taken for its neighbour in a hidden order."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    hidden = random.permutation(classes)
    twin = np.empty(classes, np.int64)
    twin[hidden] = hidden[np.arange(classes) ^ 1] if classes % 2 == 0 else hidden
    return np.where(random.random(images) < 0.3, twin[labels], labels), labels, [f"class {k}" for k in range(classes)]


def test_counts_are_those_of_the_images():
    predicted, labels, names = world(6)
    matrix = confusion_matrix(predicted, labels, names)
    assert matrix.counts.tolist() == metrics.confusion_matrix(labels, predicted).tolist()
    assert matrix.shares.sum(axis=1) == pytest.approx(np.ones(6))
    assert matrix.as_table().header == ("class", *names)


def test_classes_that_are_neither_tested_nor_predicted_are_left_out():
    matrix = confusion_matrix(np.array([0, 3]), np.array([0, 0]), ["a", "b", "c", "d"])
    assert matrix.classes == ("a", "d")
    assert matrix.counts.tolist() == [[1, 1], [0, 0]]
    assert matrix.shares.tolist() == [[0.5, 0.5], [0, 0]]  # of no image, no share


def test_classes_that_are_taken_for_each_other_are_beside_each_other():
    predicted, labels, names = world(60)
    matrix = with_alike_together(confusion_matrix(predicted, labels, names))
    assert sorted(matrix.classes) == sorted(names)
    away = [abs(row - column) for row, column in np.argwhere(matrix.counts > 0).tolist() if row != column]
    assert set(away) == {1}


def test_of_many_classes_the_most_confused_are_named():
    predicted, labels, names = world(200, 6000)
    matrix = confusion_matrix(predicted, labels, names)
    found = confusions(predicted, labels)
    part = most_confused(matrix, found, names)
    assert names[found[0].label] in part.classes
    assert NAMED - 1 <= len(part.classes) <= NAMED
    assert part.shares.max() <= 1


@pytest.mark.parametrize("classes", [2, NAMED, 200])
def test_it_is_drawn_with_names_where_there_is_room(classes):
    predicted, labels, names = world(classes)
    names[0] = "a name that is longer than there is room beside a matrix $x$"
    matrix, shown = confusion_matrix(predicted, labels, names), []

    def draw(figure):
        draw_matrix(figure, matrix)
        shown.extend(label.get_text() for label in figure.axes[0].get_yticklabels())

    assert png(draw, size(matrix), LIGHT, 50)
    assert any(name.startswith("a name that") for name in shown) == (classes <= NAMED)
