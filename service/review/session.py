"""A review at work: the engine of `reid.naming` over the items of a gallery, which follows the decisions stored."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from reid.naming.candidates import extended, nearest
from reid.naming.decisions import Decision as Told
from reid.naming.names import agreeing
from reid.naming.probability import FEATURES
from reid.naming.review import Question, Review
from service.records import Conflict, Decision
from service.review.scope import SIDES, Integers, Plan, Scope, Vectors, read_names, read_scope, views
from service.storage.database import Database
from service.storage.decisions import LEVEL, Decisions, NewDecision, reviewer_errors
from service.storage.models import Models
from service.storage.store import Store

READ_AT_ONCE = 10_000
MANY = 2_000  # decisions that are learned from scratch rather than one after the other
CHANGES_ITEMS = ("item.enrol", "item.delete", "model.switch")
REST = 5  # times as long as it took, a session stays as it is while items come and go


class Session:
    """A review of the items of a plan, as of one state of them; one thread at a time uses it."""

    def __init__(self, database: Database, plan: Plan, former: "Session | None" = None) -> None:
        """Find candidates and learn from all that was decided; raises Conflict where there are no items to review.

        Of a `former` session with the same plan, what it knows of items that are there still is taken over.
        """
        begun = time.monotonic()
        self._database, self.plan = database, plan
        self._store, self._decisions = Store(database), Decisions(database)
        if (model := Models(database).active) is None:
            raise Conflict("the gallery has no model yet, so that there is nothing to review")
        self.model_id = model.model_id
        self.log_seen = self._store.last_entry()
        self.scope = read_scope(database, self.model_id, plan.chosen)
        if not self.scope.items:
            raise Conflict("no item passes the filter; expected some to review")
        self.place = {one.item_id: place for place, one in enumerate(self.scope.items)}
        sides = views(self.scope) if plan.sides else None
        rows, scores = self._candidates(former, sides)
        if plan.sides and sides is None:
            _set_apart(self.scope, rows, scores)
        self.rows, self.scores, self._sides = rows, scores, sides
        self.learn()
        self._made, self._took = time.monotonic(), time.monotonic() - begun

    def _candidates(self, former: "Session | None", sides: Integers | None) -> tuple[Integers, Vectors]:
        """The candidates of all items; only what is new is compared with all, where a former session allows it."""
        count = self.plan.neighbours
        if former is None or sides is not None or former.model_id != self.model_id or former.rows.shape[1] < count:
            return nearest(self.scope.vectors, count, sides)
        places = [self.place.get(one.item_id, -1) for one in former.scope.items]
        there = np.array(places)
        kept = there[there >= 0]
        if len(kept) <= len(self.scope.items) // 2 or not np.array_equal(kept, np.arange(len(kept))):
            return nearest(self.scope.vectors, count)  # items among the former ones, by another filter or name
        rows, scores = former.rows[there >= 0], former.scores[there >= 0]
        rows = np.where(rows >= 0, there[rows], -1)
        scores = np.where(rows >= 0, scores, -np.inf).astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")
        return extended(self.scope.vectors, np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))

    def learn(self) -> None:
        """Take all decisions that hold, anew."""
        with self._database.transaction() as connection:  # which sees what `follow` will start from
            errors = reviewer_errors(connection)
            self._followed = self._decisions.last()
        held = [one for one in self._read(0) if not one.superseded and one.number <= self._followed]
        told, self._numbers = self._bridged(held)
        self._named_as_of = self._store.last_entry()
        self.review = Review(
            self.scope.vectors,
            self.rows,
            self.scores,
            views=self._sides,
            names=self.names(),
            decisions=told,
            budget=self.plan.error,
            errors=errors,
        )

    @property
    def stale(self) -> bool:
        """Whether items came or went, or have another model; asked now and then, since a new one takes its time."""
        if time.monotonic() < self._made + REST * self._took:
            return False
        entries = self._store.entries(self.log_seen, READ_AT_ONCE)
        if entries and not any(entry.kind in CHANGES_ITEMS for entry in entries):
            self.log_seen = entries[-1].seq
            return False
        return bool(entries)

    def names(self) -> Integers | None:
        """The names of items as numbers, as of now; None where the plan takes no notice of them."""
        return read_names(self._database, self.place) if self.plan.names else None

    def disagreeing(self, joins: Sequence[NewDecision]) -> list[NewDecision]:
        """Those of some joins that would, together, put individuals of different names into one."""
        names = self.names()
        if names is None or not joins:
            return []
        a, b = (
            np.array([self.place[end] for end in ends]) for ends in zip(*((one.a, one.b) for one in joins), strict=True)
        )
        agree = agreeing(names, self.review.groups.label, a, b)
        return [one for one, right in zip(joins, agree.tolist(), strict=True) if not right]

    def follow(self) -> None:
        """Take the decisions and names that were stored since."""
        self._follow_decisions()
        if (latest := self._store.last_entry()) != self._named_as_of:
            self._named_as_of = latest
            if (names := self.names()) is not None:
                self.review.call(names)

    def _follow_decisions(self) -> None:
        new = list(self._read(self._followed))
        if not new:
            return
        within = self._numbers.keys() | {one.number for one in new}
        strange = any(
            one.a not in self.place or one.b not in self.place or (one.supersedes or one.number) not in within
            for one in new
        )
        # Reviewers are more or less reliable by now, or items that are gone keep others together, or it is very many.
        if strange or len(new) > MANY or any(one.expected is not None for one in new):
            self.learn()
            return
        for one in new:
            told = self._told(one, self._numbers.get(one.supersedes or 0))
            self._numbers[one.number] = len(self.review.groups.decisions)
            self.review.add([told])
            self._followed = one.number

    def questions(self, count: int, leased: Iterable[tuple[str, str]]) -> list[Question]:
        """The next questions, those worth most first, none about a group that others are asked about."""
        known = [(self.place[a], self.place[b]) for a, b in leased if a in self.place and b in self.place]
        asked = self.review.questions(count, leased=known)
        if not asked and self.rows.shape[1] < min(4 * self.plan.neighbours, len(self.scope.items) - 1):
            self.widen()
            asked = self.review.questions(count, leased=known)
        return asked

    def widen(self) -> None:
        """Take twice as many candidates."""
        self.rows, self.scores = nearest(self.scope.vectors, 2 * self.rows.shape[1], self._sides)
        if self.plan.sides and self._sides is None:
            _set_apart(self.scope, self.rows, self.scores)
        self.review.widen(self.rows, self.scores)

    def members(self, place: int) -> list[str]:
        """The items of the group of an item, by its place."""
        groups = self.review.groups
        return [self.scope.items[one].item_id for one in sorted(groups.members(int(groups.label[place])))]

    def likely(self) -> dict[str, tuple[str, float]]:
        """By item, the nearest item of the known group that it may be found to be of, and how likely that is."""
        other, chance = self.review.likely()
        ids = [one.item_id for one in self.scope.items]
        return {ids[place]: (ids[other[place]], float(chance[place])) for place in np.nonzero(chance)[0]}

    def score(self, a: int, b: int) -> float:
        """The cosine of two items, by their places."""
        return float(self.scope.vectors[a] @ self.scope.vectors[b])

    def _read(self, after: int) -> Iterable[Decision]:
        while page := self._decisions.page(after, READ_AT_ONCE):
            yield from page
            after = page[-1].number

    def _told(self, one: Decision, supersedes: int | None) -> Told:
        evidence: tuple[float, ...] = ()
        features = (one.evidence or {}).get("features", ())
        # What another model saw says nothing about this one's vectors.
        if one.model_id == self.model_id and len(features) in (1, len(FEATURES)):
            evidence = tuple(features)
        return Told(self.place[one.a], self.place[one.b], one.answer, one.basis, one.actor, supersedes, evidence)

    def _bridged(self, held: Sequence[Decision]) -> tuple[list[Told], dict[int, int]]:
        """The decisions about items that are there, and direct joins where only others keep these together."""
        told: list[Told] = []
        numbers: dict[int, int] = {}
        for one in held:
            if one.a in self.place and one.b in self.place:
                numbers[one.number] = len(told)
                told.append(self._told(one, None))
        if len(told) < len(held):
            strange = [one for one in held if one.a not in self.place or one.b not in self.place]
            totals: dict[tuple[str, str], float] = defaultdict(float)
            for one in strange:
                totals[min(one.a, one.b), max(one.a, one.b)] += {"same": 1.0, "different": -1.0}.get(one.answer, 0.0)
            joined: dict[str, set[str]] = defaultdict(set)
            for (a, b), total in totals.items():
                if total > LEVEL:
                    joined[a].add(b)
                    joined[b].add(a)
            told += [Told(self.place[a], self.place[b], "same", "import") for a, b in _through(joined, self.place)]
        return told, numbers


def _through(joined: dict[str, set[str]], there: Collection[str]) -> list[tuple[str, str]]:
    """Pairs of items that are there, for those that only others connect."""
    pairs, seen = [], set[str]()
    for start in sorted(joined):
        if start in there or start in seen:
            continue
        reached, waiting, ends = {start}, [start], set[str]()
        while waiting:
            for other in joined[waiting.pop()]:
                if other in there:
                    ends.add(other)
                elif other not in reached:
                    reached.add(other)
                    waiting.append(other)
        seen |= reached
        first, *rest = sorted(ends) or [""]
        pairs += [(first, other) for other in rest]
    return pairs


def _set_apart(scope: Scope, rows: Integers, scores: Vectors) -> None:
    """Leave out candidates of the other flank, where the flanks of both are known."""
    side = np.array([SIDES.index(one.viewpoint) if one.viewpoint in SIDES else -1 for one in scope.items])
    other = np.where(rows >= 0, side[rows], -1)
    wrong = (side[:, None] >= 0) & (other >= 0) & (side[:, None] != other)
    rows[wrong], scores[wrong] = -1, -np.inf
