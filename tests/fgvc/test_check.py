import json
from pathlib import Path

from PIL import Image

from fgvc.check import check
from fgvc.datacheck import main


def paint(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (20 * number, 0, 0)).save(root / name)
    return root


def test_a_report_of_a_folder(tmp_path, capsys):
    """Counts by class, the copy that hides in training, and what is broken; all of it by the command, too."""
    root = paint(tmp_path, "train/auk/a.png", "train/auk/b.png", "train/gull/c.png", "test/auk/d.png")
    assert main(["check", "--dataset", "folder", "--data-root", str(root), "--hash"]) == 0
    (root / "test/auk/copy.png").write_bytes((root / "train/gull/c.png").read_bytes())
    (root / "test/auk/cut.png").write_bytes((root / "train/auk/a.png").read_bytes()[:40])
    report = check("folder", root, hash_contents=True)
    train, test = report.splits.values()
    assert (train.images, train.classes, train.fewest, train.most) == (3, 2, 1, 2)
    assert (test.images, test.classes, test.fewest, test.most) == (3, 1, 0, 3)
    assert report.content_overlap == ((str(root / "train/gull/c.png"), str(root / "test/auk/copy.png")),)
    assert len(report.unreadable) == 1 and "cut.png: " in report.unreadable[0]
    capsys.readouterr()
    assert main(["check", "--dataset", "folder", "--data-root", str(root), "--hash", "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(report.as_json()))
    without = ["--exclude", "copy.png", "--exclude", "cut.png"]
    assert main(["check", "--dataset", "folder", "--data-root", str(root), "--hash", *without]) == 0
    said = capsys.readouterr().out
    assert "1 class ('gull') without a test image" in said
    assert "2 files left out: 2 by --exclude" in said


def test_official_counts_stand_beside_what_is_there(tmp_path):
    """Three lists of CUB of two images."""
    paint(tmp_path / "images", "a.jpg", "b.jpg")
    for name, text in (
        ("images.txt", "1 a.jpg\n2 b.jpg\n"),
        ("image_class_labels.txt", "1 1\n2 1\n"),
        ("train_test_split.txt", "1 1\n2 0\n"),
        ("classes.txt", "1 auk\n"),
    ):
        (tmp_path / name).write_text(text)
    report = check("cub", tmp_path)
    assert (report.splits["test"].images, report.splits["test"].official_images) == (1, 5_794)
    assert report.splits["train"].official_classes == 200
    assert report.usable and report.content_overlap is None
