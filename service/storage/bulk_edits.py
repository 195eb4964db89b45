"""Changes of many items at once, each of which can be taken back by the operation log."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, select

from service.fields import SAID, Filter
from service.records import Cause, Conflict, Item, ItemEdit, KeyTaken, NotFound
from service.storage.columns import ITEMS, condition, item_from, portions
from service.storage.database import Database
from service.storage.tables import items, operations
from service.storage.transaction import CAPTURE, Transaction

_RESTORED = ("key", *SAID, "attributes", *CAPTURE)


class Edited(NamedTuple):
    """What a step changed, or would: of the items `chosen` those that are others now; `batch_id` takes it back."""

    batch_id: str
    chosen: int
    changed: int


class _Preview(Exception):
    """Nothing is kept."""


class BulkEdits:
    """Edits of many items in one transaction, which a dry run rolls back; errors as those of a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def edit(
        self,
        chosen: Filter | Collection[str],
        changes: Mapping[str, Any],
        shift: timedelta,
        cause: Cause,
        *,
        named: bool | None = None,
        expected: int | None = None,
        dry_run: bool = False,
        batch_id: str | None = None,
    ) -> Edited:
        """Say the same of items that pass a filter, or of these ids, and move their times if they have any.

        A step `batch_id` that was done before is told of, and not done again.
        Raises Conflict where others than `expected` pass the filter, and where a time would leave the years 1 to 9999,
        and UnusableText.
        """

        def work(transaction: Transaction) -> tuple[int, int]:
            if batch_id is not None and (done := transaction.connection.execute(_changed(batch_id)).scalar_one()):
                return done, done
            found = _chosen(transaction.connection, chosen, named)
            if expected is not None and len(found) != expected:
                raise Conflict(f"{len(found)} items pass the filter, not {expected} as expected; nothing was changed")
            edits = {item.item_id: {**changes, **_moved(item, shift)} for item in found}
            return len(found), len(transaction.edit_many(edits))

        return self._step(work, cause, dry_run, batch_id)

    def edit_each(
        self, item_ids: Collection[str], changes_of: Callable[[Item], ItemEdit], cause: Cause, batch_id: str
    ) -> Edited:
        """Say something of its own of each of some items, as the step `batch_id` or a part of it.

        What that is follows from the item as it is by then: nobody edits it between. A time keeps its precision, if
        that is not said. Raises UnusableText, and Conflict for a key of another item.
        """
        with self._database.transaction() as connection:
            transaction = Transaction(connection, cause, batch_id)
            edits = {item.item_id: changes_of(item) for item in _chosen(connection, item_ids, None)}
            _require_free(connection, edits)
            return Edited(transaction.batch_id, len(edits), len(transaction.edit_many(edits)))

    def changed_by(self, batch_id: str) -> int:
        """How many items a step has changed."""
        ((number,),) = self._database.read(_changed(batch_id))
        return int(number)

    def undo(
        self,
        batch_id: str,
        sees: Callable[[str | None], bool],
        cause: Cause,
        *,
        dry_run: bool = False,
        undoing: str | None = None,
    ) -> Edited:
        """Take back what one step changed of the items that are still there, as the step `undoing`, or one of any id.

        Raises NotFound where there is no such step or it has an item of a camera that is not seen, and Conflict where
        any of its items was changed since.
        """

        def work(transaction: Transaction) -> tuple[int, int]:
            told = select(operations.c.target, operations.c.before, operations.c.after)
            told = told.where(operations.c.batch_id == batch_id, operations.c.kind == "item.edit")
            rows = [
                (target, json.loads(before), json.loads(after))
                for target, before, after in transaction.connection.execute(told)
                if "said" not in json.loads(before)  # which an erasure has blotted out
            ]
            if not rows or not all(sees(state.get("camera")) for _, *states in rows for state in states):
                raise NotFound(f"no step {batch_id!r} of edits")
            there = {item.item_id: item for item in _chosen(transaction.connection, [row[0] for row in rows], None)}
            edits = {}
            changed_since = []
            for item_id, before, after in rows:
                if item_id not in there:
                    continue
                names = [name for name in _RESTORED if before.get(name) != after.get(name)]
                now = _state(there[item_id])
                if any(now.get(name) != after.get(name) for name in names):
                    changed_since.append(item_id)
                edits[item_id] = {name: _read(name, before.get(name)) for name in names}
            if changed_since:
                raise Conflict(
                    f"{len(changed_since)} of {len(rows)} items were changed since, such as {changed_since[0]}; "
                    "nothing was taken back"
                )
            _require_free(transaction.connection, edits)
            return len(edits), len(transaction.edit_many(edits))

        return self._step(work, cause, dry_run, undoing)

    def _step(
        self,
        work: Callable[[Transaction], tuple[int, int]],
        cause: Cause,
        dry_run: bool,
        batch_id: str | None = None,
    ) -> Edited:
        done: list[Edited] = []
        with suppress(_Preview), self._database.transaction() as connection:
            transaction = Transaction(connection, cause, batch_id)
            done.append(Edited(transaction.batch_id, *work(transaction)))
            if dry_run:
                raise _Preview
        return done[0]


def _changed(batch_id: str) -> Select[int]:
    """How many items a step has changed."""
    told = select(func.count(operations.c.target.distinct()))
    return told.where(operations.c.batch_id == batch_id, operations.c.kind == "item.edit")


def _chosen(connection: Connection, chosen: Filter | Collection[str], named: bool | None) -> list[Item]:
    if isinstance(chosen, Filter):
        passing = ITEMS.where(condition(chosen, named)).order_by(items.c.number)
        return [item_from(tuple(row)) for row in connection.execute(passing)]
    return [
        item_from(tuple(row))
        for portion in portions(chosen)
        for row in connection.execute(ITEMS.where(items.c.item_id.in_(portion)))
    ]


def _require_free(connection: Connection, edits: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise Conflict for a key that another item has, or two of these get."""
    wanted = {item_id: key for item_id, changes in edits.items() if (key := changes.get("key")) is not None}
    for key, times in Counter(wanted.values()).items():
        if times > 1:
            raise Conflict(f"key {key!r} would be that of {times} items")
    for portion in portions(set(wanted.values())):
        held = select(items.c.key, items.c.item_id, items.c.camera).where(items.c.key.in_(portion))
        for key, holder, camera in connection.execute(held):
            if wanted.get(holder) != key:
                other = next(item_id for item_id, one in wanted.items() if one == key)
                raise KeyTaken(key, holder, camera, f"item {other}")


def _moved(item: Item, shift: timedelta) -> dict[str, datetime]:
    """The time of an item that is moved, if it has one."""
    time = item.details.captured_at
    if time is None or not shift:
        return {}
    try:
        return {"captured_at": time + shift}
    except OverflowError:
        raise Conflict(f"the time of item {item.item_id}, {time:%Y-%m-%d}, cannot be moved so far") from None


def _state(item: Item) -> dict[str, Any]:
    """What is said of an item, as the operation log has it."""
    told = {name: getattr(item.details, name) for name in _RESTORED}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in told.items()}


def _read(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name == "captured_at" and value is not None else value
