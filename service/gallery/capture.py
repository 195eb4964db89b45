"""What the camera said of a photo, beside what people say of it."""

import logging
from dataclasses import replace
from datetime import UTC, tzinfo

from reid.data.capture import read_capture
from service.records import Conflict, Details, Item, ItemEdit, Upload

log = logging.getLogger("reid")

ZONE_UNKNOWN = "zone unknown"  # ends the precision of a time that is taken for UTC


def with_capture(upload: Upload) -> Details:
    """What is said of an upload, and of the rest what its camera said: time, place and device.

    What people say goes first. A clock whose zone is not known is taken for one in the zone that is given for such,
    else in UTC, which its precision tells. What cannot be true is logged, and left empty.
    """
    said, cameras = upload.details, upload.cameras
    found = read_capture(upload.data)
    for problem in found.problems:
        log.warning("%s: the camera's %s; left empty", " ".join(upload.name.split()), problem)
    if said.captured_at is None and found.captured_at is not None:
        time, precision = found.captured_at, found.precision
        if time.tzinfo is None:
            time = time.replace(tzinfo=cameras.zone or UTC)
            precision = precision if cameras.zone else f"{precision}, {ZONE_UNKNOWN}"
        said = replace(said, captured_at=time, captured_precision=precision)
    attributes = dict(said.attributes)
    if found.latitude is not None and said.latitude is None and not attributes.keys() & {"latitude", "longitude"}:
        said = replace(said, latitude=found.latitude, longitude=found.longitude)
    if found.device is not None:
        attributes.setdefault("device", found.device)
    if cameras.named_by_device and said.camera is None:
        said = replace(said, camera=found.device)
    return replace(said, attributes=attributes)


def placed_in(item: Item, zone: tzinfo) -> ItemEdit:
    """The time of an item whose clock told no zone, as that of a clock in this one.

    Raises Conflict for an item without a time, and for one whose zone is known.
    """
    time, precision = item.details.captured_at, item.details.captured_precision or ""
    if time is None or not precision.endswith(ZONE_UNKNOWN):
        there = "none" if time is None else f"{time.isoformat()}, whose zone is known"
        raise Conflict(f"timezone is for a time whose zone is unknown; that of item {item.item_id} is {there}")
    shown = time.astimezone(UTC).replace(tzinfo=zone)
    return {"captured_at": shown, "captured_precision": precision.removesuffix(f", {ZONE_UNKNOWN}")}
