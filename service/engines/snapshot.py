"""The rows of an engine in one file, from which a start has them in seconds.

E embedding size. The file begins with a page that says what it holds; then come vectors and perhaps their codes in 8
bits, each for as many rows as there is room for, and last the rest as an archive of numpy. All has checksums, those of
codes by blocks of rows, and those of vectors by stretches of a block, for vectors are read when they are needed. Rows
may change while it is written: blocks that did are written again, and the first page comes last.
"""

import io
import json
import os
import weakref
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from service.records import Vectors

Codes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

BLOCK_ROWS = 4096
STRETCH_ROWS = 16  # which divide a block; a query needs some hundred of them
PAGE = 4096  # bytes
FORMAT = "reid rows 2"
SPARE_ROWS = 4 * BLOCK_ROWS  # that may come while a file is written
PORTION_BLOCKS = 4  # of vectors, read between queries in some 20 ms


class Full(ValueError):
    """More rows came while a file was written than it has room for."""


class Damaged(ValueError):
    """Rows of a file are not as they were written, or cannot be read; the message names them."""


class Unread:
    """The vectors of a file that are not in memory yet, each read when it is needed."""

    def __init__(self, file: BinaryIO, vectors: Vectors, checksums: npt.NDArray[np.uint32]) -> None:
        """Read what is needed of a file, which may be closed and removed meanwhile, into vectors (N, E)."""
        self._file = os.dup(file.fileno())
        self._close = weakref.finalize(self, os.close, self._file)
        self._vectors, self._checksums = vectors, checksums
        self._lacking = np.ones(len(checksums), bool)  # stretches

    @property
    def some(self) -> bool:
        """Whether there are any."""
        return self._close.alive

    def read(self, places: Places | None = None) -> None:
        """Read the vectors at these places, or all, as far as they lack; raises Damaged."""
        if places is None:
            self._read(np.flatnonzero(self._lacking))
        elif self.some:
            wanted = np.zeros(len(self._lacking), bool)
            wanted[places[places < len(self._vectors)] // STRETCH_ROWS] = True
            self._read(np.flatnonzero(wanted & self._lacking))

    def read_portion(self) -> None:
        """Read the next few blocks; raises Damaged."""
        lacking = np.flatnonzero(self._lacking)
        self._read(lacking[: PORTION_BLOCKS * BLOCK_ROWS // STRETCH_ROWS])

    def _read(self, stretches: Places) -> None:
        """Read stretches by rising number, those of a block that follow on each other at once."""
        block = stretches * STRETCH_ROWS // BLOCK_ROWS
        cuts = np.flatnonzero((np.diff(stretches) > 1) | (np.diff(block) > 0)) + 1
        runs = np.split(stretches, cuts) if len(stretches) else []
        if len(stretches) > BLOCK_ROWS // STRETCH_ROWS:
            _on_all_processors(self._read_run, runs)
        else:
            for run in runs:
                self._read_run(run)
        self._lacking[stretches] = False
        if not self._lacking.any():
            self._close()

    def _read_run(self, stretches: Places) -> None:
        first = int(stretches[0]) * STRETCH_ROWS
        rows = self._vectors[first : (int(stretches[-1]) + 1) * STRETCH_ROWS]
        _read_rows(self._file, PAGE, first, rows, STRETCH_ROWS, self._checksums[stretches])


class KeptCodes:
    """The codes of N `rows` in a file, which is open, each block with a checksum."""

    def __init__(self, file: BinaryIO, start: int, rows: int, size: int, checksums: npt.NDArray[np.uint32]) -> None:
        self._file, self._start, self.rows, self._size, self._checksums = file.fileno(), start, rows, size, checksums

    def read(self, take: Callable[[int, Codes], None]) -> None:
        """Have some threads `take` the first row and the codes (n, E) of each block; raises Damaged."""

        def read_block(block: int) -> None:
            first = block * BLOCK_ROWS
            codes = np.empty((min(BLOCK_ROWS, self.rows - first), self._size), np.uint8)
            _read_rows(self._file, self._start, first, codes, BLOCK_ROWS, self._checksums[block : block + 1])
            take(first, codes)

        _on_all_processors(read_block, range(blocks_of(self.rows)))


class Saved(NamedTuple):
    """What a file holds: what was said of it, N `rows`, their codes (N, E) if there are any, and the rest.

    The vectors (capacity, E) have room for some rows more, and are there when what is `unread` of them was read.
    """

    about: Mapping[str, Any]
    rows: int
    vectors: Vectors
    unread: Unread
    codes: KeptCodes | None
    rest: Mapping[str, npt.NDArray[Any]]


class Writing:
    """A file that is being written, a block of rows at a time; it is worth nothing before `finish` has returned."""

    def __init__(self, file: BinaryIO, rows: int, size: int, coded: bool) -> None:
        self._file, self._size = file, size
        self._room = rows + rows // 8 + SPARE_ROWS
        self.coded = coded
        self.stale = set(range(blocks_of(rows)))  # blocks that the file lacks, or has as they were
        self._checksums: dict[int, tuple[list[int], int]] = {}  # of the stretches of a block, and of its codes

    def write(self, block: int, vectors: Vectors, codes: Codes | None) -> None:
        """Write a block of rows (BLOCK_ROWS, E), of the last one those that there are; raises OSError and Full."""
        if (block + 1) * BLOCK_ROWS > self._room:
            raise Full(f"{self._room} rows were expected at most")
        written = self._write(PAGE, block, vectors)
        width = STRETCH_ROWS * self._size * vectors.itemsize
        sums = [zlib.crc32(written[start : start + width]) for start in range(0, len(written), width)]
        code_sum = 0 if codes is None else zlib.crc32(self._write(self._codes_start(), block, codes))
        self._checksums[block] = sums, code_sum
        self._file.flush()
        os.fdatasync(self._file.fileno())  # now, so that the last one does not wait for all
        self.stale.discard(block)

    def finish(self, rows: int, about: Mapping[str, Any], rest: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write all else, of so many rows, once no block is stale; raises OSError."""
        blocks = blocks_of(rows)
        nothing = np.zeros((0, self._size), np.float32), np.zeros((0, self._size), np.uint8) if self.coded else None
        for block in [block for block in self._checksums if block >= blocks]:
            self.write(block, *nothing)
        archive = io.BytesIO()
        sums = [self._checksums[block] for block in range(blocks)]
        vector_sums = np.array([one for stretches, _ in sums for one in stretches], np.uint32)
        code_sums = np.array([one for _, one in sums], np.uint32)
        own = {"checksums": vector_sums[: -(-rows // STRETCH_ROWS)], "code_checksums": code_sums}
        np.savez(archive, **{**rest, **own})  # type: ignore[arg-type]
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

    def _write(self, start: int, block: int, values: Vectors | Codes) -> memoryview:
        whole = BLOCK_ROWS * self._size * values.itemsize
        written = values.tobytes().ljust(whole, b"\0")  # nothing stays of rows that went
        self._file.seek(start + block * whole)
        self._file.write(written)
        return memoryview(written)

    def _codes_start(self) -> int:
        return PAGE + self._room * self._size * 4


def read(file: BinaryIO, about: Mapping[str, Any], allocate: Callable[[int, int], Vectors]) -> Saved:
    """The rows of a file that is about what it shall be, of which it may say more; `allocate` makes vectors (n, E).

    Raises ValueError, which says what is wrong, for one that is about something else, cut short or damaged; of vectors
    and codes that is known when they are read.
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
    rows, size, sums, code_sums = told["rows"], told["size"], rest.pop("checksums"), rest.pop("code_checksums")
    vectors = allocate(rows + rows // 8, size)
    unread = Unread(file, vectors[:rows], sums)
    codes = None if told["codes"] is None else KeptCodes(file, told["codes"], rows, size, code_sums)
    return Saved(told["about"], rows, vectors, unread, codes, rest)


def blocks_of(rows: int) -> int:
    """How many blocks rows take."""
    return -(-rows // BLOCK_ROWS)


def _read_rows(
    file: int, start: int, first: int, rows: Vectors | Codes, at_once: int, checksums: npt.NDArray[np.uint32]
) -> None:
    """Read rows from row `first` of a part of a file, of which so many at once have a checksum; raises Damaged."""
    width = rows.shape[1] * rows.itemsize
    target, done = rows.data.cast("B"), 0
    last = first + len(rows) - 1
    try:
        while done < len(target) and (got := os.preadv(file, [target[done:]], start + first * width + done)):
            done += got
    except OSError as error:
        raise Damaged(f"rows {first} to {last} cannot be read ({error.strerror})") from error
    step = at_once * width
    for number, checksum in enumerate(checksums.tolist()):
        part = target[number * step : (number + 1) * step]
        if done < len(target) or zlib.crc32(bytes(step - len(part)), zlib.crc32(part)) != checksum:
            raise Damaged(f"rows {first} to {last} are damaged")


def _on_all_processors(work: Callable[[Any], None], parts: Iterable[Any]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, parts))
