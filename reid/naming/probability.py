"""From the features of a pair of groups to the probability that they are one individual, learned from answers.

A logistic regression whose weights start from a prior and follow the answers. All that decides which questions are
asked is among the features, so that asking some kinds of pairs more often than others biases nothing (selection on
what is observed is ignorable; Rubin, 1976). Where pairs are of several views, such as flanks, of which vectors may tell
more or less, each view with enough answers has an offset besides, pulled to 0. m pairs, F features, V views.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FEATURES = ("constant", "evidence", "cosine", "rivals", "smaller", "larger", "closeness", "votes", "walks")
PRIOR = np.array([0.2, 0.7, 0.3, -0.8, 0.5, 0.3, 0.3, 0.3, 0.5])
PRECISION = 2 * np.array([0.3, 2.0, 2.0, 5.0, 2.0, 2.0, 2.0, 2.0, 2.0])
# More of a feature never tells against one individual, and rivals never for it: the map is monotone.
BOUNDS = ((-6, 6), (0.05, 3), (0, 3), (-2, 0), (0, 3), (0, 3), (0, 3), (0, 3), (0, 3))
ENOUGH = 40  # answers about a view, from which it has an offset,
OFFSET_PRECISION = 2.0  # which is about 0 with this precision before any answer
EVIDENCE = FEATURES.index("evidence")


class Answered(NamedTuple):
    """An answer about a pair of features `evidence` (F,), and the share of wrong answers of who gave it, `error`."""

    evidence: tuple[float, ...]
    same: bool
    error: float
    view: int = 0


@dataclass(frozen=True, eq=False)
class Odds:
    """Weights (F,) of the features, their covariance (F, F) given the answers so far, and `offsets` (V,) of views."""

    weights: Floats
    covariance: Floats
    offsets: Floats = field(default_factory=lambda: np.zeros(1))

    def logits(self, features: Floats, views: Integers) -> Floats:
        """Log odds (m,) that each pair with features (m, F) of views (m,) is one individual."""
        odds: Floats = features @ self.weights + self.offsets[views]
        return odds

    def probability(self, features: Floats, views: Integers) -> Floats:
        """Probability (m,) in (0, 1) that each pair with features (m, F) of views (m,) is one individual."""
        chances: Floats = expit(self.logits(features, views))
        return chances

    def without_view(self, answer: Answered) -> Answered:
        """An answer whose evidence has the offset of its view in it, so that the weights alone give its log odds."""
        shifted = list(answer.evidence)
        shifted[EVIDENCE] += float(self.offsets[answer.view] / self.weights[EVIDENCE])  # which is never 0
        return answer._replace(evidence=tuple(shifted), view=0)


def fit_odds(
    features: Floats, same: Floats, start: Odds | None = None, views: Integers | None = None, view_count: int = 1
) -> Odds:
    """Fit to answered pairs: features (m, F), and 1 for the same, 0 for different (m,); m may be 0.

    `views` (m,) tells of which of V = `view_count` views each pair is; all of one where it is None.
    """
    told = np.zeros(len(same), np.int64) if views is None else views
    answered = np.bincount(told, minlength=view_count) >= ENOUGH
    several = np.nonzero(answered)[0] if view_count > 1 else np.empty(0, np.int64)
    features = np.concatenate([features, (told[:, None] == several).astype(np.float64)], axis=1)
    prior = np.concatenate([PRIOR, np.zeros(len(several))])
    precision = np.concatenate([PRECISION, np.full(len(several), OFFSET_PRECISION)])

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = features @ weights
        off = weights - prior
        value = np.logaddexp(0, (1 - 2 * same) * logits).sum() + (precision * off**2).sum() / 2
        return float(value), features.T @ (expit(logits) - same) + precision * off

    first = prior if start is None else np.concatenate([start.weights, start.offsets[several]])
    bounds = (*BOUNDS, *[(-6, 6)] * len(several))
    weights = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds).x
    chances = expit(features @ weights)
    information = (features * (chances * (1 - chances))[:, None]).T @ features + np.diag(precision)
    offsets = np.zeros(view_count)
    offsets[several] = weights[len(PRIOR) :]
    kept = slice(len(PRIOR))
    return Odds(weights[kept], np.linalg.inv(information)[kept, kept], offsets)
