"""Command `reid-export`: a trained model as an ONNX file that says all it takes to use it."""

import argparse
import sys
from pathlib import Path

from reid import cli
from reid.files import model_file
from reid.inference.checkpoint import EXPORT_SUFFIX


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reid-export",
        description="Write a trained model as an ONNX file, with its preprocessing and all else it takes to use it in "
        "the metadata, and compare its outputs with the model's on batches of 1, 2 and 7 images. One that differs by "
        "more than rounding is not kept. reid-eval, reid-enrol and reid-serve take an export as --checkpoint.",
    )
    parser.add_argument("--checkpoint", metavar="RUN", required=True, help="a run folder, or its model file")
    parser.add_argument("--format", choices=["onnx"], default="onnx")
    parser.add_argument(
        "--output", metavar="FILE.onnx", type=Path, help="by default beside the model file, under its name"
    )
    parser.add_argument("--json", metavar="FILE", help="write the comparison as JSON; - is standard output")
    return parser


def _command(arguments: argparse.Namespace) -> None:
    if arguments.output and arguments.output.suffix != EXPORT_SUFFIX:
        raise cli.UsageError(f"--output {arguments.output}: expected a name that ends with {EXPORT_SUFFIX}")
    cli.require_places(output=arguments.output, json=arguments.json)
    model_file(arguments.checkpoint)  # refused before torch, which takes seconds, is imported
    from reid.inference.exporting import export

    exported = export(arguments.checkpoint, arguments.output)
    if arguments.json != "-":
        print(exported)
    if arguments.json:
        cli.write_json(arguments.json, exported.as_json())


def main(argv: list[str] | None = None) -> int:
    """Run `reid-export`; returns its exit code."""
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
