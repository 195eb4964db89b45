"""What the arguments of a command that takes in many photos name: folders, tables or a dataset, and boxes in them."""

import argparse
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, get_args

from reid import cli
from reid.data.custom import SPLITS
from reid.data.datasets import DATASETS, choose_protocol
from reid.data.detections import Detections
from reid.data.folders import Patterns
from reid.data.tables import Reading, parse_columns
from reid.data.times import DateOrder, read_zone
from service.bulk.detected import with_boxes
from service.bulk.sources import Source, dataset_photos, source_of
from service.fields import SAID

log = logging.getLogger("reid")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command the arguments that name sources."""
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        type=Path,
        nargs="*",
        help="a folder of images, an image, or a table (CSV): path and optionally identity, key, "
        f"{', '.join(SAID)}, and a box x,y,w,h in pixels of the upright picture, each box a row; other columns become "
        "attributes",
    )
    cli.add_patterns(parser)
    parser.add_argument(
        "--columns",
        metavar="NAME=HEADING,...",
        type=_usable(parse_columns),
        default={},
        help="headings of a table that are not understood by themselves, as path=image_path,identity=name",
    )
    parser.add_argument(
        "--timezone", metavar="ZONE", type=_usable(read_zone), help="where clocks were whose times do not say it"
    )
    parser.add_argument(
        "--camera-from",
        choices=["folder", "device"],
        help="name the cameras of photos by the folder below SOURCE in which they lie, or (reid-enrol) by their device",
    )
    parser.add_argument(
        "--dates", choices=get_args(DateOrder), help="how a table writes 05/03/2026, if it does not show it"
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME[:VERSION]",
        type=_usable(_dataset),
        help=f"instead of SOURCE, a dataset with its identities and cameras: {', '.join(DATASETS)}",
    )
    parser.add_argument("--data-root", metavar="DIR", type=Path, help="its folder, one above it, or the CSV file")
    parser.add_argument("--split", choices=SPLITS, nargs="+", default=["gallery"], help="of it (default: gallery)")
    parser.add_argument(
        "--detections",
        metavar="FILE",
        type=Path,
        help="boxes in photos, each of which becomes an item: MegaDetector's JSON, COCO's JSON, or a folder of YOLO's "
        "text files",
    )
    parser.add_argument(
        "--min-confidence",
        metavar="SHARE",
        type=float,
        help="take only boxes of at least this confidence (default: 0.2 of MegaDetector's, all of others)",
    )
    parser.add_argument(
        "--category",
        metavar="NAME",
        action="append",
        default=[],
        help="take only boxes of this category, as animal; may be given several times",
    )
    parser.add_argument("--whole", action="store_true", help="take photos without a box whole, which are left out else")


def chosen_sources(arguments: argparse.Namespace) -> list[Source]:
    """The sources that the arguments name; raises UsageError where they are none, FileNotFoundError, and ValueError.

    Of a dataset all photos are read here.
    """
    if bool(arguments.sources) == bool(arguments.dataset) or bool(arguments.dataset) != bool(arguments.data_root):
        raise cli.UsageError("give either SOURCE or --dataset NAME with --data-root DIR")
    reading = Reading(arguments.columns, arguments.timezone, arguments.dates)
    least = arguments.min_confidence
    if not arguments.detections:
        if least is not None or arguments.category or arguments.whole:
            raise cli.UsageError("--min-confidence, --category and --whole choose among the boxes of --detections FILE")
        return _sources(arguments, reading)
    if least is not None and not 0 <= least <= 1:
        raise cli.UsageError(f"--min-confidence {least:g}: expected a share from 0 to 1")
    detections = Detections(arguments.detections, least=least, categories=arguments.category)
    return with_boxes(_sources(arguments, reading), detections, whole=arguments.whole)


def _sources(arguments: argparse.Namespace, reading: Reading) -> list[Source]:
    if not arguments.dataset:
        wanted = Patterns(tuple(arguments.include), tuple(arguments.exclude))
        by_folder = arguments.camera_from == "folder"
        return [source_of(path, reading, wanted, by_folder=by_folder) for path in arguments.sources]
    if arguments.include or arguments.exclude:
        raise cli.UsageError("--include and --exclude choose among the files of folders, not of a dataset")
    if arguments.camera_from == "folder":
        raise cli.UsageError("--camera-from folder is for folders given as SOURCE; a dataset tells its cameras itself")
    photos = dataset_photos(arguments.dataset, arguments.data_root, arguments.split, reading)
    root = arguments.data_root.absolute()
    words = f"{' and '.join(arguments.split)} of {arguments.dataset} in {root}"
    return [Source(words, root if root.is_dir() else root.parent, lambda: photos)]


def tell_left_out(sources: Iterable[Source]) -> None:
    """Log, for each source whose photos have been listed, what lies there and was not taken."""
    for source in sources:
        if source.left_out:
            log.warning("%s: %s", source.root, source.left_out)


Value = TypeVar("Value")


def _usable(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """The reader of an argument, whose own words argparse is to show."""

    def parse(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _dataset(text: str) -> str:
    name, _, version = text.partition(":")
    choose_protocol(name, version=version or None)
    return text
