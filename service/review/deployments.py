"""Where cameras stood and when, from a table: what packages of camera traps and capture histories need."""

import csv
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import NamedTuple

from reid.data.cells import from_cell

COLUMNS = {
    "camera": ("camera", "deploymentID", "cameraID", "station", "detector"),
    "latitude": ("latitude", "y"),
    "longitude": ("longitude", "x"),
    "start": ("start", "deploymentStart"),
    "end": ("end", "deploymentEnd"),
}


class Deployment(NamedTuple):
    """A camera at a place, in degrees, from a time to another, both with zones."""

    camera: str
    latitude: float
    longitude: float
    start: datetime
    end: datetime


def read_deployments(path: Path, zone: tzinfo = UTC) -> list[Deployment]:
    """The deployments of a table: camera, latitude, longitude, start and end, or these as Camtrap DP calls them.

    Times without zone are in `zone`. Raises ValueError, which names the row, for cells that are missing or wrong.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        found = set(reader.fieldnames or ())
        named = {name: next((one for one in spelled if one in found), None) for name, spelled in COLUMNS.items()}
        if missing := [name for name, column in named.items() if column is None]:
            raise ValueError(f"{path}: no column {missing[0]}; found {', '.join(sorted(found)) or 'none'}")
        deployments = []
        for number, row in enumerate(reader, 2):
            cells = {name: from_cell((row.get(column or "") or "").strip()) for name, column in named.items()}
            try:
                start, end = (_time(cells[name], zone) for name in ("start", "end"))
                place = float(cells["latitude"]), float(cells["longitude"])
            except ValueError as error:
                raise ValueError(f"{path}, row {number}: {error}") from None
            if not cells["camera"] or end <= start or not (abs(place[0]) <= 90 and abs(place[1]) <= 180):
                expected = "expected a camera, a place in degrees, and an end after the start"
                raise ValueError(f"{path}, row {number}: {expected}")
            deployments.append(Deployment(cells["camera"], *place, start, end))
    if not deployments:
        raise ValueError(f"{path}: no row; expected one for each camera")
    return deployments


class Occasion(NamedTuple):
    """A span of time of a capture history, from `start` until before `end`, both with zones."""

    start: datetime
    end: datetime


def regular_occasions(deployments: Sequence[Deployment], length: timedelta) -> list[Occasion]:
    """Occasions of one length, from the first start of a deployment until the last end."""
    begun, ended = min(one.start for one in deployments), max(one.end for one in deployments)
    count = math.ceil((ended - begun) / length)
    return [Occasion(begun + place * length, begun + (place + 1) * length) for place in range(count)]


def read_occasions(path: Path, zone: tzinfo = UTC) -> list[Occasion]:
    """The occasions of a table with start and end, by rising start; times without zone are in `zone`.

    Raises ValueError, which names the row, for cells that are missing or wrong, and for occasions that overlap.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in Occasion._fields if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path}: no column {missing[0]}; found {', '.join(reader.fieldnames or ()) or 'none'}")
        found: list[Occasion] = []
        for number, row in enumerate(reader, 2):
            try:
                occasion = Occasion(*(_time((row[name] or "").strip(), zone) for name in Occasion._fields))
            except ValueError as error:
                raise ValueError(f"{path}, row {number}: {error}") from None
            if occasion.end <= occasion.start:
                raise ValueError(f"{path}, row {number}: expected an end after the start")
            if found and occasion.start < found[-1].end:
                raise ValueError(f"{path}, row {number}: begins before the one above it ends")
            found.append(occasion)
    if not found:
        raise ValueError(f"{path}: no row; expected one for each occasion")
    return found


def read_length(text: str) -> timedelta:
    """A length of time such as `7d` or `12h`; raises ValueError for another."""
    units = {"d": timedelta(days=1), "h": timedelta(hours=1), "w": timedelta(weeks=1)}
    try:
        length = int(text[:-1]) * units[text[-1:]]
    except (ValueError, KeyError, OverflowError):
        length = timedelta(0)
    if length <= timedelta(0):
        raise ValueError(f"{text!r}: expected a length of time such as 7d, 12h or 2w, or a table that is there")
    return length


def _time(text: str, zone: tzinfo) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=zone)
