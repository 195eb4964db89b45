import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from reid.config import Config
from reid.export import main
from reid.files import fingerprint
from reid.inference import exporting as command
from reid.inference.checkpoint import load_model
from reid.inference.classifier import Classifier
from reid.inference.embedder import Embedder
from reid.inference.exporting import Parity, export
from reid.inference.pretrained import Pretrained
from reid.models.backbones import build_backbone

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def pictures(count=3):
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (50, 30 + i, 3), dtype=np.uint8)) for i in range(count)]


TOKENS = {"sa_token", "glca_token", "rollout", "chosen"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reid", {"embedding", *TOKENS}),
        ("baseline", {"embedding", "sa_token", "rollout"}),
        ("fgvc", {"probabilities", "sa_logits", "glca_logits", *TOKENS}),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_any_number_of_images_gives_what_the_model_gives(exported_runs, name, expected, count):
    session = onnxruntime.InferenceSession(exported_runs[name] / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert set(names) == expected
    model, _ = load_model(exported_runs[name], Config)
    images = torch.randn(count, 3, 32, 16, generator=torch.Generator().manual_seed(5))
    found = dict(zip(names, session.run(names, {"images": images.numpy()}), strict=True))
    with torch.no_grad():
        output = model(images, rollout=True)
    for branch in ("sa", "glca"):
        if f"{branch}_token" in expected:
            np.testing.assert_allclose(found[f"{branch}_token"], getattr(output, branch).token.numpy(), atol=1e-4)
        if f"{branch}_logits" in expected:
            np.testing.assert_allclose(found[f"{branch}_logits"], getattr(output, branch).logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(found["rollout"], output.rollout.numpy(), atol=1e-6)
    if "chosen" in expected:
        assert found["chosen"].dtype == np.int64
        np.testing.assert_array_equal(found["chosen"], output.chosen.numpy())


def by_hand(file, picture):
    """What a stranger makes of a picture with the file alone: its outputs, and its metadata."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    described = json.loads(metadata["preprocessing"])
    height, width = described["image_size"]
    whole = described.get("resize", [height, width])
    resized = np.asarray(picture.resize((whole[1], whole[0]), Image.Resampling.BICUBIC))
    top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
    pixels = resized[top : top + height, left : left + width].astype(np.float32) / 255
    pixels = (pixels - np.float32(described["mean"])) / np.float32(described["std"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": pixels.transpose(2, 0, 1)[None]}), strict=True)), metadata


def test_the_file_alone_is_enough_for_an_embedding(exported_runs):
    (picture,) = pictures(1)
    outputs, metadata = by_hand(exported_runs["reid"] / "model.onnx", picture)
    np.testing.assert_allclose(
        outputs["embedding"], Embedder.from_checkpoint(exported_runs["reid"])[0].embed([picture]), atol=1e-6
    )
    assert metadata["task"] == "reid"
    assert metadata["model"] == fingerprint(exported_runs["reid"] / "model.safetensors")


def test_the_file_alone_is_enough_to_classify(exported_runs):
    (picture,) = pictures(1)
    outputs, metadata = by_hand(exported_runs["fgvc"] / "model.onnx", picture)
    classifier, _ = Classifier.from_checkpoint(exported_runs["fgvc"])
    np.testing.assert_allclose(outputs["probabilities"], classifier.classify([picture]), atol=1e-6)
    assert json.loads(metadata["classes"]) == ["a", "b", "c"]


def test_the_file_says_how_to_use_it_and_nothing_of_this_machine(exported_runs):
    proto = onnx.load(exported_runs["fgvc"] / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert (
        "resized to 40 x 24, of that the centre of 32 x 16 (height x width) by PIL's bicubic filter" in proto.doc_string
    )
    assert "turned upright as their EXIF data say, colours without their profile applied" in proto.doc_string
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.doc_string
        assert f"{value.name}: {value.doc_string}" in proto.doc_string
    assert str(Path(command.__file__).parent).encode() not in proto.SerializeToString()
    assert not any(node.metadata_props for node in proto.graph.node)


def test_the_command_prints_a_table_and_writes_it_as_json(exported_runs, tmp_path, capsys):
    given = [
        "--checkpoint",
        str(exported_runs["reid"]),
        "--output",
        str(tmp_path / "a.onnx"),
        "--json",
        str(tmp_path / "a.json"),
    ]
    assert main([*given, "--format", "onnx"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["batch", "output", "difference", "largest", "number", "smallest", "cosine", "alike"]
    assert [line.split()[:2] for line in shown[1:-1]] == [
        [count, name] for count in "127" for name in ("embedding", "sa_token", "glca_token", "rollout", "chosen")
    ]
    assert shown[-1].startswith(f"{tmp_path / 'a.onnx'}: ")
    stored = json.loads((tmp_path / "a.json").read_text())
    assert stored["size"] == (tmp_path / "a.onnx").stat().st_size
    assert stored["opset"] == 18
    assert [row["batch"] for row in stored["parity"]] == [1] * 5 + [2] * 5 + [7] * 5
    assert stored["parity"][4] == {
        "batch": 1, "output": "chosen", "difference": None, "scale": None, "cosine": None, "alike": 1.0
    }  # fmt: skip
    assert (tmp_path / "a.onnx").read_bytes() == (
        exported_runs["reid"] / "model.onnx"
    ).read_bytes()  # made again, the same


def test_an_export_that_differs_is_not_kept(exported_runs, tmp_path, monkeypatch, capsys):
    def wrongly(graph):
        proto = onnx.load(exported_runs["reid"] / "model.onnx")
        (weight,) = [tensor for tensor in proto.graph.initializer if tensor.name.endswith("patch_embed.proj.weight")]
        values = onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array(1.1 * values, weight.name))
        return proto

    monkeypatch.setattr(command, "_to_onnx", wrongly)
    (tmp_path / "a.onnx").write_text("what was there")
    assert main(["--checkpoint", str(exported_runs["reid"]), "--output", str(tmp_path / "a.onnx")]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "    7  chosen" in shown.err  # the whole table, to see where it begins
    assert shown.err.splitlines()[-1].startswith(
        f"reid-export: error: {tmp_path / 'a.onnx'}: gives another embedding than the model (allowed: "
    )
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.onnx", "what was there")]


@pytest.mark.parametrize(
    ("row", "good"),
    [
        (Parity(1, "sa_token", 1e-5, 1.0, 1.0), True),
        (Parity(1, "sa_token", 2e-3, 10.0, 1.0), False),
        (Parity(1, "sa_token", 0.0, 1.0, 0.99), False),
        (Parity(1, "sa_token", float("nan"), 1.0, 1.0), False),
        (Parity(1, "sa_token", 0.0, 1.0, float("nan")), False),
        (Parity(1, "chosen", alike=0.96), True),
        (Parity(1, "chosen", alike=0.9), False),
    ],
)
def test_what_is_no_more_than_rounding(row, good):
    assert row.good == good


def test_numbers_of_a_comparison_are_those_of_the_definition():
    one, other = np.float32([[3, 4], [1, 0]]), np.float32([[3, 4], [1, 1]])
    row = command._parity(2, "sa_token", one, other)
    assert (row.difference, row.scale) == (1, 4)
    assert row.cosine == pytest.approx(0.5**0.5)
    alike = command._parity(2, "chosen", np.int64([[1, 2], [3, 4]]), np.int64([[2, 1], [3, 5]])).alike
    assert alike == 0.75
    with pytest.raises(
        ValueError, match=r"gives sa_token of shape \(2, 1\) and type float32, the model of shape \(2, 2\)"
    ):
        command._parity(2, "sa_token", one, other[:, :1])


def test_what_cannot_be_exported_is_said_in_one_line(exported_runs, tmp_path, monkeypatch, capsys):
    def fails(*options):
        code = main(list(options))
        shown = capsys.readouterr().err.splitlines()
        return code, shown[-1].removeprefix("reid-export: error: ")

    code, message = fails("--checkpoint", str(exported_runs["reid"]), "--output", str(tmp_path / "a.bin"))
    assert (code, message) == (2, f"--output {tmp_path / 'a.bin'}: expected a name that ends with .onnx")
    code, message = fails("--checkpoint", str(exported_runs["reid"]), "--output", str(tmp_path / "a" / "a.onnx"))
    assert (code, message) == (1, f"--output {tmp_path / 'a' / 'a.onnx'}: there is no folder {tmp_path / 'a'}")
    code, message = fails("--checkpoint", str(tmp_path))
    assert (code, message) == (1, f"checkpoint {tmp_path}: no model.safetensors in this folder")
    code, message = fails("--checkpoint", str(exported_runs["reid"] / "model.onnx"))
    assert code == 1
    assert "model.onnx: cannot be read as safetensors" in message
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "onnxscript" else "found")
    code, message = fails("--checkpoint", str(exported_runs["reid"]))
    assert (code, message) == (1, "exporting needs onnxscript; pip install dcal-reid[export]")


def test_a_model_that_holds_on_to_its_batch_is_refused(exported_runs, tmp_path, monkeypatch):
    """torch.onnx.export alone would write a graph for two images."""

    def fixed(self, images, sides=None):
        return {"sa_token": images[: len(images)].mean(dim=(2, 3))}

    monkeypatch.setattr(command.Graph, "_named", fixed)
    with pytest.raises(ValueError, match="backbone 'vit_toy' cannot be exported: .*[Cc]onstraints violated"):
        export(exported_runs["reid"], tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_network_that_no_run_trained_is_exported_beside_its_weights(tmp_path):
    weights = tmp_path / "published.safetensors"
    save_file(build_backbone("vit_toy", (32, 16))[0].state_dict(), weights)
    source = Pretrained(backbone="vit_toy", weights=str(weights), image_size=(32, 16))
    exported = export(source)
    assert exported.file == tmp_path / "published.onnx" and all(row.good for row in exported.parity)
    ours, theirs = (Embedder.from_checkpoint(model)[0] for model in (source, exported.file))
    np.testing.assert_allclose(theirs.embed(pictures(2)), ours.embed(pictures(2)), atol=1e-5)
    assert str(tmp_path).encode() not in exported.file.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nyala"])
def test_real_weights_and_photos(save_run, tmp_path, vit_tiny_weights, real_photos, name):
    run = save_run(tmp_path / "run", "reid", (256, 128), weights=str(vit_tiny_weights), backbone="vit_tiny")
    exported = export(run)
    assert all(row.good for row in exported.parity)
    photos = sorted((real_photos / name).rglob("*.jpg"))[:16]
    assert len(photos) == 16
    ours, _ = Embedder.from_checkpoint(run)
    theirs, _ = Embedder.from_checkpoint(exported.file)
    np.testing.assert_allclose(theirs.embed(photos), ours.embed(photos), atol=1e-5)
    for one, other in zip(ours.attention(photos), theirs.attention(photos), strict=True):
        np.testing.assert_allclose(other.map, one.map, atol=1e-5)
        assert (one.chosen & other.chosen).sum() >= 0.95 * one.chosen.sum()


@pytest.mark.parametrize("given", ["raw", pytest.param("imagenet", marks=pytest.mark.slow)])
def test_normalisation_is_folded_into_the_file(save_run, tmp_path, given):
    run = save_run(tmp_path / "run", "reid", size=(32, 16))
    file = export(run, tmp_path / f"{given}.onnx", given=given).file
    (picture,) = pictures(1)
    pixels = np.asarray(picture.resize((16, 32), Image.Resampling.BICUBIC)).astype(np.float32)
    if given == "imagenet":
        pixels = (pixels / 255 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(["embedding"], {"images": pixels.transpose(2, 0, 1)[None]})[0]
    expected = Embedder.from_checkpoint(run)[0].embed([picture])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(Embedder.from_checkpoint(file)[0].embed([picture]), expected, atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map["input"] == given
    described = onnx.load(file).graph.input[0].doc_string
    assert ("from 0 to 255" in described) == (given == "raw") and "applied within" in described
