import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from fgvc.train import main, train
from reid.config import ConfigError, FgvcConfig, load_config
from reid.training import loop
from reid.training.loop import Interrupted


def configure(kinds, tiny, **changes):
    return load_config("folder", None, {**tiny, "data.root": str(kinds), **changes}, FgvcConfig)


def test_a_run_folder_holds_what_the_contract_names(kinds, tiny, tmp_path):
    records = train(configure(kinds, tiny), tmp_path / "run", device="cpu")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "metrics.jsonl", "model.safetensors", "best.safetensors", "state.pt"} <= names
    last = records[-1]
    assert set(last["losses"]) == set(last["log_variances"]) == {"sa", "glca", "pwca"}
    assert set(last["losses"]["pwca"]) == {"ce"}
    evaluation = last["evaluation"]
    assert set(evaluation["accuracy"]) == {"sum", "sa", "glca"}
    assert (evaluation["images"], evaluation["classes"]) == (9, 3)
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    assert {name for name in tensors if name.startswith("heads.")} == {
        f"heads.{branch}.classifier.{part}" for branch in ("sa", "glca") for part in ("weight", "bias")
    }


@pytest.mark.parametrize("method", ["dcal", "baseline", "glca", "pwca"])
def test_every_method_learns_colours(kinds, tiny, tmp_path, method):
    records = train(configure(kinds, tiny, **{"train.epochs": 15, "method": method}), tmp_path / "run", device="cpu")
    assert records[-1]["losses"]["sa"]["ce"] < 0.5 * records[0]["losses"]["sa"]["ce"]
    assert records[-1]["evaluation"]["accuracy"]["sa"]["top1"] >= 8 / 9


def test_a_resumed_run_ends_as_the_uninterrupted_one(kinds, tiny, tmp_path, monkeypatch):
    """Stopped in the middle of an epoch."""
    config = configure(kinds, tiny, **{"train.epochs": 3, "train.eval_every": 1, "train.label_smoothing": 0.1})
    whole = train(config, tmp_path / "whole", device="cpu")
    drawn, real = [], loop.require_finite

    def stop(previous, loader):
        drawn.append(1)
        if len(drawn) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        real(previous, loader)

    monkeypatch.setattr(loop, "require_finite", stop)
    with pytest.raises(Interrupted, match="saved after 1 epoch and"):
        train(config, tmp_path / "halves", device="cpu")
    monkeypatch.setattr(loop, "require_finite", real)
    halves = train(config, tmp_path / "halves", device="cpu", resume=True)
    one, other = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "halves"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [record["evaluation"] for record in whole] == [record["evaluation"] for record in halves]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--dataset is missing; one of cub, cars, aircraft, folder"),
        (["--dataset", "birds"], 2, "unknown dataset 'birds'; one of cub"),
        (["--dataset", "cub"], 2, "dataset 'cub' needs --data-root"),
        (["--dataset", "cub", "--data-root", "KINDS"], 1, "cub: expected images, images.txt"),
        (["--dataset", "folder", "--data-root", "KINDS", "level=family"], 1, "only aircraft has levels"),
        (["--dataset", "folder", "--data-root", "KINDS", "margin=1"], 2, "unknown option 'margin'"),
        (["--dataset", "folder", "--data-root", "KINDS", "--image-size", "20x16"], 1, "image size 20x16"),
        (["--dataset", "folder", "--data-root", "KINDS", "--batch-size", "16"], 1, "has 15 images, fewer than a batch"),
        (["--dataset", "folder", "--data-root", "KINDS", "prediction=glca", "method=pwca"], 2, "which has no GLCA"),
    ],
)
def test_bad_arguments_cost_one_line(kinds, tiny, tmp_path, capsys, arguments, code, message):
    arguments = [str(kinds) if argument == "KINDS" else argument for argument in arguments]
    given = {argument.split("=")[0].removeprefix("--").replace("-", "_") for argument in arguments}
    base = [f"{name}={value}" for name, value in tiny.items() if name.split(".")[1] not in given]
    assert main([*arguments, "--output", str(tmp_path / "run"), "--device", "cpu", *base]) == code
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("fgvc-train: error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert captured.out == ""


def test_the_command_trains_resumes_and_prints_json(kinds, tiny, tmp_path, capsys):
    options = [f"{name}={value}" for name, value in tiny.items()]
    run = str(tmp_path / "run")
    assert main(["--dataset", "folder", "--data-root", str(kinds), "--output", run, "--device", "cpu", *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["run"] == run
    assert 0 <= printed["evaluation"]["accuracy"]["sum"]["top1"] <= 1
    assert main(["--output", run, "--resume", "--device", "cpu"]) == 0
    assert main(["--output", run, "--resume", "--device", "cpu", "train.lr=0.5"]) == 2
    assert "--resume cannot change train.lr" in capsys.readouterr().err


def test_training_without_test_images_works_and_says_so(tiny, tmp_path, capsys, write_classes):
    root = write_classes(tmp_path / "kinds", test=0)
    options = [f"{name}={value}" for name, value in tiny.items()]
    run = ["--output", str(tmp_path / "run"), "--device", "cpu"]
    assert main(["--dataset", "folder", "--data-root", str(root), *run, *options]) == 0
    captured = capsys.readouterr()
    assert "folder has nothing to evaluate on: training without evaluation" in captured.err
    assert "evaluation" not in json.loads(captured.out)


def test_test_images_alone_are_nothing_to_train_on(tiny, tmp_path, link):
    link(tmp_path / "kinds", ["test/a/1.jpg"])
    with pytest.raises(ValueError, match="folder at .* has no training images"):
        train(configure(tmp_path / "kinds", tiny), tmp_path / "run", device="cpu")


def test_corrupt_images_stop_by_path_or_are_skipped(kinds, tiny, tmp_path, capsys):
    (kinds / "train" / "kind-0" / "0.png").write_bytes(b"")
    options = [f"{name}={value}" for name, value in tiny.items()]
    arguments = ["--dataset", "folder", "--data-root", str(kinds), "--device", "cpu", *options]
    assert main([*arguments, "train.epochs=4", "--output", str(tmp_path / "a")]) == 1
    assert "0.png: the file is empty" in capsys.readouterr().err
    assert main([*arguments, "--output", str(tmp_path / "b"), "on_error=skip"]) == 0
    assert "1 image cannot be read and is left out" in capsys.readouterr().err


def test_a_changed_option_of_the_data_is_not_resumed(kinds, tiny, tmp_path):
    train(configure(kinds, tiny), tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match="--resume cannot change data.resize"):
        train(configure(kinds, tiny, **{"data.resize": "24x24"}), tmp_path / "run", device="cpu", resume=True)
