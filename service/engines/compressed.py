"""Rows in 8 bits a value, a quarter of their size, which tell which few of them may be among the best of a query.

N rows, E embedding size. The bound is no guess: a row x is kept as d * c, where c are whole numbers in [-127, 127] and
d (E,) is the same for all, and of a query q, q d as t * k, with whole numbers k, which FAISS multiplies fastest. Then a
score q x is off from t k c by at most |q| |x - d c| + |q - t k / d| |d c|, and all of that is known.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from service.engines.snapshot import Codes, KeptCodes, Places
from service.records import Vectors

Mask = npt.NDArray[np.bool_]

HEADROOM = 1.25  # of the largest value seen, for those that come later
LOOSE = 1.5  # times the usual residual, from which a row is always looked at instead of loosening the bound for all
MOST_LOOSE = 0.01  # of the rows; with more, d no longer fits them
ROWS_A_THREAD = 10_000  # below which another thread costs more than it saves
SPARE = 64  # rows asked for beyond those wanted, for those within the bound
MOST_CANDIDATES = 4096  # to score again; where more lie that close together, the product of all rows is faster
PART_VALUES = 2**22  # of rows encoded at a time: 16 MiB


def available() -> bool:
    """Whether FAISS is installed, whose codes these are."""
    return find_spec("faiss") is not None


def products_of_one(vectors: Vectors, places: Places, query: Vectors) -> Vectors:
    """The products (M,) of a query (1, E) and the vectors (N, E) at some places (M,), which are not copied."""
    faiss = import_module("faiss")
    # FAISS multiplies as many queries at once as there are threads: each takes a part of the rows.
    threads = min(faiss.omp_get_max_threads(), len(places))
    queries, parts = np.repeat(query, threads, axis=0), np.resize(places, (threads, -(-len(places) // threads)))
    products = np.empty(parts.shape, np.float32)
    pointers = map(faiss.swig_ptr, (products, queries, vectors, parts))
    faiss.fvec_inner_products_by_idx(*pointers, query.size, *parts.shape)
    return products.ravel()[: len(places)]


class Compressed:
    """The rows of a matrix, each by its place, from 0 to N without gaps."""

    def __init__(self, vectors: Vectors) -> None:
        size = vectors.shape[1]
        largest = np.zeros(size, np.float32)
        for part in _parts(len(vectors), size):
            np.maximum(largest, np.abs(vectors[part]).max(axis=0, initial=0), out=largest)
        step = np.maximum(largest, largest.max(initial=0) / 1000 + 1e-9) * np.float32(HEADROOM / 127)
        self._begin(step, len(vectors))
        for part in _parts(len(vectors), size):
            self.write(np.arange(part.start, min(part.stop, len(vectors))), vectors[part])

    @classmethod
    def restored(cls, kept: KeptCodes, rest: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The rows of which codes and `rest` were kept; raises Damaged."""
        self = cls.__new__(cls)
        self._begin(rest["step"], kept.rows)
        self._residual, self._loose, self._rows = float(rest["residual"]), rest["loose"], kept.rows
        self._resize(kept.rows)
        targets = [self._codes(shard) for shard in self._shards]

        def take(first: int, codes: Codes) -> None:
            for number, target in enumerate(targets):
                mine = codes[(number - first) % len(targets) :: len(targets)]
                begin = len(range(number, first, len(targets)))
                target[begin : begin + len(mine)] = mine

        kept.read(take)
        return self

    def _begin(self, step: Vectors, rows: int) -> None:
        self._faiss = import_module("faiss")
        self._step = step
        # Errors of rounding are uniform within half a step.
        self._tolerated = LOOSE * float(np.sqrt((step.astype(np.float64) ** 2).sum() / 12))
        self._residual = 0.0
        self._loose = np.empty(0, bool)
        threads = min(os.cpu_count() or 1, 1 + rows // ROWS_A_THREAD)
        # FAISS searches for one query on one thread: place p is row p // threads of shard p % threads.
        self._shards = [
            self._faiss.IndexScalarQuantizer(
                step.size, self._faiss.ScalarQuantizer.QT_8bit_direct_signed, self._faiss.METRIC_INNER_PRODUCT
            )
            for _ in range(threads)
        ]
        self._pool = ThreadPoolExecutor(threads, "searching")
        self._rows = 0

    @property
    def rest(self) -> dict[str, npt.NDArray[Any]]:
        """All that is kept beside the codes."""
        return {"step": self._step, "residual": np.array(self._residual), "loose": self._loose[: self._rows]}

    def codes(self, places: Places) -> Codes:
        """The codes (n, E) of rows, to be kept."""
        found = np.empty((len(places), self._step.size), np.uint8)
        for shard, mine, local in self._of_shards(places):
            found[mine] = self._codes(shard)[local]
        return found

    @property
    def fits(self) -> bool:
        """Whether most rows are as well kept as those of the start were; if not, make it anew."""
        return int(np.count_nonzero(self._loose[: self._rows])) <= max(SPARE, MOST_LOOSE * self._rows)

    def write(self, places: Places, vectors: Vectors) -> None:
        """Keep rows (n, E) at their places: those that are there are replaced, and new ones follow on the last."""
        codes = np.rint(vectors / self._step).clip(-127, 127)
        residuals = np.sqrt(((vectors - codes * self._step).astype(np.float64) ** 2).sum(axis=1))
        loose = residuals > self._tolerated
        self._residual = max(self._residual, float(residuals[~loose].max(initial=0)))
        self._rows = max(self._rows, int(places.max(initial=-1)) + 1)
        if self._rows > len(self._loose):
            self._loose = np.concatenate([self._loose, np.zeros(self._rows, bool)])
        self._loose[places] = loose
        for shard, mine, local in self._of_shards(places):
            there = local < shard.ntotal
            self._codes(shard)[local[there]] = codes[mine[there]] + 128
            new = mine[~there][np.argsort(local[~there])]
            if len(new):
                shard.add(np.ascontiguousarray(codes[new], np.float32))

    def move(self, sources: Places, targets: Places, rows: int) -> None:
        """Put rows at other places, and forget all from `rows` on."""
        moved = self.codes(sources)
        for shard, mine, local in self._of_shards(targets):
            self._codes(shard)[local] = moved[mine]
        self._loose[targets] = self._loose[sources]
        self._resize(rows)
        self._rows = rows

    def candidates(self, query: Vectors, count: int, passing: Mask | None) -> Places | None:
        """The rising places of all rows that may be among the `count` best of a unit query (E,), of those `passing`.

        None where too many are. `count` is at most the number of rows that pass.
        """
        weighted = query.astype(np.float64) * self._step
        scale = float(np.abs(weighted).max()) / 127
        numbers = np.rint(weighted / scale)
        # Lengths are nearly 1, and products may be summed in float32.
        error = 1.001 * self._residual + query.size * 2.0**-22
        error += (1.001 + self._residual) * float(np.linalg.norm((weighted - scale * numbers) / self._step))
        asked = numbers.astype(np.float32)[None]
        wanted = min(count + SPARE, self._rows)
        shards = len(self._shards)
        parameters = [
            None if passing is None else self._parameters(passing[number::shards]) for number in range(shards)
        ]
        search = partial(_search, asked=asked, count=wanted)
        nearest = list(self._pool.map(search, self._shards, parameters))
        products = np.concatenate([products for products, _ in nearest])
        least = float(np.partition(products, len(products) - count)[len(products) - count]) - 2 * error / scale
        found: list[Places] = []
        for number, (best, rows) in enumerate(nearest):
            if (
                len(best) == min(wanted, self._shards[number].ntotal) < self._shards[number].ntotal
                and best[-1] >= least
            ):  # others of this shard may be within the bound, too
                rows = _above(self._shards[number], parameters[number], asked, least)
            else:
                rows = rows[best >= least]
            found.append(rows * shards + number)
            if sum(map(len, found)) > MOST_CANDIDATES:
                return None
        loose = self._loose[: self._rows] if passing is None else self._loose[: self._rows] & passing
        return np.unique(np.concatenate([*found, np.flatnonzero(loose)]))

    def _resize(self, rows: int) -> None:
        for number, shard in enumerate(self._shards):
            shard.ntotal = len(range(number, rows, len(self._shards)))
            shard.codes.resize(shard.ntotal * shard.code_size)

    def _of_shards(self, places: Places) -> Iterator[tuple[Any, Places, Places]]:
        """Each shard, which of the places are its own, and which of its rows these are."""
        for number, shard in enumerate(self._shards):
            mine = np.flatnonzero(places % len(self._shards) == number)
            yield shard, mine, places[mine] // len(self._shards)

    def _codes(self, shard: Any) -> Codes:
        """The codes of a shard (rows, E), each 128 more than its number, in its own memory."""
        if not shard.ntotal:
            return np.empty((0, self._step.size), np.uint8)
        codes: Codes = self._faiss.rev_swig_ptr(shard.codes.data(), shard.ntotal * shard.code_size)
        return codes.reshape(shard.ntotal, shard.code_size)

    def _parameters(self, passing: Mask) -> Any:
        selector = self._faiss.IDSelectorBitmap(np.packbits(np.ascontiguousarray(passing), bitorder="little"))
        return self._faiss.SearchParameters(sel=selector)


def _search(shard: Any, parameters: Any, *, asked: Vectors, count: int) -> tuple[Vectors, Places]:
    """The products of the best rows of a shard, falling, and the rows; fewer than asked for where no more pass."""
    products, rows = shard.search(asked, min(count, max(1, shard.ntotal)), params=parameters)
    known = rows[0] >= 0
    return products[0][known], rows[0][known]


def _above(shard: Any, parameters: Any, asked: Vectors, least: float) -> Places:
    below = float(np.nextafter(np.float32(least), np.float32(-np.inf)))  # FAISS takes what is more than that
    rows: Places = shard.range_search(asked, below, params=parameters)[2]
    return rows


def _parts(rows: int, size: int) -> Iterator[slice]:
    step = max(1, PART_VALUES // max(1, size))
    return (slice(start, start + step) for start in range(0, rows, step))
