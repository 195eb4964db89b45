"""Bootstrap: how far figures, and differences between two evaluations, rest on the luck of their queries.

Queries of one individual succeed and fail together, so individuals are resampled, each with all its queries.

Q queries, K figures.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FEW_IDENTITIES = 30  # below which the percentile method gives intervals that are too narrow


@dataclass(frozen=True)
class Difference:
    """A mean difference, its confidence interval from `low` to `high`, and the two-sided `p_value` of no difference."""

    mean: float
    low: float
    high: float
    p_value: float


def paired_difference(
    baseline: Floats,
    candidate: Floats,
    identities: npt.NDArray[np.int64],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Resample the identities of the queries to see how far the mean of `candidate - baseline` would have moved.

    All are (Q,), one value a query in the same order, NaN for skipped queries, which are left out. Every resample draws
    as many identities as there are, with replacement, and takes both values of all queries of each; the interval spans
    the central `confidence` of the resampled means (the percentile method). The p-value is twice the share of resamples
    on the rarer side of 0, one resample added to either. Where each query is an identity of its own, this is the plain
    bootstrap over queries.

    Raises ValueError for values of different shapes, a query skipped in one only, fewer than two identities, and for
    resamples or a confidence out of range.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"resamples={resamples}, confidence={confidence}; expected at least 1, and a share between 0 and 1"
        )
    if not baseline.shape == candidate.shape == identities.shape or baseline.ndim != 1:
        raise ValueError(
            f"values and identities have shapes {baseline.shape}, {candidate.shape} and {identities.shape}; "
            "expected one a query"
        )
    skipped = np.isnan(baseline)
    unpaired = np.flatnonzero(skipped != np.isnan(candidate))
    if len(unpaired):
        raise ValueError(
            f"{len(unpaired)} queries, the first is number {unpaired[0]} (from 0), are skipped in one evaluation only; "
            "expected the same junk rule and gallery labels in both"
        )
    differences = (candidate - baseline)[~skipped]
    subject = np.unique(identities[~skipped], return_inverse=True)[1]
    queries = np.bincount(subject)
    if len(queries) < 2:
        raise ValueError(f"{len(differences)} queries of {len(queries)} identities are scored; an interval needs 2")
    sums = np.bincount(subject, differences)
    # A loop over resamples is as fast as drawing many at once, and holds one.
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for resample in range(resamples):
        drawn = generator.integers(0, len(queries), len(queries))
        means[resample] = sums[drawn].sum() / queries[drawn].sum()
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    rarer = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    p_value = min(1.0, float(2 * (rarer + 1) / (resamples + 1)))
    return Difference(float(differences.mean()), float(low), float(high), p_value)


def mean_intervals(
    values: Floats,
    identities: npt.NDArray[np.int64],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Floats:
    """The lower and upper ends (K, 2) of the intervals of the means of `values` (K, Q), resampled as differences are.

    A query that has a NaN is left out. Of fewer than two identities nothing is known: the ends are NaN.
    """
    scored = ~np.isnan(values).any(axis=0)
    subject = np.unique(identities[scored], return_inverse=True)[1]
    queries = np.bincount(subject)
    if len(queries) < 2:
        return np.full((len(values), 2), np.nan)
    sums = np.stack([np.bincount(subject, row) for row in values[:, scored]], axis=1)
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, len(values)))
    for resample in range(resamples):
        times = np.bincount(generator.integers(0, len(queries), len(queries)), minlength=len(queries))
        means[resample] = times @ sums / (times @ queries)
    return np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0).T
