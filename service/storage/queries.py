"""The query log of a gallery: who asked for what, and what they were shown."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select

from service.fields import time_from
from service.records import Cause, LoggedQuery, Query
from service.storage.columns import json_text, now
from service.storage.database import Database
from service.storage.tables import queries


class Queries:
    """The query log, which threads may share: it grows, and nothing in it can be changed or removed.

    Every method raises OSError when the file cannot be read or written, and ValueError when it is damaged.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, asked: Sequence[LoggedQuery]) -> None:
        """Write queries in one transaction; raises ValueError, and writes none, for a score that is not finite."""
        shared = {"time": now()}
        rows = [
            {
                "asked": json_text({"images": one.images, "item_id": one.item_id}),
                "conditions": json_text(dict(one.conditions)),
                "candidates": one.candidates,
                "matches": json_text(one.matches),
                **one.cause._asdict(),
                **shared,
            }
            for one in asked
        ]
        with self._database.transaction() as connection:
            connection.execute(insert(queries), rows)

    def page(self, after: int = 0, limit: int = 1000) -> list[Query]:
        """The first `limit` queries with a `seq` above `after`, in the order in which they were written."""
        following = select(queries).where(queries.c.seq > after).order_by(queries.c.seq).limit(limit)
        return [_query(row) for row in self._database.read(following)]


def _query(row: tuple[Any, ...]) -> Query:
    seq, time, actor, request_id, asked, conditions, candidates, matches = row
    subject = json.loads(asked)
    record = LoggedQuery(
        Cause(actor, request_id),
        tuple(subject["images"]),
        subject["item_id"],
        json.loads(conditions),
        candidates,
        tuple((item_id, score) for item_id, score in json.loads(matches)),
    )
    return Query(seq, time_from(time), record)
