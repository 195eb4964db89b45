"""The database file of a gallery: one process holds it, every commit is on the disk, and errors name the file."""

import fcntl
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from service.storage.migrations import migrate

GALLERY_FILE = "gallery.db"
LOCK_FILE = "gallery.lock"
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


class Database:
    """`gallery.db` in its folder, for several threads: one at a time writes, and readers do not wait for it."""

    def __init__(self, folder: Path) -> None:
        """Open the gallery of `folder`, or start one where the folder is new or empty.

        Raises OSError when the folder cannot be written or another process holds it, and ValueError when it is no
        gallery, one of a newer version, or damaged.
        """
        self.path = folder / GALLERY_FILE
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._naming = threading.Lock()
        self._exclusive: dict[str, threading.Lock] = {}
        self._hold = _hold(folder)
        try:
            self._writer, self._reader = self._connect()
        except BaseException:
            self._hold.close()
            raise

    def _connect(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        with _named_errors(self.path):
            writer = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                writer.execute("PRAGMA synchronous = FULL")
                writer.execute("PRAGMA foreign_keys = ON")
                migrate(writer, self.path)
                writer.execute("PRAGMA journal_mode = WAL")  # after the check: it writes to the file
                reader = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            except BaseException:
                writer.close()
                raise
            reader.execute("PRAGMA query_only = ON")
            return writer, reader

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """The rows of a query, as of one moment; raises OSError or ValueError when the file cannot be read."""
        with self._reading, _named_errors(self.path):
            return self._reader.execute(sql, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are on the disk when the block ends, or undone when it raises.

        Raises OSError when they cannot be written, say for a full disk, and ValueError for a damaged file or for text
        that is not Unicode.
        """
        with self._writing, _named_errors(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.rollback()

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold the lock of a name, which one thread at a time has; it is not reentrant."""
        with self._naming:
            lock = self._exclusive.setdefault(name, threading.Lock())
        with lock:
            yield

    def copy(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Write all there is at this moment to a new file, while others read and write here.

        `progress` is told, now and then, how many pages of how many are copied. Raises OSError, naming the new file,
        when it cannot be written, and ValueError for a damaged one here.
        """
        with (
            _named_errors(path),
            closing(sqlite3.connect(self.path, isolation_level=None)) as source,
            closing(sqlite3.connect(path, isolation_level=None)) as target,
        ):
            # Reading within a transaction holds the moment. Without, each write of another connection would make the
            # copy begin anew.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(target, pages=PAGES_AT_ONCE, progress=lambda _, left, pages: progress(pages - left, pages))

    def close(self) -> None:
        """Let go of the file; the next process may open it."""
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()
            self._hold.close()


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte tells the kind
        if code in _DAMAGED:
            raise ValueError(f"{path}: damaged, or not a gallery ({error})") from error
        if code in _UNUSABLE:
            raise OSError(f"{path}: cannot be read or written ({error}); nothing was changed") from error
        raise
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.object!r} is not valid Unicode") from error


def _hold(folder: Path) -> BinaryIO:
    """Lock a folder for this process until the file returned is closed; a folder that is not there is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
        # A disk that was just made holds lost+found, and an opening that was cut short the lock file alone.
        if GALLERY_FILE not in names and names - {LOCK_FILE, "lost+found"}:
            raise ValueError(
                f"{folder}: holds files but no {GALLERY_FILE}; expected a gallery, or a new or empty folder"
            )
        with ExitStack() as opened:
            file = opened.enter_context(open(folder / LOCK_FILE, "ab"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened.pop_all()
            return file
    except BlockingIOError as error:
        raise OSError(f"{folder}: another process has this gallery open") from error
    except OSError as error:
        raise OSError(f"{folder}: not a folder that can be written ({error.strerror})") from error
