"""What one transaction does to a gallery, with every change written to the operation log."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from secrets import token_hex
from typing import Any

from sqlalchemy import Column, Connection, Table, bindparam, delete, exists, func, select, update

from service.fields import FIELDS, said_of
from service.records import (
    Cause,
    Conflict,
    Crop,
    Enrolled,
    Item,
    ItemEdit,
    KeyTaken,
    Medium,
    NewItem,
    NotFound,
    UnusableText,
    require_name,
)
from service.storage.columns import ITEMS, details_columns, item_from, json_text, now, portions, region_columns
from service.storage.deciding import Deciding
from service.storage.decisions import NewDecision, append
from service.storage.driver import fetch_rows, insert_rows
from service.storage.tables import identities, items, media, operations
from service.storage.tombstones import bury, unearth
from service.storage.vectors import add_vectors, delete_vectors

CAPTURE = ("captured_precision", "latitude", "longitude")  # what is logged only of items that have it
_NAMED = ("key", *(field.name for field in FIELDS if field.kind == "name"))
_UNUSED_MEDIUM = ~exists().where(items.c.media_number == media.c.number)


class Transaction:
    """The changes of one transaction, in which they share a time, a batch id and who asked for them.

    Many are made by a few statements, since each is a journey where the database is a server.
    """

    def __init__(self, connection: Connection, cause: Cause, batch_id: str | None = None) -> None:
        self.connection = connection
        self._now = now()
        self._shared = {"time": self._now, **cause._asdict(), "batch_id": batch_id or token_hex(16)}
        self.batch_id = str(self._shared["batch_id"])
        self.deciding = Deciding(connection, self._shared, self.log)

    def enrol(self, photos: Sequence[NewItem], model_id: str, space: str) -> list[Enrolled | Conflict | UnusableText]:
        """Add items with their vectors, but for those there already, of a key taken or a name refused."""
        stored = self._numbers(media.c.sha256, {photo.medium.sha256 for photo in photos})
        there = {item.crop: item for item in self._find(media.c.number, set(stored.values()))}
        refusals = [_refusal(photo) for photo in photos]  # before a server is asked for a key that it cannot take
        taken = [photo for photo, refusal in zip(photos, refusals, strict=True) if refusal is None]
        keys = {key for photo in taken if (key := photo.details.key) is not None}
        found = self._find(items.c.key, keys)
        holders = {item.details.key: (item.item_id, item.details.camera, item.crop) for item in found}
        held = set(there)
        new: dict[str, NewItem] = {}  # by the public ids of the items to be
        results: list[tuple[Crop, bool] | Conflict | UnusableText] = []
        for photo, refusal in zip(photos, refusals, strict=True):
            key, crop = photo.details.key, photo.crop
            if refusal is not None:
                results.append(refusal)
                continue
            holder, camera, holds = holders.get(key, ("", None, crop))
            if holds != crop:
                results.append(KeyTaken(key, holder, camera, photo.name))
                continue
            results.append((crop, crop not in held))
            if crop not in held:
                item_id = token_hex(16)
                new[item_id] = photo
                held.add(crop)
                if key is not None:
                    holders[key] = (item_id, photo.details.camera, crop)
        there |= {item.crop: item for item in self._add(new, stored, model_id, space)}
        return [one if isinstance(one, Exception) else Enrolled(there[one[0]], created=one[1]) for one in results]

    def edit(self, item_id: str, changes: ItemEdit) -> Item:
        """Change some details of an item; raises NotFound, Conflict and UnusableText."""
        _require_names(changes)
        before = self._get(item_id)
        details = replace(before.details, **changes)
        if "captured_at" in changes and "captured_precision" not in changes:
            details = replace(details, captured_precision=None)  # which was the camera's
        if details.key is not None:
            for holder in self._find(items.c.key, [details.key]):
                if holder.number != before.number:
                    raise KeyTaken(details.key, holder.item_id, holder.details.camera, f"item {item_id}")
        values = details_columns(details)
        self.connection.execute(update(items).where(items.c.number == before.number).values(values))
        if details.label != before.details.label:
            self._label(before, details.label)
        after = self._get(item_id)
        if after != before:
            self.log("item.edit", item_id, _as_json(before), _as_json(after))
        return after

    def edit_many(self, changes: Mapping[str, Mapping[str, Any]]) -> list[Item]:
        """Change details of items by their public ids, and return those that are others than before.

        Those that are not there are none. Keys have to be free. A time keeps its precision. Raises UnusableText.
        """
        there = self._find(items.c.item_id, changes)
        rows = []
        for item in there:
            _require_names(changes[item.item_id])
            rows.append({"of": item.number, **details_columns(replace(item.details, **changes[item.item_id]))})
        if rows:
            of = items.c.number == bindparam("of")
            self.connection.execute(update(items).where(of), rows)
        labels = [(item, changes[item.item_id].get("label", item.details.label)) for item in there]
        others = [(item, label) for item, label in labels if label != item.details.label]
        # An anchor that leaves has to join all who stay to the next one, so it is the last to leave.
        anchors = set(self._anchors([item.item_id for item, _ in others]))
        for item, label in sorted(others, key=lambda other: other[0].item_id in anchors):
            self._label(item, label)
        after = {item.number: item for item in self._find(items.c.item_id, changes)}
        edited = [(item, after[item.number]) for item in there if after[item.number] != item]
        self._log([("item.edit", new.item_id, _as_json(old), _as_json(new)) for old, new in edited])
        return [new for _, new in edited]

    def delete(self, item_ids: Collection[str]) -> list[Item]:
        """Remove items with their vectors, and their photos when no other item is on them; return those there were."""
        there = {item.item_id: item for item in self._find(items.c.item_id, item_ids)}
        gone = [there[item_id] for item_id in dict.fromkeys(item_ids) if item_id in there]
        for portion in portions(gone):
            numbers = [item.number for item in portion]
            sha256s = [item.medium.sha256 for item in portion]
            delete_vectors(self.connection, numbers)
            self.connection.execute(delete(items).where(items.c.number.in_(numbers)))
            self.connection.execute(delete(media).where(media.c.sha256.in_(sha256s), _UNUSED_MEDIUM))
        bury(self.connection, {item.crop for item in gone}, self._now)  # first, for it may ask the log
        self._log([("item.delete", item.item_id, _as_json(item), None) for item in gone])
        return gone

    def log(self, kind: str, target: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Write a change to the operation log: `target` is the public id of what was changed."""
        self._log([(kind, target, before, after)])

    def _add(self, new: Mapping[str, NewItem], stored: dict[str, int], model_id: str, space: str) -> list[Item]:
        """Write items by their public ids, and their photos, but for those `stored`, by their numbers."""
        if not new:
            return []
        photos = new.values()
        seen: dict[str, Medium] = {}
        for photo in photos:
            seen.setdefault(photo.medium.sha256, photo.medium)
        if unseen := [medium for sha256, medium in seen.items() if sha256 not in stored]:
            rows = [
                {
                    "kind": "image",
                    "sha256": medium.sha256,
                    "width": medium.width,
                    "height": medium.height,
                    "source": medium.source,
                    "copy_sha256": medium.copy_sha256,
                }
                for medium in unseen
            ]
            last = self._last_number(media)
            insert_rows(self.connection, media, rows)
            written = select(media.c.sha256, media.c.number).where(media.c.number > last)
            stored = stored | dict(fetch_rows(self.connection, written))
        known = self._identities([photo.details.label for photo in photos])
        rows = [
            {
                "item_id": item_id,
                "media_number": stored[photo.medium.sha256],
                "created_at": self._now,
                **region_columns(photo.region),
                **details_columns(photo.details),
                **_identity_columns(photo.details.label, "import", known),
            }
            for item_id, photo in new.items()
        ]
        last = self._last_number(items)
        insert_rows(self.connection, items, rows)
        self._join_labelled(new, known)
        ours = ITEMS.where(items.c.number > last).order_by(items.c.number)
        added = [item_from(row) for row in fetch_rows(self.connection, ours)]
        unearth(self.connection, {item.crop for item in added})
        embedded = {item.number: new[item.item_id].vector for item in added}
        add_vectors(self.connection, model_id, space, embedded)
        self._log([("item.enrol", item.item_id, None, _as_json(item)) for item in added])
        return added

    def _label(self, item: Item, label: str | None) -> None:
        showed = select(items.c.identity_number).where(items.c.number == item.number)
        former = self.connection.execute(showed).scalar_one()
        identity = None if label is None else self._identities([label])[label]
        self.deciding.label(item.item_id, item.number, former, identity)

    def _anchors(self, item_ids: Collection[str]) -> list[str]:
        """Those of some items that are the anchors of identities."""
        column, found = identities.c.anchor, list[str]()
        for portion in portions(item_ids):
            found += self.connection.execute(select(column).where(column.in_(portion))).scalars()
        return found

    def _join_labelled(self, new: Mapping[str, NewItem], known: Mapping[str, int]) -> None:
        """Join new items, by their public ids, to the anchors of their identities; the first of one is its anchor."""
        anchored = select(identities.c.number, identities.c.anchor)
        anchors: dict[int, str | None] = {}
        for portion in portions(set(known.values())):
            anchors |= dict(fetch_rows(self.connection, anchored.where(identities.c.number.in_(portion))))
        joins, first = [], {}
        for item_id, photo in new.items():
            if (label := photo.details.label) is None:
                continue
            if (anchor := anchors[known[label]]) is None:
                anchors[known[label]] = first[known[label]] = item_id
            else:
                joins.append(NewDecision(item_id, anchor, "same", "import"))
        append(self.connection, self._shared, joins)
        if first:
            values = [{"of": number, "first": item_id} for number, item_id in first.items()]
            of = identities.c.number == bindparam("of")
            self.connection.execute(update(identities).where(of).values(anchor=bindparam("first")), values)

    def _find(self, column: Column[Any], values: Collection[int | str]) -> list[Item]:
        """The items with one of these values, by rising number."""
        found: list[Item] = []
        for portion in portions(values):
            found += map(item_from, fetch_rows(self.connection, ITEMS.where(column.in_(portion))))
        return sorted(found, key=lambda item: item.number)

    def _get(self, item_id: str) -> Item:
        for item in self._find(items.c.item_id, [item_id]):
            return item
        raise NotFound(f"no item {item_id!r}")

    def _last_number(self, table: Table) -> int:
        """The largest number in a table: what this transaction adds has larger ones, for no other writes meanwhile."""
        return int(self.connection.execute(select(func.coalesce(func.max(table.c.number), 0))).scalar_one())

    def _numbers(self, column: Column[str], values: Collection[str]) -> dict[str, int]:
        """The numbers of the rows with these values, as far as there are any."""
        found: dict[str, int] = {}
        for portion in portions(values):
            numbers = select(column, column.table.c.number).where(column.in_(portion))
            found |= dict(fetch_rows(self.connection, numbers))
        return found

    def _identities(self, labels: Collection[str | None]) -> dict[str, int]:
        """The numbers of the identities of these names, which are made where there are none."""
        names = [label for label in dict.fromkeys(labels) if label is not None]
        known = self._numbers(identities.c.name, names)
        if new := {name: token_hex(16) for name in names if name not in known}:
            fixed = {"aliases": "[]", "attributes": "{}", "state": "active"}
            rows = [{"identity_id": identity_id, "name": name, **fixed} for name, identity_id in new.items()]
            insert_rows(self.connection, identities, rows)
            known |= self._numbers(identities.c.name, new)
            self._log([("identity.create", identity_id, None, {"name": name}) for name, identity_id in new.items()])
        return known

    def _log(self, changes: Sequence[tuple[str, str, dict[str, Any] | None, dict[str, Any] | None]]) -> None:
        rows = [
            {
                "kind": kind,
                "target": target,
                "before": None if before is None else json_text(before),
                "after": None if after is None else json_text(after),
                **self._shared,
            }
            for kind, target, before, after in changes
        ]
        insert_rows(self.connection, operations, rows)


def _identity_columns(label: str | None, source: str, known: Mapping[str, int]) -> dict[str, Any]:
    return {
        "identity_number": None if label is None else known[label],
        "identity_source": None if label is None else source,
    }


def _refusal(photo: NewItem) -> UnusableText | None:
    try:
        for what in _NAMED:
            if (name := getattr(photo.details, what)) is not None:
                require_name(what, name)
    except UnusableText as error:
        return error
    return None


def _require_names(said: Mapping[str, Any]) -> None:
    for what in _NAMED:
        if isinstance(name := said.get(what), str):
            require_name(what, name)


def _as_json(item: Item) -> dict[str, Any]:
    medium, region, details = item.medium, item.region, item.details
    return {
        "number": item.number,
        "sha256": medium.sha256,
        "source": medium.source,
        "box": region and [region.x, region.y, region.w, region.h],
        "frame": region and region.frame,
        "key": details.key,
        "identity_id": item.identity_id,
        **{
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in said_of(details).items()
        },
        "attributes": details.attributes,
        **{name: value for name in CAPTURE if (value := getattr(details, name)) is not None},
    }
