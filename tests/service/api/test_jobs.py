"""Jobs over HTTP."""

import threading

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api import access, problems
from service.api.jobs import jobs
from service.records import Details, NewKey, Upload
from service.storage.database import Database
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.storage.store import Store
from service.upkeep.backup import backup_work
from service.upkeep.jobs import JobRunner
from service.upkeep.reindex import reindex_work
from tests.waiting import DEADLINE, wait_until


class Gate:
    """Work of two steps, which waits before the second one until it is let go on."""

    def __init__(self):
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, job, progress):
        progress(1, 4)
        self.reached.set()
        assert self.go_on.wait(DEADLINE)
        progress(4, 4)
        return {"items": 3}


def client_of(database, kinds, model_id="model-1"):
    keys = Keys(database)
    _, secret = keys.add(NewKey("boss", frozenset({"admin"})))
    runner = JobRunner(Jobs(database), kinds)
    app = FastAPI()
    access.install(app, keys.find, require_keys=True)
    problems.install(app)
    app.include_router(jobs(runner, model_id))
    client = TestClient(app, base_url="http://localhost", headers={"X-API-Key": secret})
    return runner, client


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "jobs") as database:
        yield database


@pytest.fixture
def client(database, gate):
    def fail(job, progress):
        raise OSError("no space left")

    runner, client = client_of(database, {"backup": gate, "reindex": fail})
    yield client
    gate.go_on.set()
    runner.close()


def ended(client, location):
    wait_until(lambda: client.get(location).json()["state"] not in ("queued", "running"))
    return client.get(location).json()


def test_a_job_is_accepted_watched_and_done(database, client, gate):
    accepted = client.post("/v1/admin/backup")
    assert accepted.status_code == 202
    job = accepted.json()
    assert (job["kind"], job["state"], job["progress"], job["result"], job["error"]) == (
        *("backup", "queued", None, None, None),
    )
    assert accepted.headers["location"] == f"/v1/jobs/{job['job_id']}"
    assert gate.reached.wait(DEADLINE)
    running = client.get(accepted.headers["location"]).json()
    assert (running["state"], running["done"], running["total"], running["progress"]) == ("running", 1, 4, 0.25)
    second = client.post("/v1/admin/backup")
    assert (second.status_code, second.json()["code"]) == (409, "conflict")
    assert job["job_id"] in second.json()["detail"]
    gate.go_on.set()
    done = ended(client, accepted.headers["location"])
    assert (done["state"], done["progress"], done["result"]) == ("done", 1.0, {"items": 3})
    created = Store(database).operations()[-1]
    assert (created.kind, created.target, created.actor) == ("job.create", job["job_id"], job["actor"])
    assert created.request_id == accepted.headers["x-request-id"]


def test_a_job_that_fails_says_why(client):
    failed = ended(client, client.post("/v1/admin/reindex").headers["location"])
    assert (failed["state"], failed["error"], failed["progress"]) == ("failed", "no space left", None)


def test_a_job_is_cancelled(client, gate):
    location = client.post("/v1/admin/backup").headers["location"]
    assert gate.reached.wait(DEADLINE)
    asked = client.post(f"{location}/cancel")
    assert (asked.status_code, asked.json()["state"]) == (202, "running")
    gate.go_on.set()
    assert ended(client, location)["state"] == "cancelled"
    late = client.post(f"{location}/cancel")
    assert (late.status_code, late.json()["code"]) == (409, "conflict")


def test_jobs_are_listed_newest_first(client):
    made = []
    for _ in range(3):
        location = client.post("/v1/admin/reindex").headers["location"]
        made.append(ended(client, location))
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    assert first["jobs"] == made[:0:-1]
    rest = client.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert rest == {"jobs": made[:1], "next_cursor": None}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs/it's", 404),
        ("POST", "/v1/jobs/it's/cancel", 404),
        ("GET", "/v1/jobs?limit=0", 422),
        ("GET", "/v1/jobs?kind=backup", 422),
    ],
)
def test_what_cannot_be_is_refused(client, method, path, status):
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_real_gallery_is_backed_up_and_reindexed(gallery, picture, tmp_path):
    gallery.enrol([Upload(f"{n}.png", picture(n), Details()) for n in range(3)])
    kinds = {
        "backup": backup_work(gallery.database, gallery.pictures, tmp_path / "backups"),
        "reindex": reindex_work(gallery),
    }
    runner, client = client_of(gallery.database, kinds, gallery.model_id)
    with runner:
        backup = ended(client, client.post("/v1/admin/backup").headers["location"])
        reindex = ended(client, client.post("/v1/admin/reindex").headers["location"])
    assert (backup["state"], backup["result"]["items"]) == ("done", 3)
    assert (reindex["state"], reindex["result"]) == (
        "done",
        {"model_id": gallery.model_id, "items": 3, "left_out": []},
    )
    with Database(tmp_path / "backups" / backup["result"]["folder"]) as copy:
        assert Store(copy).contents() == gallery.store.contents()
