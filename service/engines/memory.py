"""The search engine in memory: exact, and a cache of the store.

N rows, E embedding size, B queries of one block, M rows that pass the filter, C candidates of a query. A place is
where a row lies in the matrix: removals change it, while the row keeps its number.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from importlib import import_module
from itertools import islice
from mmap import MADV_DONTNEED, MAP_ANONYMOUS, MAP_PRIVATE, mmap
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from service.engines.compressed import Compressed, available, products_of_one
from service.engines.inputs import UNKNOWN_TIME, checked_queries, checked_rows
from service.engines.snapshot import BLOCK_ROWS, Full, Places, Saved, Unread, Writing, blocks_of
from service.fields import FIELDS, Among, Fact, Filter
from service.records import Found, Hit, Row, Vectors

Mask = npt.NDArray[np.bool_]

TILE_VALUES = 2**21  # of rows gathered and multiplied at a time: 8 MiB, which a processor's cache holds
SPREAD = 2  # rows multiplied for one that passes, before gathering those is faster: 1.3 for 64 queries
FEW_QUERIES = range(5, 32)  # with which BLAS is faster the other way round, where rows are long
LONG_ROW = 640
KNN_VALUES = 2**27  # of rows gathered for FAISS at a time: 512 MiB of the GPU
QUERIES_AT_ONCE = 256
BLOCK_VALUES = 2**25  # products held at a time: 128 MiB
GROUP = 32  # rows that are kept or left out together, by the best of them
CROWDED = 8  # groups, of which one is kept
PAIR_VALUES = 2**18  # of rows scored again at a time
COMPRESSED_ROWS = 5_000  # that pass, from which on it is faster to look at compressed rows first
SPARSE = 64  # values of rows that pass, for each row that there is, from which on it is, too
COMPRESSED_QUERIES = 4  # asked one after the other
COMPRESSED_COUNT = 1000
MOST_SKIPPED = 255  # searches that go by where rows crowd, before the compressed ones are tried again
KNN_LIMIT = 2048  # neighbours that FAISS finds on a GPU
KNN_SPARE = 64  # asked of it beyond those wanted, for ties
ROW_BYTES = 200  # of memory, beside its vector
VALUES = "values of {field}"  # of a field, in a file
FACTS = np.dtype(
    [("number", np.int64), *((field.name, np.int64 if field.kind == "time" else np.int32) for field in FIELDS)]
)  # times, and the codes of names and of attributes
ROUNDING = {"tf32": 2.0**-9, "bf16": 2.0**-6}  # of products with factors cut to fewer bits, for unit vectors


class Candidates(NamedTuple):
    """Rows that may be among the best: for each, which query it is for (P,), rising, and its place (P,).

    Every row left out is known to be no better than enough of these.
    """

    query: torch.Tensor
    place: torch.Tensor


class MemoryEngine:
    """An exact `SearchEngine`: one matrix on `device`, multiplied with the queries.

    A score is a sum of E products in float64, the same wherever the row lies and however many queries are asked at
    once, so that equal photos tie exactly. On a GPU, FAISS finds the candidates if it is installed and built for one.

    With a `folder`, vectors lie in a file there that has no name, and memory holds their codes. A query then reads the
    few rows that these cannot tell apart, and many queries at once read all.

    Raises ValueError for a vector of another size than the first one had, and one whose length is not 1 within 1e-3.
    """

    def __init__(self, device: torch.device | str = "cpu", folder: Path | None = None) -> None:
        self._device = torch.device(device)
        self._folder = folder
        self._mapped: mmap | None = None  # the vectors, with a folder
        self._faiss = _gpu_faiss(self._device)
        self._resources = self._faiss.StandardGpuResources() if self._faiss else None
        self._compresses = self._device.type == "cpu" and available()
        self._crowded = 0  # searches in a row of which the compressed rows could tell too little
        self._skipped = 0  # searches since then that were not asked of them
        self._changed: set[int] = set()  # blocks of rows, as they are written to a file
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self._rows = 0
        self._placed: dict[int, int] | None = {}  # None until somebody asks for `_places`
        self._vectors = torch.empty(0, 0, device=self._device)  # (capacity, E)
        self._unread: Unread | None = None  # vectors that a file has yet
        self._facts = _columns(0)  # (capacity,) each
        self._codes = {field: _Codes() for field in FIELDS if field.kind != "time"}
        self._compressed: Compressed | None = None

    def __len__(self) -> int:
        """The number of rows."""
        return self._rows

    @property
    def _places(self) -> dict[int, int]:
        """The place of every number, without gaps from 0 to N; a start that nothing follows on need not make it."""
        if self._placed is None:
            self._placed = dict(zip(self._facts["number"][: self._rows].tolist(), range(self._rows), strict=True))
        return self._placed

    @property
    def recall(self) -> float | None:
        """None, for it finds all."""
        return None

    @property
    def how(self) -> str:
        """Exactly; by which rows first, and where they are."""
        first = (
            f"rows in 8 bits a value, for {COMPRESSED_QUERIES} queries at once or fewer"
            if self._compressed is not None
            else "FAISS"
            if self._faiss
            else "all rows"
        )
        where = "vectors on the disk" if self._folder else f"vectors in memory ({self._device})"
        return f"exactly, by {first}; {where}"

    def numbers(self) -> set[int]:
        """The numbers of all rows."""
        return set(self._facts["number"][: self._rows].tolist())

    def upsert(self, rows: Sequence[Row]) -> None:
        """Add rows, or replace those of the same numbers; of two with one number the last counts.

        Raises ValueError naming the first row whose vector is refused; then no row is added.
        """
        if not rows:
            return
        size = self._vectors.shape[1] or rows[0].vector.size
        latest, vectors = checked_rows(rows, size)
        facts = np.empty(len(latest), FACTS)
        facts["number"] = [row.number for row in latest]
        for field in FIELDS:
            known = [row.facts.get(field.name) for row in latest]
            codes = self._codes.get(field)
            facts[field.name] = (
                [UNKNOWN_TIME if time is None else time for time in known]
                if codes is None
                else list(map(codes.of, known))
            )
        known_places = self._places
        self._reserve(len(self) + sum(row.number not in known_places for row in latest), size)
        places = [known_places.setdefault(row.number, len(known_places)) for row in latest]
        self._rows = len(known_places)
        self._read(np.array(places))
        self._vectors[places] = torch.from_numpy(vectors).to(self._device)
        for name, column in self._facts.items():
            column[places] = facts[name]
        self._changed.update(place // BLOCK_ROWS for place in places)
        if self._compressed:
            self._compressed.write(np.array(places), vectors)

    def remove(self, numbers: Collection[int]) -> None:
        """Forget rows; numbers that are not there are none."""
        known_places = self._places
        gone = [known_places.pop(number) for number in known_places.keys() & set(numbers)]
        if not gone:
            return
        rows = self._rows = len(known_places)
        # The last rows move to the places that became free.
        freed = np.array([place for place in gone if place < rows], np.int64)
        last = np.setdiff1d(np.arange(rows, rows + len(gone)), gone)
        self._read(np.concatenate([freed, last]))
        for part in _parts(len(freed), TILE_VALUES, self._vectors.shape[1]):
            self._vectors[freed[part]] = self._vectors[last[part]]
        for column in self._facts.values():
            column[freed] = column[last]
        self._places.update(zip(self._facts["number"][freed].tolist(), freed.tolist(), strict=True))
        self._changed.update((freed // BLOCK_ROWS).tolist(), [rows // BLOCK_ROWS])
        if self._compressed:
            self._compressed.move(last, freed, rows)

    def allocate(self, rows: int, size: int) -> Vectors:
        """Room for vectors (n, E), on the disk if there is a folder for them."""
        values = max(1, rows * size)  # nothing cannot be mapped
        if self._folder is None:
            # Not from numpy, which has Linux clear 2 MiB where a row is read into memory that nothing was in.
            room = mmap(-1, 4 * values, flags=MAP_PRIVATE | MAP_ANONYMOUS)
        else:
            with TemporaryFile(dir=self._folder) as file:
                file.truncate(4 * values)
                room = self._mapped = mmap(file.fileno(), 4 * values)
        return np.frombuffer(room, np.float32)[: rows * size].reshape(rows, size)

    def memory(self, rows: int, size: int) -> int:
        """How many bytes of memory so many rows of a size take, about."""
        return rows * ((4 * size if self._folder is None else 0) + size * self._compresses + ROW_BYTES)

    @property
    def file_bytes(self) -> int:
        """How large a file of the rows is, about."""
        return len(self) * (5 * self._vectors.shape[1] + FACTS.itemsize)

    def begin(self, file: BinaryIO) -> Writing:
        """Begin to write the rows to a file."""
        self._prepare()
        self._changed.clear()
        return Writing(file, len(self), self._vectors.shape[1], self._compressed is not None)

    def write(self, writing: Writing) -> bool:
        """Write a block of rows that the file lacks, or has as it was; tells whether it has them all.

        Raises OSError, and `Full` where a new file is to be begun.
        """
        writing.stale |= self._changed
        self._changed.clear()
        blocks = blocks_of(len(self))
        writing.stale = {block for block in writing.stale if block < blocks}
        if writing.coded != (self._compressed is not None):
            raise Full("the rows have other codes by now")
        if writing.stale:
            block = min(writing.stale)
            places = np.arange(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(self)))
            self._read(places)
            codes = None if self._compressed is None else self._compressed.codes(places)
            writing.write(block, self._vectors[places[0] : places[-1] + 1].cpu().numpy(), codes)
        return not writing.stale

    def finish(self, writing: Writing, about: Mapping[str, Any]) -> None:
        """Write all else to a file that has all rows, with what it is about; raises OSError."""
        rest = {} if self._compressed is None else self._compressed.rest
        for field, codes in self._codes.items():
            rest[VALUES.format(field=field.name)] = np.frombuffer(codes.kept(), np.uint8)
        facts = np.empty(len(self), FACTS)
        for name, column in self._facts.items():
            facts[name] = column[: len(self)]
        writing.finish(len(self), about, rest | {"facts": facts})

    def restore(self, saved: Saved) -> None:
        """Have the rows of a file in the place of those that there are, of which vectors may be read when needed.

        Raises ValueError for rows of other fields, and Damaged; then it is to be cleared.
        """
        facts = saved.rest["facts"]
        if facts.dtype != FACTS:
            raise ValueError(f"it has the fields {facts.dtype.names}; expected {FACTS.names}")
        self.clear()
        for field in self._codes:
            self._codes[field] = _Codes(saved.rest[VALUES.format(field=field.name)].tobytes())
        self._rows, self._placed = saved.rows, None
        self._facts = _columns(len(saved.vectors))
        for name, column in self._facts.items():
            column[: saved.rows] = facts[name]
        self._unread = saved.unread
        if self._device.type != "cpu":
            self._read()
        self._vectors = torch.from_numpy(saved.vectors).to(self._device)
        if saved.codes is not None and self._compresses:
            self._compressed = Compressed.restored(saved.codes, saved.rest)

    def read_on(self) -> bool:
        """Read a portion of the vectors that are left in a file, and tell whether some are left; raises Damaged."""
        if self._unread is None:
            return False
        self._unread.read_portion()
        self._let_go()
        return self._unread is not None

    def _read(self, places: Places | None = None) -> None:
        """Have the vectors at these places, or all, in memory; raises Damaged."""
        if self._unread is not None:
            self._unread.read(places)
            self._let_go()

    def _let_go(self) -> None:
        """Let go of a file of which all was read."""
        if self._unread is not None and not self._unread.some:
            self._unread = None
            if self._mapped is not None:
                self._mapped.madvise(MADV_DONTNEED)  # what was read by now stays with the file alone

    def search(self, vectors: Vectors, count: int, chosen: Filter) -> list[Found]:
        """Find the `count` best items for each of the unit vectors (n, E) among those that pass the filter.

        Raises ValueError for a count below 1 and vectors that are not (n, E), or not finite or unit.
        """
        queries = checked_queries(vectors, count, self._vectors.shape[1])
        passing = self._passing(chosen)
        rows = int(np.count_nonzero(passing))
        if not (rows and len(queries)):
            return [Found((), 0)] * len(queries)
        best = min(count, rows)
        found: list[Found] = []
        for block in torch.from_numpy(queries).to(self._device).split(QUERIES_AT_ONCE):
            parts = [self._rank(block, some, best) for some in self._candidates(block, passing, best)]
            found += [Found(_best(hits, best), rows) for hits in zip(*parts, strict=True)]
        return found

    def _reserve(self, rows: int, size: int) -> None:
        """Make room for `rows`, twice as much as there was, so that adding one by one copies little."""
        room = len(self._facts["number"])
        if rows <= room:
            return
        capacity, held = max(rows, 2 * room), len(self)
        self._read()
        facts = _columns(capacity)
        vectors = torch.from_numpy(self.allocate(capacity, size)).to(self._device)
        if held:
            vectors[:held] = self._vectors[:held]
            for name, column in facts.items():
                column[:held] = self._facts[name][:held]
        self._vectors, self._facts = vectors, facts

    def _passing(self, chosen: Filter) -> Mask:
        """Which rows (N,) pass the filter."""
        passing = np.ones(len(self), bool)
        for one in chosen.conditions():
            values = self._facts[one.field.name][: len(self)]
            if isinstance(one, Among):
                having = self._codes[one.field].having(one.attribute, one.texts)
                codes = np.flatnonzero(having)
                among = values == codes[0] if len(codes) == 1 else having[values]  # which takes ten times as long
                passing &= ~among if one.excluded else among
                continue
            if one.since is not None:
                passing &= values >= one.since
            if one.until is not None:
                passing &= (values < one.until) & (values != UNKNOWN_TIME)
        return passing

    def _candidates(self, queries: torch.Tensor, passing: Mask, count: int) -> Iterable[Candidates]:
        """All rows that may be among the `count` best of those `passing` (N,), for queries (B, E), some at a time."""
        places = np.flatnonzero(passing)
        found = self._neighbours(queries, places, count) if self._faiss else None
        found = found or self._closest(queries, passing, len(places), count)
        if found:
            return [found]
        self._read(places)
        parts = _parts(len(places), BLOCK_VALUES, len(queries))
        return (self._products(queries, places[part], count) for part in parts)

    def _closest(self, queries: torch.Tensor, passing: Mask, rows: int, count: int) -> Candidates | None:
        """Have the compressed rows tell which of `rows` that are `passing` (N,) may be among the `count` best.

        None where multiplying all of them is faster: for many queries, few rows or, in memory, few of those that there
        are, and where many rows are so close to the best that they cannot tell.
        """
        worthwhile = rows >= COMPRESSED_ROWS and 0 < len(queries) <= COMPRESSED_QUERIES and count <= COMPRESSED_COUNT
        in_memory = self._folder is None and self._unread is None
        sparse = in_memory and rows < len(passing) and rows * queries.shape[1] < SPARSE * len(passing)
        if not (self._compresses and worthwhile) or sparse:
            return None
        if self._skipped < min(2**self._crowded - 1, MOST_SKIPPED):
            self._skipped += 1
            return None
        compressed = self._compress()
        mask = passing if rows < len(passing) else None
        found = [compressed.candidates(query, count, mask) for query in queries.numpy()]
        if any(places is None for places in found):
            self._crowded, self._skipped = self._crowded + 1, 0
            return None
        self._crowded = 0
        places = [torch.from_numpy(some) for some in found if some is not None]
        products = []
        for some, query in zip(places, queries, strict=True):
            self._read(some.numpy())
            products.append((self._vectors[some] @ query).clamp_(-1, 1))
        query = torch.arange(len(places)).repeat_interleave(torch.tensor([len(some) for some in places]))
        return nearest_pairs(torch.cat(products), query, torch.cat(places), count, _error(queries))

    def _prepare(self) -> None:
        """Make what searches of all rows need, before the first of them."""
        if self._compresses and len(self) >= COMPRESSED_ROWS:
            self._compress()

    def _compress(self) -> Compressed:
        """The compressed rows, made anew where they do not fit."""
        if self._compressed is None or not self._compressed.fits:
            self._read()
            self._compressed = Compressed(self._vectors[: len(self)].numpy())
            self._changed.update(range(blocks_of(len(self))))
        return self._compressed

    def _products(self, queries: torch.Tensor, places: Places, count: int) -> Candidates:
        """Multiply queries (B, E) with the rows at `places` (M,), rising, and leave out those that are too far."""
        groups = -(-len(places) // GROUP)
        products = torch.empty(groups * GROUP, len(queries), device=self._device)
        products[len(places) :] = -torch.inf
        if len(queries) == 1 and self._compresses:
            products[: len(places), 0] = torch.from_numpy(
                products_of_one(self._vectors.numpy(), places, queries.numpy())
            )
        else:
            for part in _parts(len(places), TILE_VALUES, queries.shape[1]):
                products[: len(places)][part] = _multiply(self._vectors, places[part], queries)
        error = _error(queries)
        grouped = products.clamp_(-1, 1).view(groups, GROUP, -1)
        all_places = torch.from_numpy(places).to(self._device)
        if groups >= count:
            best = grouped.amax(dim=1).T.contiguous()
            # The best of `count` groups are as many rows, so that no row further below is among the best.
            least = least_product(best, count, error)
            query, group = (best >= least).nonzero(as_tuple=True)
            if len(query) <= best.numel() // CROWDED:
                rows = grouped[group, :, query]
                pair, row = (rows >= least[query]).nonzero(as_tuple=True)
                return nearest_pairs(rows[pair, row], query[pair], all_places[group[pair] * GROUP + row], count, error)
        return nearest(products[: len(places)].T, all_places.expand(len(queries), -1), count, error)

    def _neighbours(self, queries: torch.Tensor, places: Places, count: int) -> Candidates | None:
        """Have FAISS find the best rows for queries (B, E) on the GPU: as `_products`, without rows that are too far.

        None where it may have left out a row that could be among the `count` best. The rows that pass are gathered
        first: GPU FAISS takes a selector of rows without complaint, and ignores it.
        """
        wanted = min(count + KNN_SPARE, KNN_LIMIT)
        if count > wanted:
            return None
        products, columns, left_out = [], [], [torch.full((len(queries), 1), -torch.inf, device=self._device)]
        for part in _parts(len(places), KNN_VALUES, queries.shape[1]):
            tile = places[part]
            rows, closest = _rows(self._vectors, tile), min(wanted, len(tile))
            device, metric = rows.get_device(), self._faiss.METRIC_INNER_PRODUCT
            with torch.cuda.device(device):  # FAISS takes the stream of the current device, not that of `device`
                best, indices = self._faiss.knn_gpu(
                    self._resources, queries, rows, closest, metric=metric, device=device
                )
            products.append(best.clamp_(-1, 1))
            columns.append(torch.from_numpy(tile).to(self._device)[indices])
            if closest < len(tile):
                left_out.append(best[:, -1:])  # the others of this tile are no better
        joined, error = torch.cat(products, dim=1), _error(queries)
        if (torch.cat(left_out, dim=1).amax(dim=1, keepdim=True) >= least_product(joined, count, error)).any():
            return None
        return nearest(joined, torch.cat(columns, dim=1), count, error)

    def _rank(self, queries: torch.Tensor, candidates: Candidates, count: int) -> list[tuple[Hit, ...]]:
        """Score the candidates that may be among the `count` best of each query, and sort them."""
        query, place = candidates
        scores, exact = np.empty(len(place)), queries.double()
        for part in _parts(len(place), PAIR_VALUES, queries.shape[1]):
            asked, rows = exact.index_select(0, query[part]), self._vectors.index_select(0, place[part])
            # Not a matrix product, which rounds a row differently at another place. NumPy's sum along a row does not.
            scores[part] = asked.mul_(rows).cpu().numpy().sum(axis=1)
        scores = scores.clip(-1, 1)
        numbers, owners = self._facts["number"][place.cpu().numpy()], query.cpu().numpy()
        order = np.lexsort((numbers, -scores, owners))
        best = order[np.arange(len(order)) - np.searchsorted(owners, owners) < count]
        hits = list(map(Hit, numbers[best].tolist(), scores[best].tolist()))
        each = len(hits) // len(queries)  # `count`, or all rows of a part that are fewer
        return [tuple(hits[start : start + each]) for start in range(0, len(hits), each)]


class _Codes:
    """A number for every value that a field has had, 0 for none, so that rows are compared by these."""

    def __init__(self, kept: bytes = b"[]") -> None:
        """Begin with what another one kept, which is read when it is first asked for: there may be one for each row."""
        self._codes: dict[str | frozenset[tuple[str, str]] | None, int] = {None: 0}
        self._having: dict[tuple[str, str], list[int]] = {}  # the codes of values, by an attribute and its text
        self._unread = kept

    def kept(self) -> bytes:
        """All values but none in the order of their codes, as JSON: texts, or pairs of an attribute and its text."""
        self._read()
        return json.dumps(
            [value if isinstance(value, str) else sorted(value or ()) for value in list(self._codes)[1:]]
        ).encode()

    def _read(self) -> None:
        kept, self._unread = self._unread, b""
        for value in json.loads(kept) if kept else ():
            self.of(value if isinstance(value, str) else dict(value))

    def of(self, fact: Fact | None) -> int:
        """The code of a value."""
        if self._unread:
            self._read()
        value = frozenset(fact.items()) if isinstance(fact, Mapping) else cast(str | None, fact)
        code = self._codes.get(value)
        if code is None:
            code = self._codes[value] = len(self._codes)
            for pair in [("", value)] if isinstance(value, str) else value or ():
                self._having.setdefault(pair, []).append(code)
        return code

    def having(self, attribute: str, texts: Collection[str]) -> Mask:
        """For each code whether its value, or that of one of its attributes, is among the texts."""
        self._read()
        mask = np.zeros(len(self._codes), bool)
        mask[[code for text in texts for code in self._having.get((attribute, text), ())]] = True
        return mask


def _columns(rows: int) -> dict[str, npt.NDArray[Any]]:
    """Room for what rows are filtered by, each field by itself: of a filter, few are read."""
    return {name: np.empty(rows, FACTS[name]) for name in FACTS.names or ()}


def least_product(products: torch.Tensor, count: int, error: float) -> torch.Tensor:
    """The product (B, 1) below which no row can be among the `count` best, of products (B, C) off by at most `error`.

    The rows of the `count` best products, of which the last is p, have scores of at least p - error. So the `count`
    best scores are at least p - error, and their products at least p - 2 * error.
    """
    return products.topk(count, dim=1).values[:, -1:] - 2 * error


def nearest(products: torch.Tensor, places: torch.Tensor, count: int, error: float) -> Candidates:
    """The rows at `places` (B, C) that may be among the `count` best, by products (B, C) off by at most `error`."""
    least = least_product(products, min(count, products.shape[1]), error)
    query, column = (products >= least).nonzero(as_tuple=True)
    return Candidates(query, places[query, column])


def nearest_pairs(
    products: torch.Tensor, query: torch.Tensor, places: torch.Tensor, count: int, error: float
) -> Candidates:
    """As `nearest`, of as many rows for a query (P,), rising, as there are for it: `count` or more."""
    order = products.argsort(descending=True)
    order = order[query[order].argsort(stable=True)]
    query, products = query[order], products[order]
    ends = torch.searchsorted(query, query) + count - 1
    kept = products >= products[ends] - 2 * error
    return Candidates(query[kept], places[order[kept]])


def _best(parts: Sequence[tuple[Hit, ...]], count: int) -> tuple[Hit, ...]:
    """The `count` best of the hits of some parts, each of which has its own `count` best, sorted."""
    if len(parts) == 1:
        return parts[0]
    return tuple(islice(merge(*parts, key=lambda hit: (-hit.score, hit.number)), count))


def _error(queries: torch.Tensor) -> float:
    """The most by which a matrix product of queries (B, E) and rows, all of unit length, is off.

    Summed in any order, float32 is off by E * 2**-24; twice that leaves room for lengths that are nearly 1. A process
    may have allowed torch to cut the factors to fewer bits, which training likes.
    """
    backend = torch.backends.cuda if queries.is_cuda else torch.backends.mkldnn
    return queries.shape[1] * 2.0**-23 + ROUNDING.get(backend.matmul.fp32_precision, 0.0)


def _multiply(matrix: torch.Tensor, places: Places, queries: torch.Tensor) -> torch.Tensor:
    """The products (M, B) of the rows at rising places (M,) with queries (B, E)."""
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 > SPREAD * len(places):
        return _product(_rows(matrix, places), queries)
    return _rows(_product(matrix[first : last + 1], queries), places - first)


def _product(rows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    if len(queries) == 1:  # asked twice: with one vector BLAS takes another routine, which is half as fast
        return (rows @ queries.repeat(2, 1).T)[:, :1]
    if len(queries) in FEW_QUERIES and queries.shape[1] >= LONG_ROW:
        return (queries @ rows.T).T
    return rows @ queries.T


def _rows(matrix: torch.Tensor, places: Places) -> torch.Tensor:
    """The rows at rising places, copied only where other rows lie between them."""
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 == len(places):
        return matrix[first : last + 1]
    return matrix.index_select(0, torch.from_numpy(places).to(matrix.device))


def _parts(rows: int, values: int, size: int) -> Iterator[slice]:
    """Cut rows of `size` values into parts of about `values`."""
    step = max(1, values // size)
    return (slice(start, start + step) for start in range(0, rows, step))


def _gpu_faiss(device: torch.device) -> Any:
    """FAISS, if `device` is a GPU and an installed FAISS can use it, else None."""
    if device.type != "cuda":
        return None
    try:
        faiss = import_module("faiss")
    except ImportError:
        return None
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        return None
    import_module("faiss.contrib.torch_utils")  # makes its functions take tensors
    return faiss
