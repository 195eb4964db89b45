"""What every engine is given, checked: rows and queries."""

from collections.abc import Sequence

import numpy as np

from service.records import Row, Vectors

UNIT_TOLERANCE = 1e-3
UNKNOWN_TIME = int(np.iinfo(np.int64).min)


def checked_rows(rows: Sequence[Row], size: int) -> tuple[list[Row], Vectors]:
    """The last row of every number, and their vectors (n, size).

    Raises ValueError naming the first row whose vector has another size, or is not finite and unit.
    """
    latest = list({row.number: row for row in rows}.values())
    for row in latest:
        if row.vector.shape != (size,):
            raise ValueError(f"item {row.number}: the vector has shape {row.vector.shape}; expected ({size},)")
    vectors = np.array([row.vector for row in latest], np.float32).reshape(len(latest), size)
    _require_unit(vectors, "item", [row.number for row in latest])
    return latest, vectors


def checked_queries(vectors: Vectors, count: int, size: int) -> Vectors:
    """A copy of the queries (n, E) of which each shall have `count` answers; E is `size`, or any if that is 0.

    Raises ValueError for a count below 1 and vectors that are not (n, E), or not finite and unit.
    """
    if count < 1:
        raise ValueError(f"count is {count}; expected at least 1")
    queries = np.array(vectors, np.float32)
    if queries.ndim != 2 or (size and queries.shape[1] != size):
        raise ValueError(f"the queries have shape {queries.shape}; expected (n, {size or 'E'})")
    _require_unit(queries, "query", range(len(queries)))
    return queries


def _require_unit(vectors: Vectors, kind: str, numbers: Sequence[int]) -> None:
    lengths = np.sqrt(np.einsum("ne,ne->n", vectors, vectors, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))  # NaN is wrong, too
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(f"{kind} {numbers[first]}: the vector has length {lengths[first]:.6g}; expected finite and 1")
