import os

import pytest
from PIL import Image

from service.enrol import BATCH, find_photos, main
from service.gallery import open_gallery
from service.records import Filter


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
    """A function that runs the command into one gallery, and one that lists it."""

    def run(*sources):
        options = ["--checkpoint", str(checkpoint), "--gallery", str(tmp_path / "gallery"), "--device", "cpu"]
        return main([*options, *map(str, sources)])

    return run


@pytest.fixture
def items(checkpoint, tmp_path):
    """A function that lists what the gallery holds."""

    def read():
        with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
            return gallery.page(Filter(), 0, 1000)

    return read


def test_a_folder_is_enrolled_once(folder, command, items, tmp_path, capsys):
    assert command(folder) == 0
    assert capsys.readouterr().out == f"4 enrolled, 0 there before, 0 failed; {tmp_path}/gallery holds 4 items\n"
    before = items()
    assert [item.medium.source for item in before] == ["a.png", "b.png", "below/d.png", "c.PNG"]
    assert command(folder) == 0
    assert capsys.readouterr().out == f"0 enrolled, 4 there before, 0 failed; {tmp_path}/gallery holds 4 items\n"
    assert items() == before


def test_a_table_says_what_its_photos_show(folder, command, items):
    (folder / "images.csv").write_text(
        "path,key,identity,camera,captured_at,split\n"
        "a.png,k1,ada,north,2024-05-01T12:00:00+02:00,query\n"
        "below/d.png,,,-1,,\n"
    )
    assert command(folder / "images.csv") == 0
    first, second = (item.details for item in items())
    assert (first.key, first.label, first.camera) == ("k1", "ada", "north")
    assert first.captured_at.isoformat() == "2024-05-01T10:00:00+00:00"
    assert first.attributes == {"split": "query"}
    assert (second.key, second.label, second.camera, second.captured_at, second.attributes) == (*[None] * 4, {})


def test_what_cannot_be_used_is_named_and_skipped(folder, command, items, picture, capsys):
    (folder / "cut.png").write_bytes(picture(7)[:-300])
    (folder / "images.csv").write_text(
        "path,label,captured_at,key,x,y,w,h\n"
        "cut.png,,,,,,,\n"
        "missing.png,,,,,,,\n"
        "a.png,,2024-05-01T12:00:00,,,,,\n"
        "a.png,,,,1,2,3,4\n"
        "b.png,,,k,,,,\n"
        "c.PNG,,,k,,,,\n"
    )
    assert command(folder / "images.csv") == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("1 enrolled, 0 there before, 5 failed;")
    for line in (
        "cut.png: the image is damaged or cut short",
        "missing.png: No such file or directory",
        "a.png: captured_at: Input should have timezone info",
        "a.png: the row has a box",
        "c.PNG: key 'k' belongs to item",
    ):
        assert line in shown.err
    assert [item.medium.source for item in items()] == ["b.png"]


def test_more_photos_than_one_batch(tmp_path, picture, command, items):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(2 * BATCH + 1):
        (folder / f"{i:03}.png").write_bytes(picture(i))
    assert command(folder) == 0
    assert [item.medium.source for item in items()] == [f"{i:03}.png" for i in range(2 * BATCH + 1)]


def test_a_name_that_is_no_text(tmp_path, picture, command, items):
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    with open(folder + b"/caf\xe9.png", "wb") as file:
        file.write(picture(1))
    assert command(tmp_path / "odd") == 0
    assert [item.medium.source for item in items()] == ["caf\N{REPLACEMENT CHARACTER}.png"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label\na.png,x\n", "expected the names of columns, each once, with path among them"),
        ("path,path\na.png,b.png\n", "each once"),
        ("path,label\na.png\n", "row 2: expected 2 cells"),
        ("path,label\na.png,b,c\n", "row 2: expected 2 cells"),
        ("path,label\n ,b\n", "row 2, column 'path': empty"),
        ("path,label\n", "no image in it"),
        ('path,label\na.png,"b\n', "not readable as CSV"),
        ("", "the first row is ''"),
    ],
)
def test_a_table_that_is_none(tmp_path, table, message):
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        find_photos(tmp_path / "table.csv")


def test_sources_that_are_none(tmp_path, command, capsys):
    with pytest.raises(FileNotFoundError, match="nowhere: neither a folder nor a file"):
        find_photos(tmp_path / "nowhere")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    with pytest.raises(ValueError, match="expected a CSV file or a folder"):
        find_photos(tmp_path / "photo.png")
    (tmp_path / "empty").mkdir()
    assert command(tmp_path / "empty") == 1
    assert capsys.readouterr().err == f"reid-enrol: error: {tmp_path}/empty: no image in it\n"
    assert not (tmp_path / "gallery").exists()
