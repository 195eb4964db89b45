"""What is served is what was measured: an evaluation done again by one HTTP request for each of its queries."""

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from reid.config import load_config
from reid.data.preprocessing import Preprocessing
from reid.evaluate import evaluate
from reid.inference.checkpoint import Checkpoint, save_model
from reid.models.dcal import build_dcal
from service.api.app import create_app
from service.bulk.enrolling import enrol
from service.bulk.sources import dataset_photos
from service.opening import open_gallery
from service.settings import Settings
from service.storage.jobs import Jobs
from service.upkeep.jobs import JobRunner


@pytest.fixture
def run(vit_tiny_weights, real_photos, tmp_path):
    """A DCAL model on real weights, for the photos of wild antelopes."""
    torch.manual_seed(0)
    model, _ = build_dcal("vit_tiny", (96, 96), 3, weights=str(vit_tiny_weights))
    options = {"model.backbone": "vit_tiny", "model.method": "dcal", "data.image_size": "96x96"}
    config = load_config("csv", None, {**options, "data.root": str(real_photos / "nyala" / "images.csv")})
    preprocessing = Preprocessing((96, 96), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    save_model(tmp_path / "model.safetensors", model, Checkpoint(config, preprocessing, ("a", "b", "c"), {}, 1))
    return tmp_path


@pytest.mark.slow
def test_queries_over_http_rank_as_the_evaluation_does(run, real_photos, tmp_path):
    """Photos are enrolled from the dataset, asked about as files, and scored here from the answers alone."""
    evaluated = evaluate(run, device="cpu")
    features, dataset = evaluated.features, evaluated.dataset
    place = {sample.path.name: i for i, sample in enumerate(dataset.gallery)}
    with open_gallery(tmp_path / "gallery", run, "cpu") as gallery:
        enrol(gallery, dataset_photos("csv", real_photos / "nyala" / "images.csv", ["gallery"]))
        settings = Settings(checkpoint=run, gallery=tmp_path / "gallery")
        with JobRunner(Jobs(gallery.database), {}) as runner:
            client = TestClient(create_app(gallery, runner, settings), base_url="http://localhost")
            precisions = []
            for query, sample in enumerate(dataset.query):
                files = {"image": (sample.path.name, sample.path.read_bytes())}
                answer = client.post("/query", files=files, data={"top_k": 1000}).json()
                sources = [gallery.store.get(match["item_id"]).medium.source for match in answer["matches"]]
                order = [place[source.split("/")[-1]] for source in sources]
                assert sorted(order) == list(range(len(dataset.gallery)))
                cosines = features.gallery[order].astype(np.float64) @ features.query[query]
                np.testing.assert_allclose([match["score"] for match in answer["matches"]], cosines, atol=1e-5)
                same = features.gallery_ids == features.query_ids[query]
                junk = same & (features.gallery_cameras == features.query_cameras[query])
                ranked = same[[i for i in order if not junk[i]]]
                ranks = np.flatnonzero(ranked) + 1
                if len(ranks):
                    precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    assert len(precisions) == evaluated.result.metrics.queries
    assert np.mean(precisions) == pytest.approx(evaluated.result.metrics.mAP, abs=1e-4)
