"""The figures of a report: each a function that draws on a matplotlib figure it is given.

Positives are always blue and negatives orange, lines also differ in style: readable for the colour-blind and in print.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from reid.report.projection import Projection
from reid.report.strips import LOOKS, SIDE, Strip, Tile
from reid.retrieval.calibration import ReliabilityBin
from reid.retrieval.camera_pairs import CameraPairs
from reid.retrieval.intervals import wilson
from reid.retrieval.verification import Verification

Draw = Callable[[Figure], None]
Band = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Places (K,) on an axis, and the ends (K, 2) of the intervals there."""

SIZE = (5.2, 3.7)  # inches: on a page of a phone's width, too, its text can be read
SCORE_BINS = 60


def theme(ink: str, muted: str, grid: str, paper: str, cycle: Sequence[str]) -> dict[str, object]:
    """Matplotlib settings for one set of colours; the first two of `cycle` are those of positives and negatives."""
    inks = ("text.color", "axes.labelcolor", "axes.titlecolor")
    return {
        **dict.fromkeys(inks, ink),
        **dict.fromkeys(("xtick.color", "ytick.color", "axes.edgecolor"), muted),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor", "savefig.facecolor"), paper),
        "axes.prop_cycle": cycler(color=cycle),
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "legend.edgecolor": paper,
        "legend.framealpha": 0.8,
        "legend.fontsize": 9,
        "font.family": "DejaVu Sans",
        "text.parse_math": False,  # file names may hold dollar signs
        "svg.hashsalt": "report",  # the same figure is the same file
        "font.size": 10,
        "lines.linewidth": 2,
    }


# Okabe and Ito's colours, the dark ones for white paper and the light ones for black.
LIGHT = theme(
    "#1f2328",
    "#57606a",
    "#e4e7eb",
    "#ffffff",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31"),
)
DARK = theme(
    "#e6e8eb",
    "#a3abb5",
    "#30363d",
    "#15181c",
    ("#56b4e9", "#e69f00", "#2fbf94", "#e39ac4", "#d98a55", "#9ad1f5", "#b79ad6", "#c9ad6a"),
)


def png(
    draw: Draw, size: tuple[float, float] = SIZE, colours: Mapping[str, object] = LIGHT, dots_per_inch: int = 200
) -> bytes:
    """Have `draw` fill a figure of `size` (width, height) in inches, and return it as a PNG."""
    return _drawn(draw, size, colours, dots_per_inch, format="png", metadata={"Software": None})


def svg(draw: Draw, size: tuple[float, float] = SIZE, dots_per_inch: int = 200) -> bytes:
    """The same as an SVG in light colours, its text as paths, photos in it at so many dots per inch."""
    return _drawn(draw, size, LIGHT, dots_per_inch, format="svg", metadata={"Date": None, "Creator": None})


def _drawn(
    draw: Draw, size: tuple[float, float], colours: Mapping[str, object], dots_per_inch: int, **options: Any
) -> bytes:
    with mpl.rc_context(colours):  # type: ignore[arg-type]
        figure = Figure(figsize=size, dpi=dots_per_inch, layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=dots_per_inch, **options)
    return buffer.getvalue()


def draw_scores(figure: Figure, verification: Verification) -> None:
    """How the scores of positive and of negative pairs are distributed, with the open-set threshold."""
    axes = figure.subplots()
    both = np.stack([verification.positive_histogram, verification.negative_histogram])
    edges = np.linspace(-1, 1, both.shape[1] + 1)
    used = np.flatnonzero(both.sum(axis=0))
    width = -(-(used[-1] + 1 - used[0]) // SCORE_BINS)  # fine bins joined into one
    starts = np.arange(used[0], used[-1] + 1, width)
    edges = edges[np.append(starts, min(starts[-1] + width, both.shape[1]))]
    shares = np.add.reduceat(both, starts, axis=1) / both.sum(axis=1, keepdims=True)
    names = ("positive pairs", "negative pairs")
    for name, share, style, colour in zip(names, shares, ("-", "--"), ("C0", "C1"), strict=True):
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.25)
        axes.stairs(share, edges, color=colour, linestyle=style, linewidth=1.6, label=name)
    open_set, ink = verification.open_set, mpl.rcParams["text.color"]
    rule = f"{open_set.threshold:.6f}, at\n{100 * open_set.false_alarm_rate:g} % false alarms"
    axes.axvline(open_set.threshold, color=ink, linewidth=1.2, linestyle=":", label=f"threshold {rule}")
    axes.set_ylim(bottom=0)
    axes.set(xlabel="score (cosine similarity)", ylabel="share of pairs in a bin")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.legend()


def draw_roc(figure: Figure, verification: Verification, band: Band | None = None) -> None:
    """True positive rate over false positive rate, logarithmic, with the operating points marked, in a `band`."""
    axes = figure.subplots()
    if band is not None:
        axes.fill_between(band[0], *band[1].T, color="C0", alpha=0.2, linewidth=0)
    drawn = verification.roc.fpr > 0
    axes.plot(verification.roc.fpr[drawn], verification.roc.tpr[drawn], color="C0")
    for point in verification.tpr_at_fpr.values():
        if point is not None and point.fpr > 0:
            axes.plot(point.fpr, point.tpr, marker="o", markersize=6, color="C1", clip_on=False, zorder=3)
            axes.annotate(
                f"{100 * point.tpr:.1f} %",
                (point.fpr, point.tpr),
                (-2, 6),
                textcoords="offset points",
                ha="right",
                fontsize=9,
            )
    axes.set(xscale="log", xlabel="false positive rate", ylabel="true positive rate", ylim=(-0.02, 1.02))
    axes.set_xlim(min(1e-4, 1 / verification.negatives) / 5, 1)  # with room for the first label
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")  # matplotlib's own is mathematical text
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def draw_reliability(figure: Figure, bins: Sequence[ReliabilityBin], what: str = "right matches") -> None:
    """Share of `what` over the predicted probability; areas of the dots grow with the number of samples."""
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=mpl.rcParams["ytick.color"], linewidth=1, linestyle="--", label="perfect")
    samples = np.array([part.samples for part in bins])
    predicted = [part.predicted for part in bins]
    observed = np.array([part.observed for part in bins])
    low, high = wilson(observed, samples).T
    axes.errorbar(predicted, observed, [observed - low, high - observed], fmt="none", ecolor="C0", elinewidth=1.2)
    axes.plot(predicted, observed, color="C0", linewidth=1.2)
    axes.scatter(predicted, observed, 15 + 150 * samples / samples.max(), color="C0", zorder=3, label="observed")
    axes.set(xlabel="predicted probability", ylabel=f"share of {what}", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="upper left", markerscale=0.6)


def draw_camera_pairs(figure: Figure, pairs: CameraPairs, name: Callable[[int], str] = str) -> None:
    """mAP in percent for every camera of a query and every camera of the gallery; blank where nothing is to find.

    `name` gives that of a camera.
    """
    axes = figure.subplots()
    low, high = np.floor(10 * np.nanmin(pairs.mAP)) / 10, np.ceil(10 * np.nanmax(pairs.mAP)) / 10
    image = axes.imshow(pairs.mAP, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    axes.grid(False)
    axes.set_xticks(range(len(pairs.gallery_cameras)), [name(int(camera)) for camera in pairs.gallery_cameras])
    axes.set_yticks(range(len(pairs.query_cameras)), [name(int(camera)) for camera in pairs.query_cameras])
    axes.set(xlabel="camera of the gallery images", ylabel="camera of the query")
    for row, column in np.argwhere(pairs.queries > 0):
        value = pairs.mAP[row, column]
        axes.text(
            column,
            row,
            f"{100 * value:.0f}",
            ha="center",
            va="center",
            color="black" if value - low > 0.55 * (high - low) else "white",
            fontsize=9 if max(pairs.mAP.shape) <= 12 else 7,
        )
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02, format=PercentFormatter(1, decimals=0))
    bar.set_label("mAP")
    bar.outline.set_visible(False)


def camera_pairs_size(pairs: CameraPairs) -> tuple[float, float]:
    """Inches that give every cell room for its number."""
    queries, gallery = pairs.mAP.shape
    return 2.2 + max(3.0, 0.42 * gallery), 0.9 + max(1.4, 0.34 * queries)


def draw_projection(figure: Figure, projection: Projection) -> None:
    """The embeddings in two dimensions: some identities coloured, queries as stars and gallery images as dots."""
    axes = figure.subplots()
    ink, muted = mpl.rcParams["text.color"], mpl.rcParams["ytick.color"]
    groups = [(-1, "others", muted, 0.3)]
    groups += [(place, f"identity {name}", f"C{place}", 0.9) for place, name in enumerate(projection.names)]
    for marker, size in (("o", 18), ("*", 90)):  # the few queries last, on top of the gallery
        for place, label, colour, alpha in groups:
            rows = (projection.identity == place) & (projection.is_query == (marker == "*"))
            x, y = projection.points[rows].T
            shown = label if marker == "o" and (projection.identity == place).any() else None
            axes.scatter(x, y, size, color=colour, alpha=alpha, marker=marker, linewidth=0, label=shown)
        name = {"o": "gallery image", "*": "query"}[marker]
        axes.scatter([], [], size, color="none", edgecolor=ink, marker=marker, label=name)
    axes.set(xlabel=f"{projection.method}, first dimension", ylabel=f"{projection.method}, second dimension")
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(loc="outside lower center", ncols=3, handletextpad=0.3)


def projection_places(projection: Projection, size: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Where the points (n, 2) lie in the drawing of `size`: shares of its width and height, from its top left."""
    with mpl.rc_context(LIGHT):  # type: ignore[arg-type]
        figure = Figure(figsize=size, layout="constrained")
        draw_projection(figure, projection)
        figure.draw_without_rendering()
        drawn = figure.axes[0].transData.transform(projection.points) / figure.bbox.size
    return np.stack([drawn[:, 0], 1 - drawn[:, 1]], axis=1)


CELL, LINE, GAP = SIDE // 2 + 12, 15, 10  # pixels of the drawing of strips, which shows tiles at half size
TILE_LETTERS = 18  # in the drawing's font, below a tile
TITLE_LETTER = 8  # pixels of a letter of a strip's title, at the most on average
CENTRED: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}


def strips_size(strips: Sequence[Strip]) -> tuple[float, float]:
    """Width and height of the drawing in inches, at 100 pixels an inch."""
    return _width(strips) / 100, len(strips) * _height(strips) / 100


def draw_strips(figure: Figure, strips: Sequence[Strip]) -> None:
    """Draw strips one below the other, each picture in a frame of the colour of its kind, with its mark."""
    figure.set_layout_engine("none")  # every place is computed
    axes = figure.add_axes((0, 0, 1, 1))
    for row, strip in enumerate(strips):
        top = row * _height(strips) + LINE
        for line, title in enumerate(_title(strip, strips)):
            axes.text(GAP, top + LINE * line, title, va="center", fontsize=9, fontweight="bold")
        for column, tile in enumerate(strip.tiles):
            _draw_tile(axes, tile, GAP + column * CELL, top + LINE * (_title_lines(strips) - 0.5))
    width, height = strips_size(strips)
    axes.set(xlim=(0, 100 * width), ylim=(100 * height, 0))
    axes.axis("off")


def _width(strips: Sequence[Strip]) -> int:
    return GAP + max(len(strip.tiles) for strip in strips) * CELL


def _height(strips: Sequence[Strip]) -> float:
    notes = max(len(tile.notes) for strip in strips for tile in strip.tiles)
    return 2 * LINE + CELL + LINE * (_title_lines(strips) + notes)


def _title(strip: Strip, strips: Sequence[Strip]) -> list[str]:
    """The lines of a strip's title, none wider than the drawing of all strips."""
    return wrap(strip.title, (_width(strips) - GAP) // TITLE_LETTER)


def _title_lines(strips: Sequence[Strip]) -> int:
    return max(len(_title(strip, strips)) for strip in strips)


def _draw_tile(axes: Axes, tile: Tile, left: float, top: float) -> None:
    look = LOOKS[tile.kind]
    width, height = (side / 2 for side in tile.picture.size)
    x, y = left + (CELL - GAP - width) / 2, top + LINE
    centre, options = left + (CELL - GAP) / 2, CENTRED
    axes.text(centre, top + LINE / 2, f"{look.mark} {tile.heading}".strip(), color=look.colour, **options)
    axes.imshow(tile.picture, extent=(x, x + width, y + height, y), aspect="auto")
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=look.colour, linewidth=2.5))
    for line, note in enumerate(tile.notes):
        axes.text(centre, y + height + LINE * (line + 0.7), shorten(note), **options)


def shorten(text: str) -> str:
    """Text that is no wider than a tile of the drawing, its end cut where it is."""
    return text if len(text) <= TILE_LETTERS else f"{text[: TILE_LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
