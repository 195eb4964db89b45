"""Records as the columns of a gallery, and back. Times are microseconds since 1970, UTC."""

import json
import reprlib
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Text, and_, func, literal, or_, select, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.fields import FIELDS, ITEM_FIELDS, During, Filter, microseconds, time_from
from service.records import Details, Item, Medium, Region
from service.storage.tables import identities, items, media, metadata

T = TypeVar("T")

NUL = "\ue000"  # in its place attributes are compared: SQLite ends a text at a NUL, and PostgreSQL has none
_BACKSLASH = "\x01"  # which JSON writes as an escape, so that its text never holds it

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode

VALUES_AT_ONCE = 10_000  # in a list of a statement: SQLite takes 32,766 values, PostgreSQL 65,535

SEARCHED = tuple(metadata.tables[table].c[name] for table, name in (field.column.split(".") for field in FIELDS))
LABELLED_ITEMS = items.outerjoin(identities)
ITEMS = select(
    items.c.number,
    items.c.item_id,
    media.c.sha256,
    media.c.width,
    media.c.height,
    media.c.source,
    media.c.copy_sha256,
    items.c.box,
    items.c.frame,
    items.c.captured_precision,
    items.c.latitude,
    items.c.longitude,
    identities.c.identity_id,
    items.c.created_at,
    items.c.key,
    *SEARCHED,
).select_from(items.join(media).outerjoin(identities))


def item_from(row: tuple[Any, ...]) -> Item:
    """The item of a row of `ITEMS`."""
    others, searched = row[: -len(FIELDS)], row[-len(FIELDS) :]
    number, item_id, *medium, box, frame, precision, latitude, longitude, identity_id, created_at, key = others
    said = {name: read(value) for (name, read), value in zip(_READERS, searched, strict=True) if value is not None}
    time, precision = captured(said.pop("captured_at", None), precision or "")
    where = {"captured_precision": precision, "latitude": latitude, "longitude": longitude}
    details = Details(key=key, captured_at=time, **where, **said)
    region = None
    if box is not None:
        x, y, w, h = json.loads(box)
        region = Region(x, y, w, h, frame)
    return Item(number, item_id, Medium(*medium), details, identity_id, time_from(created_at), region)


def details_columns(details: Details) -> dict[str, Any]:
    """The columns of what is said of an item, but for its identity."""
    time, precision = details.captured_at, details.captured_precision
    if time is not None and time.utcoffset():
        precision = f"{precision or ''} {time:%z}"  # of the clock, so that 06:41 stays 06:41 for people
    columns = {
        "key": details.key,
        "captured_precision": precision,
        "latitude": details.latitude,
        "longitude": details.longitude,
    }
    for name, column, written in _SAID_COLUMNS:
        value = getattr(details, name)
        columns[column] = None if value is None else written(value)
    return columns


def captured(time: datetime | None, precision: str) -> tuple[datetime | None, str | None]:
    """The time of an item with the offset of its clock, and its precision."""
    if time is None:
        return None, None
    words, _, offset = precision.rpartition(" ")
    if offset[:1] not in ("+", "-"):
        return time, precision or None
    return time.astimezone(datetime.strptime(offset, "%z").tzinfo), words or None


def region_columns(region: Region | None) -> dict[str, Any]:
    """The columns of a region."""
    if region is None:
        return {"box": None, "frame": None}
    return {"box": json_text([region.x, region.y, region.w, region.h]), "frame": region.frame}


def now() -> int:
    """The column of the present time."""
    return microseconds(datetime.now(UTC))


def json_text(value: Any) -> str:
    """The column of a JSON value; raises ValueError for a number that is not finite."""
    try:
        return _encode(value)
    except ValueError as error:
        raise ValueError(f"{reprlib.repr(value)} is not JSON ({error})") from error


def condition(chosen: Filter, named: bool | None = None) -> ColumnElement[bool]:
    """A filter over items and identities; `named` leaves those with a label, or those without."""
    tests: list[ColumnElement[bool]] = [true()]
    if named is not None:
        tests.append(identities.c.name.is_not(None) if named else identities.c.name.is_(None))
    for one in chosen.conditions():
        column: ColumnElement[Any] = _COLUMNS[one.field]
        if isinstance(one, During):
            if one.since is not None:
                tests.append(column >= one.since)
            if one.until is not None:
                tests.append(column < one.until)
            continue
        texts = list(one.texts)
        if one.field.kind == "attributes":
            # A backslash stands there twice: set aside first, so that `\\u0000` after one does not lose half an escape.
            written = func.replace(func.replace(column, r"\\", _BACKSLASH), r"\u0000", NUL)
            written = func.replace(written, _BACKSLASH, r"\\")
            column = _AttributeText(written, literal(one.attribute.replace("\0", NUL)))
            texts = [text.replace("\0", NUL) for text in texts]
        if one.excluded:
            tests.append(or_(column.is_(None), column.not_in(texts)))
        else:
            tests.append(column.in_(texts))
    return and_(*tests)


class _AttributeText(FunctionElement[str]):
    """The text of an attribute in a column of JSON; NULL where it is not there, or no text."""

    type = Text()
    inherit_cache = True


@compiles(_AttributeText, "sqlite")
def _in_sqlite(element: _AttributeText, compiler: SQLCompiler, **options: Any) -> str:
    written, name = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(SELECT value FROM json_each({written}) WHERE key = {name} AND type = 'text')"


@compiles(_AttributeText, "postgresql")
def _in_postgresql(element: _AttributeText, compiler: SQLCompiler, **options: Any) -> str:
    written, name = (compiler.process(clause, **options) for clause in element.clauses)
    return (
        f"(SELECT value #>> '{{}}' FROM json_each(({written})::json) "
        f"WHERE key = {name} AND json_typeof(value) = 'string')"
    )


def portions(values: Collection[T]) -> Iterator[list[T]]:
    """The values, in lists short enough for a statement."""
    ordered = list(values)
    for start in range(0, len(ordered), VALUES_AT_ONCE):
        yield ordered[start : start + VALUES_AT_ONCE]


_COLUMNS = dict(zip(FIELDS, SEARCHED, strict=True))
_READ: dict[str, Callable[[Any], Any]] = {
    "name": str,
    "time": time_from,
    "attributes": lambda text: {} if text == "{}" else json.loads(text),  # as of most items, which takes a tenth
}
_READERS = [(field.name, _READ[field.kind]) for field in FIELDS]
_WRITTEN: dict[str, Callable[[Any], Any]] = {
    "name": str,
    "time": microseconds,
    "attributes": lambda a: json_text(dict(a)),
}
_SAID_COLUMNS = [(field.name, field.column.removeprefix("items."), _WRITTEN[field.kind]) for field in ITEM_FIELDS]
