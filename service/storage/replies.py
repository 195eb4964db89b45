"""Answers to requests that name themselves by an Idempotency-Key, kept so that a repetition is answered alike."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from service.records import Conflict
from service.storage.columns import json_text, microseconds
from service.storage.database import Database

KEPT = timedelta(days=1)


class Replies:
    """The last day's answers, by who asked and the key they gave."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, actor: str, key: str, request_sha256: str) -> Any:
        """The answer that was given to this key, as JSON, or None; raises Conflict if the request was another one."""
        sql = "SELECT request_sha256, reply FROM replies WHERE actor = ? AND idempotency_key = ?"
        for kept_sha256, reply in self._database.read(sql, (actor, key)):
            if kept_sha256 != request_sha256:
                raise Conflict(f"Idempotency-Key {key!r} was used for another request; a new request needs a new one")
            return json.loads(reply)
        return None

    def keep(self, actor: str, key: str, request_sha256: str, reply: Any) -> None:
        """Keep an answer, and forget those that are more than a day old."""
        now = datetime.now(UTC)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM replies WHERE created_at < ?", (microseconds(now - KEPT),))
            connection.execute(
                "INSERT OR REPLACE INTO replies (actor, idempotency_key, request_sha256, reply, created_at) "
                "VALUES (?, ?, ?, ?, ?)",
                (actor, key, request_sha256, json_text(reply), microseconds(now)),
            )
