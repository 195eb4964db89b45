"""What is answered where a part of the database is damaged: the rest as ever, and of that part what is wrong."""

import json
import sqlite3
from contextlib import closing

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.opening import open_gallery
from service.settings import Settings
from service.storage.folder import GALLERY_FILE
from service.storage.jobs import Jobs
from service.upkeep.jobs import JobRunner

# By a part of the database, the routes that need it.
NEED = {
    "items_by_identity": {"/v1/identities", "/v1/labels"},
    "jobs": {"/v1/jobs", "/v1/review/next", "/v1/review/status"},
    "decisions": {"/v1/catalogue", "/v1/decisions", "/v1/review/conflicts"},
}


@pytest.fixture
def serving(checkpoint, tmp_path):
    """A function that serves the gallery of the test while its client is used."""

    def serve(work):
        with open_gallery(tmp_path, checkpoint, "cpu") as gallery, JobRunner(Jobs(gallery.database), {}) as runner:
            app = create_app(gallery, runner, Settings(checkpoint=checkpoint, gallery=tmp_path), None)
            return work(TestClient(app, base_url="http://localhost", raise_server_exceptions=False))

    return serve


@pytest.mark.parametrize("part", NEED)
def test_only_what_needs_a_damaged_part_is_refused_and_says_why(serving, picture, tmp_path, part):
    def fill(client):
        files = [("images", (f"{number}.png", picture(number))) for number in range(3)]
        metadata = json.dumps([{"camera": "gate", "label": f"N{number % 2}"} for number in range(3)])
        answer = client.post("/v1/items", files=files, data={"metadata": metadata})
        return answer.json()["results"][0]["item"]["item_id"]

    def ask(client):
        told = {}
        for path, methods in client.get("/openapi.json").json()["paths"].items():
            if "get" in methods:
                answer = client.get(path.replace("{item_id}", item_id))
                if answer.status_code >= 500:
                    told[path] = answer.status_code, answer.json()["code"], answer.json()["detail"]
        return told, client.post("/v1/items", files={"images": ("9.png", picture(9))})

    item_id = serving(fill)
    path = tmp_path / GALLERY_FILE
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [part])
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    path.write_bytes(data)
    told, changed = serving(ask)
    assert set(told) == NEED[part]
    for status, code, detail in [
        *told.values(),
        (changed.status_code, changed.json()["code"], changed.json()["detail"]),
    ]:
        assert (status, code) == (503, "storage_failed")
        assert detail.startswith("the gallery's database is damaged; put back a backup")
