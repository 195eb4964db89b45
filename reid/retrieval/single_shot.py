"""Galleries of one image an identity, drawn repeatedly: single-gallery-shot, and VehicleID's protocol.

Q queries, G gallery rows, R draws.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from reid.retrieval.distances import Array, Distance, Distances, FeatureDistances, Progress
from reid.retrieval.matches import Integers, Matches
from reid.retrieval.metrics import Junk, Metrics, find_matches, query_blocks


def evaluate_single_shot(
    distances: Distances,
    query_ids: Integers,
    query_groups: Integers,
    gallery_ids: Integers,
    gallery_groups: Integers,
    *,
    draws: int = 10,
    seed: int = 0,
    junk: Junk = "camera",
    ranks: Sequence[int] = (1, 5, 10, 20),
    progress: Progress | None = None,
) -> tuple[Metrics, ...]:
    """Score galleries thinned to one image an identity, `draws` times; returns the metrics of each draw.

    In every draw the same image stands for an identity in all rankings, except where it is a query's junk: there the
    query's own identity is drawn anew among its positives. Ties are pessimistic. With one positive a query, average
    precision and inverse negative penalty are both 1 / rank.

    Raises ValueError for labels or a rule that `find_matches` refuses, no draw at all, and if no query has a positive.
    """
    _require_draws(draws)
    matches = find_matches(distances.shape, query_ids, query_groups, gallery_ids, gallery_groups, junk)
    scored = matches.positives > 0
    if not scored.any():
        raise ValueError("no query can be scored: none has a match in the gallery that the junk rule leaves")
    generator = np.random.default_rng(seed)
    # An image's priority is its place in a draw's random order; the first of an identity's images is drawn.
    priorities = np.stack([generator.permutation(distances.shape[1]) for _ in range(draws)])
    drawn = [_first_of_each(gallery_ids, priority) for priority in priorities]
    rank = np.full((draws, len(scored)), np.nan)
    for start, stop in query_blocks(matches):
        block = distances.rows(start, stop)
        own = _own_rows(matches, start, stop, priorities)
        for draw, rows in enumerate(drawn):
            of_others = torch.from_numpy(gallery_ids[rows] != query_ids[start:stop, None]).to(block.device)
            rank[draw, start:stop] = 1 + _closer(distances, block, start, rows, own[draw], of_others)
        if progress is not None:
            progress(stop, len(scored))
    rank[:, ~scored] = np.nan
    skipped = int(np.count_nonzero(~scored))
    return tuple(_one_positive_each(row, len(rows), ranks, skipped) for row, rows in zip(rank, drawn, strict=True))


def evaluate_redrawn(
    features: Array,
    ids: Integers,
    *,
    draws: int = 10,
    seed: int = 0,
    distance: Distance = "cosine",
    ranks: Sequence[int] = (1, 5, 10, 20),
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> tuple[Metrics, ...]:
    """Score random splits of one pool (N, E) into a gallery of one image an identity and the rest as queries.

    This is the protocol of VehicleID, which has no cameras and no junk. Returns the metrics of each draw, whose arrays
    are (N,), NaN for the images in its gallery. Raises ValueError as `evaluate_single_shot` does.
    """
    _require_draws(draws)
    generator = np.random.default_rng(seed)
    distances = FeatureDistances(features, features, distance, device)
    unknown = np.full(len(ids), -1)
    matches = find_matches(distances.shape, ids, unknown, ids, unknown, "none")
    drawn = [_first_of_each(ids, generator.permutation(len(ids))) for _ in range(draws)]
    rank = np.full((draws, len(ids)), np.nan)
    position = np.searchsorted(ids[drawn[0]], ids)  # of an image's identity among the drawn, which are sorted by it
    for start, stop in query_blocks(matches):
        block = distances.rows(start, stop)
        others = torch.from_numpy(np.arange(len(drawn[0])) != position[start:stop, None]).to(block.device)
        for draw, rows in enumerate(drawn):
            rank[draw, start:stop] = 1 + _closer(distances, block, start, rows, rows[position[start:stop]], others)
        if progress is not None:
            progress(stop, len(ids))
    for draw, rows in enumerate(drawn):
        rank[draw, rows] = np.nan
    if np.isnan(rank).all():
        raise ValueError("no query can be scored: every identity has one image, which is its gallery image")
    return tuple(_one_positive_each(row, len(drawn[0]), ranks, skipped=0) for row in rank)


def _closer(
    distances: Distances, block: torch.Tensor, start: int, rows: Integers, own: Integers, others: torch.Tensor
) -> Integers:
    """How many of the gallery's `rows` (D,) are at most as far from each query of a block as its `own` row (B,).

    Only `others` (B, D), bool, are counted. Where float32 leaves the order in doubt, it is that in float64.
    """
    drawn = block[:, torch.from_numpy(rows).to(block.device)]
    away = block.gather(1, torch.from_numpy(own[:, None]).to(block.device))
    if not isinstance(distances, FeatureDistances):
        counts: Integers = ((drawn <= away) & others).sum(dim=1).cpu().numpy()
        return counts
    bounds = distances.bounds(torch.arange(start, start + len(block))[:, None], away.cpu().numpy())
    low, high = (torch.from_numpy(bound).to(block.device) for bound in bounds)
    counts = ((drawn <= low) & others).sum(dim=1).cpu().numpy()
    query, place = ((drawn > low) & (drawn <= high) & others).nonzero(as_tuple=True)
    if len(query):
        asked = query.cpu().numpy()
        exact = distances.exact(query + start, torch.from_numpy(rows).to(block.device)[place])
        mine = distances.exact(query + start, torch.from_numpy(own[asked]).to(block.device))
        counts += np.bincount(asked[exact <= mine], minlength=len(counts))
    return counts


def mean_of_draws(draws: Sequence[Metrics]) -> Metrics:
    """Average the metrics of several draws; a query's figures are its means over the draws in which it is scored."""

    def mean_by_query(name: str) -> npt.NDArray[np.float64]:
        values = np.stack([getattr(draw, name) for draw in draws])
        scored = ~np.isnan(values)
        total = np.where(scored, values, 0).sum(axis=0)
        return np.where(scored.any(axis=0), total / np.maximum(scored.sum(axis=0), 1), np.nan)

    return Metrics(
        mAP=float(np.mean([draw.mAP for draw in draws])),
        mINP=float(np.mean([draw.mINP for draw in draws])),
        cmc={rank: float(np.mean([draw.cmc[rank] for draw in draws])) for rank in draws[0].cmc},
        queries=draws[0].queries,
        queries_skipped=draws[0].queries_skipped,
        gallery=draws[0].gallery,
        average_precision=mean_by_query("average_precision"),
        inverse_negative_penalty=mean_by_query("inverse_negative_penalty"),
        first_hit=mean_by_query("first_hit"),
    )


def _require_draws(draws: int) -> None:
    if draws < 1:
        raise ValueError(f"draws is {draws}; expected at least 1")


def _first_of_each(ids: Integers, priority: Integers) -> Integers:
    """The row of lowest priority of every identity, in the order of the identities."""
    order = np.lexsort((priority, ids))
    first: Integers = order[np.append(True, ids[order][1:] != ids[order][:-1])]
    return first


def _own_rows(matches: Matches, start: int, stop: int, priorities: Integers) -> Integers:
    """The positive drawn for each query of a block, (R, B); row 0 where a query has none."""
    query, gallery, junk = matches.rows(start, stop)
    query, gallery = query[~junk], gallery[~junk]
    own = np.zeros((len(priorities), stop - start), np.int64)
    first = np.flatnonzero(np.append(True, query[1:] != query[:-1])) if len(query) else np.empty(0, np.int64)
    for draw, priority in enumerate(priorities):
        order = np.lexsort((priority[gallery], query))
        own[draw, query[first]] = gallery[order][first]
    return own


def _one_positive_each(rank: npt.NDArray[np.float64], gallery: int, ranks: Sequence[int], skipped: int) -> Metrics:
    """The metrics of queries with one positive each, at `rank` (Q,), NaN for those that are skipped or no queries."""
    hits = rank[~np.isnan(rank)]
    inverse = 1 / rank
    return Metrics(
        mAP=float(np.mean(1 / hits)),
        mINP=float(np.mean(1 / hits)),
        cmc={k: float(np.mean(hits <= k)) for k in ranks},
        queries=len(hits),
        queries_skipped=skipped,
        gallery=gallery,
        average_precision=inverse,
        inverse_negative_penalty=inverse,
        first_hit=rank,
    )
