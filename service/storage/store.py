"""The truth of a gallery: its photos, their vectors, and who changed what when. E is the embedding size."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple, TypeVarTuple

import numpy as np
from sqlalchemy import Column, ColumnElement, Select, bindparam, distinct, func, or_, select, update
from sqlalchemy.sql.visitors import iterate

from service.fields import Filter, facts, microseconds, time_from
from service.records import (
    APPEARANCE,
    FIRST,
    NOBODY,
    Cause,
    Conflict,
    Crop,
    Enrolled,
    Item,
    ItemEdit,
    LogPart,
    Medium,
    ModelMismatch,
    NewItem,
    NotFound,
    Operation,
    Region,
    Row,
    UnusableBox,
    UnusableText,
)
from service.storage.columns import ITEMS, LABELLED_ITEMS, SEARCHED, condition, item_from, portions
from service.storage.database import Database
from service.storage.logs import part_of
from service.storage.models import Models
from service.storage.tables import identities, items, media, operations, vectors
from service.storage.transaction import Transaction
from service.storage.vectors import of_items, require_unit

Columns = TypeVarTuple("Columns")

ROWS_AT_ONCE = 10_000
EVERYTHING = Filter()

_DAY = 86_400_000_000  # microseconds
_DAYS_UNTIL_1970 = date(1970, 1, 1).toordinal() - 1

_ROWS = (
    select(vectors.c.owner_number, vectors.c.vector, *SEARCHED)
    .select_from(vectors.join(items, items.c.number == vectors.c.owner_number).outerjoin(identities))
    .order_by(vectors.c.owner_number)
)


class LogEntry(NamedTuple):
    """An entry of the operation log for those who follow it, with what it touches, which other kinds leave open.

    Those are items by their `numbers`, all items that the identity of an id has by now, or a space whose vectors are
    those of another model from then on.
    """

    seq: int
    kind: str
    numbers: frozenset[int] = frozenset()
    identity_id: str | None = None
    space: str | None = None


class Store:
    """A gallery on the disk, which threads may share: what a method did is there to stay, what raised changed nothing.

    Methods raise OSError and ValueError as `Database` does. The operation log keeps the `cause` of every change.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def enrol(
        self,
        photos: Sequence[NewItem],
        cause: Cause = NOBODY,
        embedded_by: str | None = None,
        space: str = APPEARANCE,
    ) -> list[Enrolled | Conflict | UnusableText]:
        """Add items in one transaction and tell, in their order, what became of each.

        What a photo, or a region of it, shows is an item once: one that is there already is left as it is. One whose
        key belongs to another item, or that has a name that cannot be shown, is not added: in its place stands the
        Conflict or the UnusableText, and the others are enrolled all the same. Raises ValueError, and adds none, for a
        vector that is not (E,) float32 of unit length, a box that is not within its photo, a time without zone, and a
        gallery without model. `embedded_by` is the id of the model that made the vectors, by default that of their
        space; raises ModelMismatch for another.
        """
        with self._database.transaction() as connection:
            if (model := Models(self._database, space).active) is None:
                raise ValueError(f"{self._database.name}: has no model yet; bind one before enrolling")
            if embedded_by not in (None, model.model_id):  # another process may have re-indexed meanwhile
                raise ModelMismatch(f"the gallery belongs to model {model.model_id}, but model {embedded_by} is loaded")
            for photo in photos:
                require_unit(photo.vector, model.dimension, photo.name)
                if photo.region is not None:
                    _require_inside(photo.region, photo.medium)
            return Transaction(connection, cause).enrol(photos, model.model_id, space)

    def edit(self, item_id: str, changes: ItemEdit, cause: Cause = NOBODY) -> Item:
        """Change some details of an item; a label that is new becomes an identity.

        Raises NotFound, Conflict for a key that belongs to another photo, and ValueError for a time without zone.
        """
        with self._database.transaction() as connection:
            return Transaction(connection, cause).edit(item_id, changes)

    def delete(self, item_ids: Collection[str], cause: Cause = NOBODY) -> list[Item]:
        """Remove items and their vectors, and return them as they were; ids that are not there are none.

        A photo goes with the last of its items. The operation log keeps what was said of them, and their numbers are
        never used again.
        """
        with self._database.transaction() as connection:
            return Transaction(connection, cause).delete(item_ids)

    def delete_matching(self, chosen: Filter, expected: int, cause: Cause = NOBODY) -> list[Item]:
        """Remove the items that pass a filter, as `delete` does, if they are as many as expected; else raise Conflict.

        Nothing can be enrolled or edited between the counting and the deletion.
        """
        passing = select(items.c.item_id).select_from(LABELLED_ITEMS).where(condition(chosen)).order_by(items.c.number)
        with self._database.transaction() as connection:
            found = connection.execute(passing).scalars().all()
            _require_expected(len(found), expected)
            return Transaction(connection, cause).delete(found)

    def last_matching(self, chosen: Filter, expected: int) -> int:
        """The largest number of the items that pass a filter, if they are as many as expected; else raise Conflict."""
        passing = select(func.count(), func.max(items.c.number)).select_from(LABELLED_ITEMS).where(condition(chosen))
        ((found, last),) = self._database.read(passing)
        _require_expected(found, expected)
        return int(last or 0)

    def count_until(self, chosen: Filter, last: int) -> int:
        """How many items with a number of at most `last` pass the filter."""
        return self._count(func.count(), condition(chosen), items.c.number <= last)

    def first_until(self, chosen: Filter, last: int, limit: int) -> list[str]:
        """The public ids of the first `limit` items with a number of at most `last` that pass the filter."""
        passing = select(items.c.item_id).select_from(LABELLED_ITEMS).where(condition(chosen), items.c.number <= last)
        return [item_id for (item_id,) in self._database.read(passing.order_by(items.c.number).limit(limit))]

    def get(self, item_id: str) -> Item:
        """The item of a public id; raises NotFound."""
        for item in self.find([item_id]):
            return item
        raise NotFound(f"no item {item_id!r}")

    def get_many(self, numbers: Collection[int], chosen: Filter = EVERYTHING) -> dict[int, Item]:
        """Items by number; those that are not there or do not pass the filter are left out."""
        return {item.number: item for item in self._items(items.c.number, numbers, chosen)}

    def find(self, item_ids: Collection[str]) -> list[Item]:
        """The items of public ids, by rising number; those that are not there are left out."""
        return sorted(self._items(items.c.item_id, item_ids), key=lambda item: item.number)

    def page(
        self, chosen: Filter, after: int = 0, limit: int = 100, *, newest_first: bool = False, named: bool | None = None
    ) -> list[Item]:
        """The first `limit` items that pass the filter and have a number above `after`, by rising number.

        With `newest_first` by falling number, and below `after` unless that is 0. `named` as for `condition`.
        """
        beyond = items.c.number > after
        if newest_first and after:
            beyond = items.c.number < after
        order = items.c.number.desc() if newest_first else items.c.number
        passing = ITEMS.where(beyond, condition(chosen, named)).order_by(order).limit(limit)
        return [item_from(row) for row in self._database.read(passing)]

    def count(self, chosen: Filter, named: bool | None = None) -> int:
        """How many items pass the filter; `named` as for `condition`."""
        return self._count(func.count(), condition(chosen, named))

    def days(self, chosen: Filter, named: bool | None = None) -> list[tuple[date, int]]:
        """The days, in UTC, on which the items that pass were captured, with how many they are, by rising day."""
        since_year_1 = items.c.captured_at + _DAYS_UNTIL_1970 * _DAY  # never below 0, where databases differ
        day = (since_year_1 // _DAY).label("day")
        timed = _over_items(select(day, func.count()).where(items.c.captured_at.is_not(None), condition(chosen, named)))
        passing = timed.group_by(day).order_by(day)
        return [(date.fromordinal(int(number) + 1), count) for number, count in self._database.read(passing)]

    def enrolled_before(self, time: datetime, chosen: Filter, limit: int) -> list[str]:
        """The public ids of the first `limit` items that pass the filter and were enrolled before a time."""
        older = select(items.c.item_id).select_from(LABELLED_ITEMS).where(condition(chosen))
        older = older.where(items.c.created_at < microseconds(time)).order_by(items.c.number).limit(limit)
        return [item_id for (item_id,) in self._database.read(older)]

    def count_enrolled_before(self, time: datetime, chosen: Filter) -> int:
        """How many items pass the filter and were enrolled before a time."""
        return self._count(func.count(), condition(chosen), items.c.created_at < microseconds(time))

    def by_crop(self, crops: Collection[Crop]) -> dict[Crop, Item]:
        """Items by the crop that they show, or one that agrees with it; those that are not there are left out."""
        of_photo: dict[str, list[Item]] = defaultdict(list)
        for item in self._items(media.c.sha256, {sha256 for sha256, _ in crops}):
            of_photo[item.medium.sha256].append(item)
        found = {}
        for crop in set(crops):
            agreeing = [item for item in of_photo[crop.sha256] if crop.agrees(item.crop)]
            if agreeing:
                found[crop] = min(agreeing, key=lambda item: (item.crop != crop, item.number))
        return found

    def of_photo(self, sha256: str, chosen: Filter = EVERYTHING) -> list[Item]:
        """The items of one photo that pass the filter, by rising number."""
        return sorted(self._items(media.c.sha256, [sha256], chosen), key=lambda item: item.number)

    def beyond(self, sha256s: Collection[str], cameras: Collection[str]) -> set[str]:
        """Those of some photos, by their SHA-256, of which there are items of other cameras, or of none."""
        others = or_(items.c.camera.is_(None), items.c.camera.not_in(cameras))
        asked = select(media.c.sha256).join_from(media, items).where(others)
        found = (self._database.read(asked.where(media.c.sha256.in_(portion))) for portion in portions(sha256s))
        return {sha256 for rows in found for (sha256,) in rows}

    def contents(self, among: Collection[str] | None = None) -> set[str]:
        """The SHA-256 of every photo, or of those among these that there are."""
        if among is None:
            return {sha256 for (sha256,) in self._database.read(select(media.c.sha256))}
        asked = [select(media.c.sha256).where(media.c.sha256.in_(portion)) for portion in portions(set(among))]
        return {sha256 for one in asked for (sha256,) in self._database.read(one)}

    def checksums(self, among: Collection[str]) -> dict[str, str | None]:
        """The SHA-256 of the kept copy of each of these photos that are there, None where it is not known."""
        asked = [
            select(media.c.sha256, media.c.copy_sha256).where(media.c.sha256.in_(portion))
            for portion in portions(set(among))
        ]
        return {sha256: checksum for one in asked for sha256, checksum in self._database.read(one)}

    def keep_checksums(self, checksums: Mapping[str, str]) -> None:
        """Keep the SHA-256 of copies that were written anew, or found, by those of their photos, if they are there."""
        if not checksums:
            return
        named = media.c.sha256 == bindparam("photo")
        with self._database.transaction() as connection:
            rows = [{"photo": sha256, "checksum": checksum} for sha256, checksum in checksums.items()]
            connection.execute(update(media).where(named).values(copy_sha256=bindparam("checksum")), rows)

    def cameras(self, chosen: Filter) -> list[tuple[str, int]]:
        """The cameras of the items that pass the filter, with how many they are, by falling number."""
        return self._names(items.c.camera, chosen)

    def labels(self, chosen: Filter) -> list[tuple[str, int]]:
        """The labels of the items that pass the filter, with how many they are, by falling number."""
        return self._names(identities.c.name, chosen)

    def identified(self) -> list[tuple[int, int]]:
        """The numbers of all items that show somebody, each with the number of the identity."""
        showing = select(items.c.number, items.c.identity_number).where(items.c.identity_number.is_not(None))
        return [(number, identity) for number, identity in self._database.read(showing.order_by(items.c.number))]

    def of_identities(self, identity_ids: Collection[str], chosen: Filter, most: int) -> dict[str, list[int]]:
        """The numbers of the first `most` items of identities that pass the filter, by the id of the identity."""
        found: dict[str, list[int]] = defaultdict(list)
        for portion in portions(set(identity_ids)):
            theirs = select(identities.c.identity_id, items.c.number).select_from(LABELLED_ITEMS)
            of_them = theirs.where(identities.c.identity_id.in_(portion), condition(chosen)).order_by(items.c.number)
            for identity_id, number in self._database.read(of_them):
                if len(found[identity_id]) < most:
                    found[identity_id].append(number)
        return found

    def count_groups(self, chosen: Filter, without: int | None = None, by_label: bool = True) -> int:
        """How many labels the items that pass the filter have, and how many have none, but for the item of a number.

        Without `by_label`, how many identities, of which some have no name.
        """
        labelled = identities.c.name if by_label else items.c.identity_number
        groups = func.count(distinct(labelled)) + func.count() - func.count(labelled)
        return self._count(groups, condition(chosen), items.c.number.is_distinct_from(without))

    def rows(
        self, model_id: str, numbers: Collection[int] | None = None, after: int = 0, space: str = APPEARANCE
    ) -> Iterator[Row]:
        """What a search engine keeps, by rising number: of all items with a number above `after`, or of some of them.

        The vectors are those of a model in a space. It is read in portions, so that changes made meanwhile may show or
        not.
        """
        wanted = _ROWS.where(of_items(model_id, space))
        if numbers is not None:
            for some in portions(sorted(set(numbers))):
                yield from map(_row, self._database.read(wanted.where(vectors.c.owner_number.in_(some))))
            return
        while portion := self._database.read(wanted.where(vectors.c.owner_number > after).limit(ROWS_AT_ONCE)):
            yield from map(_row, portion)
            after = portion[-1][0]

    def operations(self, wanted: LogPart = FIRST) -> list[Operation]:
        """Changes of the gallery, by default the first thousand, in the order in which they were made."""
        return [_operation(row) for row in self._database.read(part_of(operations, wanted))]

    def entries(self, after: int, limit: int) -> list[LogEntry]:
        """The first `limit` entries of the operation log with a `seq` above `after`, in order, none ever left out."""
        told = func.coalesce(operations.c.after, operations.c.before)
        following = select(operations.c.seq, operations.c.kind, operations.c.target, told)
        following = following.where(operations.c.seq > after).order_by(operations.c.seq).limit(limit)
        return [_entry(*row) for row in self._database.read(following)]

    def touched(self, entries: Iterable[LogEntry]) -> set[int]:
        """The numbers of the items that entries of the operation log touch, whether these are still there or not."""
        numbers: set[int] = set()
        identity_ids: set[str] = set()
        for entry in entries:
            numbers |= entry.numbers
            identity_ids |= set() if entry.identity_id is None else {entry.identity_id}
        for portion in portions(identity_ids):
            of_them = select(items.c.number).join_from(items, identities).where(identities.c.identity_id.in_(portion))
            numbers |= {number for (number,) in self._database.read(of_them)}
        return numbers

    def last_entry(self) -> int:
        """The largest `seq` of the operation log; 0 for an empty one."""
        return int(self._database.read(select(func.coalesce(func.max(operations.c.seq), 0)))[0][0])

    def batch_of(self, seq: int) -> str | None:
        """The batch id of an entry of the operation log, by which it is told from one of another history."""
        for (batch_id,) in self._database.read(select(operations.c.batch_id).where(operations.c.seq == seq)):
            return str(batch_id)
        return None

    def count_entries(self, after: int) -> int:
        """How many entries of the operation log have a `seq` above `after`."""
        later = select(func.count()).select_from(operations).where(operations.c.seq > after)
        return int(self._database.read(later)[0][0])

    def last_number(self) -> int:
        """The largest number of an item; 0 where there are none."""
        return int(self._database.read(select(func.coalesce(func.max(items.c.number), 0)))[0][0])

    def count_above(self, number: int) -> int:
        """How many items have a number above this one."""
        return self._count(func.count(), items.c.number > number)

    def numbers(self, model_id: str, space: str = APPEARANCE) -> set[int]:
        """The numbers of all items with a vector of a model in a space."""
        owners = select(vectors.c.owner_number).where(of_items(model_id, space))
        return {number for (number,) in self._database.read(owners)}

    def count_rows(self, model_id: str, space: str = APPEARANCE) -> int:
        """How many items have a vector of a model in a space."""
        owners = select(func.count()).select_from(vectors).where(of_items(model_id, space))
        return int(self._database.read(owners)[0][0])

    def _items(self, column: Column[Any], values: Collection[int | str], chosen: Filter = EVERYTHING) -> Iterator[Item]:
        for portion in portions(values):
            yield from map(item_from, self._database.read(ITEMS.where(column.in_(portion), condition(chosen))))

    def _count(self, counted: ColumnElement[int], *conditions: ColumnElement[bool]) -> int:
        return int(self._database.read(_over_items(select(counted).where(*conditions)))[0][0])

    def _names(self, column: Column[Any], chosen: Filter) -> list[tuple[str, int]]:
        named = _over_items(select(column, func.count()).where(column.is_not(None), condition(chosen)))
        return self._database.read(named.group_by(column).order_by(func.count().desc(), column))


def _over_items(asked: Select[*Columns]) -> Select[*Columns]:
    """A statement over all items, with their identities where it names these: joining them costs more than counting."""
    named = any(isinstance(part, Column) and part.table is identities for part in iterate(asked))
    return asked.select_from(LABELLED_ITEMS if named else items)


def _require_expected(found: int, expected: int) -> None:
    if found != expected:
        raise Conflict(f"{found} items pass the filter, not {expected} as expected; nothing was deleted")


def _require_inside(region: Region, medium: Medium) -> None:
    try:
        region.require_inside(medium.width, medium.height)
    except UnusableBox as error:
        raise UnusableBox(f"{medium.source or medium.sha256}: {error}") from None


def _row(columns: tuple[Any, ...]) -> Row:
    number, vector, *known = columns
    return Row(number, np.frombuffer(vector, "<f4"), facts(known))


def _entry(seq: int, kind: str, target: str, told: str | None) -> LogEntry:
    if kind.startswith("item."):
        return LogEntry(seq, kind, frozenset([json.loads(told or "")["number"]]))
    if kind == "identity.items":
        return LogEntry(seq, kind, frozenset(json.loads(told or "")["numbers"]))
    if kind in ("identity.rename", "identity.unmerge"):
        return LogEntry(seq, kind, identity_id=target)
    if kind == "identity.merge":
        return LogEntry(seq, kind, identity_id=json.loads(told or "")["merged_into"])
    if kind == "model.switch":  # before there were spaces, it named none
        return LogEntry(seq, kind, space=json.loads(told or "").get("space", APPEARANCE))
    return LogEntry(seq, kind)


def _operation(row: tuple[Any, ...]) -> Operation:
    seq, time, *words, before, after = row
    states = [None if state is None else json.loads(state) for state in (before, after)]
    return Operation(seq, time_from(time), *words, *states)
