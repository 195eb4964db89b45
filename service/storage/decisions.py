"""The decisions about pairs of items, which are only ever appended, and what those that hold say together.

An item is named by its public id, also one that is gone: as a node it keeps others together.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from secrets import token_hex
from typing import Any, NamedTuple

from sqlalchemy import Connection, case, exists, func, or_, select

from reid.naming.decisions import USUAL_ERROR, Answer, Basis, weight
from reid.naming.decisions import Decision as Weighed
from service.fields import time_from
from service.records import Decision
from service.storage.columns import json_text, portions
from service.storage.database import Database
from service.storage.driver import insert_rows
from service.storage.tables import decisions

Pair = tuple[str, str]

LEVEL = 1e-9  # as in `reid.naming.groups`: answers that cancel out but for rounding say nothing
KNOWN_BEFORE = 50  # answers by which a reviewer's gold answers are outweighed at first
WORST_ERROR = 0.45

_LATER = decisions.alias("later")
_HOLDS = ~exists().where(_LATER.c.supersedes == decisions.c.number)
_BRIEF = (decisions.c.number, decisions.c.a, decisions.c.b, decisions.c.answer, decisions.c.basis, decisions.c.actor)


class NewDecision(NamedTuple):
    """An answer about two items by their public ids, and what was shown when it was given; times in microseconds.

    `actor` is that of the transaction where it is None. `supersedes` is the number of an earlier decision.
    """

    a: str
    b: str
    answer: Answer
    basis: Basis = "visual"
    supersedes: int | None = None
    actor: str | None = None
    question_id: str | None = None
    shown_at: int | None = None
    expected: Answer | None = None
    model_id: str | None = None
    score: float | None = None
    probability: float | None = None
    evidence: Mapping[str, Any] | None = None


class Held(NamedTuple):
    """A decision that holds, as far as it says who is who."""

    number: int
    a: str
    b: str
    answer: Answer
    basis: Basis
    actor: str

    @property
    def pair(self) -> Pair:
        """Both items, in one order for either."""
        return pair_of(self.a, self.b)


def pair_of(a: str, b: str) -> Pair:
    """Two items, in one order for either."""
    return (a, b) if a < b else (b, a)


def append(connection: Connection, shared: Mapping[str, Any], new: Sequence[NewDecision]) -> list[str]:
    """Write decisions, and return their public ids; `shared` is what the entries of a transaction's log share."""
    rows = [
        {
            **one._asdict(),
            "decision_id": token_hex(16),
            "answered_at": shared["time"],
            "actor": shared["actor"] if one.actor is None else one.actor,
            "request_id": shared["request_id"],
            "batch_id": shared["batch_id"],
            "evidence": None if one.evidence is None else json_text(dict(one.evidence)),
        }
        for one in new
    ]
    insert_rows(connection, decisions, rows)
    return [row["decision_id"] for row in rows]


def held_about(connection: Connection, item_ids: Collection[str]) -> list[Held]:
    """The decisions that hold about these items and any others, by rising number."""
    found: dict[int, Held] = {}
    for portion in portions(item_ids):
        for end in (decisions.c.a, decisions.c.b):
            for row in connection.execute(select(*_BRIEF).where(end.in_(portion), _HOLDS)):
                found[row.number] = Held(*row)
    return [found[number] for number in sorted(found)]


def holding(connection: Connection, basis: Basis) -> list[Held]:
    """The decisions of one basis that hold, by rising number."""
    told = select(*_BRIEF).where(decisions.c.basis == basis, decisions.c.answer != "withdrawn", _HOLDS)
    return [Held(*row) for row in connection.execute(told.order_by(decisions.c.number))]


def overruled(connection: Connection, basis: Basis) -> set[Pair]:
    """The pairs of which somebody said what took the place of a decision of this basis."""
    told = select(decisions.c.a, decisions.c.b).join(_LATER, _LATER.c.supersedes == decisions.c.number)
    told = told.where(decisions.c.basis == basis, _LATER.c.basis != basis)
    return {pair_of(a, b) for a, b in connection.execute(told)}


def totals(held: Iterable[Held], errors: Mapping[str, float]) -> dict[Pair, float]:
    """The log odds for `same` that decisions about each pair add up to."""
    summed: dict[Pair, float] = defaultdict(float)
    for one in held:
        summed[one.pair] += weight(Weighed(0, 1, one.answer, one.basis, one.actor), errors)
    return dict(summed)


def reviewer_errors(connection: Connection) -> dict[str, float]:
    """The share of wrong answers of each reviewer who was asked what was known before, pulled to the usual one."""
    wrong = func.sum(case((decisions.c.answer == decisions.c.expected, 0), else_=1))
    asked = select(decisions.c.actor, wrong, func.count()).where(decisions.c.expected.is_not(None), _HOLDS)
    return {
        actor: min((wrong + USUAL_ERROR * KNOWN_BEFORE) / (count + KNOWN_BEFORE), WORST_ERROR)
        for actor, wrong, count in connection.execute(asked.group_by(decisions.c.actor))
    }


class Decisions:
    """The decisions of a gallery, for those who read them; errors as those of a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, after: int = 0, limit: int = 1000, basis: Basis | None = None) -> list[Decision]:
        """The first `limit` decisions with a number above `after`, in the order in which they were given."""
        following = _ALL.where(decisions.c.number > after).order_by(decisions.c.number).limit(limit)
        if basis is not None:
            following = following.where(decisions.c.basis == basis)
        return [_decision(row) for row in self._database.read(following)]

    def about(self, item_ids: Collection[str]) -> list[Decision]:
        """All decisions, also those taken back, about any of these items, in the order in which they were given."""
        found: dict[int, Decision] = {}
        for portion in portions(item_ids):
            either = or_(decisions.c.a.in_(portion), decisions.c.b.in_(portion))
            for row in self._database.read(_ALL.where(either)):
                found[row[0]] = _decision(row)
        return [found[number] for number in sorted(found)]

    def of_batch(self, batch_id: str) -> list[Decision]:
        """The decisions of one step, in their order."""
        return [
            _decision(row)
            for row in self._database.read(_ALL.where(decisions.c.batch_id == batch_id).order_by(decisions.c.number))
        ]

    def counts(self) -> dict[str, int]:
        """How many decisions that are answers hold, by their basis."""
        told = select(decisions.c.basis, func.count()).where(decisions.c.answer != "withdrawn", _HOLDS)
        return dict(self._database.read(told.group_by(decisions.c.basis)))

    def last(self) -> int:
        """The largest number of a decision; 0 for none."""
        return int(self._database.read(select(func.coalesce(func.max(decisions.c.number), 0)))[0][0])


_ALL = select(*decisions.c, (~_HOLDS).label("superseded"))


def _decision(row: tuple[Any, ...]) -> Decision:
    told = dict(zip((*decisions.c.keys(), "superseded"), row, strict=True))
    told["superseded"] = bool(told["superseded"])
    told["answered_at"] = time_from(told["answered_at"])
    told["shown_at"] = None if told["shown_at"] is None else time_from(told["shown_at"])
    told["evidence"] = None if told["evidence"] is None else json.loads(told["evidence"])
    return Decision(**told)
