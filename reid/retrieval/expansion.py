"""Query expansion and database-side augmentation: features made better by their neighbours in the gallery.

Radenovic, Tolias, Chum: Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019 (alpha-weighted query
expansion); the augmentation does the same to the gallery, with itself.

Q queries, G gallery rows, E embedding size, K neighbours, B rows of one block.
"""

import numpy as np
import numpy.typing as npt
import torch

from reid.retrieval.distances import Array, FeatureDistances, Progress, as_matrix
from reid.retrieval.neighbours import nearest

BLOCK_VALUES = 2**24  # feature values of neighbours summed at a time: 64 MiB of float32


def expand_queries(
    query: Array,
    gallery: Array,
    neighbours: int,
    alpha: float = 3.0,
    *,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Add to every query (Q, E) its nearest `neighbours` rows of the gallery (G, E), weighted by cosine ** `alpha`.

    Features are as `FeatureDistances` takes them and count with length 1; a cosine below 0 counts as 0. `progress` is
    called with the number of queries whose neighbours are found and Q. Returns (Q, E), of length 1.

    Raises ValueError for features that `FeatureDistances` refuses, if `neighbours` is not in [1, G], and if `alpha` is
    negative.
    """
    distances = FeatureDistances(query, gallery, "cosine", device)
    _check(neighbours, distances.shape[1], alpha)
    found = nearest(distances, neighbours, progress=progress)
    weights = _weights(found.distances, alpha)
    return _weighted_sums(query, gallery, found.indices, weights, distances.device)


def augment_database(
    gallery: Array,
    neighbours: int,
    alpha: float = 3.0,
    *,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Add to every gallery row (G, E) its nearest `neighbours` other rows, weighted as in `expand_queries`.

    Returns (G, E), of length 1. Raises ValueError like `expand_queries`, and if `neighbours` is not in [1, G - 1].
    """
    distances = FeatureDistances(gallery, gallery, "cosine", device)
    _check(neighbours, distances.shape[1] - 1, alpha)
    found = nearest(distances, neighbours + 1, progress=progress)
    itself = found.indices == np.arange(len(found.indices))[:, None]
    itself[~itself.any(axis=1), -1] = True  # so many duplicates come before it that it is not among its nearest
    others = found.indices[~itself].reshape(-1, neighbours)
    weights = _weights(found.distances[~itself].reshape(-1, neighbours), alpha)
    return _weighted_sums(gallery, gallery, others, weights, distances.device)


def _check(neighbours: int, available: int, alpha: float) -> None:
    if not 1 <= neighbours <= available:
        raise ValueError(f"neighbours is {neighbours}; expected between 1 and {available}, as the gallery has no more")
    if not alpha >= 0:
        raise ValueError(f"alpha is {alpha}; expected at least 0")


def _weights(distances: npt.NDArray[np.float32], alpha: float) -> npt.NDArray[np.float32]:
    cosines = 1 - distances
    return np.where(cosines > 0, cosines.clip(min=0) ** np.float32(alpha), np.float32(0))  # 0 ** 0 would be 1


@torch.no_grad()
def _weighted_sums(
    features: Array,
    gallery: Array,
    neighbours: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    device: torch.device,
) -> npt.NDArray[np.float32]:
    """Sum each row of `features` and its neighbours (rows, K) times their weights, all of length 1, to length 1."""
    own = as_matrix(features, "features").to(device)
    others = as_matrix(gallery, "gallery").to(device)
    sums = np.empty(own.shape, np.float32)
    rows = max(1, BLOCK_VALUES // (weights.shape[1] * own.shape[1]))
    for start in range(0, len(sums), rows):
        block = slice(start, start + rows)
        weight = torch.from_numpy(weights[block]).to(device)
        close = _unit(others[torch.from_numpy(neighbours[block]).to(device)])
        sums[block] = _unit(_unit(own[block]) + torch.einsum("bk,bke->be", weight, close)).cpu()
    return sums


def _unit(features: torch.Tensor) -> torch.Tensor:
    features = features.float()
    return features.div(torch.linalg.vector_norm(features, dim=-1, keepdim=True))
