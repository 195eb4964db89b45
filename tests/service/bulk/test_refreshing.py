"""What cameras said, for items that were enrolled before it was read."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.fields import Filter
from service.manage import main
from service.opening import open_gallery
from service.records import Details, Upload
from service.storage.database import Database
from service.storage.store import Store
from tests import formats

NAMES = ("exif_zone.jpg", "exif_no_zone.jpg", "exif_nonsense_date.jpg", "exif_broken.jpg", "phone.heic")
SAID = Details(label="ada", captured_at=datetime(2020, 1, 1, tzinfo=UTC), attributes={"device": "mine"})


@pytest.fixture
def photos(tmp_path) -> Path:
    """Photos of cameras in folders of today's names, one twice, and one that is in no gallery."""
    folder = tmp_path / "photos"
    (folder / "gate").mkdir(parents=True)
    for name in NAMES:
        shutil.copy(formats.CASES / name, folder / "gate" / f"renamed_{name}")
    shutil.copy(formats.CASES / "exif_zone.jpg", folder / "again.jpg")
    shutil.copy(formats.CASES / "two_views.mpo", folder / "another.mpo")
    return folder


@pytest.fixture
def filled(checkpoint, tmp_path, monkeypatch):
    """A gallery as before cameras were asked: two items of one photo, and one of which people said something."""
    monkeypatch.setattr("service.gallery.enrolment.with_capture", lambda upload: upload.details)
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        uploads = [Upload(name, (formats.CASES / name).read_bytes(), Details()) for name in NAMES]
        uploads.append(Upload(NAMES[0], uploads[0].data, SAID, box=(0, 0, 100, 100)))
        assert all(result.created for result in gallery.enrol(uploads))
    return tmp_path / "gallery"


def items(folder):
    with Database(folder) as database:
        return [item.details for item in Store(database).page(Filter(), 0, 100)]


def test_what_is_not_known_is_filled_in_and_what_people_said_stays(filled, photos, capsys):
    before = items(filled)
    run = ["refresh", "--gallery", str(filled), str(photos)]
    assert main([*run, "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "would be filled in" in told.out and "captured_at 2026-05-03 06:41:09+02:00" in told.err
    assert items(filled) == before
    assert main(run) == 0
    out = "4 items filled in (3 times, 3 places, 3 devices), 2 as they were; 1 photo not in the gallery, "
    assert capsys.readouterr().out == out + "0 cannot be read\n"
    zone, no_zone, nonsense, broken, phone, box = items(filled)
    assert zone.captured_at.isoformat() == phone.captured_at.isoformat() == "2026-05-03T06:41:09+02:00"
    assert (zone.captured_precision, zone.attributes) == ("second", {"device": "TRAILCAM 7"})
    assert zone.latitude == pytest.approx(-28.0, abs=0.1) and zone.longitude == pytest.approx(32.1, abs=0.1)
    assert no_zone.captured_at.isoformat() == "2026-05-03T06:41:09+00:00"
    assert no_zone.captured_precision == "second, zone unknown"
    assert nonsense == broken == Details()
    assert (box.label, box.captured_at, box.captured_precision) == ("ada", SAID.captured_at, None)
    assert (box.attributes, box.latitude) == ({"device": "mine"}, zone.latitude)
    assert main(run) == 0
    assert capsys.readouterr().out.startswith("0 items filled in, 6 as they were")


def test_a_zone_that_is_told_later_mends_times_taken_for_utc(filled, photos, capsys):
    run = ["refresh", "--gallery", str(filled), str(photos)]
    assert main(run) == 0
    assert main([*run, "--timezone", "Africa/Johannesburg", "--camera-from", "folder"]) == 0
    assert "(1 times, 4 cameras)" in capsys.readouterr().out
    found = items(filled)
    assert (found[1].captured_at.isoformat(), found[1].captured_precision) == ("2026-05-03T06:41:09+02:00", "second")
    # That of the first file with the same bytes, which lies in no folder below the source.
    assert [details.camera for details in found] == [None, "gate", "gate", "gate", "gate", None]
