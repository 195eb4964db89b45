"""From a score to the probability that the best match is right, and to a verdict: known, unknown or ambiguous.

Q queries, G gallery rows, K knots of the map, n samples: two for each query with a match in the gallery.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reid.retrieval.matches import Integers, Scores

Floats = npt.NDArray[np.float64]
Verdict = Literal["known", "unknown", "ambiguous"]

FORMAT = "reid-calibration 1"
MIN_IDENTITIES = 10
FOLDS = 5
RELIABILITY_BINS = 10
KNOWN_PROBABILITY = 0.5  # least of a best match that is called known: more likely right than not


@dataclass(frozen=True)
class ReliabilityBin:
    """The samples whose predicted probability lies in one tenth of [0, 1]: mean prediction, share of right matches."""

    predicted: float
    observed: float
    samples: int


@dataclass(frozen=True, eq=False)
class Calibration:
    """A monotone map from the score of a query's best match to the probability that this match is right.

    The map is for queries whose subject is as likely in the gallery as not; it runs straight between its knots,
    `scores` (K,) ascending and `probabilities` (K,) in (0, 1), and is level beyond them. At or above `known_from` a
    query without its subject in the gallery would have raised a false alarm in `false_alarm_rate` of the cases; to be
    known takes a probability of one half, too. Below `unknown_below` lies the same share of the best matches that are
    right. Larger galleries hold better wrong matches: the numbers rest on `queries` of `identities` subjects, searched
    in `gallery` rows of `gallery_identities`.

    `reliability`, `brier_score` and `calibration_error` (the mean distance between prediction and observed share over
    the bins of `reliability`) come from predictions made for each identity by a map fitted without it.
    """

    scores: Floats
    probabilities: Floats
    known_from: float
    unknown_below: float
    false_alarm_rate: float
    identities: int
    queries: int
    gallery: int
    gallery_identities: int
    brier_score: float
    calibration_error: float
    reliability: tuple[ReliabilityBin, ...]

    def probability(self, scores: npt.ArrayLike) -> Floats:
        """Map scores of any shape to probabilities in (0, 1)."""
        return np.interp(np.asarray(scores, np.float64), self.scores, self.probabilities)

    def verdict(self, score: float) -> Verdict:
        """Say whether the subject of a query whose best match has this score is in the gallery."""
        if score >= self.known_from and self.probability(score) >= KNOWN_PROBABILITY:
            return "known"
        return "unknown" if score < self.unknown_below else "ambiguous"

    def as_json(self) -> dict[str, Any]:
        """Everything, ready for `json.dump`."""
        arrays = {"scores": self.scores.tolist(), "probabilities": self.probabilities.tolist()}
        return {"format": FORMAT, **asdict(self), **arrays}

    @classmethod
    def from_json(cls, values: Any) -> "Calibration":
        """Rebuild a calibration from what `as_json` gave; raises ValueError for anything else, or a part missing."""
        found = values.get("format") if isinstance(values, dict) else None
        if found != FORMAT:
            raise ValueError(f"no calibration of this version: format is {found!r}, expected {FORMAT!r}")
        try:
            fields = {name: value for name, value in values.items() if name != "format"}
            fields |= {name: np.array(fields[name], np.float64) for name in ("scores", "probabilities")}
            fields["reliability"] = tuple(ReliabilityBin(**bin) for bin in fields["reliability"])
            calibration = cls(**fields)
            sound = calibration._is_sound()
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"damaged calibration: {' '.join(str(error).split())}") from error
        if not sound:
            raise ValueError("damaged calibration: expected ascending scores and probabilities, and ordered thresholds")
        return calibration

    def _is_sound(self) -> bool:
        x, y = self.scores, self.probabilities
        return bool(
            x.ndim == 1
            and len(x)
            and x.shape == y.shape
            and np.isfinite([*x, self.brier_score, self.calibration_error]).all()
            and (np.diff(x) > 0).all()
            and (np.diff(y) >= 0).all()
            and 0 < y[0] <= y[-1] < 1
            and -np.inf < self.unknown_below <= self.known_from < np.inf
            and 0 < self.false_alarm_rate < 1
        )


def fit_calibration(
    best_positive: Scores,
    best_negative: Scores,
    query_ids: Integers,
    gallery_ids: Integers,
    *,
    false_alarm_rate: float = 0.01,
) -> Calibration:
    """Fit a calibration to the highest right and wrong scores of queries that the model was not trained on.

    Scores (Q,) are those of `Verification`, NaN where a query has no such row; identities are (Q,) and (G,). A query
    with both is tried once with its subject in the gallery, where its best match is right if it scores higher than any
    wrong one, and once with its subject taken out. Isotonic regression is given one more right match at the lowest
    score and one more wrong one at the highest (the rule of succession), so that nothing is certain; the gaps between
    its blocks, where no score was seen, are bridged by straight lines.

    Raises ValueError for fewer than 10 identities with such a query, if no best match is right, if none would be called
    known, and for a false alarm rate outside (0, 1).
    """
    paired = ~np.isnan(best_positive) & ~np.isnan(best_negative)
    right, wrong, subjects = best_positive[paired], best_negative[paired], query_ids[paired]
    identities = len(np.unique(subjects))
    if identities < MIN_IDENTITIES:
        raise ValueError(
            f"{identities} identities have a right and a wrong match in the gallery; a calibration needs at least "
            f"{MIN_IDENTITIES}: use a dataset with more identities in its query and gallery sets"
        )
    first = right > wrong
    if not first.any():
        raise ValueError(f"the best match is wrong for each of {len(first)} queries: there is nothing to calibrate")
    from reid.retrieval.verification import identify  # torch, which a calibration that is only read does not need

    known_from = identify(best_positive, best_negative, false_alarm_rate).threshold
    scores = np.concatenate([np.maximum(right, wrong), wrong]).astype(np.float64)
    labels = np.concatenate([first, np.zeros(len(first))])
    knots, probabilities = _fit(scores, labels)
    known = right[first & (right >= known_from)]
    if not np.any(np.interp(known, knots, probabilities) >= KNOWN_PROBABILITY):
        raise ValueError(
            f"none of {len(first)} queries would be called known: that takes a score of {known_from:.6f}, which a "
            f"share of {false_alarm_rate:g} of unknown ones reaches, and a probability of {KNOWN_PROBABILITY:.0%}; "
            "raise false_alarm, or train a model that tells these identities apart"
        )
    predicted = cross_fit(scores, labels, np.tile(subjects, 2))
    reliability = reliability_bins(predicted, labels)
    return Calibration(
        scores=knots,
        probabilities=probabilities,
        known_from=known_from,
        unknown_below=min(_low_quantile(right[first], false_alarm_rate), known_from),
        false_alarm_rate=false_alarm_rate,
        identities=identities,
        queries=len(first),
        gallery=len(gallery_ids),
        gallery_identities=len(np.unique(gallery_ids)),
        brier_score=float(np.mean((predicted - labels) ** 2)),
        calibration_error=calibration_error(reliability),
        reliability=reliability,
    )


def cross_fit(scores: Floats, labels: Floats, identities: Integers) -> Floats:
    """Predict each of n samples by a map fitted to other identities alone, in 5 folds of identities.

    Takes scores, labels (1 right, 0 wrong) and identities, at least two different ones, and returns probabilities in
    (0, 1); all are (n,).
    """
    fold = np.unique(identities, return_inverse=True)[1] % FOLDS
    predicted = np.empty(len(scores))
    for held_out in range(FOLDS):
        rest = fold != held_out
        predicted[~rest] = np.interp(scores[~rest], *_fit(scores[rest], labels[rest]))
    return predicted


def _fit(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """The knots of the map: the lowest and the highest score of every block of the isotonic regression."""
    from scipy.optimize import isotonic_regression  # slow to import, and needed for fitting alone

    labels = np.append(labels, [1, 0])
    distinct, index, count = np.unique(
        np.append(scores, [scores.min(), scores.max()]), return_inverse=True, return_counts=True
    )
    fitted = isotonic_regression(np.bincount(index, labels) / count, weights=count)
    ends = np.unique([fitted.blocks[:-1], fitted.blocks[1:] - 1])
    return distinct[ends], fitted.x[ends]


def _low_quantile(scores: Scores, share: float) -> float:
    """The highest of the scores that at most this share of them lie below."""
    below = np.count_nonzero(np.arange(1, len(scores) + 1) / len(scores) <= share)
    return float(np.sort(scores)[below])


def reliability_bins(predicted: npt.ArrayLike, right: npt.ArrayLike) -> tuple[ReliabilityBin, ...]:
    """Predictions by tenths of their probability, no empty ones: `predicted` (n,) in [0, 1], `right` (n,) 0 or 1."""
    chances, outcomes = np.asarray(predicted, np.float64), np.asarray(right, np.float64)
    tenth = np.minimum((chances * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    members = [tenth == number for number in np.unique(tenth)]
    return tuple(
        ReliabilityBin(float(chances[chosen].mean()), float(outcomes[chosen].mean()), int(chosen.sum()))
        for chosen in members
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: mean distance of prediction and observed share, by samples (Guo et al., 2017)."""
    distances = sum(bin.samples * abs(bin.predicted - bin.observed) for bin in bins)
    return distances / sum(bin.samples for bin in bins)
