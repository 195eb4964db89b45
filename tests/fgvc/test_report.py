import base64
import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from fgvc.datasets import load_dataset
from fgvc.report import write_report
from fgvc.scoring import result_protocol, score
from reid.data.preprocessing import Preprocessing
from reid.inference.classifier import Classifier
from reid.models.dcal import DCAL, build_dcal
from reid.models.options import DcalOptions

HOSTILE = "<b>$\\frac{1}$'&"
SECTIONS = ["numbers", "classes", "matrix", "confusions", "attention", "calibration"]


def tables_of(names):
    return {"confusion_matrix.csv"} | {f"{name}.{kind}" for name in names for kind in ("csv", "tex")}


def make(folder, dataset, method="dcal", probabilities=None):
    """The report on an untrained model, or on given probabilities."""
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", (16, 16), len(dataset.classes), DcalOptions(method=method, head="fgvc", ratio=0.3))
    preprocessing = Preprocessing((16, 16), (0.5,) * 3, (0.5,) * 3, resize=(20, 20))
    classifier = Classifier(model.eval(), preprocessing, dataset.classes)
    found = probabilities or classifier.classify_samples(dataset.test)
    result = score(found, dataset, dataset.classes, result_protocol(dataset, {"dataset": "folder"}, classifier))
    return result, write_report(folder / "report", result, dataset, classifier)


@pytest.fixture
def dataset(kinds):
    """One class has a name that is markup and a formula."""
    for split in ("train", "test"):
        (kinds / split / "kind-1").rename(kinds / split / HOSTILE)
    return load_dataset("folder", kinds)


def test_a_full_report(tmp_path, dataset, page_of):
    result, path = make(tmp_path, dataset)
    parsed = page_of(path)
    assert [attributes["id"] for attributes in parsed.attributes("section")] == SECTIONS
    files = {file.name for file in path.parent.iterdir()}
    assert {a["href"] for a in parsed.attributes("a") if a["href"][0] != "#"} == files - {"index.html", "metrics.json"}
    charts = ("classes", "confusion_matrix", "confusions", "attention", "reliability")
    tables = ("numbers", "classes", "all_confusions", "reliability")
    assert files == {
        "index.html",
        "metrics.json",
        *(f"{name}.{kind}" for name in charts for kind in ("png", "svg")),
        *tables_of(tables),
    }
    assert json.loads((path.parent / "metrics.json").read_text()) == json.loads(json.dumps(result.as_full_json()))
    for share in (result.top1, result.mean_class_accuracy, result.calibration_error):
        assert f"{100 * share:.1f} %" in parsed.text
    first = result.confusions[0]
    title = (
        f"{result.classes[first.label]} taken for {result.classes[first.predicted]}: {first.count} of {first.images}"
    )
    assert title in parsed.text
    assert HOSTILE in parsed.text
    assert "<b>$" not in parsed.source
    assert "patches that GLCA chose" in parsed.text
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in parsed.tags}
    assert "http:" not in parsed.source
    for attributes in parsed.attributes("img"):
        assert attributes["alt"]
        Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1]))).verify()


@pytest.mark.usefixtures("drawn_once")
def test_a_baseline_that_is_always_right_or_always_wrong(tmp_path, dataset, page_of):
    labels = torch.tensor([sample.identity for sample in dataset.test])
    right = torch.eye(3)[labels].numpy()
    _, path = make(tmp_path, dataset, "baseline", {"sa": right})
    text = page_of(path).text
    assert "Every image is predicted right." in text
    assert "GLCA" not in text
    assert "Wrong, most certain" not in text
    assert not (path.parent / "confusions.png").exists()
    wrong = torch.eye(3)[(labels + 1) % 3].numpy()
    _, path = make(tmp_path, dataset, "baseline", {"sa": wrong})
    text = page_of(path).text
    assert "Right, most certain" not in text
    assert "3 of 3 images" in text


@pytest.mark.usefixtures("drawn_once")
def test_a_network_without_class_token_has_no_attention(tmp_path, dataset, page_of, monkeypatch):
    monkeypatch.setattr(DCAL, "rolls_out", property(lambda model: False))
    _, path = make(tmp_path, dataset, "baseline")
    assert "The network has no class token whose attention could be shown." in page_of(path).text
    assert not (path.parent / "attention.png").exists()


@pytest.mark.usefixtures("drawn_once")
def test_a_class_without_test_images_has_no_bar(tmp_path, dataset, page_of):
    without = replace(dataset, test=tuple(sample for sample in dataset.test if sample.identity != 0))
    result, path = make(tmp_path, without)
    text = page_of(path).text
    assert "6 test images of 2 classes" in text
    assert len(result.per_class) == 3


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, dataset):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(NotADirectoryError, match="report is a file, expected a folder or a new name"):
        make(tmp_path, dataset)


@pytest.mark.browser
def test_a_browser_shows_it_without_network(tmp_path, dataset, shown_offline):
    _, path = make(tmp_path, dataset)
    shown_offline(path)
