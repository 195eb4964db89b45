"""What must hold on a GPU: the same answers as on the CPU, in its own precision. Run with `pytest -m gpu`."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reid.config import load_config
from reid.evaluate import evaluate
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions
from reid.retrieval.metrics import evaluate_features
from reid.train import train
from reid.training.loop import Interrupted

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU"),
]


def test_the_model_gives_the_cpus_output_and_gradient():
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", (32, 16), 5, DcalOptions(drop_path=0.0))
    images, partner = torch.randn(8, 3, 32, 16), torch.roll(torch.arange(8), 1)

    def run(device):
        model.to(device).train()
        model.zero_grad()
        output = model(images.to(device), partner.to(device), rollout=True)
        sum(branch.token.square().mean() for branch in output.branches().values()).backward()
        gradient = model.backbone.blocks[0].attn.qkv.weight.grad.cpu().clone()
        return [branch.token.detach().cpu() for branch in output.branches().values()], output.chosen.cpu(), gradient

    for one, other in zip(run("cpu"), run("cuda"), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's compiler has many
@pytest.mark.parametrize("precision", ["auto", "float16", "float32"])
@pytest.mark.parametrize("compiled", [False, True])
def test_training_learns_in_every_precision(photos, tiny, tmp_path, precision, compiled):
    options = {
        **tiny,
        "data.root": str(photos),
        "train.precision": precision,
        "train.compile": compiled,
        "train.epochs": 6,
    }
    records = train(load_config("csv", None, options), tmp_path / "run", device="cuda")
    assert records[-1]["losses"]["sa"]["ce"] < records[0]["losses"]["sa"]["ce"]
    assert np.isfinite([record["loss"] for record in records]).all()
    on_cpu = evaluate(tmp_path / "run", {"eval.junk": "none"}, device="cpu").result
    on_gpu = evaluate(tmp_path / "run", {"eval.junk": "none"}, device="cuda").result
    assert on_gpu.metrics.mAP == pytest.approx(on_cpu.metrics.mAP, abs=0.05)


@pytest.mark.parametrize("precision", ["auto", "float16"])
def test_learned_losses_fall(photos, tiny, tmp_path, precision):
    learned = {"train.id_loss": "arcface", "train.metric_loss": "circle", "train.center_loss": 0.01}
    options = {**tiny, **learned, "data.root": str(photos), "train.precision": precision, "train.epochs": 10}
    records = train(load_config("csv", None, options), tmp_path / "run", device="cuda")
    first, last = (record["losses"]["sa"] for record in (records[0], records[-1]))
    assert all(last[part] < first[part] for part in ("arcface", "circle", "center"))


def test_a_stopped_run_resumes(photos, tiny, tmp_path, monkeypatch):
    import os
    import signal

    from reid.training import loop

    config = load_config("csv", None, {**tiny, "data.root": str(photos), "train.precision": "float16"})
    real = loop.require_finite

    def stop(previous, loader):
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr(loop, "require_finite", real)
        real(previous, loader)

    monkeypatch.setattr(loop, "require_finite", stop)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", device="cuda")
    records = train(config, tmp_path / "run", device="cuda", resume=True)
    assert [record["epoch"] for record in records] == [1, 2]
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] == 2


def test_metrics_are_the_cpus():
    random = np.random.default_rng(0)
    query, gallery = random.normal(size=(50, 32)).astype(np.float32), random.normal(size=(700, 32)).astype(np.float32)
    labels = (
        random.integers(0, 20, 50),
        random.integers(0, 5, 50),
        random.integers(0, 20, 700),
        random.integers(0, 5, 700),
    )
    results = [
        evaluate_features(query, labels[0], labels[1], gallery, labels[2], labels[3], device=device)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(results[0].average_precision, results[1].average_precision, atol=1e-6)
    assert results[0].cmc == results[1].cmc


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch finds fewer than two GPUs")
@pytest.mark.parametrize(
    ("precision", "compiled", "near"),
    [("float32", False, 1e-4), ("float32", True, 1e-4), ("auto", False, 0.1)],
)
def test_two_gpus_train_what_one_trains(photos, tiny, tmp_path, monkeypatch, precision, compiled, near):
    from reid.training import loop

    options = {**tiny, "data.root": str(photos), "train.precision": precision, "train.compile": compiled}
    options |= {"model.drop_path": 0, "train.optimizer": "sgd", "train.lr": 0.05, "train.clip_norm": 1.0}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "reid.train", "--dataset", "csv", "--device", "cuda", "--output", str(tmp_path / "two")]
    subprocess.run([*torchrun, *command, *(f"{name}={value}" for name, value in options.items())], check=True)
    real = loop.draw_partners
    monkeypatch.setattr(loop, "draw_partners", lambda count, entropy, shares: real(count, entropy, 2))
    alone = train(load_config("csv", None, options), tmp_path / "one", device="cuda")
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == pytest.approx([r["loss"] for r in alone], rel=near)
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], atol=near, rtol=0, msg=lambda text, n=name: f"{n}: {text}")
