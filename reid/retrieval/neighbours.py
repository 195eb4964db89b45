"""The nearest gallery rows of every query, found a block of queries at a time.

Q queries, G gallery rows, B queries of one block, K neighbours.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from reid.retrieval.distances import Distances, Progress

BLOCK_DISTANCES = 2**26  # distances held at a time: 256 MiB of float32


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The K nearest gallery rows of Q queries, nearest first.

    `indices` (Q, K) int64 are rows of the gallery, `distances` (Q, K) float32 how far away they are, and `farthest`
    (Q,) float32 is the distance of the farthest of all gallery rows.
    """

    indices: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float32]
    farthest: npt.NDArray[np.float32]


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
    farthest = np.empty(queries, np.float32)
    buffer = torch.empty(min(queries, max(1, BLOCK_DISTANCES // gallery)), gallery, device=distances.device)
    for start in range(0, queries, len(buffer)):
        stop = min(start + len(buffer), queries)
        block = distances.rows(start, stop, buffer[: stop - start])
        closest = _smallest(block, count)
        indices[start:stop] = closest.cpu()
        values[start:stop] = block.gather(1, closest).cpu()
        farthest[start:stop] = block.amax(dim=1).cpu()
        if progress is not None:
            progress(stop, queries)
    return Neighbours(indices, values, farthest)


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
