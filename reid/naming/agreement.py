"""How far a partition of items agrees with the true one. N items; both are labels (N,) of any integers."""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


def b_cubed(found: Integers, truth: Integers) -> float:
    """F1 of B-cubed precision and recall (Bagga and Baldwin, 1998), in (0, 1]."""
    both, in_found, in_truth = _overlaps(found, truth)
    precision, recall = float((both / in_found).mean()), float((both / in_truth).mean())
    return 2 * precision * recall / (precision + recall)


def exact_groups(found: Integers, truth: Integers) -> int:
    """How many of the true groups are groups of the partition, without an item missing or too many."""
    both, in_found, in_truth = _overlaps(found, truth)
    return round(float((((both == in_found) & (both == in_truth)) / in_truth).sum()))


def adjusted_rand(found: Integers, truth: Integers) -> float:
    """Adjusted Rand index (Hubert and Arabie, 1985), at most 1, 0 on average for partitions by chance."""
    both, in_found, in_truth = _overlaps(found, truth)
    pairs = [float((sizes - 1).sum()) for sizes in (both, in_found, in_truth)]
    total = len(found) * (len(found) - 1.0)
    expected = pairs[1] * pairs[2] / total if total else 0.0
    most = (pairs[1] + pairs[2]) / 2
    return 1.0 if most == expected else (pairs[0] - expected) / (most - expected)


def _overlaps(found: Integers, truth: Integers) -> tuple[Integers, Integers, Integers]:
    """For every item the size of its overlap, of its group and of its true group."""
    a = np.unique(found, return_inverse=True)[1].astype(np.int64)
    b = np.unique(truth, return_inverse=True)[1].astype(np.int64)
    sizes = []
    for labels in (a * (b.max() + 1) + b, a, b):
        _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        sizes.append(counts[inverse].astype(np.int64))
    return sizes[0], sizes[1], sizes[2]
