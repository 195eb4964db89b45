"""The identities of a gallery: whom items show, by a name that is their label, and which can become one."""

import json
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select, update

from service.records import NOBODY, Cause, Conflict, NotFound
from service.storage.columns import json_text
from service.storage.database import Database
from service.storage.tables import identities, items
from service.storage.transaction import Transaction

_INTO = identities.alias("into")
_IDENTITIES = select(
    identities.c.number, identities.c.identity_id, identities.c.name, identities.c.aliases, _INTO.c.identity_id
).outerjoin_from(identities, _INTO, _INTO.c.number == identities.c.merged_into)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom items show; `aliases` are its former names and those of identities that were merged into it.

    One that was merged itself has no name any more, and `merged_into` is the public id of the one that has its items.
    """

    number: int
    identity_id: str
    name: str | None
    aliases: tuple[str, ...]
    merged_into: str | None


class Identities:
    """The identities of a gallery, by their public ids; errors as those of a `Database`.

    What a method did to the labels of items has one entry in the operation log, however many they are. A name that an
    identity no longer has is an alias alone: an item labelled so later belongs to a new identity.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, identity_id: str) -> Identity:
        """One identity, also one that was merged; raises NotFound."""
        for row in self._database.read(_IDENTITIES.where(identities.c.identity_id == identity_id)):
            return _identity(*row)
        raise NotFound(f"no identity {identity_id!r}")

    def rename(self, identity_id: str, name: str, cause: Cause = NOBODY) -> Identity:
        """Give an identity, and so all its items, another name.

        Raises NotFound, and Conflict for a name that another one has and for one that was merged.
        """
        with self._database.transaction() as connection:
            before = self._unmerged(identity_id)
            if name == before.name:
                return before
            taken = select(identities.c.identity_id).where(identities.c.name == name)
            if (holder := connection.execute(taken).scalar()) is not None:
                raise Conflict(f"name {name!r} belongs to identity {holder}: merge {identity_id} into that instead")
            aliases = _joined(before.aliases, (before.name,), without=name)
            after = replace(before, name=name, aliases=aliases)
            _write(connection, after)
            Transaction(connection, cause).log("identity.rename", identity_id, _as_json(before), _as_json(after))
            return after

    def merge(self, identity_id: str, into: str, cause: Cause = NOBODY) -> Identity:
        """Give all items of one identity to another, which is returned; the former's names become aliases of it.

        The log keeps the numbers of the items. Raises NotFound, and Conflict for one that was merged, or the same one.
        """
        with self._database.transaction() as connection:
            merged, kept = self._unmerged(identity_id), self._unmerged(into)
            if merged == kept:
                raise Conflict(f"identity {identity_id} cannot be merged into itself")
            of_merged = items.c.identity_number == merged.number
            moved = connection.execute(select(items.c.number).where(of_merged).order_by(items.c.number)).scalars().all()
            connection.execute(update(items).where(of_merged).values(identity_number=kept.number))
            gone = {"name": None, "state": "merged", "merged_into": kept.number}
            formerly = (identities.c.number == merged.number) | (identities.c.merged_into == merged.number)
            connection.execute(update(identities).where(formerly).values(gone))
            kept = replace(kept, aliases=_joined(kept.aliases, (merged.name, *merged.aliases), without=kept.name))
            _write(connection, kept)
            before = {**_as_json(merged), "items": list(moved)}
            Transaction(connection, cause).log("identity.merge", identity_id, before, {"merged_into": into})
            return kept

    def _unmerged(self, identity_id: str) -> Identity:
        identity = self.get(identity_id)
        if identity.merged_into is not None:
            raise Conflict(f"identity {identity_id} was merged into {identity.merged_into}")
        return identity


def _identity(number: int, identity_id: str, name: str | None, aliases: str, merged_into: str | None) -> Identity:
    return Identity(number, identity_id, name, tuple(json.loads(aliases)), merged_into)


def _write(connection: Connection, identity: Identity) -> None:
    values = {"name": identity.name, "aliases": json_text(identity.aliases)}
    connection.execute(update(identities).where(identities.c.number == identity.number).values(values))


def _joined(aliases: tuple[str, ...], more: tuple[str | None, ...], without: str | None) -> tuple[str, ...]:
    """All of them once, in their order."""
    return tuple(name for name in dict.fromkeys((*aliases, *more)) if name is not None and name != without)


def _as_json(identity: Identity) -> dict[str, object]:
    return {"name": identity.name, "aliases": identity.aliases}
