"""From the features of a pair of groups to the probability that they are one individual, learned from answers.

A logistic regression whose weights start from a prior and follow the answers. All that decides which questions are
asked is among the features, so that asking some kinds of pairs more often than others biases nothing (selection on
what is observed is ignorable; Rubin, 1976). m pairs, F features.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

Floats = npt.NDArray[np.float64]

FEATURES = ("constant", "evidence", "cosine", "rivals", "smaller", "larger", "closeness", "votes")
PRIOR = np.array([0.2, 0.7, 0.3, -0.8, 0.5, 0.3, 0.3, 0.3])
PRECISION = 2 * np.array([0.3, 2.0, 2.0, 5.0, 2.0, 2.0, 2.0, 2.0])
# More of a feature never tells against one individual, and rivals never for it: the map is monotone.
BOUNDS = ((-6, 6), (0.05, 3), (0, 3), (-2, 0), (0, 3), (0, 3), (0, 3), (0, 3))
RECENT = 400  # answers that count; the pairs left change as the easy ones are done
MOST_EVIDENCE = 4.0


@dataclass(frozen=True, eq=False)
class Odds:
    """Weights (F,) of the features and their covariance (F, F) given the answers so far."""

    weights: Floats
    covariance: Floats

    def probability(self, features: Floats) -> Floats:
        """Probability (m,) in (0, 1) that each pair with features (m, F) is one individual."""
        chances: Floats = expit(features @ self.weights)
        return chances

    def cautious(self, features: Floats, deviations: float) -> Floats:
        """The probability (m,) that the weights' uncertainty leaves: so many standard deviations below the best."""
        doubt = np.sqrt(np.einsum("ij,jk,ik->i", features, self.covariance, features))
        chances: Floats = expit(features @ self.weights - deviations * doubt)
        return chances


def fit_odds(features: Floats, same: Floats, start: Odds | None = None) -> Odds:
    """Fit to answered pairs: features (m, F), and 1 for the same, 0 for different (m,); m may be 0."""
    features, same = features[-RECENT:], same[-RECENT:]

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = features @ weights
        off = weights - PRIOR
        value = np.logaddexp(0, (1 - 2 * same) * logits).sum() + (PRECISION * off**2).sum() / 2
        return float(value), features.T @ (expit(logits) - same) + PRECISION * off

    first = PRIOR if start is None else start.weights
    weights = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=BOUNDS).x
    chances = expit(features @ weights)
    information = (features * (chances * (1 - chances))[:, None]).T @ features + np.diag(PRECISION)
    return Odds(weights, np.linalg.inv(information))
