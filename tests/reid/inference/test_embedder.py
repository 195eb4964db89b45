import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid.config import load_config
from reid.data.images import read_image
from reid.data.preprocessing import Preprocessing
from reid.data.samples import Sample
from reid.data.transforms import evaluation_transform
from reid.inference.checkpoint import Checkpoint, save_model
from reid.inference.embedder import Embedder
from reid.models.dcal import build_dcal, embedding
from reid.models.options import DcalOptions

PREPROCESSING = Preprocessing((32, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def run(tmp_path):
    """A run folder with an untrained DCAL model."""
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", (32, 16), 3)
    config = load_config("toy", None, {"image_size": "32x16"})
    save_model(tmp_path / "model.safetensors", model, Checkpoint(config, PREPROCESSING, ("a", "b", "c"), {}, 1))
    return tmp_path


def pictures(tmp_path, count=5):
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 256, (40, 20 + i, 3), dtype=np.uint8) for i in range(count)]
    paths = []
    for i, array in enumerate(arrays):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(array).save(paths[-1])
    return arrays, paths


def test_paths_images_and_arrays_give_the_same_unit_vectors(run, tmp_path):
    embedder, _ = Embedder.from_checkpoint(run, batch_size=2)
    arrays, paths = pictures(tmp_path)
    vectors = embedder.embed(paths)
    assert vectors.shape == (5, embedder.size) == (5, 192)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embedder.embed(arrays), vectors, atol=1e-6)
    np.testing.assert_allclose(embedder.embed([Image.fromarray(array) for array in arrays]), vectors, atol=1e-6)
    np.testing.assert_allclose(embedder.embed([str(path) for path in paths]), vectors, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_give_what_pictures_give(run, tmp_path, workers):
    embedder, _ = Embedder.from_checkpoint(run, batch_size=2)
    _, paths = pictures(tmp_path)
    vectors = embedder.embed_samples([Sample(path, 0) for path in paths], workers=workers)
    np.testing.assert_allclose(vectors, embedder.embed(paths), atol=1e-6)


def test_the_vector_is_the_models_own(run, tmp_path):
    embedder, _ = Embedder.from_checkpoint(run)
    arrays, _ = pictures(tmp_path, 2)
    images = torch.stack([evaluation_transform(PREPROCESSING)(Image.fromarray(array)) for array in arrays])
    with torch.no_grad():
        expected = embedding(embedder.model(images)).numpy()
    np.testing.assert_allclose(embedder.embed(arrays), expected, atol=1e-6)


def test_features_choose_the_tokens(run, tmp_path):
    arrays, _ = pictures(tmp_path, 3)
    whole = Embedder.from_checkpoint(run)[0].embed(arrays)
    for features, half in (("sa", whole[:, :96]), ("glca", whole[:, 96:])):
        embedder, _ = Embedder.from_checkpoint(run, features=features)
        assert embedder.size == 96
        np.testing.assert_allclose(embedder.embed(arrays), half * 2**0.5, atol=1e-5)


def test_nothing_in_gives_nothing_out(run):
    embedder, _ = Embedder.from_checkpoint(run)
    assert embedder.embed([]).shape == (0, 192)
    assert embedder.embed_samples([]).shape == (0, 192)
    assert embedder.embed_prepared(torch.empty(0, 3, 32, 16)).shape == (0, 192)
    with pytest.raises(ValueError, match=r"^unknown features 'both'; choose concat, sa, glca$"):
        Embedder(embedder.model, PREPROCESSING, features="both")


def test_glca_of_a_baseline_is_refused():
    model, _ = build_dcal("vit_toy", (32, 16), 3, DcalOptions(method="baseline"))
    with pytest.raises(ValueError, match="'glca' asked of a model trained with method 'baseline'"):
        Embedder(model, PREPROCESSING, features="glca")
    assert Embedder(model, PREPROCESSING).size == 96


def test_bad_pictures_are_named(run, tmp_path):
    embedder, _ = Embedder.from_checkpoint(run)
    good = np.zeros((8, 8, 3), np.uint8)
    for given in ("a.jpg", Path("a.jpg"), Image.new("RGB", (8, 8))):
        with pytest.raises(ValueError, match=r"^expected a list of pictures, found one, .*: write \[.*\]$"):
            embedder.embed(given)
    for given in (None, 7, b"bytes"):
        with pytest.raises(ValueError, match=r"^picture 1 is .*, expected a path, a PIL image or an array \(height,"):
            embedder.embed([good, given])
    with pytest.raises(ValueError, match=r"picture 1 is an array of shape \(8, 8\) and type uint8"):
        embedder.embed([good, good[:, :, 0]])
    with pytest.raises(ValueError, match=r"picture 0 .*float64.*expected \(height, width, 3\) uint8 RGB"):
        embedder.embed([good.astype(np.float64)])
    (tmp_path / "bad.jpg").write_text("x")
    with pytest.raises(ValueError, match=r"bad.jpg: the file is no JPEG"):
        embedder.embed([tmp_path / "bad.jpg"])


def test_embedding_leaves_a_training_model_in_training():
    model, _ = build_dcal("vit_toy", (32, 16), 3)
    model.train()
    Embedder(model, PREPROCESSING).embed([np.zeros((8, 8, 3), np.uint8)])
    assert model.training


def brightness_model(method="dcal"):
    """A model whose class token attends to bright patches, and whose tokens pass through all blocks unchanged."""
    model, _ = build_dcal("vit_toy", (32, 16), 3, DcalOptions(method=method))
    with torch.no_grad():
        vit = model.backbone
        for parameter in vit.parameters():
            parameter.zero_()
        vit.patch_embed.proj.weight[0], vit.patch_embed.proj.weight[1] = 0.01, -0.01  # brightness, and its opposite
        vit.cls_token[..., 2], vit.cls_token[..., 3] = 1, -1
        for block in vit.blocks:
            block.norm1.weight.fill_(1)
            block.attn.qkv.weight[0, 2] = 1  # the query of the class token ...
            block.attn.qkv.weight[96, 0] = 1  # ... meets keys that grow with brightness
    return model


@pytest.mark.parametrize("place", [(row, column) for row in range(4) for column in range(2)])
def test_attention_lies_where_the_picture_is_bright(place):
    picture = np.zeros((32, 16, 3), np.uint8)
    picture[8 * place[0] : 8 * place[0] + 8, 8 * place[1] : 8 * place[1] + 8] = 255
    black = np.zeros_like(picture)
    attentions = Embedder(brightness_model(), PREPROCESSING, batch_size=2).attention([black, black, picture])
    assert [attention.map.shape for attention in attentions] == [(4, 2)] * 3
    found = attentions[2]
    assert np.unravel_index(found.map.argmax(), found.map.shape) == place
    assert found.chosen[place]
    assert found.chosen.dtype == bool
    assert found.chosen.sum() == 3  # 30 % of 8 patches, rounded up


def test_attention_is_the_rollout_of_the_patches_row_by_row(run, tmp_path):
    embedder, _ = Embedder.from_checkpoint(run, batch_size=2)
    arrays, _ = pictures(tmp_path)
    images = torch.stack([evaluation_transform(PREPROCESSING)(Image.fromarray(array)) for array in arrays])
    with torch.no_grad():
        output = embedder.model(images, rollout=True)
    for i, attention in enumerate(embedder.attention(arrays)):
        assert attention.map.dtype == np.float32
        assert attention.map.sum() + output.rollout[i, 0].item() == pytest.approx(1, abs=1e-5)
        for row in range(4):
            for column in range(2):
                token = 1 + 2 * row + column
                assert attention.map[row, column] == pytest.approx(output.rollout[i, token].item(), abs=1e-6)
                assert attention.chosen[row, column] == (token in output.chosen[i].tolist())


def test_without_glca_there_is_a_map_and_no_choice(run):
    picture = np.zeros((8, 8, 3), np.uint8)
    for embedder in (
        Embedder(brightness_model("baseline"), PREPROCESSING),
        Embedder.from_checkpoint(run, features="sa")[0],
    ):
        (attention,) = embedder.attention([picture])
        assert attention.map.shape == (4, 2)
        assert attention.chosen is None
    assert embedder.attention([]) == []


def test_a_picture_of_damaged_exif_data_is_embedded_from_its_file_and_as_it_was_read(run):
    embedder, _ = Embedder.from_checkpoint(run)
    path = Path(__file__).parents[1] / "data" / "cases" / "exif_broken.jpg"
    with Image.open(path) as opened:
        vectors = embedder.embed([path, read_image(path), opened])
    assert np.array_equal(vectors[0], vectors[1]) and np.array_equal(vectors[0], vectors[2])


def test_boxes_of_a_picture_are_embedded_like_their_own_pictures(run):
    embedder, _ = Embedder.from_checkpoint(run)
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    boxes = np.array([[10.0, 5.0, 40.0, 50.0], [10.4, 5.6, 39.2, 49.1], [-7, -3, 30, 200], [70.5, 50.5, 71.0, 51.0]])
    parts = [picture[5:50, 10:40], picture[5:50, 10:40], picture[:, :30], picture[50:51, 70:71]]
    np.testing.assert_array_equal(embedder.embed_boxes(picture, boxes), embedder.embed(parts))
    assert embedder.embed_boxes(picture, []).shape == (0, 192)
    for bad in ([80, 0, 90, 10], [20, 20, 20, 30], [30, 30, 20, 40], [0, 0, np.nan, 10]):
        with pytest.raises(ValueError, match=r"^box 1, \(.*\), shows nothing of a picture of 80 x 60 pixels; expected"):
            embedder.embed_boxes(picture, [boxes[0], bad])
    detections = np.hstack([boxes, np.ones((4, 2))])  # with confidence and class: 24 numbers, which four divides
    for wrong in (detections, boxes[0]):
        with pytest.raises(ValueError, match=rf"boxes are of shape {re.escape(str(wrong.shape))}, expected \(N, 4\)"):
            embedder.embed_boxes(picture, wrong)
