"""The report on a classifier: one HTML page to look at, and its figures as files beside it."""

import json
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import ImageOps

from fgvc.datasets import FgvcDataset
from fgvc.metrics import Confusion, Floats
from fgvc.scoring import NAMES, Result
from reid.data.images import read_image
from reid.data.samples import Sample
from reid.files import write_text
from reid.inference.classifier import Classifier
from reid.report import figures, markup, parts
from reid.report.attention import attended
from reid.report.markup import Section
from reid.report.strips import SIDE, Kind, Strip, Tile, readable

FIGURES = ("classes", "confusions", "attention", "reliability")
PAIRS = 8  # most confused pairs that are shown
EXAMPLES = 3  # images of each class of a pair
LOOKS = 6  # images of each kind under attention
WORST = 10  # classes named beside their chart

# What a choice of the protocol means, for readers who do not know our words.
MEANINGS = {
    "dataset": "whose test images these are",
    "level": "what a class is",
    "split": "which images are tested on",
    "trained_on": "dataset that the model was trained on",
    "prediction": "whose probabilities decide: those of both branches summed, or of one",
    "precision": "number format of the model's arithmetic",
}


def write_report(folder: Path, result: Result, dataset: FgvcDataset, classifier: Classifier) -> Path:
    """Write `index.html`, its figures as PNG files and `metrics.json` into `folder`; returns the path of the page.

    `result` is that of `classifier` on the test images of `dataset`. Raises NotADirectoryError if `folder` is a file,
    OSError if it cannot be written, and what reading an image raises.
    """
    parts.prepare(folder, FIGURES)
    sections = [
        _numbers(result),
        _classes(folder, result),
        _confusions(folder, result, dataset),
        _attention(folder, result, dataset, classifier),
        _calibration(folder, result),
    ]
    name = " ".join(str(result.protocol[key]) for key in ("dataset", "level") if result.protocol.get(key))
    summary = f"{len(result.labels):,} test images of {np.count_nonzero(~np.isnan(result.per_class)):,} classes"
    write_text(folder / "metrics.json", json.dumps(result.as_full_json(), indent=2) + "\n")
    page = folder / "index.html"
    write_text(page, markup.page(f"Categories of {name}", summary, sections))
    return page


def _numbers(result: Result) -> Section:
    accuracy = result.accuracy[result.protocol["prediction"]]
    shares = {
        **{f"Top-{k}": share for k, share in accuracy.items()},
        "Mean over classes": result.mean_class_accuracy,
        "Calibration error": result.calibration_error,
    }
    body = markup.headline((name, f"{100 * share:.1f} %") for name, share in shares.items())
    rows = [(NAMES[name], *(f"{100 * share:.1f} %" for share in by.values())) for name, by in result.accuracy.items()]
    body += markup.table("Accuracy by branch", ("probabilities", *(f"top-{k}" for k in accuracy)), rows)
    return Section("numbers", "Numbers", body + parts.protocol_table(result.protocol, MEANINGS))


def _classes(folder: Path, result: Result) -> Section:
    images = np.bincount(result.labels, minlength=len(result.classes))
    order = [int(label) for label in np.argsort(result.per_class, kind="stable") if images[label]]
    shares = result.per_class[order]
    chart = parts.chart(
        folder,
        "classes",
        partial(draw_classes, shares=shares),
        f"Accuracy by class, from {100 * shares[0]:.0f} % to {100 * shares[-1]:.0f} %.",
        "Each bar is a class, from the worst to the best. The line is the mean over classes, "
        f"{100 * result.mean_class_accuracy:.1f} %.",
    )
    rows = [
        (
            result.classes[label],
            f"{100 * result.per_class[label]:.1f} %",
            f"{images[label]:,}",
            _taken_for(result, label),
        )
        for label in order
    ]
    header = ("class", "accuracy", "images", "most often taken for")
    worst = markup.table(f"The {min(WORST, len(rows))} worst", header, rows[:WORST])
    everything = markup.details("All classes", markup.table("From the worst to the best", header, rows))
    return Section("classes", "Accuracy by class", markup.side_by_side(chart, worst) + everything)


def _taken_for(result: Result, label: int) -> str:
    pair = next((pair for pair in result.confusions if pair.label == label), None)
    return f"{result.classes[pair.predicted]} ({pair.count})" if pair else ""


def draw_classes(figure: Figure, shares: Floats) -> None:
    """Accuracies of classes, ascending, as bars, with their mean."""
    axes = figure.subplots()
    axes.bar(np.arange(1, len(shares) + 1), shares, width=0.8 if len(shares) < 80 else 1.0, color="C0")
    axes.axhline(float(shares.mean()), color="C1", linewidth=1.4, linestyle="--")
    axes.set(xlabel="classes, worst first", ylabel="share of images predicted right", ylim=(0, 1.02))
    axes.set_xlim(0.3, len(shares) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(False, axis="x")


def _confusions(folder: Path, result: Result, dataset: FgvcDataset) -> Section:
    heading = "Most confused classes"
    if not result.confusions:
        return Section("confusions", heading, markup.paragraph("Every image is predicted right."))
    rows = [_confused(result, dataset, pair) for pair in result.confusions[:PAIRS]]
    lead = markup.paragraph(
        "The pairs of classes of which one is most often taken for the other. \u2717 orange: images of the first class "
        "that are taken for the second, the most certain first, with the probability given to that; grey: images that "
        "are of the second class."
    )
    table = markup.table(
        "Images of a class that are taken for another",
        ("class", "taken for", "images"),
        [
            (result.classes[pair.label], result.classes[pair.predicted], f"{pair.count} of {pair.images}")
            for pair in result.confusions
        ],
    )
    body = lead + parts.strips(folder, "confusions", rows) + markup.details("All confusions", table)
    return Section("confusions", heading, body)


def _confused(result: Result, dataset: FgvcDataset, pair: Confusion) -> Strip:
    """Images of a pair's first class that are taken for the second, and images of the second."""
    wrong = np.flatnonzero((result.labels == pair.label) & (result.predicted == pair.predicted))
    wrong = wrong[np.argsort(-result.confidence[wrong], kind="stable")][:EXAMPLES]
    tiles = [_tile(dataset.test[row], "wrong", _percent(result.confidence[row]), ()) for row in wrong]
    name = result.classes[pair.predicted]
    others = [sample for sample in (*dataset.test, *dataset.train) if dataset.classes[sample.identity] == name]
    tiles += [_tile(sample, "query", "to compare", ()) for sample in others[:EXAMPLES]]
    title = f"{result.classes[pair.label]} taken for {name}: {pair.count} of {pair.images} images"
    return Strip(title, tuple(tiles))


def _attention(folder: Path, result: Result, dataset: FgvcDataset, classifier: Classifier) -> Section:
    heading = "Where the model looks"
    if not classifier.model.rolls_out:
        reason = "The network has no class token whose attention could be shown."
        return Section("attention", heading, markup.paragraph(reason))
    right = result.predicted == result.labels
    certain = np.argsort(-result.confidence, kind="stable")
    groups = {
        "Right, most certain": certain[right[certain]][:LOOKS],
        "Right, least certain": certain[right[certain]][LOOKS:][-LOOKS:],
        "Wrong, most certain": certain[~right[certain]][:LOOKS],
    }
    rows = []
    for title, chosen in groups.items():
        if len(chosen):
            tiles = [_predicted(result, dataset, int(row)) for row in chosen]
            rows.append(Strip(title, tuple(tiles)))
            rows.append(Strip(f"{title}: where the model looks", attended(tiles, classifier)))
    outlined = " Outlined are the patches that GLCA chose." if classifier.glca else ""
    lead = markup.paragraph(
        "Test images with their prediction, and below them the attention rollout of the class token, from the least "
        f"(dark) to the most attended patch (bright) of each; what the model does not see stays grey.{outlined}"
    )
    return Section("attention", heading, lead + parts.strips(folder, "attention", rows))


def _predicted(result: Result, dataset: FgvcDataset, row: int) -> Tile:
    """A test image with what it is taken for and how certainly, and with what it is where that is something else."""
    right = result.predicted[row] == result.labels[row]
    name, certainty = result.classes[result.predicted[row]], _percent(result.confidence[row])
    if right:
        return _tile(dataset.test[row], "right", certainty, (name,))
    return _tile(dataset.test[row], "wrong", certainty, (name, f"is {result.classes[result.labels[row]]}"))


def _tile(sample: Sample, kind: Kind, heading: str, notes: tuple[str, ...]) -> Tile:
    read = partial(read_image, sample.path, sample.box)
    return Tile(ImageOps.contain(read(), (SIDE, SIDE)), read, kind, heading, notes, readable(str(sample.path)))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _calibration(folder: Path, result: Result) -> Section:
    chart = parts.chart(
        folder,
        "reliability",
        partial(figures.draw_reliability, bins=result.reliability, what="right predictions"),
        f"Reliability of the probabilities; calibration error {100 * result.calibration_error:.1f} %.",
        f"Predictions by tenths of their probability: a well calibrated model is right in 80 % of the cases that it "
        f"gives 80 %. Below the line it is too certain, above it not certain enough. The expected calibration error, "
        f"the mean distance from the line, is {100 * result.calibration_error:.1f} %.",
    )
    rows = [(_percent(part.predicted), _percent(part.observed), f"{part.samples:,}") for part in result.reliability]
    table = markup.table("On the curve", ("mean probability", "share that is right", "images"), rows)
    return Section("calibration", "Calibration", markup.side_by_side(chart, table))
