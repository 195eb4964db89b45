import io
import os

import pytest
from PIL import Image

from reid.data.folders import LeftOut, Patterns, pictures_below


def jpeg():
    written = io.BytesIO()
    Image.new("RGB", (4, 4)).save(written, "JPEG")
    return written.getvalue()


@pytest.fixture
def tree(tmp_path):
    """A folder as people have it: photos under many names, and what systems and programs leave beside them."""
    files = {
        "a.jpg": jpeg(),
        "b/old.JPE": jpeg(),
        "b/no_suffix": jpeg(),
        "b/photo.backup": jpeg(),
        "b/cut.png": b"",
        "b/notes.txt": b"words",
        "b/more.txt": b"words",
        "b/shot.nef": b"II*\0\x08\0\0\0\x01\0\xfe\0\x04\0\x01\0\0\0\x01\0\0\0" + bytes(40),
        "b/clip.mov": b"\0\0\0\x14ftypqt  ",
        "b/@eaDir/a.jpg/thumb.jpg": jpeg(),
        "__MACOSX/._a.jpg": b"\0\5\x16\7",
        "__MACOSX/a.jpg": jpeg(),
        "#recycle/gone.jpg": jpeg(),
        ".hidden/c.jpg": jpeg(),
        "b/._d.jpg": b"\0\5\x16\7",
        "b/.e.jpg": jpeg(),
        "b/Thumbs.db": b"\xd0\xcf",
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def walked(folder, **patterns):
    left_out = LeftOut()
    wanted = Patterns(**{name: tuple(given) for name, given in patterns.items()})
    return [path.as_posix() for path in pictures_below(folder, left_out, wanted)], left_out


def test_pictures_are_found_by_content_and_all_else_is_counted(tree):
    found, left_out = walked(tree)
    assert found == ["a.jpg", "b/cut.png", "b/no_suffix", "b/old.JPE", "b/photo.backup"]
    files = sum(len(names) for _, _, names in os.walk(tree))
    assert str(left_out) == (
        f"{files - 5} files left out: 2 .txt, 2 in __MACOSX, 1 ._* (what a Mac notes about files), "
        "1 .mov (a video (MP4 or MOV): take pictures out of it, as ffmpeg does), "
        "1 .nef (a camera RAW file (TIFF/EP): export it as JPEG or HEIC), 1 Thumbs.db, 1 hidden, 1 in #recycle, "
        "1 in @eaDir, 1 in hidden folders"
    )


def test_nothing_left_out_is_nothing_to_tell(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    found, left_out = walked(tmp_path)
    assert found == ["a.jpg"] and not left_out


def test_links_to_folders_are_followed_once(tmp_path):
    inside, outside = tmp_path / "photos", tmp_path / "elsewhere"
    for folder, name in ((inside / "z", "1.jpg"), (outside, "2.jpg"), (outside / "below", "3.jpg")):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(jpeg())
    (inside / "again").symlink_to("z")
    (inside / "far").symlink_to(outside)
    (inside / "far_too").symlink_to(outside)
    (inside / "z" / "loop").symlink_to(inside)
    (outside / "back").symlink_to(inside)
    (inside / "gone.jpg").symlink_to("nowhere")
    (inside / "one.jpg").symlink_to("z/1.jpg")
    found, left_out = walked(inside)
    assert found == ["one.jpg", "z/1.jpg", "far/2.jpg", "far/below/3.jpg"]
    assert str(left_out) == "5 files left out: 4 links to folders that are read already, 1 broken link"


def test_a_link_to_the_middle_of_what_lies_behind_another_is_told(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "outside" / "below").mkdir(parents=True)
    (tmp_path / "outside" / "below" / "1.jpg").write_bytes(jpeg())
    (tmp_path / "photos" / "a").symlink_to(tmp_path / "outside" / "below")
    (tmp_path / "photos" / "b").symlink_to(tmp_path / "outside")
    found, left_out = walked(tmp_path / "photos")
    assert found == ["a/1.jpg"]
    assert str(left_out) == "1 file left out: 1 in a folder that is read already"


@pytest.mark.parametrize(
    ("patterns", "expected", "told"),
    [
        ({"include": ["*.JPG"]}, ["a.jpg"], "8 by --include"),
        ({"include": ["b"], "exclude": ["*.png"]}, ["b/no_suffix", "b/old.JPE", "b/photo.backup"], "1 by --exclude"),
        ({"include": ["b/no*"]}, ["b/no_suffix"], "7 by --include"),
        ({"exclude": ["b"]}, ["a.jpg"], "8 by --exclude"),
    ],
)
def test_patterns_choose(tree, patterns, expected, told):
    found, left_out = walked(tree, **patterns)
    assert found == expected
    assert told in str(left_out)


def test_a_link_that_leads_to_itself_is_a_broken_one(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "there").symlink_to("back")
    (tmp_path / "back").symlink_to("there")
    found, left_out = walked(tmp_path)
    assert found == ["a.jpg"]
    assert str(left_out) == "3 files left out: 3 broken links"


def test_what_is_no_file_is_told_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert str(walked(tmp_path)[1]) == "1 file left out: 1 that is no regular file"


def test_kinds_without_end_are_summed():
    left_out = LeftOut()
    for number in range(20):
        left_out.add(f".{number:02}", 20 - number)
    assert str(left_out).startswith("210 files left out: 20 .00, 19 .01, ")
    assert str(left_out).endswith(", 9 .11, 36 of 8 other kinds")
