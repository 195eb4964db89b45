"""A gallery in one SQLite file: one process holds it, and every commit is on the disk."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from service.storage.folder import GALLERY_FILE, hold
from service.storage.migrations.sqlite import migrate

PAGES_AT_ONCE = 1000  # of 4 KiB, in a copy

_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
_UNUSABLE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
}


class Sqlite:
    """`gallery.db` in its folder, by one connection that writes and one that reads and does not wait for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / GALLERY_FILE
        self.name = str(self._path)
        self._reading = threading.Lock()
        self._opened = ExitStack()

    def open(self) -> None:
        """Lock the folder, and bring the tables to the newest version."""
        with ExitStack() as opened:
            opened.enter_context(hold(self._folder))
            self._writer = opened.enter_context(open_file(self._path))
            self._reader = opened.enter_context(_open_reader(self._path))
            self._opened = opened.pop_all()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees what is committed."""
        with self._reading:
            yield self._reader

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction."""
        with self._writer.begin():
            self._writer.exec_driver_sql("BEGIN IMMEDIATE")
            yield self._writer

    def alone(self, name: str, wait: float) -> nullcontext[None]:
        """Hold a lock by name, which no other process could have."""
        return nullcontext()

    def copy(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Write all there is at this moment to a new file; `progress` is told how many pages of how many are copied."""
        with (
            named_errors(path),
            closing(sqlite3.connect(self._path, isolation_level=None)) as source,
            closing(sqlite3.connect(path, isolation_level=None)) as target,
        ):
            # Reading within a transaction holds the moment. Without, each write of another connection would make the
            # copy begin anew.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(target, pages=PAGES_AT_ONCE, progress=lambda _, left, pages: progress(pages - left, pages))

    def named(self, error: Exception) -> Exception | None:
        """What an error means for the user, on one line; None where it is an error of the program."""
        return _named(error, self._path)

    def close(self) -> None:
        """Let go of the file; the next process may open it."""
        with self._reading:
            self._opened.close()


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite as what they mean for the user of a file."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        if (named := _named(error, path)) is None:
            raise
        raise named from error


def _named(error: Exception, path: Path) -> Exception | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte tells the kind
    if code in _DAMAGED:
        return ValueError(f"{path}: damaged, or not a gallery ({cause})")
    if code in _UNUSABLE:
        return OSError(f"{path}: cannot be read or written ({cause}); nothing was changed")
    return None


def open_file(path: Path) -> Connection:
    """A connection that may write to a gallery's file, which is made, or brought to the newest version."""

    def connect() -> sqlite3.Connection:
        with ExitStack() as opened:
            connection = opened.enter_context(closing(_connect(path)))
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            migrate(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")  # after the check: it writes to the file
            opened.pop_all()
        return connection

    return _opened(connect)


def _open_reader(path: Path) -> Connection:
    def connect() -> sqlite3.Connection:
        connection = _connect(path)
        connection.execute("PRAGMA query_only = ON")
        return connection

    return _opened(connect)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _opened(connect: Callable[[], sqlite3.Connection]) -> Connection:
    return create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True).connect()
