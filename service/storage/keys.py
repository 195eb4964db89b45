"""Who may use a gallery: keys, of whose secrets it keeps the SHA-256 alone."""

import hashlib
import json
import secrets
import threading
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import insert, select, update

from service.fields import microseconds, time_from
from service.records import ALL_SCOPES, NOBODY, Cause, Key, NewKey, NotFound, Scope
from service.storage.columns import json_text, now
from service.storage.database import Database
from service.storage.tables import keys
from service.storage.transaction import Transaction

REFRESHED = 0.5  # seconds between looks at the keys that other processes made or revoked

_INCLUDED: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "write": ALL_SCOPES - {"admin"},
    "admin": ALL_SCOPES,
}
_KEYS = select(
    keys.c.key_id,
    keys.c.name,
    keys.c.scopes,
    keys.c.cameras,
    keys.c.requests_per_minute,
    keys.c.created_at,
    keys.c.revoked_at,
    keys.c.sha256,
).order_by(keys.c.number)


class AdminKey:
    """The key `admin`, which allows everything and is kept nowhere: all that a service without gallery has."""

    def __init__(self, secret: str | None) -> None:
        """Without `secret` there is no such key."""
        self._sha256 = None if secret is None else _sha256(secret)
        self._key = Key("admin", "admin", ALL_SCOPES, None, None, datetime.now(UTC))

    def find(self, secret: str) -> Key | None:
        """The key of a secret; None for any other."""
        return self._key if _sha256(secret) == self._sha256 else None


class Keys:
    """The keys of a gallery, which threads may share; only one of these may change them at a time.

    A key that one process made or revoked holds in the others within about a second, or when they reach the database
    again. Methods raise OSError and ValueError as `Database` does. The operation log keeps the
    `cause` of every change.
    """

    def __init__(self, database: Database, admin_key: str | None = None) -> None:
        """`admin_key` is the secret of an `AdminKey` beside those stored."""
        self._database = database
        self._changing = threading.Lock()
        self._live: dict[str, Key] = {}  # by the SHA-256 of the secret
        self._admin = AdminKey(admin_key)
        self._refresh()
        threading.Thread(target=_follow, args=(weakref.ref(self), database), name="keys", daemon=True).start()

    def add(self, new: NewKey, cause: Cause = NOBODY) -> tuple[Key, str]:
        """Make a key, and return it with its secret, which nobody can find out later."""
        scopes = frozenset[Scope]().union(*(_INCLUDED[scope] for scope in new.scopes))
        key = Key(uuid4().hex, new.name, scopes, new.cameras, new.requests_per_minute, datetime.now(UTC))
        secret = f"reid_{secrets.token_urlsafe(32)}"
        cameras = None if key.cameras is None else json_text(sorted(key.cameras))
        with self._changing:
            with self._database.transaction() as connection:
                values = {**_as_json(key), "scopes": json_text(sorted(scopes)), "cameras": cameras}
                created_at = microseconds(key.created_at)
                row = insert(keys).values(key_id=key.key_id, sha256=_sha256(secret), created_at=created_at, **values)
                connection.execute(row)
                Transaction(connection, cause).log("key.create", key.key_id, None, _as_json(key))
            self._live[_sha256(secret)] = key
        return key, secret

    def find(self, secret: str) -> Key | None:
        """The key of a secret; None where there is none, or where it was revoked. It does not read the disk."""
        # How long the search takes can tell something of a SHA-256 that is kept, and that is of no use to anyone.
        return self._live.get(_sha256(secret)) or self._admin.find(secret)

    def list(self) -> Sequence[Key]:
        """All keys that were ever made, in that order."""
        return [key for key, _ in self._read()]

    def revoke(self, key_id: str, cause: Cause = NOBODY) -> None:
        """Make a key worthless for good; raises NotFound. One that was revoked before stays as it is."""
        with self._changing:
            with self._database.transaction() as connection:
                found = {row[0]: _key(row) for row in map(tuple, connection.execute(_KEYS))}
                key = found.get(key_id)
                if key is None:
                    raise NotFound(f"no key {key_id!r}")
                if key.revoked_at is None:
                    revoked = update(keys).where(keys.c.key_id == key_id).values(revoked_at=now())
                    connection.execute(revoked)
                    Transaction(connection, cause).log("key.revoke", key_id, _as_json(key), None)
            self._live = {sha256: live for sha256, live in self._live.items() if live.key_id != key_id}

    def _read(self) -> Sequence[tuple[Key, str]]:
        return [(_key(row), row[-1]) for row in self._database.read(_KEYS)]

    def _refresh(self) -> None:
        with self._changing:
            self._live = {sha256: key for key, sha256 in self._read() if key.revoked_at is None}


def _follow(keys: "weakref.ref[Keys]", database: Database) -> None:
    """Look at the keys again and again, beside the event loop that asks for them, until they or the database end."""
    while not database.closed.wait(REFRESHED) and (followed := keys()):
        try:
            followed._refresh()
        except OSError:  # away; whoever needs the database meets that too
            pass
        except Exception:
            if not database.closed.is_set():  # it was closed while this read
                raise
        del followed


def _key(row: tuple[Any, ...]) -> Key:
    key_id, name, scopes, cameras, requests_per_minute, created_at, revoked_at, _ = row
    return Key(
        key_id,
        name,
        frozenset(json.loads(scopes)),
        None if cameras is None else frozenset(json.loads(cameras)),
        requests_per_minute,
        time_from(created_at),
        None if revoked_at is None else time_from(revoked_at),
    )


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _as_json(key: Key) -> dict[str, Any]:
    return {
        "name": key.name,
        "scopes": sorted(key.scopes),
        "cameras": None if key.cameras is None else sorted(key.cameras),
        "requests_per_minute": key.requests_per_minute,
    }
