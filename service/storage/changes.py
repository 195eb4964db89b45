"""What one transaction does to a gallery, with every change written to the operation log."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from sqlite3 import Connection
from typing import Any, NamedTuple, TypedDict
from uuid import uuid4

from service.records import Cause, Conflict, Item, NewItem, NotFound
from service.storage.columns import APPEARANCE, ITEM, ITEMS, item_from, json_text, microseconds


class Enrolled(NamedTuple):
    """The item of a photo; `created` is false for one that was there before."""

    item: Item
    created: bool


class Changes(TypedDict, total=False):
    """New values for some of an item's `Details`; `attributes` takes the place of all there were."""

    key: str | None
    label: str | None
    camera: str | None
    captured_at: datetime | None
    attributes: Mapping[str, Any]


class Batch:
    """The changes of one transaction, in which they share a time, a batch id and who asked for them."""

    def __init__(self, connection: Connection, cause: Cause) -> None:
        self._connection = connection
        self._now = microseconds(datetime.now(UTC))
        self._cause = (*cause, uuid4().hex)

    def enrol(self, photo: NewItem, model_id: str) -> Enrolled | Conflict:
        """Add a photo with its vector, unless it is there already or its key belongs to another."""
        medium, details = photo.medium, photo.details
        holder = self._find("key = ?", details.key)
        if holder and holder.medium.sha256 != medium.sha256:
            return _conflict(holder, medium.source or medium.sha256)
        if there := self._find("sha256 = ?", medium.sha256):
            return Enrolled(there, created=False)
        media_number = self._insert(
            "INSERT INTO media (sha256, kind, width, height, source) VALUES (?, 'image', ?, ?, ?)",
            (medium.sha256, medium.width, medium.height, medium.source),
        )
        captured_at = None if details.captured_at is None else microseconds(details.captured_at)
        number = self._insert(
            "INSERT INTO items (item_id, media_number, key, identity_number, identity_source, camera, captured_at, "
            "attributes, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                uuid4().hex,
                media_number,
                details.key,
                self._identity(details.label),
                None if details.label is None else "import",
                details.camera,
                captured_at,
                json_text(dict(details.attributes)),
                self._now,
            ),
        )
        self._connection.execute(
            "INSERT INTO vectors (owner_kind, owner_number, model_id, space, vector) VALUES (?, ?, ?, ?, ?)",
            (ITEM, number, model_id, APPEARANCE, photo.vector.astype("<f4").tobytes()),
        )
        item = self._get("items.number = ?", number)
        self.log("item.enrol", item.item_id, None, _as_json(item))
        return Enrolled(item, created=True)

    def edit(self, item_id: str, changes: Changes) -> Item:
        """Change some details of an item; raises NotFound and Conflict."""
        before = self._get("item_id = ?", item_id)
        details = replace(before.details, **changes)
        holder = self._find("key = ?", details.key)
        if holder and holder.number != before.number:
            raise _conflict(holder, f"item {item_id}")
        captured_at = None if details.captured_at is None else microseconds(details.captured_at)
        self._connection.execute(
            "UPDATE items SET key = ?, camera = ?, captured_at = ?, attributes = ? WHERE number = ?",
            (details.key, details.camera, captured_at, json_text(dict(details.attributes)), before.number),
        )
        if details.label != before.details.label:
            self._connection.execute(
                "UPDATE items SET identity_number = ?, identity_source = ? WHERE number = ?",
                (self._identity(details.label), None if details.label is None else "human", before.number),
            )
        after = self._get("item_id = ?", item_id)
        if after != before:
            self.log("item.edit", item_id, _as_json(before), _as_json(after))
        return after

    def delete(self, item_id: str) -> Item | None:
        """Remove an item with its vectors, and its photo when no other item is on it; None when it is not there."""
        item = self._find("item_id = ?", item_id)
        if item:
            self._connection.execute(
                "DELETE FROM vectors WHERE owner_kind = ? AND owner_number = ?", (ITEM, item.number)
            )
            self._connection.execute("DELETE FROM items WHERE number = ?", (item.number,))
            self._connection.execute(
                "DELETE FROM media WHERE sha256 = ? "
                "AND NOT EXISTS (SELECT * FROM items WHERE media_number = media.number)",
                (item.medium.sha256,),
            )
            self.log("item.delete", item_id, _as_json(item), None)
        return item

    def _find(self, condition: str, value: Any) -> Item | None:
        row = self._connection.execute(f"{ITEMS} WHERE {condition}", (value,)).fetchone()
        return item_from(row) if row else None

    def _get(self, condition: str, value: Any) -> Item:
        item = self._find(condition, value)
        if item is None:
            raise NotFound(f"no item {value!r}")
        return item

    def _insert(self, sql: str, values: tuple[Any, ...]) -> int:
        number = self._connection.execute(sql, values).lastrowid
        assert number is not None
        return number

    def _identity(self, name: str | None) -> int | None:
        """The number of the identity of that name, which is made when there is none."""
        if name is None:
            return None
        found = self._connection.execute("SELECT number FROM identities WHERE name = ?", (name,)).fetchone()
        if found:
            return int(found[0])
        identity_id = uuid4().hex
        self.log("identity.create", identity_id, None, {"name": name})
        return self._insert(
            "INSERT INTO identities (identity_id, name, aliases, attributes, state) "
            "VALUES (?, ?, '[]', '{}', 'active')",
            (identity_id, name),
        )

    def log(self, kind: str, target: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Write a change to the operation log: `target` is the public id of what was changed."""
        states = (None if state is None else json_text(state) for state in (before, after))
        self._connection.execute(
            "INSERT INTO operations (time, actor, request_id, batch_id, kind, target, before, after) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (self._now, *self._cause, kind, target, *states),
        )


def _conflict(holder: Item, other: str) -> Conflict:
    return Conflict(f"key {holder.details.key!r} belongs to item {holder.item_id}, so {other} cannot have it")


def _as_json(item: Item) -> dict[str, Any]:
    medium, details = item.medium, item.details
    return {
        "number": item.number,
        "sha256": medium.sha256,
        "source": medium.source,
        "key": details.key,
        "label": details.label,
        "identity_id": item.identity_id,
        "camera": details.camera,
        "captured_at": details.captured_at and details.captured_at.isoformat(),
        "attributes": details.attributes,
    }
