import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from reid.config import ReidConfig, override
from reid.evaluate import main
from reid.evaluation.calibrate import load_calibration
from reid.files import fingerprint
from reid.inference.checkpoint import load_model
from reid.inference.classifier import Classifier
from reid.inference.embedder import Embedder
from reid.inference.exported import model_fingerprint, open_exported
from reid.inference.exporting import export
from reid.inference.predictor import open_model
from reid.models.dcal import embedding
from reid.models.specs import BACKBONES
from reid.retrieval.calibration import Calibration

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def pictures(count=5):
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (40, 20 + i, 3), dtype=np.uint8) for i in range(count)]


def foreign(path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)


def altered(source, path, **metadata):
    proto = onnx.load(source)
    kept = {entry.key: entry.value for entry in proto.metadata_props if entry.key not in metadata}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {**kept, **{key: value for key, value in metadata.items() if value}})
    onnx.save(proto, path)


@pytest.mark.parametrize(
    ("name", "features"), [("reid", "concat"), ("reid", "sa"), ("reid", "glca"), ("baseline", "sa")]
)
@pytest.mark.parametrize("flip_test", [False, True])
def test_an_export_embeds_as_its_model_does(exported_runs, name, features, flip_test):
    options = {"features": features, "flip_test": flip_test, "batch_size": 2}
    ours, described = Embedder.from_checkpoint(exported_runs[name], **options)
    theirs, said = Embedder.from_checkpoint(exported_runs[name] / "model.onnx", **options)
    assert said == described
    assert theirs.size == ours.size
    np.testing.assert_allclose(theirs.embed(pictures()), ours.embed(pictures()), atol=1e-5)
    for one, other in zip(ours.attention(pictures()), theirs.attention(pictures()), strict=True):
        assert other.map.shape == (4, 2)
        np.testing.assert_allclose(other.map, one.map, atol=1e-6)
        np.testing.assert_array_equal(other.chosen, one.chosen)


@pytest.mark.slow
def test_parts_and_cameras_are_exported_too(save_run, tmp_path):
    run = save_run(tmp_path / "run", "reid", jigsaw=3, cameras=("north", "south"))
    file = export(run).file
    for features in ("concat", "sa", "glca"):
        ours, _ = Embedder.from_checkpoint(run, features=features)
        theirs, described = Embedder.from_checkpoint(file, features=features)
        assert described.side_info.cameras == ("north", "south")
        assert theirs.size == ours.size
        images = torch.stack([ours.prepare(picture) for picture in pictures(4)])
        for sides in (None, torch.tensor([0, 1, -1, 0])):
            found = embedding(theirs.forward(images, sides), features)
            assert found.shape == (4, theirs.size)
            np.testing.assert_allclose(found, embedding(ours.forward(images, sides), features), atol=1e-5)


def test_an_export_classifies_as_its_model_does(exported_runs):
    for prediction in ("sum", "sa", "glca"):
        ours, _ = Classifier.from_checkpoint(exported_runs["fgvc"], prediction=prediction)
        theirs, _ = Classifier.from_checkpoint(exported_runs["fgvc"] / "model.onnx", prediction=prediction)
        assert theirs.classes == ("a", "b", "c")
        np.testing.assert_allclose(theirs.classify(pictures()), ours.classify(pictures()), atol=1e-6)


def test_what_a_model_does_not_have_is_refused_of_its_export_too(exported_runs):
    with pytest.raises(ValueError, match="features 'glca' asked of a model trained with method 'baseline'"):
        Embedder.from_checkpoint(exported_runs["baseline"] / "model.onnx", features="glca")


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [
        "deit_tiny",
        "r50_vit_base",
        "cait_xs24",
        "deit3_small",
        "eva02_tiny",
        "eva02_base",
        "dinov2_small_reg",
        "dinov3_small",
        "clip_vit_base",
        "swin_tiny",
        "siglip_base",
    ],
)
def test_every_kind_of_backbone_can_be_exported(save_run, tmp_path, monkeypatch, backbone):
    spec = BACKBONES[backbone]
    depth = {"depths": (1, 1, 1, 1)} if backbone == "swin_tiny" else {"depth": 2}
    monkeypatch.setitem(BACKBONES, backbone, replace(spec, overrides=depth))
    size = (64, 32) if backbone == "swin_tiny" else (4 * spec.patch, 2 * spec.patch)
    method = "dcal" if spec.offers.glca else "pwca"
    run = save_run(tmp_path / "run", "reid", size, backbone=backbone, method=method)
    theirs, _ = Embedder.from_checkpoint(export(run).file)
    ours, _ = Embedder.from_checkpoint(run)
    np.testing.assert_allclose(theirs.embed(pictures()), ours.embed(pictures()), atol=1e-5)
    if spec.offers.glca:
        for one, other in zip(ours.attention(pictures()), theirs.attention(pictures()), strict=True):
            np.testing.assert_allclose(other.map, one.map, atol=1e-6)
            np.testing.assert_array_equal(other.chosen, one.chosen)
    else:
        with pytest.raises(ValueError, match="no class token to roll attention out from"):
            theirs.attention(pictures())


def test_an_evaluation_of_an_export_gives_the_same_figures(exported_runs, tmp_path):
    rows = ["path,split,identity,camera"]
    for number, pixels in enumerate(pictures(40)):  # noise, so that a ranking is far from perfect
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'gallery' if number % 5 else 'query'},{number // 5},{number}")
    (tmp_path / "noise.csv").write_text("\n".join(rows))
    results = []
    for checkpoint in (exported_runs["reid"], exported_runs["reid"] / "model.onnx"):
        data = ["--dataset", "csv", "--data-root", str(tmp_path / "noise.csv")]
        given = ["--checkpoint", str(checkpoint), "--device", "cpu", "--json", str(tmp_path / "result.json")]
        assert main([*given, *data]) == 0
        results.append(json.loads((tmp_path / "result.json").read_text()))
    assert results[0] == results[1]
    assert 0 < results[0]["mAP"] < 0.5


def test_an_export_computes_in_float32_whatever_it_was_trained_in(exported_runs, tmp_path):
    _, described = load_model(exported_runs["reid"], ReidConfig)
    config = override(described.config, {"train.precision": "bfloat16"})
    altered(exported_runs["reid"] / "model.onnx", tmp_path / "model.onnx", config=config.model_dump_json())
    embedder, found = Embedder.from_checkpoint(tmp_path / "model.onnx")
    assert found.config.train.precision == "bfloat16"
    assert embedder.precision == torch.float32


def test_it_takes_the_threads_that_torch_has(exported_runs):
    for threads in (2, 1):
        torch.set_num_threads(threads)
        model, _ = open_model(exported_runs["reid"] / "model.onnx", ReidConfig)
        assert model.session.get_session_options().intra_op_num_threads == threads


def test_an_export_goes_by_the_name_of_its_model(exported_runs, tmp_path):
    name = fingerprint(exported_runs["reid"] / "model.safetensors")
    for path in (exported_runs["reid"], exported_runs["reid"] / "model.onnx"):
        assert model_fingerprint(path) == name
    assert model_fingerprint(exported_runs["baseline"] / "model.onnx") != name


def test_a_calibration_beside_an_export_holds_for_its_model_alone(exported_runs, tmp_path):
    levels = np.array([-1.0, 1.0]), np.array([0.1, 0.9])
    calibration = Calibration(*levels, 0.9, 0.5, 0.01, 10, 10, 10, 10, 0.1, 0.1, ()).as_json()
    values = {"model": model_fingerprint(exported_runs["reid"]), "protocol": {}, "calibration": calibration}
    for name in ("model", "zebras"):
        file = shutil.copy(exported_runs["reid"] / "model.onnx", tmp_path / f"{name}.onnx")
        assert load_calibration(file) is None
        kept = tmp_path / ("calibration.json" if name == "model" else "zebras.calibration.json")
        kept.write_text(json.dumps(values))
        assert load_calibration(file).calibration.as_json() == calibration
        shutil.copy(exported_runs["baseline"] / "model.onnx", file)
        with pytest.raises(ValueError, match=f"made with other weights than {name}.onnx now holds"):
            load_calibration(file)


def test_files_that_cannot_be_used_are_named_in_one_line(exported_runs, tmp_path, capsys):
    good = exported_runs["reid"] / "model.onnx"
    file = tmp_path / "model.onnx"

    def fails(message, checkpoint=file):
        assert main(["--checkpoint", str(checkpoint), "--device", "cpu"]) == 1
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert shown.startswith(f"reid-eval: error: checkpoint {checkpoint}")
        assert message in shown

    fails("no such file")
    file.write_bytes(good.read_bytes()[:100_000])
    fails("cannot be read as ONNX")
    file.write_bytes(b"")
    fails("the file is empty")
    foreign(file)
    fails("no format in its metadata, expected '1'")
    with pytest.raises(ValueError, match="no 'model' in its metadata: not a file of reid-export"):
        model_fingerprint(file)
    altered(good, file, grid=None)
    fails("damaged metadata (KeyError('grid'))")
    altered(good, file, prefix="one")
    fails("damaged metadata (ValueError")
    altered(good, file, config="{")
    fails("damaged metadata (config='{': Invalid JSON")
    fails("is a classifier (of fgvc-train), expected a re-identification model", exported_runs["fgvc"] / "model.onnx")
    with pytest.raises(ValueError, match=r"is a re-identification model \(of reid-train\), expected a classifier"):
        Classifier.from_checkpoint(good)


def test_without_onnxruntime_it_says_what_to_install(exported_runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"running it needs onnxruntime; pip install dcal-reid\[export\]"):
        Embedder.from_checkpoint(exported_runs["reid"] / "model.onnx")


def test_onnxruntime_alone_is_enough_to_run_it(exported_runs, monkeypatch):
    for name in ("onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    embedder, _ = Embedder.from_checkpoint(exported_runs["reid"] / "model.onnx")
    assert embedder.embed([Image.new("RGB", (8, 8))]).shape == (1, 192)


def test_a_gpu_that_onnxruntime_cannot_use_is_refused(exported_runs, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        ValueError, match="has CPUExecutionProvider, but device 'cuda' needs CUDAExecutionProvider; install"
    ):
        open_exported(exported_runs["reid"] / "model.onnx", ReidConfig, "cuda")
