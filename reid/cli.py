"""What all commands share: one-line errors, exit codes, places and results."""

import argparse
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from reid.config import ConfigError
from reid.files import write_text


class UsageError(ValueError):
    """Arguments that argparse accepts but the command cannot use; ends a command with exit code 2."""


def run(
    command: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser, argv: list[str] | None
) -> int:
    """Parse, run, and return the exit code: 0 done, 1 failed, 2 wrong arguments. Errors are one line on stderr."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    has_subcommands = any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)
    # Intermixed, because KEY=VALUE may stand before, between and after the flags.
    parse = parser.parse_args if has_subcommands else parser.parse_intermixed_args
    with _nowhere() if os.environ.get("RANK", "0") != "0" else nullcontext():  # one of torchrun's processes tells
        arguments = parse(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    log = logging.getLogger("reid")
    log.handlers = [logging.StreamHandler(sys.stderr)]
    log.setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of files that they do not name; what cannot be read is told
    try:
        return command(arguments) or 0
    except KeyboardInterrupt as interrupt:
        print(f"{parser.prog}: interrupted{f'; {interrupt}' if str(interrupt) else ''}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except Exception as error:
        if arguments.debug:
            raise
        expected = isinstance(error, ValueError | OSError | FloatingPointError)
        message = " ".join(_words(error).split()) or type(error).__name__
        if not expected:
            message = f"unexpected {type(error).__name__}: {message} (--debug shows where)"
        print(f"{parser.prog}: error: {message}", file=sys.stderr)
        return 2 if isinstance(error, UsageError | ConfigError) else 1


def _words(error: Exception) -> str:
    """What an error says, that of the system without its number: `photos.csv: No such file or directory`."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)


def add_patterns(parser: argparse.ArgumentParser) -> None:
    """Give a command that reads folders the options that choose among the files below them."""
    parser.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        default=[],
        help="of folders take only files whose name, or that of a folder above, is such, as '*.jpg' or 'site-1'; with "
        "a slash, whose path below the folder is, as '2024/*'; may be given several times",
    )
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="leave out those that are such, as 'small_*'"
    )


def require_places(report: Path | None = None, **files: str | Path | None) -> None:
    """Refuse before the work what could not be written after it; `files` are by the name of their option."""
    for option, place in files.items():
        if place not in (None, "-") and not Path(str(place)).absolute().parent.is_dir():
            name = option.replace("_", "-")
            raise FileNotFoundError(f"--{name} {place}: there is no folder {Path(str(place)).parent}")
    if report and report.exists() and not report.is_dir():
        raise NotADirectoryError(f"report {report} is a file, expected a folder or a new name")


def write_json(place: str, values: Any) -> None:
    """Write a result to a file, or to standard output for `-`."""
    text = json.dumps(values, indent=2) + "\n"
    if place == "-":
        sys.stdout.write(text)
    else:
        write_text(Path(place), text)


class Check(Protocol):
    """What a check of a dataset found."""

    @property
    def usable(self) -> bool:
        """Whether the dataset can be used."""

    def as_text(self) -> str:
        """For people."""

    def as_json(self) -> dict[str, Any]:
        """For programs."""


def show_check(report: Check, json_place: str | None) -> int:
    """Print what a check of a dataset found, as JSON too where that is asked for; 0 where it is usable, else 1."""
    if json_place != "-":
        print(report.as_text())
    if json_place:
        write_json(json_place, report.as_json())
    return 0 if report.usable else 1


@contextmanager
def _nowhere() -> Iterator[None]:
    with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        yield
