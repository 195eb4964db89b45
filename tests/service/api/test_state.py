"""What an operator is told of the disk, the model and what a job would do."""

import hashlib

import numpy as np
import pytest
from fastapi.testclient import TestClient

from reid.retrieval.calibration import fit_calibration
from service.api.app import create_app
from service.records import NewKey
from service.settings import Settings
from service.storage.keys import Keys
from tests.waiting import wait_until

ROUTES = [
    ("GET", "/v1/admin/disk"),
    ("GET", "/v1/admin/model"),
    ("POST", "/v1/admin/backup?dry_run=true"),
    ("POST", "/v1/admin/reindex?dry_run=true"),
]


@pytest.fixture
def serve(gallery, runner, reviews, checkpoint, tmp_path):
    """A function that gives a client of the gallery."""

    def run(calibration=None, **said):
        folders = {"gallery": tmp_path / "gallery", "backups": tmp_path / "backups"}
        settings = Settings(checkpoint=checkpoint, **folders, **said)
        return TestClient(create_app(gallery, runner, settings, calibration), base_url="http://localhost")

    return run


@pytest.fixture
def client(serve, picture):
    client = serve()
    files = [("images", (f"{number}.png", picture(number))) for number in range(3)]
    assert client.post("/v1/items", files=files).status_code == 201
    return client


def ended(client, answer):
    assert answer.status_code == 202, answer.text
    where = answer.headers["location"]
    wait_until(lambda: client.get(where).json()["state"] not in ("queued", "running"))
    return client.get(where).json()


def test_the_disk_is_told_part_by_part(client, gallery):
    told = client.get("/v1/admin/disk").json()
    assert 0 < told["free"] < told["total"]
    assert told["warning"] == gallery.holdings.space.low
    assert told["room_for"] > 0
    parts = {part["name"]: part["files"] for part in told["parts"]}
    assert (parts["pictures"], parts["thumbnails"], parts["backups"]) == (3, 3, 0)
    assert told["within_database"]["vectors"] == 3 * 4 * gallery.embedder.size
    assert ended(client, client.post("/v1/admin/backup"))["state"] == "done"
    after = {part["name"]: part for part in client.get("/v1/admin/disk").json()["parts"]}
    assert after["backups"]["files"] > 0


def test_the_warning_of_the_disk_is_that_of_the_health(client, gallery, monkeypatch):
    monkeypatch.setattr(type(gallery.holdings.space), "low", "7 MiB are free")
    assert client.get("/v1/admin/disk").json()["warning"] == "7 MiB are free"
    assert client.get("/health/ready").json()["reasons"] == ["7 MiB are free"]


def test_the_model_is_told_by_its_checksum_and_what_it_gives(client, gallery, checkpoint):
    told = client.get("/v1/admin/model").json()
    assert told["checksum"] == hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert (told["model_id"], told["source"]) == (gallery.model_id, checkpoint.name)
    assert (told["embedding_size"], told["image_size"]) == (gallery.embedder.size, [32, 16])
    assert (told["name"], told["features"], told["device"]) == ("DCAL on vit_toy", "concat", "cpu")
    assert told["calibration"] is None
    assert "reid-eval --calibrate" in told["probabilities"]
    assert told["engine"] == {
        "name": "memory",
        "how": "exactly, by all rows; vectors in memory (cpu)",
        "items": 3,
        "recall": None,
    }


def test_the_calibration_says_on_what_it_rests(serve):
    subjects = np.repeat(np.arange(20), 2)
    right, wrong = np.linspace(0.8, 0.99, 40), np.linspace(0.1, 0.5, 40)
    calibration = fit_calibration(right, wrong, subjects, np.arange(30))
    told = serve(calibration).get("/v1/admin/model").json()["calibration"]
    assert told == {name: getattr(calibration, name) for name in told}
    assert (told["identities"], told["queries"], told["gallery"]) == (20, 40, 30)


def test_a_dry_run_of_a_backup_writes_nothing_and_says_what_it_would(client, gallery, tmp_path):
    sha256 = client.get("/v1/items").json()["items"][1]["media"]
    lost = client.get("/v1/items").json()["items"][1]["item_id"]
    gallery.pictures.path(sha256).unlink()
    done = ended(client, client.post("/v1/admin/backup", params={"dry_run": True}))
    assert done["state"] == "done"
    result = done["result"]
    assert (result["dry_run"], result["items"], result["missing"], result["fits"]) == (True, 3, [lost], True)
    assert result["bytes"] < result["free"]
    assert not (tmp_path / "backups").exists()


def test_a_dry_run_of_a_re_index_counts_what_lacks_a_vector(client, gallery):
    done = ended(client, client.post("/v1/admin/reindex", params={"dry_run": True}))
    told = {"dry_run": True, "model_id": gallery.model_id, "items": 3, "embed": 0, "left_out": []}
    assert done["result"] == told


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_it_is_for_admins_alone(serve, gallery, method, path):
    keys = Keys(gallery.database)
    made = [
        keys.add(NewKey("reader", frozenset({"read"}))),
        keys.add(NewKey("writer", frozenset({"write"}))),
        keys.add(NewKey("of the gate", frozenset({"write"}), frozenset({"gate"}))),
    ]
    _, boss = keys.add(NewKey("boss", frozenset({"admin"})))
    client = serve(require_keys=True)
    for _, secret in made:
        answer = client.request(method, path, headers={"X-API-Key": secret})
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert client.request(method, path).status_code == 401
    assert client.request(method, path, headers={"X-API-Key": boss}).status_code in (200, 202)
