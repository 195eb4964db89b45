"""Command `reid-report`: the training curves of one or several runs as a page."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from reid import cli
from reid.report.histories import read_histories

log = logging.getLogger("reid")


def report(runs: Sequence[Path | str], folder: Path | str | None = None) -> Path:
    """Write the page on run folders of reid-train and fgvc-train, also of runs in progress; returns its path.

    Without a `folder` it goes into `report` of the first run. Raises FileNotFoundError for a folder that holds no run
    with an epoch that has ended, ValueError for damaged records, and NotADirectoryError if `folder` is a file.
    """
    paths = [Path(run) for run in runs]
    histories = read_histories(paths)
    place = Path(folder) if folder is not None else paths[0] / "report"
    cli.require_places(place)
    from reid.report.curves import write_curves  # matplotlib takes a second to import

    return write_curves(place, histories)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reid-report",
        description="Show the training of runs of reid-train and fgvc-train, also of one in progress, as a page that "
        "opens from disk: losses by branch, the learned weights w, the learning rate, and the evaluations with their "
        "intervals. Several runs are drawn into the same figures.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folders")
    parser.add_argument(
        "--report",
        metavar="DIR",
        type=Path,
        help="write index.html, its figures (SVG, PNG) and tables (CSV, LaTeX) here (default: report in the first RUN)",
    )
    return parser


def _command(arguments: argparse.Namespace) -> None:
    log.info("report: %s", report(arguments.runs, arguments.report))


def main(argv: list[str] | None = None) -> int:
    """Run `reid-report`; returns its exit code."""
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
