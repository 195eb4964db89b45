import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.paper import DATASETS, MORE, TABLE_1, TABLE_2, TITLES, Row, table_rows
from benchmarks.paper_plan import forward_operations, plan, time_left
from benchmarks.paper_results import Found, markdown
from benchmarks.paper_tables import main
from reid.inference.checkpoint import build_model
from reid.names import BRANCHES, METRICS_FILE, MODEL_FILE
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
ROWS = {table: {row.name: row for row in table_rows(table)} for table in TITLES}
EVERY_ROW = {name: row for rows in ROWS.values() for name, row in rows.items()}
# DCAL over its baseline, by backbone in the paper's order: the other transcription (see benchmarks/paper.py).
GAINS = {
    "cub": (2.5, 1.8, 0.8, 0.6, 0.7),
    "cars": (2.2, 1.6, 0.9, 0.9, 1.3),
    "aircraft": (2.7, 1.9, 2.3, 1.5, 0.9),
    "veri776": (2.8, 1.4, 1.7, 2.1),
    "msmt17": (2.8, 1.8, 1.8, 2.4),
    "market1501": (1.9, 1.0, 0.6, 0.4),
    "dukemtmc": (2.2, 1.7, 1.1, 1.2),
}
TINY = ["model.backbone=vit_toy", "model.weights=none", "image_size=16x16", "train.batch_size=8", "train.epochs=1"]
REID = ["pad=2", "images_per_identity=2", "workers=0"]
FGVC = ["resize=20x20", "workers=0"]


def test_published_figures_agree_with_a_second_transcription():
    for dataset, gains in GAINS.items():
        if DATASETS[dataset] == "fgvc":
            pairs = [cells[dataset] for cells in TABLE_1.values()]
        else:
            pairs = [(baseline[0], dcal[0]) for baseline, dcal in (cells[dataset] for cells in TABLE_2.values())]
        assert [round(dcal - baseline, 1) for baseline, dcal in pairs] == list(gains), dataset


def test_published_figures_agree_with_the_papers_text():
    assert [TABLE_1["r50_vit_base"][name][1] for name in ("cub", "cars", "aircraft")] == [92.0, 95.3, 93.3]
    mAP = [TABLE_2["vit_base"][name][1][0] for name in ("veri776", "msmt17", "market1501", "dukemtmc")]
    assert mAP == [80.2, 64.0, 87.5, 80.1]


def test_tables_have_the_papers_rows_and_agree_with_each_other():
    assert [len(rows) for rows in ROWS.values()] == [5 * 3 * 2, 4 * 4 * 2, len(MORE)]
    for name, row in ROWS["more"].items():
        for table in ("1", "2"):
            if name in ROWS[table]:
                assert row.published == ROWS[table][name].published, name


@pytest.fixture(scope="module")
def heads_of():
    """A function that builds the model of a config and gives its heads; rows of one model build it once."""
    known = {}

    def heads_of(config):
        key = config.task, config.model.model_dump_json(), config.train.checkpointing, config.data.image_size
        if key not in known:
            with torch.device("meta"):  # tensors without content
                built, _ = build_model(config, config.data.image_size, classes=100)
            known[key] = set(built.heads)
        return known[key]

    return heads_of


@pytest.mark.parametrize("name", [name for name, row in EVERY_ROW.items() if row.branch == "both"])
def test_every_row_is_the_papers_recipe_and_builds(heads_of, name):
    row = EVERY_ROW[name]
    config = row.config()
    train, data, model = config.train, config.data, config.model
    assert (data.dataset, model.backbone, model.method) == (row.dataset, row.backbone, row.method)
    if row.task == "reid":  # section 4.1
        assert (train.batch_size, train.images_per_identity, train.epochs, model.ratio) == (64, 4, 120, 0.3)
        assert (train.optimizer, train.momentum, train.weight_decay, train.lr) == ("sgd", 0.9, 1e-4, 0.008)
        assert data.image_size == ((256, 256) if row.dataset == "veri776" else (256, 128))
    else:
        assert (train.batch_size, train.epochs, model.ratio) == (16, 100, 0.1)
        assert (train.optimizer, train.weight_decay, train.lr) == ("adamw", 0.05, 5e-4 / 512 * 16)
        assert (data.image_size, data.resize) == ((448, 448), (550, 550))
    assert heads_of(config) == set(BRANCHES[row.method]) - {"pwca"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in EVERY_ROW.items() if row.branch == "both"])
def test_every_row_takes_a_batch_of_its_size(name):
    config = EVERY_ROW[name].config()
    assert forward_operations(config.task, config.model, config.data.image_size) > 1e9


def test_a_forward_pass_takes_the_operations_of_what_is_read():
    """By a multiply-add counted as two; heads, of a thousandth, are left out."""
    tokens, width = 257, 768
    linear, attention = 2 * tokens * 12 * width**2, 4 * tokens**2 * width
    # Of a last layer the keys and values of all tokens, and what the class token asks.
    class_token = 2 * (2 * tokens + 10) * width**2 + 4 * tokens * width
    patches = 2 * 256 * (3 * 16**2) * width
    shared = linear / 4  # queries, keys and values of the first layer, from which on streams differ
    expected = {
        "baseline": patches + 11 * (linear + attention) + class_token,
        "glca": patches + 12 * (linear + attention) + class_token,
        "pwca": patches + 11 * (2 * linear + 3 * attention) - shared + 2 * class_token + 4 * tokens * width,
    }
    for method, operations in expected.items():
        config = EVERY_ROW[f"veri776-vit_base-{method}"].config()
        assert forward_operations("reid", config.model, config.data.image_size) == pytest.approx(operations, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--table", "2", "--rows", "cub-*"],
            "--rows cub-*: no such row in table 2; rows: veri776-deit_tiny-baseline, ",
        ),
        (["--table", "2", "--set", "resize=20x20"], "--set resize=20x20: unknown option 'resize'"),
        (["--table", "1", "--set", "model.method=glca"], "--set model.method: the table fixes it"),
        (["--table", "2", "--set", "eval.rerank=zhong"], "--set eval.rerank: the table fixes it"),
        (["--table", "2", "--set", "batch_size=8"], "option 'batch_size' could be"),
        (["--table", "2", "--set", "train.epochs=none"], "train.epochs='none'"),
        (["--table", "2"], "--data-root is missing"),
    ],
)
def test_wrong_arguments_are_told_before_anything_runs(arguments, message, capsys, tmp_path):
    assert main([*arguments, "--runs", str(tmp_path / "runs")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_table_without_runs_shows_what_was_published(tmp_path, capsys):
    assert main(["--table", "more", "--table-only", "--runs", str(tmp_path), "--json", str(tmp_path / "out.json")]) == 0
    text = capsys.readouterr().out
    assert "| cub-deit_tiny-dcal-sa | text, limitations |  | 84.3 |  | not run |  |" in text
    assert "| veri776-vit_base-glca | Table 3 |  | not verified |  |  | not verified |  | not run |  |" in text
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["row"] for row in rows] == list(ROWS["more"])
    assert all(row["measured"] is None and set(row["difference"].values()) == {None} for row in rows)


def test_a_shortened_run_says_so_and_weights_of_a_file_are_named(tmp_path, capsys):
    row = ROWS["1"]["cub-deit_tiny-dcal"]
    folder = tmp_path / row.run
    folder.mkdir()
    (folder / "config.yaml").write_text(row.config({"train.epochs": 7, "model.weights": "own.pth"}).as_yaml())
    values = {
        "accuracy": {"sum": {"top1": 0.5}},
        "protocol": {"prediction": "sum"},
        "machine": "a card",
        "warnings": [],
    }
    (folder / "evaluation-both.json").write_text(json.dumps(values))
    assert main(["--table", "1", "--table-only", "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "| cub-deit_tiny-dcal \\* | 50.0 | 84.6 | -34.6 | sum |  |" in text
    assert "(all rows): train.epochs=7 (instead of 100).\n" in text
    assert "weights from files instead of timm's hub: own.pth." in text


def test_a_folder_that_cannot_be_read_is_told_in_its_row(tmp_path, capsys):
    (tmp_path / "cub-deit_tiny-glca").mkdir()
    (tmp_path / "cub-deit_tiny-glca" / "config.yaml").write_text("data: [1\n")
    assert main(["--table", "more", "--table-only", "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert f"| {tmp_path / 'cub-deit_tiny-glca'} cannot be read: " in text
    assert "| cub-deit_tiny-pwca | Table 4 |  | 83.1 |  | not run |" in text


def test_the_difference_is_measured_less_published_and_what_is_not_the_papers_is_told():
    row = ROWS["2"]["msmt17-vit_base-dcal"]
    found = Found(row, {"mAP": 63.44, "rank1": 83.2}, {"version": "v1", "features": "concat"}, "a card", seconds=3700)
    text = markdown("2", [found])
    assert "| msmt17-vit_base-dcal | 63.4 | 64.0 | -0.6 | 83.2 | 83.1 | +0.1 | v1, concat | 1h01m |" in text
    assert "Not the" not in text
    text = markdown("2", [replace(found, changed=("train.epochs=1 (instead of 120)",), warnings=("half of it",))])
    assert "| msmt17-vit_base-dcal \\* † | 63.4 |" in text
    assert "\\* **Not the paper's recipe** (all rows): train.epochs=1 (instead of 120)." in text
    assert "† **Not the official data**: half of it." in text


def test_the_time_left_follows_what_the_finished_rows_took(tmp_path):
    done, rest = ROWS["2"]["msmt17-vit_base-baseline"], ROWS["2"]["msmt17-vit_base-dcal"]
    settings = {"reid": {"train.epochs": 4}}
    assert time_left([], [rest], settings, tmp_path) is None
    for row, epochs in ((done, 4), (rest, 1)):
        (tmp_path / row.run).mkdir()
        (tmp_path / row.run / METRICS_FILE).write_text('{"seconds": 100}\n' * epochs)
    ratio = 44.07 / 21.12  # operations of the two forward passes, in GFLOP
    assert time_left([done], [rest], settings, tmp_path) == pytest.approx(3 * 100 * ratio, rel=0.01)


def test_the_plan_gives_the_papers_own_time_to_its_own_row(tmp_path):
    row = ROWS["2"]["msmt17-vit_base-dcal"]
    line = "| msmt17-vit_base-dcal | 256x128 | 64 | 120 | 61,080 | sgd 0.008 | 518 | 9.5 | 0 | not looked for |"
    assert line in plan([row], {"reid": {}}, tmp_path)
    missing = plan([row], {"reid": {"data.root": str(tmp_path)}}, tmp_path)
    assert "| missing: msmt17: expected train, test, list_query.txt" in missing


def command(root: Path, folder: Path, *arguments: str) -> list[str]:
    module = [sys.executable, "-m", "benchmarks.paper_tables", "--data-root", str(root), "--runs", str(folder)]
    return [*module, "--device", "cpu", *arguments]


def run(root: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(root, folder, *arguments), cwd=ROOT, capture_output=True, text=True)


def models(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob(f"*/{MODEL_FILE}")}


@pytest.fixture
def run_here(started_warm, capsys):
    """`run` in this process."""

    def run(root, folder, *arguments):
        capsys.readouterr()
        code = main(command(root, folder, *arguments)[3:])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


@pytest.mark.slow
def test_table_1_trains_and_repeats_nothing(run_here, miniatures, tmp_path):
    arguments = ("--table", "1", "--rows", "*-deit_tiny-*", "--results", str(tmp_path / "kept"), "--set", *TINY, *FGVC)
    first = run_here(miniatures, tmp_path / "runs", *arguments)
    assert first.returncode == 0, first.stderr
    assert len(models(tmp_path / "runs")) == 6
    values = json.loads((tmp_path / "kept" / "paper-table-1.json").read_text())["rows"]
    assert all(0 <= row["measured"]["top1"] <= 100 and row["changed"] and row["warnings"] for row in values)
    assert [row["protocol"]["prediction"] for row in values] == ["sa", "sum"] * 3
    before = models(tmp_path / "runs")
    second = run_here(miniatures, tmp_path / "runs", *arguments)
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert (tmp_path / "kept" / "paper-table-1.md").read_text() == first.stdout
    assert models(tmp_path / "runs") == before


@pytest.mark.slow
def test_table_2_tells_a_missing_set_and_runs_the_others(run_here, miniatures, tmp_path):
    shutil.copytree(miniatures, tmp_path / "data")
    (tmp_path / "data" / "VeRi").rename(tmp_path / "elsewhere")
    rows = ["veri776-deit_tiny-dcal", "msmt17-deit_tiny-baseline"]
    rows += ["market1501-deit_tiny-dcal", "dukemtmc-deit_tiny-dcal"]
    arguments = ("--table", "2", "--rows", *rows, "--set", *TINY, *REID)
    done = run_here(tmp_path / "data", tmp_path / "runs", *arguments)
    assert done.returncode == 1
    assert "1 of 4 rows are not measured" in done.stderr
    assert "| veri776-deit_tiny-dcal |  | 74.1 |  |  | 94.7 |  | not run: veri776: expected image_train" in done.stdout
    assert sorted(models(tmp_path / "runs")) == sorted(rows[1:])
    assert "train+val, sa | " in done.stdout
    refused = run_here(tmp_path / "data", tmp_path / "runs", *arguments, "train.lr=0.1")
    assert "holds a run with other options (train.lr)" in refused.stdout


@pytest.mark.slow
def test_more_shares_runs_between_rows_and_goes_on_after_a_stop(miniatures, tmp_path):
    settings = [text for text in TINY if "epochs" not in text] + ["train.epochs=30", *FGVC]
    arguments = ("--table", "more", "--rows", "cub-deit_tiny-dcal*", "msmt17-swin_tiny-pwca", "--set", *settings)
    arguments += ("images_per_identity=2", "pad=2")
    folder = tmp_path / "runs"
    metrics = folder / "cub-deit_tiny-dcal" / METRICS_FILE
    with subprocess.Popen(
        command(miniatures, folder, *arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(metrics.exists)
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
    assert process.returncode == 1
    assert "interrupted; the same command goes on from here" in said
    half = run(miniatures, folder, *arguments, "--table-only")
    assert "of 30 epochs trained" in half.stdout
    done = run(miniatures, folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert "resuming after" in done.stderr
    assert len(metrics.read_text().splitlines()) == 30
    assert sorted(models(folder)) == ["cub-deit_tiny-dcal", "msmt17-swin_tiny-pwca"]
    assert "| cub-deit_tiny-dcal \\* † | Table 1 |" in done.stdout
    assert "| cub-deit_tiny-dcal-sa \\* † | text, limitations |" in done.stdout


def test_weights_are_looked_for_by_the_name_of_the_backbone(miniatures, tmp_path, capsys):
    arguments = ["--table", "2", "--rows", "msmt17-deit_tiny-dcal", "--data-root", str(miniatures)]
    assert main([*arguments, "--runs", str(tmp_path / "runs"), "--weights", str(tmp_path)]) == 1
    assert f"no weights in {tmp_path}: expected deit_tiny.safetensors, deit_tiny.pth" in capsys.readouterr().out


def test_rows_of_one_training_have_names_of_their_own():
    row = ROWS["more"]["cub-deit_tiny-dcal-sa"]
    assert isinstance(row, Row)
    assert row.run == ROWS["1"]["cub-deit_tiny-dcal"].run
