"""Command `reid-enrol`: put the photos of folders, tables and datasets into a gallery."""

import argparse
import csv
import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from reid import cli
from reid.data.custom import BOX_COLUMNS, SPLITS
from reid.data.datasets import DATASETS, choose_protocol, load_dataset
from reid.data.samples import is_image
from reid.progress import Progress
from service.api.schemas import Metadata
from service.gallery import Gallery, Upload
from service.opening import open_gallery
from service.records import Cause, Details
from service.storage.changes import Changes, Enrolled

log = logging.getLogger("reid")

BATCH = 32  # photos of one transaction
AT_ONCE = 3  # batches, so that photos are read and saved while the model works
CAUSE = Cause(actor="reid-enrol")
DISTRACTORS = ("market1501", "toy")  # datasets whose identity 0 is many subjects, each of them nobody
BOXED = "the row has a box x,y,w,h, but a gallery takes whole images; crop the image first"
_HINTS = dict.fromkeys(["timezone_aware", "datetime_from_date_parsing"], ", such as 2024-05-01T10:00:00+02:00")
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
            raise ValueError(BOXED)
        said = {
            "key": cells.get("key"),
            "label": cells.get("label", cells.get("identity")),
            "camera": None if cells.get("camera") == "-1" else cells.get("camera"),
            "captured_at": cells.get("captured_at"),
            "attributes": {name: cell for name, cell in cells.items() if name not in COLUMNS},
        }
        return Upload(self.name, self.path.read_bytes(), Metadata.model_validate(said).details())


def enrol(gallery: Gallery, photos: Sequence[Photo], *, update: bool = False) -> Counter[str]:
    """Enrol photos and count those `created`, `existing` and `failed`; each failure is logged, with its reason.

    Of those that are there already, `other` counts the ones of which something else is said here than in the gallery;
    `update` has the gallery say it too.

    Which of several photos with the same bytes or key is the first is left to chance. An interrupt lets the batches
    under way finish, and is raised again as KeyboardInterrupt with the counts.
    """
    counts: Counter[str] = Counter()
    progress = Progress("enrolling")
    pool = ThreadPoolExecutor(AT_ONCE)
    batches = [photos[start : start + BATCH] for start in range(0, len(photos), BATCH)]
    waiting = deque(pool.submit(_enrol_batch, gallery, batch, update) for batch in batches)
    try:
        try:
            for found in _results(waiting):
                counts += found
                progress(counts.total() - counts["other"], len(photos))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            for found in _results(deque(batch for batch in waiting if not batch.cancelled())):
                counts += found
            raise KeyboardInterrupt(f"{_told(counts)}; given again, the command goes on from there") from None
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    return counts


def _enrol_batch(gallery: Gallery, photos: Sequence[Photo], update: bool) -> tuple[Counter[str], list[str]]:
    """The counts of a batch, and a line for each failure."""
    counts: Counter[str] = Counter()
    failures, uploads = [], []
    for photo in photos:
        try:
            uploads.append(photo.upload())
        except (OSError, ValueError) as error:
            failures.append(f"{photo.name}: {_reason(error)}")
    for upload, result in zip(uploads, gallery.enrol(uploads, CAUSE), strict=True):
        if isinstance(result, Enrolled):
            counts["created" if result.created else "existing"] += 1
            if not result.created and (changes := _changes(result.item.details, upload.details)):
                counts["other"] += 1
                if update:
                    gallery.edit(result.item.item_id, changes, CAUSE)
        else:
            failures.append(f"{upload.name}: {result}")
    counts["failed"] = len(failures)
    return counts, failures


def _changes(there: Details, said: Details) -> Changes:
    """What is said here and not there; what is left open here stays as it is."""
    changes = Changes()
    if said.key not in (None, there.key):
        changes["key"] = said.key
    if said.label not in (None, there.label):
        changes["label"] = said.label
    if said.camera not in (None, there.camera):
        changes["camera"] = said.camera
    if said.captured_at not in (None, there.captured_at):
        changes["captured_at"] = said.captured_at
    if not said.attributes.items() <= there.attributes.items():
        changes["attributes"] = {**there.attributes, **said.attributes}
    return changes


def _results(batches: "deque[Future[tuple[Counter[str], list[str]]]]") -> Iterator[Counter[str]]:
    """Take the batches in their order, each when it is done; log their failures and yield their counts."""
    while batches:
        counts, failures = batches[0].result()
        batches.popleft()
        for failure in failures:
            log.warning("%s", failure)
        yield counts


def _told(counts: Counter[str]) -> str:
    return f"{counts['created']} enrolled, {counts['existing']} there before, {counts['failed']} failed"


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


def _name(path: Path) -> str:
    return os.fsencode(path).decode(errors="replace")  # names of files may hold bytes that are no text


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{one['loc'][0]} {one['input']!r}: {one['msg']}{_HINTS.get(one['type'], '')}" for one in error.errors()
        )
    return getattr(error, "strerror", None) or str(error)


def _command(arguments: argparse.Namespace) -> int:
    if bool(arguments.sources) == bool(arguments.dataset) or bool(arguments.dataset) != bool(arguments.data_root):
        raise cli.UsageError("give either SOURCE or --dataset NAME with --data-root DIR")
    if arguments.dataset:
        photos = dataset_photos(arguments.dataset, arguments.data_root, arguments.split)
    else:
        photos = [photo for source in arguments.sources for photo in find_photos(source)]
    with open_gallery(arguments.gallery, arguments.checkpoint, arguments.device) as gallery:
        counts = enrol(gallery, photos, update=arguments.update)
        print(f"{_told(counts)}; {arguments.gallery} holds {gallery.size()} items")
        if counts["other"] and arguments.update:
            print(f"{counts['other']} that were there before are updated")
        elif counts["other"]:
            print(f"of {counts['other']} there before something else is said here; --update takes it over")
    return 1 if counts["failed"] else 0


def _dataset(text: str) -> str:
    name, _, version = text.partition(":")
    try:
        choose_protocol(name, version=version or None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def main(argv: list[str] | None = None) -> int:
    """Run `reid-enrol`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-enrol",
        description="Put photos into a gallery. Those that are there already are skipped, so that it can be given "
        "again; files that cannot be used are named and skipped, and then the exit code is 1.",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="RUN",
        type=Path,
        required=True,
        help="a run folder, its model file, or its export",
    )
    parser.add_argument("--gallery", metavar="DIR", type=Path, required=True, help="made where it is not there")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
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
    parser.add_argument("--update", action="store_true", help="label, camera and so on also for photos that are there")
    parser.add_argument("--split", choices=SPLITS, nargs="+", default=["gallery"], help="of it (default: gallery)")
    return cli.run(_command, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
