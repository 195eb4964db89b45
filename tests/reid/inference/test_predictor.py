import io

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from reid.data.preprocessing import Preprocessing
from reid.inference.classifier import Classifier
from reid.inference.predictor import Predictor
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions

PREPROCESSING = Preprocessing((32, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def predictor():
    return Predictor(build_dcal("vit_toy", (32, 16), 3)[0], PREPROCESSING, glca=True)


def pictures():
    """Pictures that Pillow's own conversion to RGB would spoil."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (40, 20, 4), dtype=np.uint8)
    turned = Image.fromarray(colours[..., :3])
    turned.getexif()[ExifTags.Base.Orientation] = 6
    key = Image.fromarray(colours[..., :3] // 128 * 255)
    key.info["transparency"] = (0, 0, 0)
    return {
        "transparent": Image.fromarray(colours),
        "transparent grey": Image.fromarray(colours).convert("LA"),
        "one colour transparent": key,
        "16-bit grey": Image.fromarray(random.integers(0, 65536, (40, 20), dtype=np.uint16)),
        "turned": turned,
    }


@pytest.mark.parametrize("name", pictures())
def test_an_image_in_memory_is_read_as_its_file_is(predictor, tmp_path, name):
    picture = pictures()[name]
    picture.save(tmp_path / "a.png", exif=picture.getexif(), **picture.info)
    prepared = predictor.prepare(picture)
    assert torch.equal(prepared, predictor.prepare(tmp_path / "a.png"))
    with Image.open(tmp_path / "a.png") as opened:
        assert torch.equal(prepared, predictor.prepare(opened))
    assert not torch.equal(prepared, predictor.prepare(np.asarray(picture.convert("RGB"))))


def test_an_image_in_memory_that_cannot_be_read_is_named_by_its_place(predictor):
    good = Image.new("RGB", (8, 8))
    with pytest.raises(ValueError, match=r"picture 1 cannot be read as an image .*are floating-point"):
        list(predictor.batches([good, Image.new("F", (8, 8))]))
    written = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(written, "PNG")
    with (
        Image.open(io.BytesIO(written.getvalue()[:1000])) as cut,
        pytest.raises(ValueError, match="picture 1 cannot be read as an image"),
    ):
        list(predictor.batches([good, cut]))


@pytest.mark.parametrize(("method", "predictions"), [("dcal", ["sum", "sa", "glca"]), ("baseline", ["sa"])])
def test_a_classifier_of_nothing_gives_nothing_out(method, predictions):
    model = build_dcal("vit_toy", (32, 16), 3, DcalOptions(method=method, head="fgvc"))[0]
    classifier = Classifier(model, PREPROCESSING, ("a", "b", "c"))
    assert classifier.classify_prepared(torch.empty(0, 3, 32, 16)).shape == (0, 3)
    found = classifier.classify_samples([], workers=0)
    assert {name: rows.shape for name, rows in found.items()} == dict.fromkeys(predictions, (0, 3))


def test_a_classifier_checks_what_it_is_given():
    model = build_dcal("vit_toy", (32, 16), 3, DcalOptions(head="fgvc"))[0]
    with pytest.raises(ValueError, match=r"^unknown prediction 'both'; choose sum, sa, glca$"):
        Classifier(model, PREPROCESSING, ("a", "b", "c"), prediction="both")
    with pytest.raises(ValueError, match=r"^2 names of classes for a model of 3$"):
        Classifier(model, PREPROCESSING, ("a", "b"))
