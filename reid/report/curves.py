"""The page on one or several trainings: losses, their weights, learning rate and evaluations over the epochs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from reid.evaluation.protocol import model_name
from reid.files import write_text
from reid.names import BRANCHES
from reid.report import markup, parts
from reid.report.histories import History
from reid.report.markup import Section
from reid.report.tables import Cell, Share, Table

BRANCH_NAMES = {"sa": "SA", "glca": "GLCA", "pwca": "PWCA"}
PART_NAMES = {
    "ce": "cross-entropy",
    "triplet": "triplet loss",
    "arcface": "ArcFace",
    "circle": "circle loss",
    "center": "center loss",
}
HELD_OUT = "mAP, held out"
STYLES = ("-", "--", ":", "-.")
FEW = 12  # points that are marked, because a line through them alone would hide how few they are


@dataclass(frozen=True)
class Line:
    """Values by epoch under a label, with a band between `low` and `high` where these are known.

    `level` is drawn as a thin line, and the point of the epoch that was `chosen` is circled.
    """

    label: str
    values: Mapping[int, float]
    colour: str
    style: str = "-"
    low: Mapping[int, float] | None = None
    high: Mapping[int, float] | None = None
    level: float | None = None
    chosen: int | None = None


def write_curves(folder: Path, histories: Sequence[History]) -> Path:
    """Write `index.html`, its figures and tables into `folder`; returns the path of the page.

    Raises NotADirectoryError if `folder` is a file, OSError if it cannot be written.
    """
    sections = [_numbers, _losses, _weights, _rate, _held_out, _evaluations]
    parts.prepare(folder, _names(histories))
    body = [section(folder, histories) for section in sections]
    first = histories[0]
    title = (
        f"Training of {model_name(first.config)}, {first.config.data.dataset}"
        if len(histories) == 1
        else f"{len(histories)} trainings: {', '.join(history.name for history in histories)}"
    )
    page = folder / "index.html"
    write_text(page, markup.page(title, _summary(histories), [section for section in body if section]))
    return page


def _summary(histories: Sequence[History]) -> str:
    return f"{'; '.join(f'{history.name}: {progress(history)}' for history in histories)}; as of {parts.today()}"


def progress(history: History) -> str:
    """How far a run is."""
    if (kept := history.kept) is not None:
        return f"ended after {history.epoch} epochs, that of epoch {kept} is kept"
    if history.epochs is None or history.epoch >= history.epochs:
        return f"{history.epoch} epochs"
    return f"epoch {history.epoch} of {history.epochs}, not ended"


def _names(histories: Sequence[History]) -> Iterator[str]:
    yield from ("runs", "epochs", "loss", "weights", "rate", "held_out")
    for history in histories:
        yield from (f"loss_{part}" for part in history.parts)
        yield from map(_file_name, history.evaluations())


def _file_name(measure: str) -> str:
    return measure.lower().replace("-", "").replace(" ", "_")


def _numbers(folder: Path, histories: Sequence[History]) -> Section:
    measures = list(dict.fromkeys(name for history in histories for name in history.evaluations()))
    held_out = [HELD_OUT, "before training"] if any(history.held_out for history in histories) else []
    header = ("run", "model", "data", "epochs", "loss", *held_out, *measures, "images/s", "minutes")
    rows = [_row(history, measures, bool(held_out)) for history in histories]
    body = parts.table(folder, "runs", Table("The last of every run, with 95 % intervals", header, rows))
    choosing = [history for history in histories if history.evaluations() and "kept" not in history.records[-1]]
    best = [[history.name, *_best(history)] for history in choosing]
    if best:
        body += markup.table(
            "The best evaluation during training, by mAP or top-1: chosen on the test images, so it flatters",
            ("run", "best", "after epoch", "before training"),
            best,
        )
    everything = parts.table(folder, "epochs", Table("All that was recorded", *_every_epoch(histories)))
    return Section("numbers", "Numbers", body + markup.details("Every epoch", everything))


def _row(history: History, measures: Sequence[str], held_out: bool) -> list[Cell]:
    last, evaluations = history.records[-1], history.evaluations()
    done = f"{history.epoch} of {history.epochs}" if history.epochs else str(history.epoch)
    shares = [list(evaluations[name].values())[-1] if name in evaluations else None for name in measures]
    minutes = sum(record["seconds"] for record in history.records) / 60
    options = history.config
    row: list[Cell] = [history.name, model_name(options), options.data.dataset, done, float(last["loss"])]
    found = list(history.held_out.values())
    row += [Share(found[-1]), Share(found[0])] if found else [None, None] if held_out else []
    return [*row, *shares, round(last["images_per_second"]), round(minutes, 1)]


def _best(history: History) -> tuple[Share, int, Share | None]:
    found = next(iter(history.evaluations().values()))
    epoch = max(found, key=lambda epoch: found[epoch].value)
    return found[epoch], epoch, None if history.frozen is None else Share(history.frozen)


def _every_epoch(histories: Sequence[History]) -> tuple[tuple[str, ...], list[list[Cell]]]:
    """Header and rows of the table of all epochs; a column is empty for a run that has no such value."""
    rows: list[dict[str, Cell]] = []
    for history in histories:
        evaluations = history.evaluations()
        for record in history.records:
            losses = {
                f"{BRANCH_NAMES.get(branch, branch)} {part}": float(value)
                for branch, named in record["losses"].items()
                for part, value in named.items()
            }
            weights = {f"w {BRANCH_NAMES.get(name, name)}": value for name, value in record["log_variances"].items()}
            shares = {name: by[record["epoch"]] for name, by in evaluations.items() if record["epoch"] in by}
            if record["epoch"] in history.held_out:
                shares[HELD_OUT] = Share(history.held_out[record["epoch"]])
            rows.append(
                {"run": history.name, "epoch": record["epoch"], "loss": float(record["loss"])}
                | losses
                | weights
                | {"rate": float(record["lr"])}
                | shares
            )
    header = tuple(dict.fromkeys(name for row in rows for name in row))
    return header, [[row.get(name) for name in header] for row in rows]


def _lines(
    histories: Sequence[History], values: Callable[[History], Mapping[str, Mapping[int, float]]]
) -> tuple[Line, ...]:
    """A line a run and branch: of one run branches differ in colour, of several runs do, and branches in style."""
    lines = []
    branches = list(BRANCHES["dcal"])
    for place, history in enumerate(histories):
        for branch, points in values(history).items():
            name, number = BRANCH_NAMES.get(branch, branch), branches.index(branch)  # type: ignore[arg-type]
            if len(histories) == 1:
                lines.append(Line(name, points, f"C{number}", STYLES[number % len(STYLES)]))
            else:
                lines.append(Line(f"{history.name}, {name}", points, f"C{place}", STYLES[number % len(STYLES)]))
    return tuple(lines)


def _by_branch(history: History, part: str) -> dict[str, dict[int, float]]:
    return {
        branch: {record["epoch"]: record["losses"][branch][part] for record in history.records}
        for branch in history.branches
        if part in history.records[0]["losses"][branch]
    }


def _losses(folder: Path, histories: Sequence[History]) -> Section:
    total = [
        Line(history.name, {record["epoch"]: record["loss"] for record in history.records}, *_look(place))
        for place, history in enumerate(histories)
    ]
    caption = (
        "The loss that is minimised, mean over the steps of an epoch: with several branches theirs weighted by w, so "
        "that it may fall below 0."
    )
    charts = [_chart(folder, "loss", total, "loss", caption)]
    for part in dict.fromkeys(part for history in histories for part in history.parts):
        name = _part_name(part)
        lines = _lines(histories, partial(_by_branch, part=part))
        charts.append(_chart(folder, f"loss_{part}", lines, name, f"The {name} of each branch, before it is weighted."))
    return Section("losses", "Losses by branch", markup.side_by_side(*charts))


def _part_name(part: str) -> str:
    known = PART_NAMES.get(part.removeprefix("jigsaw_"), part)
    return f"{known} of the jigsaw parts" if part.startswith("jigsaw_") else known


def _weights(folder: Path, histories: Sequence[History]) -> Section | None:
    def learned(history: History) -> dict[str, dict[int, float]]:
        names = history.records[0]["log_variances"]
        return {name: {record["epoch"]: record["log_variances"][name] for record in history.records} for name in names}

    lines = _lines(histories, learned)
    if not lines:
        return None
    caption = "The learned w of each branch, from 0 on: its loss counts e^-w / 2 times, so the higher w, the less."
    return Section("weights", "Weights of the branches", _chart(folder, "weights", lines, "w", caption))


def _rate(folder: Path, histories: Sequence[History]) -> Section:
    lines = [
        Line(
            history.name, {record["epoch"]: record["lr"] for record in history.records}, f"C{place}", STYLES[place % 4]
        )
        for place, history in enumerate(histories)
    ]
    chart = _chart(folder, "rate", lines, "learning rate", "The learning rate at the last step of each epoch.")
    return Section("rate", "Learning rate", chart)


def _held_out(folder: Path, histories: Sequence[History]) -> Section | None:
    lines = []
    for place, history in enumerate(histories):
        scores = history.held_out
        if scores:
            level = scores.pop(0)
            lines.append(Line(history.name, scores, *_look(place), level=level, chosen=history.kept))
    if not lines:
        return None
    caption = (
        "mAP on the identities that were held out of training, which alone says which epoch is kept (circled). The "
        "thin line is that of the weights the training started from: an epoch below it made the model worse."
    )
    return Section("held_out", "Held out", _chart(folder, "held_out", lines, HELD_OUT, caption, shares=True))


def _evaluations(folder: Path, histories: Sequence[History]) -> Section | None:
    found = [history.evaluations() for history in histories]
    measures = list(dict.fromkeys(name for evaluations in found for name in evaluations))
    if not measures:
        return None
    charts = []
    for measure in measures:
        lines = []
        for place, (history, evaluations) in enumerate(zip(histories, found, strict=True)):
            by_epoch = evaluations.get(measure)
            if by_epoch:
                first = measure == next(iter(evaluations))
                lines.append(_evaluated(history, by_epoch, place, history.frozen if first else None))
        charts.append(
            _chart(folder, _file_name(measure), lines, measure, _evaluation_caption(measure, lines), shares=True)
        )
    return Section("evaluation", "Evaluation", markup.side_by_side(*charts))


def _evaluated(history: History, by_epoch: Mapping[int, Share], place: int, frozen: float | None) -> Line:
    low = {epoch: share.low for epoch, share in by_epoch.items() if share.low is not None}
    high = {epoch: share.high for epoch, share in by_epoch.items() if share.high is not None}
    values = {epoch: share.value for epoch, share in by_epoch.items()}
    return Line(history.name, values, *_look(place), low or None, high or None, frozen)


def _look(place: int) -> tuple[str, str]:
    """Colour and style of a run's lines."""
    return f"C{place}", STYLES[place % len(STYLES)]


def _evaluation_caption(measure: str, lines: Sequence[Line]) -> str:
    band = " Bands are 95 % intervals of each evaluation by itself." if any(line.low for line in lines) else ""
    level = (
        " The thin line is that of the weights the training started from." if any(line.level for line in lines) else ""
    )
    return f"{measure} on the test images.{band}{level}"


def _chart(folder: Path, name: str, lines: Sequence[Line], label: str, caption: str, *, shares: bool = False) -> str:
    last = "; ".join(f"{line.label} {_shown(list(line.values.values())[-1], shares)}" for line in lines)
    draw = partial(draw_lines, lines=lines, label=label, shares=shares)
    return parts.chart(folder, name, draw, f"{label} over the epochs; at the end {last}.", caption)


def _shown(value: float, share: bool) -> str:
    return f"{100 * value:.1f} %" if share else f"{value:.4g}"


def draw_lines(figure: Figure, lines: Sequence[Line], label: str, shares: bool) -> None:
    """Values over the epochs, with their bands; shares in percent."""
    axes = figure.subplots()
    for line in lines:
        epochs = list(line.values)
        marker = "o" if len(epochs) <= FEW else None
        axes.plot(epochs, list(line.values.values()), line.style, color=line.colour, label=line.label, marker=marker)
        if line.low and line.high:
            axes.fill_between(
                list(line.low),
                list(line.low.values()),
                list(line.high.values()),
                color=line.colour,
                alpha=0.2,
                linewidth=0,
            )
        if line.level is not None:
            axes.axhline(line.level, color=line.colour, linewidth=1, linestyle=":")
        if line.chosen is not None and line.chosen in line.values:
            place = [line.chosen], [line.values[line.chosen]]
            axes.plot(*place, "o", color=line.colour, fillstyle="none", markersize=11)
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1) if shares else FuncFormatter(_tick))
    if len(lines) > 1:
        axes.legend()


def _tick(value: float, _: int) -> str:
    """A number for people: matplotlib's own would be an offset at the end of the axis, or mathematical text."""
    sign = "\N{MINUS SIGN}" if value < 0 else ""
    return f"{sign}{abs(value):.6g}"
