"""mAP, mINP and CMC at any size, without holding the (Q, G) distances and without sorting them.

A positive's rank is its place among the query's positives plus the number of negatives at most as far away: the few
positives are sorted, the negatives are only counted.

Q queries, G gallery rows, E embedding size, B queries of one block, N positives of all queries of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from reid.retrieval.distances import Array, Distance, Distances, FeatureDistances, Progress, as_matrix, refuse_rows
from reid.retrieval.labels import number_groups, number_identities
from reid.retrieval.matches import UNKNOWN, Integers, Matches

Labels = Array | Sequence[Any]
AveragePrecision = Literal["hits", "trapezoid"]
Junk = Literal["camera", "none"]

BLOCK_DISTANCES = 2**26  # distances held at a time: 256 MiB of float32


@dataclass(frozen=True, eq=False)
class Metrics:
    """Retrieval metrics, as fractions in [0, 1], over the queries that have a positive in the gallery.

    `cmc` maps k to Rank-k: the share of scored queries with a positive among their first k gallery rows, junk left out
    (all of them where the gallery is shorter than k). `queries` were scored, `queries_skipped` have no positive.
    The arrays are (Q,) float64 in the order of the queries, NaN for the skipped: average precision; number of positives
    over the rank of the last one, whose mean is mINP; rank of the first positive, from 1.
    """

    mAP: float
    mINP: float
    cmc: dict[int, float]
    queries: int
    queries_skipped: int
    gallery: int
    average_precision: npt.NDArray[np.float64]
    inverse_negative_penalty: npt.NDArray[np.float64]
    first_hit: npt.NDArray[np.float64]

    def as_json(self) -> dict[str, Any]:
        """The figures without the arrays, ready for `json.dump`; the keys of `cmc` are strings."""
        return {
            "mAP": self.mAP,
            "mINP": self.mINP,
            "cmc": {str(rank): share for rank, share in self.cmc.items()},
            "queries": self.queries,
            "queries_skipped": self.queries_skipped,
            "gallery": self.gallery,
        }


def evaluate_features(
    query_features: Array,
    query_ids: Labels,
    query_groups: Labels | None,
    gallery_features: Array,
    gallery_ids: Labels,
    gallery_groups: Labels | None,
    *,
    distance: Distance = "cosine",
    junk: Junk = "camera",
    ap: AveragePrecision = "hits",
    ranks: Sequence[int] = (1, 5, 10, 20),
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Metrics:
    """Rank the gallery by distance for every query and score the rankings.

    Features are (Q, E) and (G, E), arrays (also memory-mapped) or tensors of any float type on any device, compared in
    float32 on `device` (default: where the gallery features are); identities and groups, such as cameras, are whole
    numbers or text (Q,) and (G,), also as pandas has them. A group that is None, NaN or empty text is unknown, as are
    all where None stands for them; such an identity is nobody else's.
    `progress` is called with the number of queries done and Q.

    Gallery rows with the query's identity are its positives; with `junk="camera"` those that also have its camera leave
    the ranking. Camera -1 is unknown and equal to no other. Any other grouping, such as sequences, can stand in for
    the cameras. Ties are read pessimistically: a negative as far away as a positive ranks before it; of tied positives
    one comes after the other. Duplicate gallery rows tie exactly, and the result depends on neither block sizes nor the
    order of rows: where float32 leaves the order of two distances in doubt, they are compared in float64.

    `ap="hits"` is the mean, over the positives, of the precision at each one's rank. `ap="trapezoid"` averages it with
    the precision one rank before (1 before the first), as the Matlab code of Oxford5k, Market-1501 and VeRi-776 does.

    Raises ValueError for features that `FeatureDistances` refuses, labels that are not one whole number or text a row,
    an unknown option, and if no query has a positive at all.
    """
    distances = FeatureDistances(query_features, gallery_features, distance, device)
    labels = (query_ids, query_groups, gallery_ids, gallery_groups)
    return evaluate_distances(distances, *labels, junk=junk, ap=ap, ranks=ranks, progress=progress)


def evaluate_distances(
    distances: Array | Distances,
    query_ids: Labels,
    query_groups: Labels | None,
    gallery_ids: Labels,
    gallery_groups: Labels | None,
    *,
    junk: Junk = "camera",
    ap: AveragePrecision = "hits",
    ranks: Sequence[int] = (1, 5, 10, 20),
    progress: Progress | None = None,
) -> Metrics:
    """Score the rankings given by `distances` (Q, G), smaller is closer, a matrix or computed when asked for.

    Everything else is as in `evaluate_features`. A matrix with NaN or infinite distances is refused with a ValueError.

    >>> ids, cameras = np.array([7, 7, 5, 7]), np.array([0, 1, 1, 2])    # the first row is junk: hits at ranks 1 and 3
    >>> metrics = evaluate_distances(np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([7]), np.array([0]), ids, cameras)
    >>> round(metrics.mAP, 4), round(metrics.mINP, 4)    # (1/1 + 2/3) / 2, and 2/3
    (0.8333, 0.6667)
    """
    if isinstance(distances, np.ndarray | torch.Tensor):
        distances = _MatrixDistances(distances)
    matches = find_matches(distances.shape, query_ids, query_groups, gallery_ids, gallery_groups, junk)
    if not matches.same_identity.any():
        raise ValueError(
            "no query can be scored: queries and gallery have no identity in common (query_ids are "
            f"{query_ids[0]}, ..., gallery_ids {gallery_ids[0]}, ...); expected both numbered alike"
        )
    if not matches.positives.any():
        raise ValueError(
            "no query can be scored: every gallery row with a query's identity is junk: of its camera, or the query's "
            "own picture; where cameras are unknown or all the same, use junk=none"
        )
    return _evaluate(distances, matches, ap, ranks, progress)


class _MatrixDistances:
    """A (Q, G) matrix as Distances; float64 and integers are ranked as float64, everything else as float32."""

    def __init__(self, matrix: Array) -> None:
        self._matrix = as_matrix(matrix, "distances")
        nearest, farthest = self._matrix.aminmax(dim=1)
        refuse_rows(~(nearest.isfinite() & farthest.isfinite()), "distances", "hold NaN or infinite values")
        self.shape = (self._matrix.shape[0], self._matrix.shape[1])
        self.device = self._matrix.device
        narrow = self._matrix.is_floating_point() and self._matrix.dtype != torch.float64
        self.dtype = torch.float32 if narrow else torch.float64

    def rows(self, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor:
        block = self._matrix[start:stop]
        return block.to(self.dtype, copy=True) if out is None else out.copy_(block)


def find_matches(
    shape: tuple[int, int],
    query_ids: Labels,
    query_groups: Labels | None,
    gallery_ids: Labels,
    gallery_groups: Labels | None,
    junk: Junk,
) -> Matches:
    """Pair the rows of Q queries and G gallery images by their labels (Q,) and (G,), under a junk rule.

    Raises ValueError for labels that are not one whole number or text a row and for an unknown rule.
    """
    if junk not in get_args(Junk):
        raise ValueError(f"junk is {junk!r}; expected one of {', '.join(get_args(Junk))}")
    queries, gallery = _labels(query_ids, "query_ids", shape[0]), _labels(gallery_ids, "gallery_ids", shape[1])
    asking = _labels(query_groups, "query_groups", shape[0])
    asked = _labels(gallery_groups, "gallery_groups", shape[1])
    groups = number_groups(asking, asked, "query_groups and gallery_groups")
    if junk == "none":
        groups[0][:] = UNKNOWN
    queries, gallery = number_identities(queries, gallery, "query_ids and gallery_ids")
    return Matches(queries, groups[0], gallery, groups[1])


def _labels(values: Labels | None, name: str, rows: int) -> npt.NDArray[Any]:
    if values is None:
        return np.full(rows, UNKNOWN)
    labels = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if labels.shape != (rows,):
        raise ValueError(f"{name} have shape {labels.shape}; expected ({rows},), one for each row")
    return labels


def query_blocks(matches: Matches) -> Iterator[tuple[int, int]]:
    """Cut the queries into blocks (start, stop) small enough to hold their distances; the first is the largest."""
    queries, gallery = matches.shape
    # Where identities are few and large, the lists of their rows weigh as much as the distances.
    size = int(np.clip(BLOCK_DISTANCES // (gallery + 16 * matches.same_identity.max()), 1, queries))
    return ((start, min(start + size, queries)) for start in range(0, queries, size))


def _evaluate(
    distances: Distances, matches: Matches, ap: AveragePrecision, ranks: Sequence[int], progress: Progress | None
) -> Metrics:
    if ap not in get_args(AveragePrecision):
        raise ValueError(f"ap is {ap!r}; expected one of {', '.join(get_args(AveragePrecision))}")
    queries, gallery = matches.shape
    average_precision, inverse_negative_penalty, first_hit = np.full((3, queries), np.nan)
    buffer: torch.Tensor | None = None
    for start, stop in query_blocks(matches):
        block = distances.rows(start, stop, None if buffer is None else buffer[: stop - start])
        buffer = block if buffer is None else buffer
        query, place, rank = _rank_positives(block, *matches.rows(start, stop), distances, start)
        first = np.flatnonzero(place == 1)
        scored, positives = start + query[first], np.diff(first, append=len(place))
        average_precision[scored] = np.add.reduceat(_precision(place, rank, ap), first) / positives
        inverse_negative_penalty[scored] = positives / rank[first + positives - 1]
        first_hit[scored] = rank[first]
        if progress is not None:
            progress(stop, queries)
    hits = first_hit[matches.positives > 0]
    return Metrics(
        mAP=float(np.nanmean(average_precision)),
        mINP=float(np.nanmean(inverse_negative_penalty)),
        cmc={rank: float(np.mean(hits <= rank)) for rank in ranks},
        queries=len(hits),
        queries_skipped=queries - len(hits),
        gallery=gallery,
        average_precision=average_precision,
        inverse_negative_penalty=inverse_negative_penalty,
        first_hit=first_hit,
    )


def _precision(place: Integers, rank: Integers, ap: AveragePrecision) -> npt.NDArray[np.float64]:
    precision = place / rank
    if ap == "hits":
        return precision
    before = np.where(rank == 1, 1.0, (place - 1) / np.maximum(rank - 1, 1))
    return (before + precision) / 2


def _rank_positives(
    block: torch.Tensor,
    query: Integers,
    gallery: Integers,
    junk: npt.NDArray[np.bool_],
    source: Distances,
    start: int,
) -> tuple[Integers, Integers, Integers]:
    """Rank the positives of a block, given its (B, G) distances and the output of `Matches.rows`.

    The block is that of `source` from query `start` on. Returns three (N,) arrays sorted by query and rank: the query,
    the place among its positives, from 1, and the rank.
    """
    same_identity = (torch.from_numpy(query).to(block.device), torch.from_numpy(gallery).to(block.device))
    distances = block[same_identity].cpu().numpy()[~junk]
    block[same_identity] = torch.inf  # the other finite distances are those of the negatives
    query, gallery = query[~junk], gallery[~junk]
    order = np.lexsort((distances, query))
    query, gallery, distances = query[order], gallery[order], distances[order]
    place = np.arange(len(query)) - np.searchsorted(query, query) + 1
    count = _closer_negatives_on_cpu if block.device.type == "cpu" else _closer_negatives_on_gpu
    if not isinstance(source, FeatureDistances):
        return query, place, place + count(block, query, place, [distances])[0]
    low, high = source.bounds(torch.from_numpy(start + query), distances)
    closer, *at_most = count(block, query, place, [low] if high is low else [low, high])
    doubtful = np.flatnonzero(at_most[0] > closer) if at_most else ()
    if len(doubtful):
        pairs = (query[doubtful], gallery[doubtful], low[doubtful], high[doubtful])
        closer[doubtful] += _closer_in_doubt(block, *pairs, source, start)
        closer = closer[np.lexsort((closer, query))]  # positives change places where a negative is between them
    return query, place, place + closer


def _closer_in_doubt(
    block: torch.Tensor,
    query: Integers,
    gallery: Integers,
    low: npt.NDArray[Any],
    high: npt.NDArray[Any],
    source: FeatureDistances,
    start: int,
) -> Integers:
    """Count the negatives between `low` and `high` that are at most as far as each of these positives, exactly.

    Positives are sorted by query and distance, and their bounds with them. A negative is compared once for a query,
    however many positives it is near to: where all rows are equal, it is near to every one.
    """
    counts = np.zeros(len(query), np.int64)
    for first, last in pairwise([*np.flatnonzero(np.diff(query, prepend=-1)), len(query)]):
        row = block[query[first]].cpu().numpy()
        near = np.flatnonzero((row > low[first:last].min()) & (row <= high[first:last].max()))
        near = near[np.argsort(row[near], kind="stable")]
        spans = [np.searchsorted(row[near], bound[first:last], side="right") for bound in (low, high)]
        doubtful = np.zeros(len(near), np.bool_)
        for begin, end in zip(*spans, strict=True):
            doubtful[begin:end] = True
        rows = torch.from_numpy(np.concatenate([gallery[first:last], near[doubtful]])).to(block.device)
        exact = source.exact(torch.full_like(rows, start + int(query[first])), rows)
        away = np.full(len(near), np.inf)
        away[doubtful] = exact[last - first :]
        counts[first:last] = [
            np.count_nonzero(away[begin:end] <= own) for own, begin, end in zip(exact, *spans, strict=False)
        ]
    return counts


def _closer_negatives_on_cpu(
    block: torch.Tensor, query: Integers, place: Integers, bounds: Sequence[npt.NDArray[Any]]
) -> list[Integers]:
    """Count the negatives at most as far away as each bound of each positive, (N,), sorted by query and place."""
    closer = [np.empty(len(query), np.int64) for _ in bounds]
    edges = np.append(np.flatnonzero(place == 1), len(query))
    for start, stop in pairwise(edges):
        negatives = block[query[start]].numpy()
        negatives = negatives[negatives <= bounds[-1][stop - 1]]
        # A pass over the negatives costs about 1/200 of sorting them, but sorting them serves all positives.
        if len(negatives) > 200 * len(bounds) * (stop - start):
            for count, bound in zip(closer, bounds, strict=True):
                count[start:stop] = [np.count_nonzero(negatives <= value) for value in bound[start:stop]]
        else:
            negatives = np.sort(negatives)
            for count, bound in zip(closer, bounds, strict=True):
                count[start:stop] = np.searchsorted(negatives, bound[start:stop], side="right")
    return closer


def _closer_negatives_on_gpu(
    block: torch.Tensor, query: Integers, place: Integers, bounds: Sequence[npt.NDArray[Any]]
) -> list[Integers]:
    """Do as `_closer_negatives_on_cpu` for all queries at once: a loop over them would leave the device idle."""
    width = int(place.max(initial=0)) + 1
    rows, columns = torch.from_numpy(query).to(block.device), torch.from_numpy(place - 1).to(block.device)
    closer = []
    for bound in bounds:
        positives = torch.full((len(block), width), torch.inf, dtype=block.dtype, device=block.device)
        positives[rows, columns] = torch.from_numpy(bound).to(block.device)
        # A negative's bucket is the number of positives closer than it: it ranks before all the others.
        buckets = torch.searchsorted(positives, block, out_int32=True)
        buckets += width * torch.arange(len(block), dtype=torch.int32, device=block.device)[:, None]
        counts = torch.bincount(buckets.flatten(), minlength=positives.numel()).view_as(positives)
        closer.append(counts.cumsum(dim=1)[rows, columns].cpu().numpy())
    return closer
