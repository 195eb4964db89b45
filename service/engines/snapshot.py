"""The rows of an engine in one file, from which a start has them in seconds.

E embedding size. The file begins with a page that says what it holds; then come vectors and perhaps their codes in 8
bits, each for as many rows as there is room for, and last the rest as an archive of numpy. All has checksums, those of
vectors and codes by blocks of rows. Rows may change while it is written: blocks that did are written again, and the
first page comes last.
"""

import io
import json
import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from service.records import Vectors

Codes = npt.NDArray[np.uint8]

BLOCK_ROWS = 4096
PAGE = 4096  # bytes
FORMAT = "reid rows 1"
SPARE_ROWS = 4 * BLOCK_ROWS  # that may come while a file is written


class Full(ValueError):
    """More rows came while a file was written than it has room for."""


class Saved(NamedTuple):
    """What a file holds: what was said of it, N `rows`, their codes (N, E) if there are any, and the rest.

    The vectors (capacity, E) have room for some rows more.
    """

    about: Mapping[str, Any]
    rows: int
    vectors: Vectors
    codes: Codes | None
    rest: Mapping[str, npt.NDArray[Any]]


class Writing:
    """A file that is being written, a block of rows at a time; it is worth nothing before `finish` has returned."""

    def __init__(self, file: BinaryIO, rows: int, size: int, coded: bool) -> None:
        self._file, self._size = file, size
        self._room = rows + rows // 8 + SPARE_ROWS
        self.coded = coded
        self.stale = set(range(blocks_of(rows)))  # blocks that the file lacks, or has as they were
        self._checksums: dict[int, tuple[int, int]] = {}

    def write(self, block: int, vectors: Vectors, codes: Codes | None) -> None:
        """Write a block of rows (BLOCK_ROWS, E), of the last one those that there are; raises OSError and Full."""
        if (block + 1) * BLOCK_ROWS > self._room:
            raise Full(f"{self._room} rows were expected at most")
        sums = []
        for start, values in ((PAGE, vectors), (self._codes_start(), codes)):
            if values is None:
                sums.append(0)
                continue
            width = self._size * values.itemsize
            written = values.tobytes().ljust(BLOCK_ROWS * width, b"\0")  # nothing stays of rows that went
            self._file.seek(start + block * len(written))
            self._file.write(written)
            sums.append(zlib.crc32(written))
        self._file.flush()
        os.fdatasync(self._file.fileno())  # now, so that the last one does not wait for all
        self._checksums[block] = (sums[0], sums[1])
        self.stale.discard(block)

    def finish(self, rows: int, about: Mapping[str, Any], rest: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write all else, of so many rows, once no block is stale; raises OSError."""
        blocks = blocks_of(rows)
        nothing = np.zeros((0, self._size), np.float32), np.zeros((0, self._size), np.uint8) if self.coded else None
        for block in [block for block in self._checksums if block >= blocks]:
            self.write(block, *nothing)
        archive = io.BytesIO()
        sums = np.array([self._checksums[block] for block in range(blocks)], np.uint32).reshape(blocks, 2)
        np.savez(archive, **{**rest, "checksums": sums})  # type: ignore[arg-type]
        written = archive.getvalue()
        start = self._codes_start() + self._room * self._size * self.coded
        self._file.seek(start)
        self._file.write(written)
        self._file.truncate()
        shape = {"rows": rows, "size": self._size, "codes": self._codes_start() if self.coded else None}
        end = {"rest": start, "bytes": len(written), "checksum": zlib.crc32(written)}
        page = json.dumps({"format": FORMAT, "about": dict(about), **shape, **end})
        assert len(page) < PAGE - 16
        self._file.seek(0)
        self._file.write(f"{zlib.crc32(page.encode()):08x} {page}".ljust(PAGE).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _codes_start(self) -> int:
        return PAGE + self._room * self._size * 4


def read(file: BinaryIO, about: Mapping[str, Any], allocate: Callable[[int, int], Vectors]) -> Saved:
    """The rows of a file that is about what it shall be, of which it may say more; `allocate` makes vectors (n, E).

    Raises ValueError, which says what is wrong, for one that is about something else, cut short or damaged.
    """
    checksum, _, page = file.read(PAGE).decode(errors="replace").rstrip().partition(" ")
    if checksum != f"{zlib.crc32(page.encode()):08x}":
        raise ValueError("its first page is damaged")
    told = json.loads(page)
    if told["format"] != FORMAT:
        raise ValueError(f"it is of the format {told['format']!r}; expected {FORMAT!r}")
    for name, expected in about.items():
        if (said := told["about"].get(name)) != expected:
            raise ValueError(f"its {name} is {said!r}; expected {expected!r}")
    file.seek(told["rest"])
    archive = file.read(told["bytes"])
    if len(archive) != told["bytes"]:
        raise ValueError(f"it is cut short by {told['bytes'] - len(archive)} bytes at least")
    if zlib.crc32(archive) != told["checksum"]:
        raise ValueError("what comes after its rows is damaged")
    with np.load(io.BytesIO(archive), allow_pickle=False) as opened:
        rest = dict(opened)
    rows, size, sums = told["rows"], told["size"], rest.pop("checksums")
    vectors = allocate(rows + rows // 8, size)
    _fill(file, PAGE, vectors[:rows], sums[:, 0])
    codes = None
    if told["codes"] is not None:
        codes = np.empty((rows, size), np.uint8)
        _fill(file, told["codes"], codes, sums[:, 1])
    return Saved(told["about"], rows, vectors, codes, rest)


def blocks_of(rows: int) -> int:
    """How many blocks rows take."""
    return -(-rows // BLOCK_ROWS)


def _fill(file: BinaryIO, start: int, values: Vectors | Codes, checksums: npt.NDArray[np.uint32]) -> None:
    """Read rows, a block at a time on each processor."""
    width = values.shape[1] * values.itemsize

    def fill(block: int) -> None:
        rows = values[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
        target = rows.data.cast("B")
        place, done = start + block * BLOCK_ROWS * width, 0
        while done < len(target) and (got := os.preadv(file.fileno(), [target[done:]], place + done)):
            done += got
        padding = bytes(BLOCK_ROWS * width - len(target))
        if done < len(target) or zlib.crc32(padding, zlib.crc32(target)) != checksums[block]:
            raise ValueError(f"rows {block * BLOCK_ROWS} to {block * BLOCK_ROWS + len(rows) - 1} are damaged")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(len(checksums))))
