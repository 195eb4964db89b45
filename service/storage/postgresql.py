"""A gallery's tables on a PostgreSQL server, which several processes share."""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, func, insert, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.records import UnusableText
from service.storage import sqlite
from service.storage.copying import last_numbers, read_rows, set_last_numbers
from service.storage.folder import as_its_folder, make_folder
from service.storage.inspection import CROSS_CHECKS, DamagedDatabase
from service.storage.migrations.postgresql import is_newest, migrate
from service.storage.tables import gallery

ID_FILE = "gallery.id"  # tells whose pictures a folder holds
WAIT = 60  # seconds for a lock

# Nothing waits for ever, neither for a server that does not answer nor for another process.
_CLIENT = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "application_name": "dcal-reid",
}
_SESSION = {
    "synchronous_commit": "on",  # what was acknowledged is on the disk
    "lock_timeout": f"{WAIT}s",
    "statement_timeout": "300s",
    # The server frees the locks of a process that stands still, or whose machine is gone.
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "idle_session_timeout": "0",  # a lock by name lasts as long as its session
}

# Classes of SQLSTATE that say that the server cannot do it now, or not for us.
_UNUSABLE = {"08", "25", "28", "3D", "3F", "53", "55", "57", "58"}
_FORBIDDEN = "42501"
_TOO_LONG = "54000"  # for an index
_DAMAGED = {"XX001", "XX002"}

_DURABLE = {"on", "local", "remote_write", "remote_apply"}


class Postgresql:
    """The tables on a server, and the folder that the processes see beside it."""

    def __init__(self, folder: Path, url: str) -> None:
        address = _address(url)
        self.name = URL.create(
            "postgresql", address.username, None, address.host, address.port, address.database
        ).render_as_string()
        self._folder = folder
        self._writer = _engine(address, "off", isolation_level="READ COMMITTED", pool_size=2, max_overflow=-1)
        self._reader = _engine(address, "on", isolation_level="AUTOCOMMIT", pool_size=8, max_overflow=8)

    def open(self) -> None:
        """Make the tables or bring them to the newest version, and see that tables and folder belong together."""
        with self.reading() as connection:
            self._require_safety(connection)
            newest = is_newest(connection, self.name)
        if not newest:
            with self.writing() as connection:  # and there once more: another process may have been at it meanwhile
                migrate(connection, self.name)
        with self.reading() as connection:
            gallery_id = connection.execute(select(gallery.c.gallery_id)).scalar_one()
        with self.alone("folder", WAIT):
            self._mark(gallery_id)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees what is committed."""
        with self._reader.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction, the only one that writes.

        Its lock is held until what it wrote can be seen. So each writer sees what all before it wrote, and what it
        looked up stays true until its end, as in SQLite. And the numbers that it draws from a sequence, such as the
        `seq` of an operation, rise in the order in which they can be seen: without, an entry could appear behind a
        later one, where those who follow the log have looked already.
        """
        with self._writer.connect() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_lock_number("writing"))))
            yield connection
            try:
                connection.commit()
            except DBAPIError as error:
                raise OSError(
                    f"{self.name}: lost while a change was committed ({_reason(error)}); it may have been made or not, "
                    "and asking for it again is safe"
                ) from error

    @contextmanager
    def alone(self, name: str, wait: float) -> Iterator[None]:
        """Hold a lock by name until the end, or the death of this process."""
        number = _lock_number(name)
        with self._writer.connect() as connection:
            try:
                connection.execute(text(f"SET LOCAL lock_timeout = {max(1, round(1000 * wait))}"))  # 0 is for ever
                connection.execute(select(func.pg_advisory_lock(number)))
                connection.commit()
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) == "55P03":
                    raise TimeoutError(
                        f"{self.name}: waited {wait:g} s for {name}, which another process holds"
                    ) from error
                raise
            try:
                yield
            except BaseException:
                connection.invalidate()  # with the connection ends the lock
                raise
            try:
                connection.execute(select(func.pg_advisory_unlock(number)))
                connection.commit()
            except DBAPIError as error:
                raise OSError(f"{self.name}: lost while {name} was held ({_reason(error)})") from error

    def copy(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Write all there is at this moment to a new SQLite file, which is a gallery of its own with another id."""
        held = self._reader.execution_options(isolation_level="REPEATABLE READ")
        with sqlite.named_errors(path), sqlite.open_file(path) as target, held.connect() as source:
            target.exec_driver_sql("PRAGMA foreign_keys = OFF")  # the rows of a table come in any order
            target.commit()
            for table, rows in read_rows(source, progress):
                with target.begin():
                    target.execute(insert(table), rows)
            with target.begin():
                set_last_numbers(target, last_numbers(source))

    def scrub(self) -> None:
        """What the server keeps of deleted rows goes with its own vacuum."""

    def complaints(self, stop: Event) -> list[str]:
        """What is wrong with the tables, each against the next; pages are the server's business."""
        found = []
        for meaning, counted in CROSS_CHECKS.items():
            with self.reading() as connection:
                number = 0 if stop.is_set() else connection.execute(text(counted)).scalar_one()
            found += [f"{number} {meaning}"] if number else []
        return found

    def named(self, error: Exception) -> Exception | None:
        """What an error means for the user, on one line; None where it is an error of the program."""
        if isinstance(error, PoolTimeout):
            return OSError(f"{self.name}: more readers than connections; nothing was read")
        if not isinstance(error, DBAPIError):
            return None
        state = getattr(error.orig, "sqlstate", None)
        if state in _DAMAGED:
            found = _reason(error)
            return DamagedDatabase(f"{self.name}: damaged ({found})", found)
        if state == _TOO_LONG:
            return UnusableText(f"a text is too long for an index of PostgreSQL ({_reason(error)})")
        if isinstance(error, DataError) and (wrong := _with_nul(error.params)):
            return UnusableText(f"{wrong!r}: PostgreSQL cannot keep text with a NUL in it")
        lost = state is None and isinstance(error, OperationalError | InterfaceError)
        if lost or (state or "")[:2] in _UNUSABLE or state == _FORBIDDEN:
            return OSError(f"{self.name}: cannot be read or written ({_reason(error)}); nothing was changed")
        return None

    def close(self) -> None:
        """Let go of the server."""
        self._writer.dispose()
        self._reader.dispose()

    def _require_safety(self, connection: Connection) -> None:
        """Raise ValueError for a server that may lose what it acknowledged, or that cannot hold every text."""
        for name, expected in (("fsync", {"on"}), ("synchronous_commit", _DURABLE), ("server_encoding", {"UTF8"})):
            found = connection.execute(select(func.current_setting(name))).scalar_one()
            if found not in expected:
                raise ValueError(f"{self.name}: {name} is {found}; expected {' or '.join(sorted(expected))}")

    def _mark(self, gallery_id: str) -> None:
        """Write to the folder whose pictures it holds; raises ValueError where they are those of another gallery.

        Pictures of no item are set aside at each start, so that a wrong folder would lose sight of all it has.
        """
        mark = self._folder / ID_FILE
        try:
            make_folder(self._folder)
            names = {path.name for path in self._folder.iterdir()}
            if mark.name not in names:
                # What a kill left of an earlier attempt is written anew.
                if others := names - {_unfinished(mark).name, "lost+found"}:
                    expected = f"expected the folder of this gallery, or a new or empty one, for {self.name}"
                    raise ValueError(f"{self._folder}: holds {min(others)} but no {mark.name}; {expected}")
                with open(_unfinished(mark), "w", opener=as_its_folder) as file:
                    file.write(gallery_id)
                    file.flush()
                    os.fsync(file.fileno())
                _unfinished(mark).rename(mark)
            found = mark.read_text().strip()
        except OSError as error:
            raise OSError(f"{self._folder}: not a folder that can be written ({error.strerror})") from error
        if found != gallery_id:
            raise ValueError(f"{self._folder}: belongs to gallery {found}, but {self.name} is gallery {gallery_id}")


def _address(url: str) -> URL:
    """The address of a database; raises ValueError, which does not show it, for another one."""
    form = "expected postgresql+psycopg://user:password@host:port/database, with other signs than letters as %.."
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(f"the address of the database cannot be read; {form}") from None
    # A password with a bare @ would leave its end in the host, to be shown in messages.
    if address.drivername not in ("postgresql", "postgresql+psycopg", "postgres") or "@" in (address.host or ""):
        raise ValueError(f"the address of the database is none of PostgreSQL; {form}")
    return address.set(drivername="postgresql+psycopg")


def _engine(address: URL, read_only: str, **options: Any) -> Engine:
    session = {**_SESSION, "default_transaction_read_only": read_only}
    settings = [f"-c {name}={value}" for name, value in session.items()]
    given = address.query.get("options", ())
    client = {name: value for name, value in _CLIENT.items() if name not in address.query}
    try:
        return create_engine(
            address,
            connect_args={**client, "options": " ".join([*settings, *([given] if isinstance(given, str) else given)])},
            pool_pre_ping=True,  # a server that was restarted is met on a new connection
            hide_parameters=True,
            use_native_hstore=False,
            **options,
        )
    except ModuleNotFoundError as error:
        raise ValueError("a gallery on PostgreSQL needs psycopg; pip install dcal-reid[postgresql]") from error


def _lock_number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"dcal-reid {name}".encode()).digest()[:8], signed=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _reason(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())


def _with_nul(values: Any) -> str | None:
    """The first text with a NUL among the values of a statement, which may be nested."""
    if isinstance(values, str):
        return values if "\0" in values else None
    if isinstance(values, Mapping):
        values = values.values()
    if isinstance(values, Collection) and not isinstance(values, bytes):
        return next((found for value in values if (found := _with_nul(value))), None)
    return None
