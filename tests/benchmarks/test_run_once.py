import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.run_once import LOCK_FILE, TrainingFailed, epochs, train_once
from reid.names import MODEL_FILE, STATE_FILE
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(photos, tiny):
    return {**tiny, "data.root": str(photos), "train.epochs": 1}


@pytest.mark.slow
def test_a_run_is_trained_once_and_by_one_recipe(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "run"
    train_once(folder, "reid", "csv", recipe, "cpu")
    assert [record["epoch"] for record in epochs(folder)] == [1]
    before = (folder / MODEL_FILE).stat().st_mtime_ns
    train_once(folder, "reid", "csv", {**recipe, "data.workers": 0}, "cpu")
    assert (folder / MODEL_FILE).stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"other options \(train.lr, train.seed\); choose another --runs"):
        train_once(folder, "reid", "csv", {**recipe, "train.lr": 0.5, "train.seed": 3}, "cpu")


def test_two_processes_never_train_in_one_folder(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / LOCK_FILE, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="another process is training in"):
            train_once(tmp_path / "run", "reid", "csv", recipe, "cpu")


@pytest.mark.slow
def test_a_failed_training_says_why(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(TrainingFailed, match="reid-train: error: weights '/no/such/file'"):
        train_once(tmp_path / "run", "reid", "csv", {**recipe, "model.weights": "/no/such/file"}, "cpu")
    assert "error: weights" in capsys.readouterr().err
    assert epochs(tmp_path / "run") == []


@pytest.mark.slow
def test_a_stopped_run_has_saved_and_goes_on(recipe, tmp_path):
    recipe["train.epochs"] = 40
    folder = tmp_path / "run"
    code = f"from benchmarks.run_once import *; train_once(Path({str(folder)!r}), 'reid', 'csv', {recipe!r}, 'cpu')"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: epochs(folder))
        process.terminate()
        said = process.communicate()[1]
    assert "saved after" in said
    assert (folder / STATE_FILE).exists()
    assert 0 < len(epochs(folder)) < 40
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resuming after" in done.stderr
    assert [record["epoch"] for record in epochs(folder)] == list(range(1, 41))
