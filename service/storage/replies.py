"""Answers to requests that name themselves by an Idempotency-Key, kept so that a repetition is answered alike."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, or_, select

from service.fields import microseconds
from service.records import Conflict
from service.storage.columns import json_text
from service.storage.database import Database
from service.storage.tables import replies

KEPT = timedelta(days=1)


class Replies:
    """The last day's answers, by who asked and the key they gave."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, actor: str, key: str, request_sha256: str) -> Any:
        """The answer that was given to this key, as JSON, or None; raises Conflict if the request was another one."""
        kept = select(replies.c.request_sha256, replies.c.reply).where(_of(actor, key))
        for kept_sha256, reply in self._database.read(kept):
            if kept_sha256 != request_sha256:
                raise Conflict(f"Idempotency-Key {key!r} was used for another request; a new request needs a new one")
            return json.loads(reply)
        return None

    def keep(self, actor: str, key: str, request_sha256: str, reply: Any) -> None:
        """Keep an answer, and forget those that are more than a day old."""
        now = datetime.now(UTC)
        values = {"actor": actor, "idempotency_key": key, "request_sha256": request_sha256, "reply": json_text(reply)}
        with self._database.transaction() as connection:
            connection.execute(
                delete(replies).where(or_(_of(actor, key), replies.c.created_at < microseconds(now - KEPT)))
            )
            connection.execute(insert(replies).values(created_at=microseconds(now), **values))


def _of(actor: str, key: str) -> ColumnElement[bool]:
    return (replies.c.actor == actor) & (replies.c.idempotency_key == key)
