"""The pairs of groups that may be one individual, and what is known of each pair.

N items, U groups, P pairs of groups that an edge connects; all is linear in N x K.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from reid.naming.learning import Lesson, Material
from reid.naming.probability import FEATURES, Odds

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RIVALS = 4
MOST_EVIDENCE = 4.0
SOFT = 0.1  # share of all walks that an individual nobody knows yet is given
RIVAL = FEATURES.index("rivals")


class Pairs:
    """Pairs of groups, by what a lesson teaches.

    Of every pair `left` and `right` (P,) are the labels of its groups, `edge` (P,) the most similar items of both as
    a number of the lesson's edges, `views` (P,) what these show, `features` (P, F). `sizes` (N,) has the items of every
    group.
    """

    def __init__(self, material: Material, lesson: Lesson) -> None:
        self.material, self.lesson = material, lesson
        count = material.count
        self._sums = np.zeros((count * material.view_count, lesson.space.vectors.shape[1]), np.float32)
        self._counts = np.zeros(count * material.view_count)
        self._key: Integers = np.empty(0, np.int64)
        self._ratio: Floats = np.empty(0)

    def update(self, labels: Integers, changed: Iterable[int] | None = None) -> None:
        """Bring all up to date with groups `labels` (N,); `changed` has the labels that won or lost items, if known."""
        count, views = self.material.count, self.material.view_count
        dirty = np.full(count, changed is None)
        dirty[list(changed or ())] = True
        items = np.nonzero(dirty[labels])[0]
        gone = (np.nonzero(dirty)[0][:, None] * views + np.arange(views)).ravel()
        self._sums[gone], self._counts[gone] = 0, 0
        slots = labels[items] * views + self.material.views[items]
        np.add.at(self._sums, slots, self.lesson.space.vectors[items])
        np.add.at(self._counts, slots, 1)
        one, two = labels[self.lesson.low], labels[self.lesson.high]
        between = np.nonzero(one != two)[0]
        one, two = one[between], two[between]
        keys = np.minimum(one, two) * count + np.maximum(one, two)
        order = np.lexsort((-self.lesson.cosine[between], keys))
        between, keys = between[order], keys[order]
        starts = np.nonzero(np.diff(keys, prepend=-1))[0]
        key = keys[starts]
        self.left, self.right = key // count, key % count
        self.edge = between[starts]
        self.views = self.material.views[self.lesson.low[self.edge]]
        self.sizes = np.bincount(labels, minlength=count)
        self.small = np.minimum(self.sizes[self.left], self.sizes[self.right])
        self.large = np.maximum(self.sizes[self.left], self.sizes[self.right])
        self._update_ratios(key, dirty)
        evidence = np.clip(self._ratio, -MOST_EVIDENCE, MOST_EVIDENCE)
        close = np.maximum.reduceat(self.lesson.closeness[between], starts) if len(starts) else np.empty(0)
        self.features = np.stack(
            [
                np.ones(len(key)),
                evidence,
                self.lesson.cosine[self.edge],
                np.zeros(len(key)),
                np.log(self.small),
                np.log(self.large),
                close,
                np.log(np.diff(starts, append=len(keys)) / self.small),
                self._walks(labels),
            ],
            axis=1,
        )

    def rank(self, odds: Odds, told: Floats) -> None:
        """Compare the pairs of each group with each other, given answers `told` (P,) in log odds."""
        self.features[:, RIVAL] = 0
        self.features[:, RIVAL] = self._rivals(odds.logits(self.features, self.views) + told)

    def place(self, ends: Integers) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """Where pairs of labels (m, 2) stand (m,), and which of them are there (m,)."""
        return _find(self._key, ends.min(axis=1) * self.material.count + ends.max(axis=1))

    def _update_ratios(self, key: Integers, dirty: npt.NDArray[np.bool_]) -> None:
        ratio = np.zeros(len(key))
        place, kept = _find(self._key, key)
        kept &= ~dirty[self.left] & ~dirty[self.right]
        ratio[kept] = self._ratio[place[kept]]
        fresh = np.nonzero(~kept)[0]
        for view in range(self.material.view_count):
            slots = [side[fresh] * self.material.view_count + view for side in (self.left, self.right)]
            sums, counts = [self._sums[slot] for slot in slots], [self._counts[slot] for slot in slots]
            ratio[fresh] += self.lesson.space.log_ratios((sums[0], sums[1]), (counts[0], counts[1]))
        self._key, self._ratio = key, ratio

    def _walks(self, labels: Integers) -> Floats:
        """The log share of walks from the smaller group that end at the larger, among all that end at known groups."""
        item, destination, mass = self.lesson.walks
        source, target = labels[item], labels[destination]
        away = source != target
        key, inverse = np.unique(source[away] * len(labels) + target[away], return_inverse=True)
        masses: Floats = np.bincount(inverse, mass[away], len(key)).astype(np.float64)
        source, target = key // len(labels), key % len(labels)
        known = self.sizes[target] > 1
        total: Floats = np.bincount(source, masses, len(labels)).astype(np.float64) * SOFT
        total += np.bincount(source[known], masses[known], len(labels))
        share = masses / np.maximum(total[source] + np.where(known, 0, masses), 1e-12)
        shares = []
        for one, two in ((self.left, self.right), (self.right, self.left)):
            place, found = _find(key, one * len(labels) + two)
            shares.append(np.where(found, share[place], 0.0) if len(key) else np.zeros(len(one)))
        return np.log(self._of_smaller(shares[0], shares[1], np.add) + 0.003) + 3

    def _of_smaller(self, left: Floats, right: Floats, both: np.ufunc) -> Floats:
        ahead = self.sizes[self.left] - self.sizes[self.right]
        middle = both(left, right) / (2 if both is np.add else 1)
        found: Floats = np.where(ahead < 0, left, np.where(ahead > 0, right, middle))
        return found

    def _rivals(self, logits: Floats) -> Floats:
        """How strongly other groups claim the smaller of a pair, those left out that may be one with the larger."""
        count = self.material.count
        source = np.concatenate([self.left, self.right])
        target = np.concatenate([self.right, self.left])
        claims = np.concatenate([logits, logits])
        order, rank = ranked(source, -claims)
        top = order[rank < RIVALS + 1]
        best = np.full((count, RIVALS + 1), -1)
        claim = np.full((count, RIVALS + 1), -np.inf)
        best[source[top], rank[rank < RIVALS + 1]] = target[top]
        claim[source[top], rank[rank < RIVALS + 1]] = claims[top]
        one = expit(logits)
        total = np.zeros(len(source))
        for number in range(RIVALS + 1):
            rival = best[source, number]
            place, found = _find(self._key, np.minimum(rival, target) * count + np.maximum(rival, target))
            alike = np.where(found, one[place], 0.0) if len(one) else np.zeros(len(source))
            strength = np.exp(np.clip(claim[source, number], -30, 8)) * (1 - alike)
            total += np.where((rival < 0) | (rival == target), 0.0, strength)
        left, right = np.split(np.log1p(total), 2)
        return self._of_smaller(left, right, np.minimum)


def ranked(source: Integers, falling: Floats) -> tuple[Integers, Integers]:
    """An order (m,) by source and then by value, and the rank (m,) of each within its source."""
    order = np.lexsort((falling, source))
    ordered = source[order]
    return order, np.arange(len(order)) - np.searchsorted(ordered, ordered)


def _find(keys: Integers, wanted: Integers) -> tuple[Integers, npt.NDArray[np.bool_]]:
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    found = keys[place] == wanted if len(keys) else np.zeros(len(wanted), bool)
    return place, found
