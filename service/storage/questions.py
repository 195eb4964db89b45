"""The questions that were asked about a gallery, each leased to who was asked until it is answered or time is up."""

import json
from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, delete, exists, insert, select

from reid.naming.decisions import Answer
from service.storage.columns import json_text, now, portions
from service.storage.decisions import Pair
from service.storage.tables import decisions, questions

LEASE = timedelta(minutes=10)
KEPT = timedelta(days=7)  # in which an answer may still come


class NewQuestion(NamedTuple):
    """Two items by their public ids, and what was known of them; `expected` is the answer to a gold question."""

    a: str
    b: str
    reason: str
    model_id: str
    score: float
    probability: float
    evidence: dict[str, Any]
    expected: Answer | None = None


class Asked(NamedTuple):
    """A question that was asked; times are in microseconds since 1970, UTC."""

    question_id: str
    a: str
    b: str
    actor: str
    shown_at: int
    leased_until: int
    reason: str
    expected: Answer | None
    model_id: str
    score: float
    probability: float
    evidence: dict[str, Any]


def leased(connection: Connection) -> list[Pair]:
    """The pairs that somebody is being asked about now."""
    answered = exists().where(decisions.c.question_id == questions.c.question_id)
    open_ = select(questions.c.a, questions.c.b).where(questions.c.leased_until > now(), ~answered)
    return [(a, b) for a, b in connection.execute(open_)]


def lease(connection: Connection, actor: str, question: NewQuestion) -> Asked:
    """Ask somebody a question; those of a week ago are forgotten."""
    time = now()
    until = time + LEASE // timedelta(microseconds=1)
    row = {**question._asdict(), "question_id": uuid4().hex, "actor": actor, "shown_at": time, "leased_until": until}
    long_ago = time - KEPT // timedelta(microseconds=1)
    connection.execute(delete(questions).where(questions.c.leased_until < long_ago))
    connection.execute(insert(questions).values({**row, "evidence": json_text(question.evidence)}))
    return Asked(**row)


def find(connection: Connection, question_ids: Collection[str]) -> dict[str, Asked]:
    """Questions by their ids; those that are not there, or forgotten, are left out."""
    found: dict[str, Asked] = {}
    columns = [questions.c[name] for name in Asked._fields]
    for portion in portions(question_ids):
        for row in connection.execute(select(*columns).where(questions.c.question_id.in_(portion))):
            found[row.question_id] = Asked(**{**row._mapping, "evidence": json.loads(row.evidence)})
    return found


def answered(connection: Connection, question_ids: Collection[str]) -> dict[str, str]:
    """Of questions by their ids the decisions that answer them and hold, by their ids."""
    later = decisions.alias("later")
    holds = ~exists().where(later.c.supersedes == decisions.c.number)
    found: dict[str, str] = {}
    for portion in portions(question_ids):
        told = select(decisions.c.question_id, decisions.c.decision_id)
        rows = connection.execute(told.where(decisions.c.question_id.in_(portion), holds))
        found |= {question_id: decision_id for question_id, decision_id in rows}
    return found
