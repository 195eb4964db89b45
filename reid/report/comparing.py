"""The page on a comparison: the CMC curves of all evaluations in one figure, their figures, and the differences."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from reid.evaluation.comparison import Comparison, Evaluation, read_evaluation, verdict
from reid.evaluation.protocol import MEANINGS
from reid.files import write_text
from reid.report import markup, parts
from reid.report.cmc import Curve, cmc_curve, draw_cmc
from reid.report.markup import Section
from reid.report.tables import Cell, Points, Share, Table
from reid.retrieval.bootstrap import mean_intervals

FILES = ("cmc", "figures", "differences")


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write `index.html`, its figure and tables into `folder`; returns the path of the page.

    The files that are compared are read again. Raises NotADirectoryError if `folder` is a file, OSError if it cannot be
    written, and what reading them raises.
    """
    evaluations = [read_evaluation(Path(file)) for file in comparison.files]
    names = _names(comparison.files)
    parts.prepare(folder, FILES)
    sections = [
        _numbers(folder, comparison, evaluations, names),
        _cmc(folder, evaluations, names),
        Section("protocol", "Protocol", _protocol(comparison, evaluations[0], names)),
    ]
    data = " ".join(
        str(evaluations[0].protocol[key]) for key in ("dataset", "version") if evaluations[0].protocol.get(key)
    )
    skipped = f", and {comparison.queries_skipped:,} skipped" if comparison.queries_skipped else ""
    summary = (
        f"{comparison.queries:,} queries of {comparison.identities:,} identities{skipped}; compared on {parts.today()}"
    )
    page = folder / "index.html"
    write_text(page, markup.page(f"{', '.join(names)}: compared on {data}", summary, sections))
    return page


def _names(files: Sequence[str]) -> tuple[str, ...]:
    """The files by their names without suffix, or by their paths where two have one name."""
    stems = [Path(file).stem for file in files]
    return tuple(stem if stems.count(stem) == 1 else file for file, stem in zip(files, stems, strict=True))


def _numbers(folder: Path, comparison: Comparison, evaluations: Sequence[Evaluation], names: Sequence[str]) -> Section:
    rows: list[list[Cell]] = []
    for name, evaluation in zip(names, evaluations, strict=True):
        values = np.stack([draws.ravel() for draws in evaluation.figures.values()])
        whose = np.tile(evaluation.identities, len(evaluation.first_hit))
        ends = mean_intervals(
            values, whose, resamples=comparison.resamples, confidence=comparison.confidence, seed=comparison.seed
        )
        means = np.nanmean(values, axis=1).tolist()
        shares = [Share.between(mean, *between) for mean, between in zip(means, ends.tolist(), strict=True)]
        rows.append([name, evaluation.model, *shares])
    sure = f"{100 * comparison.confidence:g} %"
    caption = f"Figures with their {sure} intervals, each by itself"
    body = parts.table(folder, "figures", Table(caption, ("evaluation", "model", *comparison.means), rows))
    differences: list[list[Cell]] = [
        [names[number + 1], figure, Points(found.mean, found.low, found.high), verdict(found)]
        for number in range(len(names) - 1)
        for figure, by_file in comparison.differences.items()
        for found in (by_file[number],)
    ]
    header = ("evaluation", "figure", "difference", "verdict")
    caption = f"Differences to {names[0]} with their {sure} intervals, in percentage points"
    body += parts.table(folder, "differences", Table(caption, header, differences))
    body += markup.paragraph(
        f"From {comparison.resamples:,} resamples of the identities, all queries of one drawn together, and the same "
        "resamples for both: intervals of figures may overlap where that of their difference leaves out 0."
    )
    return Section("numbers", "Numbers", body)


def _cmc(folder: Path, evaluations: Sequence[Evaluation], names: Sequence[str]) -> Section:
    curves = [
        cmc_curve(name, evaluation.first_hit, evaluation.identities, evaluation.protocol["gallery images"])
        for name, evaluation in zip(names, evaluations, strict=True)
    ]
    words = "; ".join(f"{curve.label}: Rank-1 {curve.share(1).percent}" for curve in curves)
    caption = (
        "Share of the queries that have a right match among their first k gallery images, junk left out; bands are the "
        "95 % intervals of each by itself."
    )
    chart = parts.chart(folder, "cmc", partial(draw_cmc, curves=curves), f"CMC curves. {words}.", caption)
    table = Table("The curves", ("rank", *names), [_row(curves, rank) for rank in _ranks(curves)])
    return Section("cmc", "CMC curves", chart + markup.details("Every rank", parts.table(folder, "cmc", table)))


def _ranks(curves: Sequence[Curve]) -> range:
    return range(1, max(len(curve.shares) for curve in curves) + 1)


def _row(curves: Sequence[Curve], rank: int) -> list[Cell]:
    return [str(rank), *(curve.share(rank) if rank <= len(curve.shares) else None for curve in curves)]


def _protocol(comparison: Comparison, first: Evaluation, names: Sequence[str]) -> str:
    if not comparison.protocol_differences:
        return parts.protocol_table(first.protocol, MEANINGS)
    rows = [
        (choice, *(json.dumps(value) for value in values)) for choice, values in comparison.protocol_differences.items()
    ]
    warning = markup.paragraph("Their protocols differ, so that their figures may not be comparable.")
    return (
        warning
        + markup.table("Where they differ", ("choice", *names), rows)
        + parts.protocol_table(first.protocol, MEANINGS)
    )
