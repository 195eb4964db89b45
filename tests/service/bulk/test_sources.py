"""Where photos come from."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from reid.data.samples import is_image
from reid.data.tables import AS_IT_IS, Reading
from reid.data.times import read_zone
from service.bulk.choosing import tell_left_out
from service.bulk.sources import dataset_photos, find_photos, source_of


def below(folder):
    """The image files below a folder in the order of the parts of their paths, found the plain way."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if is_image(path.name) and path.is_file())
    return [path for path in paths if not any(part.startswith(".") for part in path.parts)]


def test_a_folder_in_the_order_of_its_parts(tmp_path):
    """A name that sorts between a folder's name and what is in the folder must not split the folder."""
    for name in ("a/1.png", "a/b/2.JPG", "a.png", "a-b/3.png", "A/4.webp", ".hidden/5.png", "a/.6.png", "a/7.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "8.png").write_bytes(b"")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "again").symlink_to("a")
    (tmp_path / "link.png").symlink_to("a.png")
    found = find_photos(tmp_path)
    assert [photo.path for photo in found] == [tmp_path / path for path in below(tmp_path)]
    assert [photo.name for photo in found] == [str(path) for path in below(tmp_path)]
    assert len(found) == 7


def test_what_is_no_photo_is_counted_and_told_last(tmp_path, caplog):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"words")
    source = source_of(tmp_path, AS_IT_IS)
    assert [photo.name for photo in source.photos()] == ["a.png"]
    tell_left_out([source])
    assert caplog.messages == [f"{tmp_path}: 1 file left out: 1 .txt"]


def test_one_image_is_a_source_whatever_its_name(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "photo", "JPEG")
    (photo,) = find_photos(tmp_path / "photo")
    assert (photo.path, photo.name, photo.cells) == (tmp_path / "photo", "photo", {})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("photos.zip", b"PK\3\4" + bytes(40), "photos.zip: the file is a ZIP archive: unpack it and give the folder"),
        ("table.xlsx", b"PK\3\4" + bytes(26) + b"[Content_Types].xml", "an office document, .*: save its table as CSV"),
        ("shot.cr2", b"II*\0\x10\0\0\0CR\2\0", r"a camera RAW file \(CR2\): export it as JPEG or HEIC"),
        ("broken.jpg", b"words", "broken.jpg: the file is no JPEG, PNG"),
    ],
)
def test_a_file_that_is_neither_an_image_nor_a_table_is_told_in_its_own_words(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        find_photos(tmp_path / name)


def test_a_folder_that_may_not_be_read_is_told_and_left_out(tmp_path, monkeypatch, caplog):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    scan = os.scandir

    def refuse(path):
        if path == tmp_path / "a":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [photo.name for photo in find_photos(tmp_path)] == ["b/2.png"]
    assert caplog.messages == [f"warning: {tmp_path}/a: Permission denied; left out"]


def test_unknown_cameras_of_a_dataset_are_none(photos):
    rows = photos.read_text().replace(",c1\n", ",-1\n")
    photos.write_text(rows)
    enrolled = [photo.upload().details for photo in dataset_photos("csv", photos, ["gallery"])]
    assert {details.camera for details in enrolled} == {None, "c2", "c3"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("place,label\na.png,x\n", "row 1: no column 'path' .*; found place,label; --columns path=HEADING names it"),
        ("path,path\na.png,b.png\n", "column 'path' appears twice"),
        ("path,label\na.png\n", "row 2: 1 cells, expected 2 as in the first row"),
        ("path,label\na.png,b,c\n", "row 2: 3 cells, expected 2"),
        ("path,label\n ,b\n", "row 2, column 'path': empty"),
        ("path,label\n", "no image in it"),
        ('path,label\na.png,"b\n', "not readable as CSV"),
        ("", "found nothing"),
    ],
)
def test_a_table_that_is_none(tmp_path, table, message):
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        find_photos(tmp_path / "table.csv")


TIMES = Path(__file__).parents[2] / "reid" / "data" / "tables" / "times.csv"


def test_times_as_people_write_them(tmp_path, caplog):
    table = Path(shutil.copy(TIMES, tmp_path))
    with pytest.raises(
        ValueError, match="column 'captured_at': '05/03/2026 6:41 AM' may have .* say --dates day-first or"
    ):
        find_photos(table, Reading(zone=read_zone("Africa/Johannesburg")))
    with pytest.raises(
        ValueError, match="20 of 24 times do not say their time zone, such as '2026-05-03'; .*--timezone"
    ):
        find_photos(table, Reading(dates="month-first"))
    caplog.set_level("INFO", "reid")
    photos = find_photos(table, Reading(zone=read_zone("Africa/Johannesburg"), dates="month-first"))
    assert [photo.cells["captured_at"] for photo in photos[:6]] == [
        "2026-05-03T00:00:00+02:00",
        "2026-05-03T06:41:00+02:00",
        "2026-05-03T06:41:09+02:00",
        "2026-05-03T06:41:00+02:00",
        "2026-05-03T06:41:00+02:00",
        "2026-05-03T06:41:09+02:00",
    ]
    assert photos[5].details().captured_at == datetime(2026, 5, 3, 4, 41, 9, tzinfo=UTC)
    assert caplog.messages == [
        "times.csv: UTF-8 text with commas between cells; month-first dates, "
        "times without a zone in Africa/Johannesburg"
    ]


def test_a_date_and_its_time_of_day_in_two_columns(tmp_path, caplog):
    rows = ("a.jpg;3-May-26;6:41;Tom", "b.jpg;46145,5;;Tom", "c.jpg;3-May-26;night;Tom")
    (tmp_path / "table.csv").write_text("\n".join(("File;Date;Time;Label", *rows)))
    caplog.set_level("INFO", "reid")
    photos = find_photos(tmp_path / "table.csv", Reading(zone=UTC))
    assert [photo.cells["captured_at"][:16] for photo in photos] == [
        *("2026-05-03T06:41", "2026-05-03T12:00", "2026-05-03T00:00")
    ]
    assert [photo.details().attributes for photo in photos] == [{}, {}, {"time": "night"}]
    assert "Date as captured_at" in caplog.text and "with the time of day in Time" in caplog.text


def test_the_same_table_for_training_and_for_a_gallery(tmp_path):
    """What the one takes for an identity, a camera or nobody, the other does too."""
    names = ("one.png", "two.png", "three.png")
    for name in names:
        (tmp_path / name).touch()
    rows = ("one.png;gallery;Tom;1,0;3", "two.png;gallery;unknown;;1.0", "three.png;gallery;Tom;;")
    (tmp_path / "table.csv").write_text("\n".join(("File Name;Split;Name;Note;Cam", *rows)) + "\n", encoding="utf-16")
    direct = find_photos(tmp_path / "table.csv")
    through = dataset_photos("csv", tmp_path / "table.csv", ["gallery"])
    said = [[(p.path.name, p.details().label, p.details().camera) for p in photos] for photos in (direct, through)]
    assert said[0] == said[1] == [("one.png", "Tom", "3"), ("two.png", None, "1"), ("three.png", "Tom", None)]
    assert [photo.details().attributes.get("Note") for photo in direct] == ["1,0", None, None]
