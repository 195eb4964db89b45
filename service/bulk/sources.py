"""Where photos come from: folders, tables and datasets, for every command that takes in many."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from reid.data.datasets import load_dataset
from reid.data.folders import EVERYTHING, LeftOut, Patterns, pictures_below
from reid.data.formats import HEAD, is_picture, recognise, refusal
from reid.data.images import UnknownFormat
from reid.data.samples import is_image
from reid.data.tables import AS_IT_IS, BOX_COLUMNS, NOBODY, Reading, known_name, open_table, read_box, written_time
from reid.data.times import EXPECTED, Clock, choose_clock
from service.fields import SAID
from service.records import ANY_CAMERA, Box, Cameras, Details, Region, Upload
from service.wire.schemas import Metadata

log = logging.getLogger("reid")

DISTRACTORS = ("market1501", "toy")  # datasets whose identity 0 is many subjects, each of them nobody
PLACE = ("latitude", "longitude")
COLUMNS = ("path", "key", "identity", *SAID, *PLACE, *BOX_COLUMNS)


@dataclass(frozen=True, slots=True)
class Photo:
    """An image file or a box in one, the name under which it is enrolled, and the cells of its row, by column.

    `clock` is the time of its row in ISO 8601 as a clock showed it, where the row does not tell its zone.
    """

    path: Path
    name: str
    cells: Mapping[str, str] = field(default_factory=dict)
    clock: str = ""

    def __str__(self) -> str:
        box = ",".join(self.cells.get(name, "") for name in BOX_COLUMNS)
        return f"{self.name}, box {box}" if box.strip(",") else self.name

    def upload(self, cameras: Cameras = ANY_CAMERA, read: Callable[[Path], bytes] = Path.read_bytes) -> Upload:
        """Read the file; raises OSError for one that cannot be read and ValueError for cells that cannot be used."""
        details, box = self.details(), self.box()
        return Upload(self.name, read(self.path), details, cameras, box)

    def box(self) -> Box | None:
        """The box of its row, if it has one; raises ValueError for cells that are no box."""
        cells = {name: self.cells.get(name, "") for name in BOX_COLUMNS}
        if not any(cells.values()):
            return None
        try:
            x, y, w, h = map(float, cells.values())
        except ValueError:
            wrong = next(name for name, cell in cells.items() if not _is_number(cell))
            raise ValueError(f"{wrong} {cells[wrong]!r}: expected a number of pixels, as in all of x,y,w,h") from None
        return x, y, w, h

    def region(self) -> Region | None:
        """The pixels of its box, if it has one; raises ValueError for cells that are no box, and UnusableBox."""
        box = self.box()
        return None if box is None else Region.around(*box)

    def details(self) -> Details:
        """What its cells say of it; raises ValueError for some that cannot be used."""
        cells = {name: cell for name, cell in self.cells.items() if cell}
        if written := known_name(cells.get("captured_at", "")):
            try:
                Clock().read(written)
            except ValueError:
                raise ValueError(f"captured_at {written!r}: {EXPECTED}") from None
        said = {
            "key": cells.get("key"),
            **{name: known_name(cells.get(name, "")) for name in SAID},
            "label": known_name(cells.get("label", cells.get("identity", ""))),
            **{name: _degrees(cells.get(name, "")) for name in PLACE},
            "attributes": {name: cell for name, cell in cells.items() if name not in COLUMNS},
        }
        metadata: Metadata = Metadata.model_validate(said)
        return metadata.details()


@dataclass(frozen=True)
class Source:
    """What the arguments of a command name: where it is and what it holds, in words, and its photos, mostly in `root`.

    `photos` reads as it goes, so that millions need not fit in memory, and raises ValueError where there is none.
    What it found and did not give is `left_out`.
    """

    description: str
    root: Path
    photos: Callable[[], Iterable[Photo]]
    left_out: LeftOut = field(default_factory=LeftOut, compare=False)


def source_of(path: Path, reading: Reading, wanted: Patterns = EVERYTHING, *, by_folder: bool = False) -> Source:
    """What a folder, a table or an image file holds; `by_folder` names cameras by the folders below a folder.

    Raises FileNotFoundError, and ValueError for a file that is none of these.
    """
    path = path.absolute()
    if path.is_dir():
        left_out = LeftOut()

        def inside() -> Iterator[Photo]:
            for one in pictures_below(path, left_out, wanted):
                cells = {"camera": _name(Path(one.parts[0]))} if by_folder and len(one.parts) > 1 else {}
                yield Photo(path / one, _name(one), cells)

        how = ", cameras by folder" if by_folder else ""
        return Source(f"folder {path}{wanted}{how}", path, lambda: _some(path, inside(), left_out), left_out)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: neither a folder nor a file")
    with open(path, "rb") as file:
        head = file.read(HEAD)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if is_picture(head):
        return Source(f"image {path} of SHA-256 {digest}", path.parent, lambda: [Photo(path, _name(Path(path.name)))])
    if is_image(path.name) or recognise(head):
        raise UnknownFormat(f"{path}: the file is {refusal(head)}")
    how = f" read by {reading}" if reading != AS_IT_IS else ""
    return Source(f"table {path} of SHA-256 {digest}{how}", path.parent, lambda: _some(path, _listed(path, reading)))


def find_photos(source: Path, reading: Reading = AS_IT_IS) -> list[Photo]:
    """The photos that a table lists, or all images below a folder, in the order of their names, or one image file.

    Columns of a table: `path`, relative to the file, and optionally `key`, `label` (or `identity`), `camera` (empty or
    -1: unknown), the other fields that are searched, `latitude` and `longitude` in degrees, and a box `x,y,w,h` in
    pixels of the upright picture (empty: the whole of it), of which a photo may have several, each in a row of its own;
    others become attributes. Raises FileNotFoundError where there is none, and ValueError for a file that is no such
    table, for times that need to be told more of, and where there is no photo.
    """
    return list(source_of(source, reading).photos())


def _some(source: Path, photos: Iterator[Photo], left_out: LeftOut | None = None) -> Iterator[Photo]:
    """The photos; raises ValueError if there are none."""
    photo = next(photos, None)
    if photo is None:
        raise ValueError(f"{source}: no image in it{f'; {left_out}' if left_out else ''}")
    yield photo
    yield from photos


def _listed(path: Path, reading: Reading) -> Iterator[Photo]:
    """The photos of a table, their times with a zone, their boxes in whole pixels."""
    table = open_table(path, reading.columns)
    clock = table.clock(reading)
    log.info("%s", table.understood(clock))
    for number, cells in table.rows():
        plain, shown = _with_zone(cells, clock), ""
        with suppress(ValueError):  # told when it is the photo's turn
            time = Clock(None, clock.dates).read(written_time(cells))
            shown = time.isoformat() if time.tzinfo is None else ""
        with suppress(ValueError):
            if box := read_box(table, number, cells):
                plain |= {name: str(value) for name, value in zip(BOX_COLUMNS, box, strict=True)}
        yield Photo(table.path.parent / cells["path"], _name(Path(cells["path"])), plain, shown)


def _with_zone(cells: Mapping[str, str], clock: Clock) -> dict[str, str]:
    """The cells with their time in full, if they have one that can be read."""
    with suppress(ValueError):  # told when it is the photo's turn
        written = written_time(cells)
        used = ("time",) if written != cells.get("captured_at", "") else ()
        plain = {name: cell for name, cell in cells.items() if name not in used}
        return {**plain, "captured_at": clock.read(written).isoformat()}
    return dict(cells)


def dataset_photos(name: str, root: Path, splits: Sequence[str], reading: Reading = AS_IT_IS) -> list[Photo]:
    """The photos in `splits` of a dataset, NAME or NAME:VERSION, with the names of their identities and cameras.

    Where the dataset has no names, its numbers stand for them; where it has, an identity without one is nobody known.
    Raises what `load_dataset` raises, and ValueError for splits without a photo.
    """
    dataset_name, _, version = name.partition(":")
    dataset = load_dataset(dataset_name, root, version=version or None, columns=reading.columns)
    if dataset.understood:
        log.info("%s", dataset.understood)
    for warning in dataset.warnings:
        log.warning("warning: %s", warning)
    chosen = [sample for split in splits for sample in dataset.splits[split]]
    clock = choose_clock((written_time(sample.extra) for sample in chosen), reading.zone, reading.dates)
    photos = []
    for sample in chosen:
        cells = _with_zone(sample.extra, clock)
        if sample.box:
            cells |= zip(BOX_COLUMNS, map(str, sample.box), strict=True)
        if dataset.identity_names:
            cells["label"] = dataset.identity_names.get(sample.identity, "")
        elif sample.identity or dataset_name not in DISTRACTORS:
            cells["label"] = str(sample.identity)
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
            f"{one['loc'][0]} {one['input']!r}: {told}" if one["loc"] else told
            for one in error.errors()
            if (told := one["msg"].removeprefix("Value error, "))
        )
    return getattr(error, "strerror", None) or str(error)


def _degrees(cell: str) -> str | None:
    """The number in a cell, with a decimal comma as a point; None where it is empty or NA."""
    return None if cell in NOBODY - {"-1"} else cell.replace(",", ".")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _name(path: Path) -> str:
    return os.fsencode(path).decode(errors="replace")  # names of files may hold bytes that are no text
