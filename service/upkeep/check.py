"""Whether a gallery is whole: its tables, the vectors in them, and a sound picture of each item."""

import hashlib
from threading import Event
from typing import Any

from sqlalchemy import select

from reid.data.images import UnknownFormat, UnusableImage, decode
from reid.names import counted
from service.gallery.pictures import Pictures
from service.records import Job, NotFound
from service.storage.database import Database
from service.storage.store import ROWS_AT_ONCE, Store
from service.storage.tables import items, media, vectors
from service.storage.vectors import differs
from service.upkeep.jobs import Progress, Work

PICTURES_AT_ONCE = 100


def check_work(database: Database, pictures: Pictures) -> Work:
    """The work of jobs of the kind `check`."""

    def work(job: Job, progress: Progress) -> dict[str, Any]:
        return check(database, pictures, progress, adopt=True)

    return work


def check(database: Database, pictures: Pictures, progress: Progress, *, adopt: bool = False) -> dict[str, Any]:
    """Read all that a gallery keeps, while others use it, and tell what of it is lost or damaged.

    The result is the number of `photos` and of `vectors` that were read, what is wrong with the tables as `damage`, or
    None, and the public ids of the items whose pictures are `missing` or `damaged`, or with `damaged_vectors`. With
    `adopt`, copies of photos that were enrolled before copies had checksums get theirs, where they can be read.
    """
    damage = database.inspect(Event())
    store = Store(database)
    named = dict(database.read(select(items.c.number, items.c.item_id)))
    checked, broken_vectors = 0, []
    following = select(vectors.c.owner_number, vectors.c.vector, vectors.c.checksum).order_by(vectors.c.owner_number)
    after = -1
    while rows := database.read(following.where(vectors.c.owner_number > after).limit(ROWS_AT_ONCE)):
        # The vectors of one item, by several models, are read together: the last item of a portion comes once more.
        whole = rows if len(rows) < ROWS_AT_ONCE else [row for row in rows if row[0] < rows[-1][0]]
        broken_vectors += [number for number, vector, checksum in whole if differs(vector, checksum)]
        checked += len(whole)
        after = whole[-1][0]
    photos = database.read(select(media.c.number, media.c.sha256, media.c.copy_sha256).order_by(media.c.number))
    missing, damaged = set[int](), set[int]()
    found: dict[str, str] = {}
    for done, (number, sha256, copy_sha256) in enumerate(photos):
        if done % PICTURES_AT_ONCE == 0:
            progress(done, len(photos))
            if adopt:
                store.keep_checksums(found)
                found = {}
        if not pictures.holds(sha256):
            missing.add(number)
        elif copy_sha256 is not None:
            if not pictures.sound(sha256, copy_sha256):
                damaged.add(number)
        elif (checksum := _checksum(pictures, sha256)) is not None:
            found[sha256] = checksum
        else:
            damaged.add(number)
    if adopt:
        store.keep_checksums(found)
    progress(len(photos), len(photos))
    shown = database.read(select(items.c.item_id, items.c.media_number).order_by(items.c.number))  # as there are by now
    return {
        "photos": len(photos),
        "vectors": checked,
        "damage": damage,
        "missing": [item_id for item_id, number in shown if number in missing],
        "damaged": [item_id for item_id, number in shown if number in damaged],
        "damaged_vectors": list(dict.fromkeys(named[number] for number in broken_vectors if number in named)),
    }


def told(result: dict[str, Any]) -> list[str]:
    """What `check` found to be wrong, in words; empty where all is whole."""
    lines = [] if result["damage"] is None else [f"the database is damaged: {result['damage']}"]
    for name, one, many, advice in (
        ("missing", "has no picture", "have no picture", "enrolling the photo again keeps one"),
        ("damaged", "has a damaged picture", "have a damaged picture", "enrolling the photo again mends it"),
        ("damaged_vectors", "has a damaged vector", "have a damaged vector", "a re-index mends it"),
    ):
        if ids := result[name]:
            lines.append(f"{counted(len(ids), f'item {one}', f'items {many}')}; {advice}: {', '.join(ids)}")
    return lines


def _checksum(pictures: Pictures, sha256: str) -> str | None:
    """The SHA-256 of a copy that nobody wrote down, if it is a picture."""
    try:
        data = pictures.read(sha256)
        decode(data)
    except (NotFound, OSError, UnknownFormat, UnusableImage):
        return None
    return hashlib.sha256(data).hexdigest()
