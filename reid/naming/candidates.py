"""The nearest items of every item, a block of rows at a time: never all pairs in memory. N items, E values, K kept."""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

BLOCK_SCORES = 2**24  # scores held at a time: 64 MiB


def nearest(vectors: Floats, count: int, views: Integers | None = None) -> tuple[Integers, Floats]:
    """Find the K items of the highest cosine for each of N vectors (N, E): their rows (N, K) and cosines (N, K).

    `views` (N,) tells items that can be compared, those of one value. Where an item has fewer than K others, -1 with
    -inf fills up. K is at most N - 1. Raises ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"{count} nearest items asked for; expected at least 1")
    total = len(vectors)
    count = max(1, min(count, total - 1))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    unit = unit.astype(np.float32)
    rows = np.full((total, count), -1, np.int64)
    scores = np.full((total, count), -np.inf, np.float32)
    step = max(1, BLOCK_SCORES // max(total, 1))
    for start in range(0, total, step):
        block = unit[start : start + step] @ unit.T
        here = np.arange(len(block))
        block[here, start + here] = -np.inf
        if views is not None:
            block[views[start : start + step, None] != views[None]] = -np.inf
        chosen = np.argpartition(block, total - count, axis=1)[:, total - count :]
        values = np.take_along_axis(block, chosen, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        values = np.take_along_axis(values, order, 1)
        rows[start : start + step] = np.where(np.isfinite(values), np.take_along_axis(chosen, order, 1), -1)
        scores[start : start + step] = values
    return rows, scores


def extended(vectors: Floats, rows: Integers, scores: Floats) -> tuple[Integers, Floats]:
    """The K nearest of N vectors (N, E), of which the first M have theirs among themselves: `rows` and `scores` (M, K).

    Those are as `nearest` gives them, also with -1 where an item is gone. Only what is new is compared with all.
    """
    total, (before, count) = len(vectors), rows.shape
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    unit = unit.astype(np.float32)
    all_rows = np.full((total, count), -1, np.int64)
    all_scores = np.full((total, count), -np.inf, np.float32)
    all_rows[:before], all_scores[:before] = rows, scores
    step = max(1, BLOCK_SCORES // max(total, 1))
    for start in range(before, total, step):
        end = min(start + step, total)
        block = unit[start:end] @ unit.T
        here = np.arange(end - start)
        block[here, start + here] = -np.inf
        block[:, end:] = -np.inf  # these come with their own block
        # The new ones among themselves and the others, and the others with the new ones.
        places = np.arange(start, end)
        for chosen, more_scores, more_rows in (
            (places, block, np.broadcast_to(np.arange(total), block.shape)),
            (np.arange(start), block[:, :start].T, np.broadcast_to(places, (start, end - start))),
        ):
            candidates = np.concatenate([all_scores[chosen], more_scores], axis=1)
            named = np.concatenate([all_rows[chosen], more_rows], axis=1)
            best = np.argpartition(-candidates, count - 1, axis=1)[:, :count]
            values = np.take_along_axis(candidates, best, 1)
            order = np.argsort(-values, axis=1, kind="stable")
            values = np.take_along_axis(values, order, 1)
            found = np.take_along_axis(np.take_along_axis(named, best, 1), order, 1)
            all_rows[chosen], all_scores[chosen] = np.where(np.isfinite(values), found, -1), values
    return all_rows, all_scores
