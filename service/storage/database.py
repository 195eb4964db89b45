"""Where the tables of a gallery are: in a file that one process holds, or on a server that several processes share."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Executable, Table, insert, select
from sqlalchemy.exc import SQLAlchemyError

from service.storage.copying import TABLES, last_numbers, read_rows, set_last_numbers
from service.storage.driver import fetch_rows
from service.storage.inspection import DamagedDatabase
from service.storage.postgresql import WAIT, Postgresql
from service.storage.sqlite import Sqlite
from service.storage.tables import gallery, indexes


class Database:
    """The tables of a gallery, for several threads: one at a time writes, and readers do not wait for it.

    Methods raise OSError, which names the file or the server, when that cannot be read or written now, DamagedDatabase,
    which is one, where it will not be before it is put back, and ValueError for text that it cannot hold.
    """

    def __init__(self, folder: Path, url: str | None = None, *, read_only: bool = False, beside: bool = False) -> None:
        """Open the gallery of `folder`, or start one where the folder is new or empty.

        Its tables are in `gallery.db` there, which this process alone may have open; or, with `url`, such as
        `postgresql+psycopg://user:password@host/database`, on a PostgreSQL server, and then other processes that see
        the same folder may have them open too. Who only reads a file may do so beside the process that has it, as may
        who is `beside` it and changes nothing but keys. Raises
        OSError when the folder cannot be written, another process holds it or the server cannot be reached,
        DamagedDatabase, and ValueError when it is no gallery or one of a newer version.
        """
        self.folder = folder
        self.shared = url is not None
        self.closed = threading.Event()
        self._writing = threading.Lock()
        self._naming = threading.Lock()
        self._exclusive: dict[str, threading.Lock] = {}
        self._home = Sqlite(folder, read_only=read_only, beside=beside) if url is None else Postgresql(folder, url)
        self.damage: str | None = None  # for which nothing is written any more
        self.name = self._home.name  # without password
        try:
            with self._named_errors():
                self._home.open()
            self.gallery_id: str = self.read(select(gallery.c.gallery_id))[0][0]
        except BaseException:
            self._home.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query, as of one moment."""
        with self.reading() as connection:
            return fetch_rows(connection, statement, parameters)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection whose statements each see what is committed by then; no writer waits for it."""
        with self._named_errors(), self._home.reading() as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose changes are on the disk when the block ends, or undone when it raises.

        Writers take turns, over all processes. Raises OSError when the changes cannot be written, say for a full disk;
        where a server was lost at the very end, they may be there all the same, as the message says.
        """
        if self.damage is not None:
            raise DamagedDatabase(f"{self.name}: damaged ({self.damage}), so that nothing is changed", self.damage)
        with self._writing, self._named_errors(), self._home.writing() as connection:
            yield connection

    @contextmanager
    def exclusive(self, name: str, wait: float = WAIT) -> Iterator[None]:
        """Hold the lock of a name, which one thread of all processes at a time has; it is not reentrant.

        A process that dies lets go of it. Raises TimeoutError when others have held it for so many seconds, and OSError
        when it was lost meanwhile together with the server.
        """
        with self._naming:
            lock = self._exclusive.setdefault(name, threading.Lock())
        if not lock.acquire(timeout=wait):
            raise TimeoutError(f"{self.name}: waited {wait:g} s for {name}, which another thread holds; try again")
        try:
            with self._named_errors(), self._home.alone(name, wait):
                yield
        finally:
            lock.release()

    def inspect(self, stop: threading.Event) -> str | None:
        """Look for damage in the tables while others use them; `damage` is what was found, and then nothing is written.

        A bit that flipped inside a value is beyond that: vectors and pictures have checksums. It ends early when it is
        to `stop`.
        """
        with self._named_errors():
            found = self._home.complaints(stop)
        if found and not stop.is_set():
            self.damage = "; ".join(found)
        return self.damage

    def scrub(self) -> None:
        """Leave nothing in the file of what was deleted or changed before; a server does so in its own time."""
        with self._writing, self._named_errors():
            self._home.scrub()

    def copy(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Write all there is at this moment to a new SQLite file, while others read and write here.

        `progress` is told, now and then, how many pages or rows of how many are copied. Raises OSError, naming the new
        file, when it cannot be written.
        """
        with self._named_errors():
            self._home.copy(path, progress)

    def require_empty(self, connection: Connection) -> None:
        """Raise ValueError where anything was ever written here but the gallery's id."""
        for table in TABLES:
            if connection.execute(select(table).limit(1)).first() is not None:
                raise ValueError(f"{self.name}: has {table.name} already; expected a new or empty gallery")

    def fill(self, connection: Connection, source: "Database", progress: Callable[[int, int], None]) -> None:
        """Write all rows of another gallery, which nobody changes meanwhile, within a transaction of this one.

        The other's id stays there, and what search engines on servers know of it. `progress` is told how many rows of
        how many are written. Raises ValueError where this one is not empty.
        """
        self.require_empty(connection)
        for table, rows in source._rows(progress):
            if table is not indexes:
                connection.execute(insert(table), rows)
        with source.reading() as other:
            set_last_numbers(connection, last_numbers(other))

    def close(self) -> None:
        """Let go of the file or the server."""
        self.closed.set()
        with self._writing:
            self._home.close()

    def _rows(self, progress: Callable[[int, int], None]) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
        with self.reading() as connection:
            yield from read_rows(connection, progress)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            if (named := self._home.named(error)) is None:
                raise
            if isinstance(named, DamagedDatabase):
                self.damage = self.damage or named.found
            raise named from error
        except UnicodeEncodeError as error:
            raise ValueError(f"{error.object!r} is not valid Unicode") from error
