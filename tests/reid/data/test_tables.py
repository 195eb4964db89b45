import unicodedata
from pathlib import Path

import pytest

from reid.cli import UsageError
from reid.data.tables import known_name, open_table, parse_columns


def rows(folder: Path, text: str | bytes, **columns: str) -> list[dict[str, str]]:
    (folder / "table.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return [cells for _, cells in open_table(folder / "table.csv", columns).rows()]


PLAIN = "path,label\nzoë.jpg,Zoë\n"


@pytest.mark.parametrize(
    "stored",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("cp1252"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        ("sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n")).encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace("\n", ",\n").encode(),
        PLAIN.replace("Zoë\n", "Zoë,,\n").encode(),
        (PLAIN + ",\n,\n").encode(),
        b"," + PLAIN.replace("\n", "\n0,", 1).encode(),  # as pandas writes its index
    ],
)
def test_one_table_in_many_forms(tmp_path: Path, stored: bytes) -> None:
    assert rows(tmp_path, stored) == [{"path": "zoë.jpg", "identity": "Zoë"}]


def test_a_letter_that_is_no_utf8_far_down(tmp_path: Path) -> None:
    text = "path,label\n" + "a.jpg,x\n" * 20_000 + "b.jpg,J\N{LATIN SMALL LETTER U WITH DIAERESIS}rgen\n"
    assert rows(tmp_path, text.encode("cp1252"))[-1]["identity"] == "Jürgen"


@pytest.mark.parametrize(
    ("headings", "expected"),
    [
        ("path,split,identity,camera", "path,split,identity,camera"),
        ("PATH,Split,IDENTITY,Camera", "path,split,identity,camera"),
        ("Image Path,subset,Individual ID,cam-id", "path,split,identity,camera"),
        ("name,filename,label,date", "name,path,identity,captured_at"),  # `label` comes before `name`
        ("identity,label,path", "identity,label,path"),
        ("path,Date,Time", "path,captured_at,time"),
        ("path,Date,Time,DateTimeOriginal", "path,Date,time,captured_at"),  # as camtrapR writes it
        ("path,Time", "path,Time"),
        ("path,X,Y,Width,Height", "path,x,y,w,h"),
        ("path,width,height,left", "path,width,height,left"),  # of the picture, and a side of an animal
        ("path,bbox_x,bbox_y,bbox_w,bbox_h", "path,x,y,w,h"),
        ("path,Viewpoint", "path,Viewpoint"),
    ],
)
def test_headings(tmp_path: Path, headings: str, expected: str) -> None:
    (tmp_path / "table.csv").write_text(headings + "\n")
    assert ",".join(open_table(tmp_path / "table.csv").columns) == expected


def test_columns_said_by_the_user(tmp_path: Path) -> None:
    """A heading of ours that is not the one they say is not taken for it."""
    text = "bild,tier,path,date\na.jpg,Tom,b.jpg,soon\n"
    said = parse_columns("path=bild, identity=tier,captured_at=")
    assert rows(tmp_path, text, **said) == [{"path": "a.jpg", "identity": "Tom", "date": "soon"}]
    with pytest.raises(ValueError, match=r"table.csv has no column 'animal'; found bild, tier, path, date"):
        rows(tmp_path, text, identity="animal")
    with pytest.raises(
        UsageError, match="columns 'pfad=bild': found 'pfad', expected NAME=HEADING with a NAME of path,"
    ):
        parse_columns("pfad=bild")


def test_paths_from_other_systems(tmp_path: Path) -> None:
    for name in ("zoë.jpg", "back\\slash.jpg"):
        (tmp_path / unicodedata.normalize("NFC", name)).touch()
    decomposed = unicodedata.normalize("NFD", "anaïs.jpg")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / decomposed).touch()
    for name in ("Two.jpg", "TWO.JPG"):
        (tmp_path / name).touch()
    written = [unicodedata.normalize("NFD", "zoë.jpg"), "sub\\anaïs.jpg", "back\\slash.jpg", "not\\there.jpg"]
    written += ["SUB\\Anaïs.JPG", "../" + tmp_path.name.upper() + "/Zoë.JPG", "two.jpg", "TWO.JPG"]
    found = rows(tmp_path, "path\n" + "\n".join(written) + "\n")
    assert [row["path"] for row in found] == [
        *("zoë.jpg", f"sub/{decomposed}", "back\\slash.jpg", "not/there.jpg"),
        *(f"sub/{decomposed}", f"../{tmp_path.name}/zoë.jpg", "two.jpg", "TWO.JPG"),  # of two alike none is guessed
    ]


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (b"a.jpg,train,tom\n", "table.csv row 1: found a photo, a.jpg,train,tom, expected the names of the columns"),
        (b"PK\3\4" + bytes(26) + b"docProps/app.xml" + bytes(99), "an office document, such as a workbook of Excel"),
        (b"PK\3\4" + bytes(26) + b"photos/a.jpg" + bytes(99), "a ZIP archive: unpack it"),
    ],
)
def test_what_is_no_table(tmp_path: Path, stored: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        rows(tmp_path, stored)


@pytest.mark.parametrize("cell", ["", "unknown", "UNKNOWN", "Unidentified", "nan", "NaN", "None", "-1", "-1.0", "?"])
def test_cells_that_name_nobody(cell: str) -> None:
    assert known_name(cell) is None


@pytest.mark.parametrize(
    ("cell", "name"), [("1", "1"), ("1.0", "1"), ("12.00", "12"), ("1.5", "1.5"), ("Nan", "Nan"), ("v1.0", "v1.0")]
)
def test_names_as_they_are_but_for_a_decimal_point(cell: str, name: str) -> None:
    assert known_name(cell) == name
