"""Command `reid-data`: is a copy of a dataset complete, readable, and free of test images in training; splits."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from reid import cli
from reid.data.check import check
from reid.data.datasets import CHOICES, DATASETS, choose_protocol
from reid.data.folders import Patterns
from reid.data.splitting import split_table
from reid.data.tables import Reading, parse_columns
from reid.data.times import DateOrder


def _parse_choice(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    key = key.removeprefix("data.")
    if key not in ("version", "train_split") or not value:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected version=... or train_split=...")
    return key, value


def _parse_columns(text: str) -> dict[str, str]:
    try:
        return parse_columns(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reid-data", description="Look after Re-ID datasets.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    checker = commands.add_parser(
        "check",
        help="find a dataset, count it, and look for test images in training",
        description=(
            "Find a dataset, compare it with the official counts, and look for empty files, queries without a match "
            "and images that are in both training and test. Exit code: 0 fine; 1 not usable: not found, images that "
            "cannot be read, or an image in both training and test; 2 wrong arguments. Counts that differ from the "
            "official ones and identities in both training and test are told, and are no failure."
        ),
    )
    checker.add_argument(
        "--dataset",
        required=True,
        metavar="NAME[:VERSION]",
        help=f"one of {', '.join(DATASETS)}, and its version as for reid-eval, msmt17:v2",
    )
    checker.add_argument(
        "--data-root", required=True, type=Path, metavar="DIR", help="its folder, one above it, or the CSV file"
    )
    checker.add_argument(
        "--hash", action="store_true", help="also read every image: find equal ones under other names, and broken ones"
    )
    checker.add_argument(
        "--columns",
        type=_parse_columns,
        metavar="NAME=HEADING,...",
        help="headings of the CSV file, as path=image_path,identity=name",
    )
    checker.add_argument(
        "--json", metavar="FILE", help="write the report, with all findings, as JSON; - is standard output"
    )
    cli.add_patterns(checker)
    choices = "; ".join(
        f"for {name} {option}={'|'.join(values)}" for name, its in CHOICES.items() for option, values in its.items()
    )
    checker.add_argument(
        "choices", nargs="*", type=_parse_choice, metavar="KEY=VALUE", help=f"{choices} (default: the first)"
    )
    checker.set_defaults(command=_check)
    splitter = commands.add_parser(
        "split",
        help="write a table with a split into training, query and gallery",
        description="Write a table again with a column split: 70 %% of the identities to train on, and of the others a "
        "third of their occasions as queries, the latest where there are times, and the rest as gallery. Photos of one "
        "camera within a minute of each other stay together. The same seed gives the same split.",
    )
    splitter.add_argument("table", type=Path, metavar="TABLE", help="a CSV file with path and identity")
    splitter.add_argument("--output", type=Path, metavar="FILE", help="default: TABLE's name with -split, beside it")
    splitter.add_argument("--seed", type=int, default=0, metavar="S", help="of the draw (default: 0)")
    splitter.add_argument(
        "--columns",
        type=_parse_columns,
        default={},
        metavar="NAME=HEADING,...",
        help="as for check; split= to make anew",
    )
    splitter.add_argument("--dates", choices=get_args(DateOrder), help="how the table writes 05/03/2026")
    splitter.set_defaults(command=_split)
    for command in (checker, splitter):
        # The main parser has --debug too: a value absent here must not overwrite one given before the command.
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _split(arguments: argparse.Namespace) -> int:
    table: Path = arguments.table
    output = arguments.output or table.with_name(f"{table.stem}-split.csv")
    print(split_table(table, output, Reading(arguments.columns, dates=arguments.dates), arguments.seed))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    dataset, _, version = arguments.dataset.partition(":")
    choices = dict(arguments.choices)
    if version and choices.setdefault("version", version) != version:
        said = f"version={choices['version']}"
        raise cli.UsageError(f"--dataset {arguments.dataset} and {said} are two versions; expected one of them")
    try:
        protocol = choose_protocol(dataset, **choices)
    except ValueError as error:
        raise cli.UsageError(str(error)) from None
    cli.require_places(json=arguments.json)
    report = check(
        dataset,
        arguments.data_root,
        hash_contents=arguments.hash,
        columns=arguments.columns,
        wanted=Patterns(tuple(arguments.include), tuple(arguments.exclude)),
        **protocol,
    )
    return cli.show_check(report, arguments.json)


def main(argv: list[str] | None = None) -> int:
    """Run the command `reid-data`; see `reid-data check --help`."""
    return cli.run(lambda arguments: arguments.command(arguments), _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
