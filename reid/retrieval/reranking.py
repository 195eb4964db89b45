"""k-reciprocal re-ranking at any size: neighbour lists found in blocks, everything after them sparse, and in float64.

Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017.

Q queries, G gallery rows, N = Q + G images, E embedding size, B images or queries of one block, P pairs of images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from reid.retrieval.distances import TILE_ROWS, Array, Distance, FeatureDistances, Progress, as_matrix
from reid.retrieval.neighbours import BLOCK_DISTANCES, nearest

ENCODED_ROWS = 2048  # images whose neighbours are expanded at a time


@dataclass(frozen=True)
class KReciprocal:
    """Parameters of k-reciprocal re-ranking.

    Images are related that are among each other's `k1` nearest, encodings are averaged over `k2` neighbours (the image
    itself is one), and `weight`, the paper's lambda, is the share of the original distance in the result.

    Raises ValueError unless 1 <= k2 <= k1 and 0 <= weight <= 1.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        if self.k1 < 1:
            raise ValueError(f"k1 is {self.k1}; expected at least 1")
        if not 1 <= self.k2 <= self.k1:
            raise ValueError(f"k2 is {self.k2}; expected between 1 and k1, which is {self.k1}")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight is {self.weight}; expected between 0 and 1")


PRESETS = {"zhong": KReciprocal(20, 6, 0.3), "transreid": KReciprocal(50, 15, 0.3)}


class RerankedDistances:
    """Distances of queries to the gallery after k-reciprocal re-ranking, computed when they are asked for.

    They are those of the authors' published code: `weight` times the original distance (squared Euclidean, of the unit
    features where `distance` is cosine, over the image's largest) plus the rest times the Jaccard distance of the
    k-reciprocal encodings. All N images serve as neighbours: a query's distances depend on the other queries too. Of
    neighbours equally far the first comes first; all others have the order that float64 gives them.

    Features are as `FeatureDistances` takes them; raises ValueError for what it refuses. `progress` is called with the
    number of images whose neighbours are found and N; encoding them afterwards takes a small part of that time.
    """

    def __init__(
        self,
        query_features: Array,
        gallery_features: Array,
        parameters: KReciprocal,
        *,
        distance: Distance = "cosine",
        device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._distances = FeatureDistances(query_features, gallery_features, distance, device)
        self.shape, self.device = self._distances.shape, self._distances.device
        self._weight = parameters.weight
        queries, images = self.shape[0], sum(self.shape)
        sides = as_matrix(query_features, "query_features"), as_matrix(gallery_features, "gallery_features")
        pool = torch.cat([side.to(self.device) for side in sides])
        distances = FeatureDistances(pool, pool, distance)
        neighbours = nearest(distances, min(parameters.k1 + 1, images), progress=progress)
        ends = torch.arange(images), torch.from_numpy(neighbours.farthest)
        farthest = distances.exact(*(end.to(self.device) for end in ends))
        # Where all images are the same, the farthest is at distance 0: nothing to divide by.
        self._farthest = farthest.clip(min=np.finfo(np.float64).tiny)
        expanded = _expanded_neighbours(neighbours.indices, parameters.k1)
        encodings = sparse.vstack([self._encode(distances, *block) for block in expanded], format="csr")
        averaged = neighbours.indices[:, : parameters.k2] if parameters.k2 > 1 else np.arange(images)[:, None]
        averaging = _lists_matrix(averaged, 1 / averaged.shape[1])
        self._query_encodings = averaging[:queries] @ encodings
        # Transposed, (N, G): row j holds the gallery images that image j takes part in encoding.
        self._gallery_encodings = encodings.T.tocsr() @ averaging[queries:].T.tocsr()

    @torch.no_grad()
    def rows(self, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the re-ranked distances of queries `start` to `stop` (excluded) to the whole gallery.

        Returns (B, G) float64 on `device`, in [0, 1] up to rounding, written to `out` if given.
        """
        block = self._distances.exact_rows(start, stop, out)
        farthest = torch.from_numpy(self._farthest[start : start + len(block), None]).to(self.device)
        block.div_(farthest).clamp_(min=0).mul_(self._weight)
        for query, row in enumerate(block, start):
            row.add_(torch.from_numpy(self._jaccard_distances(query)).to(self.device), alpha=1 - self._weight)
        return block

    def _encode(self, distances: FeatureDistances, start: int, expanded: Any) -> Any:
        """Weigh the expanded neighbours (B, N) of the images from `start` on by their distance: V of section 3.3."""
        row = np.repeat(np.arange(expanded.shape[0]), np.diff(expanded.indptr))
        pairs = (
            torch.from_numpy(indices).to(self.device) for indices in (start + row, expanded.indices.astype(np.int64))
        )
        weights = np.exp(-distances.exact(*pairs).clip(min=0) / self._farthest[start + row])
        return sparse.csr_array(
            (weights / np.bincount(row, weights)[row], expanded.indices, expanded.indptr), expanded.shape
        )

    def _jaccard_distances(self, query: int) -> npt.NDArray[np.float64]:
        """Compute the Jaccard distances of a query's encoding to those of the gallery, (G,), in [0, 1]: section 3.3."""
        own = slice(*self._query_encodings.indptr[query : query + 2])
        shared = self._gallery_encodings[self._query_encodings.indices[own]]
        weights = np.repeat(self._query_encodings.data[own], np.diff(shared.indptr))
        overlap = np.bincount(shared.indices, np.minimum(weights, shared.data), minlength=self.shape[1])
        return 1 - overlap / (2 - overlap)


def memory_estimate(queries: int, gallery: int, size: int, parameters: KReciprocal) -> int:
    """Estimate the bytes that re-ranking needs at its peak, beyond features of embedding size `size`.

    Counted are the pool, a copy of all features, and the neighbour lists, with a block of distances and the gallery
    rows it is made of, or then with the encodings, before and after they are averaged; at last, beside the encodings
    alone, a block of re-ranked distances. The length of encodings depends on the features and is taken near its
    largest, that of features without any structure. What the allocator keeps of freed memory, up to a third of this
    where it was measured, comes on top.
    """
    images = queries + gallery
    # Rows are in float64 for products in it, and while the differences from the mean are made of those that have one.
    block = 4 * min(BLOCK_DISTANCES, images**2) + 12 * min(TILE_ROWS, images) * size
    single = 12 * images * (parameters.k1 + 1)
    encodings = parameters.k2 * single
    related = images * 4 * size + single + max(block, 2 * single + encodings)
    ranked = encodings + 8 * min(BLOCK_DISTANCES, queries * gallery) + 8 * min(TILE_ROWS, gallery) * size
    return max(related, ranked)


def _expanded_neighbours(lists: npt.NDArray[np.int64], k1: int) -> Iterator[tuple[int, Any]]:
    """Find R* of section 3.2, given the neighbour lists (N, k1 + 1).

    Yields the first image of a block and the neighbours of its images as the nonzeros of a sparse (B, N) matrix.
    """
    reciprocal = _reciprocal(lists)
    half = _reciprocal(lists[:, : int(np.around(k1 / 2)) + 1])
    sizes = np.diff(half.indptr)
    for start in range(0, len(lists), ENCODED_ROWS):
        own = reciprocal[start : start + ENCODED_ROWS]
        common = (own @ half).multiply(own).tocsr()  # `half` is symmetric: no transpose is needed
        common.data = (3 * common.data > 2 * sizes[common.indices]).astype(np.int32)
        common.eliminate_zeros()
        yield start, own + common @ half


def _reciprocal(lists: npt.NDArray[np.int64]) -> Any:
    """Relate the images that are in each other's lists (N, K): a sparse symmetric (N, N) matrix of ones."""
    listed = _lists_matrix(lists, np.int32(1))
    return listed.multiply(listed.T).tocsr()


def _lists_matrix(lists: npt.NDArray[np.int64], value: np.int32 | float) -> Any:
    """Lists (N, K) of images as a sparse (N, N) matrix that holds `value` where row i lists image j."""
    images, length = lists.shape
    starts = np.arange(0, lists.size + 1, length)
    return sparse.csr_array((np.full(lists.size, value), lists.ravel(), starts), (images, images))
