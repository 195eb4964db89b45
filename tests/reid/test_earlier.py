"""A run, a stopped run and a features file that the code wrote before its modules had rooms: they go on working.

The network is a narrow `vit_toy`, told of cameras, trained with a loss that learns (`center_loss`).
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reid.config import ReidConfig, read_config
from reid.evaluation.features import Features
from reid.evaluation.run import evaluate, evaluate_stored
from reid.models.specs import BACKBONES
from reid.train import train

EARLIER = Path(__file__).parent / "earlier"


@pytest.fixture
def folder(write_photos, tmp_path, monkeypatch):
    """A folder with the photos and all that was written of them."""
    narrow = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    monkeypatch.setitem(BACKBONES, "vit_toy", replace(BACKBONES["vit_toy"], overrides=narrow))
    write_photos(tmp_path / "photos")
    shutil.copytree(EARLIER, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_evaluated_as_it_was(folder):
    expected = json.loads((folder / "run" / "evaluation.json").read_text())
    found = evaluate("run", device="cpu")
    stored = Features.load(folder / "run" / "features.npz")
    np.testing.assert_allclose(found.features.query, stored.query, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.features.gallery, stored.gallery, rtol=1e-3, atol=1e-5)
    assert found.features.gallery_cameras.tolist() == stored.gallery_cameras.tolist()
    assert found.checkpoint.side_info.cameras == ("c0", "c1", "c2", "c3")
    for result in (
        found.result.as_json(),
        evaluate_stored(folder / "run" / "features.npz", device="cpu").result.as_json(),
    ):
        assert (result["mAP"], result["mINP"]) == pytest.approx((expected["mAP"], expected["mINP"]))
    assert found.result.as_json()["protocol"] == expected["protocol"]


def test_a_stopped_run_ends_as_one_that_is_trained_now(folder):
    config = read_config(folder / "stopped" / "config.yaml", ReidConfig)
    first = json.loads((folder / "stopped" / "metrics.jsonl").read_text())
    resumed = train(config, folder / "stopped", device="cpu", resume=True)
    whole = train(config, folder / "whole", device="cpu")
    assert [record["epoch"] for record in resumed] == [1, 2]
    assert resumed[0] == first
    assert resumed[1]["losses"]["sa"] == pytest.approx(whole[1]["losses"]["sa"], rel=1e-4)
    tensors, expected = (load_file(folder / name / "model.safetensors") for name in ("stopped", "whole"))
    for name, value in expected.items():
        torch.testing.assert_close(tensors[name], value, rtol=1e-3, atol=1e-5)
