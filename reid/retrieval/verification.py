"""Verification and open-set identification: what a score says of two images, and when a best match is good enough.

A score is a cosine similarity, 1 - cosine distance, in [-1, 1]: larger is more alike.

Q queries, G gallery rows, P points of a curve.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reid.retrieval.distances import Distances, Progress
from reid.retrieval.matches import Integers, Matches, Scores
from reid.retrieval.metrics import query_blocks

Floats = npt.NDArray[np.float64]

BINS = 2**18  # from the lowest score to 1, a power of two wide, so that no score is rounded across an edge
FINEST = 24  # float32 holds no two scores between 0.5 and 1 that are nearer than 2^-24
TILE_SCORES = 2**22  # binned at a time: fewer would spend the time on adding up bins
FALSE_POSITIVE_RATES = (1e-2, 1e-3, 1e-4)
COARSE_BINS = 2**16  # of histograms to draw: fine enough where all scores lie within a hundredth
ROUNDING = 1e-3  # how far outside [0, 2] a cosine distance may be


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does to the pairs: the shares of negatives (`fpr`) and of positives (`tpr`) at or above it."""

    threshold: float
    fpr: float
    tpr: float


@dataclass(frozen=True, eq=False)
class Roc:
    """A receiver operating characteristic: P points (`fpr`, `tpr`) from (0, 0) to (1, 1), by falling threshold."""

    thresholds: Floats
    fpr: Floats
    tpr: Floats


@dataclass(frozen=True)
class OpenSet:
    """Identification when the subject of a query may be missing from the gallery, in shares of the trials.

    Every query with another identity in the gallery is an impostor trial: its own identity is taken out, and its first
    match, then wrong, raises a false alarm at or above `threshold`. That is the lowest score at which at most
    `false_alarm_rate` of these trials do; the others are `rejected`.

    Every query with a positive is also a mated trial: it is `identified` when its first match is right and at or above
    the threshold, and `missed` when its best positive is below. A wrong match with the score of the best positive comes
    first.
    """

    false_alarm_rate: float
    threshold: float
    impostor_trials: int
    rejected: float
    mated_trials: int
    identified: float
    missed: float

    @property
    def measurable(self) -> bool:
        """Whether the trials suffice for the rate: it must allow at least one false alarm among them."""
        return self.false_alarm_rate * self.impostor_trials >= 1


@dataclass(frozen=True, eq=False)
class Verification:
    """How well scores tell pairs of one identity (positives) from pairs of two (negatives), and the open-set figures.

    `tpr_at_fpr` maps a false positive rate to the point of highest TPR whose FPR is no higher, None where it would take
    more negatives to measure that rate at all: fewer than one of them would be allowed to pass. At
    `equal_error_threshold` the FPR is nearest to the share of positives below it; `equal_error_rate` is their mean.

    Thresholds are chosen among the edges of bins at most 2^-17 wide, less where all scores are near 1; the shares at
    them are exact. The histograms count pairs
    in 65,536 equal bins over [-1, 1]. `best_positive` and `best_negative` (Q,) are each query's highest scores, NaN for
    queries without such a row. `positive_scores` (P,) are those of all positives, whose queries `positive_queries` (P,)
    tells.
    """

    positives: int
    negatives: int
    tpr_at_fpr: Mapping[float, OperatingPoint | None]
    equal_error_rate: float
    equal_error_threshold: float
    roc: Roc
    positive_histogram: Integers
    negative_histogram: Integers
    best_positive: Scores
    best_negative: Scores
    positive_scores: Scores
    positive_queries: Integers
    open_set: OpenSet

    def as_json(self) -> dict[str, Any]:
        """The figures without the arrays, ready for `json.dump`; the keys of `tpr_at_fpr` are strings."""
        return {
            "positives": self.positives,
            "negatives": self.negatives,
            "tpr_at_fpr": {f"{rate:g}": point and asdict(point) for rate, point in self.tpr_at_fpr.items()},
            "equal_error_rate": self.equal_error_rate,
            "equal_error_threshold": self.equal_error_threshold,
            "open_set": asdict(self.open_set),
        }


def verify(
    distances: Distances,
    query_ids: Integers,
    query_groups: Integers,
    gallery_ids: Integers,
    gallery_groups: Integers,
    *,
    false_alarm_rate: float = 0.01,
    progress: Progress | None = None,
) -> Verification:
    """Score all pairs of a query and a gallery row in one pass, without holding them.

    Distances are cosine distances; identities and groups are as in `Matches`, whose junk pairs are left out. Results do
    not depend on the sizes of blocks. `progress` is called with the number of queries done and Q.

    Raises ValueError for distances outside [0, 2] or of another shape than the labels, if there is no positive or no
    negative pair at all, and for a false alarm rate outside (0, 1).
    """
    matches = Matches(query_ids, query_groups, gallery_ids, gallery_groups)
    if matches.shape != distances.shape:
        raise ValueError(f"labels are for {matches.shape} queries and gallery rows, distances for {distances.shape}")
    histograms = _Histograms()
    best_positive, best_negative = np.full((2, len(query_ids)), -np.inf, np.float32)
    positives: list[tuple[Integers, Scores]] = [(np.empty(0, np.int64), np.empty(0, np.float32))]
    buffer: torch.Tensor | None = None
    for start, stop in query_blocks(matches):
        block = distances.rows(start, stop, None if buffer is None else buffer[: stop - start])
        buffer = block if buffer is None else buffer
        scores = _scores(block)
        histograms.make_room(scores.amin().item())
        query, gallery, junk = matches.rows(start, stop)
        same_identity = (torch.from_numpy(query).to(block.device), torch.from_numpy(gallery).to(block.device))
        own = scores[same_identity][torch.from_numpy(~junk).to(block.device)]
        scores[same_identity] = -torch.inf
        histograms.positives += histograms.count(own)
        histograms.negatives += histograms.count(scores)
        positives.append((start + query[~junk], own.cpu().numpy()))
        np.maximum.at(best_positive, *positives[-1])
        best_negative[start:stop] = scores.amax(dim=1).cpu().numpy()
        if progress is not None:
            progress(stop, len(query_ids))
    best_positive, best_negative = (np.where(best == -np.inf, np.nan, best) for best in (best_positive, best_negative))
    queries, own_scores = (np.concatenate(parts) for parts in zip(*positives, strict=True))
    return _summarise(histograms, best_positive, best_negative, queries, own_scores, false_alarm_rate)


def identify(best_positive: Scores, best_negative: Scores, false_alarm_rate: float = 0.01) -> OpenSet:
    """Choose the threshold of open-set identification, and say what it does.

    Takes each query's highest scores (Q,), NaN where it has no such row, as `Verification` has them. Raises ValueError
    if a kind of trial has no query, and for a false alarm rate outside (0, 1).
    """
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate is {false_alarm_rate}; expected a share between 0 and 1, both excluded")
    impostors = np.sort(best_negative[~np.isnan(best_negative)])
    mated = ~np.isnan(best_positive)
    if not len(impostors) or not mated.any():
        raise ValueError(
            f"{len(impostors)} queries have another identity in the gallery and {mated.sum()} have their own; "
            "an open-set threshold needs some of both"
        )
    allowed = np.count_nonzero(np.arange(1, len(impostors) + 1) / len(impostors) <= false_alarm_rate)
    threshold = np.nextafter(np.float32(impostors[-1 - allowed]), np.float32(np.inf))
    right, wrong = best_positive[mated], best_negative[mated]
    found = right >= threshold
    return OpenSet(
        false_alarm_rate=false_alarm_rate,
        threshold=float(threshold),
        impostor_trials=len(impostors),
        rejected=float(np.mean(impostors < threshold)),
        mated_trials=len(right),
        identified=float(np.mean(found & ~(wrong >= right))),
        missed=float(np.mean(~found)),
    )


def _scores(distances: torch.Tensor) -> torch.Tensor:
    """Turn cosine distances into scores, in place."""
    lowest, highest = (bound.item() for bound in distances.aminmax())
    if not (lowest >= -ROUNDING and highest <= 2 + ROUNDING):
        raise ValueError(
            f"distances lie between {lowest:.4g} and {highest:.4g}; verification needs cosine distances, in [0, 2]"
        )
    return distances.neg_().add_(1)


class _Histograms:
    """Counts of positive and negative scores in bins as narrow as the range of the scores allows.

    Bin j of width w holds the scores from 1 - j w up to, but without, 1 - (j - 1) w: those at or above a bin's lower
    edge are all of this bin and the ones before it. Bins are joined in pairs when a lower score needs room, so the
    counts depend on the scores alone, not on their order.
    """

    def __init__(self) -> None:
        self.positives, self.negatives = np.zeros((2, BINS + 1), np.int64)
        self._exponent = FINEST

    @property
    def thresholds(self) -> Floats:
        """The lower edge of each bin."""
        steps: Floats = np.arange(BINS + 1) / 2**self._exponent
        return 1 - steps

    def make_room(self, lowest: float) -> None:
        """Join bins until they reach down to the score `lowest`."""
        while (1 - lowest) * 2**self._exponent > BINS:
            self._exponent -= 1
            for counts in (self.positives, self.negatives):
                joined = counts[1::2] + counts[2::2]
                counts[1 : 1 + len(joined)], counts[1 + len(joined) :] = joined, 0

    def count(self, scores: torch.Tensor) -> Integers:
        """Count scores of any shape, those of -inf as none: (BINS + 1,)."""
        counts = torch.zeros(BINS + 2, dtype=torch.int64, device=scores.device)  # the last for -inf
        units = 2**self._exponent
        for tile in scores.flatten().split(TILE_SCORES):
            bins = (tile * units).floor_().clamp_(units - BINS - 1, units).int().neg_().add_(units)
            counts += torch.bincount(bins, minlength=BINS + 2)
        return counts[:-1].cpu().numpy()


def _summarise(
    histograms: _Histograms,
    best_positive: Scores,
    best_negative: Scores,
    positive_queries: Integers,
    positive_scores: Scores,
    false_alarm_rate: float,
) -> Verification:
    positives, negatives = histograms.positives, histograms.negatives
    if not positives.any() or not negatives.any():
        raise ValueError(
            f"{positives.sum()} pairs of a query and a gallery row are of one identity and not junk, {negatives.sum()} "
            "are of two; verification needs some of both (where cameras are unknown or all the same, use junk=none)"
        )
    # By falling threshold, from 2, which no score reaches, to the lowest, which all do.
    thresholds = np.append(2, histograms.thresholds)
    fpr, tpr = (np.append(0, histogram.cumsum()) / histogram.sum() for histogram in (negatives, positives))
    equal = np.abs(fpr - (1 - tpr)).argmin()
    coarse = [
        np.histogram(histograms.thresholds, COARSE_BINS, (-1, 1), weights=histogram)[0].astype(np.int64)
        for histogram in (positives, negatives)
    ]
    return Verification(
        positives=int(positives.sum()),
        negatives=int(negatives.sum()),
        tpr_at_fpr={
            rate: _highest_tpr(thresholds, fpr, tpr, rate) if rate * negatives.sum() >= 1 else None
            for rate in FALSE_POSITIVE_RATES
        },
        equal_error_rate=float((fpr[equal] + 1 - tpr[equal]) / 2),
        equal_error_threshold=float(thresholds[equal]),
        roc=_thin(thresholds, fpr, tpr, int(negatives.sum())),
        positive_histogram=coarse[0],
        negative_histogram=coarse[1],
        best_positive=best_positive,
        best_negative=best_negative,
        positive_scores=positive_scores,
        positive_queries=positive_queries,
        open_set=identify(best_positive, best_negative, false_alarm_rate),
    )


def _highest_tpr(thresholds: Floats, fpr: Floats, tpr: Floats, rate: float) -> OperatingPoint:
    last = np.searchsorted(fpr, rate, side="right") - 1
    return OperatingPoint(float(thresholds[last]), float(fpr[last]), float(tpr[last]))


def _thin(thresholds: Floats, fpr: Floats, tpr: Floats, negatives: int) -> Roc:
    """Keep at most 500 points of a curve: evenly spaced in the logarithm of the FPR, and in the TPR."""
    by_fpr = np.searchsorted(fpr, np.geomspace(1 / negatives, 1, 250))
    by_tpr = np.searchsorted(tpr, np.linspace(0, 1, 250))
    kept = np.unique(np.append(by_fpr, by_tpr).clip(max=len(fpr) - 1))
    return Roc(thresholds[kept], fpr[kept], tpr[kept])
