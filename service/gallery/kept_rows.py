"""The rows of an engine in a file beside the store, so that a start takes seconds; the store stays the truth.

The file says whose rows it has, as of which entry of the operation log. It is taken if that entry is there, and the log
followed from it; in doubt it is not. It appears whole or not at all, and is written a block of rows at a time between
other work.
"""

import logging
import shutil
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any, BinaryIO, Protocol
from uuid import uuid4

from service.engines.protocol import SearchEngine
from service.engines.snapshot import Full, Saved, Writing, read
from service.gallery.pictures import sync
from service.records import Vectors
from service.storage.folder import as_its_folder
from service.storage.store import Store

FILE = "rows-{space}"  # in the folder of a gallery
FEWEST = 20_000  # rows, which are read from the store in a second
MOST_BEHIND = 10_000  # entries of the log that are followed in a second or two
ABANDONED = 60.0  # seconds, in which a file that is being written grows
SHARE_BEHIND = 0.1  # of the rows: a file is written anew where more entries followed on it

log = logging.getLogger("reid")


class KeptEngine(SearchEngine, Protocol):
    """A search engine whose rows can be kept in a file, and taken from there."""

    @property
    def recall(self) -> float | None:
        """The share of the 10 best that it finds; None where it is exact."""

    @property
    def file_bytes(self) -> int:
        """How large such a file is, about."""

    def memory(self, rows: int, size: int) -> int:
        """How many bytes of memory so many rows of a size take, about."""

    def allocate(self, rows: int, size: int) -> Vectors:
        """Room for vectors (n, E)."""

    def begin(self, file: BinaryIO) -> Writing:
        """Begin to write the rows to a file."""

    def write(self, writing: Writing) -> bool:
        """Write a block of rows that the file lacks; tells whether it has them all. Raises OSError and Full."""

    def finish(self, writing: Writing, about: dict[str, Any]) -> None:
        """Write all else to a file that has all rows; raises OSError."""

    def restore(self, saved: Saved) -> None:
        """Have the rows of a file in the place of those that there are, of which vectors may be read when needed.

        Raises ValueError, and so may, with `Damaged`, all that asks for rows later.
        """

    def read_on(self) -> bool:
        """Read a portion of the vectors that are left in a file, and tell whether some are left; raises Damaged."""

    def clear(self) -> None:
        """Forget all rows."""


class KeptRows:
    """The file of one engine, which is that of a model in a space: `whose` says so, and of which gallery."""

    def __init__(self, folder: Path, store: Store, engine: KeptEngine, space: str, whose: str) -> None:
        self._path = folder / FILE.format(space=space)
        self._partial = folder / f".{self._path.name}.{uuid4().hex}.tmp"
        self._store, self._engine, self._whose = store, engine, whose
        self._kept: int | None = None  # the file is as of this entry of the log
        self._file: BinaryIO | None = None
        self._writing: Writing | None = None
        self._given_up = False

    def take(self) -> int | None:
        """Give the engine the rows of the file, and return as of which entry of the log; None where it is of no use."""
        try:
            with open(self._path, "rb") as file:
                saved = read(file, {"rows of": self._whose}, self._engine.allocate)
                seq = saved.about["seq"]
                if self._store.batch_of(seq) != saved.about["batch_id"]:
                    raise ValueError("it is of another history of the gallery")
                self._engine.restore(saved)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as error:
            self.refuse(error)
            return None
        self._kept = seq
        return int(seq)

    def refuse(self, error: Exception) -> None:
        """Have the engine forget what it took of the file, which is written again; the error tells why."""
        log.warning("warning: %s is not used, and its rows come from the database: %s", self._path, error)
        self._kept = None
        self.close()
        self._engine.clear()

    def write(self, followed: int) -> bool:
        """Write a portion of the file, if it is due, of an engine that has followed the log so far; tells of more."""
        if self._given_up or not (self._writing or self._due(followed)):
            return False
        try:
            if self._writing is None:
                self._require_room()
                for left in self._path.parent.glob(f".{self._path.name}.*.tmp"):  # by a process that was killed
                    if time() - left.stat().st_mtime > ABANDONED:
                        left.unlink()
                self._file = open(self._partial, "wb", opener=as_its_folder)  # noqa: SIM115, for `close`
                self._writing = self._engine.begin(self._file)
            if not self._engine.write(self._writing):
                return True
            if self._store.last_entry() != followed:  # what is gone from the store shall not be in the file
                return False
            about = {"rows of": self._whose, "seq": followed, "batch_id": self._store.batch_of(followed)}
            self._engine.finish(self._writing, about)
            self._partial.replace(self._path)
            sync(self._path.parent)
            self._kept = followed
            log.info("kept %d rows in %s for the next start", len(self._engine), self._path)
        except (Full, FileNotFoundError):  # too many rows came, or an erasure took the file: it is begun again
            pass
        except OSError as error:
            log.warning("warning: %s is not written, so that the next start takes longer: %s", self._path, error)
            self._given_up = True
        self.close()
        return False

    def close(self) -> None:
        """Give up a file that is being written."""
        if self._file is not None:
            self._file.close()
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)
        self._file = self._writing = None

    def _due(self, followed: int) -> bool:
        rows = len(self._engine)
        if rows < FEWEST:
            return False
        if self._kept is None or not self._path.exists():
            return True
        return followed - self._kept > max(MOST_BEHIND, SHARE_BEHIND * rows)

    def _require_room(self) -> None:
        free, wanted = shutil.disk_usage(self._path.parent).free, self._engine.file_bytes
        if free < 2 * wanted:
            raise OSError(f"it takes {wanted / 2**20:,.0f} MiB, and {free / 2**20:,.0f} are free on the disk")


def forget_rows(folder: Path) -> None:
    """Remove what is kept of rows of a gallery, where they hold what shall be gone; it is written again."""
    for pattern in (FILE.format(space="*"), f".{FILE.format(space='*')}.tmp"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
