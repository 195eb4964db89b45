import json

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc.evaluate import evaluate, main
from reid.config import FgvcConfig, ReidConfig, load_config
from reid.data.preprocessing import Preprocessing
from reid.inference.checkpoint import Checkpoint, save_model
from reid.inference.classifier import Classifier
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions

CLASSES = ("kind-0", "kind-1", "kind-2")


def save(folder, root, method="dcal", classes=CLASSES, **overrides):
    """A run folder with an untrained model."""
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    options = {
        "image_size": "16x16",
        "resize": "20x20",
        "method": method,
        "backbone": "vit_toy",
        "data.root": str(root),
    }
    config = load_config("folder", None, {**options, **overrides}, FgvcConfig)
    model, _ = build_dcal("vit_toy", (16, 16), len(classes), DcalOptions(method=method, head="fgvc", ratio=0.1))
    preprocessing = Preprocessing((16, 16), (0.5,) * 3, (0.5,) * 3, resize=(20, 20))
    protocol = {"dataset": "folder"}
    save_model(folder / "model.safetensors", model, Checkpoint(config, preprocessing, classes, protocol, 1))
    return folder


@pytest.fixture
def run(kinds, tmp_path):
    return save(tmp_path / "run", kinds)


def test_the_figures_are_those_of_each_image_classified_alone(run, kinds):
    result = evaluate(run, device="cpu").result
    classifier, _ = Classifier.from_checkpoint(run)
    for prediction in ("sum", "sa", "glca"):
        classifier.prediction = prediction
        right = []
        for label, name in enumerate(CLASSES):
            for path in sorted((kinds / "test" / name).iterdir()):
                right.append(classifier.classify([path])[0].argmax() == label)
        assert result.accuracy[prediction][1] == np.mean(right)
    assert result.protocol["prediction"] == "sum"
    assert result.images[0] == "test/kind-0/0.png"


def test_a_choice_of_prediction_is_what_is_detailed(run, kinds, tmp_path):
    assert set(evaluate(run, {"prediction": "sa"}, device="cpu").result.accuracy) == {"sa"}
    glca = evaluate(run, {"prediction": "glca"}, device="cpu").result
    assert glca.top1 == glca.accuracy["glca"][1]
    baseline = save(tmp_path / "baseline", kinds, "baseline")
    assert set(evaluate(baseline, device="cpu").result.accuracy) == {"sa"}


def test_another_set_of_the_same_classes_in_another_order(run, kinds, tmp_path):
    (tmp_path / "other").mkdir()
    (kinds / "test").rename(tmp_path / "other" / "test")
    result = evaluate(run, {"dataset": "folder", "data.root": str(tmp_path / "other")}, device="cpu").result
    assert len(result.labels) == 9
    reordered = save(tmp_path / "reordered", tmp_path / "other", classes=CLASSES[::-1])
    assert evaluate(reordered, device="cpu").result.labels.tolist() == [2] * 3 + [1] * 3 + [0] * 3


def test_the_command_prints_and_writes_what_it_found(run, tmp_path, capsys):
    assert main(["--checkpoint", str(run), "--json", str(tmp_path / "found.json"), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("SA + GLCA", "SA ", "GLCA ", "dataset folder", "trained_on folder"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["per_image"]["image"]) == found["images"] == 9
    assert main(["--checkpoint", str(run), "--json", "-", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_grey_and_cmyk_images_are_classified(run, kinds):
    Image.new("L", (30, 20), 100).save(kinds / "test" / "kind-0" / "grey.png")
    Image.new("CMYK", (30, 20), (10, 20, 30, 40)).save(kinds / "test" / "kind-0" / "cmyk.jpg")
    assert len(evaluate(run, device="cpu").result.labels) == 11


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--checkpoint", "ABSENT"], 1, "no such file"),
        (["--checkpoint", "REID"], 1, "is a re-identification model (of reid-train), expected a classifier (of fgvc-"),
        (["--checkpoint", "RUN", "train.lr=1"], 2, "train.lr: fixed by the training; an evaluation can change eval.*"),
        (["--checkpoint", "RUN", "image_size=32x32"], 2, "data.image_size: fixed by the training"),
        (["--checkpoint", "RUN", "--dataset", "cub"], 2, "dataset 'cub' needs --data-root"),
        (["--checkpoint", "RUN", "--data-root", "ABSENT"], 1, "absent does not exist"),
        (["--checkpoint", "RUN", "--json", "ABSENT/x.json"], 1, "--json"),
        (["--checkpoint", "RUN", "--report", "FILE"], 1, "is a file, expected a folder or a new name"),
        (["--checkpoint", "BASELINE", "prediction=glca"], 2, "which has no GLCA"),
        (["--checkpoint", "OTHERS"], 1, "has 1 test class that the model does not know, first 'kind-2'"),
    ],
)
def test_bad_arguments_cost_one_line(run, kinds, tmp_path, capsys, arguments, code, message):
    (tmp_path / "file").touch()
    reid, _ = build_dcal("vit_toy", (32, 16), 2)
    described = Checkpoint(
        load_config("toy", None, {"image_size": "32x16"}, ReidConfig),
        Preprocessing((32, 16), (0.5,) * 3, (0.5,) * 3),
        ("a", "b"),
        {},
        1,
    )
    save_model(tmp_path / "reid.safetensors", reid, described)
    places = {
        "RUN": run,
        "ABSENT": tmp_path / "absent",
        "FILE": tmp_path / "file",
        "REID": tmp_path / "reid.safetensors",
        "BASELINE": save(tmp_path / "baseline", kinds, "baseline"),
        "OTHERS": save(tmp_path / "others", kinds, classes=CLASSES[:2]),
    }
    filled = [str(places[a.split("/")[0]] / a.partition("/")[2]) if a.split("/")[0] in places else a for a in arguments]
    assert main([*filled, "--device", "cpu"]) == code
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("fgvc-eval: error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert captured.out == ""


def test_a_classifier_is_no_re_identification_model(run, capsys):
    from reid.evaluate import main as reid_eval

    assert reid_eval(["--checkpoint", str(run), "--device", "cpu"]) == 1
    assert "is a classifier (of fgvc-train), expected a re-identification model" in capsys.readouterr().err
