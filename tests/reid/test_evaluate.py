import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from reid.config import ConfigError, load_config
from reid.data.datasets import load_dataset
from reid.embedder import Embedder
from reid.evaluate import evaluate, evaluation_config, main
from reid.features import Features
from reid.train import train


@pytest.fixture
def run(photos, tiny, tmp_path):
    """A finished run on `photos`."""
    train(
        load_config("csv", None, {**tiny, "data.root": str(photos), "train.epochs": 1}), tmp_path / "run", device="cpu"
    )
    return tmp_path / "run"


def slow_map(features):
    """Mean precision at hits by the definition, same-camera rows of the query's identity left out."""
    precisions = []
    for q in range(len(features.query)):
        scores = features.gallery @ features.query[q]
        same = features.gallery_ids == features.query_ids[q]
        junk = same & (features.gallery_cameras == features.query_cameras[q])
        order = [i for i in np.argsort(-scores) if not junk[i]]
        hits = [rank for rank, i in enumerate(order, 1) if same[i]]
        precisions.append(np.mean([place / rank for place, rank in enumerate(hits, 1)]))
    return np.mean(precisions)


def test_a_run_is_evaluated_as_trained_and_equals_a_slow_loop(run):
    result, features = evaluate(run, device="cpu")
    assert result.metrics.mAP == pytest.approx(slow_map(features))
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["evaluation"]
    assert result.as_json() == last
    assert result.protocol == {
        "dataset": "csv",
        "version": None,
        "split": "images.csv",
        "features": "concat",
        "junk": "camera",
        "ap": "hits",
        "distance": "cosine",
        "rerank": None,
    }


def test_the_folder_alone_is_enough_elsewhere(run, photos, tmp_path):
    """Moved, and its data moved: only --data-root must be said."""
    shutil.move(run, tmp_path / "elsewhere")
    shutil.move(photos.parent, tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="images.csv does not exist"):
        evaluate(tmp_path / "elsewhere", device="cpu")
    result, _ = evaluate(tmp_path / "elsewhere", {"data.root": str(tmp_path / "data" / "images.csv")}, device="cpu")
    assert result.metrics.queries == 2


def test_features_are_what_the_embedder_gives(run, photos):
    _, features = evaluate(run, device="cpu")
    embedder, _ = Embedder.from_checkpoint(run)
    dataset = load_dataset("csv", photos)
    np.testing.assert_allclose(features.query, embedder.embed([s.path for s in dataset.query]), atol=1e-6)
    assert features.gallery_ids.tolist() == [s.identity for s in dataset.gallery]


def test_stored_features_score_the_same_without_a_model(run, tmp_path, capsys):
    stored, first, second = (str(tmp_path / name) for name in ("f.npz", "a.json", "b.json"))
    assert main(["--checkpoint", str(run), "--device", "cpu", "--save-features", stored, "--json", first]) == 0
    with np.load(stored) as arrays:
        assert arrays["query_features"].dtype == np.float32
        assert arrays["query_ids"].dtype == arrays["gallery_cameras"].dtype == np.int64
        assert {"gallery_features", "gallery_ids", "query_cameras", "query_paths", "gallery_paths"} <= set(arrays)
    assert main(["--from-features", stored, "--json", second]) == 0
    one, two = (json.loads(Path(path).read_text()) for path in (first, second))
    assert one.pop("protocol")["features"] == "concat"
    assert two.pop("protocol")["features"] == "stored"
    assert one == two
    assert "mAP" in capsys.readouterr().out


def test_options_change_the_protocol(run, capsys):
    assert (
        main(
            [
                "--checkpoint",
                str(run),
                "--device",
                "cpu",
                "--features",
                "sa",
                "--json",
                "-",
                "junk=none",
                "ap=trapezoid",
            ]
        )
        == 0
    )
    protocol = json.loads(capsys.readouterr().out)["protocol"]
    assert (protocol["features"], protocol["junk"], protocol["ap"]) == ("sa", "none", "trapezoid")


def test_a_report_shows_ranked_lists(run, tmp_path):
    from PIL import Image

    assert main(["--checkpoint", str(run), "--device", "cpu", "--report", str(tmp_path / "report")]) == 0
    with Image.open(tmp_path / "report" / "ranked_lists.png") as picture:
        assert picture.width > 300
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["queries"] == 2


def test_another_dataset_starts_from_its_own_options():
    trained = load_config("msmt17", None, {"version": "v2", "data.root": "msmt", "eval.junk": "none"})
    config = evaluation_config(trained, {"data.dataset": "csv", "data.root": "photos.csv"})
    assert (config.data.dataset, config.data.root, config.data.version) == ("csv", "photos.csv", "v1")
    assert config.eval.junk == "none"
    assert evaluation_config(trained, {}).data.root == "msmt"
    with pytest.raises(ConfigError, match="train.lr: fixed by the training; an evaluation can change eval"):
        evaluation_config(trained, {"lr": 1})


def test_a_gallery_without_cameras_says_what_to_do(run, photos, capsys):
    text = photos.read_text()
    for camera in ("c1", "c2", "c3"):
        text = text.replace(f",{camera}\n", ",c0\n").replace(f",{camera}\r\n", ",c0\r\n")
    photos.write_text(text)
    assert main(["--checkpoint", str(run), "--device", "cpu"]) == 1
    assert "junk=none" in capsys.readouterr().err
    assert main(["--checkpoint", str(run), "--device", "cpu", "junk=none"]) == 0


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_an_empty_split_is_named(run, photos, capsys, split):
    lines = photos.read_text().splitlines()
    photos.write_text("\n".join(line for line in lines if f",{split}," not in line) + "\n")
    assert main(["--checkpoint", str(run), "--device", "cpu"]) == 1
    assert f"has no {split} images, so it cannot be evaluated on" in capsys.readouterr().err


def test_bad_arguments_cost_one_line(run, tmp_path, capsys):
    np.savez(tmp_path / "half.npz", query_features=np.ones((2, 3)))
    (tmp_path / "text.npz").write_text("no arrays")
    for arguments, code, message in [
        ([], 2, "give either --checkpoint RUN or --from-features"),
        (["--checkpoint", str(tmp_path / "absent")], 1, "absent: no such file"),
        (["--checkpoint", str(tmp_path)], 1, "no model.safetensors in this folder"),
        (["--checkpoint", str(run), "junks=none"], 2, "unknown option 'junks'; near ones: eval.junk"),
        (["--checkpoint", str(run), "--dataset", "msmt18"], 1, "unknown dataset 'msmt18'"),
        (["--checkpoint", str(run), "--dataset", "veri776"], 2, "'veri776' needs --data-root"),
        (["--from-features", str(tmp_path / "half.npz")], 1, "missing query_ids, query_cameras, gallery_features"),
        (["--from-features", str(tmp_path / "text.npz")], 1, "cannot be read as .npz"),
        (["--from-features", str(tmp_path / "none.npz")], 1, "no such file"),
        (
            ["--from-features", str(tmp_path / "half.npz"), "--features", "sa"],
            2,
            "stored features can only be scored by",
        ),
    ]:
        assert main([*arguments, "--device", "cpu"]) == code, arguments
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("reid-eval: error:") == 1
        assert "Traceback" not in captured.err


def test_features_of_a_foreign_method_are_refused(photos, tiny, tmp_path, capsys):
    options = {**tiny, "data.root": str(photos), "train.epochs": 1, "model.method": "baseline"}
    train(load_config("csv", None, options), tmp_path / "base", device="cpu")
    assert main(["--checkpoint", str(tmp_path / "base"), "--device", "cpu", "--features", "glca"]) == 1
    assert "trained with method 'baseline', which has no GLCA" in capsys.readouterr().err


def test_damaged_features_are_refused(tmp_path):
    ids = np.array([1, 2])
    bad = np.array([[1.0, np.nan], [1.0, 0.0]], np.float32)
    Features(bad, ids, ids, bad, ids, ids + 1).save(tmp_path / "f.npz")
    assert main(["--from-features", str(tmp_path / "f.npz")]) == 1
