"""Where photos come from: folders, tables and datasets, for every command that takes in many."""

import argparse
import csv
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from reid import cli
from reid.data.custom import BOX_COLUMNS, SPLITS
from reid.data.datasets import DATASETS, choose_protocol, load_dataset
from reid.data.samples import is_image
from service.records import Details, Upload
from service.wire.schemas import Metadata

log = logging.getLogger("reid")

DISTRACTORS = ("market1501", "toy")  # datasets whose identity 0 is many subjects, each of them nobody
BOXED = "the row has a box x,y,w,h, but a gallery takes whole images; crop the image first"
COLUMNS = ("path", "key", "label", "identity", "camera", "captured_at")


@dataclass(frozen=True, slots=True)
class Photo:
    """An image file, the name under which it is enrolled, and the cells of its row, if it has one, by column."""

    path: Path
    name: str
    cells: Mapping[str, str] = field(default_factory=dict)

    def upload(self) -> Upload:
        """Read the file; raises OSError for one that cannot be read and ValueError for cells that cannot be used."""
        details = self.details()
        return Upload(self.name, self.path.read_bytes(), details)

    def details(self) -> Details:
        """What its cells say of it; raises ValueError for some that cannot be used."""
        cells = {name: cell for name, cell in self.cells.items() if cell}
        if any(name in cells for name in BOX_COLUMNS):
            raise ValueError(BOXED)
        said = {
            "key": cells.get("key"),
            "label": cells.get("label", cells.get("identity")),
            "camera": None if cells.get("camera") == "-1" else cells.get("camera"),
            "captured_at": cells.get("captured_at"),
            "attributes": {name: cell for name, cell in cells.items() if name not in COLUMNS},
        }
        return Metadata.model_validate(said).details()


@dataclass(frozen=True)
class Source:
    """What the arguments of a command name: where it is and what it holds, in words, and its photos, mostly in `root`.

    `photos` reads as it goes, so that millions need not fit in memory, and raises ValueError where there is none.
    """

    description: str
    root: Path
    photos: Callable[[], Iterable[Photo]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command the arguments that name sources."""
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        type=Path,
        nargs="*",
        help="a folder of images, or a CSV file: path and optionally key, label (or identity), camera, captured_at",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME[:VERSION]",
        type=_dataset,
        help=f"instead of SOURCE, a dataset with its identities and cameras: {', '.join(DATASETS)}",
    )
    parser.add_argument("--data-root", metavar="DIR", type=Path, help="its folder, one above it, or the CSV file")
    parser.add_argument("--split", choices=SPLITS, nargs="+", default=["gallery"], help="of it (default: gallery)")


def chosen_sources(arguments: argparse.Namespace) -> list[Source]:
    """The sources that the arguments name; raises UsageError where they are none, FileNotFoundError, and ValueError.

    Of a dataset all photos are read here.
    """
    if bool(arguments.sources) == bool(arguments.dataset) or bool(arguments.dataset) != bool(arguments.data_root):
        raise cli.UsageError("give either SOURCE or --dataset NAME with --data-root DIR")
    if not arguments.dataset:
        return [_source(path) for path in arguments.sources]
    photos = dataset_photos(arguments.dataset, arguments.data_root, arguments.split)
    root = arguments.data_root.absolute()
    words = f"{' and '.join(arguments.split)} of {arguments.dataset} in {root}"
    return [Source(words, root if root.is_dir() else root.parent, lambda: photos)]


def _source(path: Path) -> Source:
    path = path.absolute()
    if path.is_file():
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Source(f"table {path} of SHA-256 {digest}", path.parent, lambda: _some(path, _listed(path)))
    if path.is_dir():
        return Source(f"folder {path}", path, lambda: _some(path, _inside(path)))
    raise FileNotFoundError(f"{path}: neither a folder nor a file")


def find_photos(source: Path) -> list[Photo]:
    """The photos that a CSV file lists, or all image files below a folder, in the order of their names.

    Columns of a CSV file: `path`, relative to the file, and optionally `key`, `label` (or `identity`), `camera` (empty
    or -1: unknown) and `captured_at` with its time zone; others become attributes. Raises FileNotFoundError where there
    is neither, and ValueError for a file that is no such table, and where there is no photo.
    """
    return list(_source(source).photos())


def _some(source: Path, photos: Iterator[Photo]) -> Iterator[Photo]:
    """The photos; raises ValueError if there are none."""
    photo = next(photos, None)
    if photo is None:
        raise ValueError(f"{source}: no image in it")
    yield photo
    yield from photos


def _inside(folder: Path, below: Path = Path()) -> Iterator[Photo]:
    """The photos below a folder, in the order of the parts of their paths; what may not be read is told and left out.

    One folder's names are in memory at a time.
    """
    try:
        with os.scandir(folder / below) as entries:
            names = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if entry.is_dir(follow_symlinks=False) or (is_image(entry.name) and entry.is_file())
            )
    except (PermissionError, FileNotFoundError) as error:  # such as lost+found, or one deleted meanwhile
        log.warning("warning: %s: %s; left out", folder / below, error.strerror)
        return
    for name, is_folder in names:
        if is_folder and not name.startswith("."):
            yield from _inside(folder, below / name)
        elif not is_folder:
            yield Photo(folder / below / name, _name(below / name))


def _listed(table: Path) -> Iterator[Photo]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True, strict=True)
            columns = rows.fieldnames or []
            if "path" not in columns or len(set(columns)) < len(columns):
                raise ValueError(
                    f"{table}: the first row is {','.join(columns)!r}, expected the names of columns between "
                    "commas, each once, with path among them"
                )
            for row in rows:
                if None in row or None in row.values():
                    raise ValueError(f"{table} row {rows.line_num}: expected {len(columns)} cells, as in the first row")
                cells = {column: cell.strip() for column, cell in row.items()}
                if not cells["path"]:
                    raise ValueError(f"{table} row {rows.line_num}, column 'path': empty")
                yield Photo(table.parent / cells["path"], _name(Path(cells["path"])), cells)
    except UnicodeDecodeError:
        raise ValueError(f"{table}: not UTF-8 text; expected a folder, or a CSV file saved as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{table}: not readable as CSV ({error})") from None


def dataset_photos(name: str, root: Path, splits: Sequence[str]) -> list[Photo]:
    """The photos in `splits` of a dataset, NAME or NAME:VERSION, with the names of their identities and cameras.

    Where the dataset has no names, its numbers stand for them. Raises what `load_dataset` raises, and ValueError for
    splits without a photo and for photos that show their subject in a box.
    """
    dataset_name, _, version = name.partition(":")
    dataset = load_dataset(dataset_name, root, version=version or None)
    for warning in dataset.warnings:
        log.warning("warning: %s", warning)
    photos = []
    for sample in (sample for split in splits for sample in dataset.splits[split]):
        if sample.box:
            raise ValueError(f"{sample.path}: {BOXED}")
        cells = dict(sample.extra)
        if sample.identity or dataset_name not in DISTRACTORS:
            cells["label"] = dataset.identity_names.get(sample.identity, str(sample.identity))
        cells["camera"] = dataset.camera_names.get(sample.camera, str(sample.camera))
        inside = sample.path.relative_to(dataset.root) if sample.path.is_relative_to(dataset.root) else sample.path
        photos.append(Photo(sample.path, f"{dataset_name}/{_name(inside)}", cells))
    if not photos:
        raise ValueError(f"{name}: no image in {' and '.join(splits)}")
    return photos


def reason(error: Exception) -> str:
    """Why a photo cannot be used, in one line."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{one['loc'][0]} {one['input']!r}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors()
        )
    return getattr(error, "strerror", None) or str(error)


def _name(path: Path) -> str:
    return os.fsencode(path).decode(errors="replace")  # names of files may hold bytes that are no text


def _dataset(text: str) -> str:
    name, _, version = text.partition(":")
    try:
        choose_protocol(name, version=version or None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text
