"""Evidence that two groups of vectors show one individual, in a space learned from the groups known so far.

Vectors of one individual scatter about its mean with a covariance that is the same for all, and the means scatter
about the common one (probabilistic linear discriminant analysis; Ioffe, 2006). How one individual's vectors scatter
is at first guessed from nearest neighbours and then learned from groups. The evidence weighs how many vectors stand
behind each mean, so that a group gains nothing by its mere size.

N vectors of E values, D dimensions kept, m pairs of groups.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

GUESS = 300  # how many known differences the guess from nearest neighbours counts for
ROUNDNESS = 0.3  # share of the scatter that is taken to be the same in all directions
LEAST_SPREAD = 0.02
DIMENSIONS = 64
COMPONENTS = 192  # of longer vectors, their principal components
NEAR = 5
BLOCK = 1024
MOST_RATIOS = 2**22  # held at a time


def principal(vectors: npt.NDArray[np.floating]) -> Floats:
    """Vectors (N, E) about their mean, along at most 192 principal components."""
    centred: Floats = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    if centred.shape[1] <= COMPONENTS:
        return centred
    _, axes = np.linalg.eigh(centred.T @ centred)
    kept: Floats = centred @ axes[:, -COMPONENTS:]
    return kept


def guess_scatter(vectors: Floats, rows: Integers) -> Floats:
    """Covariance (E, E) within individuals as nearest neighbours (N, K) suggest it, -1 for none."""
    total, pairs = np.zeros((vectors.shape[1],) * 2), 0
    for neighbour in rows[:, :NEAR].T:
        known = neighbour >= 0
        apart = vectors[known] - vectors[neighbour[known]]
        total += apart.T @ apart
        pairs += len(apart)
    return total / max(2 * pairs, 1)


@dataclass(frozen=True, eq=False)
class Space:
    """Vectors (N, D) float32 in which individuals scatter evenly, and the `spread` (D,) of individuals, descending."""

    vectors: Singles
    spread: Singles

    def log_ratios(self, sums: tuple[Singles, Singles], counts: tuple[Floats, Floats]) -> Floats:
        """Log likelihood ratio, in tens, of one individual over two, (m,), of the sums (m, D) of counts (m,) vectors.

        A pair without a vector on one side has 0.
        """
        found = np.zeros(len(counts[0]))
        some = np.nonzero((counts[0] > 0) & (counts[1] > 0))[0]
        for start in range(0, len(some), BLOCK):
            chosen = some[start : start + BLOCK]
            noise = [(1 / count[chosen]).astype(np.float32)[:, None] for count in counts]
            means = [total[chosen] * share for total, share in zip(sums, noise, strict=True)]
            pull = self.spread / (self.spread + noise[0])
            if_same, if_not = pull * noise[0] + noise[1], self.spread + noise[1]
            off = means[1] - pull * means[0]
            parts = means[1] ** 2 / if_not - off**2 / if_same + np.log(if_not / if_same)
            found[chosen] = parts.sum(axis=1) / 2
        return found / 10

    def likeliest(self, vectors: Singles, means: Singles, counts: Floats, most: int) -> Integers:
        """Find the K groups that each of m vectors (m, D) is likeliest of, in no order: (m, K); K = min(most, U).

        Groups are given by means (U, D) of counts (U,) vectors.
        """
        noise = (1 / counts).astype(np.float32)[:, None]
        pull = self.spread / (self.spread + noise)
        if_same, if_not = pull * noise + 1, self.spread + 1
        pulled = pull * means
        square, line = 1 / if_not - 1 / if_same, 2 * pulled / if_same
        level = (np.log(if_not / if_same) - pulled**2 / if_same).sum(axis=1)
        most = min(most, len(means))
        found = np.empty((len(vectors), most), np.int64)
        step = max(1, MOST_RATIOS // max(len(means), 1))
        for start in range(0, len(vectors), step):
            block = vectors[start : start + step]
            ratios = block**2 @ square.T + block @ line.T + level
            found[start : start + step] = np.argpartition(-ratios, most - 1, axis=1)[:, :most]
        return found


def learn_space(vectors: Floats, guess: Floats, labels: Integers) -> Space:
    """Learn a space from vectors (N, E), the guessed scatter (E, E) and groups (N,) of which those of several count."""
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    known = sizes[group] > 1
    _, group, sizes = np.unique(labels[known], return_inverse=True, return_counts=True)
    means = np.zeros((len(sizes), vectors.shape[1]))
    np.add.at(means, group, vectors[known])
    off = vectors[known] - (means / sizes[:, None])[group]
    within = (off.T @ off + GUESS * guess) / (len(off) - len(sizes) + GUESS)
    level = np.trace(within) / len(within)
    within = (1 - ROUNDNESS) * within + (ROUNDNESS * level + 1e-12) * np.eye(len(within))
    even = vectors @ np.linalg.cholesky(np.linalg.inv(within))
    spread, axes = np.linalg.eigh(even.T @ even / len(even) - np.eye(len(within)))
    kept = np.argsort(-spread)[:DIMENSIONS]
    return Space((even @ axes[:, kept]).astype(np.float32), np.maximum(spread[kept], LEAST_SPREAD).astype(np.float32))
