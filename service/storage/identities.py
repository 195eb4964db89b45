"""The identities of a gallery: whom items show, by a name that is their label, and which can become one."""

import json
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, insert, select, update

from service.records import NOBODY, Cause, Conflict, NotFound, require_name
from service.storage.columns import json_text, portions
from service.storage.database import Database
from service.storage.decisions import Held, NewDecision, Pair
from service.storage.membership import Settled, joined_names
from service.storage.tables import decisions, identities, items, operations
from service.storage.transaction import Transaction

_INTO = identities.alias("into")
_IDENTITIES = select(
    identities.c.number,
    identities.c.identity_id,
    identities.c.name,
    identities.c.aliases,
    _INTO.c.identity_id,
    identities.c.anchor,
    identities.c.notes,
    identities.c.attributes,
).outerjoin_from(identities, _INTO, _INTO.c.number == identities.c.merged_into)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom items show; `aliases` are its former names and those of identities that were merged into it.

    One that was merged itself has no name any more, and `merged_into` is the public id of the one that has its items.
    `anchor` is the public id of an item: those in one group with it show the identity.
    """

    number: int
    identity_id: str
    name: str | None
    aliases: tuple[str, ...]
    merged_into: str | None
    anchor: str | None = None
    notes: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Change(NamedTuple):
    """What one step did, or would do: the decisions it made, whom items show by it, and conflicts that it leaves.

    `batch_id` undoes it. `identity_id` is the identity that it was about.
    """

    batch_id: str
    identity_id: str | None
    decision_ids: tuple[str, ...]
    moved: Mapping[tuple[str | None, str | None], Sequence[str]]  # items by their former identity and the new one
    conflicts: Sequence[Pair]


class _Preview(Exception):
    """Nothing shall stay of what a transaction did."""


class Identities:
    """The identities of a gallery, by their public ids; errors as those of a `Database`.

    What a method did to the labels of items has one entry in the operation log, however many they are. A name that an
    identity no longer has is an alias alone: an item labelled so later belongs to a new identity. With `dry_run`
    methods tell what they would do, and do nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, identity_id: str) -> Identity:
        """One identity, also one that was merged; raises NotFound."""
        for row in self._database.read(_IDENTITIES.where(identities.c.identity_id == identity_id)):
            return _identity(*row)
        raise NotFound(f"no identity {identity_id!r}")

    def similar(self, name: str) -> list[tuple[str, str]]:
        """The ids and names of identities whose name differs from this one by Unicode form, case or spaces alone."""
        named = select(identities.c.identity_id, identities.c.name).where(identities.c.name.is_not(None))
        plain = plain_name(name)
        return sorted(
            (one, other) for one, other in self._database.read(named) if other != name and plain_name(other) == plain
        )

    def merged_into(self, identity_id: str) -> list[tuple[str, str | None]]:
        """The ids of the identities that were merged into one, and the names that they had then."""
        merged = select(identities.c.identity_id).join(_INTO, _INTO.c.number == identities.c.merged_into)
        merged = merged.where(_INTO.c.identity_id == identity_id).order_by(identities.c.number)
        names: dict[str, str | None] = {one: None for (one,) in self._database.read(merged)}
        for portion in portions(names):
            told = select(operations.c.target, operations.c.before).where(operations.c.kind == "identity.merge")
            told = told.where(operations.c.target.in_(portion)).order_by(operations.c.seq)
            for one, before in self._database.read(told):
                names[one] = json.loads(before)["name"] or names[one]
        return list(names.items())

    def create(
        self, name: str | None, item_ids: Collection[str] = (), cause: Cause = NOBODY, dry_run: bool = False
    ) -> Change:
        """Make an identity, which some items show from then on; raises NotFound for an item and Conflict for a name."""

        def work(transaction: Transaction) -> tuple[str, Sequence[NewDecision], Collection[str], int | None]:
            identity_id = uuid4().hex
            self._require_free(transaction.connection, name, identity_id)
            there = _require_items(transaction.connection, item_ids)
            row = {"identity_id": identity_id, "name": name, "aliases": "[]", "attributes": "{}", "state": "active"}
            connection = transaction.connection
            connection.execute(insert(identities).values(row))
            transaction.log("identity.create", identity_id, None, {"name": name})
            number = _number(connection, identity_id)
            new = _joins(transaction, number, there)
            return identity_id, new, item_ids, number

        return self._step(work, cause, dry_run)

    def rename(self, identity_id: str, name: str, cause: Cause = NOBODY) -> Identity:
        """Give an identity, and so all its items, another name.

        Raises NotFound, and Conflict for a name that another one has and for one that was merged.
        """
        return self.edit(identity_id, {"name": name}, cause)

    def edit(self, identity_id: str, changes: Mapping[str, Any], cause: Cause = NOBODY) -> Identity:
        """Change some of an identity's `name`, `aliases`, `notes` and `attributes`; raises as `rename`."""
        with self._database.transaction() as connection:
            before = self._unmerged(identity_id)
            after = replace(before, **changes)
            if after.name != before.name:
                self._require_free(connection, after.name, identity_id)
                after = replace(after, aliases=joined_names(after.aliases, (before.name,), without=after.name))
            if after == before:
                return before
            for alias in set(after.aliases) - {*before.aliases, before.name}:
                require_name("alias", alias)
            written = {"name": after.name, "aliases": json_text(after.aliases), "notes": after.notes}
            values = {**written, "attributes": json_text(dict(after.attributes))}
            connection.execute(update(identities).where(identities.c.number == before.number).values(values))
            kind = "identity.rename" if after.name != before.name else "identity.edit"
            Transaction(connection, cause).log(kind, identity_id, _as_json(before), _as_json(after))
            return after

    def merge(self, identity_id: str, into: str, cause: Cause = NOBODY) -> Identity:
        """Give all items of one identity to another, which is returned; the former's names become aliases of it.

        The log keeps the numbers of the items. Raises NotFound, and Conflict for one that was merged, or the same one.
        """
        self.merge_step(identity_id, into, cause)
        return self.get(into)

    def merge_step(self, identity_id: str, into: str, cause: Cause = NOBODY, dry_run: bool = False) -> Change:
        """Merge as `merge` does, and tell what became of the items."""

        def work(transaction: Transaction) -> tuple[str, Sequence[NewDecision], Collection[str], int | None]:
            merged, kept = self._unmerged(identity_id), self._unmerged(into)
            if merged == kept:
                raise Conflict(f"identity {identity_id} cannot be merged into itself")
            if merged.anchor is None:
                _merge_empty(transaction, merged, kept)
                return into, [], [], None
            new = _joins(transaction, kept.number, [merged.anchor])
            return into, new, [merged.anchor], kept.number

        return self._step(work, cause, dry_run)

    def unmerge(self, identity_id: str, cause: Cause = NOBODY, dry_run: bool = False) -> Change:
        """Give a merged identity back the items that it had then; raises NotFound, and Conflict for one not merged."""

        def work(transaction: Transaction) -> tuple[str, Sequence[NewDecision], Collection[str], int | None]:
            identity = self.get(identity_id)
            if identity.merged_into is None:
                raise Conflict(f"identity {identity_id} is not merged into another")
            connection, kept = transaction.connection, self.get(identity.merged_into)
            told = select(operations.c.before).where(operations.c.kind == "identity.merge")
            told = told.where(operations.c.target == identity_id).order_by(operations.c.seq.desc()).limit(1)
            # Where the log did not come along with the rest, the anchor alone leaves.
            before = connection.execute(told).scalar()
            numbers = [] if before is None else json.loads(before)["items"]
            left = select(items.c.item_id).where(items.c.number.in_(numbers), items.c.identity_number == kept.number)
            leaving = set(connection.execute(left).scalars()) | ({identity.anchor} if identity.anchor else set())
            if identity.anchor is None:
                _revive_empty(transaction, identity)
                return identity_id, [], [], None
            new = transaction.deciding.part(leaving, kept.number, "withdrawn")
            return identity_id, new, leaving, None

        return self._step(work, cause, dry_run)

    def split(
        self,
        identity_id: str,
        item_ids: Collection[str],
        name: str | None = None,
        cause: Cause = NOBODY,
        dry_run: bool = False,
    ) -> Change:
        """Make another identity of some items of one; the rest keeps the identity and stays together.

        Raises NotFound for an item that the identity does not have, and Conflict where all of its items would leave it,
        and for a name that another has.
        """

        def work(transaction: Transaction) -> tuple[str, Sequence[NewDecision], Collection[str], int | None]:
            connection, identity = transaction.connection, self._unmerged(identity_id)
            if name is not None and name == identity.name:
                raise Conflict(
                    f"name {name!r} is what identity {identity_id} keeps; expected another for what leaves it"
                )
            self._require_free(connection, name, identity_id)
            theirs = select(items.c.item_id).where(items.c.identity_number == identity.number)
            there = set(connection.execute(theirs).scalars())
            if strange := sorted(set(item_ids) - there):
                raise NotFound(f"no item {strange[0]!r} of identity {identity_id}")
            if there == set(item_ids):
                raise Conflict(
                    f"all {len(there)} items of identity {identity_id} would leave it; expected some to stay"
                )
            new = transaction.deciding.part(item_ids, identity.number)
            row = {"identity_id": uuid4().hex, "name": name, "aliases": "[]", "attributes": "{}", "state": "active"}
            if name is None and len(item_ids) == 1:
                return identity_id, new, item_ids, None
            connection.execute(insert(identities).values(**row, anchor=min(item_ids)))
            transaction.log("identity.create", str(row["identity_id"]), None, {"name": name})
            return str(row["identity_id"]), new, item_ids, None

        return self._step(work, cause, dry_run)

    def decide(
        self,
        new: Sequence[NewDecision],
        cause: Cause = NOBODY,
        source: str = "human",
        batch_id: str | None = None,
        dry_run: bool = False,
    ) -> Change:
        """Append decisions, all in one step, which has the id `batch_id` if one is given."""

        def work(transaction: Transaction) -> tuple[None, Sequence[NewDecision], Collection[str], None]:
            return None, new, [], None

        return self._step(work, cause, dry_run, source, batch_id)

    def undo(self, batch_id: str, cause: Cause = NOBODY, dry_run: bool = False) -> Change:
        """Take back all that one step decided, in one step; raises NotFound, and Conflict where it is taken back."""

        def work(transaction: Transaction) -> tuple[None, Sequence[NewDecision], Collection[str], None]:
            connection = transaction.connection
            brief = select(*(decisions.c[name] for name in Held._fields), decisions.c.supersedes)
            rows = connection.execute(brief.where(decisions.c.batch_id == batch_id).order_by(decisions.c.number)).all()
            anchors = _take_back_created(transaction, batch_id)
            if not rows and not anchors:
                raise NotFound(f"no step {batch_id!r} of decisions")
            batch = [Held(*row[:-1]) for row in rows]
            numbers = [one.number for one in batch]
            later = select(decisions.c.supersedes).where(decisions.c.supersedes.in_(numbers))
            gone = set(connection.execute(later).scalars()) - {row[-1] for row in rows}
            if gone:
                raise Conflict(f"step {batch_id} is taken back already, or {len(gone)} of its decisions are")
            supersedes = {one.number: row[-1] for one, row in zip(batch, rows, strict=True)}
            return None, transaction.deciding.undo(batch, supersedes), anchors, None

        return self._step(work, cause, dry_run)

    def _step(
        self,
        work: Callable[[Transaction], tuple[str | None, Sequence[NewDecision], Collection[str], int | None]],
        cause: Cause,
        dry_run: bool,
        source: str = "human",
        batch_id: str | None = None,
    ) -> Change:
        changes: list[Change] = []
        with suppress(_Preview), self._database.transaction() as connection:
            transaction = Transaction(connection, cause, batch_id)
            identity_id, new, touched, prefer = work(transaction)
            ids, settled = transaction.deciding.decide(new, source, prefer, touched)
            moved = _public(connection, settled)
            changes.append(Change(transaction.batch_id, identity_id, tuple(ids), moved, settled.conflicts))
            if dry_run:
                raise _Preview
        return changes[0]

    def step(self, batch_id: str) -> Change | None:
        """What is left to tell of a step that was done; None where there is none."""
        told = select(decisions.c.decision_id).where(decisions.c.batch_id == batch_id).order_by(decisions.c.number)
        ids = tuple(decision_id for (decision_id,) in self._database.read(told))
        return Change(batch_id, None, ids, {}, ()) if ids else None

    def _require_free(self, connection: Connection, name: str | None, identity_id: str) -> None:
        if name is not None:
            require_name("name", name)
        taken = select(identities.c.identity_id).where(identities.c.name == name)
        if name is not None and (holder := connection.execute(taken).scalar()) is not None:
            raise Conflict(f"name {name!r} belongs to identity {holder}: merge {identity_id} into that instead")

    def _unmerged(self, identity_id: str) -> Identity:
        identity = self.get(identity_id)
        if identity.merged_into is not None:
            raise Conflict(f"identity {identity_id} was merged into {identity.merged_into}")
        return identity


def plain_name(name: str) -> str:
    """A name without what tells apart spellings of one: Unicode form, case and spaces."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def _joins(transaction: Transaction, identity: int, item_ids: Sequence[str]) -> list[NewDecision]:
    return [one for item_id in item_ids for one in transaction.deciding.joining(item_id, identity, "visual")]


def _require_items(connection: Connection, item_ids: Collection[str]) -> list[str]:
    """These items by rising number; raises NotFound, and Conflict for one that shows somebody with a name."""
    there = select(items.c.item_id, identities.c.name, identities.c.identity_id).outerjoin_from(items, identities)
    found = connection.execute(there.where(items.c.item_id.in_(item_ids)).order_by(items.c.number)).all()
    if missing := sorted(set(item_ids) - {item_id for item_id, _, _ in found}):
        raise NotFound(f"no item {missing[0]!r}")
    for item_id, name, identity_id in found:
        if name is not None:
            raise Conflict(f"item {item_id} shows {name!r}: split it off identity {identity_id} first, or merge")
    return [item_id for item_id, _, _ in found]


def _number(connection: Connection, identity_id: str) -> int:
    found = select(identities.c.number).where(identities.c.identity_id == identity_id)
    return int(connection.execute(found).scalar_one())


def _merge_empty(transaction: Transaction, merged: Identity, kept: Identity) -> None:
    """Merge an identity that no item shows."""
    connection = transaction.connection
    gone = {"name": None, "state": "merged", "merged_into": kept.number}
    formerly = (identities.c.number == merged.number) | (identities.c.merged_into == merged.number)
    connection.execute(update(identities).where(formerly).values(gone))
    aliases = joined_names(kept.aliases, (merged.name, *merged.aliases), without=kept.name)
    written = update(identities).where(identities.c.number == kept.number)
    connection.execute(written.values(aliases=json_text(aliases)))
    before = {**_as_json(merged), "items": []}
    transaction.log("identity.merge", merged.identity_id, before, {"merged_into": kept.identity_id})


def _revive_empty(transaction: Transaction, identity: Identity) -> None:
    """Let an identity without any item be by itself again, without the name that it had."""
    back = {"state": "active", "merged_into": None}
    transaction.connection.execute(update(identities).where(identities.c.number == identity.number).values(back))
    transaction.log("identity.unmerge", identity.identity_id, None, {"name": None})


def _take_back_created(transaction: Transaction, batch_id: str) -> set[str]:
    """Let identities that a step made go, but for those that were named since; returns items that showed them."""
    connection = transaction.connection
    told = select(operations.c.target, operations.c.after)
    told = told.where(operations.c.batch_id == batch_id, operations.c.kind == "identity.create")
    anchors: set[str] = set()
    for identity_id, after in connection.execute(told):
        found = connection.execute(_IDENTITIES.where(identities.c.identity_id == identity_id)).one()
        identity = _identity(*found)
        if identity.name == json.loads(after)["name"] and identity.merged_into is None:
            gone = update(identities).where(identities.c.number == identity.number)
            connection.execute(gone.values(name=None, anchor=None, state="gone"))
            transaction.log("identity.delete", identity_id, _as_json(identity), None)
            anchors |= {identity.anchor} if identity.anchor is not None else set()
    return anchors


def _public(connection: Connection, settled: Settled) -> dict[tuple[str | None, str | None], list[str]]:
    ids: dict[int, str] = {}
    numbers = [number for one in settled.moved.values() for number in one]
    for start in range(0, len(numbers), 10_000):
        some = select(items.c.number, items.c.item_id).where(items.c.number.in_(numbers[start : start + 10_000]))
        ids |= {number: item_id for number, item_id in connection.execute(some)}
    return {pair: [ids[number] for number in numbers] for pair, numbers in settled.moved.items()}


def _identity(
    number: int,
    identity_id: str,
    name: str | None,
    aliases: str,
    merged_into: str | None,
    anchor: str | None,
    notes: str,
    attributes: str,
) -> Identity:
    told = json.loads(attributes)
    return Identity(number, identity_id, name, tuple(json.loads(aliases)), merged_into, anchor, notes, told)


def _as_json(identity: Identity) -> dict[str, object]:
    told: dict[str, object] = {"name": identity.name, "aliases": identity.aliases}
    if identity.notes:
        told["notes"] = identity.notes
    if identity.attributes:
        told["attributes"] = dict(identity.attributes)
    return told
