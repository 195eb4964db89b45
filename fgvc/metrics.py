"""How good predictions of categories are: arrays in, numbers out. n images, C classes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Confusion:
    """Two classes, `count` of the first one's `images` taken for the second."""

    label: int
    predicted: int
    count: int
    images: int


def top_k_accuracy(probabilities: Floats, labels: Integers, k: int) -> float:
    """Share of n images whose label is among the k most probable classes, in [0, 1]; 1 where k is C or more.

    `probabilities` (n, C), `labels` (n,). A class as probable as the right one counts as more probable.

    >>> top_k_accuracy(np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), np.array([0, 2]), 2)
    0.5
    """
    right = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return float(np.mean((probabilities >= right).sum(axis=1) <= k))


def class_accuracy(predicted: Integers, labels: Integers, classes: int) -> Floats:
    """Share of each class's images that is predicted right, (C,) in [0, 1]; NaN for a class without images."""
    images = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[predicted == labels], minlength=classes)
    shares: Floats = np.divide(right, images, out=np.full(classes, np.nan), where=images > 0)
    return shares


def confusions(predicted: Integers, labels: Integers) -> list[Confusion]:
    """Every pair of classes of which one is taken for the other, the most frequent first, then the largest share."""
    images = np.bincount(labels)
    wrong = predicted != labels
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True)
    found = [
        Confusion(int(label), int(taken_for), int(count), int(images[label]))
        for (label, taken_for), count in zip(pairs.T, counts, strict=True)
    ]
    return sorted(found, key=lambda c: (-c.count, -c.count / c.images, c.label, c.predicted))


def class_mean_interval(
    per_class: Floats, images: Integers, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The ends of the 95 % interval of the mean over classes of `per_class` (C,), by a bootstrap within each class.

    `images` (C,) are those that each class has; of classes without any nothing is asked.
    """
    tested = images > 0
    hits = np.random.default_rng(seed).binomial(images[tested], per_class[tested], (resamples, int(tested.sum())))
    low, high = np.quantile((hits / images[tested]).mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
