"""Where photos come from."""

import os

import pytest

from reid.data.samples import is_image
from service.bulk.sources import dataset_photos, find_photos


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
        ("file,label\na.png,x\n", "expected the names of columns between commas, each once, with path among them"),
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
