"""One training in a folder of its own: started, continued where it was interrupted, and never repeated."""

import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from reid.config import load_config
from reid.inference.checkpoint import KINDS
from reid.names import CONFIG_FILE, METRICS_FILE, Task
from reid.training.runs import changed_options

LOCK_FILE = ".lock"


class TrainingFailed(RuntimeError):
    """A training that ended with an error; the message is its last words."""


def train_once(folder: Path, task: Task, dataset: str, overrides: Mapping[str, Any], device: str = "auto") -> None:
    """Train by a dataset's recipe under `overrides`, in a process of its own, unless `folder` holds the finished run.

    What the training says goes to standard error. Ctrl-C and SIGTERM reach it, and it saves its state first.

    Raises ValueError for a folder with a run of other options, BlockingIOError for one that another process trains
    in, TrainingFailed when the training does.
    """
    config = load_config(dataset, None, overrides, KINDS[task])
    if (folder / CONFIG_FILE).exists():
        changed = changed_options(folder, config)
        if changed:
            raise ValueError(f"{folder} holds a run with other options ({', '.join(changed)}); choose another --runs")
    if len(epochs(folder)) == config.train.epochs:
        return
    options = [f"{name}={'null' if value is None else value}" for name, value in overrides.items()]
    command = [sys.executable, "-m", f"{task}.train", "--dataset", dataset, "--resume", "--device", device]
    command += ["--output", str(folder), *options]
    with _locked(folder) as lock:
        # The training holds the lock too, and so keeps it should this process be killed.
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, pass_fds=[lock.fileno()]
        ) as process:
            last = _relay(process)
        if process.returncode:
            raise TrainingFailed(last or f"ended with code {process.returncode}")


def epochs(folder: Path) -> list[dict[str, Any]]:
    """The records of the epochs trained so far, as in metrics.jsonl; empty for a run that has not begun."""
    path = folder / METRICS_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def _locked(folder: Path) -> Iterator[IO[str]]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK_FILE, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another process is training in {folder}") from None
        yield lock


def _relay(process: "subprocess.Popen[str]") -> str:
    """Pass on what the process says until it ends, and the signals that should stop it; return its last line."""
    assert process.stderr is not None
    last = ""

    def terminate(number: int, frame: Any) -> None:
        process.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        try:
            for last in process.stderr:
                sys.stderr.write(last)
        except KeyboardInterrupt:  # a Ctrl-C at the terminal reaches both; it saves its state before it ends
            for last in process.stderr:
                sys.stderr.write(last)
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return last.strip()
