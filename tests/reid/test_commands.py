"""Commands answer at once: what is asked of them or wrong with it is told before anything slow is imported."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from reid import cli
from tests.fgvc.conftest import write_classes

SLOW = ("torch", "timm", "torchvision", "scipy", "sqlalchemy", "sklearn", "matplotlib", "pytorch_metric_learning")
# Runs every line of arguments in one process, and tells after each what is imported by then.
SCRIPT = """
import contextlib, importlib, io, json, sys
for module, argv in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = importlib.import_module(module).main(argv)
        except SystemExit as end:
            code = end.code
    slow = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    print(json.dumps([code, slow, out.getvalue(), err.getvalue()]))
"""


def run_all(lines: list[tuple[str, list[str]]], slow=SLOW, cwd: Path | None = None) -> list[list]:
    """The exit code, what is imported that is slow, and both outputs, of each line of arguments."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(lines), json.dumps(slow)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


COMMANDS = (
    *("reid.train", "reid.evaluate", "reid.compare", "reid.export", "reid.datacheck", "reid.curves"),
    *("fgvc.train", "fgvc.evaluate", "fgvc.predict", "fgvc.datacheck"),
)


def test_help_and_wrong_arguments_need_nothing_slow(tmp_path):
    lines = [(module, [flag]) for module in COMMANDS for flag in ("--help", "--no-such-flag")]
    for (module, (flag,)), (code, slow, out, err) in zip(lines, run_all(lines, cwd=tmp_path), strict=True):
        assert slow == [], (module, flag)
        if flag == "--help":
            assert code == 0 and out.startswith("usage: "), module
        else:
            assert code == 2 and "error: " in err, module


@pytest.fixture
def taken(tmp_path):
    """A folder that holds a run."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "taken"


def test_what_cannot_be_done_is_refused_before_anything_slow(taken, save_run, photos, tmp_path):
    run, classifier = (str(save_run(tmp_path / task, task)) for task in ("reid", "fgvc"))
    gone, kinds = str(tmp_path / "gone"), write_classes(tmp_path / "kinds")
    reid = ["--dataset", "csv", "--data-root", str(photos)]
    fgvc = ["--dataset", "folder", "--data-root", str(kinds)]
    wrong = [
        ("reid.train", [], 2, "--dataset is missing"),
        ("reid.train", ["--dataset", "nowhere"], 2, "unknown dataset 'nowhere'"),
        ("reid.train", [*reid, "train.lr=fast"], 2, "train.lr='fast'"),
        ("reid.train", [*reid, "features=glca", "--method", "pwca"], 2, "which has no GLCA"),
        ("reid.train", ["--dataset", "msmt17"], 2, "needs --data-root"),
        ("reid.train", ["--dataset", "msmt17", "--data-root", gone], 1, f"the data root {gone} does not exist"),
        ("reid.train", [*reid, "--output", str(taken)], 1, f"{taken} already holds a run"),
        ("reid.train", [*reid, "--config", gone], 1, f"config {gone}: no such file"),
        ("reid.train", ["--output", gone, "--resume"], 1, f"{gone} holds no run to resume"),
        ("reid.evaluate", [], 2, "give either --checkpoint RUN, or --backbone NAME"),
        ("reid.evaluate", ["--checkpoint", gone], 1, f"checkpoint {gone}: no such file"),
        ("reid.evaluate", ["--checkpoint", classifier], 1, "is a classifier (of fgvc-train)"),
        ("reid.evaluate", ["--checkpoint", str(taken)], 1, "cannot be read as safetensors"),
        ("reid.evaluate", ["--checkpoint", run, "--dataset", "csv", "--data-root", gone], 1, "does not exist"),
        ("reid.evaluate", ["--checkpoint", run, "--dataset", "nowhere"], 2, "unknown dataset 'nowhere'"),
        ("reid.evaluate", ["--checkpoint", run, "lr=1"], 2, "fixed by the training"),
        ("reid.evaluate", ["--checkpoint", run, "--json", f"{gone}/a.json"], 1, "there is no folder"),
        ("reid.evaluate", ["--backbone", "vit_toy", "--weights", gone], 1, f"weights '{gone}': no such file"),
        ("reid.evaluate", ["--from-features", gone], 1, f"features {gone}: "),
        ("reid.evaluate", ["compare", gone, gone], 1, f"evaluation {gone}: no such file"),
        ("reid.curves", [gone], 1, f"run {gone}: no such folder"),
        ("reid.curves", [str(taken)], 1, f"run {taken}: no config.yaml in this folder"),
        ("reid.export", ["--checkpoint", gone], 1, f"checkpoint {gone}: no such file"),
        ("reid.export", [], 2, "give --checkpoint RUN, or --backbone NAME"),
        ("reid.export", ["--backbone", "vit_toy", "--weights", gone], 1, f"weights '{gone}': no such file"),
        ("reid.export", ["--checkpoint", run, "--output", "model.pt"], 2, "ends with .onnx"),
        ("reid.datacheck", ["check", "--dataset", "msmt17", "--data-root", gone], 1, "does not exist"),
        ("fgvc.datacheck", ["check", "--dataset", "cub", "--data-root", gone], 1, "does not exist"),
        ("fgvc.datacheck", ["check", *fgvc, "--level", "family"], 2, "only aircraft has levels, not folder"),
        ("fgvc.train", [*fgvc, "--output", str(taken)], 1, f"{taken} already holds a run"),
        ("fgvc.train", ["--dataset", "cub", "--data-root", gone], 1, "does not exist"),
        ("fgvc.evaluate", ["--checkpoint", gone], 1, f"checkpoint {gone}: no such file"),
        ("fgvc.evaluate", ["--checkpoint", classifier, "--dataset", "cub", "--data-root", gone], 1, "does not exist"),
        ("fgvc.evaluate", ["--checkpoint", classifier, *fgvc], 1, "test classes that the model does not know"),
        ("fgvc.predict", ["--checkpoint", gone, str(photos.parent)], 1, f"checkpoint {gone}: no such file"),
        ("fgvc.predict", ["--checkpoint", classifier, "--top", "0", gone], 2, "--top 0"),
    ]  # fmt: skip
    found = run_all([(module, argv) for module, argv, _, _ in wrong], cwd=tmp_path)
    for (module, argv, code, message), (ended, slow, _, err) in zip(wrong, found, strict=True):
        assert slow == [], (module, argv)
        assert ended == code and message in err, (module, argv, err)
        assert err.splitlines()[-1].count("error: ") == 1 and "Traceback" not in err


def test_comparing_and_counting_need_no_torch(photos, tmp_path):
    per_query = {
        "query": ["a", "b", "c"],
        "identity": [1, 2, 3],
        "average_precision": [0.5, 1.0, 0.25],
        "inverse_negative_penalty": [0.5, 1.0, 0.25],
        "first_hit": [2, 1, 4],
    }
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"protocol": {}, "per_query": per_query}))
    lines = [
        ("reid.evaluate", ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]),
        ("reid.datacheck", ["check", "--dataset", "csv", "--data-root", str(photos)]),
    ]
    (compared, checked) = run_all(lines, ("torch", "timm", "torchvision", "matplotlib"))
    assert compared[:2] == [0, []] and "within noise" in compared[2]
    assert checked[:2] == [0, []] and "csv in " in checked[2]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(2, "No such file or directory", "a b.csv"), "a b.csv: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("gone"), "gone"),
        (ValueError("row 3:\n no"), "row 3: no"),
    ],
)
def test_an_error_of_the_system_names_its_file_first(capsys, error, told):
    def command(arguments):
        raise error

    assert cli.run(command, argparse.ArgumentParser("reid-x"), []) == 1
    assert capsys.readouterr().err == f"reid-x: error: {told}\n"
