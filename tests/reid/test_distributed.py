"""Several processes on this machine, connected by gloo, against one."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fgvc.train import main as fgvc_main
from fgvc.train import train as fgvc_train
from reid import loop
from reid.config import FgvcConfig, load_config
from reid.data.loaders import TrainingLoader
from reid.data.sampler import PKSampler, ShuffledSampler
from reid.data.samples import Sample
from reid.distributed import World, joined
from reid.embedder import Embedder
from reid.evaluate import open_dataset
from reid.scoring import extract
from reid.train import main, train

PROCESSES = multiprocessing.get_context("forkserver")  # each starts from one that has imported torch and never used it
PROCESSES.set_forkserver_preload(["fgvc.train", "reid.train"])
# Adam makes steps of one size out of gradients that are zero but for rounding; SGD keeps what is alike alike.
ALIKE = {"train.optimizer": "sgd", "train.lr": 0.05, "model.drop_path": 0}


def process(function, arguments, environment, output):
    """What one process does: its standard output and error go to files."""
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    torch.set_num_threads(1)
    sys.exit(function(*arguments))


class Run:
    """Processes that run the same function together, as torchrun starts them."""

    def __init__(self, folder, size, function, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder.mkdir(parents=True, exist_ok=True)
        self.outputs = [folder / f"{time.monotonic_ns()}-{rank}" for rank in range(size)]
        self.processes = []
        for rank, output in enumerate(self.outputs):
            environment = {"WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment = {name: str(value) for name, value in environment.items()}
            self.processes.append(PROCESSES.Process(target=process, args=(function, arguments, environment, output)))
            self.processes[-1].start()

    def end(self):
        """The exit codes; kills what does not end within a minute."""
        deadline = time.monotonic() + 60
        for one in self.processes:
            one.join(max(0.0, deadline - time.monotonic()))
        hanging = [one for one in self.processes if one.is_alive()]
        for one in hanging:
            one.kill()
            one.join()
        assert not hanging, [output.with_suffix(".err").read_text() for output in self.outputs]
        return [one.exitcode for one in self.processes]

    def text(self, kind):
        return [Path(f"{output}.{kind}").read_text() for output in self.outputs]

    @property
    def errors(self):
        """The lines of all processes that tell how they ended."""
        return [line for text in self.text("err") for line in text.splitlines() if "-train: " in line]


def together(folder, options, *flags, size=2, function=main, dataset="csv"):
    """Start a training in several processes; `options` by dotted name."""
    options = {**options, "data.workers": options.get("data.workers", 0)}
    named = [f"{name}={value}" for name, value in options.items()]
    return Run(folder / "said", size, function, ["--dataset", dataset, "--device", "cpu", *flags, *named])


def done(run):
    codes = run.end()
    assert codes == [0] * len(codes), run.text("err")
    return run


def state(run: Path):
    return torch.load(run / "state.pt", weights_only=True)


def records(run: Path):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_alike(one: Path, other: Path):
    """Everything that is trained is alike to 1e-5, and the losses to 1e-4."""
    a, b = state(one), state(other)
    for part in ("model", "loss", "averaged"):
        assert (a[part] or {}).keys() == (b[part] or {}).keys()
        for name, value in (a[part] or {}).items():
            torch.testing.assert_close(value, b[part][name], atol=1e-5, rtol=0, msg=lambda text, n=name: f"{n}: {text}")
    for mine, theirs in zip(records(one), records(other), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
        for branch, parts in mine["losses"].items():
            assert parts == pytest.approx(theirs["losses"][branch], abs=1e-4)


def pair_within(monkeypatch, shares):
    """Have one process draw partners as several do."""
    real = loop.draw_partners
    monkeypatch.setattr(loop, "draw_partners", lambda count, entropy, _: real(count, entropy, shares))


LEARNED = {"train.id_loss": "arcface", "train.metric_loss": "circle", "train.center_loss": 0.01}
ACCUMULATED = {"train.batch_size": 4, "train.accumulate": 2, "train.clip_norm": 0.5, "train.ema": 0.9}
CASES = {
    "dcal": (2, {"train.ema": 0.9}),
    "baseline": (2, {"model.method": "baseline"}),
    "glca": (2, {"model.method": "glca"}),
    "pwca": (2, {"model.method": "pwca", "model.partner_stream": "pwca"}),
    "learned": (2, LEARNED),
    "accumulated": (2, ACCUMULATED),
    "checkpointed": (2, {"train.checkpointing": True, "train.loss_weights": "equal"}),
    "transreid": (2, {"model.jigsaw": 1, "model.side_information": "camera"}),
    "three": (3, {"train.batch_size": 12}),
}


@pytest.mark.parametrize("case", CASES)
def test_processes_train_the_parameters_of_one_process_on_the_same_batches(photos, tiny, tmp_path, monkeypatch, case):
    size, changes = CASES[case]
    options = {**tiny, **ALIKE, **changes, "data.root": str(photos)}
    run = together(tmp_path, options, "--output", str(tmp_path / "several"), size=size)
    pair_within(monkeypatch, size)
    alone = train(load_config("csv", None, options), tmp_path / "one", device="cpu")
    done(run)
    assert_alike(tmp_path / "one", tmp_path / "several")
    assert abs(alone[-1]["loss"] - alone[0]["loss"]) > 0.01, "too little was trained to differ"


def test_categories_are_trained_alike_too(tmp_path, tiny, monkeypatch):
    from tests.fgvc.conftest import write_classes

    kinds = write_classes(tmp_path / "kinds")
    options = {name: value for name, value in tiny.items() if name.split(".")[1] not in ("pad", "images_per_identity")}
    options |= {**ALIKE, "train.batch_size": 6, "data.root": str(kinds)}
    flags = ("--output", str(tmp_path / "several"))
    run = together(tmp_path, options, *flags, function=fgvc_main, dataset="folder")
    pair_within(monkeypatch, 2)
    alone = fgvc_train(load_config("folder", None, options, FgvcConfig), tmp_path / "one", device="cpu")
    done(run)
    assert_alike(tmp_path / "one", tmp_path / "several")
    several = records(tmp_path / "several")[-1]["evaluation"]
    assert several["accuracy"] == alone[-1]["evaluation"]["accuracy"]
