"""CMC curves, each with the interval that it rests on: of one evaluation, or of several in one figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from reid.report.tables import Share
from reid.retrieval.bootstrap import mean_intervals

LAST_RANK = 50
STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True, eq=False)
class Curve:
    """Rank-k (K,) in [0, 1] for k = 1 ... K, and its 95 % interval (K, 2), NaN where that is not known."""

    label: str
    shares: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]

    def share(self, rank: int) -> Share:
        """Rank-k with its interval."""
        return Share.between(float(self.shares[rank - 1]), *self.ends[rank - 1].tolist())


def cmc_curve(label: str, first_hit: npt.NDArray[np.float64], identities: npt.NDArray[np.int64], gallery: int) -> Curve:
    """The curve up to rank 50, or to the end of the gallery, from the ranks (D, Q) of the first hits in D draws.

    NaN is a skipped query. `identities` (Q,) are those of the queries.
    """
    flat, whose = first_hit.ravel(), np.tile(identities, len(first_hit))
    scored = ~np.isnan(flat)
    ranks = np.arange(1, min(LAST_RANK, gallery) + 1)
    found = (flat[scored] <= ranks[:, None]).astype(np.float64)
    return Curve(label, found.mean(axis=1), mean_intervals(found, whose[scored]))


def draw_cmc(figure: Figure, curves: Sequence[Curve]) -> None:
    """The cumulative match characteristic of each evaluation, in a band that is its interval."""
    axes = figure.subplots()
    last = max(len(curve.shares) for curve in curves)
    for place, curve in enumerate(curves):
        ranks = np.arange(1, len(curve.shares) + 1)
        style = STYLES[place % len(STYLES)]
        axes.fill_between(ranks, *curve.ends.T, color=f"C{place}", alpha=0.2, linewidth=0)
        axes.plot(
            ranks, curve.shares, style, color=f"C{place}", label=curve.label, marker="o" if len(ranks) < 10 else None
        )
    axes.set(xlabel="rank k", ylabel="queries with a right match by rank k", ylim=(0, 1.02))
    axes.set_xlim(0.5, last + 0.5)
    axes.set_xticks([1, *range(10, last + 1, 10)] if last > 10 else np.arange(1, last + 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    if len(curves) > 1:
        axes.legend(loc="lower right")
