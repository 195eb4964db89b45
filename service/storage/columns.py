"""Records as the columns of a gallery, and back. Times are microseconds since 1970, UTC."""

import json
import reprlib
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from service.records import Details, Filter, Item, Medium

# Whose vectors a gallery holds, and what they describe.
ITEM, APPEARANCE = "item", "appearance"

ITEMS = """
SELECT items.number, item_id, sha256, width, height, source, key, identities.name, camera, items.captured_at,
    items.attributes, identity_id, created_at
FROM items JOIN media ON media.number = media_number LEFT JOIN identities ON identities.number = identity_number
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def item_from(row: tuple[Any, ...]) -> Item:
    """The item of a row of `ITEMS`."""
    number, item_id, *medium, key, label, camera, captured_at, attributes, identity_id, created_at = row
    details = Details(
        key, label, camera, None if captured_at is None else time_from(captured_at), json.loads(attributes)
    )
    return Item(number, item_id, Medium(*medium), details, identity_id, time_from(created_at))


def time_from(microseconds: int) -> datetime:
    """The time, in UTC."""
    return _EPOCH + microseconds * _MICROSECOND


def microseconds(time: datetime) -> int:
    """The column of a time; raises ValueError for one without zone."""
    if time.tzinfo is None:
        raise ValueError(f"time {time.isoformat()} has no time zone; expected one such as {time.isoformat()}Z")
    return (time - _EPOCH) // _MICROSECOND


def json_text(value: Any) -> str:
    """The column of a JSON value; raises ValueError for a number that is not finite."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{reprlib.repr(value)} is not JSON ({error})") from error


def condition(chosen: Filter) -> tuple[str, list[Any]]:
    """A filter as SQL over items and identities, and the values for its question marks."""
    tests: list[tuple[str, Collection[Any]]] = []
    if chosen.cameras is not None:
        tests.append((f"camera IN {_places(chosen.cameras)}", chosen.cameras))
    if chosen.exclude_cameras:
        tests.append((f"(camera IS NULL OR camera NOT IN {_places(chosen.exclude_cameras)})", chosen.exclude_cameras))
    if chosen.since is not None:
        tests.append(("items.captured_at >= ?", [microseconds(chosen.since)]))
    if chosen.until is not None:
        tests.append(("items.captured_at < ?", [microseconds(chosen.until)]))
    if chosen.labels is not None:
        tests.append((f"identities.name IN {_places(chosen.labels)}", chosen.labels))
    return " AND ".join(["TRUE", *(sql for sql, _ in tests)]), [value for _, values in tests for value in values]


def _places(names: Collection[str]) -> str:
    # Not one JSON list for json_each: a name with a NUL in it would be cut there.
    return f"({', '.join('?' * len(names))})"
