import numpy as np
import pytest
import torch
from PIL import Image

from reid.config import FgvcConfig, load_config
from reid.data.preprocessing import Preprocessing
from reid.data.samples import Sample
from reid.data.transforms import evaluation_transform
from reid.inference.checkpoint import Checkpoint, save_model
from reid.inference.classifier import Classifier
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions

PREPROCESSING = Preprocessing((32, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize=(40, 20))
CLASSES = ("ani", "bunting", "crow")


def build(method="dcal"):
    torch.manual_seed(0)
    return build_dcal("vit_toy", (32, 16), 3, DcalOptions(method=method, head="fgvc"))[0].eval()


def pictures(tmp_path, count=5):
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 256, (40, 20 + i, 3), dtype=np.uint8) for i in range(count)]
    paths = []
    for i, array in enumerate(arrays):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(array).save(paths[-1])
    return arrays, paths


def by_hand(model, arrays):
    """Softmax of each branch's logits on each picture alone."""
    rows = {"sa": [], "glca": []}
    for array in arrays:
        with torch.no_grad():
            output = model(evaluation_transform(PREPROCESSING)(Image.fromarray(array))[None])
        for name in rows:
            branch = getattr(output, name)
            if branch is not None:
                exponents = np.exp(branch.logits[0].double().numpy())
                rows[name].append(exponents / exponents.sum())
    return {name: np.array(row) for name, row in rows.items() if row}


@pytest.mark.parametrize("prediction", ["sum", "sa", "glca"])
def test_probabilities_are_the_branches_own(tmp_path, prediction):
    model = build()
    arrays, paths = pictures(tmp_path)
    rows = by_hand(model, arrays)
    expected = (rows["sa"] + rows["glca"]) / 2 if prediction == "sum" else rows[prediction]
    classifier = Classifier(model, PREPROCESSING, CLASSES, prediction=prediction, batch_size=2)
    found = classifier.classify(paths)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(classifier.classify(arrays), expected, atol=1e-6)
    prepared = torch.stack([classifier.prepare(path) for path in paths])
    np.testing.assert_allclose(classifier.classify_prepared(prepared), expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_give_every_prediction_at_once(tmp_path, workers):
    model = build()
    arrays, paths = pictures(tmp_path)
    rows = by_hand(model, arrays)
    classifier = Classifier(model, PREPROCESSING, CLASSES, batch_size=2)
    found = classifier.classify_samples([Sample(path, 0) for path in paths], workers=workers)
    assert list(found) == ["sum", "sa", "glca"]
    np.testing.assert_allclose(found["sum"], (rows["sa"] + rows["glca"]) / 2, atol=1e-6)
    for name in ("sa", "glca"):
        np.testing.assert_allclose(found[name], rows[name], atol=1e-6)


@pytest.mark.parametrize("method", ["baseline", "pwca"])
def test_a_model_without_glca_predicts_by_sa(tmp_path, method):
    model = build(method)
    arrays, paths = pictures(tmp_path)
    classifier = Classifier(model, PREPROCESSING, CLASSES)
    assert classifier.prediction == "sa"
    np.testing.assert_allclose(classifier.classify(paths), by_hand(model, arrays)["sa"], atol=1e-6)
    assert list(classifier.classify_samples([Sample(path, 0) for path in paths], workers=0)) == ["sa"]
    with pytest.raises(ValueError, match=rf"prediction 'glca' asked of a model trained with method '{method}'"):
        Classifier(model, PREPROCESSING, CLASSES, prediction="glca")


def test_a_checkpoint_says_how_it_predicts(tmp_path):
    options = {"image_size": "32x16", "resize": "40x20", "prediction": "glca", "backbone": "vit_toy"}
    config = load_config("folder", None, options, FgvcConfig)
    save_model(tmp_path / "model.safetensors", build(), Checkpoint(config, PREPROCESSING, CLASSES, {}, 1))
    classifier, described = Classifier.from_checkpoint(tmp_path)
    assert (classifier.prediction, classifier.classes) == ("glca", CLASSES)
    assert described.preprocessing == PREPROCESSING
    arrays, _ = pictures(tmp_path)
    np.testing.assert_allclose(classifier.classify(arrays), by_hand(build(), arrays)["glca"], atol=1e-6)
    assert Classifier.from_checkpoint(tmp_path, prediction="sum")[0].prediction == "sum"


def test_nothing_in_gives_nothing_out():
    assert Classifier(build(), PREPROCESSING, CLASSES).classify([]).shape == (0, 3)


def test_attention_spans_the_centre_that_the_model_sees(tmp_path):
    classifier = Classifier(build(), PREPROCESSING, CLASSES)
    arrays, _ = pictures(tmp_path, 2)
    for attention in classifier.attention(arrays):
        assert attention.map.shape == (4, 2)
        assert attention.chosen.sum() == 3  # 0.3 of 8, rounded up
        assert attention.seen == pytest.approx((0.1, 0.1, 0.8, 0.8))
