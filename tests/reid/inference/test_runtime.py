import logging
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from reid import device
from reid.config import ReidConfig, override
from reid.files import fingerprint
from reid.inference import exporting
from reid.inference.checkpoint import load_model, save_model
from reid.inference.embedder import Embedder
from reid.inference.exported import model_fingerprint
from reid.inference.pretrained import Pretrained
from reid.inference.runtime import choose_runtime

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def run(exported_runs, tmp_path):
    """A run folder with its export."""
    return shutil.copytree(exported_runs["reid"], tmp_path / "run")


@pytest.fixture
def cpu(tmp_path, monkeypatch):
    """A function that makes this a CPU with certain flags."""

    def become(flags):
        (tmp_path / "cpuinfo").write_text(f"flags: fpu {flags} sse\n")
        monkeypatch.setattr(device, "CPU_FLAGS", tmp_path / "cpuinfo")
        device._cpu_has_bfloat16.cache_clear()

    yield become
    device._cpu_has_bfloat16.cache_clear()


@pytest.fixture
def traced_once(exported_runs, monkeypatch):
    """The graph of the model of `run` is not traced anew, which gives the same; it is still compared with the model."""
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(exporting, "_to_onnx", lambda graph: onnx.load(exported_runs["reid"] / "model.onnx"))


def photos(count=200, size=(60, 40)):
    """Shapes under light and noise, each different."""
    random = np.random.default_rng(3)
    for _ in range(count):
        rough = random.integers(0, 256, (6, 4, 3)).repeat(10, axis=0).repeat(10, axis=1)
        yield (rough + random.normal(0, 12, (*size, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["reid", "baseline"])
def test_both_runtimes_give_the_same_embeddings_of_photos(exported_runs, name):
    found = {}
    for chosen in ("torch", "auto"):
        source = choose_runtime(chosen, exported_runs[name], CPU)
        embedder, _ = Embedder.from_checkpoint(source)
        found[embedder.runtime] = embedder.embed(list(photos()))
    cosines = (found["torch"] * found["onnx"]).sum(axis=1)
    assert np.quantile(cosines, 0.01) >= 0.999
    assert cosines.min() >= 0.9999  # no quantised one could


def test_auto_takes_an_export_where_torch_computes_in_float32(run):
    assert choose_runtime("auto", run, CPU) == run / "model.onnx"
    assert choose_runtime("auto", run, CUDA) == run
    assert choose_runtime("torch", run, CPU) == run
    (run / "model.onnx").unlink()
    assert choose_runtime("auto", run, CPU) == run


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize("flags", ["avx512_bf16", "avx2"])
def test_auto_leaves_a_model_of_bfloat16_to_torch_only_where_the_processor_has_it(save_run, tmp_path, cpu, flags):
    cpu(flags)
    run = save_run(tmp_path / "run", "reid")
    model, described = load_model(run, ReidConfig)
    config = override(described.config, {"train.precision": "bfloat16"})
    save_model(run / "model.safetensors", model, replace(described, config=config))
    export = choose_runtime("onnx", run, CPU)
    assert export == run / "model.onnx"
    assert choose_runtime("auto", run, CPU) == (run if "bf16" in flags else export)


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize("found", ["another", "damaged", "quantised"])
def test_what_is_no_export_of_the_model_is_not_used_but_made_anew(exported_runs, run, caplog, found):
    shutil.copy(exported_runs["baseline"] / "model.onnx", run / "model.onnx")
    if found == "quantised":
        quantization = pytest.importorskip("onnxruntime.quantization")
        quantization.quantize_dynamic(exported_runs["reid"] / "model.onnx", run / "model.onnx")
        assert model_fingerprint(run / "model.onnx") == fingerprint(run / "model.safetensors"), "which it still says"
    if found == "damaged":
        (run / "model.onnx").write_bytes((run / "model.onnx").read_bytes()[:1000])
    caplog.clear()  # of what the tool that quantises says
    with caplog.at_level(logging.WARNING, "reid"):
        assert choose_runtime("auto", run, CPU) == run
    told = "is no export of {}, and not used; reid-export makes it anew".format(run / "model.safetensors")
    assert caplog.messages == [f"warning: {run / 'model.onnx'} {told}"]
    assert choose_runtime("onnx", run, CPU) == run / "model.onnx"
    assert caplog.messages[1:2] == [
        f"warning: {run / 'model.onnx'} is no export of {run / 'model.safetensors'}, and made anew"
    ]
    assert choose_runtime("auto", run, CPU) == run / "model.onnx"


def test_without_onnxruntime_auto_is_torch_and_onnx_names_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert choose_runtime("auto", run, CPU) == run
    with pytest.raises(ValueError, match=r"^exporting needs onnxruntime; pip install dcal-reid\[export\]$"):
        choose_runtime("onnx", run, CPU)


def test_what_cannot_run_is_told(exported_runs):
    file = exported_runs["reid"] / "model.onnx"
    assert choose_runtime("auto", file, CPU) == choose_runtime("onnx", file, CPU) == file
    with pytest.raises(ValueError, match=f"runtime torch of {file}, an export: give the model that it was made of"):
        choose_runtime("torch", file, CPU)
    network = Pretrained(backbone="vit_toy", weights="toy.safetensors")
    assert choose_runtime("auto", network, CPU) == choose_runtime("torch", network, CPU) == network
    with pytest.raises(ValueError, match="runtime onnx of vit_toy with weights toy.safetensors: give its export"):
        choose_runtime("onnx", network, CPU)
