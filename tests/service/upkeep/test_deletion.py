"""Many items are deleted by a job, some at a time, and exactly those that were meant."""

import pytest
from fastapi.testclient import TestClient

import service.api.items
from service.api.app import create_app
from service.fields import Filter
from service.records import Details, Upload
from service.settings import Settings
from service.storage.jobs import Jobs
from service.upkeep import deletion
from service.upkeep.deletion import delete_work
from service.upkeep.jobs import JobRunner
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(service.api.items, "MOST_AT_ONCE", 4)
    monkeypatch.setattr(deletion, "ITEMS_AT_ONCE", 2)


def enrol(gallery, picture, *numbers):
    uploads = [Upload(f"{n}", picture(n), Details(camera="north" if n % 2 else "south")) for n in numbers]
    return [one.item.item_id for one in gallery.enrol(uploads)]


def test_a_deletion_of_many_goes_on_after_a_kill_in_portions_and_leaves_what_comes_later(gallery, picture, monkeypatch):
    ids, portions, told = enrol(gallery, picture, *range(12)), [], []
    delete = gallery.delete
    monkeypatch.setattr(gallery, "delete", lambda some, cause: (portions.append(len(some)), delete(some, cause))[1])
    work = delete_work(gallery)

    class Killed(BaseException):
        pass

    def killed(done, total):
        told.append((done, total))
        if done == 2:
            enrol(gallery, picture, 13)  # passes the filter, but was not there
            raise Killed

    with JobRunner(Jobs(gallery.database), {"delete": work}) as runner:
        settings = Settings(checkpoint="x", gallery=gallery.folder)
        client = TestClient(create_app(gallery, runner, settings), base_url="http://localhost")
        wanted = {"filter": {"cameras": ["north"]}, "dry_run": False}
        refused = client.post("/v1/items/delete", json={**wanted, "expected": 5})
        assert (refused.status_code, refused.json()["detail"]) == (
            409,
            "6 items pass the filter, not 5 as expected; nothing was deleted",
        )
        monkeypatch.setattr(
            runner, "start", lambda kind, parameters, cause: runner.jobs.create(kind, parameters, cause)
        )
        accepted = client.post("/v1/items/delete", json={**wanted, "expected": 6})
        job = Jobs.get(runner.jobs, accepted.json()["job_id"])
        assert (accepted.status_code, accepted.json()["items"]) == (202, 6)
        assert client.post("/v1/items/delete", json={**wanted, "expected": 6}).status_code == 409  # one at a time
        with pytest.raises(Killed):
            work(job, killed)
        assert work(job, lambda *steps: told.append(steps)) == {"items": 6}
    assert portions == [2, 2, 2]
    assert told == [(0, 6), (2, 6), (2, 6), (4, 6), (6, 6)]
    left = gallery.store.page(Filter())
    assert [item.item_id for item in left[:6]] == ids[::2]
    assert [item.medium.source for item in left[6:]] == ["13"]
    assert len(gallery.index) == 7


def test_a_service_runs_such_a_job(gallery, picture):
    enrol(gallery, picture, *range(5))
    with JobRunner(Jobs(gallery.database), {"delete": delete_work(gallery)}) as runner:
        settings = Settings(checkpoint="x", gallery=gallery.folder)
        client = TestClient(create_app(gallery, runner, settings), base_url="http://localhost")
        answer = client.post("/v1/items/delete", json={"filter": {}, "dry_run": False, "expected": 5}).json()
        wait_until(lambda: client.get(f"/v1/jobs/{answer['job_id']}").json()["state"] == "done")
    assert gallery.store.count(Filter()) == 0
