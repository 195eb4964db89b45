"""Whom items show, as follows from the decisions: groups of items that belong together, and the identity of each.

A group is what decisions connect, and the identity whose anchor is in it is that of its items. Where several are, the
one with a name stands before one without, and the older before the younger; the others count as merged into it, and
come back when their anchor falls into a group of its own. The column that items have of it is a view: brought up to
date wherever decisions touch it, and equal to what `reid.naming.groups` finds from scratch.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert, select, update

from service.storage.columns import json_text, portions
from service.storage.decisions import LEVEL, Held, Pair, held_about, totals
from service.storage.tables import identities, items, operations

Log = Callable[[str, str, dict[str, Any] | None, dict[str, Any] | None], None]  # kind, target, before, after


@dataclass
class Settled:
    """What became of items: numbers by their former and new identity (ids), and conflicts that there are now."""

    moved: dict[tuple[str | None, str | None], list[int]]
    conflicts: list[Pair]


@dataclass(frozen=True)
class _Row:
    number: int
    identity_id: str
    name: str | None
    aliases: tuple[str, ...]
    merged_into: int | None
    anchor: str | None


@dataclass(frozen=True)
class Graph:
    """Items that decisions connect, directly or by others, and what those say of each pair: log odds for `same`."""

    nodes: frozenset[str]
    held: tuple[Held, ...]
    totals: Mapping[Pair, float]

    def groups(self, without: Collection[str] = ()) -> list[set[str]]:
        """The groups of the nodes, or of those that are left without some of them."""
        gone = set(without)
        joined: dict[str, list[str]] = defaultdict(list)
        for (a, b), total in self.totals.items():
            if total > LEVEL and not {a, b} & gone:
                joined[a].append(b)
                joined[b].append(a)
        groups, seen = [], set(gone)
        for start in sorted(self.nodes):
            if start in seen:
                continue
            group, waiting = {start}, [start]
            while waiting:
                for other in joined[waiting.pop()]:
                    if other not in group:
                        group.add(other)
                        waiting.append(other)
            seen |= group
            groups.append(group)
        return groups


def connected(connection: Connection, starts: Collection[str], errors: Mapping[str, float]) -> Graph:
    """All that decisions which hold connect to some items."""
    held: dict[int, Held] = {}
    nodes: set[str] = set()
    frontier = set(starts)
    while frontier:
        nodes |= frontier
        found = held_about(connection, frontier)
        held |= {one.number: one for one in found}
        said = totals(found, errors)
        frontier = {end for pair, total in said.items() if total > LEVEL for end in pair} - nodes
    ordered = tuple(held[number] for number in sorted(held))
    return Graph(frozenset(nodes), ordered, totals(ordered, errors))


def settle(
    connection: Connection,
    log: Log,
    touched: Collection[str],
    errors: Mapping[str, float],
    source: str,
    prefer: int | None = None,
    logged: Collection[int] = (),
) -> Settled:
    """Bring identities and the items' view of them up to date where decisions touched some items.

    Items that get another identity have it from `source`. Of the identities in one group that of the number `prefer`
    keeps the items. The changes of items are logged, but for the `logged`, by number, whose caller does.
    """
    graph = connected(connection, touched, errors)
    groups = graph.groups()
    live, anchored = _live(connection, graph.nodes), _anchored(connection, graph.nodes)
    naming = _Naming(connection, log, prefer)
    moved: dict[tuple[int | None, int | None], list[int]] = defaultdict(list)
    for group in groups:
        here = {item_id: live[item_id] for item_id in group if item_id in live}
        rows = [row for item_id in sorted(group) for row in anchored.get(item_id, ())]
        identity = naming.identity(group, here, rows)
        for number, former in here.values():
            if former != identity:
                moved[former, identity].append(number)
    ids = _ids(connection, {identity for pair in moved for identity in pair if identity is not None})
    settled = Settled({}, _conflicts(graph, groups))
    for (former, identity), numbers in moved.items():
        ends = [None if one is None else ids[one] for one in (former, identity)]
        settled.moved[ends[0], ends[1]] = sorted(numbers)
        values: dict[str, Any] = {"identity_number": identity}
        if (former, identity) not in naming.merges:
            values["identity_source"] = None if identity is None else source
        for portion in portions(numbers):
            connection.execute(update(items).where(items.c.number.in_(portion)).values(values))
        told = sorted(set(numbers) - set(logged))
        if told and (former, identity) not in naming.merges:  # whose entry in the log stands for these
            before, after = ({"identity_id": one, "numbers": told} for one in ends)
            log("identity.items", ends[1] or ends[0] or "", before, after)
    return settled


def _conflicts(graph: Graph, groups: Iterable[Collection[str]]) -> list[Pair]:
    """Items of one group that were told apart."""
    place = {item_id: number for number, group in enumerate(groups) for item_id in group}
    apart = (pair for pair, total in graph.totals.items() if total < -LEVEL and set(pair) <= graph.nodes)
    return sorted(pair for pair in apart if place[pair[0]] == place[pair[1]])


class _Naming:
    """Finds the identity of a group: others are merged into it, and one that was merged before comes back."""

    def __init__(self, connection: Connection, log: Log, prefer: int | None) -> None:
        self._connection, self._log, self._prefer = connection, log, prefer
        self.merges: set[tuple[int | None, int | None]] = set()

    def identity(
        self, group: Collection[str], live: Mapping[str, tuple[int, int | None]], rows: Iterable[_Row]
    ) -> int | None:
        """The number of the identity of a group, of which some items are there and these identities have anchors."""
        ordered = sorted(rows, key=lambda row: (row.number != self._prefer, row.name is None, row.number))
        numbers = {row.number for row in ordered}
        # One that was merged into another of the group stays so.
        kept = next((row for row in ordered if row.merged_into not in numbers), None)
        if kept is None:
            return self._create(min(live, key=lambda one: live[one])) if live and len(group) > 1 else None
        if kept.merged_into is not None:
            kept = self._revive(kept)
        for row in ordered:
            if row.number != kept.number and row.merged_into != kept.number:
                kept = self._merge(row, kept)
        if kept.name is None and len(group) < 2 and not self._described(kept.number):
            return None
        return kept.number

    def _create(self, anchor: str) -> int:
        identity_id = uuid4().hex
        values = {"identity_id": identity_id, "aliases": "[]", "attributes": "{}", "state": "active", "anchor": anchor}
        self._connection.execute(insert(identities).values(values))
        self._log("identity.create", identity_id, None, {"name": None, "anchor": anchor})
        return _rows(self._connection, identities.c.identity_id, [identity_id])[0].number

    def _merge(self, row: _Row, into: _Row) -> _Row:
        """Merge an identity into another, which gets its names as aliases; those merged into the former follow."""
        if row.merged_into is None:
            moved = select(items.c.number).where(items.c.identity_number == row.number).order_by(items.c.number)
            numbers = list(self._connection.execute(moved).scalars())
            before = {"name": row.name, "aliases": row.aliases, "items": numbers}
            self._log("identity.merge", row.identity_id, before, {"merged_into": into.identity_id})
            self.merges.add((row.number, into.number))
        formerly = (identities.c.number == row.number) | (identities.c.merged_into == row.number)
        gone = {"name": None, "state": "merged", "merged_into": into.number}
        self._connection.execute(update(identities).where(formerly, identities.c.number != into.number).values(gone))
        aliases = joined_names(into.aliases, (row.name, *row.aliases), without=into.name)
        return self._write(into.number, aliases=json_text(aliases))

    def _revive(self, row: _Row) -> _Row:
        """Give a merged identity back what it was called, as far as nobody is called so by now."""
        told = select(operations.c.before).where(operations.c.kind == "identity.merge")
        told = told.where(operations.c.target == row.identity_id).order_by(operations.c.seq.desc()).limit(1)
        before = self._connection.execute(told).scalar()
        was = {"name": None, "aliases": []} if before is None else json.loads(before)
        taken = select(identities.c.number).where(identities.c.name == was["name"])
        free = was["name"] is not None and self._connection.execute(taken).scalar() is None
        name = was["name"] if free else None
        aliases = joined_names(tuple(was["aliases"]), (was["name"],), without=name)
        for other in _rows(self._connection, identities.c.number, [row.merged_into]):
            left = [alias for alias in other.aliases if alias not in (was["name"], *was["aliases"])]
            self._write(other.number, aliases=json_text(left))
        self._log("identity.unmerge", row.identity_id, None, {"name": name, "aliases": aliases})
        return self._write(row.number, name=name, aliases=json_text(aliases), state="active", merged_into=None)

    def _write(self, number: int, **values: Any) -> _Row:
        self._connection.execute(update(identities).where(identities.c.number == number).values(values))
        return _rows(self._connection, identities.c.number, [number])[0]

    def _described(self, number: int) -> bool:
        """Whether people said something of an identity that has no name."""
        told = select(identities.c.notes, identities.c.attributes).where(identities.c.number == number)
        return tuple(self._connection.execute(told).one()) != ("", "{}")


def joined_names(aliases: tuple[str, ...], more: tuple[str | None, ...], without: str | None) -> tuple[str, ...]:
    """All of them once, in their order."""
    return tuple(name for name in dict.fromkeys((*aliases, *more)) if name is not None and name != without)


def _live(connection: Connection, item_ids: Collection[str]) -> dict[str, tuple[int, int | None]]:
    """The numbers of the items that are there, and of their identities."""
    found: dict[str, tuple[int, int | None]] = {}
    for portion in portions(item_ids):
        there = select(items.c.item_id, items.c.number, items.c.identity_number).where(items.c.item_id.in_(portion))
        found |= {item_id: (number, identity) for item_id, number, identity in connection.execute(there)}
    return found


def _anchored(connection: Connection, item_ids: Collection[str]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = defaultdict(list)
    for row in _rows(connection, identities.c.anchor, item_ids):
        assert row.anchor is not None
        found[row.anchor].append(row)
    return found


def _rows(connection: Connection, column: Any, values: Collection[Any]) -> list[_Row]:
    found: list[_Row] = []
    told = select(
        identities.c.number,
        identities.c.identity_id,
        identities.c.name,
        identities.c.aliases,
        identities.c.merged_into,
        identities.c.anchor,
    )
    for portion in portions(values):
        for number, identity_id, name, aliases, merged_into, anchor in connection.execute(
            told.where(column.in_(portion))
        ):
            found.append(_Row(number, identity_id, name, tuple(json.loads(aliases)), merged_into, anchor))
    return found


def _ids(connection: Connection, numbers: Collection[int]) -> dict[int, str]:
    return {row.number: row.identity_id for row in _rows(connection, identities.c.number, numbers)}
