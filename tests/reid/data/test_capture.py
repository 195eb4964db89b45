import io
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pillow_heif
import pytest
from PIL import ExifTags, Image

from reid.data.capture import Capture, read_capture

pillow_heif.register_heif_opener()  # also writes HEIC
CASES = Path(__file__).with_name("cases")
NOW = datetime(2026, 6, 1, tzinfo=UTC)
MORNING = datetime(2026, 5, 3, 6, 41, 9)
EAST = timezone(timedelta(hours=2))
ORIGINAL, DIGITIZED, PART, OFFSET = 36867, 36868, 37521, 36881


def photo(details=(), main=(), gps=(), form="JPEG"):
    exif = Image.Exif()
    exif.update(main)
    exif.get_ifd(ExifTags.IFD.Exif).update(details)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    written = io.BytesIO()
    Image.new("RGB", (80, 60)).save(written, form, exif=exif.tobytes())
    return written.getvalue()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exif_zone.jpg", Capture(MORNING.replace(tzinfo=EAST), "second", -28.0, 32.1, "TRAILCAM 7")),
        ("phone.heic", Capture(MORNING.replace(tzinfo=EAST), "second", -28.0, 32.1, "TRAILCAM 7")),
        ("exif_no_zone.jpg", Capture(MORNING, "second", device="TRAILCAM 7")),
        ("exif_nonsense_date.jpg", Capture(problems=("time '0000:00:00 00:00:00' is none",))),
        ("exif_broken.jpg", Capture()),
        ("two_views.mpo", Capture()),
    ],
)
def test_what_the_cases_say(name, expected):
    found = read_capture((CASES / name).read_bytes(), NOW)
    assert found == expected
    if expected.captured_at:
        assert found.captured_at.utcoffset() == expected.captured_at.utcoffset()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_every_format_that_has_exif_data_says_the_same(form):
    details = {ORIGINAL: "2026:05:03 06:41:09", PART: "25", OFFSET: "-05:30"}
    found = read_capture(photo(details, {272: "X\0", 271: "Maker"}, form=form), NOW)
    zone = timezone(-timedelta(hours=5, minutes=30))
    assert found == Capture(MORNING.replace(microsecond=250_000, tzinfo=zone), "subsecond", device="X")


def test_the_device_has_its_serial_number():
    assert read_capture(photo({42033: "  007 "}, {272: "EOS"}), NOW).device == "EOS 007"
    assert len(read_capture(photo(main={272: "long " * 100}), NOW).device) == 100


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("1970:01:01 00:00:00", "that of a clock which was not set"),
        ("1980:01:01 00:12:00", "that of a clock which was not set"),
        ("0001:01:01 00:00:00", "that of a clock which was not set"),
        ("2026:06:03 00:00:00", "lies in the future"),
        ("2026:13:01 00:00:00", "is none"),
        ("2026:05:03 06:41:60", "is none"),
        ("yesterday at 7", "is none"),
        ("    :  :     :  :  ", ""),
        ("", ""),
    ],
)
def test_times_that_cannot_be_true_are_told_and_left_empty(written, problem):
    found = read_capture(photo({ORIGINAL: written}), NOW)
    assert found.captured_at is None and found.precision is None
    assert len(found.problems) == bool(problem)
    assert problem in "".join(found.problems)


@pytest.mark.parametrize("written", ["0000:00:00 00:00:00", "1970:01:01 00:00:00"])
def test_the_second_time_stands_in_for_one_that_cannot_be_true(written):
    found = read_capture(photo({ORIGINAL: written, DIGITIZED: "2026:05:03 06:41:09"}), NOW)
    assert found.captured_at == MORNING
    assert len(found.problems) == 1
    assert len(read_capture(photo({ORIGINAL: written, DIGITIZED: written}), NOW).problems) == 1


@pytest.mark.parametrize("offset", ["+99:00", "+24:00", "east"])
def test_an_offset_that_cannot_be_true_leaves_the_time(offset):
    assert read_capture(photo({ORIGINAL: "2026:05:03 06:41:09", OFFSET: offset}), NOW).captured_at == MORNING


def test_a_clock_a_little_ahead_is_believed():
    assert read_capture(photo({ORIGINAL: "2026:06:01 20:00:00"}), NOW).captured_at is not None


@pytest.mark.parametrize(
    ("gps", "expected"),
    [
        ({1: "N", 2: (52.0, 30.0, 36.0), 3: "W", 4: (13.0, 22.5, 0.0)}, (52.51, -13.375)),
        ({1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}, (None, None)),
        ({1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}, (None, None)),
        ({1: "N", 2: (52.0, 30.0, 36.0)}, (None, None)),
    ],
)
def test_positions(gps, expected):
    found = read_capture(photo(gps=gps), NOW)
    assert (found.latitude, found.longitude) == pytest.approx(expected)
    assert bool(found.problems) == (expected == (None, None) and 4 in gps)
