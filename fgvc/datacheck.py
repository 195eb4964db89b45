"""Command `fgvc-data`: is a copy of a set of categories complete, readable, and free of test images in training."""

import argparse
import sys
from pathlib import Path

from fgvc.check import check
from fgvc.datasets import DATASETS, LEVELS
from reid import cli
from reid.data.folders import Patterns


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fgvc-data", description="Look after sets of fine-grained categories.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    checker = commands.add_parser(
        "check",
        help="find a dataset, count it, and look for test images in training",
        description=(
            "Find a dataset, compare it with the official counts, and look for empty files, classes without a test "
            "image and images that are in both training and test. Exit code: 0 fine; 1 not usable: not found, images "
            "that cannot be read, or an image in both training and test; 2 wrong arguments. Counts that differ from "
            "the official ones are told, and are no failure."
        ),
    )
    checker.add_argument("--dataset", required=True, choices=DATASETS, help="one of %(choices)s", metavar="NAME")
    checker.add_argument("--data-root", required=True, type=Path, metavar="DIR", help="its folder, or one above it")
    checker.add_argument(
        "--hash", action="store_true", help="also read every image: find equal ones under other names, and broken ones"
    )
    checker.add_argument("--level", choices=LEVELS, help="of aircraft: what a class is (default: variant)")
    cli.add_patterns(checker)
    checker.add_argument(
        "--json", metavar="FILE", help="write the report, with all findings, as JSON; - is standard output"
    )
    # The main parser has --debug too: a value absent here must not overwrite one given before the command.
    checker.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _check(arguments: argparse.Namespace) -> int:
    if arguments.level and arguments.dataset != "aircraft":
        raise cli.UsageError(f"--level {arguments.level}: only aircraft has levels, not {arguments.dataset}")
    cli.require_places(json=arguments.json)
    report = check(
        arguments.dataset,
        arguments.data_root,
        level=arguments.level,
        hash_contents=arguments.hash,
        wanted=Patterns(tuple(arguments.include), tuple(arguments.exclude)),
    )
    return cli.show_check(report, arguments.json)


def main(argv: list[str] | None = None) -> int:
    """Run the command `fgvc-data`; see `fgvc-data check --help`."""
    return cli.run(_check, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
