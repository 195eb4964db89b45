import csv
import os
import re
import shutil
import sqlite3
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from reid.data.synthetic import generate
from service.bulk import enrolling
from service.bulk.enrolling import AT_ONCE, BATCH, enrol
from service.bulk.sources import find_photos
from service.enrol import main
from service.fields import Filter
from service.opening import open_gallery
from service.records import Details, Region, Upload
from tests.waiting import DEADLINE


@pytest.fixture
def folder(tmp_path, picture):
    """Three images in a folder and one below it, beside files that are none."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for name in ("b.png", "a.png", "c.PNG", "below/d.png"):
        (folder / name).write_bytes(picture(len(name) * 100 + ord(name[0])))
    (folder / "notes.txt").write_text("nothing")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "e.png").write_bytes(picture(5))
    return folder


@pytest.fixture
def command(checkpoint, tmp_path):
    """A function that runs the command into one gallery."""

    def run(*arguments):
        options = ["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery"), "--device", "cpu"]
        return main([*options, *map(str, arguments)])

    return run


@pytest.fixture
def items(checkpoint, tmp_path):
    """A function that lists what the gallery holds."""

    def read():
        with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
            return gallery.store.page(Filter(), 0, 1000)

    return read


def test_a_folder_is_enrolled_once(folder, command, items, tmp_path, capsys):
    assert command(folder) == 0
    assert capsys.readouterr().out == f"4 enrolled, 0 there before, 0 failed; {tmp_path}/gallery holds 4 items\n"
    before = items()
    assert [item.medium.source for item in before] == ["a.png", "b.png", "below/d.png", "c.PNG"]
    assert command(folder) == 0
    assert capsys.readouterr().out == f"0 enrolled, 4 there before, 0 failed; {tmp_path}/gallery holds 4 items\n"
    assert items() == before


def test_what_was_deleted_does_not_come_back_by_itself(folder, command, items, checkpoint, picture, tmp_path, capsys):
    command(folder)
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        gone, other, *_ = gallery.store.page(Filter())
        gallery.delete([gone.item_id, other.item_id])
    capsys.readouterr()
    assert command(folder) == 0
    told = f"0 enrolled, 2 there before, 0 failed, 2 deleted before, left out; {tmp_path}/gallery holds 2 items\n"
    assert capsys.readouterr().out == told
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:  # somebody says so
        [back] = gallery.enrol([Upload("a.png", (folder / "a.png").read_bytes(), Details())])
        assert back.created
        gallery.delete([back.item.item_id])
    assert command(folder, "--again") == 0
    assert capsys.readouterr().out.startswith("2 enrolled, 2 there before, 0 failed;")
    assert [item.medium.source for item in items()][2:] == ["a.png", "b.png"]


def test_a_table_says_what_its_photos_show(folder, command, items):
    (folder / "images.csv").write_text(
        "path,key,identity,camera,captured_at,split\n"
        "a.png,k1,ada,north,2024-05-01T12:00:00+02:00,query\n"
        "below/d.png,,,-1,,\n"
    )
    assert command(folder / "images.csv") == 0
    first, second = (item.details for item in items())
    assert (first.key, first.label, first.camera) == ("k1", "ada", "north")
    assert first.captured_at.isoformat() == "2024-05-01T12:00:00+02:00"
    assert first.attributes == {"split": "query"}
    assert (second.key, second.label, second.camera, second.captured_at, second.attributes) == (*[None] * 4, {})


def test_what_is_said_later_is_told_of_and_taken_over_on_demand(folder, command, items, capsys):
    command(folder)
    before = items()
    (folder / "images.csv").write_text(
        "path,label,camera,captured_at,sex\n"
        "a.png,ada,north,2024-05-01T12:00:00Z,f\n"
        "b.png,,,,\n"
        f"{before[2].medium.source},bob,,,\n"
    )
    capsys.readouterr()
    assert command(folder / "images.csv") == 0
    assert "of 2 there before something else is said here; --update takes it over" in capsys.readouterr().out
    assert items() == before
    assert command(folder / "images.csv", "--update") == 0
    assert "2 that were there before are updated" in capsys.readouterr().out
    by_source = {item.medium.source: item.details for item in items()}
    assert by_source["a.png"] == Details(
        label="ada", camera="north", captured_at=datetime(2024, 5, 1, 12, tzinfo=UTC), attributes={"sex": "f"}
    )
    assert by_source[before[2].medium.source].label == "bob"
    assert by_source["b.png"] == Details()
    assert command(folder / "images.csv", "--update") == 0
    assert "updated" not in capsys.readouterr().out


def test_what_cannot_be_used_is_named_and_skipped(folder, command, items, picture, capsys):
    (folder / "cut.png").write_bytes(picture(7)[:-300])
    (folder / "images.csv").write_text(
        "path,label,captured_at,key,x,y,w,h\n"
        "cut.png,,,,,,,\n"
        "missing.png,,,,,,,\n"
        "a.png,,yesterday,,,,,\n"
        "a.png,,2024,,,,,\n"
        "a.png,,,,1,2,30,4\n"
        "a.png,,,,1,2,,4\n"
        "a.png,,,,1,2,nan,4\n"
        "b.png,,,k,,,,\n"
        "c.PNG,,,k,,,,\n"
    )
    assert command(folder / "images.csv") == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("1 enrolled, 0 there before, 8 failed;")
    for line in (
        "cut.png: the image is damaged or cut short",
        "missing.png: No such file or directory",
        "a.png: captured_at 'yesterday': expected a date or a time, as 2025-03-01 or 2025-03-01 09:30:00\n",
        "a.png: captured_at '2024': expected a date or a time, as 2025-03-01 or 2025-03-01 09:30:00\n",
        "a.png, box 1,2,30,4: box 1,2,30,4 is not within the picture of 20x30 pixels\n",
        "a.png, box 1,2,,4: w '': expected a number of pixels, as in all of x,y,w,h\n",
        "a.png, box 1,2,nan,4: box 1,2,nan,4 is empty or not finite; expected x,y,w,h in pixels\n",
        "c.PNG: key 'k' belongs to item",
    ):
        assert line in shown.err
    assert [item.medium.source for item in items()] == ["b.png"]


@pytest.fixture
def many(tmp_path, picture):
    """A folder of more photos than are under way at once, every seventh of which is none."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range((AT_ONCE + 1) * BATCH + 1):
        (folder / f"{i:03}.png").write_bytes(b"" if i % 7 == 0 else picture(i))
    return folder


def test_more_photos_than_are_under_way_at_once(many, command, items, capsys):
    names = [path.name for path in sorted(many.iterdir())]
    empty = names[::7]
    assert command(many) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{len(names) - len(empty)} enrolled, 0 there before, {len(empty)} failed;")
    assert shown.err.splitlines() == [f"{name}: the file is empty" for name in empty]  # in their order
    assert sorted(item.medium.source for item in items()) == sorted(set(names) - set(empty))


class Slow:
    """A gallery that has batches come together before it enrols them, and may fail at one of them."""

    def __init__(self, gallery, together=1, failing=None):
        self.gallery, self.failing = gallery, failing
        self.meeting = threading.Barrier(together)
        self.begun, self.most, self.under_way = [], 0, 0
        self.lock = threading.Lock()

    def enrol(self, uploads, cause, *, again):
        with self.lock:
            self.begun.append(uploads[0].name)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.meeting.wait(DEADLINE)
        if uploads[0].name == self.failing:
            raise OSError("no space left")
        results = self.gallery.enrol(uploads, cause, again=again)
        with self.lock:
            self.under_way -= 1
        return results


def test_batches_overlap_and_no_more_than_said(many, gallery):
    photos = [photo for photo in find_photos(many) if photo.path.stat().st_size][: 2 * AT_ONCE * BATCH]
    photos = (photos * 2)[: 2 * AT_ONCE * BATCH]
    slow = Slow(gallery, together=AT_ONCE)  # would wait in vain for batches one after the other
    counts = enrol(slow, photos)
    assert slow.most == AT_ONCE
    assert counts["created"] == len({photo.path for photo in photos}) == gallery.worker.size()
    assert counts.total() == len(photos)


def test_a_failure_stops_what_has_not_begun(many, gallery):
    photos = [photo for photo in find_photos(many) if photo.path.stat().st_size][: 3 * BATCH] * 4
    slow = Slow(gallery, failing=photos[0].name)
    with pytest.raises(OSError, match="no space left"):
        enrol(slow, photos)
    assert len(slow.begun) < 12


def test_an_interrupt_finishes_what_is_under_way_and_tells(many, gallery, monkeypatch):
    """The signal comes while the first batch is awaited and all that may begin have begun."""
    photos = [photo for photo in find_photos(many) if photo.path.stat().st_size][: AT_ONCE * BATCH]
    photos += [replace(photo, name="later") for photo in photos]
    slow = Slow(gallery, together=AT_ONCE + 1)
    results = enrolling._results

    def interrupted(batches):
        monkeypatch.setattr(enrolling, "_results", results)
        while len(slow.begun) < AT_ONCE:
            time.sleep(0.01)
        threading.Timer(0.05, slow.meeting.wait).start()
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(enrolling, "_results", interrupted)
    with pytest.raises(KeyboardInterrupt, match=f"^{AT_ONCE * BATCH} enrolled, 0 there before, 0 failed; given again"):
        enrol(slow, photos)
    assert gallery.worker.size() == AT_ONCE * BATCH == len(photos) / 2
    assert not [name for name in slow.begun if name == "later"]


def test_the_log_of_operations_names_the_command(folder, command, tmp_path):
    assert command(folder) == 0
    with sqlite3.connect(tmp_path / "gallery" / "gallery.db") as database:
        actors = database.execute("SELECT DISTINCT actor FROM operations WHERE kind LIKE '%enrol%'").fetchall()
    database.close()
    assert actors == [("reid-enrol",)]


def test_a_dataset_is_enrolled_with_its_names(photos, command, items, capsys):
    dataset = ["--dataset", "csv", "--data-root", photos]
    assert command(*dataset) == 0
    assert capsys.readouterr().out.startswith("6 enrolled")
    found = [(item.medium.source, item.details.label, item.details.camera) for item in items()]
    expected = [
        (f"csv/{row['path']}", row["identity"], row["camera"])
        for row in csv.DictReader(photos.read_text().splitlines())
        if row["split"] == "gallery"
    ]
    assert found == expected
    assert command(*dataset, "--split", "query", "gallery", "train") == 0
    assert capsys.readouterr().out.startswith("26 enrolled, 6 there before")


def test_the_toy_distractors_have_no_label(tmp_path, command, items):
    root = generate(tmp_path / "toy", identities=3, cameras=2, images_per_camera=2, size=32)
    assert command("--dataset", "toy", "--data-root", root) == 0
    names = {item.medium.source: item.details for item in items()}
    files = os.listdir(root / "bounding_box_test")
    assert set(names) == {f"toy/bounding_box_test/{name}" for name in files if not name.startswith("-1")}
    for name, details in names.items():
        identity, camera = re.search(r"/(\d+)_c(\d)", name).groups()
        assert details.label == (None if identity == "0000" else str(int(identity)))
        assert details.camera == str(int(camera) - 1)
        assert details.attributes["sequence"].startswith(camera)


def test_a_dataset_of_boxes_is_enrolled_as_these(photos, command, items):
    header, *rows = photos.read_text().splitlines()
    photos.write_text("\n".join([f"{header},x,y,w,h", *(f"{row},0,1,5,6" for row in rows)]))
    assert command("--dataset", "csv", "--data-root", photos) == 0
    assert {item.region for item in items()} == {Region(0, 1, 5, 6)}


def test_a_table_with_half_the_columns_of_a_box_is_refused(folder, command, capsys):
    (folder / "images.csv").write_text("path,x,y\na.png,1,2\n")
    assert command(folder / "images.csv") == 1
    assert "found x,y of the box columns, expected x,y,w,h or none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--dataset", "csv"],
        ["--data-root", "photos"],
        ["photos", "--data-root", "photos"],
        ["photos", "--dataset", "csv", "--data-root", "photos"],
    ],
)
def test_sources_or_a_dataset(command, arguments, capsys):
    assert command(*arguments) == 2
    assert capsys.readouterr().err == "reid-enrol: error: give either SOURCE or --dataset NAME with --data-root DIR\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("market", "unknown dataset 'market' (did you mean market1501?)"),
        ("csv:v2", "csv: given version=v2, but only these have a version"),
    ],
)
def test_a_dataset_that_is_none(command, name, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command("--dataset", name, "--data-root", "photos")
    assert message in capsys.readouterr().err


def test_a_name_that_is_no_text(tmp_path, picture, command, items):
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    with open(folder + b"/caf\xe9.png", "wb") as file:
        file.write(picture(1))
    assert command(tmp_path / "odd") == 0
    assert [item.medium.source for item in items()] == ["caf\N{REPLACEMENT CHARACTER}.png"]


def test_sources_that_are_none(tmp_path, command, capsys):
    with pytest.raises(FileNotFoundError, match="nowhere: neither a folder nor a file"):
        find_photos(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert command(tmp_path / "empty") == 1
    assert capsys.readouterr().err == f"reid-enrol: error: {tmp_path}/empty: no image in it\n"
    assert not (tmp_path / "gallery").exists()


CASES = Path(__file__).parents[1] / "reid" / "data" / "cases"


@pytest.fixture
def cases(tmp_path):
    """Photos with EXIF data, two of them from a camera at the gate."""
    (tmp_path / "cases" / "gate").mkdir(parents=True)
    for name in ("exif_zone.jpg", "exif_no_zone.jpg"):
        shutil.copy(CASES / name, tmp_path / "cases" / "gate")
    for name in ("exif_nonsense_date.jpg", "exif_broken.jpg"):
        shutil.copy(CASES / name, tmp_path / "cases")
    return tmp_path / "cases"


def test_what_the_camera_said_is_enrolled(cases, command, items, capsys):
    assert command(cases, "--camera-from", "folder") == 0
    told = capsys.readouterr().err
    assert "exif_nonsense_date.jpg: the camera's time '0000:00:00 00:00:00' is none; left empty" in told
    assert "1 photo has the time of a clock without its zone, taken for UTC; --timezone" in told
    found = {item.medium.source: item.details for item in items()}
    east = timezone(timedelta(hours=2))
    said = Details(
        camera="gate",
        captured_at=datetime(2026, 5, 3, 6, 41, 9, tzinfo=east),
        attributes={"device": "TRAILCAM 7"},
        captured_precision="second",
        latitude=-28.0,
        longitude=32.1,
    )
    assert found["gate/exif_zone.jpg"] == said
    assert found["gate/exif_zone.jpg"].captured_at.isoformat() == "2026-05-03T06:41:09+02:00"
    unsaid = found["gate/exif_no_zone.jpg"]
    assert (unsaid.captured_at.isoformat(), unsaid.captured_precision) == (
        "2026-05-03T06:41:09+00:00",
        "second, zone unknown",
    )
    assert found["exif_nonsense_date.jpg"] == found["exif_broken.jpg"] == Details()


def test_a_zone_for_clocks_without_and_cameras_by_device(cases, command, items, capsys):
    assert command(cases, "--timezone", "Africa/Johannesburg", "--camera-from", "device") == 0
    assert "--timezone" not in capsys.readouterr().err
    found = {item.medium.source: item.details for item in items()}
    told = found["gate/exif_no_zone.jpg"]
    assert (told.captured_at.isoformat(), told.captured_precision) == ("2026-05-03T06:41:09+02:00", "second")
    assert {name: details.camera for name, details in found.items()} == {
        "gate/exif_zone.jpg": "TRAILCAM 7",
        "gate/exif_no_zone.jpg": "TRAILCAM 7",
        "exif_nonsense_date.jpg": None,
        "exif_broken.jpg": None,
    }


def test_a_tables_cell_beats_the_camera(cases, command, items):
    rows = "path;captured_at;device;Lat;Lon\ngate/exif_zone.jpg;2025-03-01T09:30:00Z;mine;-1,5;-1\n"
    (cases / "table.csv").write_text(rows)
    assert command(cases / "table.csv") == 0
    (item,) = items()
    assert item.details == Details(
        captured_at=datetime(2025, 3, 1, 9, 30, tzinfo=UTC), latitude=-1.5, longitude=-1, attributes={"device": "mine"}
    )


def test_half_a_place_and_none_in_a_table(cases, command, items, capsys):
    names = ("gate/exif_zone.jpg", "gate/exif_no_zone.jpg", "exif_broken.jpg")
    places = ("1.5,NA", "north,2", ",")
    rows = [f"{name},{place}" for name, place in zip(names, places, strict=True)]
    (cases / "table.csv").write_text("\n".join(["path,latitude,longitude", *rows]))
    assert command(cases / "table.csv") == 1
    (item,) = items()
    assert (item.medium.source, item.details.latitude) == ("exif_broken.jpg", None)
    said = capsys.readouterr().err
    assert "gate/exif_zone.jpg: expected latitude and longitude together, or neither" in said
    assert "gate/exif_no_zone.jpg: latitude 'north': " in said
