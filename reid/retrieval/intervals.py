"""Intervals of shares of independent trials; those of queries, which are not independent, are `bootstrap`'s."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]


def wilson(share: Floats | float, trials: Integers | int) -> Floats:
    """The ends (..., 2) of the 95 % interval of a share in [0, 1] of so many trials, by Wilson's score; NaN of none.

    >>> wilson(0.5, 100).round(3).tolist()
    [0.404, 0.596]
    """
    z, n = 1.959964, np.asarray(trials, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(share * (1 - np.asarray(share)) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # Rounding could leave a share of 1 a hair above the end.
    ends: Floats = np.stack([np.minimum(centre - half, share), np.maximum(centre + half, share)], axis=-1)
    return ends
