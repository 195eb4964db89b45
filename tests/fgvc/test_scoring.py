import json
from pathlib import Path

import numpy as np
import pytest

from fgvc.datasets import FgvcDataset
from fgvc.scoring import score
from fgvc.scoring import test_labels as labels_of
from reid.data.samples import Sample

ROWS = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.9, 0.05, 0.05]], np.float32)


def dataset(labels=(0, 1, 2, 0), classes=("ani", "bunting", "crow"), root=Path("/data")):
    samples = tuple(Sample(root / "test" / f"{i}.jpg", label) for i, label in enumerate(labels))
    return FgvcDataset("folder", root, (), samples, classes)


def test_a_result_by_hand():
    protocol = {"dataset": "folder", "prediction": "sum"}
    result = score({"sum": ROWS, "sa": ROWS[:, ::-1]}, dataset(), ("ani", "bunting", "crow"), protocol)
    assert result.accuracy["sum"] == {1: 0.75, 5: 1.0}
    assert result.accuracy["sa"] == {1: 0.25, 5: 1.0}
    assert result.top1 == 0.75
    assert result.per_class.tolist() == [1, 1, 0]
    assert result.mean_class_accuracy == pytest.approx(2 / 3)
    assert [(pair.label, pair.predicted, pair.count, pair.images) for pair in result.confusions] == [(2, 1, 1, 1)]
    assert result.calibration_error == pytest.approx((abs(0.5 - 0) + abs(0.6 - 1) + abs(0.7 - 1) + abs(0.9 - 1)) / 4)
    values = json.loads(json.dumps(result.as_full_json()))
    assert values["accuracy"]["sum"] == {"top1": 0.75, "top5": 1.0}
    assert values["per_class"][2] == {"class": "crow", "images": 1, "accuracy": 0.0}
    assert values["confusions"] == [{"class": "crow", "predicted": "bunting", "count": 1, "images": 1}]
    assert values["per_image"]["image"][2] == "test/2.jpg"
    assert values["per_image"]["predicted"] == ["ani", "bunting", "bunting", "ani"]
    assert "per_class" not in result.as_json()
    first, *_, last = str(result).splitlines()
    assert first.startswith("SA + GLCA  top-1  75.0  top-5 100.0  per class  66.7")
    assert last == "4 images of 3 classes; dataset folder, prediction sum"


def test_the_chosen_prediction_is_told_first():
    rows = {"sum": ROWS, "sa": ROWS, "glca": ROWS[:, ::-1]}
    lines = str(score(rows, dataset(), ("ani", "bunting", "crow"), {"prediction": "glca"})).splitlines()
    assert [line.split("  ")[0].strip() for line in lines[:3]] == ["GLCA", "SA + GLCA", "SA"]
    assert "top-1  25.0" in lines[0]
    assert "per class" in lines[0]
    assert "per class" not in lines[1]


def test_classes_are_matched_by_name():
    shuffled = dataset(labels=(0, 1, 1), classes=("crow", "ani"))
    assert labels_of(shuffled, ("ani", "bunting", "crow")).tolist() == [2, 0, 0]
    result = score({"sa": ROWS[:3]}, shuffled, ("ani", "bunting", "crow"), {"prediction": "sa"})
    assert np.isnan(result.per_class[1])
    assert result.as_full_json()["per_class"][1]["accuracy"] is None
    assert str(result).endswith("3 images of 2 classes; prediction sa")


def test_what_cannot_be_scored_is_named():
    with pytest.raises(ValueError, match=r"has 1 test class that the model does not know, first 'crow'; it was "):
        labels_of(dataset(), ("ani", "bunting"))
    with pytest.raises(ValueError, match=r"folder at /data has no test images, so it cannot be evaluated on"):
        labels_of(dataset(labels=()), ("ani", "bunting", "crow"))
    broken = np.full_like(ROWS, np.nan)
    with pytest.raises(ValueError, match=r"probabilities \(sum\) are not finite"):
        score({"sum": broken}, dataset(), ("ani", "bunting", "crow"), {"prediction": "sum"})
