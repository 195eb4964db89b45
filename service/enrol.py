"""Command `reid-enrol`: put the photos of folders and tables into a gallery."""

import argparse
import csv
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from reid import cli
from reid.data.custom import BOX_COLUMNS
from reid.data.samples import is_image
from reid.progress import Progress
from service.changes import Enrolled
from service.gallery import Gallery, Upload, open_gallery
from service.schemas import Metadata

log = logging.getLogger("reid")

BATCH = 32  # photos of one transaction
COLUMNS = ("path", "key", "label", "identity", "camera", "captured_at")


@dataclass(frozen=True, slots=True)
class Photo:
    """An image file, the name under which it is enrolled, and the cells of its row, if it has one, by column."""

    path: Path
    name: str
    cells: Mapping[str, str] = field(default_factory=dict)

    def upload(self) -> Upload:
        """Read the file; raises OSError for one that cannot be read and ValueError for cells that cannot be used."""
        cells = {name: cell for name, cell in self.cells.items() if cell}
        if any(name in cells for name in BOX_COLUMNS):
            raise ValueError("the row has a box x,y,w,h, but a gallery takes whole images; crop the image first")
        said = {
            "key": cells.get("key"),
            "label": cells.get("label", cells.get("identity")),
            "camera": None if cells.get("camera") == "-1" else cells.get("camera"),
            "captured_at": cells.get("captured_at"),
            "attributes": {name: cell for name, cell in cells.items() if name not in COLUMNS},
        }
        return Upload(self.name, self.path.read_bytes(), Metadata.model_validate(said).details())


def enrol(gallery: Gallery, photos: Sequence[Photo]) -> Counter[str]:
    """Enrol photos and count those `created`, `existing` and `failed`; each failure is logged, with its reason."""
    counts: Counter[str] = Counter()
    progress = Progress("enrolling")
    try:
        for start in range(0, len(photos), BATCH):
            uploads = []
            for photo in photos[start : start + BATCH]:
                try:
                    uploads.append(photo.upload())
                except (OSError, ValueError) as error:
                    counts["failed"] += 1
                    log.warning("%s: %s", photo.name, _reason(error))
            for upload, result in zip(uploads, gallery.enrol(uploads), strict=True):
                if isinstance(result, Enrolled):
                    counts["created" if result.created else "existing"] += 1
                else:
                    counts["failed"] += 1
                    log.warning("%s: %s", upload.name, result)
            progress(min(start + BATCH, len(photos)), len(photos))
    finally:
        progress.close()
    return counts


def find_photos(source: Path) -> list[Photo]:
    """The photos that a CSV file lists, or all image files below a folder, in the order of their names.

    Columns of a CSV file: `path`, relative to the file, and optionally `key`, `label` (or `identity`), `camera` (empty
    or -1: unknown) and `captured_at` with its time zone; others become attributes. Raises FileNotFoundError where there
    is neither, and ValueError for a file that is no such table, and where there is no photo.
    """
    if source.is_file():
        photos = list(_listed(source))
    elif source.is_dir():
        paths = (path for path in source.rglob("*") if is_image(path.name) and path.is_file())
        inside = sorted((path.relative_to(source), path) for path in paths)
        photos = [
            Photo(path, _name(name)) for name, path in inside if not any(part.startswith(".") for part in name.parts)
        ]
    else:
        raise FileNotFoundError(f"{source}: neither a folder nor a file")
    if not photos:
        raise ValueError(f"{source}: no image in it")
    return photos


def _listed(table: Path) -> Iterator[Photo]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True, strict=True)
            columns = rows.fieldnames or []
            if "path" not in columns or len(set(columns)) < len(columns):
                raise ValueError(
                    f"{table}: the first row is {','.join(columns)!r}, expected the names of columns, each once, with "
                    "path among them"
                )
            for row in rows:
                if None in row or None in row.values():
                    raise ValueError(f"{table} row {rows.line_num}: expected {len(columns)} cells, as in the first row")
                cells = {column: cell.strip() for column, cell in row.items()}
                if not cells["path"]:
                    raise ValueError(f"{table} row {rows.line_num}, column 'path': empty")
                yield Photo(table.parent / cells["path"], _name(Path(cells["path"])), cells)
    except UnicodeDecodeError:
        raise ValueError(f"{table}: not UTF-8 text; expected a CSV file or a folder") from None
    except csv.Error as error:
        raise ValueError(f"{table}: not readable as CSV ({error})") from None


def _name(path: Path) -> str:
    return os.fsencode(path).decode(errors="replace")  # names of files may hold bytes that are no text


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
    return getattr(error, "strerror", None) or str(error)


def _command(arguments: argparse.Namespace) -> int:
    photos = [photo for source in arguments.sources for photo in find_photos(source)]
    with open_gallery(arguments.gallery, arguments.checkpoint, arguments.device) as gallery:
        counts = enrol(gallery, photos)
        print(
            f"{counts['created']} enrolled, {counts['existing']} there before, {counts['failed']} failed; "
            f"{arguments.gallery} holds {gallery.size()} items"
        )
    return 1 if counts["failed"] else 0


def main(argv: list[str] | None = None) -> int:
    """Run `reid-enrol`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-enrol",
        description="Put photos into a gallery. Those that are there already are skipped, so that it can be given "
        "again; files that cannot be used are named and skipped, and then the exit code is 1.",
    )
    parser.add_argument(
        "--checkpoint", metavar="RUN", type=Path, required=True, help="a run folder of reid-train, or its model file"
    )
    parser.add_argument("--gallery", metavar="DIR", type=Path, required=True, help="made where it is not there")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        type=Path,
        nargs="+",
        help="a folder of images, or a CSV file: path and optionally key, label (or identity), camera, captured_at",
    )
    return cli.run(_command, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
