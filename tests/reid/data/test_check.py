import json
import os
import random
from pathlib import Path

import pytest
from PIL import Image

from reid.data.check import check, count_unmatched
from reid.data.samples import Sample
from reid.datacheck import main


def paint(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (colour, 0, 0)).save(path)


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """Six different images in Market-1501 layout; identity 2 in training and identity 5 in the test set."""
    names = {
        "bounding_box_train": ("0002_c1s1_000001_00.jpg", "0002_c2s1_000002_00.jpg"),
        "query": ("0005_c1s1_000003_00.jpg",),
        "bounding_box_test": ("0000_c1s1_000004_00.jpg", "0005_c1s1_000005_00.jpg", "0005_c2s1_000006_00.jpg"),
    }
    for number, path in enumerate(tmp_path / folder / name for folder, files in names.items() for name in files):
        paint(path, 40 * number)
    return tmp_path


def write_csv(root: Path, *rows: str) -> Path:
    """A CSV of `path,split,identity,camera` whose images all differ."""
    for number, path in enumerate(sorted({row.split(",")[0] for row in rows})):
        paint(root / path, 40 * number)
    (root / "images.csv").write_text("\n".join(["path,split,identity,camera", *rows]))
    return root


def test_report_of_a_sound_copy(market: Path) -> None:
    report = check("market1501", market, hash_contents=True)
    train, query, gallery = report.splits.values()
    assert (train.images, train.identities, train.cameras, train.single_image_identities) == (2, 1, 2, 0)
    assert (query.images, query.identities, query.cameras, query.single_image_identities) == (1, 1, 1, 1)
    assert (gallery.images, gallery.identities, gallery.cameras, gallery.single_image_identities) == (3, 2, 2, 1)
    assert (gallery.official_images, gallery.official_identities) == (15_913, 751)
    assert (report.cameras, report.official_cameras) == (2, 6)
    assert not (report.shared_identities or report.path_overlap or report.unreadable)
    assert report.content_overlap == ()
    assert (report.queries_without_match, report.queries_in_gallery) == (0, 0)
    assert len(report.warnings) == 3
    assert report.usable


def test_equal_contents_in_training_and_test_are_found_by_hash(market: Path) -> None:
    train = market / "bounding_box_train" / "0002_c1s1_000001_00.jpg"
    test = market / "query" / "0005_c3s1_000009_00.jpg"
    os.link(train, test)
    assert check("market1501", market).usable
    report = check("market1501", market, hash_contents=True)
    assert report.content_overlap == ((str(train), str(test)),)
    assert report.path_overlap == ()
    assert not report.usable


def test_one_file_in_training_and_test_is_found_by_path(tmp_path: Path) -> None:
    root = write_csv(tmp_path, "a.jpg,train,1,1", "b.jpg,train,1,2", "a.jpg,query,2,1", "c.jpg,gallery,2,2")
    for hashed in (False, True):
        report = check("csv", root, hash_contents=hashed)
        assert report.path_overlap == (str(root / "a.jpg"),)
        assert report.content_overlap == (() if hashed else None)
        assert not report.usable


def test_one_box_of_a_photo_and_its_copy_are_one_image(tmp_path: Path) -> None:
    paint(tmp_path / "a.jpg", 0)
    paint(tmp_path / "copy.jpg", 0)
    (tmp_path / "images.csv").write_text("path,split,identity,x,y,w,h\na.jpg,train,1,0,0,2,2\ncopy.jpg,query,2,0,0,2,2")
    report = check("csv", tmp_path, hash_contents=True)
    assert report.content_overlap == ((str(tmp_path / "a.jpg"), str(tmp_path / "copy.jpg")),)


def test_two_boxes_of_one_photo_are_two_images(tmp_path: Path) -> None:
    paint(tmp_path / "a.jpg", 0)
    paint(tmp_path / "copy.jpg", 0)
    rows = ("a.jpg,train,1,0,0,2,2", "a.jpg,query,2,2,2,2,2", "copy.jpg,gallery,2,0,2,2,2")
    (tmp_path / "images.csv").write_text("\n".join(["path,split,identity,x,y,w,h", *rows]))
    report = check("csv", tmp_path, hash_contents=True)
    assert (report.path_overlap, report.content_overlap, report.queries_in_gallery) == ((), (), 0)


def test_shared_identities_are_told_by_name_and_are_no_failure(tmp_path: Path) -> None:
    root = write_csv(
        tmp_path,
        "a.jpg,train,rex,1",
        "b.jpg,train,tom,1",
        "c.jpg,query,tom,1",
        "d.jpg,gallery,tom,2",
        "e.jpg,gallery,ida,2",
    )
    report = check("csv", root)
    assert report.shared_identities == ("tom",)
    assert report.usable


def test_no_query_is_its_own_match(tmp_path: Path) -> None:
    root = write_csv(
        tmp_path, "a.jpg,query,1,1", "a.jpg,gallery,1,1", "b.jpg,query,2,", "b.jpg,gallery,2,", "c.jpg,query,2,3"
    )
    report = check("csv", root)
    assert (report.queries_in_gallery, report.queries_without_match) == (2, 2)  # c finds b
    assert report.usable


def test_that_no_query_can_be_scored_is_told(tmp_path: Path) -> None:
    rows = "a.jpg,query,1,1", "b.jpg,gallery,1,1", "c.jpg,query,2,1"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    told = check("csv", write_csv(tmp_path / "one", *rows)).as_text()
    assert "queries without a match from another camera:  2, all that there are: none can be scored" in told
    assert "none can be scored" not in check("csv", write_csv(tmp_path / "two", *rows, "d.jpg,gallery,2,2")).as_text()


def test_a_copy_of_a_query_is_its_own_picture_too(tmp_path: Path) -> None:
    root = write_csv(
        tmp_path, "a.jpg,train,1,", "b.jpg,query,2,", "c.jpg,gallery,2,", "d.jpg,query,3,", "e.jpg,gallery,3,"
    )
    (root / "c.jpg").write_bytes((root / "b.jpg").read_bytes())
    report = check("csv", root)
    assert (report.queries_in_gallery, report.queries_without_match) == (1, 1)


def test_empty_and_broken_images_are_named(market: Path) -> None:
    empty = market / "query" / "0005_c1s1_000003_00.jpg"
    cut = market / "bounding_box_train" / "0002_c2s1_000002_00.jpg"
    text = market / "bounding_box_test" / "0005_c2s1_000006_00.jpg"
    lost = market / "bounding_box_test" / "0005_c3s1_000007_00.jpg"
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:-40])
    text.write_text("not an image")
    lost.symlink_to(market / "nowhere.jpg")
    report = check("market1501", market)
    assert [problem.split(":")[0] for problem in report.unreadable] == [str(lost), str(empty)]
    assert not report.usable
    report = check("market1501", market, hash_contents=True)
    assert [problem.split(":")[0] for problem in report.unreadable] == [str(text), str(lost), str(cut), str(empty)]
    assert not report.usable


def test_count_unmatched_equals_a_loop() -> None:
    random.seed(1)

    def draw(count: int) -> list[Sample]:
        return [Sample(Path(f"{n}.jpg"), n % 30, random.randrange(-1, 2)) for n in random.sample(range(300), count)]

    query, gallery = draw(200), draw(60)
    expected = 0
    for q in query:
        others = [g for g in gallery if g.path != q.path or g.camera != q.camera]
        valid = [g for g in others if g.identity == q.identity and (g.camera != q.camera or q.camera == -1)]
        expected += not valid
    assert 0 < expected < len(query)
    assert count_unmatched(query, gallery) == expected


def test_command_prints_the_table_and_writes_json(
    market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    assert main(["check", "--dataset", "market1501", "--data-root", str(market), "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"market1501 in {market}\n")
    assert ["gallery", "3", "15,913", "2", "751", "1", "2"] in [line.split() for line in text.splitlines()]
    assert "cameras:                                      2 (official 6)" in text
    assert "images in both training and test, by content: not compared (--hash)" in text
    assert "warning: market1501 train: found 2 images of 1 identity, official 12,936 of 751" in text
    written = json.loads(file.read_text())
    assert written["splits"]["gallery"]["official_images"] == 15_913
    assert written["content_overlap"] is None
    assert written["usable"] is True


def test_command_fails_on_overlap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{n}.jpg,{split},{n},1" for n in range(5) for split in ("train", "query")]
    root = write_csv(tmp_path, *rows)
    assert main(["check", "--dataset", "csv", "--data-root", str(root), "--hash"]) == 1
    text = capsys.readouterr().out
    assert f"by path:    5: {root / '0.jpg'}, {root / '1.jpg'}, {root / '2.jpg'}, ...\n" in text
    assert "images that cannot be read:                   0\n" in text


def test_command_fails_in_one_line_without_the_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mask_train_v2").mkdir()
    (tmp_path / "mask_test_v2").mkdir()
    for name in ("train", "val", "query", "gallery"):
        (tmp_path / f"list_{name}.txt").touch()
    assert main(["check", "--dataset", "msmt17", "--data-root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "found version v2" in error


def test_command_hands_on_the_choices_of_msmt17(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "mask_train_v2" / "0000" / "0000_000_01_0303morning_0015_0.jpg", 0)
    (tmp_path / "mask_test_v2").mkdir()
    (tmp_path / "list_train.txt").write_text("0000/0000_000_01_0303morning_0015_0.jpg 0\n")
    for name in ("query", "gallery"):
        (tmp_path / f"list_{name}.txt").touch()
    for said in (["msmt17", "version=v2"], ["msmt17:v2"], ["msmt17:v2", "data.version=v2"]):
        arguments = ["check", "--data-root", str(tmp_path), "--dataset", *said, "data.train_split=train"]
        assert main(arguments) == 0
        assert f"msmt17 in {tmp_path} (version v2, train_split train)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["market1502"], "unknown dataset 'market1502' (did you mean market1501?); expected one of market1501"),
        (["msmt17:v3"], "msmt17: unknown version 'v3'; expected v1 or v2"),
        (["toy:v2"], "toy: given version=v2, but only these have a version"),
        (["msmt17:v2", "version=v1"], "--dataset msmt17:v2 and version=v1 are two versions; expected one of them"),
    ],
)
def test_datasets_and_versions_that_there_are_not_end_with_2(
    said: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--data-root", ".", "--dataset", *said]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "msmt17", "colour=red"], "found 'colour=red', expected version=... or train_split=..."),
        (["--dataset", "msmt17", "version"], "found 'version', expected version=... or train_split=..."),
        (["--data-root", "."], "required: --dataset"),
    ],
)
def test_wrong_arguments_end_with_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "--data-root", ".", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dataset", "choice", "message"),
    [
        ("msmt17", "version=v3", "msmt17: unknown version 'v3'; expected v1 or v2"),
        ("market1501", "version=v1", "market1501: given version=v1, but only these have a version: cuhk03"),
    ],
)
def test_choice_that_the_dataset_does_not_have_ends_with_2(
    dataset: str, choice: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--dataset", dataset, "--data-root", ".", choice]) == 2
    assert message in capsys.readouterr().err


def test_version_chooses_the_official_counts(tmp_path: Path) -> None:
    for version, official in (("detected", 7_365), ("labeled", 7_368)):
        paint(tmp_path / version / "bounding_box_train" / "0001_c1_1.png", 0)
        for folder in ("query", "bounding_box_test"):
            (tmp_path / version / folder).mkdir()
        report = check("cuhk03", tmp_path, version=version)
        assert report.splits["train"].official_images == official
        assert report.official_cameras == 2
        assert f"cuhk03 in {tmp_path / version} (version {version})" in report.as_text()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    for arguments in (["--debug", "check"], ["check", "--debug"]):
        with pytest.raises(FileNotFoundError):
            main([*arguments, "--dataset", "csv", "--data-root", str(tmp_path)])
