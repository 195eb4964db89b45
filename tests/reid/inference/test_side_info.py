import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from reid.config import ReidConfig, load_config
from reid.data.samples import ReidDataset, Sample
from reid.evaluate import evaluate
from reid.inference.checkpoint import load_model
from reid.inference.embedder import Embedder
from reid.inference.side_info import SideInfo
from reid.train import train


def dataset(*train, query=()):
    names = {0: "gate", 1: "yard"}
    samples = [Sample(Path(f"{i}.png"), i, camera, extra={"view": view}) for i, (camera, view) in enumerate(train)]
    return ReidDataset("some", Path(), tuple(samples), tuple(query), (), camera_names=names)


def test_sides_are_named_by_camera_and_view():
    some = dataset((1, "left"), (0, "right"), (1, "left"))
    assert SideInfo.of("camera", some) == SideInfo(("gate", "yard"))
    assert SideInfo.of("view", some) == SideInfo((), ("left", "right"))
    both = SideInfo.of("camera+view", some)
    assert len(both) == 4
    assert both.of_samples(some, some.train) == [2, 1, 2]
    assert SideInfo.of("view", some).of_samples(some, some.train) == [0, 1, 0]


def test_other_cameras_are_unknown_and_counted(caplog):
    some = dataset((0, "left"))
    other = [Sample(Path("a"), 0, 1), Sample(Path("b"), 0, 0), Sample(Path("c"), 0, -1)]
    with caplog.at_level(logging.WARNING):
        assert SideInfo(("gate",)).of_samples(some, other) == [-1, 0, -1]
    assert "2 of 3 images of some are of cameras or views that the model was not trained on" in caplog.text


def test_a_numbered_camera_is_not_that_of_another_dataset():
    market, duke = (
        ReidDataset(name, Path(), (Sample(Path("a"), 0, 3), Sample(Path("b"), 0, 4)), (), ())
        for name in ("market1501", "dukemtmc")
    )
    sides = SideInfo.of("camera", market)
    assert sides.of_samples(market, market.train) == [0, 1]
    assert sides.of_samples(duke, duke.train) == [-1, -1]


def test_without_known_cameras_there_is_no_side_information(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(SideInfo.of("camera+view", dataset((-1, "left")))) == 0
    assert "no camera is known of the training images: side information is left out" in caplog.text


def test_one_camera_alone_tells_nothing_and_is_left_out(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(SideInfo.of("camera", dataset((1, "left"), (1, "right")))) == 0
    assert "all training images are of one camera: side information is left out" in caplog.text
    assert len(SideInfo.of("camera+view", dataset((1, "left"), (1, "right")))) == 2


@pytest.fixture
def run(photos, tiny, tmp_path):
    options = {**tiny, "root": str(photos), "side_information": "camera", "jigsaw": 2, "train.epochs": 1}
    train(load_config("csv", None, options), tmp_path / "run", device="cpu")
    return tmp_path / "run"


def test_a_model_is_told_of_the_cameras_it_was_trained_on(run, photos):
    model, checkpoint = load_model(run, ReidConfig)
    assert checkpoint.side_info == SideInfo(("c0", "c1", "c2", "c3"))
    assert model.side_information.embedding.shape == (4, 96)
    with torch.no_grad():
        model.side_information.embedding.normal_(generator=torch.Generator().manual_seed(0))
    found = evaluate(run)
    embedder, _ = Embedder.from_checkpoint(run)
    assert embedder.size == 96 * (1 + 4 + 1)
    sides = checkpoint.side_info.of_samples(found.dataset, found.dataset.query)
    told = embedder.embed_samples(found.dataset.query, sides=sides)
    np.testing.assert_allclose(found.features.query, told, atol=1e-6)
    untold = embedder.embed_samples(found.dataset.query)
    assert np.abs(told - untold).max() > 1e-4


def test_the_log_names_the_parts_of_the_jigsaw(run):
    import json

    record = json.loads((run / "metrics.jsonl").read_text())
    assert set(record["losses"]["sa"]) == {"ce", "triplet", "jigsaw_ce", "jigsaw_triplet"}
    assert set(record["losses"]["glca"]) == {"ce", "triplet"}
