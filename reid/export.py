"""Command `reid-export`: a trained model as an ONNX file that says all it takes to use it."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from reid import cli
from reid.inference.checkpoint import EXPORT_SUFFIX
from reid.inference.pretrained import add_arguments, chosen_model, require_model
from reid.names import ExportInput


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reid-export",
        description="Write a trained model, or a network as others trained it, as an ONNX file, with its preprocessing "
        "and all else it takes to use it in the metadata, and compare its outputs with the model's on batches of 1, 2 "
        "and 7 images. One that differs by more than rounding is not kept. reid-eval, reid-enrol and reid-serve take "
        "an export as --checkpoint.",
    )
    add_arguments(parser)
    parser.add_argument("--format", choices=["onnx"], default="onnx")
    parser.add_argument(
        "--output", metavar="FILE.onnx", type=Path, help="by default beside the file of the weights, under its name"
    )
    parser.add_argument(
        "--input",
        choices=get_args(ExportInput),
        default="normalised",
        help="what the file takes: images normalised by the model's own mean and deviation (default), by ImageNet's, "
        "as tools with a fixed preprocessing give them, or pixels of 0 to 255; the rest of the way is within the file",
    )
    parser.add_argument("--json", metavar="FILE", help="write the comparison as JSON; - is standard output")
    return parser


def _command(arguments: argparse.Namespace) -> None:
    if arguments.output and arguments.output.suffix != EXPORT_SUFFIX:
        raise cli.UsageError(f"--output {arguments.output}: expected a name that ends with {EXPORT_SUFFIX}")
    cli.require_places(output=arguments.output, json=arguments.json)
    model = chosen_model(arguments)
    if model is None:
        raise cli.UsageError("give --checkpoint RUN, or --backbone NAME")
    require_model(model)  # refused before torch, which takes seconds, is imported
    from reid.inference.exporting import export

    exported = export(model, arguments.output, given=arguments.input)
    if arguments.json != "-":
        print(exported)
    if arguments.json:
        cli.write_json(arguments.json, exported.as_json())


def main(argv: list[str] | None = None) -> int:
    """Run `reid-export`; returns its exit code."""
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
