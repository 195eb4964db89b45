"""Several processes on this machine, connected by gloo, against one."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed import DistBackendError, TCPStore, destroy_process_group

from fgvc.evaluate import main as fgvc_evaluate_main
from fgvc.train import main as fgvc_main
from fgvc.train import train as fgvc_train
from reid.config import FgvcConfig, load_config
from reid.data.loaders import TrainingLoader
from reid.data.sampler import PKSampler
from reid.data.samples import Sample
from reid.device import choose_device
from reid.distributed import rendezvous
from reid.distributed.rendezvous import _agree
from reid.distributed.world import World
from reid.evaluate import main as evaluate_main
from reid.train import main, train
from reid.training import loop
from tests.fgvc.conftest import write_classes
from tests.waiting import DEADLINE, wait_until

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
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # it outlives any of them
        folder.mkdir(parents=True, exist_ok=True)
        self.outputs = [folder / f"{time.monotonic_ns()}-{rank}" for rank in range(size)]
        self.processes = []
        for rank, output in enumerate(self.outputs):
            environment = {"WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self.store.port}
            environment |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
            environment = {name: str(value) for name, value in environment.items()}
            self.processes.append(PROCESSES.Process(target=process, args=(function, arguments, environment, output)))
            self.processes[-1].start()

    def end(self):
        """The exit codes; kills what does not end in time."""
        deadline = time.monotonic() + DEADLINE
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
    named = [f"{name}={value}" for name, value in options.items()]
    return Run(folder / "said", size, function, ["--dataset", dataset, "--device", "cpu", *named, *flags])


def done(run):
    codes = run.end()
    assert codes == [0] * len(codes), run.text("err")
    return run


def state(run: Path):
    return torch.load(run / "state.pt", weights_only=True)


def records(run: Path):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_alike(one: Path, other: Path):
    """Everything that is trained is alike to 1e-5, and the losses to 1e-4, or to that part of what is above 1."""
    a, b = state(one), state(other)
    for part in ("model", "loss", "averaged"):
        assert (a[part] or {}).keys() == (b[part] or {}).keys()
        for name, value in (a[part] or {}).items():
            torch.testing.assert_close(
                value, b[part][name], atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )
    for mine, theirs in zip(records(one), records(other), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-4, rel=1e-4)
        for branch, parts in mine["losses"].items():
            assert parts == pytest.approx(theirs["losses"][branch], abs=1e-4, rel=1e-4)


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


QUICK = ("dcal", "learned")


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_processes_train_the_parameters_of_one_process_on_the_same_batches(photos, tiny, tmp_path, monkeypatch, case):
    size, changes = CASES[case]
    options = {**tiny, **ALIKE, **changes, "data.root": str(photos)}
    run = together(tmp_path, options, "--output", str(tmp_path / "several"), size=size)
    pair_within(monkeypatch, size)
    alone = train(load_config("csv", None, options), tmp_path / "one", device="cpu")
    done(run)
    assert_alike(tmp_path / "one", tmp_path / "several")
    assert abs(alone[-1]["loss"] - alone[0]["loss"]) > 0.01, "too little was trained to differ"


@pytest.mark.slow
def test_categories_are_trained_alike_too(tmp_path, tiny, monkeypatch):
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


def stop_in(rank, call, argv):
    """Train; one of the processes is told to stop in its step of that number, counted from 1."""
    calls, real = [], loop.require_finite

    def stop(previous, loader):
        calls.append(1)
        if len(calls) == call and int(os.environ["RANK"]) == rank:
            os.kill(os.getpid(), signal.SIGTERM)
        real(previous, loader)

    loop.require_finite = stop
    return main(argv)


@pytest.mark.slow
def test_a_stop_of_one_process_stops_all_after_the_same_step_and_the_resumed_run_is_exact(photos, tiny, tmp_path):
    options = {**tiny, "model.drop_path": 0.3, "data.root": str(photos)}
    done(together(tmp_path, options, "--output", str(tmp_path / "whole")))
    named = [f"{name}={value}" for name, value in options.items()]
    flags = ["--dataset", "csv", "--device", "cpu", "--output", str(tmp_path / "halves")]
    stopped = Run(tmp_path / "said", 2, stop_in, 1, 2, [*flags, *named])
    assert stopped.end() == [1, 1]
    assert stopped.errors == [
        "reid-train: interrupted; saved after 0 epochs and 2 of 3 steps; continue with the same command and --resume"
    ]
    done(together(tmp_path, options, *flags[4:], "--resume"))
    whole, halves = state(tmp_path / "whole"), state(tmp_path / "halves")
    assert all(torch.equal(value, halves["model"][name]) for name, value in whole["model"].items())
    streams = [[of_one["cpu"] for of_one in found["random"]] for found in (whole, halves)]
    assert all(torch.equal(a, b) for a, b in zip(*streams, strict=True))
    assert not torch.equal(*streams[0])


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 1), (1, 2), (2, 4)], ids=str)
def test_a_run_goes_on_with_another_number_of_processes(photos, tiny, tmp_path, monkeypatch, sizes):
    """Partners are those of two processes throughout, so that one run can be compared with another."""
    method = {"model.method": "baseline"} if 4 in sizes else {}
    options = {**tiny, **ALIKE, **method, "data.root": str(photos)}
    pair_within(monkeypatch, 2)
    config = load_config("csv", None, options)
    train(config, tmp_path / "whole", device="cpu")
    named = [f"{name}={value}" for name, value in options.items()]
    flags = ["--dataset", "csv", "--device", "cpu", "--output", str(tmp_path / "halves"), *named]
    if sizes[0] == 1:
        real = loop.require_finite

        def stop(*of_step):
            monkeypatch.setattr(loop, "require_finite", real)
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(loop, "require_finite", stop)
        with pytest.raises(loop.Interrupted):
            train(config, tmp_path / "halves", device="cpu")
    else:
        assert Run(tmp_path / "said", sizes[0], stop_in, 0, 2, flags).end() == [1] * sizes[0]
    assert not (tmp_path / "halves" / "metrics.jsonl").exists(), "it was to be stopped in its first epoch"
    if sizes[1] == 1:
        train(config, tmp_path / "halves", device="cpu", resume=True)
    else:
        done(Run(tmp_path / "said", sizes[1], main, [*flags, "--resume"]))
    assert_alike(tmp_path / "whole", tmp_path / "halves")


@pytest.mark.slow
def test_one_process_writes_and_speaks(photos, tiny, tmp_path):
    run = done(together(tmp_path, {**tiny, "data.root": str(photos)}, "--output", str(tmp_path / "run")))
    assert run.text("out")[1] == run.text("err")[1] == ""
    printed = json.loads(run.text("out")[0])
    assert printed["evaluation"]["queries"] == 2
    assert "2 epochs of 3 steps of 8 images, 4 in each of 2 processes on cpu" in run.text("err")[0]
    files = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert [name for name in files if not name.startswith("events")] == [
        "best.safetensors", "config.yaml", "metrics.jsonl", "model.safetensors", "state.pt"
    ]  # fmt: skip
    assert len(files) == 6


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, *(pytest.param(size, marks=pytest.mark.slow) for size in (3, 5))])
def test_an_evaluation_by_several_processes_is_that_of_one(write_photos, save_run, tmp_path, size):
    """To the last bit, because the batches are the same; 5 queries are fewer batches than processes."""
    photos = write_photos(tmp_path / "photos", identities=7, tested=5)
    checkpoint = save_run(tmp_path / "run", "reid")
    argv = ["--checkpoint", str(checkpoint), "--dataset", "csv", "--data-root", str(photos), "--device", "cpu"]
    argv += ["batch_size=3", "workers=0"]

    def files(name):
        kept = {"--json": f"{name}.json", "--save-features": f"{name}.npz", "--report": name}
        return [part for option, place in kept.items() for part in (option, str(tmp_path / place))]

    assert evaluate_main([*argv, *files("one")]) == 0
    run = done(Run(tmp_path / "said", size, evaluate_main, [*argv, *files("several")]))
    assert (tmp_path / "several.json").read_text() == (tmp_path / "one.json").read_text()
    one, several = (np.load(tmp_path / f"{name}.npz") for name in ("one", "several"))
    assert {name: value.shape for name, value in one.items()} == {name: v.shape for name, v in several.items()}
    assert one["gallery_features"].shape == (15, 192)
    assert all(np.array_equal(value, several[name]) for name, value in one.items())
    assert (tmp_path / "several" / "index.html").exists()
    assert run.text("out")[0].startswith("mAP ")
    assert set(run.text("out")[1:] + run.text("err")[1:]) == {""}


@pytest.mark.slow
def test_categories_are_evaluated_alike_too(save_run, tmp_path):
    kinds = write_classes(tmp_path / "kinds")
    checkpoint = save_run(tmp_path / "run", "fgvc")
    for folder in kinds.glob("*/kind-*"):
        folder.rename(folder.with_name("abc"[int(folder.name[-1])]))  # the classes of the model
    argv = ["--checkpoint", str(checkpoint), "--dataset", "folder", "--data-root", str(kinds), "--device", "cpu"]
    argv += ["batch_size=2", "workers=0"]
    assert fgvc_evaluate_main([*argv, "--json", str(tmp_path / "one.json")]) == 0
    run = done(Run(tmp_path / "said", 2, fgvc_evaluate_main, [*argv, "--json", str(tmp_path / "several.json")]))
    assert (tmp_path / "several.json").read_text() == (tmp_path / "one.json").read_text()
    assert "top-1" in run.text("out")[0] and run.text("out")[1] == ""


@pytest.mark.slow
def test_what_cannot_be_evaluated_is_told_once(write_photos, save_run, tmp_path):
    photos = write_photos(tmp_path / "photos")
    checkpoint = save_run(tmp_path / "run", "reid")
    argv = ["--checkpoint", str(checkpoint), "--dataset", "csv", "--data-root", str(photos), "--device", "cpu"]
    wrong = Run(tmp_path / "wrong", 2, evaluate_main, [*argv, "--json", str(tmp_path / "no" / "where.json")])
    (photos.parent / "07_2.png").write_bytes(b"")  # of the second batch, so of the second process
    unreadable = Run(tmp_path / "unreadable", 2, evaluate_main, [*argv, "batch_size=5"])
    for run, message in ((wrong, "there is no folder"), (unreadable, "07_2.png: the file is empty")):
        assert run.end() == [1, 1]
        (line,) = [line for text in run.text("err") for line in text.splitlines() if "reid-eval: " in line]
        assert message in line
        assert "Traceback" not in "".join(run.text("err"))


def wait_for(file):
    wait_until(file.exists, f"no {file}")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "victim"), [(2, 0), (2, 1), (3, 1)])
def test_the_others_end_and_one_tells_when_a_process_is_killed(photos, tiny, tmp_path, size, victim):
    options = {**tiny, "data.root": str(photos), "train.batch_size": 4 * size, "train.epochs": 5000}
    run = together(tmp_path, options, "--output", str(tmp_path / "run"), size=size)
    wait_for(tmp_path / "run" / "metrics.jsonl")
    run.processes[victim].kill()
    codes = run.end()
    assert codes == [-signal.SIGKILL if rank == victim else 1 for rank in range(size)]
    (line,) = run.errors
    gone = f"process {victim} of {size} is gone on {socket.gethostname()}"
    assert line == f"reid-train: error: {gone}; start again with --resume"
    assert "Traceback" not in "".join(run.text("err"))


@pytest.mark.slow
def test_torchrun_starts_all_again_after_a_kill(photos, tiny, tmp_path):
    options = {**tiny, "data.root": str(photos), "train.epochs": 60}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "reid.train", "--dataset", "csv", "--device", "cpu", "--output", str(tmp_path / "run"), "--resume"]
    named = [f"{name}={value}" for name, value in options.items()]
    started = subprocess.Popen(
        [*torchrun, "--max-restarts", "2", *command, *named],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for(tmp_path / "run" / "state.pt")  # written right after the first line of metrics, and what a resume needs
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    try:
        out, err = started.communicate(timeout=300)
    finally:
        started.terminate()
    assert started.returncode == 0, err
    assert json.loads(out)["epoch"] == len(records(tmp_path / "run")) == 60
    assert "reid-train: error: process 1 of 2 is gone on " in err
    assert "resuming after " in err


def test_processes_that_start_again_do_not_take_the_earlier_ones_for_the_others(tmp_path):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for _ in range(3):
        store.set("hello/1", "of one that was killed")
        with ThreadPoolExecutor(3) as pool:
            names = list(pool.map(lambda rank: (time.sleep(0.1 * rank), _agree(store, rank, 3))[1], range(3)))
        assert len(set(names)) == 1


def impatient(seconds, argv):
    """Train with little patience with others."""
    from datetime import timedelta

    from reid.distributed import processes, rendezvous

    processes.PATIENCE = rendezvous.PATIENCE = timedelta(seconds=seconds)
    return main(argv)


def think_long(argv):
    """Train with less patience than the main process needs to score."""
    from reid.training import reidentification

    real = reidentification.score

    def slowly(*arguments):
        time.sleep(13)
        return real(*arguments)

    reidentification.score = slowly
    return impatient(10, argv)


@pytest.mark.slow
def test_the_others_wait_for_scores_however_long_but_not_for_a_process_that_no_longer_answers(photos, tiny, tmp_path):
    """The latter as when a machine is gone without a word: no connection is closed. Both wait at the same time."""

    def given(output, **options):
        named = [f"{name}={value}" for name, value in {**tiny, "data.root": photos, **options}.items()]
        return ["--dataset", "csv", "--device", "cpu", "--output", str(tmp_path / output), *named]

    scoring = Run(tmp_path / "said", 2, think_long, given("scored"))
    run = Run(tmp_path / "said", 2, impatient, 10, given("run", **{"train.epochs": 5000}))
    wait_for(tmp_path / "run" / "metrics.jsonl")
    os.kill(run.processes[1].pid, signal.SIGSTOP)
    run.processes[0].join(DEADLINE)
    run.processes[1].kill()
    assert run.end() == [1, -signal.SIGKILL]
    assert run.errors[0].startswith("reid-train: error: process 1 of 2 is gone on ")
    done(scoring)
    assert "evaluation" in records(tmp_path / "scored")[-1]


def test_a_connection_that_timed_out_with_all_there_is_one_sentence_with_the_advice(monkeypatch):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setattr(rendezvous, "rendezvous", lambda *_, **__: iter([(store, 0, 1)]))
    monkeypatch.setattr(rendezvous, "SECONDS_OF_ROLL_CALL", 0.1)
    for lost in (RuntimeError("Timed out waiting 600000ms for recv operation to complete"), DistBackendError("NCCL")):
        with (
            pytest.raises(ConnectionError, match="the 1 processes lost their connection; start again with --resume"),
            rendezvous.joined_several(World(0, 1), "cpu", "start again with --resume"),
        ):
            destroy_process_group()
            raise lost


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_is_told_once(photos, tiny, tmp_path):
    labels = [row.split(",")[2] for row in photos.read_text().splitlines()[1:] if ",train," in row]
    second = next(PKSampler([int(label[-1]) for label in labels], p=4, k=2).epoch(0))[1]
    unread = photos.parent / f"{second // 4:02d}_{second % 4}.png"
    data = bytearray(unread.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = bytes(20)  # whole at a look: only whoever decodes it finds out
    unread.write_bytes(data)
    run = together(tmp_path, {**tiny, "data.root": str(photos)}, "--output", str(tmp_path / "run"))
    assert run.end() == [1, 1]
    assert f"{unread.name}: the image is damaged" in run.errors[0]
    assert len(run.errors) == 1
    assert "the image is damaged" in run.text("err")[1], "the process that was to read it"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "flags", "message"),
    [
        ({"train.lr": 1e30, "train.optimizer": "sgd"}, [], "the loss is nan; try a lower train.lr"),
        ({"train.batch_size": 6}, [], "cannot be shared out evenly over 4 processes, at least 2 each; start 3, or"),
        ({"train.epoch": 3}, [], "unknown option 'train.epoch'; near ones: train.epochs"),
        ({}, ["--epochs"], "argument --epochs: expected one argument"),
        ({"junk": "none", "train.batch_size": 8, "eval.features": "glca", "method": "pwca"}, [], "which has no GLCA"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_once(photos, tiny, tmp_path, changes, flags, message):
    options = {**tiny, "data.root": str(photos), **changes}
    run = together(tmp_path, options, "--output", str(tmp_path / "run"), *flags, size=4)
    assert all(run.end())
    (line,) = run.errors
    assert message in line
    assert "Traceback" not in "".join(run.text("err"))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_once(photos, tiny, tmp_path):
    run = together(tmp_path, {**tiny, "data.root": str(photos)}, "--device", "cuda")
    assert run.end() == [1, 1]
    (line,) = run.errors
    assert "device 'cuda' asked for, but torch finds no CUDA GPU" in line


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_device("auto", rank) for rank in (None, 0, 1)] == [
        torch.device(name) for name in ("cuda", "cuda:0", "cuda:1")
    ]
    assert choose_device("cpu", 7) == torch.device("cpu")
    with pytest.raises(ValueError, match="process 2 of this machine, .* no GPU, of which torch finds 2;"):
        choose_device("auto", 2)


def test_shares_are_even_whole_and_read_by_nobody_else(photos):
    paths = sorted(photos.parent.glob("*.png"))[:12]
    samples, labels = [Sample(path, i // 2) for i, path in enumerate(paths)], [i // 2 for i in range(12)]
    sampler = PKSampler(labels, p=3, k=2)

    def read(share):
        opened = []
        loader = TrainingLoader(samples, labels, sampler, lambda image: torch.rand(3), seed=5, share=share)
        loader._loader.dataset.transform = lambda image: (opened.append(1), torch.rand(3))[1]
        return [(batch.images, batch.labels, batch.positions) for batch in loader.epoch(2, skip=1)], len(opened)

    whole, all_read = read(slice(None))
    for rank in range(3):
        own, own_read = read(World(rank, 3).share)
        assert own_read == all_read / 3
        for (images, labels_, positions), (images_, all_labels, all_positions) in zip(own, whole, strict=True):
            assert torch.equal(images, images_[rank::3])
            assert torch.equal(labels_, all_labels)
            assert positions == all_positions


@pytest.mark.parametrize("shares", [1, 2, 4])
def test_partners_are_of_the_same_share(shares):
    drawn = torch.stack([loop.draw_partners(16, (0, 0, step), shares) for step in range(200)])
    places = torch.arange(16)
    assert (drawn.sort(dim=1).values == places).all()
    assert (drawn != places).all()
    assert (drawn % shares == places % shares).all()
    assert set(drawn[:, 0].tolist()) == set(range(shares, 16, shares)), "any other one of the share"
