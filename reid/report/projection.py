"""A two-dimensional picture of embeddings.

n rows shown.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE

from reid.evaluation.features import Features
from reid.retrieval.distances import Distance

ROWS = 1500
IDENTITIES = 8
ROWS_AN_IDENTITY = 60
FEWEST_FOR_TSNE = 10


@dataclass(frozen=True, eq=False)
class Projection:
    """Embeddings as `points` (n, 2), of no unit, by `method`.

    `rows` (n,) count through the queries, then through the gallery.
    `identity` (n,) is the place in `names` of a row's identity, or -1; `is_query` (n,) tells query from gallery rows.
    """

    points: npt.NDArray[np.float32]
    identity: npt.NDArray[np.int64]
    names: tuple[int, ...]
    is_query: npt.NDArray[np.bool_]
    method: str
    rows: npt.NDArray[np.int64]


def project(features: Features, distance: Distance, seed: int = 0) -> Projection:
    """Project up to 1,500 rows: up to 60 of each of 8 random identities, and others to see them against.

    Identities with both a query and a gallery image come first. Cosine distances are kept by projecting unit vectors.
    By t-SNE (van der Maaten and Hinton, JMLR 2008), or for fewer than 10 rows along the principal components.
    """
    random = np.random.default_rng(seed)
    ids = np.concatenate([features.query_ids, features.gallery_ids])
    names = random.permutation(np.unique(ids))
    both = np.isin(names, features.query_ids) & np.isin(names, features.gallery_ids)
    names = names[np.argsort(~both, kind="stable")][:IDENTITIES]
    shuffled = random.permutation(len(ids))
    rows = [shuffled[ids[shuffled] == name][:ROWS_AN_IDENTITY] for name in names]
    others = shuffled[~np.isin(ids[shuffled], names)]
    shown = np.concatenate([*rows, others[: ROWS - sum(len(part) for part in rows)]])
    is_query = shown < len(features.query_ids)
    vectors = np.empty((len(shown), features.query.shape[1]), np.float32)
    vectors[is_query] = features.query[shown[is_query]]
    vectors[~is_query] = features.gallery[shown[~is_query] - len(features.query_ids)]
    if distance == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    place = {name: place for place, name in enumerate(names.tolist())}
    identity = np.array([place.get(name, -1) for name in ids[shown].tolist()])
    few = len(shown) < FEWEST_FOR_TSNE
    points = _principal(vectors) if few else _tsne(vectors, seed)
    return Projection(points, identity, tuple(place), is_query, "principal components" if few else "t-SNE", shown)


def _principal(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Project (n, E) onto the first two principal components; 0 where there are fewer."""
    left, scale, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    points = (left * scale)[:, :2].astype(np.float32)
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def _tsne(vectors: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float32]:
    start = _principal(vectors)
    # As small as t-SNE wants its start; all rows may be equal, where a model has collapsed.
    start *= 1e-4 / max(start[:, 0].std(), np.finfo(np.float32).tiny)
    perplexity = min(30, (len(vectors) - 1) / 3)
    points: npt.NDArray[np.float32] = TSNE(init=start, perplexity=perplexity, random_state=seed).fit_transform(vectors)
    return points
