"""The search engine in memory: exact, and built again from the store at every start.

N rows, E embedding size, B queries of one block, M rows that pass the filter, C candidates of a query. A place is
where a row lies in the matrix: removals change it, while the row keeps its number.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from service.engines.inputs import UNKNOWN_TIME, checked_queries, checked_rows
from service.fields import FIELDS, Among, Fact, Filter
from service.records import Found, Hit, Row, Vectors

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

TILE_VALUES = 2**21  # of rows gathered and multiplied at a time: 8 MiB, which a processor's cache holds
SPREAD = 2  # rows multiplied for one that passes, before gathering those is faster: 1.3 for 64 queries, 3 for one
KNN_VALUES = 2**27  # of rows gathered for FAISS at a time: 512 MiB of the GPU
BLOCK_VALUES = 2**25  # products held at a time: 128 MiB
PAIR_VALUES = 2**18  # of rows scored again at a time
KNN_LIMIT = 2048  # neighbours that FAISS finds on a GPU
KNN_SPARE = 64  # asked of it beyond those wanted, for ties
FACTS = np.dtype(
    [("number", np.int64), *((field.name, np.int64 if field.kind == "time" else np.int32) for field in FIELDS)]
)  # times, and the codes of names and of attributes
ROUNDING = {"tf32": 2.0**-9, "bf16": 2.0**-6}  # of products with factors cut to fewer bits, for unit vectors


class Candidates(NamedTuple):
    """What may be among the best: products (B, C) in [-1, 1], or -inf for no row, and the rows' places (B, C).

    A product is off from the row's score by at most `error`, and every row left out is known to be no better.
    """

    products: torch.Tensor
    places: torch.Tensor
    error: float


class MemoryEngine:
    """An exact `SearchEngine`: one matrix on `device`, multiplied with the queries.

    A score is a sum of E products in float64, the same wherever the row lies and however many queries are asked at
    once, so that equal photos tie exactly. On a GPU, FAISS finds the candidates if it is installed and built for one.

    Raises ValueError for a vector of another size than the first one had, and one whose length is not 1 within 1e-3.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._faiss = _gpu_faiss(self._device)
        self._resources = self._faiss.StandardGpuResources() if self._faiss else None
        self._places: dict[int, int] = {}  # of every number; without gaps from 0 to N
        self._vectors = torch.empty(0, 0, device=self._device)  # (capacity, E)
        self._facts = np.empty(0, FACTS)  # (capacity,)
        self._codes = {field: _Codes() for field in FIELDS if field.kind != "time"}

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._places)

    def numbers(self) -> set[int]:
        """The numbers of all rows."""
        return set(self._places)

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
        self._reserve(len(self) + sum(row.number not in self._places for row in latest), size)
        places = [self._places.setdefault(row.number, len(self._places)) for row in latest]
        self._vectors[places] = torch.from_numpy(vectors).to(self._device)
        self._facts[places] = facts

    def remove(self, numbers: Collection[int]) -> None:
        """Forget rows; numbers that are not there are none."""
        gone = [self._places.pop(number) for number in self._places.keys() & set(numbers)]
        if not gone:
            return
        rows = len(self)
        # The last rows move to the places that became free.
        freed = np.array([place for place in gone if place < rows], np.int64)
        last = np.setdiff1d(np.arange(rows, rows + len(gone)), gone)
        for part in _parts(len(freed), TILE_VALUES, self._vectors.shape[1]):
            self._vectors[freed[part]] = self._vectors[last[part]]
        self._facts[freed] = self._facts[last]
        self._places.update(zip(self._facts["number"][freed].tolist(), freed.tolist(), strict=True))

    def search(self, vectors: Vectors, count: int, chosen: Filter) -> list[Found]:
        """Find the `count` best items for each of the unit vectors (n, E) among those that pass the filter.

        Raises ValueError for a count below 1 and vectors that are not (n, E), or not finite or unit.
        """
        queries = checked_queries(vectors, count, self._vectors.shape[1])
        passing = self._passing(chosen)
        rows = int(np.count_nonzero(passing))
        if not rows:
            return [Found((), 0)] * len(queries)
        best = min(count, rows)
        found: list[Found] = []
        for block in torch.from_numpy(queries).to(self._device).split(max(1, BLOCK_VALUES // rows)):
            hits = self._rank(block, self._candidates(block, passing, best), best)
            found += [Found(those, rows) for those in hits]
        return found

    def _reserve(self, rows: int, size: int) -> None:
        """Make room for `rows`, twice as much as there was, so that adding one by one copies little."""
        if rows <= len(self._facts):
            return
        capacity, held = max(rows, 2 * len(self._facts)), len(self)
        vectors, facts = torch.empty(capacity, size, device=self._device), np.empty(capacity, FACTS)
        if held:
            vectors[:held], facts[:held] = self._vectors[:held], self._facts[:held]
        self._vectors, self._facts = vectors, facts

    def _passing(self, chosen: Filter) -> Mask:
        """Which rows (N,) pass the filter."""
        facts = self._facts[: len(self)]
        passing = np.ones(len(facts), bool)
        for one in chosen.conditions():
            values = facts[one.field.name]
            if isinstance(one, Among):
                among = self._codes[one.field].having(one.attribute, one.texts)[values]
                passing &= ~among if one.excluded else among
                continue
            if one.since is not None:
                passing &= values >= one.since
            if one.until is not None:
                passing &= (values < one.until) & (values != UNKNOWN_TIME)
        return passing

    def _candidates(self, queries: torch.Tensor, passing: Mask, count: int) -> Candidates:
        """All rows that may be among the `count` best of those `passing` (N,), for queries (B, E)."""
        places = np.flatnonzero(passing)
        return (self._neighbours(queries, places, count) if self._faiss else None) or self._products(queries, places)

    def _products(self, queries: torch.Tensor, places: Places) -> Candidates:
        """Multiply queries (B, E) with the rows at `places` (M,), rising."""
        # A lone query is asked twice: with one vector BLAS takes another routine, which is half as fast.
        asked = queries if len(queries) > 1 else queries.repeat(2, 1)
        products = torch.empty(len(queries), len(places), device=self._device)
        for part in _parts(len(places), TILE_VALUES, queries.shape[1]):
            products[:, part] = _multiply(self._vectors, places[part], asked).T[: len(queries)]
        columns = torch.from_numpy(places).to(self._device).expand_as(products)
        return Candidates(products.clamp_(-1, 1), columns, _error(queries))

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
            rows, nearest = _rows(self._vectors, tile), min(wanted, len(tile))
            device, metric = rows.get_device(), self._faiss.METRIC_INNER_PRODUCT
            with torch.cuda.device(device):  # FAISS takes the stream of the current device, not that of `device`
                best, indices = self._faiss.knn_gpu(
                    self._resources, queries, rows, nearest, metric=metric, device=device
                )
            products.append(best.clamp_(-1, 1))
            columns.append(torch.from_numpy(tile).to(self._device)[indices])
            if nearest < len(tile):
                left_out.append(best[:, -1:])  # the others of this tile are no better
        joined, error = torch.cat(products, dim=1), _error(queries)
        if (torch.cat(left_out, dim=1).amax(dim=1, keepdim=True) >= least_product(joined, count, error)).any():
            return None
        return Candidates(joined, torch.cat(columns, dim=1), error)

    def _rank(self, queries: torch.Tensor, candidates: Candidates, count: int) -> list[tuple[Hit, ...]]:
        """Score the candidates that may be among the `count` best of each query, and sort them."""
        products, places, error = candidates
        query, column = (products >= least_product(products, count, error)).nonzero(as_tuple=True)
        place = places[query, column]
        scores = np.empty(len(place))
        for part in _parts(len(place), PAIR_VALUES, queries.shape[1]):
            asked = queries.index_select(0, query[part]).cpu().numpy()
            rows = self._vectors.index_select(0, place[part]).cpu().numpy()
            # Not a matrix product, which rounds a row differently at another place. The sum along a row does not.
            scores[part] = np.multiply(asked, rows, dtype=np.float64).sum(axis=1)
        scores = scores.clip(-1, 1)
        numbers, owners = self._facts["number"][place.cpu().numpy()], query.cpu().numpy()
        order = np.lexsort((numbers, -scores, owners))
        starts = np.searchsorted(owners, np.arange(len(queries)))
        best = [order[start : start + count] for start in starts]
        return [tuple(map(Hit, numbers[some].tolist(), scores[some].tolist())) for some in best]


class _Codes:
    """A number for every value that a field has had, 0 for none, so that rows are compared by these."""

    def __init__(self) -> None:
        self._codes: dict[str | frozenset[tuple[str, str]] | None, int] = {None: 0}
        self._having: dict[tuple[str, str], list[int]] = {}  # the codes of values, by an attribute and its text

    def of(self, fact: Fact | None) -> int:
        """The code of a value."""
        value = frozenset(fact.items()) if isinstance(fact, Mapping) else cast(str | None, fact)
        code = self._codes.get(value)
        if code is None:
            code = self._codes[value] = len(self._codes)
            for pair in [("", value)] if isinstance(value, str) else value or ():
                self._having.setdefault(pair, []).append(code)
        return code

    def having(self, attribute: str, texts: Collection[str]) -> Mask:
        """For each code whether its value, or that of one of its attributes, is among the texts."""
        mask = np.zeros(len(self._codes), bool)
        mask[[code for text in texts for code in self._having.get((attribute, text), ())]] = True
        return mask


def least_product(products: torch.Tensor, count: int, error: float) -> torch.Tensor:
    """The product (B, 1) below which no row can be among the `count` best, of products (B, C) off by at most `error`.

    The rows of the `count` best products, of which the last is p, have scores of at least p - error. So the `count`
    best scores are at least p - error, and their products at least p - 2 * error.
    """
    return products.topk(count, dim=1).values[:, -1:] - 2 * error


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
        return _rows(matrix, places) @ queries.T
    products = matrix[first : last + 1] @ queries.T
    return _rows(products, places - first)


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
