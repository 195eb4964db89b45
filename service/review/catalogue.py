"""The catalogue of a gallery: its identities, with what their photos tell of each."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import exists, func, select

from reid.naming.decisions import Decision as Told
from reid.naming.groups import Groups
from service.fields import Filter, time_from
from service.records import Decision, Item, NotFound
from service.storage.columns import LABELLED_ITEMS, captured, condition, portions
from service.storage.database import Database
from service.storage.decisions import LEVEL, Decisions, reviewer_errors
from service.storage.identities import Identities, Identity, plain_name
from service.storage.membership import connected
from service.storage.store import Store
from service.storage.tables import decisions, identities, items

_DIGITS = re.compile(r"(\d+)")
Sort = Literal["name", "photos", "first_seen", "last_seen", "newest"]
MOST_ITEMS = 1000  # of an identity that are listed


@dataclass(frozen=True)
class Entry:
    """An identity, and what is known of its photos: how many, one for a cover, when and where they were taken."""

    identity: Identity
    photos: int
    cover: str | None = None
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    cameras: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dispute:
    """Items told apart within one identity; without the joins of `weakest`, it falls into `part` and the rest."""

    a: str
    b: str
    identity_id: str
    part: tuple[str, ...]
    weakest: tuple[tuple[str, str], ...]


def natural(name: str) -> tuple[str | int, ...]:
    """By what names are sorted as people do it, N2 before N10: texts and numbers by turns."""
    return tuple(int(part) if place % 2 else part for place, part in enumerate(_DIGITS.split(name)))


class Catalogue:
    """What is to be told of the identities of a gallery, as far as the items that pass a filter tell it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._identities, self._store, self._decisions = Identities(database), Store(database), Decisions(database)

    def page(
        self,
        seen: Filter,
        words: str = "",
        sort: Sort = "name",
        offset: int = 0,
        limit: int = 100,
        *,
        empty: bool = True,
    ) -> tuple[list[Entry], int]:
        """A page of the identities whose name or alias has some words in it, and how many there are in all.

        Those without any item, which is what a corrected label leaves of a name, show only where all items are seen,
        and `empty` ones are wanted.
        """
        rows = [row for row in self._counted(seen) if empty or row.photos]
        wanted = plain_name(words)
        if wanted:
            rows = [row for row in rows if any(wanted in plain_name(one) for one in (row.name, *row.aliases) if one)]
        rows.sort(key=_ORDERS[sort])
        shown = rows[offset : offset + limit]
        return self._entries({row.identity_id: row for row in shown}, seen), len(rows)

    def get(self, identity_id: str, seen: Filter) -> Entry:
        """One identity; raises NotFound, also where none of its items is seen but it has some."""
        identity = self._identities.get(identity_id)
        rows = {row.identity_id: row for row in self._counted(seen, identity.number)}
        if identity.merged_into is None and not rows:
            raise NotFound(f"no identity {identity_id!r}")
        return self._entries({identity_id: rows.get(identity_id)}, seen)[0]

    def items(self, identity_id: str, seen: Filter) -> list[Item]:
        """The first items of an identity, by rising number."""
        theirs = select(items.c.number).select_from(LABELLED_ITEMS)
        theirs = theirs.where(identities.c.identity_id == identity_id, condition(seen)).order_by(items.c.number)
        numbers = [number for (number,) in self._database.read(theirs.limit(MOST_ITEMS))]
        found = self._store.get_many(numbers)
        return [found[number] for number in numbers if number in found]

    def sees_all(self, identity_id: str, seen: Filter) -> bool:
        """Whether every item of an identity passes the filter."""
        of = identities.c.identity_id == identity_id
        counted = select(func.count()).select_from(LABELLED_ITEMS)
        every, passing = (self._database.read(counted.where(of, *more))[0][0] for more in ((), (condition(seen),)))
        return bool(every == passing)

    def decisions(self, item_ids: Collection[str]) -> list[Decision]:
        """All decisions about some items and each other or anybody else."""
        return self._decisions.about(item_ids)

    def disputes(self, identity_id: str | None = None) -> list[Dispute]:
        """Items told apart within one identity, or any, and where it is weakest between them."""
        one, other = items.alias("one"), items.alias("other")
        later = decisions.alias("later")
        told = (
            select(decisions.c.a, decisions.c.b, identities.c.identity_id)
            .join_from(decisions, one, one.c.item_id == decisions.c.a)
            .join(other, other.c.item_id == decisions.c.b)
            .join(identities, identities.c.number == one.c.identity_number)
            .where(decisions.c.answer == "different", one.c.identity_number == other.c.identity_number)
            .where(~exists().where(later.c.supersedes == decisions.c.number))
        )
        if identity_id is not None:
            told = told.where(identities.c.identity_id == identity_id)
        found: dict[tuple[str, str], str] = {(min(a, b), max(a, b)): of for a, b, of in self._database.read(told)}
        by_identity: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for pair, of in sorted(found.items()):
            by_identity[of].append(pair)
        return [dispute for of, pairs in by_identity.items() for dispute in self._split(of, pairs)]

    def _split(self, identity_id: str, pairs: list[tuple[str, str]]) -> list[Dispute]:
        with self._database.reading() as connection:
            errors = reviewer_errors(connection)
            graph = connected(connection, [pairs[0][0]], errors)
        nodes = sorted(graph.nodes)
        place = {item_id: number for number, item_id in enumerate(nodes)}
        groups = Groups(len(nodes), errors)
        for one in graph.held:
            if one.a in place and one.b in place:
                groups.add(Told(place[one.a], place[one.b], one.answer, one.basis, one.actor))
        found = []
        for a, b in pairs:
            if graph.totals.get((a, b), 0.0) < -LEVEL:
                split = groups.split(place[a], place[b])
                part = tuple(nodes[one] for one in split.part)
                weakest = tuple((nodes[one], nodes[other]) for one, other in split.weakest)
                found.append(Dispute(a, b, identity_id, part, weakest))
        return found

    def _counted(self, seen: Filter, number: int | None = None) -> list["_Row"]:
        """The identities that are there, and what is seen of each."""
        columns = (
            identities.c.identity_id,
            identities.c.name,
            identities.c.aliases,
            identities.c.number,
            func.count(items.c.number),
            func.min(items.c.captured_at),
            func.max(items.c.captured_at),
            func.min(items.c.number),
        )
        everything = seen == Filter()
        among = identities.outerjoin(items, items.c.identity_number == identities.c.number)
        told = select(*columns).select_from(among).where(identities.c.merged_into.is_(None))
        if number is not None:
            told = told.where(identities.c.number == number)
        if not everything:
            told = told.where(condition(seen), items.c.number.is_not(None))
        rows = []
        for identity_id, name, aliases, *counted in self._database.read(told.group_by(*columns[:4])):
            rows.append(_Row(identity_id, name, tuple(json.loads(aliases)), *counted))
        return [row for row in rows if row.photos or (row.name is not None and everything)]

    def _entries(self, rows: Mapping[str, "_Row | None"], seen: Filter) -> list[Entry]:
        places: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
        for portion in portions(rows):
            told = select(identities.c.identity_id, items.c.camera, items.c.site).select_from(LABELLED_ITEMS)
            of = identities.c.identity_id.in_(portion)
            for identity_id, camera, site in self._database.read(told.where(of, condition(seen)).distinct()):
                places[identity_id][0].update([camera] if camera is not None else [])
                places[identity_id][1].update([site] if site is not None else [])
        times = self._times(rows, seen)
        covers = self._store.get_many([row.cover for row in rows.values() if row and row.cover is not None])
        entries = []
        for identity_id, row in rows.items():
            identity = self._identities.get(identity_id)
            if row is None:
                entries.append(Entry(identity, 0))
                continue
            cover = covers[row.cover].item_id if row.cover in covers else None
            first, last = (times.get((identity_id, time)) for time in (row.first_seen, row.last_seen))
            cameras, sites = (tuple(sorted(names, key=natural)) for names in places[identity_id])
            entries.append(Entry(identity, row.photos, cover, first, last, cameras, sites))
        return entries

    def _times(self, rows: Mapping[str, "_Row | None"], seen: Filter) -> dict[tuple[str, int | None], datetime | None]:
        """The first and last times of identities on the camera's clock, by their ids and those in microseconds."""
        found: dict[tuple[str, int | None], datetime | None] = {}
        columns = (identities.c.identity_id, items.c.captured_at, items.c.captured_precision)
        for portion in portions(rows):
            ends = {time for one in portion if (row := rows[one]) for time in (row.first_seen, row.last_seen)} - {None}
            told = select(*columns).select_from(LABELLED_ITEMS).where(items.c.captured_at.in_(ends), condition(seen))
            of = identities.c.identity_id.in_(portion)
            for identity_id, time, precision in self._database.read(told.where(of).order_by(items.c.number.desc())):
                found[identity_id, time] = captured(time_from(time), precision or "")[0]
        return found


@dataclass(frozen=True)
class _Row:
    identity_id: str
    name: str | None
    aliases: tuple[str, ...]
    number: int
    photos: int
    first_seen: int | None
    last_seen: int | None
    cover: int | None


_ORDERS: dict[Sort, Any] = {
    "name": lambda row: (row.name is None, natural(plain_name(row.name or "")), row.number),
    "photos": lambda row: (-row.photos, row.number),
    "first_seen": lambda row: (row.first_seen is None, row.first_seen or 0, row.number),
    "last_seen": lambda row: (row.last_seen is None, -(row.last_seen or 0), row.number),
    "newest": lambda row: -row.number,
}
