import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

import reid.evaluate
import reid.training.reidentification
from reid.config import ConfigError, FgvcConfig, ReidConfig, ReidTrainOptions, load_config, read_config
from reid.data import holding_out
from reid.data.datasets import load_dataset
from reid.data.preprocessing import Decoding
from reid.inference.checkpoint import read_checkpoint
from reid.inference.embedder import Embedder
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions
from reid.retrieval.metrics import evaluate_features
from reid.train import main, train
from reid.training import loop, sizing
from reid.training.loop import Interrupted, draw_partners
from tests.conftest import TINY
from tests.waiting import wait_until


def configure(photos, tiny, **changes):
    return load_config(
        "csv", None, {**tiny, "data.root": str(photos), **{k.replace("__", "."): v for k, v in changes.items()}}
    )


def stop_after_the_first_step(monkeypatch):
    """Have the training be told to stop in its first step."""
    real = loop.require_finite

    def stop(previous, loader):
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr(loop, "require_finite", real)
        real(previous, loader)

    monkeypatch.setattr(loop, "require_finite", stop)


def state(run: Path):
    return torch.load(run / "state.pt", weights_only=True)


def assert_same_run(one: Path, other: Path):
    """Parameters, optimiser, random state and losses to the last bit; only times and memory may differ."""
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    a, b = state(one), state(other)
    assert torch.equal(a["random"][0]["cpu"], b["random"][0]["cpu"])
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name]), name
    for index, slots in a["optimizer"]["state"].items():
        for slot, value in slots.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(b["optimizer"]["state"][index][slot])), slot
    keep = ("epoch", "loss", "losses", "log_variances", "lr", "evaluation")
    for one_line, other_line in zip(lines(one), lines(other), strict=True):
        assert {k: one_line.get(k) for k in keep} == {k: other_line.get(k) for k in keep}


def lines(run: Path):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_folder_holds_what_the_contract_names(photos, tiny, tmp_path):
    records = train(configure(photos, tiny), tmp_path / "run", device="cpu")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "metrics.jsonl", "model.safetensors", "best.safetensors", "state.pt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any(name.endswith(".tmp") for name in names)
    assert lines(tmp_path / "run") == records
    last = records[-1]
    assert last["epoch"] == 2
    assert set(last["losses"]) == set(last["log_variances"]) == {"sa", "glca", "pwca"}
    assert set(last["losses"]["pwca"]) == {"ce", "triplet"}
    assert {"lr", "images_per_second", "peak_memory_mib"} <= set(last)
    counted = {"queries", "queries_skipped", "gallery"}
    assert set(last["evaluation"]) == {"mAP", "mINP", "cmc", "intervals_95", "protocol"} | counted
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["image_size"] == "16x16"


def test_one_step_moves_the_loss_weights_and_the_loss_falls(photos, tiny, tmp_path):
    records = train(configure(photos, tiny, epochs=8), tmp_path / "run", device="cpu")
    assert all(value != 0 for value in records[0]["log_variances"].values())
    assert records[-1]["losses"]["sa"]["ce"] < records[0]["losses"]["sa"]["ce"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_photos):
    """A function that gives the configuration of a run that ended, its records and its folder; trained once."""
    folder = tmp_path_factory.mktemp("trained")
    photos, runs = write_photos(folder / "photos"), {}

    def run(**changes):
        known = str(changes)
        if known not in runs:
            config = configure(photos, TINY, **changes)
            runs[known] = config, train(config, folder / str(len(runs)), device="cpu"), folder / str(len(runs))
        return runs[known]

    return run


@pytest.fixture
def ended(trained, tmp_path):
    """The configuration of a run that ended, and a copy of its folder."""
    config, _, run = trained()
    return config, Path(shutil.copytree(run, tmp_path / "run"))


@pytest.mark.parametrize("method", ["dcal", "baseline"])
@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_resumed_run_ends_as_the_uninterrupted_one(trained, tmp_path, monkeypatch, method, stop_at):
    """Stopped after any step, in the middle of an epoch or at its end."""
    config, _, whole = trained(method=method, epochs=3, drop_path=0.2, ema=0.9, eval_every=1)

    drawn, real = [], loop.require_finite

    def stop(previous, loader):
        drawn.append(1)
        if len(drawn) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        real(previous, loader)

    monkeypatch.setattr(loop, "require_finite", stop)
    with pytest.raises(Interrupted, match="saved after"):
        train(config, tmp_path / "halves", device="cpu")
    monkeypatch.setattr(loop, "require_finite", real)
    train(config, tmp_path / "halves", device="cpu", resume=True)
    assert_same_run(whole, tmp_path / "halves")


LEARNED = {"id_loss": "arcface", "metric_loss": "circle", "center_loss": 0.01}


@pytest.mark.parametrize("changes", [{"precision": "bfloat16", "clip_norm": 1.0}, {"optimizer": "sgd"}], ids=str)
def test_a_resumed_run_with_learned_losses_ends_as_the_uninterrupted_one(photos, tiny, tmp_path, monkeypatch, changes):
    config = configure(photos, tiny, **LEARNED, **changes)
    train(config, tmp_path / "whole", device="cpu")
    stop_after_the_first_step(monkeypatch)
    with pytest.raises(Interrupted, match="saved after"):
        train(config, tmp_path / "halves", device="cpu")
    half = state(tmp_path / "halves")["loss"]
    monkeypatch.undo()
    train(config, tmp_path / "halves", device="cpu", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "halves")
    a, b = state(tmp_path / "whole")["loss"], state(tmp_path / "halves")["loss"]
    assert a.keys() == b.keys() == half.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
        assert not torch.equal(value, half[name]), name


def test_a_state_from_before_losses_learned_still_resumes(photos, tiny, tmp_path, monkeypatch):
    config = configure(photos, tiny)
    train(config, tmp_path / "whole", device="cpu")
    stop_after_the_first_step(monkeypatch)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "halves", device="cpu")
    monkeypatch.undo()
    earlier = state(tmp_path / "halves")
    assert earlier.pop("loss") == {}
    torch.save(earlier, tmp_path / "halves" / "state.pt")
    train(config, tmp_path / "halves", device="cpu", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


@pytest.mark.parametrize("earlier", ["", "profiles", "nothing"])
def test_a_run_goes_on_decoding_as_it_began(photos, tiny, tmp_path, monkeypatch, earlier):
    """Also one that was stopped before it had a model to say so, and one from before there was a choice."""
    config = configure(photos, tiny, train__epochs=1)
    stop_after_the_first_step(monkeypatch)
    with pytest.raises(Interrupted):
        train(config, tmp_path, device="cpu")
    monkeypatch.undo()
    saved = state(tmp_path)
    expected = Decoding(enough=(80, 80))
    assert Decoding(**saved["decoding"]) == expected
    if earlier:
        del saved["decoding"]
        expected = Decoding(profiles=earlier == "profiles")
        saved |= {"profiles": True} if expected.profiles else {}
        torch.save(saved, tmp_path / "state.pt")
    train(config, tmp_path, device="cpu", resume=True)
    assert read_checkpoint(tmp_path, ReidConfig).preprocessing.decoding == expected
    assert Decoding(**state(tmp_path)["decoding"]) == expected


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"id_loss": "arcface"}, {"arcface", "triplet"}),
        ({"id_loss": "arcface", "arcface_scale": 16, "arcface_margin": 0.3}, {"arcface", "triplet"}),
        ({"metric_loss": "circle"}, {"ce", "circle"}),
        ({"metric_loss": "none"}, {"ce"}),
        ({"center_loss": 5e-4}, {"ce", "triplet", "center"}),
        (LEARNED, {"arcface", "circle", "center"}),
    ],
    ids=lambda value: " ".join(sorted(value)),  # a set has another order in every process
)
def test_each_loss_falls_and_is_logged_by_branch(photos, tiny, tmp_path, changes, parts):
    records = train(configure(photos, tiny, epochs=10, **changes), tmp_path / "run", device="cpu")
    for branch in ("sa", "glca", "pwca"):
        first, last = (record["losses"][branch] for record in (records[0], records[-1]))
        assert set(first) == set(last) == parts
        assert all(last[part] < first[part] for part in parts), (branch, first, last)


def test_clipping_holds_what_a_loss_learns_too(photos, tiny, tmp_path):
    options = {"id_loss": "arcface", "optimizer": "sgd", "weight_decay": 0, "lr": 0.1}

    def learned(epochs, clip_norm):
        run = tmp_path / f"{epochs}-{clip_norm}"
        train(configure(photos, tiny, epochs=epochs, clip_norm=clip_norm, **options), run, device="cpu")
        return state(run)["loss"]["parts.arcface.heads.sa.loss.W"]

    assert torch.allclose(learned(1, 1e-9), learned(2, 1e-9), rtol=0, atol=1e-6)
    assert not torch.allclose(learned(1, 0), learned(2, 0), rtol=0, atol=1e-3)


def test_the_model_file_has_nothing_of_learned_losses_and_idle_classifiers_are_zero(photos, tiny, tmp_path):
    train(configure(photos, tiny), tmp_path / "usual", device="cpu")
    train(configure(photos, tiny, **LEARNED, weight_decay=0.5), tmp_path / "learned", device="cpu")
    runs = ("usual", "learned")
    usual, learned = (load_file(tmp_path / run / "model.safetensors") for run in runs)
    assert {name: value.shape for name, value in usual.items()} == {name: v.shape for name, v in learned.items()}
    assert not any(learned[f"heads.{head}.classifier.weight"].any() for head in ("sa", "glca"))
    assert all(usual[f"heads.{head}.classifier.weight"].any() for head in ("sa", "glca"))
    assert not torch.equal(learned["heads.sa.neck.weight"], torch.ones(96))
    # In the optimiser the class weights of the two heads stand in for the classifiers, which are out of it.
    optimised = [sum(len(g["params"]) for g in state(tmp_path / run)["optimizer"]["param_groups"]) for run in runs]
    assert optimised[0] == optimised[1]


def test_accumulation_is_only_interrupted_between_updates(photos, tiny, tmp_path, monkeypatch):
    config = configure(photos, tiny, accumulate=2, train__batch_size=4)
    train(config, tmp_path / "whole", device="cpu")
    real = loop.require_finite
    calls = []

    def stop(previous, loader):
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        real(previous, loader)

    monkeypatch.setattr(loop, "require_finite", stop)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "halves", device="cpu")
    assert state(tmp_path / "halves")["position"]["step"] % 2 == 0
    monkeypatch.setattr(loop, "require_finite", real)
    train(config, tmp_path / "halves", device="cpu", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


@pytest.mark.slow
def test_kill_9_at_a_random_moment_loses_at_most_an_epoch(photos, tiny, tmp_path):
    options = [f"{name}={value}" for name, value in {**tiny, "train.epochs": 40, "data.root": photos}.items()]
    command = [
        sys.executable,
        "-m",
        "reid.train",
        "--dataset",
        "csv",
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "killed"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *options], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    )
    wait_until((tmp_path / "killed" / "metrics.jsonl").exists)
    process.kill()
    process.wait()
    done = len(lines(tmp_path / "killed"))
    assert 1 <= done < 40, "the run was to be killed in its middle"
    config = configure(photos, tiny, epochs=40)
    train(config, tmp_path / "killed", device="cpu", resume=True)
    train(config, tmp_path / "whole", device="cpu")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_finished_run_is_resumed_to_the_same_records(trained, ended):
    config, run = ended
    before = (run / "model.safetensors").stat().st_mtime_ns
    assert train(config, run, device="cpu", resume=True) == trained()[1]
    assert (run / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_with_a_run_is_not_overwritten(tiny, ended):
    config, run = ended
    with pytest.raises(FileExistsError, match=r"already holds a run; continue it with --resume"):
        train(config, run, device="cpu")
    with pytest.raises(ConfigError, match=r"--resume cannot change model.method, train.lr"):
        train(configure(config.data.root, tiny, lr=5, method="pwca"), run, device="cpu", resume=True)


def test_a_run_that_failed_before_it_saved_can_be_begun_again(photos, tiny, tmp_path, capsys):
    options = [f"{name}={value}" for name, value in tiny.items() if name != "model.weights"]
    arguments = ["--dataset", "csv", "--data-root", str(photos), "--output", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*arguments, *options, "--weights", str(tmp_path / "absent.pth")]) == 1
    assert not (tmp_path / "run").exists()
    assert main([*arguments, *options, "--weights", "none"]) == 0
    assert "already holds" not in capsys.readouterr().err


def damage(picture):
    """Spoil a PNG file in its middle, so that only decoding it tells."""
    content = bytearray(picture.read_bytes())
    content[len(content) // 2] ^= 255
    picture.write_bytes(content)


def test_an_evaluation_that_fails_costs_no_training(photos, tiny, tmp_path, capsys):
    damage(photos.parent / "07_2.png")
    options = [f"{name}={value}" for name, value in tiny.items()]
    run = ["--output", str(tmp_path / "run"), "--device", "cpu"]
    assert main(["--dataset", "csv", "--data-root", str(photos), *run, *options]) == 1
    assert "07_2.png: the image is damaged" in capsys.readouterr().err
    assert (tmp_path / "run" / "model.safetensors").exists()
    trained = state(tmp_path / "run")
    assert main([*run, "--resume", "on_error=skip", "junk=none", "train.eval_every=5"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluation"]["protocol"]["junk"] == "none"
    assert torch.equal(trained["random"][0]["cpu"], state(tmp_path / "run")["random"][0]["cpu"])


def test_a_model_without_its_state_is_not_trained_over(ended):
    config, run = ended
    (run / "state.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds a model but no state.pt to resume from"):
        train(config, run, device="cpu", resume=True)


def test_a_resume_on_other_labels_is_refused(photos, tiny, tmp_path):
    config = configure(photos, tiny)
    train(config, tmp_path / "run", device="cpu")
    lines_ = photos.read_text().replace("animal-0", "animal-X").replace("animal-1", "animal-0")
    photos.write_text(lines_.replace("animal-X", "animal-1"))
    with pytest.raises(ValueError, match=r"the training images or their labels are not those the run began with"):
        train(config, tmp_path / "run", device="cpu", resume=True)


def test_a_bad_image_in_a_reading_process_is_one_line(photos, tiny, tmp_path, capsys):
    damage(photos.parent / "00_1.png")
    options = [f"{name}={value}" for name, value in {**tiny, "data.workers": 1, "data.root": photos}.items()]
    assert main(["--dataset", "csv", "--output", str(tmp_path / "run"), "--device", "cpu", *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "00_1.png: the image is damaged" in error
    assert "Traceback" not in error


def test_a_date_is_a_seed():
    assert sorted(draw_partners(8, (20261122, 119, 500)).tolist()) == list(range(8))


def test_a_damaged_state_is_named(ended):
    config, run = ended
    (run / "state.pt").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"state.pt: damaged, or the state of another run"):
        train(config, run, device="cpu", resume=True)


def test_a_full_disk_ends_with_one_error_and_keeps_the_last_state(photos, tiny, tmp_path, monkeypatch):
    """The kernel refuses files above 64 KiB from the second epoch on: torch.save's own error becomes ours."""
    config = configure(photos, tiny, epochs=3)
    real = loop.draw_partners

    def then_full(count, entropy, shares):
        if entropy[1] == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
        return real(count, entropy, shares)

    monkeypatch.setattr(loop, "draw_partners", then_full)
    try:
        with pytest.raises(OSError, match=r"state.pt: could not be written \(.*what was saved before is kept"):
            train(config, tmp_path / "run", device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not list((tmp_path / "run").glob("*.tmp"))
    assert state(tmp_path / "run")["position"]["epoch"] == 1
    monkeypatch.setattr(loop, "draw_partners", real)
    train(config, tmp_path / "run", device="cpu", resume=True)
    train(config, tmp_path / "whole", device="cpu")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_loss_that_is_not_finite_names_the_images_and_what_to_try(photos, tiny, tmp_path):
    with pytest.raises(FloatingPointError, match=r"the loss is nan; try a lower train.lr.*\d\d_\d.png"):
        train(configure(photos, tiny, lr=1e30, epochs=4), tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"clip_norm": 0.5, "accumulate": 2},
        {"ema": 0.5},
        {"optimizer": "sgd", "momentum": 0.5},
        {"loss_weights": "equal"},
        {"partner_stream": "pwca"},
        {"label_smoothing": 0.1, "margin": 0.3},
        {"workers": 1},
    ],
    ids=str,
)
def test_options_train(photos, tiny, tmp_path, changes):
    records = train(configure(photos, tiny, **changes), tmp_path / "run", device="cpu")
    assert len(records) == 2
    if "loss_weights" in changes:
        assert set(records[-1]["log_variances"].values()) == {0.0}


def test_averaged_weights_are_what_is_saved(photos, tiny, tmp_path):
    train(configure(photos, tiny, ema=0.9), tmp_path / "run", device="cpu")
    saved, kept = load_file(tmp_path / "run" / "model.safetensors"), state(tmp_path / "run")
    name = "backbone.blocks.0.attn.qkv.weight"
    assert torch.equal(saved[name], kept["averaged"][f"module.{name}"])
    assert not torch.equal(saved[name], kept["model"][name])


def test_averaging_weights_leaves_counts_and_indices_alone():
    """Swin's windows and the jigsaw look their places up; torch's own average of 11 and 11 at 0.9999 is 10."""
    model = nn.BatchNorm1d(2)
    model.register_buffer("places", torch.arange(100))
    averaged = loop.start(model, nn.Identity(), ReidTrainOptions(ema=0.9999), torch.device("cpu"), "").averaged
    for _ in range(3):
        with torch.no_grad():
            model.weight += 1
        averaged.update_parameters(model)
    assert torch.equal(averaged.module.places, torch.arange(100))
    torch.testing.assert_close(averaged.module.weight, torch.full((2,), 2 + 0.0001 * (1 + 1.9999)))


def test_partners_are_fresh_in_every_step_and_reproducible():
    drawn = {
        tuple(draw_partners(16, (seed, epoch, step)).tolist()) for seed in (0, 1) for epoch in (0, 1) for step in (0, 1)
    }
    assert len(drawn) == 8
    assert torch.equal(draw_partners(16, (3, 2, 1)), draw_partners(16, (3, 2, 1)))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--dataset is missing; one of market1501"),
        (["--dataset", "msmt18"], 2, "unknown dataset 'msmt18'"),
        (["--dataset", "msmt17"], 2, "dataset 'msmt17' needs --data-root"),
        (
            ["--dataset", "csv", "--data-root", "CSV", "train.epoch=3"],
            2,
            "unknown option 'train.epoch'; near ones: train.epochs",
        ),
        (["--dataset", "csv", "--data-root", "CSV", "--epochs", "many"], 2, "train.epochs='many'"),
        (["--dataset", "csv", "--data-root", "CSV", "--image-size", "20x16"], 1, "image size 20x16"),
        (["--dataset", "csv", "--data-root", "CSV", "--backbone", "vit_smal"], 1, "unknown backbone 'vit_smal'"),
        (["--dataset", "csv", "--data-root", "CSV", "--batch-size", "64"], 1, "has 6 identities, fewer than the P=32"),
        (["--dataset", "csv", "--data-root", "ABSENT"], 1, "absent does not exist"),
        (["--dataset", "csv", "--data-root", "CSV", "--config", "ABSENT"], 1, "absent: no such file"),
        (["--resume", "--output", "ABSENT"], 1, "holds no run to resume"),
    ],
)
def test_bad_arguments_cost_one_line(photos, tiny, tmp_path, capsys, arguments, code, message):
    places = {"CSV": str(photos), "ABSENT": str(tmp_path / "absent")}
    arguments = [places.get(argument, argument) for argument in arguments]
    given = {argument.split("=")[0].removeprefix("--").replace("-", "_") for argument in arguments}
    base = [f"{k}={v}" for k, v in tiny.items() if k.split(".")[1] not in given]
    output = [] if "--output" in arguments else ["--output", str(tmp_path / "run")]
    assert main([*arguments, *output, "--device", "cpu", *base]) == code
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("reid-train: error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_the_command_trains_resumes_and_prints_json(photos, tiny, tmp_path, capsys):
    options = [f"{name}={value}" for name, value in tiny.items()]
    run = str(tmp_path / "run")
    assert main(["--dataset", "csv", "--data-root", str(photos), "--output", run, "--device", "cpu", *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["run"] == run
    assert 0 <= printed["evaluation"]["mAP"] <= 1
    assert main(["--output", run, "--resume", "--device", "cpu"]) == 0
    assert main(["--output", run, "--resume", "--device", "cpu", "train.lr=0.5"]) == 2
    assert "--resume cannot change train.lr" in capsys.readouterr().err


def test_the_command_that_began_a_run_resumes_it_after_its_recipe_changed(photos, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["--dataset", "csv", "--data-root", str(photos), "--device", "cpu"]
    command += [f"{name}={value}" for name, value in tiny.items()]
    assert main(command) == 0
    [config] = (tmp_path / "runs").glob("*/config.yaml")
    begun = yaml.safe_load(config.read_text())
    del begun["train"]["validation"], begun["train"]["patience"]  # as of a version that had neither
    config.write_text(yaml.safe_dump(begun))
    assert main([*command, "--resume"]) == 0


def test_several_sets_train_one_model(photos, write_photos, tiny, tmp_path, capsys):
    other = write_photos(tmp_path / "other", identities=4)
    command = ["--dataset", "csv", "--data-root", str(photos), "--dataset", "csv", "--data-root", str(other)]
    command += ["--output", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*command, *(f"{name}={value}" for name, value in tiny.items())]) == 0
    assert (
        json.loads(capsys.readouterr().out)["evaluation"]["protocol"]["trained_on"]
        == "csv images.csv and csv (8 images)"
    )
    checkpoint = read_checkpoint(tmp_path / "run", ReidConfig)
    assert checkpoint.classes == (*(f"animal-{n}" for n in range(6)), "csv 2: animal-0", "csv 2: animal-1")
    assert reid.evaluate.main(["--checkpoint", str(tmp_path / "run"), "--device", "cpu", "--json", "-"]) == 0
    assert "csv (8 images)" in json.loads(capsys.readouterr().out)["protocol"]["trained_on"]
    assert main([*command, "--resume"]) == 0
    assert main([*command[:-2], "--data-root", "more"]) == 2
    assert (
        "--dataset is given 2 times, --data-root 3 times; expected one --data-root for each" in capsys.readouterr().err
    )


def test_a_finished_run_trains_on_for_more_epochs(photos, tiny, tmp_path, capsys):
    """The parameters are those of a run that was stopped and told of the longer schedule at the same place."""
    train(configure(photos, tiny), tmp_path / "run", device="cpu")
    command = ["--output", str(tmp_path / "run"), "--device", "cpu", "--resume"]
    assert main([*command, "--epochs", "3"]) == 0
    said = capsys.readouterr().err
    assert "trains on to 3 epochs, it was begun for 2: from here the learning rate is that of 3" in said
    longer = loop.rate_factor(2 + 2 / 3, configure(photos, tiny, train__epochs=3).train, steps=3)
    records = lines(tmp_path / "run")
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert records[-1]["lr"] == pytest.approx(1e-3 * longer)
    assert read_config(tmp_path / "run" / "config.yaml").train.epochs == 3
    assert main([*command, "--epochs", "1"]) == 2
    assert "train.epochs=1: the run has 3 epochs already" in capsys.readouterr().err
    assert read_config(tmp_path / "run" / "config.yaml").train.epochs == 3, "a refusal changes nothing"


@pytest.fixture
def pretrained(tmp_path):
    """A file of weights for a backbone of this size, from nowhere."""
    torch.manual_seed(3)
    network, _ = build_dcal("vit_toy", (16, 16), 4)
    save_file(network.backbone.state_dict(), str(tmp_path / "weights.safetensors"))
    return str(tmp_path / "weights.safetensors")


def test_the_weights_that_a_training_starts_from_are_scored_beside_it(photos, tiny, pretrained, tmp_path, caplog):
    """By their SA token, as they are, even where GLCA has a copy of the last block."""
    caplog.set_level("INFO")
    config = configure(photos, tiny, weights=pretrained, lr=0.3, eval_every=1)
    records = train(config, tmp_path / "run", device="cpu")
    embedder = Embedder(
        build_dcal("vit_toy", (16, 16), 4, DcalOptions(method="baseline"), weights=pretrained)[0].eval(),
        read_checkpoint(tmp_path / "run", ReidConfig).preprocessing,
    )
    expected = score_of(embedder, photos)
    assert [record["frozen"] for record in records] == pytest.approx([expected] * 2)
    told = [message for message in caplog.messages if f"(before training {100 * expected:.1f})" in message]
    assert len(told) == 2
    worse = records[-1]["evaluation"]["mAP"] < expected
    assert any("training made it worse" in message for message in caplog.messages) == worse
    resumed = train(config, tmp_path / "run", device="cpu", resume=True)
    assert resumed == records


def score_of(embedder, photos):
    dataset = load_dataset("csv", photos)
    query, gallery = (embedder.embed([s.path for s in split]) for split in (dataset.query, dataset.gallery))
    labels = [
        np.array([getattr(s, name) for s in split])
        for split in (dataset.query, dataset.gallery)
        for name in ("identity", "camera")
    ]
    return evaluate_features(query, *labels[:2], gallery, *labels[2:]).mAP


HELD_OUT = {"validation": 0.4, "eval_every": 1, "epochs": 4}


@pytest.fixture
def many(write_photos, tmp_path):
    """Seven identities to train on, of which three are held out by `HELD_OUT`."""
    return write_photos(tmp_path / "many", identities=9)


@pytest.mark.parametrize("stop_at", [2, 3])
def test_a_resumed_run_keeps_the_same_epoch_by_who_is_held_out(many, tiny, pretrained, tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr(holding_out, "LEAST", 2)
    config = configure(many, tiny, weights=pretrained, patience=3, **HELD_OUT)
    whole = train(config, tmp_path / "whole", device="cpu")
    taken, real = [], loop.require_finite

    def stop(previous, loader):
        taken.append(1)
        if len(taken) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        real(previous, loader)

    monkeypatch.setattr(loop, "require_finite", stop)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "halves", device="cpu")
    monkeypatch.setattr(loop, "require_finite", real)
    halves = train(config, tmp_path / "halves", device="cpu", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "halves")
    for name in ("held_out", "kept", "frozen", "score"):
        assert [record.get(name) for record in halves] == [record.get(name) for record in whole]
    # What is kept is the best by who is held out, and what the test scored; the run file says its epoch.
    kept = read_checkpoint(tmp_path / "whole", ReidConfig).epoch
    scores = [whole[0]["held_out"]["frozen"], *(record["held_out"]["score"] for record in whole)]
    assert kept == whole[-1]["kept"] == scores.index(max(scores))
    assert ["evaluation" in record for record in whole] == [*[False] * (len(whole) - 1), True]
    assert len(read_checkpoint(tmp_path / "whole", ReidConfig).classes) == 4
    model, best = (load_file(tmp_path / "whole" / name) for name in ("model.safetensors", "best.safetensors"))
    assert all(torch.equal(model[name], best[name]) for name in best)


def test_where_training_makes_nothing_better_the_weights_stay(many, tiny, pretrained, tmp_path, monkeypatch, caplog):
    """It stops after two evaluations, and goes on where it is told to."""
    monkeypatch.setattr(holding_out, "LEAST", 2)
    worse = iter([0.5, 0.4, 0.5, 0.3, 0.6])
    real = reid.training.reidentification.score

    def scripted(features, *others):
        result = real(features, *others)
        held_out = len(features.query_ids) == len(features.gallery_ids)
        mean = next(worse) if held_out else result.metrics.mAP
        return replace(result, metrics=Fixed(mean, result.metrics))

    class Fixed:
        def __init__(self, mean, metrics):
            self.mAP, self.metrics = mean, metrics

        def __getattr__(self, name):
            return getattr(self.metrics, name)

    monkeypatch.setattr(reid.training.reidentification, "score", scripted)
    caplog.set_level("INFO")
    config = configure(many, tiny, weights=pretrained, method="baseline", patience=2, **HELD_OUT)
    records = train(config, tmp_path / "run", device="cpu")
    assert [record["held_out"]["score"] for record in records] == [0.4, 0.5]
    assert records[-1]["score"] == pytest.approx(records[-1]["frozen"]), "what is tested are the weights it began with"
    assert "training made nothing better" in caplog.text
    assert read_checkpoint(tmp_path / "run", ReidConfig).epoch == 0
    start, kept = load_file(pretrained), load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(kept[f"backbone.{name}"], tensor) for name, tensor in start.items())
    assert train(config, tmp_path / "run", device="cpu", resume=True) == records
    assert "train.patience=0 goes on" in caplog.text
    on = configure(many, tiny, weights=pretrained, method="baseline", **HELD_OUT)
    assert [record["held_out"]["score"] for record in train(on, tmp_path / "run", device="cpu", resume=True)] == [
        *(0.4, 0.5, 0.3, 0.6)
    ]
    assert read_checkpoint(tmp_path / "run", ReidConfig).epoch == 4


def test_a_recipe_by_what_is_there_trains_and_resumes(photos, tiny, tmp_path, capsys, monkeypatch):
    """P, K and epochs of the recipe; six identities of four images."""
    monkeypatch.setattr(sizing, "STEPS", 3)
    monkeypatch.setattr(sizing, "LEAST_EPOCHS", 2)
    options = [f"{name}={value}" for name, value in tiny.items() if not name.startswith("train.")]
    command = [
        "--dataset",
        "csv",
        "--data-root",
        str(photos),
        "--output",
        str(tmp_path / "run"),
        "--device",
        "cpu",
        *options,
    ]
    assert main([*command, "--epochs", "1"]) == 0
    assert "1 epoch of 1 step of 30 images" in capsys.readouterr().err
    assert read_config(tmp_path / "run" / "config.yaml").train.images_per_identity == 0
    assert main([*command, "--resume", "--epochs", "auto"]) == 0
    said = capsys.readouterr().err
    assert "trains on to auto epochs, it was begun for 1" in said
    assert "3 epochs of 1 step of 30 images" in said
    assert len(lines(tmp_path / "run")) == 3


def test_a_run_of_another_task_is_not_resumed(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(load_config("folder", kind=FgvcConfig).as_yaml())
    assert main(["--resume", "--output", str(tmp_path)]) == 2
    assert "config.yaml is for fgvc-train, expected one for reid-train\n" in capsys.readouterr().err


def test_corrupt_training_images_stop_by_path_or_are_skipped(photos, tiny, tmp_path, capsys):
    (photos.parent / "00_1.png").write_bytes(b"")
    options = [f"{name}={value}" for name, value in tiny.items()]
    arguments = ["--dataset", "csv", "--data-root", str(photos), "--device", "cpu", *options]
    assert main([*arguments, "--output", str(tmp_path / "a")]) == 1
    assert "00_1.png: the file is empty" in capsys.readouterr().err
    assert main([*arguments, "--output", str(tmp_path / "b"), "on_error=skip"]) == 0
    assert "1 image cannot be read and is left out" in capsys.readouterr().err


def one_camera(csv):
    csv.write_text(re.sub(r",c\d", ",north", csv.read_text()))


def no_query_in_the_gallery(csv):
    csv.write_text(re.sub(r"query,animal-.", "query,rex", csv.read_text()))


def cut_short(csv):
    os.truncate(csv.parent / "07_3.png", 300)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (one_camera, "all images are of one camera, north, and images of the query's camera do not count"),
        (no_query_in_the_gallery, "none of 2 queries has its identity in the gallery (queries show rex; 6 gallery "),
        (cut_short, "csv gallery: 1 of 6 images cannot be read, the first: "),
    ],
)
def test_what_would_fail_after_the_last_step_is_refused_before_the_first(
    photos, tiny, tmp_path, capsys, spoil, message
):
    spoil(photos)
    options = [f"{name}={value}" for name, value in tiny.items()]
    arguments = ["--dataset", "csv", "--data-root", str(photos), "--device", "cpu", "--output", str(tmp_path / "run")]
    assert main([*arguments, *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_images_in_training_and_test_are_told(photos, tiny, tmp_path, capsys):
    photos.write_text(photos.read_text() + "00_0.png,gallery,animal-0,c0\n")
    options = [f"{name}={value}" for name, value in tiny.items()]
    arguments = ["--dataset", "csv", "--data-root", str(photos), "--device", "cpu", "--output", str(tmp_path / "run")]
    assert main([*arguments, *options, "epochs=1"]) == 0
    assert "1 picture is in both training and test, e.g. " in capsys.readouterr().err


def test_training_without_test_images_works_and_says_so(photos, tiny, tmp_path, capsys):
    rows = [line for line in photos.read_text().splitlines() if ",train," in line or line.startswith("path")]
    photos.write_text("\n".join(rows) + "\n")
    options = [f"{name}={value}" for name, value in tiny.items()]
    arguments = ["--dataset", "csv", "--data-root", str(photos), "--device", "cpu", "--output", str(tmp_path / "run")]
    assert main([*arguments, *options]) == 0
    captured = capsys.readouterr()
    assert "training without evaluation" in captured.err
    assert "evaluation" not in json.loads(captured.out)
    assert (tmp_path / "run" / "model.safetensors").exists()
