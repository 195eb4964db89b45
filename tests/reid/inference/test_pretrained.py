import argparse
import json

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from reid import evaluate
from reid.cli import UsageError
from reid.config import FgvcConfig, ReidConfig
from reid.data.preprocessing import Preprocessing
from reid.data.transforms import evaluation_transform
from reid.evaluation.run import evaluate as evaluate_model
from reid.inference.embedder import Embedder
from reid.inference.exporting import export
from reid.inference.predictor import open_model
from reid.inference.pretrained import Pretrained, add_arguments, chosen_model
from reid.models.specs import BACKBONES

TOY = {"img_size": 32, **BACKBONES["vit_toy"].overrides}


@pytest.fixture
def weights(tmp_path):
    """A file of vit_toy at 32 x 32 pixels, and the network that it is of."""
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", **TOY).eval()
    save_file(network.state_dict(), tmp_path / "toy.safetensors")
    return tmp_path / "toy.safetensors", network


def pictures(count):
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (40, 30, 3), np.uint8)) for _ in range(count)]


def test_embeddings_are_timms_features_with_the_normalisation_that_was_asked_for(weights):
    file, network = weights
    source = Pretrained(backbone="vit_toy", weights=str(file), mean="0.4,0.5,0.6", std="0.2")
    embedder, described = Embedder.from_checkpoint(source)
    assert described.preprocessing == Preprocessing((32, 32), (0.4, 0.5, 0.6), (0.2, 0.2, 0.2), profiles=True)
    transform = evaluation_transform(described.preprocessing)
    with torch.no_grad():
        images = torch.stack([transform(picture) for picture in pictures(3)])
        expected = F.normalize(network.forward_head(network.forward_features(images), pre_logits=True), dim=1)
    np.testing.assert_allclose(embedder.embed(pictures(3)), expected.numpy(), atol=1e-6)


def test_unless_told_otherwise_size_and_normalisation_are_those_of_the_weights(weights):
    file, _ = weights
    described = Embedder.from_checkpoint(Pretrained(backbone="vit_toy", weights=str(file)))[1]
    assert described.preprocessing.image_size == (32, 32)  # of 16 positions
    assert described.preprocessing.mean == (0.5, 0.5, 0.5)  # timm's, of the architecture
    unchanged = Pretrained(backbone="vit_toy", weights=str(file), mean="0", std="1")
    assert Embedder.from_checkpoint(unchanged)[1].preprocessing.mean == (0, 0, 0)
    larger = Pretrained(backbone="vit_toy", weights=str(file), image_size="64x32")
    assert Embedder.from_checkpoint(larger)[1].preprocessing.image_size == (64, 32)


def test_a_model_is_known_by_the_content_of_its_weights(weights, tmp_path):
    file, network = weights
    state = network.state_dict()

    def fingerprint(name, **options):
        return Embedder.from_checkpoint(Pretrained(backbone="vit_toy", weights=str(name), **options))[1].fingerprint

    torch.save(
        {"epoch": 3, "teacher": {f"backbone.{name}": value for name, value in state.items()}}, tmp_path / "b.pth"
    )
    assert fingerprint(file) == fingerprint(tmp_path / "b.pth")
    assert fingerprint(file, image_size="64x32") == fingerprint(file)  # the preprocessing tells the size
    save_file({**state, "norm.bias": state["norm.bias"] + 1e-6}, tmp_path / "other.safetensors")
    assert fingerprint(file) != fingerprint(tmp_path / "other.safetensors")


def test_a_network_is_evaluated_as_it_is(weights, photos, capsys):
    arguments = ["--backbone", "vit_toy", "--weights", str(weights[0]), "--dataset", "csv", "--data-root", str(photos)]
    assert evaluate.main([*arguments, "--device", "cpu", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["queries"] == 2 and found["protocol"]["pretrained"] == "vit_toy with weights toy.safetensors"
    assert "trained_on" not in found["protocol"]
    source = Pretrained(backbone="vit_toy", weights=str(weights[0]))
    again = evaluate_model(source, {"data.dataset": "csv", "data.root": str(photos)}, device="cpu")
    assert again.result.metrics.as_json()["mAP"] == found["mAP"]


@pytest.mark.slow
def test_a_network_of_convolutions_is_evaluated_and_exported_as_it_is(tmp_path, photos, capsys):
    torch.manual_seed(0)
    network = timm.create_model("test_convnext", num_classes=3).eval()
    torch.save({"model": network.state_dict()}, tmp_path / "w.bin")
    source = Pretrained(backbone="test_convnext", weights=str(tmp_path / "w.bin"), image_size="64x96")
    embedder, described = Embedder.from_checkpoint(source)
    transform = evaluation_transform(described.preprocessing)
    network.reset_classifier(0)
    with torch.no_grad():
        expected = F.normalize(network(torch.stack([transform(picture) for picture in pictures(3)])), dim=1)
    np.testing.assert_allclose(embedder.embed(pictures(3)), expected.numpy(), atol=1e-6)
    arguments = ["--backbone", "test_convnext", "--weights", str(tmp_path / "w.bin"), "--dataset", "csv"]
    assert evaluate.main([*arguments, "--data-root", str(photos), "--device", "cpu", "--report", str(tmp_path)]) == 0
    assert "2 queries" in capsys.readouterr().out
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    export(source, tmp_path / "w.onnx")
    np.testing.assert_allclose(
        Embedder.from_checkpoint(tmp_path / "w.onnx")[0].embed(pictures(3)), expected.numpy(), atol=1e-5
    )
    with pytest.raises(ValueError, match="backbone 'test_convnext' has no class token to roll attention out from"):
        embedder.attention(pictures(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "w.pth"], "--weights without --backbone NAME"),
        (["--backbone", "vit_toy", "--checkpoint", "run"], "--checkpoint with --backbone: a run has a backbone"),
        (["--backbone", "vit_toy", "--weights", "none"], "--weights none: a network with random weights"),
        (["--backbone", "vit_toy", "--mean", "1,2"], "--mean 1,2: expected one number or three, as 0.485,0.456,0.406"),
        (["--backbone", "vit_toy", "--std", "0"], "--std 0: Input should be greater than 0"),
        (["--backbone", "vit_toy", "--image-size", "32"], "--image-size 32: expected HEIGHTxWIDTH, e.g. 256x128"),
    ],
)
def test_options_that_contradict_each_other_are_told(arguments, message):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(UsageError, match=f"^{message}"):
        chosen_model(parser.parse_args(arguments))


def test_what_cannot_be_opened_is_told(weights, photos, save_run, tmp_path):
    source = Pretrained(backbone="vit_toy", weights=str(weights[0]))
    with pytest.raises(ValueError, match="no dataset of ours; --dataset NAME says what to evaluate it on"):
        evaluate_model(source)
    with pytest.raises(ValueError, match=r"vit_toy with weights toy.safetensors has no classes, expected a classifier"):
        open_model(source, FgvcConfig)
    with pytest.raises(FileNotFoundError, match="no such file"):
        evaluate_model(Pretrained(backbone="vit_toy", weights=str(tmp_path / "absent")), {"data.dataset": "csv"})
    run = save_run(tmp_path / "run", "reid") / "model.safetensors"
    with pytest.raises(ValueError, match="a file of reid-train or fgvc-train; give it as --checkpoint"):
        open_model(Pretrained(backbone="vit_toy", weights=str(run)), ReidConfig)
