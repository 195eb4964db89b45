"""What was deleted from a gallery and not enrolled again, known only to those who have the photo.

The hashes of photos are keyed, so that nobody who reads the database learns from them what was there.
"""

import hmac
import json
import secrets as random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select

from service.fields import time_from
from service.records import Crop, Region
from service.storage.columns import portions, region_columns
from service.storage.database import Database
from service.storage.driver import insert_rows
from service.storage.tables import operations, secrets, tombstones

_KEY = select(secrets.c.value).where(secrets.c.name == "tombstones")


class Tombstones:
    """When what is asked for was deleted, if it was, and is not there again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_crops(self, crops: Collection[Crop]) -> dict[Crop, datetime]:
        """When these photos, or regions that agree with these, were last deleted; those that were not are left out."""
        buried = self._of({crop.sha256 for crop in crops})
        times = {crop: [when for one, when in buried[crop.sha256] if crop.agrees(one)] for crop in crops}
        return {crop: max(deleted) for crop, deleted in times.items() if deleted}

    def of_photos(self, sha256s: Collection[str]) -> dict[str, datetime]:
        """When any item of these photos was last deleted, by their SHA-256; those without are left out."""
        return {sha256: max(when for _, when in buried) for sha256, buried in self._of(sha256s).items()}

    def _of(self, sha256s: Collection[str]) -> Mapping[str, list[tuple[Crop, datetime]]]:
        """What was deleted of photos, and when, by their SHA-256."""
        found: dict[str, list[tuple[Crop, datetime]]] = defaultdict(list)
        if not sha256s:
            return found
        if not (key := self._database.read(_KEY)):
            with self._database.transaction() as connection:
                key = [(_key(connection),)]
        named = {_hash(key[0][0], sha256): sha256 for sha256 in sha256s}
        told = select(tombstones.c.photo, tombstones.c.box, tombstones.c.frame, tombstones.c.deleted_at)
        for portion in portions(named):
            for photo, box, frame, time in self._database.read(told.where(tombstones.c.photo.in_(portion))):
                found[named[photo]].append((_crop(named[photo], box and json.loads(box), frame), time_from(time)))
        return found


def bury(connection: Connection, crops: Iterable[Crop], time: int) -> None:
    """Keep that what was there is deleted."""
    key = _key(connection)
    _bury(connection, key, dict.fromkeys(crops, time))


def unearth(connection: Connection, crops: Collection[Crop]) -> None:
    """Forget that what is enrolled again, or what agrees with it, was ever deleted."""
    key = _key(connection)
    if connection.execute(select(tombstones.c.photo).limit(1)).scalar() is None:
        return
    again: dict[str, list[Crop]] = defaultdict(list)
    for crop in crops:
        again[_hash(key, crop.sha256)].append(crop)
    told = select(tombstones.c.crop, tombstones.c.photo, tombstones.c.box, tombstones.c.frame)
    found = [row for some in portions(again) for row in connection.execute(told.where(tombstones.c.photo.in_(some)))]
    gone = [
        hashed
        for hashed, photo, box, frame in found
        if any(crop.agrees(_crop(crop.sha256, box and json.loads(box), frame)) for crop in again[photo])
    ]
    for some in portions(gone):
        connection.execute(delete(tombstones).where(tombstones.c.crop.in_(some)))


def _key(connection: Connection) -> str:
    """The key of the hashes; it is made when first asked for, and then what the log knows of deletions is kept, too."""
    if (key := connection.execute(_KEY).scalar()) is not None:
        return str(key)
    key = random.token_hex(32)
    connection.execute(insert(secrets).values(name="tombstones", value=key))
    gone: dict[Crop, int] = {}
    told = select(operations.c.kind, operations.c.time, func.coalesce(operations.c.after, operations.c.before))
    told = told.where(operations.c.kind.in_(["item.enrol", "item.delete"])).order_by(operations.c.seq)
    for kind, time, item in connection.execute(told):
        crop = _logged_crop(item)
        gone.pop(crop, None)
        if kind == "item.delete":
            gone[crop] = time
    _bury(connection, key, gone)
    return key


def _bury(connection: Connection, key: str, times: dict[Crop, int]) -> None:
    rows = [
        {
            "crop": _hash(key, _crop_text(crop)),
            "photo": _hash(key, crop.sha256),
            **region_columns(crop.region),
            "deleted_at": time,
        }
        for crop, time in times.items()
    ]
    if rows:
        for portion in portions([row["crop"] for row in rows]):
            connection.execute(delete(tombstones).where(tombstones.c.crop.in_(portion)))
        insert_rows(connection, tombstones, rows)


def _logged_crop(item: str) -> Crop:
    logged = json.loads(item)
    return _crop(logged["sha256"], logged.get("box"), logged.get("frame"))  # before version 4 there were none


def _crop(sha256: str, box: list[int] | None, frame: int | None) -> Crop:
    if box is None:
        return Crop(sha256, None)
    x, y, w, h = box
    return Crop(sha256, Region(x, y, w, h, frame))


def _crop_text(crop: Crop) -> str:
    region = crop.region
    box = "" if region is None else f"{region.x},{region.y},{region.w},{region.h}"
    frame = "" if region is None or region.frame is None else region.frame
    return f"{crop.sha256} {box} {frame}"


def _hash(key: str, text: str) -> str:
    return hmac.digest(bytes.fromhex(key), text.encode(), "sha256").hex()
