"""The confusion matrix as a figure: of few classes by name, of many as a whole and the most confused by name.

C classes, T of them with test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fgvc.metrics import Confusion, Integers
from reid.report.tables import Cell, Table

NAMED = 25  # classes that have room for their names
LETTERS = 28  # of a name beside the matrix


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """How many images of each class are taken for each: `counts` (T, T) of test images, in the order of `classes`.

    `images` (T,) are those of each class, more than its row holds where it is a part of a larger matrix.
    """

    classes: tuple[str, ...]
    counts: Integers
    images: Integers

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """The counts as shares of the images of each class, (T, T)."""
        shares: npt.NDArray[np.float64] = self.counts / np.maximum(self.images, 1)[:, None]
        return shares

    def part(self, places: Sequence[int]) -> "ConfusionMatrix":
        """Only the classes at these places, in their order."""
        chosen = list(places)
        return ConfusionMatrix(
            tuple(self.classes[place] for place in chosen), self.counts[np.ix_(chosen, chosen)], self.images[chosen]
        )

    def as_table(self) -> Table:
        """Counts, a row a class."""
        rows: list[list[Cell]] = [[name, *row] for name, row in zip(self.classes, self.counts.tolist(), strict=True)]
        return Table("Images of a class (rows) taken for another (columns)", ("class", *self.classes), rows)


def confusion_matrix(predicted: Integers, labels: Integers, classes: Sequence[str]) -> ConfusionMatrix:
    """The matrix of the classes that have test images or are predicted; `predicted` and `labels` are (n,) in [0, C)."""
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    used = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist()
    return ConfusionMatrix(tuple(classes), counts, counts.sum(axis=1)).part(used)


def with_alike_together(matrix: ConfusionMatrix) -> ConfusionMatrix:
    """The same in an order in which classes that are taken for each other are near, so that groups of them show."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    shares = matrix.shares
    apart = 1 - (shares + shares.T) / 2
    np.fill_diagonal(apart, 0)
    order = leaves_list(linkage(squareform(apart.clip(0)), "average", optimal_ordering=True))
    return matrix.part(order.tolist())


def most_confused(matrix: ConfusionMatrix, confusions: Sequence[Confusion], classes: Sequence[str]) -> ConfusionMatrix:
    """The part of the classes of the most frequent confusions, each with those it is taken for."""
    place = {name: number for number, name in enumerate(matrix.classes)}
    chosen: dict[int, None] = {}
    for pair in confusions:
        both = [place[classes[pair.label]], place[classes[pair.predicted]]]
        if len(chosen | dict.fromkeys(both)) > NAMED:
            break
        chosen |= dict.fromkeys(both)
    return with_alike_together(matrix.part(list(chosen)))


def size(matrix: ConfusionMatrix) -> tuple[float, float]:
    """Inches that give every class with a name room for it."""
    if len(matrix.classes) > NAMED:
        return 6.4, 5.8
    side = 0.27 * max(len(matrix.classes), 6)
    names = 0.075 * min(max(map(len, matrix.classes)), LETTERS)
    return side + names + 1.3, side + names + 0.6


def draw_matrix(figure: Figure, matrix: ConfusionMatrix) -> None:
    """Shares of each class's images, dark where large; small shares are drawn up, so that rare confusions show."""
    axes = figure.subplots()
    few, shares = len(matrix.classes) <= NAMED, matrix.shares
    ramp = LinearSegmentedColormap.from_list("paper to blue", [mpl.rcParams["axes.facecolor"], _blue()])
    image = axes.imshow(shares, cmap=ramp, norm=PowerNorm(0.5, 0, 1), interpolation="none" if few else "nearest")
    axes.grid(False)
    axes.set(xlabel="taken for", ylabel="class")
    if few:
        _name(figure, matrix)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    bar = figure.colorbar(
        image, ax=axes, fraction=0.05, pad=0.02, shrink=0.6, format=PercentFormatter(1), ticks=[0, 0.05, 0.25, 0.5, 1]
    )
    bar.set_label("share of the images of a class")
    bar.outline.set_visible(False)


def _blue() -> str:
    colour: str = mpl.rcParams["axes.prop_cycle"].by_key()["color"][0]
    return colour


def _name(figure: Figure, matrix: ConfusionMatrix) -> None:
    """Write the names of the classes beside the matrix, and the counts into it."""
    axes = figure.axes[0]
    names = [
        name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}" for name in matrix.classes
    ]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for row, column in np.argwhere(matrix.counts > 0).tolist():
        share = matrix.shares[row, column]
        colour = mpl.rcParams["axes.facecolor" if share > 0.35 else "text.color"]
        axes.text(column, row, str(matrix.counts[row, column]), ha="center", va="center", fontsize=7, color=colour)
