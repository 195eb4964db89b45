"""Which of several identities a query shows, or none of them, by all photos of each.

The best of many photos scores higher than the best of few by chance alone. So the odds of an identity weigh its best
cosine, their mean, and how many photos it has, by weights learned from identities that are known: one
photo of each is held out and asked for among the others, once with its own identity there and once without. Half of
the identities then show fewer photos than they have: where all have as many, nothing else tells what a number is worth.

N photos of E values, K identities in question.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

CANDIDATES = 10  # identities in question, those with the best photos
MOST_QUERIES = 500
FEWEST_QUERIES, FEWEST_IDENTITIES = 40, 10
RIDGE = 1e-3
HELD_OUT = -2.0  # below any cosine


@dataclass(frozen=True, eq=False)
class IdentityOdds:
    """Weights of the features of an identity, learned from so many queries."""

    weights: Floats
    queries: int

    def probabilities(self, scores: Sequence[npt.ArrayLike]) -> Floats:
        """The probability of each of K identities, (K,), by the cosines of its photos to the query.

        It is for a query that shows one of the gallery's identities as likely as none; what the probabilities leave of
        1 is that it shows none of these.
        """
        if not len(scores):
            return np.empty(0)
        return _chances(np.stack([features(one) for one in scores]) @ self.weights)


def features(scores: npt.ArrayLike) -> Floats:
    """What the odds weigh of the cosines of an identity's photos, one at least: (6,).

    The more photos there are, the more their mean says, and the less it says that one of them is near.
    """
    given = np.asarray(scores, np.float64)
    best, mean, few = given.max(), given.mean(), 1 / len(given)
    return np.array([1.0, best, mean, np.log(len(given)), few, few * mean])


def learn_identity_odds(vectors: Vectors, identities: Integers, seed: int = 0) -> IdentityOdds:
    """Learn from photos (N, E) of unit length, and whom each shows (N,).

    Raises ValueError where there are too few: 40 photos of 10 identities that have another one.
    """
    _, place, counts = np.unique(identities, return_inverse=True, return_counts=True)
    several = counts[place] > 1
    if several.sum() < FEWEST_QUERIES or (counts > 1).sum() < FEWEST_IDENTITIES:
        raise ValueError(
            f"{several.sum()} photos of {(counts > 1).sum()} identities with several photos; expected "
            f"{FEWEST_QUERIES} of {FEWEST_IDENTITIES}"
        )
    # All of these are alike: each has a photo to be asked for, and its others to be found.
    order = np.argsort(place[several], kind="stable")
    vectors = vectors[several][order]
    _, starts, counts = np.unique(place[several][order], return_index=True, return_counts=True)
    rng = np.random.default_rng(seed)
    asked: list[Floats] = []
    right: list[int] = []  # the place of the right identity among those in question, -1 for none
    while len(right) < 2 * min(MOST_QUERIES, int(counts.sum())):
        held_out = starts + rng.integers(0, counts)
        draw = rng.random(len(vectors))
        draw[held_out] = 2.0
        share = np.maximum(2 * rng.random(len(starts)), np.minimum.reduceat(draw, starts)).clip(max=1.0)
        hidden = draw > np.repeat(share, counts)  # the held out ones, and never all others
        for own in rng.permutation(len(starts))[:MOST_QUERIES]:
            scores = vectors @ vectors[held_out[own]]
            scores[hidden] = HELD_OUT
            ranked = np.argsort(-np.maximum.reduceat(scores, starts))[: CANDIDATES + 1]
            for candidates in (ranked[:CANDIDATES], ranked[ranked != own][:CANDIDATES]):
                groups = (scores[starts[one] : starts[one] + counts[one]] for one in candidates)
                asked.append(np.stack([features(group[group > HELD_OUT]) for group in groups]))
                right.append(int(np.nonzero(candidates == own)[0][0]) if own in candidates else -1)
    return IdentityOdds(_fit(asked, right), len(right) // 2)


def _fit(asked: Sequence[Floats], right: Sequence[int]) -> Floats:
    # In units of their spread: cosines of some networks differ in the third digit, and the search would end too early.
    every = np.concatenate(asked)
    middle, spread = every.mean(axis=0), every.std(axis=0)
    middle[0], spread = 0.0, np.where(spread > 0, spread, 1.0)
    asked = [(one - middle) / spread for one in asked]

    def loss(weights: Floats) -> tuple[float, Floats]:
        total, slope = RIDGE * float(weights @ weights), 2 * RIDGE * weights
        for one, answer in zip(asked, right, strict=True):
            chances = _chances(one @ weights)
            slope = slope + chances @ one
            if answer >= 0:
                slope = slope - one[answer]
                total -= float(np.log(max(chances[answer], 1e-300)))
            else:
                total -= float(np.log(max(1 - chances.sum(), 1e-300)))
        return total, slope

    weights: Floats = minimize(loss, np.array([-2.0, 1.0, 0.0, 0.0, 0.0, 0.0]), jac=True, method="L-BFGS-B").x / spread
    weights[0] -= weights[1:] @ middle[1:]
    return weights


def _chances(utilities: Floats) -> Floats:
    """The chance of each choice, where to choose none has the utility 0."""
    most = max(float(utilities.max()), 0.0)
    weights = np.exp(utilities - most)
    chances: Floats = weights / (weights.sum() + np.exp(-most))
    return chances
