"""The database file of a gallery: one process holds it, every commit is on the disk, and errors name the file."""

import fcntl
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from service.migrations import migrate

GALLERY_FILE = "gallery.db"
LOCK_FILE = "gallery.lock"

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
        self._hold = _hold(folder)
        try:
            self._writer, self._reader = self._connect()
        except BaseException:
            self._hold.close()
            raise

    def _connect(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        with self._named_errors():
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

    def read(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """The rows of a query, as of one moment; raises OSError or ValueError when the file cannot be read."""
        with self._reading, self._named_errors():
            return self._reader.execute(sql, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are on the disk when the block ends, or undone when it raises.

        Raises OSError when they cannot be written, say for a full disk, and ValueError for a damaged file or for text
        that is not Unicode.
        """
        with self._writing, self._named_errors():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.rollback()

    def close(self) -> None:
        """Let go of the file; the next process may open it."""
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()
            self._hold.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte tells the kind
            if code in _DAMAGED:
                raise ValueError(f"{self.path}: damaged, or not a gallery ({error})") from error
            if code in _UNUSABLE:
                raise OSError(f"{self.path}: cannot be read or written ({error}); nothing was changed") from error
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
