"""A table of photos as people have it, read the same way for training and for a gallery.

Commas, semicolons or tabs between the cells; UTF-8, UTF-16 or Windows' cp1252; headings in any case and by the names
that the field uses. What is understood is put into one line, `Table.understood`.
"""

import codecs
import csv
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from pathlib import Path, PurePosixPath

from reid.cli import UsageError
from reid.data.boxes import whole_box
from reid.data.cells import from_cell
from reid.data.formats import recognise
from reid.data.samples import Box, is_image
from reid.data.times import Clock, DateOrder, choose_clock, with_clock

# Our columns, each with the other headings it goes by, in lower case with _ between words; the first one found counts.
HEADINGS: Mapping[str, tuple[str, ...]] = {
    "path": ("image_path", "img_path", "file_path", "filepath", "filename", "file_name", "image", "file", "photo"),
    "split": ("subset", "set", "partition"),
    "identity": ("label", "individual", "individual_id", "animal_id", "person_id", "vehicle_id", "pid", "name"),
    "camera": ("camera_id", "cam_id", "camid", "cam"),
    "captured_at": ("datetime", "date_time", "datetimeoriginal", "timestamp", "date"),
    "time": ("time_of_day",),  # beside a date alone
    "site": ("site_name", "site_id", "location", "location_name", "locationname", "station"),
    "latitude": ("lat", "decimal_latitude", "decimallatitude"),
    "longitude": ("lon", "lng", "long", "decimal_longitude", "decimallongitude"),
    "x": ("left", "bbox_x"),
    "y": ("top", "bbox_y"),
    "w": ("width", "bbox_w", "bbox_width"),
    "h": ("height", "bbox_h", "bbox_height"),
}
BOX_COLUMNS = ("x", "y", "w", "h")
NOBODY = {"", "?", "-1", "nan", "NaN", "NAN", "None", "none", "null", "NULL", "NA", "N/A", "n/a", "#N/A"}
NOBODY_IN_WORDS = {"unknown", "unidentified"}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
ENCODINGS = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}
# What a file begins with that is called a table and is none.
OTHERS = {
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"SQLite format 3": "a SQLite database",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"%PDF": "a PDF file",
}
NO_TEXT = "{}: not text in UTF-8, UTF-16 or cp1252, expected a table; save it as CSV (UTF-8)"
SAMPLE = 2**16  # bytes read to tell the kind of a file

Cells = dict[str, str]


@dataclass(frozen=True)
class Reading:
    """What the user says of a table: `columns` maps our names to the table's headings, an empty one to none.

    `zone` and `dates` are those of times that do not say them.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    zone: tzinfo | None = None
    dates: DateOrder | None = None


AS_IT_IS = Reading()


@dataclass(frozen=True)
class Table:
    """A table whose form is known: its columns by our names where they have one, in their order, "" for one left out.

    `headings` gives the heading of each column in the table's own spelling, for messages.
    """

    path: Path
    columns: tuple[str, ...]
    headings: Mapping[str, str]
    separator: str
    encoding: str
    heading_line: int
    _names: dict[str, dict[str, list[str]]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def found(self) -> str:
        """The headings of its columns in the table's own spelling, between commas."""
        return ",".join(self.headings.get(name, name) for name in self.columns if name)

    def rows(self) -> Iterator[tuple[int, Cells]]:
        """(line number, cells by column) of all rows that are not blank, read as they are asked for.

        Paths are in the form in which the file is there. Raises ValueError naming a row that is not as the first.
        """
        for number, row in self.as_written():
            if not row["path"]:
                raise ValueError(f"{self.where(number, 'path')}: empty")
            yield number, {**row, "path": self._on_disk(row["path"])}

    def as_written(self) -> Iterator[tuple[int, Cells]]:
        """The same, with paths as they are written, where there are any; raises ValueError in the same way."""
        for number, cells in self._lines():
            while len(cells) > len(self.columns) and not cells[-1].strip():
                cells.pop()
            if len(cells) != len(self.columns):
                raise ValueError(
                    f"{self.path} row {number}: {len(cells)} cells, expected {len(self.columns)} as in the first row"
                )
            yield number, {name: cell.strip() for name, cell in zip(self.columns, cells, strict=True) if name}

    def where(self, row: int, column: str) -> str:
        """The place of a cell in the user's own words."""
        return f"{self.path} row {row}, column {self.headings.get(column, column)!r}"

    def clock(self, reading: Reading) -> Clock:
        """How the times of its column `captured_at` are read; raises ValueError, once, where that needs to be said.

        Every row is read for it.
        """
        if "captured_at" not in self.columns:
            return Clock(reading.zone, reading.dates)
        texts = (written_time(cells) for _, cells in self.as_written())
        try:
            return choose_clock(filter(known_name, texts), reading.zone, reading.dates)
        except ValueError as error:
            raise type(error)(f"{self.path}, column {self.headings['captured_at']!r}: {error}") from None

    def understood(self, clock: Clock | None = None) -> str:
        """How the table is read, its times by `clock`, in one line."""
        renamed = [
            f"{theirs} as {ours}" for ours, theirs in self.headings.items() if ours in HEADINGS and theirs != ours
        ]
        if "time" in self.columns:
            renamed.append(f"with the time of day in {self.headings['time']}")
        form = f"{ENCODINGS.get(self.encoding, self.encoding)} text with {SEPARATORS[self.separator]} between cells"
        words = [form, ", ".join(renamed)]
        if clock is not None and "captured_at" in self.columns:
            order = f"{clock.dates} dates" if clock.dates else ""
            words += [", ".join(filter(None, [order, f"times without a zone in {clock.zone}" if clock.zone else ""]))]
        return f"{self.path.name}: {'; '.join(filter(None, words))}"

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        with self.path.open(encoding=self.encoding, newline="") as file:
            reader = csv.reader(file, delimiter=self.separator, skipinitialspace=self.separator != "\t", strict=True)
            try:
                for cells in reader:
                    if reader.line_num > self.heading_line and any(cell.strip() for cell in cells):
                        yield reader.line_num, [from_cell(cell) for cell in cells]
            except csv.Error as error:
                raise ValueError(f"{self.path} row {reader.line_num}: not readable as CSV ({error})") from None
            except UnicodeDecodeError:
                raise ValueError(NO_TEXT.format(self.path)) from None

    def _on_disk(self, written: str) -> str:
        """A path as the file system has it.

        Names from a Mac are decomposed, those from Windows have backslashes, and on neither does the case of letters
        count.
        """
        slashes = written.replace("\\", "/")
        there = next((form for form in (written, slashes) if os.path.exists(self.path.parent / form)), None)
        return there or self._spelt_otherwise(slashes) or slashes

    def _spelt_otherwise(self, path: str) -> str | None:
        """The only path that is there and differs by case and composition of letters alone."""
        found = ""
        for part in PurePosixPath(path).parts:
            folder, name = self.path.parent / found, part
            if not os.path.exists(folder / part):
                if str(folder) not in self._names:
                    self._names[str(folder)] = _names_in(folder)
                alike = self._names[str(folder)].get(_plain(part), [])
                if len(alike) != 1:
                    return None
                name = alike[0]
            found = os.path.join(found, name)
        return found


def plain_table(path: Path) -> Table:
    """A table by its own headings: its encoding and its separator are found out. Raises ValueError for no table."""
    encoding = _encoding(path)
    heading_line = 1
    try:
        with path.open(encoding=encoding, newline="") as file:
            first = file.readline()
            heading_line = 2 if re.fullmatch(r'"?sep=.?"?', first.strip()) else 1  # which Excel writes
            first = file.readline() if heading_line == 2 else first
        separator = max(SEPARATORS, key=re.sub(r'"[^"]*"', "", first).count)
        headings = [cell.strip() for cell in next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])]
    except UnicodeDecodeError:
        raise ValueError(NO_TEXT.format(path)) from None
    except csv.Error as error:
        raise ValueError(f"{path} row {heading_line}: not readable as CSV ({error})") from None
    while headings and not headings[-1]:
        headings.pop()
    repeated = [heading for heading, count in Counter(headings).items() if heading and count > 1]
    if repeated:
        raise ValueError(f"{path} row {heading_line}: column {repeated[0]!r} appears twice")
    return Table(path, tuple(headings), {name: name for name in headings if name}, separator, encoding, heading_line)


def open_table(path: Path, columns: Mapping[str, str] | None = None) -> Table:
    """Find out the form of a table: its encoding, its separator, and which of its columns are ours.

    Raises ValueError for a file that is no table or has no paths, and for `columns` that it does not have.
    """
    plain = plain_table(path)
    headings, heading_line = plain.columns, plain.heading_line
    own = _our_columns(path, headings, columns or {})
    if "path" not in own and any(is_image(heading) for heading in headings):
        found = plain.separator.join(headings)
        raise ValueError(
            f"{path} row {heading_line}: found a photo, {found}, expected the names of the columns, such as "
            "path,split,identity"
        )
    if "path" not in own:
        found = plain.separator.join(headings) or "nothing"
        raise ValueError(
            f"{path} row {heading_line}: no column 'path' (nor {', '.join(HEADINGS['path'][:3])}, ...); found {found}; "
            "--columns path=HEADING names it"
        )
    boxes = [name for name in BOX_COLUMNS if name in own]
    if boxes and len(boxes) < len(BOX_COLUMNS):
        found = ",".join(own[name] for name in boxes)
        raise ValueError(f"{path} row {heading_line}: found {found} of the box columns, expected x,y,w,h or none")
    ours = {theirs: name for name, theirs in own.items()}
    # A heading that is one of our names, but not the one that the user said, would be taken for it.
    names = tuple(
        ours.get(heading, "" if heading in own or heading in (columns or {}) else heading) for heading in headings
    )
    return replace(plain, columns=names, headings={**{name: name for name in names if name}, **own})


def parse_columns(text: str) -> dict[str, str]:
    """`path=image_path,identity=name` as a mapping of our names to headings; raises UsageError for another form."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for name, equals, _ in pairs:
        if not equals or name.strip() not in HEADINGS:
            raise UsageError(
                f"columns {text!r}: found {name.strip()!r}, expected NAME=HEADING with a NAME of {', '.join(HEADINGS)}"
            )
    return {name.strip(): heading.strip() for name, _, heading in pairs}


def written_time(cells: Mapping[str, str]) -> str:
    """What a row says of its time: `captured_at`, with the time of day where that stands in a column of its own."""
    return with_clock(cells.get("captured_at", ""), cells.get("time", ""))


def known_name(cell: str) -> str | None:
    """The name in a cell of an identity or a camera, `1` for `1.0`; None for nobody known: empty, unknown, nan, ..."""
    whole = re.fullmatch(r"(-?\d+)\.0+", cell)  # as pandas writes whole numbers once a cell of the column is empty
    name = whole[1] if whole else cell
    return None if name in NOBODY or name.casefold() in NOBODY_IN_WORDS else name


def read_box(table: Table, number: int, cells: Mapping[str, str]) -> Box | None:
    """The box of a row in whole pixels, left and top rounded down, right and bottom up; None for the whole picture.

    Raises ValueError naming the cell.
    """
    texts = {name: cells.get(name, "") for name in BOX_COLUMNS}
    if "x" not in table.columns or not any(texts.values()):
        return None
    values = []
    for name, text in texts.items():
        try:
            value = float(text if table.separator == "," else text.replace(",", "."))
        except ValueError:
            value = math.nan
        usable, expected = (value > 0, "more than 0") if name in ("w", "h") else (value >= 0, "0 or more")
        if not (math.isfinite(value) and usable):
            raise ValueError(f"{table.where(number, name)}: found {text!r}, expected pixels, {expected}")
        values.append(value)
    return whole_box(*values)


def _our_columns(path: Path, headings: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """The table's heading of each of our columns that it has."""
    lacking = [heading for heading in chosen.values() if heading and heading not in headings]
    if lacking:
        raise ValueError(f"{path} has no column {lacking[0]!r}; found {', '.join(headings)}")
    own = {name: heading for name, heading in chosen.items() if heading}
    plain = {re.sub(r"[\s_-]+", "_", heading).casefold(): heading for heading in reversed(headings) if heading}
    for name, others in HEADINGS.items():
        if name in chosen:
            continue
        for known in (name, *others):
            heading = name if name in headings else plain.get(known)
            if heading is not None and heading not in own.values():
                own[name] = heading
                break
    if not own.keys() >= set(
        BOX_COLUMNS
    ):  # width and height alone are those of the picture, left is a side of an animal
        own = {name: heading for name, heading in own.items() if name not in BOX_COLUMNS or heading == name}
    if "captured_at" not in own:
        own.pop("time", None)
    return own


def _names_in(folder: Path) -> dict[str, list[str]]:
    """The names in a folder by what they are without case, composed; none where it cannot be listed."""
    names: dict[str, list[str]] = {}
    try:
        for name in os.listdir(folder):
            names.setdefault(_plain(name), []).append(name)
    except OSError:
        pass
    return names


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(SAMPLE)
        if start.startswith(b"PK") and (said := recognise(start)):
            raise ValueError(f"{path}: {said}, expected a table as text")
        for magic, kind in OTHERS.items():
            if start.startswith(magic):
                raise ValueError(f"{path}: {kind}, expected a table as text; save it as CSV (UTF-8)")
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if b"\0" in start:
            encoding = "utf-16-le" if start[1:2] == b"\0" else "utf-16-be"
            if start.count(b"\0") < len(start) // 3:
                raise ValueError(NO_TEXT.format(path))
            return encoding
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while start:
                decoder.decode(start)
                start = file.read(2**20)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"
