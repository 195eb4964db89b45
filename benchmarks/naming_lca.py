"""Graph consistency by local clusterings and their alternatives (LCA; Stewart et al., 2021), in a plain form.

Items are nodes, candidates weighted edges, and a clustering is worth the weight within clusters less that between
them. An alternative replaces one cluster by two, or two by one. The best is taken while it gains; where none does,
people are asked about an edge of the one that comes nearest to it, and the answer is added to that edge's weight.

Written from what is published of the algorithm, not from its code, with these deviations: only splits in two, found by
local search about the weakest edge, and merges of two are alternatives; candidates are the nearest of each item, with
no second matcher; nothing stops it. Its weights are log odds fitted to the truth, which favours it: its authors fit
them to verified pairs of the species.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

Pair = tuple[int, int]
Ends = tuple[int, ...]  # the cluster that an alternative parts, or the two that it joins

MOST_SURE, PERSON = 4.0, 10.0  # log odds of an edge that nobody was asked about, and what an answer adds
LEAST, ROUNDS = 1e-9, 3  # gain that is more than rounding, and rounds of a local search


class LocalClusterings:
    """Clusters of `count` items over edges with log odds `weight`; `label` (count,) is the cluster of each."""

    def __init__(self, count: int, weight: dict[Pair, float], known: Iterable[Pair]) -> None:
        self.weight = {pair: min(max(odds, -MOST_SURE), MOST_SURE) for pair, odds in weight.items()}
        self.asked = {_pair(*pair) for pair in known}
        self.weight |= dict.fromkeys(self.asked, PERSON)
        self.near: dict[int, set[int]] = defaultdict(set)
        for a, b in self.weight:
            self.near[a].add(b)
            self.near[b].add(a)
        self.label = np.arange(count)
        self._members = [{item} for item in range(count)]  # of each cluster, also of those that are gone
        self._splits: dict[int, set[int]] = {}
        self._gain: dict[Ends, float] = dict(self.weight)  # of each alternative that there is
        self._falling = [(-gain, of) for of, gain in self._gain.items()]  # and of some that there was
        heapq.heapify(self._falling)

    def rounds(self, ask: Callable[[int, int], bool]) -> Iterator[npt.NDArray[np.int64]]:
        """The clusters after each answer of `ask` about two items."""
        while self._falling:
            loss, of = self._falling[0]
            if self._gain.get(of) != -loss:
                heapq.heappop(self._falling)
            elif loss < -LEAST:
                self._take(of)
            elif (pair := self._edge(of)) is None:
                del self._gain[of]
            else:
                self.asked.add(pair)
                added = PERSON if ask(*pair) else -PERSON
                self.weight[pair] += added
                if len(of) == 2:
                    self._weigh(of, self._gain[of] + added)
                else:
                    self._look_within(of[0])
                yield self.label

    def _weigh(self, of: Ends, gain: float) -> None:
        self._gain[of] = gain
        heapq.heappush(self._falling, (-gain, of))

    def _parts(self, of: Ends) -> list[set[int]]:
        """What an alternative joins, or what it parts a cluster into."""
        if len(of) == 2:
            return [self._members[one] for one in of]
        return [self._splits[of[0]], self._members[of[0]] - self._splits[of[0]]]

    def _edge(self, of: Ends) -> Pair | None:
        """The edge to ask about: the likeliest between two clusters, or the weakest across a split."""
        (one, other), sign = self._parts(of), -1 if len(of) == 2 else 1
        edges = {_pair(a, b) for a in one for b in self.near[a] & other} - self.asked
        return min(edges, key=lambda pair: (sign * self.weight[pair], pair), default=None)

    def _take(self, of: Ends) -> None:
        parts = [set.union(*self._parts(of))] if len(of) == 2 else self._parts(of)
        for gone in of:
            self._gain.pop((gone,), None)
            for other in {int(self.label[b]) for a in self._members[gone] for b in self.near[a]}:
                self._gain.pop(_pair(gone, other), None)
        new = range(len(self._members), len(self._members) + len(parts))
        for one, part in zip(new, parts, strict=True):
            self._members.append(part)
            self.label[list(part)] = one
        for one in new:
            gains: dict[Ends, float] = defaultdict(float)
            for a in self._members[one]:
                for b in self.near[a] - self._members[one]:
                    gains[_pair(one, int(self.label[b]))] += self.weight[_pair(a, b)]
            for ends, gain in gains.items():
                self._weigh(ends, gain)
            self._look_within(one)

    def _look_within(self, one: int) -> None:
        """Find the best way to part the ends of a cluster's weakest edge: strong edges join first, then items move."""
        items = self._members[one]
        within = {a: [(b, self.weight[_pair(a, b)]) for b in self.near[a] & items] for a in items}
        edges = sorted(((weight, a, b) for a, near in within.items() for b, weight in near if a < b), reverse=True)
        if not edges:
            return
        ends, part = set(edges[-1][1:]), {item: {item} for item in items}
        for small, large in (sorted((part[a], part[b]), key=len) for _, a, b in edges):
            if small is not large and not ends <= small | large:
                large |= small
                part |= dict.fromkeys(small, large)
        side = part[int(edges[-1][1])]
        for item in [*items - ends] * ROUNDS:
            pull = sum(weight if b in side else -weight for b, weight in within[item])
            (side.add if pull > 0 or (pull == 0 and item in side) else side.discard)(item)
        self._splits[one], gain = side, -sum(weight for a in side for b, weight in within[a] if b not in side)
        self._weigh((one,), gain)


def _pair(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)
