"""What cameras said of photos that were enrolled before it was read: from the files, matched by their content."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import cast

from reid.progress import Progress
from service.bulk.sources import Photo, reason
from service.gallery.capture import ZONE_UNKNOWN, with_capture
from service.records import ANY_CAMERA, Cameras, Cause, Details, Item, ItemEdit, Upload
from service.storage.store import Store

log = logging.getLogger("reid")


def refresh(
    store: Store,
    photos: Sequence[Photo],
    cause: Cause,
    cameras: Cameras = ANY_CAMERA,
    *,
    cameras_by_folder: bool = False,
    dry_run: bool = False,
) -> Counter[str]:
    """Fill in what is not known of items and their photos tell: time, place, device, and the camera if one is named.

    Never over what people said; but the time of a clock whose zone was not known is taken anew where `cameras` tell it.
    Counts items `filled`, those of which `nothing` is new, photos that are `elsewhere`, in no item, and those that
    `failed`, each logged; and of what was filled in, by name. With `dry_run` each change is logged and none is made.
    """
    counts: Counter[str] = Counter()
    progress = Progress("refreshing")
    seen: set[str] = set()
    try:
        for done, photo in enumerate(photos):
            progress(done, len(photos))
            try:
                data = photo.path.read_bytes()
            except OSError as error:
                counts["failed"] += 1
                log.warning("%s: %s", photo, reason(error))
                continue
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 in seen:
                continue
            seen.add(sha256)
            items = store.of_photo(sha256)
            counts["elsewhere"] += not items
            camera = photo.cells.get("camera") if cameras_by_folder else None
            for item in items:
                changes = _missing(item, Upload(photo.name, data, item.details, cameras), camera)
                counts["filled" if changes else "nothing"] += 1
                counts.update(_told(changes))
                if changes and dry_run:
                    log.info("%s: %s", photo, ", ".join(f"{name} {value}" for name, value in _shown(changes).items()))
                elif changes:
                    store.edit(item.item_id, changes, cause)
    finally:
        progress.close()
    return counts


def _missing(item: Item, upload: Upload, camera: str | None) -> ItemEdit:
    """What of an item is not known and its photo tells."""
    said = before = item.details
    if upload.cameras.zone and (said.captured_precision or "").endswith(ZONE_UNKNOWN):
        said = replace(said, captured_at=None, captured_precision=None)
    found = with_capture(replace(upload, details=replace(said, camera=said.camera or camera)))
    if found.captured_at is None:  # the file of today says nothing of the time that is known
        found = replace(found, captured_at=before.captured_at, captured_precision=before.captured_precision)
    names = [one.name for one in fields(Details)]
    return cast(
        ItemEdit, {name: getattr(found, name) for name in names if getattr(found, name) != getattr(before, name)}
    )


def _told(changes: ItemEdit) -> list[str]:
    names = {"captured_at": "times", "latitude": "places", "attributes": "devices", "camera": "cameras"}
    return [word for name, word in names.items() if name in changes]


def _shown(changes: ItemEdit) -> dict[str, object]:
    shown = {name: value for name, value in changes.items() if name != "attributes"}
    return {**shown, "device": changes["attributes"].get("device")} if "attributes" in changes else shown
