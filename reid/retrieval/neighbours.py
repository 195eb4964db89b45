"""The nearest gallery rows of every query, found a block of queries at a time.

Float32 finds them; the order of those few that it leaves in doubt is that in float64.

Q queries, G gallery rows, B queries of one block, K neighbours.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from reid.retrieval.distances import Distances, FeatureDistances, Progress

BLOCK_DISTANCES = 2**26  # distances held at a time: 256 MiB of float32
SEARCHED_DISTANCES = 2**22  # of them, those searched at a time for what is in doubt


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The K nearest gallery rows of Q queries, nearest first.

    `indices` (Q, K) int64 are rows of the gallery, `distances` (Q, K) float32 how far away they are, and `farthest`
    (Q,) int64 is the farthest of all gallery rows.
    """

    indices: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]
    farthest: npt.NDArray[np.int64]


@torch.no_grad()
def nearest(distances: Distances, count: int, *, progress: Progress | None = None) -> Neighbours:
    """Find the `count` nearest gallery rows of every query, exactly; of tied rows the first comes first.

    `progress` is called with the number of queries done and Q. Raises ValueError unless `count` is in [1, G].
    """
    queries, gallery = distances.shape
    if not 1 <= count <= gallery:
        raise ValueError(f"{count} nearest rows asked for; expected between 1 and the {gallery} that the gallery has")
    indices = np.empty((queries, count), np.int64)
    values = np.empty((queries, count), np.float32)
    farthest = np.empty(queries, np.int64)
    buffer = torch.empty(min(queries, max(1, BLOCK_DISTANCES // gallery)), gallery, device=distances.device)
    for start in range(0, queries, len(buffer)):
        stop = min(start + len(buffer), queries)
        block = distances.rows(start, stop, buffer[: stop - start])
        closest = _closest(block, count, distances, start)
        indices[start:stop] = closest.cpu()
        values[start:stop] = block.gather(1, closest).cpu()
        farthest[start:stop] = _farthest(block, distances, start).cpu()
        if progress is not None:
            progress(stop, queries)
    return Neighbours(indices, values, farthest)


def _closest(block: torch.Tensor, count: int, source: Distances, start: int) -> torch.Tensor:
    """The nearest rows (B, count) of each query of a block (B, G), which `source` gave from query `start` on."""
    closest = _smallest(block, min(count + 1, block.shape[1]))
    values = block.gather(1, closest)
    limit = _bounds(source, start, values)[1]
    if limit is not None:
        doubtful = (values[:, 1:] <= limit[:, :-1]).any(dim=1).nonzero().flatten()
        last = limit[:, count - 1 : count]
        for query, row, place in _ordered(doubtful, lambda some: block[some] <= last[some], source, start):
            closest[query[place < count], place[place < count]] = row[place < count]
    return closest[:, :count]


def _farthest(block: torch.Tensor, source: Distances, start: int) -> torch.Tensor:
    """The farthest row (B,) of each query of a block, as of `_closest`."""
    values, found = block.max(dim=1, keepdim=True)
    limit = _bounds(source, start, values)[0]
    if limit is not None:
        every = torch.arange(len(block), device=block.device)
        for query, row, place in _ordered(every, lambda some: block[some] > limit[some], source, start, sign=-1):
            found[query[place == 0], 0] = row[place == 0]
    return found[:, 0]


def _bounds(source: Distances, start: int, values: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Where the order of distances (B, any) is in doubt: as `FeatureDistances.bounds`, None where none is."""
    if not isinstance(source, FeatureDistances):
        return None, None
    queries = torch.arange(start, start + len(values))[:, None]
    low, high = source.bounds(queries, values.cpu().numpy())
    if high is low:
        return None, None
    return torch.from_numpy(low).to(values.device), torch.from_numpy(high).to(values.device)


def _ordered(
    queries: torch.Tensor, near: Callable[[torch.Tensor], torch.Tensor], source: Distances, start: int, sign: int = 1
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Order what is near each of some queries of a block by its exact distance, farthest first where `sign` is -1.

    `near` gives (some, G) bool for some of the queries. Yields queries, gallery rows and places from 0 on, of rows
    equally far the first first.
    """
    assert isinstance(source, FeatureDistances)
    for some in queries.split(max(1, SEARCHED_DISTANCES // source.shape[1])):
        place, row = near(some).nonzero(as_tuple=True)
        query = some[place]
        order = torch.from_numpy(np.lexsort((sign * source.exact(start + query, row), query.cpu().numpy())))
        query, row = query[order.to(query.device)], row[order.to(row.device)]
        yield query, row, torch.arange(len(query), device=query.device) - torch.searchsorted(query, query)


def _smallest(block: torch.Tensor, count: int) -> torch.Tensor:
    """Indices (B, count) of the smallest values of each row of `block` (B, G), as a stable sort would order them."""
    values, indices = block.topk(min(count + 1, block.shape[1]), largest=False)
    if count < block.shape[1]:
        # Among values equal to the last one asked for, topk takes any: there, take the first.
        for row in (values[:, count - 1] == values[:, count]).nonzero().flatten().tolist():
            closer = (block[row] < values[row, count]).nonzero().flatten()
            tied = (block[row] == values[row, count]).nonzero().flatten()
            indices[row, :count] = torch.cat([closer, tied])[:count]
    indices = indices[:, :count].sort(dim=1).values
    return indices.gather(1, block.gather(1, indices).argsort(dim=1, stable=True))
