"""The files of an import as photos: which there are, how their table is read, and what has to be said first."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath

from reid.data.capture import read_capture
from reid.data.folders import LeftOut, Patterns, pictures_below
from reid.data.tables import BOX_COLUMNS, Reading, Table, open_table, plain_table
from reid.data.times import AmbiguousDates, read_zone
from service.bulk.known import Known
from service.bulk.sources import PLACE, Photo, source_of
from service.fields import SAID
from service.gallery.imports import ARCHIVE, TABLES
from service.wire.import_schemas import ImportPreview, ImportSettings, Need, TableColumn, UnusableArchive

SAMPLES = 3  # cells of a column
LOOKED_AT = 40  # photos, for the zone of their clock
NOWHERE = "\x1a"  # no file that is sent has such a name
NAMED = 20  # photos that are missing
NOTHING: Mapping[str, str] = {}
MOST_CAMERAS = 200
_SAID = [name for name in SAID if name != "label"]  # which is the identity
_AFTER = _SAID.index("captured_at") + 1
FIELDS = ("path", "key", "identity", *_SAID[:_AFTER], "time", *_SAID[_AFTER:], *PLACE, *BOX_COLUMNS)


@dataclass
class Received:
    """The photos of an import, and the files that are none of them, by kind.

    `alike` are, for photos of a table of whose name several were sent, these.
    """

    photos: list[Photo]
    left_out: dict[str, int] = field(default_factory=dict)
    alike: dict[str, list[str]] = field(default_factory=dict)


def received(folder: Path, settings: ImportSettings) -> Received:
    """The photos in the folder of an import, as the settings say; raises ValueError where they cannot be read.

    A photo of a table lies where the table says, or below one folder that was sent beside it; else it is the only one
    whose path ends as the table says, or with which what the table says ends, as a name alone does: but not if what
    the table says elsewhere ends with it, too, in another folder.
    """
    reading = _reading(settings)
    wanted = Patterns(tuple(settings.include), tuple(settings.exclude))
    table = chosen_table(folder, settings)
    base = _base(folder)
    alike: dict[str, list[str]] = {}
    if table is None:
        source = source_of(base, reading, wanted, by_folder=settings.camera_from == "folder")
        photos = list(source.photos())
        left_out = source.left_out.kinds
    else:
        tops = [one for one in folder.iterdir() if one.is_dir()]
        named = _Named(folder, base)
        rows = list(source_of(table, reading).photos())
        photos = [_found(folder, tops, photo, named) for photo in rows]
        photos = [
            _nowhere(folder, row) if named.is_contested(row, photo) else photo
            for row, photo in zip(rows, photos, strict=True)
        ]
        alike = named.alike
        photos = [photo for photo in photos if not wanted.refuse(Path(photo.name))]
        if settings.camera_from == "folder":
            photos = [_of_folder(photo, base) for photo in photos]
        listed = {photo.path for photo in photos}
        below = source_of(folder, reading).photos() if _any_picture(folder) else []
        unlisted = sum(photo.path not in listed for photo in below)
        left_out = {"not in the table": unlisted} if unlisted else {}
    said = {name: str(value) for name, value in settings.said.model_dump(mode="json").items() if value}
    return Received([_with(photo, said) for photo in photos], left_out, alike)


def chosen_table(folder: Path, settings: ImportSettings) -> Path | None:
    """The table that lists the photos, if there is one; raises ValueError where it is not clear which."""
    tables = tables_of(folder)
    if settings.table == "":
        return None
    if settings.table is not None:
        if settings.table not in tables:
            there = ", ".join(tables) or "none, for there is none"
            raise ValueError(f"table {settings.table!r}: expected one of {there}")
        return folder / settings.table
    if len(tables) > 1:
        raise ValueError(f"several tables were sent, {', '.join(tables)}: say which lists the photos")
    return folder / tables[0] if tables else None


def tables_of(folder: Path) -> list[str]:
    """The names of the tables in the folder of an import."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in TABLES and path.is_file())
    names = (path.relative_to(folder) for path in found)
    clutter = ("._", "__MACOSX")  # which a Mac puts into archives
    return sorted(name.as_posix() for name in names if not any(part.startswith(clutter) for part in name.parts))


def preview(
    folder: Path,
    settings: ImportSettings,
    unusable: Mapping[str, str] = NOTHING,
    compare: Callable[[Sequence[Photo]], Known] = lambda _: Known(),
) -> ImportPreview:
    """How the files in the folder of an import would be read; nothing is enrolled.

    `unusable` are archives that cannot be unpacked, each with the reason; `compare` tells what is known of photos.
    """
    told = _Told(folder, settings)
    told.look()
    return told.preview(unusable, compare)


class _Told:
    """What is found out for a preview, piece by piece, as far as that goes."""

    def __init__(self, folder: Path, settings: ImportSettings) -> None:
        self._folder, self._settings = folder, settings
        self._tables, self._table, self._understood = tables_of(folder), "", ""
        self._columns: list[TableColumn] = []
        self._needs: list[Need] = []
        self._problems: list[str] = []
        self._found = Received([])
        self._looked_at = self._zoneless = 0

    def look(self) -> None:
        try:
            table = chosen_table(self._folder, self._settings)
        except ValueError as error:
            self._problems.append(str(error))
            return
        settings = self._settings
        if table is not None:
            self._table = table.relative_to(self._folder).as_posix()
            if not self._read_table(table):
                return
            settings = self._settled(table)
        try:
            self._found = received(self._folder, settings)
        except (ValueError, FileNotFoundError) as error:
            self._problems.append(self._plain(error))
            return
        if table is None or not any(photo.cells.get("captured_at") for photo in self._found.photos):
            self._ask_clocks()

    def preview(self, unusable: Mapping[str, str], compare: Callable[[Sequence[Photo]], Known]) -> ImportPreview:
        photos, alike = self._found.photos, self._found.alike
        there = [photo for photo in photos if photo.path.is_file()]
        missing = [photo.name for photo in photos if not photo.path.is_file() and photo.name not in alike]
        ambiguous = [photo.name for photo in photos if photo.name in alike]
        known = compare(there)
        cameras = sorted({photo.cells.get("camera", "") for photo in photos} - {""})
        labels = {photo.cells.get("label") or photo.cells.get("identity", "") for photo in photos} - {""}
        left_out = dict(self._found.left_out)
        return ImportPreview(
            tables=self._tables,
            table=self._table or None,
            understood=self._understood,
            columns=self._columns,
            fields=list(FIELDS),
            photos=len(photos),
            missing=len(missing),
            missing_names=missing[:NAMED],
            ambiguous=len(ambiguous),
            ambiguous_names=ambiguous[:NAMED],
            unusable=[UnusableArchive(name=name, detail=detail) for name, detail in unusable.items()],
            **known._asdict(),
            unlisted=left_out.pop("not in the table", 0),
            left_out=left_out,
            cameras=cameras[:MOST_CAMERAS],
            labels=len(labels),
            looked_at=self._looked_at,
            zoneless=self._zoneless,
            needs=self._needs,
            problems=self._problems,
        )

    def _read_table(self, path: Path) -> bool:
        """Whether the table can be read with the columns as they are said."""
        try:
            plain = plain_table(path)
        except ValueError as error:
            self._problems.append(self._plain(error))
            return False
        cells = _samples(plain)
        try:
            table = open_table(path, _reading(self._settings).columns)
            ours = {theirs: name for name, theirs in table.headings.items()}
            self._understood = table.understood()
        except ValueError as error:
            if "path" in self._settings.columns or _has_paths(plain):
                self._problems.append(self._plain(error))
            self._needs.append("columns")
            ours = {theirs: name for name, theirs in self._settings.columns.items() if theirs}
        for heading in plain.headings:
            name = ours.get(heading, "")
            taken = name if name in FIELDS else ""
            samples = [row[heading] for row in cells]
            self._columns.append(TableColumn(heading=heading, taken_for=taken, samples=samples))
        return "columns" not in self._needs

    def _settled(self, path: Path) -> ImportSettings:
        """The settings with which the table can be read for the preview; what they lack is asked for."""
        table, tried = open_table(path, _reading(self._settings).columns), self._settings
        while True:
            try:
                clock = table.clock(_reading(tried))
                self._understood = table.understood(None if self._needs else clock)
                return tried
            except AmbiguousDates:
                self._needs.append("dates")
                tried = tried.model_copy(update={"dates": "day-first"})
            except ValueError:
                known = tried.model_copy(update={"timezone": "UTC"})
                if tried.timezone is not None or not _reads(table, _reading(known)):
                    return tried  # which is told where the photos are read
                self._needs.append("timezone")
                tried = known

    def _ask_clocks(self) -> None:
        """Look at some photos, all along the list, for clocks whose zone nobody says."""
        there = [photo for photo in self._found.photos if photo.path.is_file()]
        for photo in there[:: max(1, len(there) // LOOKED_AT)][:LOOKED_AT]:
            with suppress(OSError):
                time = read_capture(photo.path.read_bytes()).captured_at
                self._looked_at += 1
                self._zoneless += time is not None and time.tzinfo is None and self._settings.timezone is None

    def _plain(self, error: Exception) -> str:
        """What is wrong, without the place of the folder on the server."""
        return str(error).replace(f"{self._folder}/", "").replace(str(self._folder), "the files that were sent")


def _reads(table: Table, reading: Reading) -> bool:
    try:
        table.clock(reading)
    except ValueError as error:
        return isinstance(error, AmbiguousDates)
    return True


def _has_paths(table: Table) -> bool:
    try:
        open_table(table.path)
    except ValueError:
        return False
    return True


def _samples(table: Table) -> list[dict[str, str]]:
    with suppress(ValueError):
        return [cells for _, cells in islice(table.as_written(), SAMPLES)]
    return []


def _reading(settings: ImportSettings) -> Reading:
    zone = None if settings.timezone is None else read_zone(settings.timezone)
    columns = settings.columns
    if columns.get("identity", "label") != "label":
        columns = {"label": "", **columns}  # else a column of that heading would go before the one that is said
    return Reading(columns, zone, settings.dates)


def _base(folder: Path) -> Path:
    """The folder below which folders name cameras: those around all others, which hold nothing else, do not."""
    while True:
        entries = [path for path in folder.iterdir() if path.suffix.lower() not in (*TABLES, ARCHIVE)]
        if len(entries) != 1 or not entries[0].is_dir() or not any(path.is_dir() for path in entries[0].iterdir()):
            return folder
        [folder] = entries


def _any_picture(folder: Path) -> bool:
    return next(pictures_below(folder, LeftOut()), None) is not None


class _Named:
    """The pictures that were sent, by their names; those of a row of a table that are several are `alike`."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.alike: dict[str, list[str]] = {}
        self._claims: dict[Path, set[tuple[str, ...]]] = defaultdict(set)
        self._rows: Counter[str] = Counter()
        self._folder, self._base = folder, base

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for inside in pictures_below(self._folder, LeftOut()):
            found[_plain(inside.name)].append(self._folder / inside)
        return found

    def find(self, photo: Photo) -> Photo | None:
        """A photo of a table by the end of its path; None where no picture ends so.

        Of several it is that in a folder named as the camera or the site of its row, and else none of them: each such
        row has a name of its own then.
        """
        written = _parts(photo.name)
        alike = self._by_name.get(written[-1], []) if written else []
        found = [path for path in alike if self._agrees(written, path)]
        if len(found) > 1:
            folders = {_plain(cell) for name in ("camera", "site") if (cell := photo.cells.get(name))}
            named = [path for path in found if folders.intersection(_parts(path.relative_to(self._folder)))]
            found = named if len(named) == 1 else found
        if len(found) == 1 and len(written) > len(_parts(found[0].relative_to(self._folder))):
            self._claims[found[0]].add(written)
        if len(found) < 2:
            return replace(photo, path=found[0], name=self._name(found[0])) if found else None
        self._rows[photo.name] += 1
        times = self._rows[photo.name]
        name = photo.name if times == 1 else f"{photo.name} ({times})"
        self.alike[name] = sorted(self._name(path) for path in found)
        return replace(photo, path=self._folder / NOWHERE, name=name)

    def is_contested(self, row: Photo, found: Photo) -> bool:
        """Whether the picture found for a row was sent without its folders, and rows of several folders found it."""
        claims = self._claims.get(found.path, set())
        return len(claims) > 1 and _parts(row.name) in claims

    def _agrees(self, written: Sequence[str], path: Path) -> bool:
        """Whether one path is the end of the other: in another folder lies another photo of this name."""
        sent, below = (_parts(path.relative_to(around)) for around in (self._folder, self._base))
        return sent[-len(written) :] == written or any(written[-len(own) :] == own for own in (sent, below))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._base).as_posix()


def _found(folder: Path, tops: Sequence[Path], photo: Photo, named: _Named) -> Photo:
    """A photo of a table where it is; one that is said to lie outside of the folder, and does not, is nowhere."""
    path = Path(os.path.normpath(photo.path))
    inside = path.relative_to(folder) if path.is_relative_to(folder) else None
    if inside is not None:
        there = [place for place in (path, *(top / inside for top in tops)) if place.exists()]
        if path.exists() or len(there) == 1:
            return replace(photo, path=there[0])
    if found := named.find(photo):
        return found
    return _nowhere(folder, photo) if inside is None else replace(photo, path=path)


def _nowhere(folder: Path, photo: Photo) -> Photo:
    """A photo that did not come: read as a path of this machine, its name would tell by its letters what lies there."""
    return replace(photo, path=folder / NOWHERE, name=photo.name.casefold())


def _parts(path: str | Path) -> tuple[str, ...]:
    """The parts of a path as any machine writes it, without case, composed."""
    return tuple(
        _plain(part) for part in PurePosixPath(str(path).replace("\\", "/")).parts if part not in ("/", ".", "..")
    )


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _of_folder(photo: Photo, base: Path) -> Photo:
    inside = photo.path.relative_to(base) if photo.path.is_relative_to(base) else Path(photo.path.name)
    named = photo.cells.get("camera") or len(inside.parts) < 2
    return photo if named else replace(photo, cells={**photo.cells, "camera": inside.parts[0]})


def _with(photo: Photo, said: dict[str, str]) -> Photo:
    """A photo with what is said of all, where its row says nothing else."""
    own = {name: cell for name, cell in photo.cells.items() if cell}
    if "identity" in own:
        said = {name: value for name, value in said.items() if name != "label"}
    return replace(photo, cells={**said, **own}) if said else photo
