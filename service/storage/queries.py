"""The query log of a gallery: who asked for what, and what they were shown."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select

from service.fields import microseconds, time_from
from service.records import FIRST, Cause, LoggedQuery, LogPart, Query
from service.storage.columns import json_text, now
from service.storage.database import Database
from service.storage.logs import part_of
from service.storage.sizes import bytes_of_entry
from service.storage.tables import queries

ROWS_AT_ONCE = 1000


class Queries:
    """The query log, which threads may share: nothing in it can be changed but by an erasure, and the oldest go.

    Every method raises OSError when the file cannot be read or written, DamagedDatabase among them.
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

    def page(self, wanted: LogPart = FIRST) -> list[Query]:
        """Queries that were answered, by default the first thousand, in the order in which they were written."""
        return [_query(row) for row in self._database.read(part_of(queries, wanted))]

    def prune(self, before: datetime, most_bytes: int) -> int:
        """Remove the queries that were asked before a time, and the oldest while all take more room; their number.

        The room is told by the mean of the last thousand.
        """
        size = bytes_of_entry(self._database, queries)
        if size is None:
            return 0
        kept = int(most_bytes // size)
        old = select(func.max(queries.c.seq)).where(queries.c.time < microseconds(before))
        many = select(queries.c.seq).order_by(queries.c.seq.desc()).offset(kept).limit(1)
        ends = [end for asked in (old, many) for (end,) in self._database.read(asked) if end is not None]
        removed = 0
        while ends:
            oldest = select(queries.c.seq).where(queries.c.seq <= max(ends)).order_by(queries.c.seq).limit(ROWS_AT_ONCE)
            with self._database.transaction() as connection:
                seqs = connection.execute(oldest).scalars().all()
                connection.execute(delete(queries).where(queries.c.seq.in_(seqs)))
            removed += len(seqs)
            if len(seqs) < ROWS_AT_ONCE:
                break
        return removed


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
