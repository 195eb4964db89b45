import json
from pathlib import Path

import pytest

from fgvc.predict import main
from fgvc.prediction import predict
from fgvc.train import train
from reid.config import FgvcConfig, load_config


@pytest.fixture
def run(kinds, tiny, tmp_path):
    """A model that tells the colours apart."""
    config = load_config("folder", None, {**tiny, "data.root": str(kinds), "train.epochs": 15}, FgvcConfig)
    train(config, tmp_path / "run", device="cpu")
    return tmp_path / "run"


def test_images_and_folders_get_their_best_classes(run, kinds, capsys, caplog):
    image = kinds / "test" / "kind-1" / "0.png"
    (kinds / "test" / "notes.txt").write_text("no image")
    answers = predict(run, [image, kinds / "test"], top=2, device="cpu")
    assert [answer.image for answer in answers] == [image, *sorted((kinds / "test").rglob("*.png"))]
    for answer in answers:
        assert answer.classes[0][0] == answer.image.parent.name
        probabilities = [probability for _, probability in answer.classes]
        assert len(probabilities) == 2
        assert probabilities == sorted(probabilities, reverse=True)
    assert caplog.messages[-1] == "1 file left out: 1 .txt"
    assert main(["--checkpoint", str(run), str(image), "--top", "9", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{image}: kind-1 ")
    assert printed.count("%") == 3
    assert sum(probability for _, probability in predict(run, [image], top=9)[0].classes) == pytest.approx(1)


def test_an_unreadable_image_is_told_after_the_others_are_answered(run, kinds, tmp_path, capsys):
    good, bad, absent = kinds / "test" / "kind-0" / "0.png", tmp_path / "bad.jpg", tmp_path / "absent.jpg"
    bad.write_bytes(b"")
    arguments = ["--checkpoint", str(run), str(bad), str(good), str(absent), "--device", "cpu"]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{good}: kind-0 ")
    assert captured.err.splitlines() == [
        f"fgvc-predict: error: {bad}: the file is empty",
        f"fgvc-predict: error: {absent}: no such image",
    ]
    broken = Path(__file__).parents[1] / "reid" / "data" / "cases" / "exif_broken.jpg"
    first, second = predict(run, [broken, good], device="cpu")  # whose EXIF data are damaged
    assert first.classes and second.classes[0][0] == "kind-0"
    assert main([*arguments, "--json", "-"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [sorted(answer) for answer in found] == [["error", "image"], ["classes", "image"], ["error", "image"]]
    assert found[1]["classes"][0]["class"] == "kind-0"


def test_bad_arguments_cost_one_line(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments, code, message in (
        (["--top", "0", "x.jpg"], 2, "--top 0: expected 1 or more"),
        ([str(tmp_path / "empty")], 1, "empty: no image in or below it"),
        (["x.jpg", "--json", str(tmp_path / "absent" / "x.json")], 1, "there is no folder"),
    ):
        assert main(["--checkpoint", str(run), "--device", "cpu", *arguments]) == code
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1
        assert message in error[0]
