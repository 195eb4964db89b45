"""A gallery in one SQLite file: one process holds it, and every commit is on the disk."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from service.storage.folder import GALLERY_FILE, as_its_folder, connect_to_read, hold, require_gallery
from service.storage.inspection import CROSS_CHECKS, DamagedDatabase
from service.storage.migrations.sqlite import migrate, require_newest

PAGE_BYTES = 4096
PAGES_AT_ONCE = 1000  # in a copy
COMPLAINTS = 5  # told of a damaged file
LOG_BYTES = 16 * 2**20  # written before they go to the file: a thousand items fill the usual 4 MiB
CACHE_KIB = 65_536  # of pages, for whoever writes: ids are drawn by chance, so that rows touch indexes all over

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

    def __init__(self, folder: Path, *, read_only: bool = False, beside: bool = False) -> None:
        """Whoever reads only, or works `beside` it, may do so while another process holds the folder."""
        self._folder = folder
        self._read_only = read_only
        self._beside = beside
        self._path = folder / GALLERY_FILE
        self.name = str(self._path)
        self._reading = threading.Lock()
        self._opened = ExitStack()

    def open(self) -> None:
        """Lock the folder, and bring the tables to the newest version, unless they are only read."""
        with ExitStack() as opened:
            if self._read_only or self._beside:
                require_gallery(self._folder)
                require_newest(self._path)
            else:
                opened.enter_context(hold(self._folder))
            if not self._read_only:
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
        if self._read_only:
            raise OSError(f"{self._path}: opened for reading only")
        with self._writer.begin():
            self._writer.exec_driver_sql("BEGIN IMMEDIATE")
            yield self._writer

    def alone(self, name: str, wait: float) -> nullcontext[None]:
        """Hold a lock by name, which no other process could have."""
        return nullcontext()

    def copy(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Write all there is at this moment to a new file; `progress` is told how many pages of how many are copied."""
        _make_file(path)
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

    def scrub(self) -> None:
        """Leave nothing on the disk of what was deleted or changed before."""
        with self._reading:  # nobody is in the midst of reading what is written anew
            connection = self._writer.connection.driver_connection
            assert connection is not None
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def complaints(self, stop: threading.Event) -> list[str]:
        """What is wrong with the file, by its pages and by each table against the next; it ends early with `stop`."""
        return complaints(self._path, stop)

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
        return DamagedDatabase(f"{path}: damaged, or not a gallery ({cause})", str(cause))
    if code in _UNUSABLE:
        return OSError(f"{path}: cannot be read or written ({cause}); nothing was changed")
    return None


def _make_file(path: Path) -> None:
    """Make a file where it is not there, as open as its folder, as is then what SQLite writes beside it."""
    try:
        open(path, "ab", opener=as_its_folder).close()
    except OSError as error:
        raise OSError(f"{path}: cannot be read or written ({error.strerror}); nothing was changed") from error


def open_file(path: Path) -> Connection:
    """A connection that may write to a gallery's file, which is made, or brought to the newest version."""

    def connect() -> sqlite3.Connection:
        with ExitStack() as opened:
            _make_file(path)
            connection = opened.enter_context(closing(_connect(path)))
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            migrate(connection, path, lambda: complaints(path, threading.Event()))
            connection.execute("PRAGMA journal_mode = WAL")  # after the check: it writes to the file
            connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // PAGE_BYTES}")
            opened.pop_all()
        return connection

    return _opened(connect)


def complaints(path: Path, stop: threading.Event) -> list[str]:
    """What is wrong with a gallery's file, which others may write to meanwhile; it ends early, with what it has."""
    try:
        with closing(connect_to_read(path)) as connection:
            connection.set_progress_handler(lambda: int(stop.is_set()), 100_000)
            pages = connection.execute(f"PRAGMA quick_check({COMPLAINTS})")
            found = [" ".join(told.split()) for (told,) in pages if told != "ok"]
            if not found:  # or nothing that is read can be believed
                for meaning, counted in CROSS_CHECKS.items():
                    (number,) = connection.execute(counted).fetchone()
                    found += [f"{number} {meaning}"] if number else []
            return found
    except sqlite3.DatabaseError as error:
        return [] if stop.is_set() else [str(error)]


def _open_reader(path: Path) -> Connection:
    return _opened(lambda: connect_to_read(path))


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _opened(connect: Callable[[], sqlite3.Connection]) -> Connection:
    return create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True).connect()
