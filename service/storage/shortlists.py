"""Shortlists: items that people put together, in an order, with notes."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, delete, insert, select, update

from service.fields import time_from
from service.records import Cause, NotFound, require_name
from service.storage.columns import json_text, now
from service.storage.database import Database
from service.storage.tables import shortlists
from service.storage.transaction import Transaction

_SHORTLISTS = select(
    shortlists.c.shortlist_id,
    shortlists.c.name,
    shortlists.c.notes,
    shortlists.c.cameras,
    shortlists.c.entries,
    shortlists.c.created_at,
    shortlists.c.changed_at,
)


class Entry(NamedTuple):
    """An item, which may be gone, and what is said of it."""

    item_id: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Shortlist:
    """A list that somebody made; `cameras` are those that its maker sees, None for all."""

    shortlist_id: str
    name: str
    notes: str
    cameras: frozenset[str] | None
    entries: tuple[Entry, ...]
    created_at: datetime
    changed_at: datetime


class Shortlists:
    """The shortlists of a gallery, which threads may share; errors as those of a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> list[Shortlist]:
        """All of them, the one that was changed last first."""
        rows = self._database.read(_SHORTLISTS.order_by(shortlists.c.changed_at.desc(), shortlists.c.number.desc()))
        return [_shortlist(row) for row in rows]

    def get(self, shortlist_id: str) -> Shortlist:
        """The shortlist of a public id; raises NotFound."""
        for row in self._database.read(_SHORTLISTS.where(shortlists.c.shortlist_id == shortlist_id)):
            return _shortlist(row)
        raise NotFound(f"no shortlist {shortlist_id!r}")

    def create(
        self, name: str, notes: str, item_ids: Sequence[str], cameras: Collection[str] | None, cause: Cause
    ) -> Shortlist:
        """Make a shortlist of some items; raises UnusableText."""
        require_name("name", name)
        shortlist_id, time = uuid4().hex, now()
        values = {
            "shortlist_id": shortlist_id,
            "name": name,
            "notes": notes,
            "cameras": None if cameras is None else json_text(sorted(cameras)),
            "entries": _written([Entry(item_id) for item_id in dict.fromkeys(item_ids)]),
            "created_at": time,
            "changed_at": time,
        }
        with self._database.transaction() as connection:
            connection.execute(insert(shortlists), values)
            made = _get(connection, shortlist_id)
            Transaction(connection, cause).log("shortlist.create", shortlist_id, None, _state(made))
            return made

    def add(self, shortlist_id: str, item_ids: Sequence[str], cause: Cause) -> Shortlist:
        """Put items at the end that are not in it; raises NotFound."""

        def longer(before: Shortlist) -> dict[str, Any]:
            there = {entry.item_id for entry in before.entries}
            new = [Entry(item_id) for item_id in dict.fromkeys(item_ids) if item_id not in there]
            return {"entries": _written([*before.entries, *new])}

        return self._change(shortlist_id, longer, cause)

    def edit(
        self,
        shortlist_id: str,
        cause: Cause,
        *,
        name: str | None = None,
        notes: str | None = None,
        entries: Sequence[Entry] | None = None,
    ) -> Shortlist:
        """Change what is given; entries take the place of all there were. Raises NotFound and UnusableText."""
        if name is not None:
            require_name("name", name)
        told = {"name": name, "notes": notes, "entries": None if entries is None else _written(entries)}
        return self._change(shortlist_id, lambda _: {n: value for n, value in told.items() if value is not None}, cause)

    def delete(self, shortlist_id: str, cause: Cause) -> None:
        """Remove a shortlist, and no item; raises NotFound."""
        with self._database.transaction() as connection:
            before = _get(connection, shortlist_id)
            connection.execute(delete(shortlists).where(shortlists.c.shortlist_id == shortlist_id))
            Transaction(connection, cause).log("shortlist.delete", shortlist_id, _state(before), None)

    def _change(self, shortlist_id: str, change: Callable[[Shortlist], dict[str, Any]], cause: Cause) -> Shortlist:
        with self._database.transaction() as connection:
            before = _get(connection, shortlist_id)
            if values := change(before):
                named = update(shortlists).where(shortlists.c.shortlist_id == shortlist_id)
                connection.execute(named.values(**values, changed_at=now()))
            after = _get(connection, shortlist_id)
            if _state(after) != _state(before):
                Transaction(connection, cause).log("shortlist.edit", shortlist_id, _state(before), _state(after))
            return after


def erase_from_shortlists(connection: Connection, item_ids: Collection[str]) -> int:
    """Take items, and what is said of them, out of all shortlists, and tell of how many."""
    gone, changed = set(item_ids), 0
    for number, written in connection.execute(select(shortlists.c.number, shortlists.c.entries)).fetchall():
        entries = _read(written)
        kept = [entry for entry in entries if entry.item_id not in gone]
        if len(kept) != len(entries):
            connection.execute(update(shortlists).where(shortlists.c.number == number).values(entries=_written(kept)))
            changed += 1
    return changed


def _get(connection: Connection, shortlist_id: str) -> Shortlist:
    row = connection.execute(_SHORTLISTS.where(shortlists.c.shortlist_id == shortlist_id)).first()
    if row is None:
        raise NotFound(f"no shortlist {shortlist_id!r}")
    return _shortlist(tuple(row))


def _shortlist(row: tuple[Any, ...]) -> Shortlist:
    shortlist_id, name, notes, cameras, entries, created_at, changed_at = row
    seen = None if cameras is None else frozenset(json.loads(cameras))
    return Shortlist(
        shortlist_id, name, notes, seen, tuple(_read(entries)), time_from(created_at), time_from(changed_at)
    )


def _written(entries: Sequence[Entry]) -> str:
    return json_text([list(entry) for entry in entries])


def _read(written: str) -> list[Entry]:
    return [Entry(*entry) for entry in json.loads(written)]


def _state(one: Shortlist) -> dict[str, Any]:
    return {"name": one.name, "notes": one.notes, "entries": [list(entry) for entry in one.entries]}
