"""Every benchmark runs and prints its table; what it measures is not asserted."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from runpy import run_module

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from benchmarks import search
from benchmarks.naming import by_chance
from reid.models.specs import BACKBONES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(*arguments: object) -> str:
    command = [sys.executable, "-m", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def accuracy(started_warm, monkeypatch, capsys):
    """A function that runs the benchmark of that name in this process and gives what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["accuracy", *map(str, arguments)])
        capsys.readouterr()
        run_module("benchmarks.accuracy", run_name="__main__")
        return capsys.readouterr().out

    return run


def test_accuracy_repeats_nothing(accuracy, photos, tiny, tmp_path):
    methods = ("baseline", "dcal")
    recipe = {**tiny, "model.backbone": None, "model.weights": None, "train.epochs": 1}
    options = [f"{name}={value}" for name, value in recipe.items() if value is not None]
    command = ["--name", "smoke", "--data-root", photos, "--weights", "none"]
    command += ["--backbone", "vit_toy", "--methods", *methods, "--seeds", 0, 1, "--device", "cpu"]
    command += ["--runs", tmp_path / "runs", "--results", tmp_path / "results", *options]
    table = accuracy(*command)
    assert all(f"| {method} |" in table for method in methods)
    assert table.count("±") >= 4
    files = [tmp_path / "runs" / "smoke" / f"{method}-1" / "model.safetensors" for method in methods]
    before = [path.stat().st_mtime_ns for path in files]
    assert accuracy(*command) == table
    assert [path.stat().st_mtime_ns for path in files] == before
    assert (tmp_path / "results" / "accuracy-smoke.json").exists()


def test_accuracy_of_categories(accuracy, tmp_path):
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("a", "b"):
            (tmp_path / "kinds" / split / kind).mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "kinds" / split / kind / f"{number}.png")
    command = ["--task", "fgvc", "--dataset", "folder", "--data-root", tmp_path / "kinds"]
    command += ["--name", "smoke", "--weights", "none", "--backbone", "vit_toy", "--seeds", 0, 1, "--device", "cpu"]
    command += ["--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    table = accuracy(*command, "image_size=16x16", "train.batch_size=4", "epochs=1")
    assert "| method | prediction | top-1 | each seed | top-5 | top-1 over baseline |" in table
    rows = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in table.splitlines()[2:]]
    assert rows == [
        ("baseline", "sa"),
        *(("glca", prediction) for prediction in ("sum", "sa", "glca")),
        ("pwca", "sa"),
        *(("dcal", prediction) for prediction in ("sum", "sa", "glca")),
    ]


def test_train_step_prints_its_ratio():
    few = ("--batch-size", 8, "--rounds", 1, "--warmup", 0, "--image-size", "32x32", "--checkpointing")
    table = run("benchmarks.train_step", "--backbone", "vit_toy", *few)
    assert "DCAL over plain:" in table
    assert "Checkpointed over DCAL:" in table
    assert table.count("\n") >= 8


def test_runtimes_prints_a_row_for_each_way(tmp_path):
    few = ("--random", "vit_toy", "--ways", "onnx", "int8 dynamic", "--batch", 2, "--rounds", 1)
    table = run("benchmarks.runtimes", *few, "--json", tmp_path / "rows.json")
    rows = {row["way"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert list(rows) == ["float32", "onnx", "int8 dynamic"]
    assert rows["onnx"]["good"] and rows["onnx"]["least"] > 0.9999 > rows["int8 dynamic"]["least"]
    assert "| onnx | 2 | " in table


def test_backbones_counts_what_glca_adds(tmp_path):
    few = ("--batch-size", 2, "--rounds", 1, "--image-size", "32x32", "--json", tmp_path / "rows.json")
    table = run("benchmarks.backbones", "--backbones", "vit_toy", "swin_tiny", "siglip_base", *few)
    toy, swin, _ = json.loads((tmp_path / "rows.json").read_text())
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, **BACKBONES["vit_toy"].overrides)
    block, norm = (sum(p.numel() for p in part.parameters()) for part in (model.blocks[0], model.norm))
    assert toy["parameters"] == sum(p.numel() for p in model.parameters())
    assert toy["glca_parameters"] == pytest.approx((block + norm) / toy["parameters"])
    assert 0 < toy["glca_operations"] < 1
    assert (swin["method"], swin["glca_parameters"]) == ("pwca", None)
    assert "| swin_tiny |" in table and "no GLCA" in table


def test_evaluate_agrees_with_the_usual_way():
    table = run("benchmarks.evaluate", "--queries", 100, "--gallery", 2000, "--dim", 16, "--rounds", 1)
    assert "largest difference" in table


def test_search_is_exact_beside_its_rivals():
    table = run("benchmarks.search", "--rows", 1000, "--dim", 16, "--rounds", 1)
    assert "free: in one process" in table and "largest difference" in table


def test_search_gives_each_rival_a_process_where_memory_is_short(monkeypatch, capsys, tmp_path):
    command = ["--rows", "1000", "--dim", "128", "--rounds", "1", "--json", str(tmp_path / "rows.json")]
    assert search.main(command) == 0
    together = json.loads((tmp_path / "rows.json").read_text())
    capsys.readouterr()
    monkeypatch.setattr(search, "free_memory", lambda: 2**20)
    assert search.main(command) == 0
    told = capsys.readouterr().out
    assert "1000 rows of 128: all at once need 0.0 GiB, 0.0 free: one process after another" in told
    assert all(re.search(rf"\n{name}: ([\d.]+ ){{9}}ms; at most [\d,]+ MiB; ", told) for name in search.WAYS)
    apart = json.loads((tmp_path / "rows.json").read_text())
    assert [row.keys() for row in apart] == [row.keys() for row in together]
    same = ("rows", "dimension", "k", "queries", "filter")
    assert [[row[key] for key in same] for row in apart] == [[row[key] for key in same] for row in together]


def test_search_finds_in_a_file_what_it_finds_in_memory(tmp_path):
    with open(tmp_path / "vectors", "wb") as file:
        queries, cameras = search.draw(file, 1000, 128)
    cases, _ = search.alone("engine", str(tmp_path / "vectors"), cameras, queries, 1)
    vectors = np.fromfile(tmp_path / "vectors", np.float32).reshape(1000, 128)
    products = queries @ vectors.T
    passing = {"none": cameras >= 0, "1 of 15 cameras": cameras == 0, "all but 1 of 15": cameras != 0}
    assert [(filtered, count) for filtered, count, *_ in cases] == [(key, n) for key in passing for n in search.BATCHES]
    for filtered, count, _, scores in cases:
        best = -np.sort(-products[:count, passing[filtered]])[:, : search.COUNT]
        np.testing.assert_allclose(scores["engine"], best, atol=1e-5)


def test_rerank_prints_its_stages():
    table = run("benchmarks.rerank", "--queries", 100, "--gallery", 2000, "--dim", 16)
    assert "estimated memory" in table
    assert "mAP before" in table


def test_service_answers_every_request(tmp_path):
    sizes = ("--backbone", "vit_tiny", "--rows", 50, "--clients", 1, 3, "--seconds", 0.3)
    table = run("benchmarks.service", *sizes, "--device", "cpu", "--json", tmp_path / "found.json")
    assert "the service over the naive one, 3 clients:" in table
    found = json.loads((tmp_path / "found.json").read_text())["measured"]
    assert [row["what"] for row in found] == ["service", "service", "naive", "enrol over HTTP", "reid-enrol"]
    assert not any(row.get("errors") for row in found)
    for model in ("forward", "as_one"):
        assert all(row[f"of_{model}"] == row["rate"] / row[model] for row in found)
    assert all(0 < row["asking"] < 1 for row in found if row["what"] != "reid-enrol")


def test_stages_add_up_to_all_of_the_processor_time():
    few = ("--models", "vit_tiny:32x16", "--megapixels", 0.3, "--seconds", 0.5, "--photos", 8)
    rows = [line.split("|")[1:-1] for line in run("benchmarks.stages", *few).splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]][1:] == ["query, 0.3 MP", "enrolment, 0.3 MP"]
    told = {row[0].strip(): [float(cell or 0) for cell in map(str.strip, row[1:])] for row in rows[2:]}
    whole = told.pop("all")
    np.testing.assert_allclose(np.sum(list(told.values()), axis=0), whole, atol=0.01 * len(told))
    assert all(queried > 0 for queried, _ in (told["model"], told["decode"], told["query log, with fsync"]))
    assert told["query log, with fsync"][1] == 0 == told["copies, with fsync"][0]


def test_naming_counts_questions_of_every_method_on_anybodys_vectors(tmp_path):
    random = np.random.default_rng(0)
    names = np.repeat(np.arange(10), 6)
    vectors = (random.normal(size=(10, 16))[names] + 0.3 * random.normal(size=(60, 16))).astype(np.float32)
    features = {f"{split}_features": vectors for split in ("query", "gallery")}
    np.savez(tmp_path / "set.npz", **features, query_ids=names, gallery_ids=names)
    command = ["benchmarks.naming", "--from-features", tmp_path / "set.npz", "--seeds", 2, "--reviewer-errors", 0, 0.05]
    table = run(*command, "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    asking = {"ours", "falling_similarity", "ten_nearest", "local_clusterings", "nested_sampling"}
    for method in (*asking, "threshold_components", "average_linkage", "hdbscan"):
        assert {"questions", "joins", "wrong_joins", "coverage", "width"} <= found[method].keys()
        assert found[method]["questions"].keys() == {"0.90", "0.95"}
        assert f"| {method} |" in table
    assert 0 < found["ours"]["questions"]["0.90"] <= found["ours"]["questions"]["0.95"] < 60
    assert found["errors"]["0.05"].keys() == asking
    assert 0 < found["local_clusterings"]["questions"]["0.95"] < 200
    likely = found["ours"]["likely"]
    assert all(0 < one["items"] <= 2 * 48 and 0 <= one["right"] <= 1 for one in likely)
    assert [one["probability"] for one in likely] == sorted(one["probability"] for one in likely)
    told = [one["ours"]["likely"] for one in found["errors"].values()]
    assert table.count("suggestions at .90, reviewer ") == sum(map(bool, told))
    nested = found["nested_sampling"]
    assert nested["questions"]["0.90"] is None and nested["coverage"] == 1 and 0 < nested["width"] < 1


def test_ingest_measures_every_part():
    table = run("benchmarks.ingest", "--count", 1, "--size", "64x32")
    assert "the copy that is kept" in table and " photos/s, 1.0 times the former way |" in table


def test_ingest_ranks_what_was_decoded_smaller(tmp_path):
    weights = tmp_path / "vit_tiny.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), weights)
    rows = []
    for number, split in enumerate(("query", "gallery", "gallery")):
        Image.new("RGB", (40, 30), (80 * number, 60, 200)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{split},{number // 2},{number}")
    (tmp_path / "images.csv").write_text("\n".join(["path,split,identity,camera", *rows]))
    told = run("benchmarks.ingest", "--table", tmp_path / "images.csv", "--weights", weights, "--size", "32x32")
    assert "decoded smaller: 63." in told or "decoded smaller: 64.0 times fewer pixels" in told
    assert "of 3 photos at least 0.999" in told and "read in full: mAP" in told and "scaled: mAP" in told


def test_naming_tells_how_often_suggestions_are_right_by_how_likely_they_are_called():
    told = [(0.1, False), (0.2, True), (0.95, True), (1.0, True), (0.6, True)]
    assert by_chance(told) == [
        {"items": 2, "probability": pytest.approx(0.15), "right": 0.5},
        {"items": 1, "probability": 0.6, "right": 1},
        {"items": 2, "probability": pytest.approx(0.975), "right": 1},
    ]
    assert by_chance([]) == []
