"""What one transaction does to a gallery, with every change written to the operation log."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Column, Connection, delete, exists, insert, select, update

from service.fields import said_of
from service.records import Cause, Conflict, Crop, Enrolled, Item, ItemEdit, Medium, NewItem, NotFound
from service.storage.columns import ITEMS, details_columns, item_from, json_text, now, portions, region_columns
from service.storage.tables import identities, items, media, operations
from service.storage.vectors import add_vectors, delete_vectors

CAPTURE = ("captured_precision", "latitude", "longitude")  # what is logged only of items that have it
_UNUSED_MEDIUM = ~exists().where(items.c.media_number == media.c.number)


class Transaction:
    """The changes of one transaction, in which they share a time, a batch id and who asked for them.

    Many are made by a few statements, since each is a journey where the database is a server.
    """

    def __init__(self, connection: Connection, cause: Cause) -> None:
        self._connection = connection
        self._now = now()
        self._shared = {"time": self._now, **cause._asdict(), "batch_id": uuid4().hex}

    def enrol(self, photos: Sequence[NewItem], model_id: str, space: str) -> list[Enrolled | Conflict]:
        """Add items with their vectors, but for those that are there already and those whose key another has."""
        sha256s = {photo.medium.sha256 for photo in photos}
        there = {item.crop: item for item in self._find(media.c.sha256, sha256s)}
        keys = {key for photo in photos if (key := photo.details.key) is not None}
        holders = {item.details.key: (item.item_id, item.crop) for item in self._find(items.c.key, keys)}
        held = set(there)
        new: dict[str, NewItem] = {}  # by the public ids of the items to be
        results: list[tuple[Crop, bool] | Conflict] = []
        for photo in photos:
            key, crop = photo.details.key, photo.crop
            holder, holds = holders.get(key, ("", crop))
            if holds != crop:
                results.append(_conflict(key, holder, photo.name))
                continue
            results.append((crop, crop not in held))
            if crop not in held:
                item_id = uuid4().hex
                new[item_id] = photo
                held.add(crop)
                if key is not None:
                    holders[key] = (item_id, crop)
        there |= {item.crop: item for item in self._add(new, model_id, space)}
        return [one if isinstance(one, Conflict) else Enrolled(there[one[0]], created=one[1]) for one in results]

    def edit(self, item_id: str, changes: ItemEdit) -> Item:
        """Change some details of an item; raises NotFound and Conflict."""
        before = self._get(item_id)
        details = replace(before.details, **changes)
        if "captured_at" in changes:
            details = replace(details, captured_precision=None)  # which was the camera's
        if details.key is not None:
            for holder in self._find(items.c.key, [details.key]):
                if holder.number != before.number:
                    raise _conflict(details.key, holder.item_id, f"item {item_id}")
        values = details_columns(details)
        if details.label != before.details.label:
            values |= _identity_columns(details.label, "human", self._identities([details.label]))
        self._connection.execute(update(items).where(items.c.number == before.number).values(values))
        after = self._get(item_id)
        if after != before:
            self.log("item.edit", item_id, _as_json(before), _as_json(after))
        return after

    def delete(self, item_ids: Collection[str]) -> list[Item]:
        """Remove items with their vectors, and their photos when no other item is on them; return those there were."""
        there = {item.item_id: item for item in self._find(items.c.item_id, item_ids)}
        gone = [there[item_id] for item_id in dict.fromkeys(item_ids) if item_id in there]
        for portion in portions(gone):
            numbers = [item.number for item in portion]
            sha256s = [item.medium.sha256 for item in portion]
            delete_vectors(self._connection, numbers)
            self._connection.execute(delete(items).where(items.c.number.in_(numbers)))
            self._connection.execute(delete(media).where(media.c.sha256.in_(sha256s), _UNUSED_MEDIUM))
        self._log([("item.delete", item.item_id, _as_json(item), None) for item in gone])
        return gone

    def log(self, kind: str, target: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Write a change to the operation log: `target` is the public id of what was changed."""
        self._log([(kind, target, before, after)])

    def _add(self, new: Mapping[str, NewItem], model_id: str, space: str) -> list[Item]:
        """Write items by their public ids, and those photos that are not there yet."""
        if not new:
            return []
        photos = new.values()
        seen: dict[str, Medium] = {}
        for photo in photos:
            seen.setdefault(photo.medium.sha256, photo.medium)
        stored = self._numbers(media.c.sha256, seen)
        if unseen := [medium for sha256, medium in seen.items() if sha256 not in stored]:
            self._connection.execute(insert(media), [{"kind": "image", **asdict(medium)} for medium in unseen])
            stored |= self._numbers(media.c.sha256, [medium.sha256 for medium in unseen])
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
        self._connection.execute(insert(items), rows)
        added = self._find(items.c.item_id, new)
        embedded = {item.number: new[item.item_id].vector for item in added}
        add_vectors(self._connection, model_id, space, embedded)
        self._log([("item.enrol", item.item_id, None, _as_json(item)) for item in added])
        return added

    def _find(self, column: Column[Any], values: Collection[int | str]) -> list[Item]:
        """The items with one of these values, by rising number."""
        found: list[Item] = []
        for portion in portions(values):
            found += map(item_from, self._connection.execute(ITEMS.where(column.in_(portion))))
        return sorted(found, key=lambda item: item.number)

    def _get(self, item_id: str) -> Item:
        for item in self._find(items.c.item_id, [item_id]):
            return item
        raise NotFound(f"no item {item_id!r}")

    def _numbers(self, column: Column[str], values: Collection[str]) -> dict[str, int]:
        """The numbers of the rows with these values, as far as there are any."""
        found: dict[str, int] = {}
        for portion in portions(values):
            numbers = select(column, column.table.c.number).where(column.in_(portion))
            found |= {value: number for value, number in self._connection.execute(numbers)}
        return found

    def _identities(self, labels: Collection[str | None]) -> dict[str, int]:
        """The numbers of the identities of these names, which are made where there are none."""
        names = [label for label in dict.fromkeys(labels) if label is not None]
        known = self._numbers(identities.c.name, names)
        if new := {name: uuid4().hex for name in names if name not in known}:
            fixed = {"aliases": "[]", "attributes": "{}", "state": "active"}
            rows = [{"identity_id": identity_id, "name": name, **fixed} for name, identity_id in new.items()]
            self._connection.execute(insert(identities), rows)
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
        if rows:
            self._connection.execute(insert(operations), rows)


def _identity_columns(label: str | None, source: str, known: Mapping[str, int]) -> dict[str, Any]:
    return {
        "identity_number": None if label is None else known[label],
        "identity_source": None if label is None else source,
    }


def _conflict(key: str | None, holder: str, other: str) -> Conflict:
    return Conflict(f"key {key!r} belongs to item {holder}, so {other} cannot have it")


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
