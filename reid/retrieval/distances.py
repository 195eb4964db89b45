"""Cosine and Euclidean distances between query and gallery features, a block of queries at a time.

Q queries, G gallery rows, E embedding size, B queries of one block.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any] | torch.Tensor
Distance = Literal["cosine", "euclidean"]
Progress = Callable[[int, int], None]  # done, total

ONE_WAY = 0.9  # share of their mean square that the rows' mean has, from which on they count as pointing one way
ROUNDING = 2.0**-24  # of one operation in float32, relative
DISTINCT = 2**22  # whole numbers below it have roots, and as shares of it are numbers, that differ in float32
TILE_ROWS = 2**15  # gallery rows read, converted to float32 and multiplied at a time
PAIR_VALUES = 2**21  # feature values read for listed pairs at a time: 16 MiB of float64 for either side


class Distances(Protocol):
    """What every ranking is made of: the distances of Q queries to G gallery rows, some queries at a time.

    `shape` is (Q, G). `rows(start, stop)` are the distances of queries `start` to `stop` (excluded) to the whole
    gallery: (B, G) float32 or float64 on `device`, smaller is closer, written to `out` if given.
    """

    shape: tuple[int, int]
    device: torch.device

    def rows(self, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor: ...


class FeatureDistances:
    """Distances of any queries to every gallery row, computed when they are asked for.

    `query_features` (Q, E) and `gallery_features` (G, E) hold real numbers of any width, in memory or memory-mapped,
    and are read in place, copied as a whole only to another device. `device` defaults to where the gallery features
    are. Equal gallery rows have equal distances, to the last bit, which a matrix product alone does not grant.
    Embeddings that nearly all point one way, as trained ones often do, or lie far from 0, are told apart by their
    differences from the mean: else all their distances, close to one another, would lose in float32 what the ranking is
    made of. `bounds` tells which distances float32 leaves in doubt; `exact` and `exact_rows` decide them.

    Raises ValueError for arrays that are not (rows, E) with at least one row, of two different E, with NaN or infinite
    rows, or (cosine) with rows of length zero, and for an unknown distance.
    """

    def __init__(
        self,
        query_features: Array,
        gallery_features: Array,
        distance: Distance = "cosine",
        device: torch.device | str | None = None,
    ) -> None:
        if distance not in get_args(Distance):
            raise ValueError(f"distance is {distance!r}; expected one of {', '.join(get_args(Distance))}")
        # The gallery is checked first: where one array is both sides, as for neighbours in the gallery, it is named.
        gallery = as_matrix(gallery_features, "gallery_features")
        query = as_matrix(query_features, "query_features")
        if query.shape[1] != gallery.shape[1]:
            raise ValueError(
                f"query_features have {query.shape[1]} columns and gallery_features {gallery.shape[1]}; "
                "expected the same embedding size, that is the same model and feature choice"
            )
        self.shape = (len(query), len(gallery))
        self.device = gallery.device if device is None else torch.device(device)
        self._distance = distance
        self._query, self._gallery = query.to(self.device), gallery.to(self.device)
        self._gallery_sizes = _sizes(self._gallery, "gallery_features", distance)
        self._query_sizes = _sizes(self._query, "query_features", distance)
        self._first = _first_equal_rows(self._gallery)
        self._repeated = (self._first != torch.arange(len(gallery), device=self.device)).nonzero().flatten()
        self._whole = _are_whole(self._gallery) and _are_whole(self._query)
        self._mean = self._common_part()
        if self._mean is not None and distance == "euclidean":
            self._gallery_sizes, self._query_sizes = (
                torch.cat([self._ready(side[tile]).square().sum(dim=1) for tile in _tiles(len(side))])
                for side in (self._gallery, self._query)
            )
        self._query_lengths = self._query_sizes.double().sqrt()
        if self._mean is not None and distance == "cosine":
            tiles = (self._wide_rows(self._query[tile]) for tile in _tiles(len(query)))
            self._query_lengths = torch.cat([torch.linalg.vector_norm(tile, dim=1) for tile in tiles])
        self._exact = self._whole and self._keeps_order()

    @torch.no_grad()
    def rows(self, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the distances of queries `start` to `stop` (excluded) to the whole gallery.

        Returns (B, G) float32 on `device`, written to `out` if given: 1 - cosine, in [0, 2] up to rounding, or the
        Euclidean distance of the features as they are.
        """
        sizes = self._query_sizes[start:stop, None]
        queries = self._ready(self._query[start:stop])
        block = torch.empty(len(queries), self.shape[1], device=self.device) if out is None else out
        with _full_precision():
            for tile in _tiles(self.shape[1]):
                part, gallery_sizes = block[:, tile], self._gallery_sizes[tile]
                gallery = self._ready(self._gallery[tile])
                if self._distance == "euclidean":
                    torch.mm(queries * -2, gallery.T, out=part).add_(gallery_sizes).add_(sizes).clamp_(min=0).sqrt_()
                elif self._mean is not None:
                    _half_squared_distances(queries, gallery, part)
                else:
                    torch.mm(queries, gallery.T, out=part).div_(gallery_sizes).div_(-sizes).add_(1)
        if len(self._repeated):
            block[:, self._repeated] = block[:, self._first[self._repeated]]
        return block

    def bounds(
        self, queries: torch.Tensor, distances: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """How low and how high another distance of the same query may be for its order to be in doubt.

        `distances` are some that `rows` gave, each of the query at the same place of `queries`, indices of any shape
        that fits. What is at most the lower bound is nearer without doubt, what is above the upper one is farther.
        Both are `distances` themselves where none is in doubt.
        """
        if self._exact:
            return distances, distances
        values = distances.astype(np.float64)
        squared = values**2 if self._distance == "euclidean" else values
        # Errors of a product grow with the root of its length at most, save in cases that are made for it; the largest
        # of millions were half of this. Those of the differences from a mean come before the product.
        doubt = 2 * ROUNDING * (12 + self._query.shape[1] ** 0.5 / 4) * self._multiplied(queries, squared)
        if self._distance == "cosine":
            doubt += 8 * ROUNDING * np.sqrt(2 * squared.clip(min=0)) if self._mean is not None else 0
            low, high = values - doubt, values + doubt
        else:
            low, high = np.sqrt((squared - doubt).clip(min=0)), np.sqrt(squared + doubt)
            low[squared < doubt] = -1  # not even 0 is nearer without doubt
        return np.nextafter(low.astype(np.float32), -np.inf), np.nextafter(high.astype(np.float32), np.inf)

    @torch.no_grad()
    def exact(self, queries: torch.Tensor, gallery: torch.Tensor) -> npt.NDArray[np.float64]:
        """Compute what orders the distances of queries to gallery rows, indices (P,), in float64.

        Returns (P,): 1 - cosine, or the squared Euclidean distance. Equal rows have equal ones.
        """
        parts = []
        size = max(1, PAIR_VALUES // self._query.shape[1])
        # Of many equal rows, as black pictures are, one is enough.
        pairs, place = torch.unique(queries * self.shape[1] + self._first[gallery], return_inverse=True)
        for pair in pairs.split(size):
            query, row = pair // self.shape[1], pair % self.shape[1]
            left, right = self._query[query].double(), self._gallery[row].double()
            if self._distance == "euclidean":
                parts.append((left - right).square().sum(dim=1))
            elif self._whole:  # these products are exact, so that what ties does so
                products = [(a * b).sum(dim=1) for a, b in ((left, right), (left, left), (right, right))]
                parts.append(1 - products[0] / (products[1] * products[2]).sqrt())
            else:
                left, right = (side / torch.linalg.vector_norm(side, dim=1, keepdim=True) for side in (left, right))
                parts.append((left - right).square().sum(dim=1) / 2)
        return (torch.cat(parts)[place] if parts else pairs.double()).cpu().numpy()

    @torch.no_grad()
    def exact_rows(self, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor:
        """Compute what `exact` does for queries `start` to `stop` (excluded) and the whole gallery, by a product.

        Returns (B, G) float64 on `device`, written to `out` if given: off by some 1e-15 of the squared lengths of rows,
        less their mean where there is one.
        """
        queries = self._wide_rows(self._query[start:stop])
        shape, dtype = (len(queries), self.shape[1]), torch.float64
        block = torch.empty(shape, dtype=dtype, device=self.device) if out is None else out
        for tile in _tiles(self.shape[1]):
            _half_squared_distances(queries, self._wide_rows(self._gallery[tile]), block[:, tile])
        if self._distance == "euclidean":
            block.mul_(2)
        if len(self._repeated):
            block[:, self._repeated] = block[:, self._first[self._repeated]]
        return block

    def _ready(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows as they are multiplied in float32: those of `_wide_rows` where there is a mean, and else as they are."""
        return rows.float() if self._mean is None else self._wide_rows(rows).float()

    def _wide_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows in float64, unit ones for cosine, less their mean: all that tells rows apart may be small beside it."""
        wide = rows.to(torch.float64, copy=True)
        if self._distance == "cosine":
            wide.div_(torch.linalg.vector_norm(wide, dim=1, keepdim=True))
        return wide if self._mean is None else wide.sub_(self._mean)

    def _multiplied(self, queries: torch.Tensor, squared: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The squared lengths, at most, of the two rows that were multiplied for each of these distances of queries.

        A row is at most as long as the query and the distance between them are together.
        """
        if self._distance == "cosine" and self._mean is None:
            return 1 + squared
        own = self._query_lengths[queries].cpu().numpy()
        apart = np.sqrt((squared if self._distance == "euclidean" else 2 * squared).clip(min=0))
        lengths: npt.NDArray[np.float64] = own**2 + (own + apart) ** 2
        return lengths

    def _common_part(self) -> torch.Tensor | None:
        """The mean (E,) of the gallery rows, unit ones for cosine, where it is nearly as long as they are, else None.

        Others keep the plain product, which is exact for codes of whole numbers, so that these tie exactly.
        """
        total = torch.zeros(self._gallery.shape[1], dtype=torch.float64, device=self.device)
        for tile in _tiles(self.shape[1]):
            rows, sizes = _wide(self._gallery[tile]), self._gallery_sizes[tile]
            weights = 1 / sizes if self._distance == "cosine" else torch.ones_like(sizes)
            total += torch.mv(rows.T, weights.to(rows.dtype)).double()
        mean = total / self.shape[1]
        square = 1.0 if self._distance == "cosine" else float(self._gallery_sizes.mean(dtype=torch.float64))
        if float(mean.square().sum()) <= ONE_WAY * square:
            return None
        return mean.round() if self._whole and self._distance == "euclidean" else mean

    def _keeps_order(self) -> bool:
        """Whether distances of whole numbers that differ do so in float32 too, and those that tie do so exactly."""
        gallery, query = float(self._gallery_sizes.max()), float(self._query_sizes.max())
        if self._distance == "euclidean":
            return 2 * (gallery + query) < DISTINCT  # the farthest, squared
        # Of rows of one length, as codes of -1 and 1 are, cosines are products by one number.
        even = bool((self._gallery_sizes == self._gallery_sizes[0]).all())
        return even and self._mean is None and gallery * query < DISTINCT


def _half_squared_distances(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """Write to `out` half the squared distance of each row of `a` to each of `b`: of unit vectors, 1 - cosine."""
    torch.mm(-a, b.T, out=out)
    lengths = (torch.linalg.vector_norm(side, dim=1) for side in (a, b))  # without a copy of their squares
    own, other = (length.square() / 2 for length in lengths)
    out.add_(own[:, None]).add_(other).clamp_(min=0)


def as_matrix(values: Array, name: str) -> torch.Tensor:
    """View `values`, real numbers of shape (rows, columns), as a tensor, without a copy where possible.

    Raises ValueError with `name` for anything else, and where there is no row or no column.
    """
    if isinstance(values, torch.Tensor):
        values, real = values.detach(), not values.is_complex() and values.dtype != torch.bool and not values.is_sparse
    else:
        values = np.asarray(values)
        real = values.dtype.kind in "fiu" and values.dtype.itemsize <= 8
    if not real:
        raise ValueError(f"{name} are of type {values.dtype}; expected real numbers")
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} have shape {tuple(values.shape)}; expected (rows, columns), at least one of each")
    if isinstance(values, torch.Tensor):
        return values
    with warnings.catch_warnings():
        # torch warns that a read-only array (a memory map) could be written through the tensor: nothing here does.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(values, values.dtype.newbyteorder("=")))


def refuse_rows(refused: torch.Tensor, name: str, problem: str) -> None:
    """Raise ValueError naming the first rows marked in `refused` (rows,) bool, if there are any."""
    rows = refused.nonzero().flatten().tolist()
    if rows:
        named = ", ".join(str(row) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
        raise ValueError(f"{name}: {len(rows)} of {len(refused)} rows {problem} (row {named})")


def _sizes(features: torch.Tensor, name: str, distance: Distance) -> torch.Tensor:
    """The length of each row for cosine, and its square for Euclidean: exact for whole numbers, as their ties are."""
    tiles = (features[tile].float() for tile in _tiles(len(features)))
    if distance == "cosine":
        sizes = torch.cat([torch.linalg.vector_norm(tile, dim=1) for tile in tiles])
    else:
        sizes = torch.cat([tile.square().sum(dim=1) for tile in tiles])
    refuse_rows(~sizes.isfinite(), name, "are NaN, infinite or too large for float32")
    if distance == "cosine":
        refuse_rows(sizes == 0, name, "have length zero, which has no cosine")
    return sizes


def _first_equal_rows(features: torch.Tensor) -> torch.Tensor:
    """The index (rows,) of the first row equal to each, mostly its own.

    A matrix product rounds the same row differently at different places of the matrix, so that duplicate images would
    tie in one run and not in another. Rows are compared by a 64-bit hash.
    """
    first: dict[int, int] = {}
    indices: list[int] = []
    for tile in _tiles(len(features)):
        for row in _wide(features[tile]).add(0.0).cpu().numpy():  # -0.0 becomes 0.0
            indices.append(first.setdefault(hash(row.tobytes()), len(indices)))
    return torch.tensor(indices, device=features.device)


def _wide(rows: torch.Tensor) -> torch.Tensor:
    """Rows as float32, or as float64 where that would lose digits of theirs."""
    return rows.float() if rows.is_floating_point() and rows.dtype != torch.float64 else rows.double()


def _are_whole(features: torch.Tensor) -> bool:
    """Whether all values are whole numbers, small enough for exact sums of their products in float32."""
    most = (2**24 / features.shape[1]) ** 0.5
    # One row shows most of those that are not.
    tiles = (features[tile] for tile in (slice(0, 1), *_tiles(len(features))))
    return all(bool((tile == tile.round()).all()) and float(tile.abs().amax()) <= most for tile in tiles)


def _tiles(rows: int) -> Iterator[slice]:
    return (slice(start, start + TILE_ROWS) for start in range(0, rows, TILE_ROWS))


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keep float32 products in float32 where torch has been told to allow TF32 or bfloat16 for them."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    previous = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, previous, strict=True):
            backend.fp32_precision = precision
