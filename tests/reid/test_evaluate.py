import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageOps

from reid.config import ConfigError, evaluation_config, load_config, parse_override
from reid.data.datasets import load_dataset
from reid.data.images import read_image
from reid.evaluate import evaluate, main
from reid.evaluation.calibrate import load_calibration
from reid.evaluation.features import Features
from reid.evaluation.run import evaluate_stored
from reid.inference.embedder import Embedder
from reid.retrieval.distances import FeatureDistances
from reid.retrieval.expansion import augment_database, expand_queries
from reid.retrieval.metrics import evaluate_distances
from reid.retrieval.reranking import KReciprocal, RerankedDistances
from reid.retrieval.single_shot import evaluate_single_shot
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
    evaluated = evaluate(run, device="cpu")
    result, features = evaluated.result, evaluated.features
    assert result.metrics.mAP == pytest.approx(slow_map(features))
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["evaluation"]
    assert result.as_json() == last
    assert result.protocol == {
        "dataset": "csv",
        "version": None,
        "split": "images.csv",
        "trained_on": "csv images.csv",
        "features": "concat",
        "flip_test": False,
        "precision": "float32",
        "junk": "camera",
        "ap": "hits",
        "distance": "cosine",
        "gallery": "all",
        "rerank": None,
        "query_expansion": None,
        "database_augmentation": None,
    }


def test_the_folder_alone_is_enough_elsewhere(run, photos, tmp_path):
    """Moved, and its data moved: only --data-root must be said."""
    shutil.move(run, tmp_path / "elsewhere")
    shutil.move(photos.parent, tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="images.csv does not exist"):
        evaluate(tmp_path / "elsewhere", device="cpu")
    evaluated = evaluate(tmp_path / "elsewhere", {"data.root": str(tmp_path / "data" / "images.csv")}, device="cpu")
    assert evaluated.result.metrics.queries == 2


def test_features_are_what_the_embedder_gives(run, photos):
    features = evaluate(run, device="cpu").features
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
    assert (one.pop("model"), two.pop("model")) == ("DCAL on vit_toy", "Stored features")
    assert one.pop("protocol")["features"] == "concat"
    assert two.pop("protocol")["features"] == "stored"
    assert len(one["per_query"]["query"]) == len(one["per_query"]["average_precision"]) == 2
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


def test_a_report_is_a_page(run, tmp_path, capsys):
    assert main(["--checkpoint", str(run), "--device", "cpu", "--report", str(tmp_path / "report")]) == 0
    assert "<html" in (tmp_path / "report" / "index.html").read_text()
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["queries"] == 2
    assert str(tmp_path / "report" / "index.html") in capsys.readouterr().err


def test_another_dataset_starts_from_its_own_options():
    trained = load_config("msmt17", None, {"version": "v2", "data.root": "msmt", "eval.junk": "none"})
    config = evaluation_config(trained, {"data.dataset": "csv", "data.root": "photos.csv"})
    assert (config.data.dataset, config.data.root, config.data.version) == ("csv", "photos.csv", None)
    assert config.eval.junk == "none"
    assert evaluation_config(trained, {}).data.root == "msmt"
    with pytest.raises(ConfigError, match="train.lr: fixed by the training; an evaluation can change eval"):
        evaluation_config(trained, {"lr": 1})
    assert evaluation_config(trained, {"batch_size": 7}).eval.batch_size == 7, "not that of the training"


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
        ([], 2, "give either --checkpoint RUN, or --backbone NAME, or --from-features"),
        (["--checkpoint", str(tmp_path / "absent")], 1, "absent: no such file"),
        (["--checkpoint", str(tmp_path)], 1, "no model.safetensors in this folder"),
        (["--checkpoint", str(run), "junks=none"], 2, "unknown option 'junks'; near ones: eval.junk"),
        (["--checkpoint", str(run), "--dataset", "msmt18"], 2, "unknown dataset 'msmt18'"),
        (["--checkpoint", str(run), "--dataset", "veri776"], 2, "'veri776' needs --data-root"),
        (["--from-features", str(tmp_path / "half.npz")], 1, "missing query_ids, gallery_features, gallery_ids"),
        (["--from-features", str(tmp_path / "text.npz")], 1, "cannot be read as .npz"),
        (["--from-features", str(tmp_path / "none.npz")], 1, "no such file"),
        (
            ["--from-features", str(tmp_path / "half.npz"), "--features", "sa"],
            2,
            "eval.features: needs a model or images",
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
    assert main(["--checkpoint", str(tmp_path / "base"), "--device", "cpu", "--features", "glca"]) == 2
    assert "asked of method 'baseline', which has no GLCA" in capsys.readouterr().err


def test_damaged_features_are_refused(tmp_path):
    ids = np.array([1, 2])
    bad = np.array([[1.0, np.nan], [1.0, 0.0]], np.float32)
    Features(bad, ids, ids, bad, ids, ids + 1).save(tmp_path / "f.npz")
    assert main(["--from-features", str(tmp_path / "f.npz")]) == 1


@pytest.fixture
def stored(tmp_path):
    """A features file of 12 identities seen by 3 cameras, in sequences that cut across them."""
    random = np.random.default_rng(0)
    ids = np.repeat(np.arange(12), 6)
    centres = random.normal(size=(12, 8))
    rows = (centres[ids] + random.normal(size=(72, 8))).astype(np.float32)
    cameras, sequences = np.tile(np.arange(3), 24), np.tile([0, 0, 0, 1, 1, 2], 12)
    query = np.arange(0, 72, 6)
    gallery = np.setdiff1d(np.arange(72), query)
    labels = [(ids[part], cameras[part]) for part in (query, gallery)]
    features = Features(rows[query], *labels[0], rows[gallery], *labels[1])
    features = replace(features, query_sequences=sequences[query], gallery_sequences=sequences[gallery])
    features.save(tmp_path / "stored.npz")
    return tmp_path / "stored.npz"


def test_each_way_of_ranking_is_the_library_call_it_says(stored):
    features = Features.load(stored)
    labels = (features.query_ids, features.query_cameras, features.gallery_ids, features.gallery_cameras)
    sequences = (features.query_ids, features.query_sequences, features.gallery_ids, features.gallery_sequences)
    plain = FeatureDistances(features.query, features.gallery)
    augmented = augment_database(features.gallery, 3, 2.0)
    expected = {
        (): evaluate_distances(plain, *labels).mAP,
        ("junk=sequence",): evaluate_distances(plain, *sequences).mAP,
        ("gallery=single", "draws=4"): np.mean([d.mAP for d in evaluate_single_shot(plain, *labels, draws=4)]),
        ("rerank=zhong", "rerank_k1=7", "rerank_lambda=0.5"): evaluate_distances(
            RerankedDistances(features.query, features.gallery, KReciprocal(7, 6, 0.5)), *labels
        ).mAP,
        ("query_expansion=2", "database_augmentation=3", "alpha=2"): evaluate_distances(
            FeatureDistances(expand_queries(features.query, augmented, 2, 2.0), augmented), *labels
        ).mAP,
    }
    found = {
        options: evaluate_stored(stored, dict(parse_override(option) for option in options)).result.metrics.mAP
        for options in expected
    }
    assert found == pytest.approx(expected)
    assert len(set(found.values())) == len(expected), "two of these ways gave the same, so the test shows little"


def test_what_a_result_rests_on_is_said(stored, capsys):
    assert main(["--from-features", str(stored), "--rerank", "transreid", "rerank_k1=20", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"]["rerank"] == {"k1": 20, "k2": 15, "lambda": 0.3}
    assert main(["--from-features", str(stored), "rerank_k1=20", "--rerank", "--verification"]) == 0
    out = capsys.readouterr()
    assert "rerank k1=20 k2=6 lambda=0.3" in out.out
    assert "re-ranked with the help of the other queries" in out.out
    assert "GiB of memory" in out.err
    assert "equal error rate" in out.out
    assert "% rejected at score" in out.out
    assert main(["--from-features", str(stored), "gallery=single", "draws=3"]) == 0
    assert "mean of 3 random galleries, standard deviation of mAP" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["rerank_k1=20"], 2, "rerank_k1 given, but rerank is none; choose rerank=zhong or transreid"),
        (["rerank=zhong", "gallery=single"], 2, "re-ranking needs the whole gallery"),
        (["rerank=zhong", "rerank_k2=30"], 1, "k2 is 30; expected between 1 and k1, which is 20"),
        (["query_expansion=1000"], 1, "1000"),
        (["flip_test=true"], 2, "eval.flip_test: needs a model or images"),
        (["--calibrate"], 2, "--calibrate writes beside a checkpoint"),
        (["--dataset", "toy", "--dataset", "csv", "--data-root", "x"], 2, "--dataset is given 2 times, --data-root 1"),
    ],
)
def test_unusable_choices_cost_one_line(stored, capsys, arguments, code, message):
    assert main(["--from-features", str(stored), *arguments]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("reid-eval: error:") == 1
    assert "Traceback" not in captured.err


def test_a_preset_before_an_option_is_explained(stored, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--from-features", str(stored), "--rerank", "rerank_k1=20"])
    assert ended.value.code == 2
    assert "'rerank_k1=20' is no preset; expected zhong or transreid" in capsys.readouterr().err


def test_several_datasets_in_one_run(run, photos, write_photos, tmp_path, capsys):
    other = write_photos(tmp_path / "other", identities=6)
    both = ["--dataset", "csv", "--data-root", str(photos), "--dataset", "csv", "--data-root", str(other)]
    assert main(["--checkpoint", str(run), "--device", "cpu", *both, "--json", str(tmp_path / "both.json")]) == 0
    assert capsys.readouterr().out.count("\nmAP ") + 1 == 2
    results = json.loads((tmp_path / "both.json").read_text())
    assert [len(result["per_query"]["query"]) for result in results] == [2, 2]
    assert results[0]["per_query"]["query"] != results[1]["per_query"]["query"]
    assert main(["--checkpoint", str(run), "--device", "cpu", *both, "--save-features", str(tmp_path / "f.npz")]) == 2
    assert "take one dataset, given 2" in capsys.readouterr().err


def test_flip_test_adds_the_mirrored_embedding(run):
    plain, flipped = (evaluate(run, {"flip_test": flip}, device="cpu") for flip in (False, True))
    embedder = plain.embedder
    images = [ImageOps.mirror(read_image(path)) for path in plain.features.query_paths]
    expected = plain.features.query + embedder.embed(images)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(flipped.features.query, expected, atol=1e-5)
    assert np.abs(flipped.features.query - plain.features.query).max() > 1e-4
    assert flipped.result.protocol["flip_test"] is True


def test_a_calibration_is_kept_beside_its_model(write_photos, tiny, tmp_path, capsys):
    table = write_photos(tmp_path / "many", identities=20, tested=14)
    run = tmp_path / "run"
    options = {**tiny, "data.root": str(table), "train.epochs": 1}
    train(load_config("csv", None, options), run, device="cpu")
    assert load_calibration(run) is None
    assert main(["--checkpoint", str(run), "--device", "cpu", "--calibrate"]) == 0
    said = capsys.readouterr().err
    assert "rests on 14 identities only" in said
    assert "calibration of 14 queries of 14 identities" in said
    found = load_calibration(run)
    assert found.calibration.identities == 14
    assert found.protocol["dataset"] == "csv"
    assert (run / "calibration.png").stat().st_size > 1000
    with open(run / "model.safetensors", "ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match="made with other weights than model.safetensors now holds"):
        load_calibration(run)
    (run / "calibration.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read as a calibration"):
        load_calibration(run)


def test_a_calibration_on_training_identities_is_refused(run, photos, capsys):
    text = photos.read_text().replace("animal-7", "animal-0")
    photos.write_text(text)
    assert main(["--checkpoint", str(run), "--device", "cpu", "--calibrate"]) == 1
    assert "1 of the query identities are training identities too, such as animal-0" in capsys.readouterr().err
    assert not (run / "calibration.json").exists()


def test_the_pool_of_a_redrawn_gallery_has_each_picture_once(stored, tmp_path, capsys):
    """Leave-one-out, with one more picture in the gallery: as where that one alone is the gallery."""
    whole = Features.load(stored)
    last = len(whole.gallery) - 1
    one = replace(whole, gallery_sequences=whole.gallery_sequences[:0], query_sequences=whole.gallery_sequences[:0])
    one = replace(one, query=whole.gallery[:last], query_ids=whole.gallery_ids[:last], query_cameras=np.full(last, -1))
    one = replace(one, query_paths=tuple(f"{row}.jpg" for row in range(last)))
    rest = {"gallery_ids": whole.gallery_ids[last:], "gallery_cameras": np.full(1, -1), "gallery_paths": ("more.jpg",)}
    one = replace(one, gallery=whole.gallery[last:], **rest)
    both = replace(one, gallery=whole.gallery, gallery_ids=whole.gallery_ids, gallery_cameras=np.full(last + 1, -1))
    both = replace(both, gallery_paths=(*one.query_paths, "more.jpg"))
    results = []
    for name, features in (("one", one), ("both", both)):
        features.save(tmp_path / f"{name}.npz")
        results.append(evaluate_stored(tmp_path / f"{name}.npz", {"gallery": "redrawn"}).result)
    assert results[0].as_full_json()["per_query"] == results[1].as_full_json()["per_query"]
    assert len(results[1].queries) == last + 1


def test_verification_of_a_redrawn_gallery_has_no_junk(stored):
    found = [
        evaluate_stored(stored, {"gallery": "redrawn", "junk": junk}, verification=True).result
        for junk in ("camera", "none")
    ]
    assert found[0].as_json() == found[1].as_json()
    plain = evaluate_stored(stored, {"junk": "none"}, verification=True).result
    assert found[0].verification.as_json() == plain.verification.as_json()


def test_rows_without_a_cosine_cost_the_verification_only(stored, tmp_path, capsys):
    features = Features.load(stored)
    features.query[0] = 0
    features.save(tmp_path / "zero.npz")
    assert main(["--from-features", str(tmp_path / "zero.npz"), "distance=euclidean", "--verification"]) == 0
    said = capsys.readouterr()
    assert "mAP" in said.out
    assert "no verification figures: query_features: 1 of 12 rows have length zero" in said.err


def test_too_few_trials_for_a_false_alarm_rate_are_said(stored, capsys):
    assert main(["--from-features", str(stored), "--verification"]) == 0
    assert "12 trials cannot measure the rate asked for" in capsys.readouterr().out
    assert main(["--from-features", str(stored), "--verification", "false_alarm=0.25"]) == 0
    assert "cannot measure" not in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_a_report_shows_no_calibration_of_other_embeddings(write_photos, tiny, tmp_path, capsys):
    table = write_photos(tmp_path / "many", identities=16, tested=12)
    train(
        load_config("csv", None, {**tiny, "data.root": str(table), "train.epochs": 1}), tmp_path / "run", device="cpu"
    )
    command = ["--checkpoint", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*command, "--calibrate"]) == 0
    assert main([*command, "--report", str(tmp_path / "same")]) == 0
    assert main([*command, "--report", str(tmp_path / "other"), "--features", "sa", "flip_test=true"]) == 0
    assert "the report leaves the calibration out: it was made with another features and flip_test" in (
        capsys.readouterr().err
    )
    assert "Brier" in (tmp_path / "same" / "index.html").read_text()
    assert "Brier" not in (tmp_path / "other" / "index.html").read_text()


def test_what_is_evaluated_outlives_what_fails_after_it(write_photos, tiny, tmp_path, capsys):
    """Too few identities for a calibration: the numbers are printed and written all the same."""
    table = write_photos(tmp_path / "few", identities=10, tested=4)
    train(
        load_config("csv", None, {**tiny, "data.root": str(table), "train.epochs": 1}), tmp_path / "run", device="cpu"
    )
    command = ["--checkpoint", str(tmp_path / "run"), "--device", "cpu", "--json", str(tmp_path / "kept.json")]
    assert main([*command, "--calibrate"]) == 1
    said = capsys.readouterr()
    assert "4 identities have a right and a wrong match" in said.err
    assert "mAP" in said.out
    assert json.loads((tmp_path / "kept.json").read_text())["queries"] == 4
    missing = ["--dataset", "csv", "--data-root", str(table), "--dataset", "csv", "--data-root", "nowhere.csv"]
    assert main([*command, *missing]) == 1
    assert json.loads((tmp_path / "kept.json").read_text())["queries"] == 4


def test_places_that_cannot_be_written_are_refused_before_the_work(stored, tmp_path, capsys):
    for option in ("--json", "--save-features"):
        assert main(["--from-features", str(stored), option, str(tmp_path / "nowhere" / "x")]) == 1
        said = capsys.readouterr()
        assert f"{option} {tmp_path}/nowhere/x: there is no folder" in said.err
        assert "mAP" not in said.out


def test_unknown_cameras_are_said_to_leave_nothing_out(stored, tmp_path, capsys):
    features = Features.load(stored)
    unknown = {f"{split}_cameras": np.full(len(getattr(features, split)), -1) for split in ("query", "gallery")}
    replace(features, **unknown).save(tmp_path / "f.npz")
    assert main(["--from-features", str(tmp_path / "f.npz")]) == 0
    assert "no camera is known, so junk=camera leaves no image out" in capsys.readouterr().err
    assert main(["--from-features", str(tmp_path / "f.npz"), "junk=none"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_expansion_of_raw_features_is_not_mixed_with_euclidean_distance(stored, capsys):
    assert main(["--from-features", str(stored), "distance=euclidean", "query_expansion=3"]) == 2
    assert "work on unit vectors: use distance=cosine" in capsys.readouterr().err


def test_calibrations_of_two_model_files_do_not_meet(write_photos, tiny, tmp_path):
    table = write_photos(tmp_path / "many", identities=16, tested=12)
    train(
        load_config("csv", None, {**tiny, "data.root": str(table), "train.epochs": 1}), tmp_path / "run", device="cpu"
    )
    for name in ("", "best.safetensors"):
        assert main(["--checkpoint", str(tmp_path / "run" / name), "--device", "cpu", "--calibrate"]) == 0
    assert load_calibration(tmp_path / "run") is not None
    assert load_calibration(tmp_path / "run" / "best.safetensors") is not None
    assert (tmp_path / "run" / "best.calibration.json").exists()


def test_a_baseline_says_that_its_features_are_the_sa_token(photos, tiny, tmp_path):
    options = {**tiny, "data.root": str(photos), "train.epochs": 1, "model.method": "baseline"}
    train(load_config("csv", None, options), tmp_path / "base", device="cpu")
    assert evaluate(tmp_path / "base", device="cpu").result.protocol["features"] == "sa"


def test_compare_agrees_with_the_mean_over_draws(stored, tmp_path, capsys):
    for gallery in ("single", "redrawn"):
        file = str(tmp_path / f"{gallery}.json")
        assert main(["--from-features", str(stored), f"gallery={gallery}", "--json", file]) == 0
        capsys.readouterr()
        assert main(["compare", file, file, "--json", "-"]) == 0
        means = json.loads(capsys.readouterr().out)["means"]
        result = json.loads(Path(file).read_text())
        assert means["mAP"][0] == pytest.approx(result["mAP"])
        assert means["Rank-1"][0] == pytest.approx(result["cmc"]["1"])
        assert result["queries_skipped"] == 0
