"""Records as the columns of a gallery, and back. Times are microseconds since 1970, UTC."""

import json
import reprlib
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, or_, select, true

from service.records import Details, Filter, Item, Medium, Region
from service.storage.tables import identities, items, media

T = TypeVar("T")

VALUES_AT_ONCE = 10_000  # in a list of a statement: SQLite takes 32,766 values, PostgreSQL 65,535

LABELLED_ITEMS = items.outerjoin(identities)
ITEMS = select(
    items.c.number,
    items.c.item_id,
    media.c.sha256,
    media.c.width,
    media.c.height,
    media.c.source,
    items.c.box,
    items.c.frame,
    items.c.key,
    identities.c.name,
    items.c.camera,
    items.c.captured_at,
    items.c.captured_precision,
    items.c.latitude,
    items.c.longitude,
    items.c.attributes,
    identities.c.identity_id,
    items.c.created_at,
).select_from(items.join(media).outerjoin(identities))


def item_from(row: tuple[Any, ...]) -> Item:
    """The item of a row of `ITEMS`."""
    number, item_id, *medium, box, frame, key, label, camera = row[:11]
    captured_at, captured_precision, latitude, longitude, attributes, identity_id, created_at = row[11:]
    time, precision = _captured(captured_at, captured_precision or "")
    details = Details(key, label, camera, time, json.loads(attributes), precision, latitude, longitude)
    region = None
    if box is not None:
        x, y, w, h = json.loads(box)
        region = Region(x, y, w, h, frame)
    return Item(number, item_id, Medium(*medium), details, identity_id, time_from(created_at), region)


def details_columns(details: Details) -> dict[str, Any]:
    """The columns of what is said of an item, but for its identity."""
    time, precision = details.captured_at, details.captured_precision
    if time is not None and precision is not None and time.utcoffset():
        precision += f" {time:%z}"  # of the camera's clock, so that 06:41 stays 06:41 for people
    return {
        "key": details.key,
        "camera": details.camera,
        "captured_at": None if time is None else microseconds(time),
        "captured_precision": precision,
        "latitude": details.latitude,
        "longitude": details.longitude,
        "attributes": json_text(dict(details.attributes)),
    }


def _captured(column: int | None, precision: str) -> tuple[datetime | None, str | None]:
    """The time of an item with the offset of its clock, and its precision."""
    if column is None:
        return None, None
    words, _, offset = precision.rpartition(" ")
    if offset[:1] not in ("+", "-"):
        return time_from(column), precision or None
    return time_from(column).astimezone(datetime.strptime(offset, "%z").tzinfo), words


def region_columns(region: Region | None) -> dict[str, Any]:
    """The columns of a region."""
    if region is None:
        return {"box": None, "frame": None}
    return {"box": json_text([region.x, region.y, region.w, region.h]), "frame": region.frame}


def time_from(microseconds: int) -> datetime:
    """The time, in UTC."""
    return _EPOCH + microseconds * _MICROSECOND


def microseconds(time: datetime) -> int:
    """The column of a time; raises ValueError for one without zone."""
    if time.tzinfo is None:
        raise ValueError(f"time {time.isoformat()} has no time zone; expected one such as {time.isoformat()}Z")
    return (time - _EPOCH) // _MICROSECOND


def now() -> int:
    """The column of the present time."""
    return microseconds(datetime.now(UTC))


def json_text(value: Any) -> str:
    """The column of a JSON value; raises ValueError for a number that is not finite."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{reprlib.repr(value)} is not JSON ({error})") from error


def condition(chosen: Filter) -> ColumnElement[bool]:
    """A filter over items and identities."""
    tests: list[ColumnElement[bool]] = [true()]
    if chosen.cameras is not None:
        tests.append(items.c.camera.in_(chosen.cameras))
    if chosen.exclude_cameras:
        tests.append(or_(items.c.camera.is_(None), items.c.camera.not_in(chosen.exclude_cameras)))
    if chosen.since is not None:
        tests.append(items.c.captured_at >= microseconds(chosen.since))
    if chosen.until is not None:
        tests.append(items.c.captured_at < microseconds(chosen.until))
    if chosen.labels is not None:
        tests.append(identities.c.name.in_(chosen.labels))
    return and_(*tests)


def portions(values: Collection[T]) -> Iterator[list[T]]:
    """The values, in lists short enough for a statement."""
    ordered = list(values)
    for start in range(0, len(ordered), VALUES_AT_ONCE):
        yield ordered[start : start + VALUES_AT_ONCE]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
