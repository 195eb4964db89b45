"""The truth of a gallery: its photos, their vectors, and who changed what when. E is the embedding size."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from service.records import NOBODY, Cause, Conflict, Filter, Item, NewItem, NotFound, Row
from service.storage.changes import Batch, Changes, Enrolled
from service.storage.columns import APPEARANCE, ITEM, ITEMS, condition, item_from, time_from
from service.storage.database import Database
from service.storage.models import Models, require_unit

ROWS_AT_ONCE = 10_000
EVERYTHING = Filter()


@dataclass(frozen=True, slots=True)
class Operation:
    """One change: `target` is the public id of what changed, and the changes of one transaction share `batch_id`."""

    seq: int
    time: datetime
    actor: str
    request_id: str
    batch_id: str
    kind: str
    target: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


class Change(NamedTuple):
    """An entry of the operation log for those who follow it: `number` is that of the item, None for other kinds."""

    seq: int
    kind: str
    number: int | None


class Store:
    """A gallery on the disk, which threads may share: what a method did is there to stay, what raised changed nothing.

    Every method raises OSError when the file cannot be read or written, and ValueError when it is damaged. The
    operation log keeps the `cause` of every change.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._models = Models(database)

    def enrol(self, photos: Sequence[NewItem], cause: Cause = NOBODY) -> list[Enrolled | Conflict]:
        """Add photos in one transaction and tell, in their order, what became of each.

        A photo whose SHA-256 is there already is left as it is. One whose key belongs to another photo is not added: in
        its place stands the Conflict, and the others are enrolled all the same. Raises ValueError, and adds none, for a
        vector that is not (E,) float32 of unit length, a time without zone, and a gallery without model.
        """
        with self._batch(cause) as batch:
            if (model := self._models.active) is None:
                raise ValueError(f"{self._database.path}: has no model yet; bind one before enrolling")
            for photo in photos:
                require_unit(photo.vector, model.dimension, photo.medium.source or photo.medium.sha256)
            return [batch.enrol(photo, model.model_id) for photo in photos]

    def edit(self, item_id: str, changes: Changes, cause: Cause = NOBODY) -> Item:
        """Change some details of an item; a label that is new becomes an identity.

        Raises NotFound, Conflict for a key that belongs to another photo, and ValueError for a time without zone.
        """
        with self._batch(cause) as batch:
            return batch.edit(item_id, changes)

    def delete(self, item_ids: Collection[str], cause: Cause = NOBODY) -> list[Item]:
        """Remove items, their vectors and their photos, and return them as they were; ids that are not there are none.

        The operation log keeps what was said of them, and their numbers are never used again.
        """
        with self._batch(cause) as batch:
            return [item for item_id in item_ids if (item := batch.delete(item_id))]

    def delete_matching(self, chosen: Filter, expected: int, cause: Cause = NOBODY) -> list[Item]:
        """Remove the items that pass a filter, as `delete` does, if they are as many as expected; else raise Conflict.

        Nothing can be enrolled or edited between the counting and the deletion.
        """
        passes, values = condition(chosen)
        with self._database.transaction() as connection:
            rows = connection.execute(f"{ITEMS} WHERE {passes} ORDER BY items.number", values).fetchall()
            if len(rows) != expected:
                raise Conflict(f"{len(rows)} items pass the filter, not {expected} as expected; nothing was deleted")
            batch = Batch(connection, cause)
            return [item for row in rows if (item := batch.delete(item_from(row).item_id))]

    def get(self, item_id: str) -> Item:
        """The item of a public id; raises NotFound."""
        for row in self._database.read(f"{ITEMS} WHERE item_id = ?", (item_id,)):
            return item_from(row)
        raise NotFound(f"no item {item_id!r}")

    def get_many(self, numbers: Collection[int], chosen: Filter = EVERYTHING) -> dict[int, Item]:
        """Items by number; those that are not there or do not pass the filter are left out."""
        passes, values = condition(chosen)
        sql = f"{ITEMS} WHERE items.number IN (SELECT value FROM json_each(?)) AND {passes}"
        return {row[0]: item_from(row) for row in self._database.read(sql, (json.dumps(list(numbers)), *values))}

    def find(self, item_ids: Collection[str]) -> list[Item]:
        """The items of public ids, by rising number; those that are not there are left out."""
        sql = f"{ITEMS} WHERE item_id IN (SELECT value FROM json_each(?)) ORDER BY items.number"
        return [item_from(row) for row in self._database.read(sql, (json.dumps(list(item_ids)),))]

    def page(self, chosen: Filter, after: int = 0, limit: int = 100) -> list[Item]:
        """The first `limit` items that pass the filter and have a number above `after`, by rising number."""
        passes, values = condition(chosen)
        sql = f"{ITEMS} WHERE items.number > ? AND {passes} ORDER BY items.number LIMIT ?"
        return [item_from(row) for row in self._database.read(sql, (after, *values, limit))]

    def count(self, chosen: Filter) -> int:
        """How many items pass the filter."""
        passes, values = condition(chosen)
        sql = "SELECT count(*) FROM items LEFT JOIN identities ON identities.number = identity_number WHERE "
        return int(self._database.read(sql + passes, values)[0][0])

    def by_content(self, sha256s: Collection[str]) -> dict[str, Item]:
        """Items by the SHA-256 of the bytes that were sent; those that are not there are left out."""
        sql = f"{ITEMS} WHERE sha256 IN (SELECT value FROM json_each(?))"
        items = [item_from(row) for row in self._database.read(sql, (json.dumps(list(sha256s)),))]
        return {item.medium.sha256: item for item in items}

    def contents(self) -> set[str]:
        """The SHA-256 of every photo."""
        return {sha256 for (sha256,) in self._database.read("SELECT sha256 FROM media")}

    def cameras(self, chosen: Filter) -> list[tuple[str, int]]:
        """The cameras of the items that pass the filter, with how many they are, by falling number."""
        return self._names("camera", chosen)

    def labels(self, chosen: Filter) -> list[tuple[str, int]]:
        """The labels of the items that pass the filter, with how many they are, by falling number."""
        return self._names("identities.name", chosen)

    def count_groups(self, chosen: Filter, without: int | None = None) -> int:
        """How many labels the items that pass the filter have, and how many have none, but for the item of a number."""
        passes, values = condition(chosen)
        sql = f"""
            SELECT count(DISTINCT identity_number) + count(*) - count(identity_number)
            FROM items LEFT JOIN identities ON identities.number = identity_number
            WHERE {passes} AND items.number IS NOT ?
        """
        return int(self._database.read(sql, [*values, without])[0][0])

    def rows(self, model_id: str, numbers: Collection[int] | None = None) -> Iterator[Row]:
        """What a search engine keeps, by rising number: of all items, or of those with these numbers.

        It is read in portions, so that changes made meanwhile may show or not.
        """
        some = "" if numbers is None else "AND items.number IN (SELECT value FROM json_each(:numbers))"
        sql = f"""
            SELECT items.number, vector, camera, captured_at, name
            FROM items CROSS JOIN vectors
                ON owner_kind = :kind AND owner_number = items.number AND model_id = :model AND space = :space
            LEFT JOIN identities ON identities.number = identity_number
            WHERE items.number > :after {some} ORDER BY items.number LIMIT :limit
        """
        values = {"kind": ITEM, "space": APPEARANCE, "model": model_id, "after": 0, "limit": ROWS_AT_ONCE}
        if numbers is not None:
            values["numbers"] = json.dumps(list(numbers))
        while portion := self._database.read(sql, values):
            for number, vector, *rest in portion:
                yield Row(number, np.frombuffer(vector, "<f4"), *rest)
            values["after"] = number

    def operations(self, after: int = 0, limit: int = 1000) -> list[Operation]:
        """The first `limit` changes with a `seq` above `after`, in the order in which they were made."""
        sql = """
            SELECT seq, time, actor, request_id, batch_id, kind, target, before, after
            FROM operations WHERE seq > ? ORDER BY seq LIMIT ?
        """
        return [_operation(row) for row in self._database.read(sql, (after, limit))]

    def changes(self, after: int, limit: int) -> list[Change]:
        """The first `limit` entries of the operation log with a `seq` above `after`, in order, none ever left out."""
        sql = "SELECT seq, kind, coalesce(after, before) FROM operations WHERE seq > ? ORDER BY seq LIMIT ?"
        return [
            Change(seq, kind, json.loads(state)["number"] if kind.startswith("item.") else None)
            for seq, kind, state in self._database.read(sql, (after, limit))
        ]

    def last_change(self) -> int:
        """The largest `seq` of the operation log; 0 for an empty one."""
        return int(self._database.read("SELECT coalesce(max(seq), 0) FROM operations")[0][0])

    def _names(self, column: str, chosen: Filter) -> list[tuple[str, int]]:
        passes, values = condition(chosen)
        sql = f"""
            SELECT {column}, count(*) FROM items LEFT JOIN identities ON identities.number = identity_number
            WHERE {column} IS NOT NULL AND {passes} GROUP BY {column} ORDER BY count(*) DESC, {column}
        """
        return self._database.read(sql, values)

    @contextmanager
    def _batch(self, cause: Cause) -> Iterator[Batch]:
        with self._database.transaction() as connection:
            yield Batch(connection, cause)


def _operation(row: tuple[Any, ...]) -> Operation:
    seq, time, *words, before, after = row
    states = [None if state is None else json.loads(state) for state in (before, after)]
    return Operation(seq, time_from(time), *words, *states)
