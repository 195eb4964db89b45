"""Command `fgvc-predict`: images to their most probable classes."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from fgvc.prediction import predict
from reid import cli
from reid.data.folders import Patterns
from reid.names import Prediction


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fgvc-predict",
        description="Say what images show: the most probable classes of a classifier of fgvc-train, best first. An "
        "image that cannot be read is told on standard error, and the command ends with exit code 1 after the others "
        "are answered.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", type=Path, help="an image, or a folder of images")
    parser.add_argument(
        "--checkpoint", metavar="RUN", required=True, help="a run folder of fgvc-train, its model file or its export"
    )
    cli.add_patterns(parser)
    parser.add_argument("--top", metavar="K", type=int, default=5, help="classes of each image (default: 5)")
    parser.add_argument(
        "--prediction",
        choices=get_args(Prediction),
        help="whose probabilities: both branches' summed, or one's (default: as it was trained to be evaluated)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the answers as JSON; - is standard output")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    return parser


def _command(arguments: argparse.Namespace) -> int:
    if arguments.top < 1:
        raise cli.UsageError(f"--top {arguments.top}: expected 1 or more")
    cli.require_places(json=arguments.json)
    answers = predict(
        arguments.checkpoint,
        arguments.images,
        top=arguments.top,
        prediction=arguments.prediction,
        device=arguments.device,
        wanted=Patterns(tuple(arguments.include), tuple(arguments.exclude)),
    )
    for answer in answers:
        if answer.error:
            print(f"fgvc-predict: error: {answer.error}", file=sys.stderr)
        elif arguments.json != "-":
            print(answer)
    if arguments.json:
        cli.write_json(arguments.json, [answer.as_json() for answer in answers])
    return int(any(answer.error for answer in answers))


def main(argv: list[str] | None = None) -> int:
    """Run `fgvc-predict`; returns its exit code."""
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
