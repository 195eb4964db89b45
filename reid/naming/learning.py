"""What the groups known so far teach about all items: a space, who is near whom in it, and where walks lead.

N items of E values, K candidates of each, M edges between candidates.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid.naming.evidence import Space, guess_scatter, learn_space, principal
from reid.naming.walks import dots, walk

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

NEAR = 10  # neighbours of each item that walks go to, and in the learned space candidates
LIKELY = 5  # known groups that each group may be of, found by all that is known of them
BLOCK = 2**22


class Material:
    """Vectors (N, E), of what `views` (N,), with the nearest others of each: `rows` (N, K) and cosines `scores`."""

    def __init__(
        self,
        vectors: npt.NDArray[np.floating],
        rows: Integers,
        scores: npt.NDArray[np.floating],
        views: Integers | None,
    ) -> None:
        self.count = len(vectors)
        norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        self.unit: Singles = (vectors / norms).astype(np.float32)
        self.vectors = principal(vectors)
        self.views: Integers = (
            np.zeros(self.count, np.int64)
            if views is None
            else np.unique(views, return_inverse=True)[1].astype(np.int64)
        )
        self.view_count = int(self.views.max(initial=0)) + 1
        self.widen(rows, scores)
        self.scatter = guess_scatter(self.vectors, self.rows)

    def widen(self, rows: Integers, scores: npt.NDArray[np.floating]) -> None:
        """Take other candidates."""
        comparable = (rows >= 0) & (self.views[np.maximum(rows, 0)] == self.views[:, None])
        self.rows: Integers = np.where(comparable, rows, -1)
        # Hubs are near to everybody; what counts is similarity against that of each item's neighbourhood.
        near = np.where(self.rows[:, :NEAR] >= 0, scores[:, :NEAR], np.nan)
        near[np.isnan(near).all(axis=1)] = 0.0
        self.level: Floats = np.nanmean(near, axis=1, dtype=np.float64) if near.shape[1] else np.zeros(self.count)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What labels taught: the space, edges (M,) with their standardised cosine and closeness, and walks.

    `near` (N, 10) are the nearest items in the space; `walks` are item, label and mass.
    """

    space: Space
    near: Integers
    low: Integers
    high: Integers
    cosine: Floats
    closeness: Floats
    walks: tuple[Integers, Integers, Singles]


def learn(material: Material, labels: Integers, near: Integers | None = None) -> Lesson:
    """Learn from groups `labels` (N,); `near` are the nearest items of an earlier lesson, to start from."""
    space = learn_space(material.vectors, material.scatter, labels)
    unit = space.vectors * np.sqrt(space.spread / (1 + space.spread))
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    start = material.rows[:, :NEAR]
    near = nearest_of(unit, pool(start if near is None else near, material.rows))
    near = np.where(material.views[np.maximum(near, 0)] == material.views[:, None], near, -1)
    count = material.count
    short = edges(count, np.concatenate([near, start], axis=1))
    keys = np.union1d(np.union1d(edges(count, material.rows), short), likely_edges(space, labels, material.views))
    low, high = keys // count, keys % count
    score = dots(material.unit, low, high).astype(np.float64)
    closeness = 2 * score - material.level[low] - material.level[high]
    walks = walk(unit, short // count, short % count, labels)
    return Lesson(space, near, low, high, standard(score), standard(closeness), walks)


def pool(near: Integers, rows: Integers) -> Integers:
    """Candidates (N, M) for the nearest: those known, and the neighbours of neighbours; -1 for none."""
    further = np.where((near >= 0)[:, :, None], near[np.maximum(near, 0)], -1).reshape(len(near), -1)
    return np.concatenate([rows, further], axis=1)


def nearest_of(unit: Singles, candidates: Integers) -> Integers:
    """The nearest (N, 10) of candidates (N, M) by inner product, -1 for none."""
    count = len(unit)
    found = np.full((count, NEAR), -1, np.int64)
    step = max(1, BLOCK // max(candidates.shape[1] * unit.shape[1], 1))
    for start in range(0, count, step):
        among = np.sort(candidates[start : start + step], axis=1)
        absent = (among < 0) | (among == np.arange(start, start + len(among))[:, None])
        absent[:, 1:] |= among[:, 1:] == among[:, :-1]
        scores = np.matmul(unit[np.maximum(among, 0)], unit[start : start + step, :, None])[:, :, 0]
        scores[absent] = -np.inf
        best = np.argpartition(-scores, min(NEAR, scores.shape[1]) - 1, axis=1)[:, :NEAR]
        known = np.isfinite(np.take_along_axis(scores, best, 1))
        found[start : start + step, : best.shape[1]] = np.where(known, np.take_along_axis(among, best, 1), -1)
    return found


def likely_edges(space: Space, labels: Integers, views: Integers) -> Integers:
    """Pairs of items (m,) that stand for a group and one of several items that it is likeliest of, as `edges` has them.

    Neighbours alone leave out the group of every third item whose own neighbours are of others.
    """
    found: list[Integers] = [np.empty(0, np.int64)]
    for view in np.unique(views):
        items = np.nonzero(views == view)[0]
        _, group, sizes = np.unique(labels[items], return_inverse=True, return_counts=True)
        means = np.zeros((len(sizes), space.vectors.shape[1]), np.float32)
        np.add.at(means, group, space.vectors[items])
        means /= sizes[:, None].astype(np.float32)
        off = ((space.vectors[items] - means[group]) ** 2).sum(axis=1)
        order = np.lexsort((off, group))
        middle = items[order[np.diff(group[order], prepend=-1) > 0]]
        known = np.nonzero(sizes > 1)[0]
        if not len(known):
            continue
        likely = space.likeliest(means, means[known], sizes[known].astype(np.float64), LIKELY + 1)
        found.append(edges_of(len(labels), np.repeat(middle, likely.shape[1]), middle[known[likely]].ravel()))
    return np.unique(np.concatenate(found))


def edges(count: int, rows: Integers) -> Integers:
    """Pairs of items (m,) that rows (N, M) name, each once, as smaller x N + larger."""
    first = np.repeat(np.arange(count), rows.shape[1])
    second = rows.ravel()
    known = second >= 0
    return edges_of(count, first[known], second[known])


def edges_of(count: int, first: Integers, second: Integers) -> Integers:
    """Pairs of two items (m,) each, as smaller x N + larger, each once and none of an item with itself."""
    apart = first != second
    first, second = first[apart], second[apart]
    keys: Integers = np.unique(np.minimum(first, second) * count + np.maximum(first, second))
    return keys


def standard(values: Floats) -> Floats:
    """Values (m,) about their mean, in standard deviations."""
    spread = values.std() if len(values) else 0.0
    return (values - values.mean()) / spread if spread else np.zeros(len(values))
