"""Command `fgvc-eval`: a classifier to top-1 and top-5 accuracy, by branch and class, with the protocol beside them."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from fgvc.run import Evaluated, classify, judge
from fgvc.run import evaluate as evaluate
from reid import cli
from reid.config import parse_override
from reid.distributed.world import joined
from reid.evaluation.protocol import model_name

log = logging.getLogger("reid")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fgvc-eval",
        description="Evaluate a classifier of fine-grained categories: top-1 and top-5 accuracy of the self-attention "
        "branch (SA), of the global-local branch (GLCA) and of the sum of their probabilities, accuracy by class, and "
        "which classes are taken for which.",
        epilog="KEY=VALUE sets any option of the groups data and eval, for example prediction=sa, on_error=skip or "
        "batch_size=32.",
    )
    parser.add_argument(
        "--checkpoint", metavar="RUN", required=True, help="a run folder of fgvc-train, its model file or its export"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="evaluate on this set, of the same classes (default: the one trained on)"
    )
    parser.add_argument("--data-root", metavar="DIR", help="the folder that holds the dataset, or one above it")
    cli.add_patterns(parser)
    parser.add_argument("--json", metavar="FILE", help="write all figures as JSON; - is standard output")
    parser.add_argument(
        "--report", metavar="DIR", type=Path, help="write index.html, a report that opens from disk, and its figures"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="options of data and eval")
    return parser


def _command(arguments: argparse.Namespace) -> None:
    with joined(arguments.device) as world:
        overrides = world.on_main(lambda: _overrides(arguments))
        classified = classify(arguments.checkpoint, overrides, device=arguments.device, world=world)
        world.on_main(lambda: _keep(arguments, judge(classified)))


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    cli.require_places(arguments.report, json=arguments.json)
    flags = {
        "data.dataset": arguments.dataset,
        "data.root": arguments.data_root,
        "data.include": arguments.include or None,
        "data.exclude": arguments.exclude or None,
    }
    overrides = {name: value for name, value in flags.items() if value is not None}
    return overrides | dict(parse_override(text) for text in arguments.options)


def _keep(arguments: argparse.Namespace, evaluated: Evaluated) -> None:
    """Print the result, unless the JSON is what is printed, and write what was asked for."""
    result = evaluated.result
    if arguments.json != "-":
        print(result)
    if arguments.json:
        cli.write_json(arguments.json, result.as_full_json())
    if arguments.report:
        from fgvc.report import write_report  # matplotlib takes a second to import

        model = model_name(evaluated.checkpoint.config)
        page = write_report(arguments.report, result, evaluated.dataset, evaluated.classifier, model)
        log.info("report: %s", page)


def main(argv: list[str] | None = None) -> int:
    """Run `fgvc-eval`; returns its exit code."""
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
