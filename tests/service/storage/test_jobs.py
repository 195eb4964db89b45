"""Records of jobs: one open job of a kind, a lease for who runs it, and an end."""

from datetime import UTC, datetime, timedelta

import pytest

import service.storage.jobs
from service.records import Cause, Conflict, NotFound
from service.storage.jobs import Jobs, cancel_all
from service.storage.store import Store

ADA = Cause("ada", "r1")


@pytest.fixture
def jobs(database):
    return Jobs(database)


def test_a_job_from_its_start_to_its_end(database, jobs):
    begun = datetime.now(UTC)
    job = jobs.create("backup", {"target": "Åsa"}, ADA)
    assert (job.kind, job.parameters, job.state, job.cause) == ("backup", {"target": "Åsa"}, "queued", ADA)
    assert (job.done, job.total, job.started_at, job.finished_at) == (0, None, None, None)
    assert begun <= job.created_at <= datetime.now(UTC)
    claimed = jobs.claim()
    assert (claimed.job_id, claimed.state) == (job.job_id, "running")
    assert claimed.started_at >= job.created_at
    assert jobs.claim() is None
    assert jobs.progress(job.job_id, 3, 10)
    assert (jobs.get(job.job_id).done, jobs.get(job.job_id).total) == (3, 10)
    jobs.end(job.job_id, "done", {"items": 7})
    ended = jobs.get(job.job_id)
    assert (ended.state, ended.result, ended.error) == ("done", {"items": 7}, None)
    assert ended.finished_at >= ended.started_at == claimed.started_at
    assert jobs.claim() is None
    [created] = Store(database).operations()
    assert (created.kind, created.target, created.actor, created.request_id) == ("job.create", job.job_id, *ADA)
    assert created.after == {"kind": "backup", "parameters": {"target": "Åsa"}}


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_second_open_job_of_a_kind_is_refused(jobs, state):
    first = jobs.create("backup", {})
    if state == "running":
        jobs.claim()
    with pytest.raises(Conflict, match=f"^job {first.job_id} of kind backup is {state} already$"):
        jobs.create("backup", {})
    other = jobs.create("reindex", {})
    jobs.claim()
    jobs.end(first.job_id, "failed", error="no space")
    assert jobs.get(first.job_id).error == "no space"
    again = jobs.create("backup", {})
    assert first.number < other.number < again.number


def test_the_oldest_job_is_claimed_first(jobs):
    created = [jobs.create(kind, {}).job_id for kind in "cab"]
    assert [jobs.claim().job_id for _ in created] == created


def test_a_job_whose_lease_ran_out_is_claimed_again(database, jobs, monkeypatch):
    job = jobs.create("backup", {})
    started = jobs.claim().started_at
    monkeypatch.setattr(service.storage.jobs, "LEASE", timedelta(0))
    jobs.progress(job.job_id, 1, 2)  # renews a lease that is over at once
    monkeypatch.undo()
    again = jobs.claim()
    assert (again.job_id, again.started_at, again.done) == (job.job_id, started, 1)
    assert jobs.claim() is None
    # As at the start of another process: the owner of the lease is gone, unless processes share the gallery.
    assert (Jobs(database).claim() is None) == database.shared


def test_cancelling(database, jobs):
    queued, running = jobs.create("backup", {}), jobs.create("reindex", {})
    cancelled = jobs.cancel(queued.job_id, ADA)
    assert (cancelled.state, cancelled.error) == ("cancelled", None)
    assert cancelled.finished_at >= queued.created_at
    assert jobs.claim().job_id == running.job_id
    assert jobs.progress(running.job_id, 1, 2)
    assert jobs.cancel(running.job_id, ADA).state == "running"
    assert not jobs.progress(running.job_id, 2, 2)
    jobs.end(running.job_id, "cancelled")
    for job_id in (queued.job_id, running.job_id):
        with pytest.raises(Conflict, match=f"^job {job_id} of kind .* is cancelled already$"):
            jobs.cancel(job_id)
    logged = [(entry.kind, entry.target, entry.actor) for entry in Store(database).operations()][2:]
    assert logged == [("job.cancel", queued.job_id, "ada"), ("job.cancel", running.job_id, "ada")]


def test_cancelling_all(database, jobs):
    done = jobs.create("a", {})
    jobs.claim()
    jobs.end(done.job_id, "done", {})
    jobs.create("a", {})
    jobs.claim()
    jobs.create("b", {})
    with database.transaction() as connection:
        cancel_all(connection)
    assert [job.state for job in jobs.page(None, 10)] == ["cancelled", "cancelled", "done"]
    assert jobs.claim() is None


def test_pages_are_newest_first(jobs):
    created = [jobs.create(str(n), {}) for n in range(5)]
    pages, before = [], None
    while page := jobs.page(before, 2):
        assert len(page) <= 2
        pages += page
        before = page[-1].number
    assert pages == created[::-1]


def test_what_is_not_there_is_named(jobs):
    for ask in (jobs.get, jobs.cancel):
        with pytest.raises(NotFound, match='no job "it.s"'):
            ask("it's")
