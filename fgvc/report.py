"""The report on a classifier: one HTML page to look at, and its figures as files beside it."""

import json
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import ImageOps

from fgvc.confusion_matrix import NAMED, confusion_matrix, draw_matrix, most_confused, size, with_alike_together
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
from reid.report.strips import SIDE, Kind, Strip, Tile, and_more, readable
from reid.report.tables import Cell, Share, Table, as_csv
from reid.retrieval.intervals import wilson

FIGURES = ("classes", "confusion_matrix", "most_confused", "confusions", "attention", "reliability")
TABLES = ("numbers", "all_confusions")  # those of other names than their figures
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


def write_report(
    folder: Path, result: Result, dataset: FgvcDataset, classifier: Classifier, model: str = "A classifier"
) -> Path:
    """Write `index.html`, its figures and tables and `metrics.json` into `folder`; returns the path of the page.

    `result` is that of `classifier` on the test images of `dataset`, and `model` what the title says of its method and
    network. Raises NotADirectoryError if `folder` is a file,
    OSError if it cannot be written, and what reading an image raises.
    """
    parts.prepare(folder, (*FIGURES, *TABLES))
    sections = [
        _numbers(folder, result, model),
        _classes(folder, result),
        _matrix(folder, result),
        _confusions(folder, result, dataset),
        _attention(folder, result, dataset, classifier),
        _calibration(folder, result),
    ]
    name = " ".join(str(result.protocol[key]) for key in ("dataset", "level") if result.protocol.get(key))
    tested = np.count_nonzero(~np.isnan(result.per_class))
    summary = f"{len(result.labels):,} test images of {tested:,} classes; evaluated on {parts.today()}"
    write_text(folder / "metrics.json", json.dumps(result.as_full_json(), indent=2) + "\n")
    page = folder / "index.html"
    write_text(page, markup.page(f"{model}: categories of {name}", summary, sections))
    return page


def _numbers(folder: Path, result: Result, model: str) -> Section:
    accuracy = result.accuracy[result.protocol["prediction"]]
    shares = {
        **{f"Top-{k}": Share(share, *result.interval(share)) for k, share in accuracy.items()},
        "Mean over classes": Share(result.mean_class_accuracy, *result.mean_class_interval),
        "Calibration error": Share(result.calibration_error),
    }
    body = markup.headline(shares.items())
    body += markup.paragraph(
        "In brackets: 95 % intervals over the images, Wilson's, and the mean's by a bootstrap within each class."
    )
    rows: list[list[Cell]] = [
        [model, NAMES[name], *(Share(share, *result.interval(share)) for share in by.values())]
        for name, by in result.accuracy.items()
    ]
    header = ("model", "probabilities", *(f"top-{k}" for k in accuracy))
    body += parts.table(folder, "numbers", Table("Accuracy by branch", header, rows))
    return Section("numbers", "Numbers", body + parts.protocol_table(result.protocol, MEANINGS))


def _classes(folder: Path, result: Result) -> Section:
    images = result.images_per_class
    order = [int(label) for label in np.argsort(result.per_class, kind="stable") if images[label]]
    shares = result.per_class[order]
    chart = parts.chart(
        folder,
        "classes",
        partial(draw_classes, shares=shares, ends=wilson(shares, images[order])),
        f"Accuracy by class, from {100 * shares[0]:.0f} % to {100 * shares[-1]:.0f} %.",
        "Each bar is a class, from the worst to the best, with its 95 % interval (Wilson's). The line is the mean over "
        f"classes, {100 * result.mean_class_accuracy:.1f} %.",
    )
    rows: list[list[Cell]] = [
        [
            result.classes[label],
            Share(float(result.per_class[label]), *wilson(result.per_class[label], images[label]).tolist()),
            int(images[label]),
            _taken_for(result, label),
        ]
        for label in order
    ]
    header = ("class", "accuracy", "images", "most often taken for")
    worst = markup.table(f"The {min(WORST, len(rows))} worst{and_more(len(rows) - WORST)}", header, rows[:WORST])
    table = parts.table(folder, "classes", Table("From the worst to the best, with 95 % intervals", header, rows))
    everything = markup.details("All classes", table)
    return Section("classes", "Accuracy by class", markup.side_by_side(chart, worst) + everything)


def _taken_for(result: Result, label: int) -> str:
    pair = next((pair for pair in result.confusions if pair.label == label), None)
    return f"{result.classes[pair.predicted]} ({pair.count})" if pair else ""


def draw_classes(figure: Figure, shares: Floats, ends: Floats) -> None:
    """Accuracies (C,) of classes, ascending, as bars, with their intervals (C, 2) and their mean."""
    axes = figure.subplots()
    places = np.arange(1, len(shares) + 1)
    axes.bar(places, shares, width=0.8 if len(shares) < 80 else 1.0, color="C0", alpha=0.6)
    axes.vlines(places, *ends.T, color=mpl.rcParams["text.color"], linewidth=1 if len(shares) < 80 else 0.5)
    axes.axhline(float(shares.mean()), color="C1", linewidth=1.4, linestyle="--")
    axes.set(xlabel="classes, worst first", ylabel="share of images predicted right", ylim=(0, 1.02))
    axes.set_xlim(0.3, len(shares) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(False, axis="x")


def _matrix(folder: Path, result: Result) -> Section:
    matrix = confusion_matrix(result.predicted, result.labels, result.classes)
    write_text(folder / "confusion_matrix.csv", as_csv(matrix.as_table()))
    few = len(matrix.classes) <= NAMED
    shown = matrix if few else with_alike_together(matrix)
    ordered = (
        "" if few else " Classes that are taken for each other are beside each other: groups of them show as blocks."
    )
    body = parts.chart(
        folder,
        "confusion_matrix",
        partial(draw_matrix, matrix=shown),
        f"Confusion matrix of {len(matrix.classes)} classes.",
        f"Which share of the images of a class (rows) is taken for which (columns).{ordered}",
        size(shown),
    )
    body += markup.paragraph(
        "The counts, in the order of the dataset:", markup.files("confusion_matrix", {"csv": "CSV"})
    )
    if not few and result.confusions:
        part = most_confused(matrix, result.confusions, result.classes)
        body += parts.chart(
            folder,
            "most_confused",
            partial(draw_matrix, matrix=part),
            f"Confusion matrix of the {len(part.classes)} most confused classes.",
            f"The {len(part.classes)} classes of the most frequent confusions, with numbers of images; colours are "
            "shares of all images of a class.",
            size(part),
        )
    return Section("matrix", "Confusion matrix", body)


def _confusions(folder: Path, result: Result, dataset: FgvcDataset) -> Section:
    heading = "Most confused classes"
    if not result.confusions:
        return Section("confusions", heading, markup.paragraph("Every image is predicted right."))
    rows = [_confused(result, dataset, pair) for pair in result.confusions[:PAIRS]]
    lead = markup.paragraph(
        "The pairs of classes of which one is most often taken for the other. \u2717 orange: images of the first class "
        "that are taken for the second, the most certain first, with the probability given to that; grey: images that "
        f"are of the second class. Shown are {len(rows)} pairs{and_more(len(result.confusions) - len(rows))}."
    )
    rows_of_all: list[list[Cell]] = [
        [result.classes[pair.label], result.classes[pair.predicted], pair.count, pair.images]
        for pair in result.confusions
    ]
    caption, header = "Images of a class that are taken for another", ("class", "taken for", "images", "of")
    table = parts.table(folder, "all_confusions", Table(caption, header, rows_of_all))
    body = lead + parts.strips(folder, "confusions", rows) + markup.details("All confusions", table)
    return Section("confusions", heading, body)


def _confused(result: Result, dataset: FgvcDataset, pair: Confusion) -> Strip:
    """Images of a pair's first class that are taken for the second, and images of the second."""
    wrong = np.flatnonzero((result.labels == pair.label) & (result.predicted == pair.predicted))
    left_out = and_more(len(wrong) - EXAMPLES, "that are not shown")
    wrong = wrong[np.argsort(-result.confidence[wrong], kind="stable")][:EXAMPLES]
    tiles = [_tile(dataset.test[row], "wrong", _percent(result.confidence[row]), ()) for row in wrong]
    name = result.classes[pair.predicted]
    others = [sample for sample in (*dataset.test, *dataset.train) if dataset.classes[sample.identity] == name]
    tiles += [_tile(sample, "query", "to compare", ()) for sample in others[:EXAMPLES]]
    title = f"{result.classes[pair.label]} taken for {name}: {pair.count} of {pair.images} images{left_out}"
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
            every = np.count_nonzero(right) if title.startswith("Right") else np.count_nonzero(~right)
            rows.append(Strip(f"{title}{and_more(int(every) - len(chosen))}", tuple(tiles)))
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
        f"the mean distance from the line, is {100 * result.calibration_error:.1f} %. Bars are 95 % intervals.",
    )
    rows: list[list[Cell]] = [
        [
            _percent(part.predicted),
            Share(part.observed, *wilson(part.observed, part.samples).tolist()),
            part.samples,
        ]
        for part in result.reliability
    ]
    header = ("mean probability", "share that is right", "images")
    table = parts.table(folder, "reliability", Table("On the curve", header, rows))
    return Section("calibration", "Calibration", markup.side_by_side(chart, table))
