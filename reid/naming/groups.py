"""Groups of items as a pure function of decisions, from scratch and kept up to date answer by answer.

Two items are joined while the answers about them, weighed by the reliability of who gave them, say `same`; a group is
all that joins connect. N items, M decisions.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, maximum_flow

from reid.naming.decisions import Decision, weight

Integers = npt.NDArray[np.int64]
Pair = tuple[int, int]

LEVEL = 1e-9  # answers that cancel out but for rounding say nothing


def group_items(count: int, decisions: Sequence[Decision], errors: Mapping[str, float] | None = None) -> Integers:
    """The group of each of N items, (N,): the first item of the group. Computed from scratch."""
    superseded = {decision.supersedes for decision in decisions}
    totals: dict[Pair, float] = defaultdict(float)
    for number, decision in enumerate(decisions):
        if number not in superseded:
            totals[_pair(decision.a, decision.b)] += weight(decision, errors or {})
    joins = np.array([pair for pair, total in totals.items() if total > LEVEL], np.int64).reshape(-1, 2)
    graph = csr_array((np.ones(len(joins)), (joins[:, 0], joins[:, 1])), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    first: Integers = np.unique(component, return_index=True)[1].astype(np.int64)
    labels: Integers = first[component]
    return labels


@dataclass(frozen=True)
class Conflict:
    """Items that were told apart but are in one group, and where the group is weakest between them.

    Without the joins of `weakest`, the group falls into the side of `a`, which is `part`, and the rest.
    """

    a: int
    b: int
    weakest: tuple[Pair, ...]
    part: tuple[int, ...]


class Groups:
    """The groups of N items, up to date after every decision.

    `label` (N,) is the first item of each item's group. `changed` collects the labels that gained or lost items since
    it was last cleared.
    """

    def __init__(self, count: int, errors: Mapping[str, float] | None = None) -> None:
        self.count = count
        self.errors = dict(errors or {})
        self.decisions: list[Decision] = []
        self.label: Integers = np.arange(count)
        self.changed: set[int] = set()
        self.totals: dict[Pair, float] = {}
        self.answers: dict[Pair, int] = defaultdict(int)
        self.apart: set[Pair] = set()
        self._members: dict[int, list[int]] = {item: [item] for item in range(count)}
        self._joined: dict[int, set[int]] = defaultdict(set)
        self._superseded: set[int] = set()

    def add(self, decision: Decision) -> None:
        """Append a decision; raises ValueError for an item that is not there, a pair of one, and a wrong supersedes."""
        self.check([decision])
        if decision.supersedes is not None:
            self._superseded.add(decision.supersedes)
            earlier = self.decisions[decision.supersedes]
            self._count(_pair(earlier.a, earlier.b), -weight(earlier, self.errors))
        self.decisions.append(decision)
        pair = _pair(decision.a, decision.b)
        self.answers[pair] += 1
        self._count(pair, weight(decision, self.errors))

    def check(self, decisions: Iterable[Decision]) -> None:
        """Raise ValueError as `add` would for one of these decisions, one after the other, and change nothing."""
        superseded: set[int] = set()
        for number, decision in enumerate(decisions, len(self.decisions)):
            for item in (decision.a, decision.b):
                if not 0 <= item < self.count:
                    raise ValueError(f"decision about item {item}: expected one of the {self.count} items, from 0")
            if decision.a == decision.b:
                raise ValueError(f"decision about item {decision.a} and itself: expected two items")
            earlier = decision.supersedes
            if earlier is None:
                continue
            if not 0 <= earlier < number or earlier in self._superseded or earlier in superseded:
                raise ValueError(f"decision supersedes {earlier}: expected an earlier decision that still holds")
            superseded.add(earlier)

    def members(self, label: int) -> list[int]:
        """The items of the group whose first item is `label`, in no order."""
        return self._members[label]

    def conflicts(self) -> list[Pair]:
        """Pairs of one group that were told apart, smallest first."""
        return sorted(pair for pair in self.apart if self.label[pair[0]] == self.label[pair[1]])

    def split(self, a: int, b: int) -> Conflict:
        """Propose how to part two items of one group, by the joins that weigh least.

        Raises ValueError for items of different groups.
        """
        if self.label[a] != self.label[b]:
            raise ValueError(f"items {a} and {b} are in different groups; expected two of one group")
        members = sorted(self._members[int(self.label[a])])
        place = {item: number for number, item in enumerate(members)}
        ends, strengths = [], []
        for item in members:
            for other in self._joined[item]:
                ends.append((place[item], place[other]))
                strengths.append(max(1, round(1000 * self.totals[_pair(item, other)])))
        rows, columns = np.array(ends).T
        capacity = csr_array((np.array(strengths, np.int32), (rows, columns)), shape=(len(members),) * 2)
        flow = maximum_flow(capacity, place[a], place[b]).flow
        residual = csr_array(capacity - flow)
        residual.eliminate_zeros()
        near = breadth_first_order(residual, place[a], return_predecessors=False)
        part = {members[number] for number in near}
        cut = {_pair(item, other) for item in part for other in self._joined[item] if other not in part}
        return Conflict(a, b, tuple(sorted(cut, key=lambda pair: (self.totals[pair], pair))), tuple(sorted(part)))

    def _count(self, pair: Pair, amount: float) -> None:
        before = self.totals.get(pair, 0.0)
        after = before + amount
        self.totals[pair] = after
        if after < -LEVEL:
            self.apart.add(pair)
        else:
            self.apart.discard(pair)
        if before <= LEVEL < after:
            self._join(*pair)
        elif after <= LEVEL < before:
            self._part(*pair)

    def _join(self, a: int, b: int) -> None:
        self._joined[a].add(b)
        self._joined[b].add(a)
        keep, lose = sorted((int(self.label[a]), int(self.label[b])))
        if keep != lose:
            moved = self._members.pop(lose)
            self.label[moved] = keep
            self._members[keep] += moved
            self.changed |= {keep, lose}

    def _part(self, a: int, b: int) -> None:
        self._joined[a].discard(b)
        self._joined[b].discard(a)
        side = self._reach(a)
        if b in side:
            return
        old = int(self.label[a])
        rest = [item for item in self._members.pop(old) if item not in side]
        for items in (sorted(side), rest):
            label = min(items)
            self.label[items] = label
            self._members[label] = items
            self.changed |= {old, label}

    def _reach(self, start: int) -> set[int]:
        seen, waiting = {start}, [start]
        while waiting:
            for other in self._joined[waiting.pop()]:
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return seen


def _pair(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)
