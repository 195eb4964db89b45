"""What the camera said of a picture: when, where and by which device it was taken."""

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from PIL import ExifTags

from reid.data.images import UnknownFormat, UnusableImage, opened_picture
from reid.data.times import read_offset

# The tags of a time, of its part of a second, and of its offset from UTC; the second set stands in for the first.
_TIMES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
)
_TIME = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d+))?")
# Where clocks begin that were never set, and before which nobody took a photo.
_BEGINNINGS = ((1904, 1, 1), (1970, 1, 1), (1980, 1, 1))
_FIRST_PHOTO = 1826
_TOLERANCE = timedelta(days=1)  # of clocks that are ahead, and of those whose zone is not known
_LONGEST = 100  # characters of a device's name


@dataclass(frozen=True)
class Capture:
    """What a camera says of a picture; None where it says nothing, or nothing that can be true.

    `captured_at` has a time zone if the camera says it. `precision` is `second` or `subsecond`. `latitude` and
    `longitude` are degrees. `device` is the camera's model and serial number. `problems` tell what cannot be true.
    """

    captured_at: datetime | None = None
    precision: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    device: str | None = None
    problems: tuple[str, ...] = ()


def read_capture(data: bytes, now: datetime | None = None) -> Capture:
    """What the EXIF data of an image file say, of any format that is read; nothing where they are damaged.

    `now` has a time zone; times after it cannot be true.
    """
    try:
        with opened_picture(io.BytesIO(data)) as opened:
            exif = opened.getexif()
            main, details = dict(exif), dict(exif.get_ifd(ExifTags.IFD.Exif))
            position = dict(exif.get_ifd(ExifTags.IFD.GPSInfo))
    except (UnknownFormat, UnusableImage):  # also for whatever Pillow raises for EXIF data that are damaged
        return Capture()
    problems: list[str] = []
    captured_at, precision = _time(details, now or datetime.now(UTC), problems)
    latitude, longitude = _position(position, problems)
    parts = (_text(main.get(ExifTags.Base.Model)), _text(details.get(ExifTags.Base.BodySerialNumber)))
    device = " ".join(filter(None, parts))[:_LONGEST] or None
    return Capture(captured_at, precision, latitude, longitude, device, tuple(problems))


def _time(tags: Mapping[int, Any], now: datetime, problems: list[str]) -> tuple[datetime | None, str | None]:
    for time_tag, part_tag, offset_tag in _TIMES:
        written = _text(tags.get(time_tag))
        if not any(character.isdigit() for character in written):  # blank, as where there was no clock
            continue
        match = _TIME.fullmatch(written)
        part = _text(tags.get(part_tag)) or (match[7] if match else None) or ""
        try:
            if match is None:
                raise ValueError
            time = datetime.fromisoformat("{}-{}-{}T{}:{}:{}".format(*match.groups()))
            if part.isdecimal():
                time = time.replace(microsecond=int(part[:6].ljust(6, "0")))
            time = time.replace(tzinfo=read_offset(_text(tags.get(offset_tag))))
        except ValueError:
            problem = f"time {written!r} is none"
        else:
            if (time.year, time.month, time.day) in _BEGINNINGS or time.year < _FIRST_PHOTO:
                problem = f"time {written!r} is that of a clock which was not set"
            elif (time if time.tzinfo else time.replace(tzinfo=UTC)) > now + _TOLERANCE:
                problem = f"time {written!r} lies in the future"
            else:
                return time, "subsecond" if part.isdecimal() else "second"
        if problem not in problems:  # both sets of tags often say the same
            problems.append(problem)
    return None, None


def _position(tags: Mapping[int, Any], problems: list[str]) -> tuple[float | None, float | None]:
    if ExifTags.GPS.GPSLatitude not in tags or ExifTags.GPS.GPSLongitude not in tags:
        return None, None
    latitude = _degrees(tags[ExifTags.GPS.GPSLatitude], _text(tags.get(ExifTags.GPS.GPSLatitudeRef)) == "S", 90)
    longitude = _degrees(tags[ExifTags.GPS.GPSLongitude], _text(tags.get(ExifTags.GPS.GPSLongitudeRef)) == "W", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        problems.append("position is none, as of a receiver that had no signal")
        return None, None
    return latitude, longitude


def _degrees(value: Any, negative: bool, most: int) -> float | None:
    """Degrees, minutes and seconds as degrees, to a centimetre."""
    try:
        degrees = sum((float(part) / 60**place for place, part in enumerate(value)), 0.0)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if not math.isfinite(degrees) or not 0 <= degrees <= most:
        return None
    return round(-degrees if negative else degrees, 7)


def _text(value: Any) -> str:
    """A tag as text in one line; "" for one that has none."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    shown = "".join(character if character.isprintable() else " " for character in value.split("\0")[0])
    return " ".join(shown.split())
