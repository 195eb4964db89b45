"""Command `reid-eval compare`: whether evaluations of the same queries differ by more than the luck of the queries."""

import argparse
import logging
from pathlib import Path

from reid import cli
from reid.evaluation.comparison import compare

log = logging.getLogger("reid")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reid-eval compare",
        description="Compare evaluations of the same queries: differences to the first one, with confidence intervals "
        "by a paired bootstrap over the queries, all queries of an identity together, because they are alike. "
        "A difference whose interval holds 0 is within noise.",
    )
    parser.add_argument(
        "evaluations", nargs="+", metavar="FILE.json", help="written by reid-eval --json; baseline first"
    )
    parser.add_argument("--json", metavar="FILE", help="write the comparison as JSON; - is standard output")
    parser.add_argument(
        "--report", metavar="DIR", type=Path, help="write index.html: all CMC curves in one figure, and the tables"
    )
    parser.add_argument("--resamples", type=int, default=10_000, metavar="N", help="resamples (default: 10000)")
    parser.add_argument("--confidence", type=float, default=0.95, metavar="SHARE", help="of intervals (default: 0.95)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the resampling (default: 0)")
    return parser


def _command(arguments: argparse.Namespace) -> None:
    cli.require_places(arguments.report, json=arguments.json)
    comparison = compare(
        arguments.evaluations, resamples=arguments.resamples, confidence=arguments.confidence, seed=arguments.seed
    )
    if arguments.json != "-":
        print(comparison)
    if arguments.json:
        cli.write_json(arguments.json, comparison.as_json())
    if arguments.report:
        from reid.report.comparing import write_comparison  # matplotlib takes a second to import

        log.info("report: %s", write_comparison(arguments.report, comparison))


def main(argv: list[str] | None = None) -> int:
    """Run `reid-eval compare` with the arguments that follow `compare`; returns its exit code."""
    return cli.run(_command, _parser(), argv)
