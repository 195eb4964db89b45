"""One thread runs jobs one after the other, whatever becomes of each."""

import logging
import threading
import time
from contextlib import closing

import pytest

import service.upkeep.jobs
from service.records import NotServed
from service.storage.database import Database
from service.storage.jobs import Jobs
from service.upkeep.jobs import JobRunner
from tests.waiting import DEADLINE, wait_until


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "gallery") as database:
        yield database


def ended(jobs, job):
    """The job when it has ended."""
    wait_until(lambda: jobs.get(job.job_id).state not in ("queued", "running"))
    return jobs.get(job.job_id)


class Steps:
    """Work of many steps, which waits in the second one until it is let go on."""

    def __init__(self):
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.ran = []

    def __call__(self, job, progress):
        self.ran.append(job.job_id)
        progress(1, 3)
        self.reached.set()
        assert self.go_on.wait(DEADLINE)
        progress(2, 3)
        progress(3, 3)
        return {"steps": 3}


def test_jobs_run_one_after_the_other_and_tell_their_result(database):
    work = Steps()
    with JobRunner(Jobs(database), {"slow": work, "quick": lambda job, progress: dict(job.parameters)}) as runner:
        slow = runner.start("slow", {})
        quick = runner.start("quick", {"n": 4})
        assert work.reached.wait(DEADLINE)
        assert (runner.jobs.get(slow.job_id).done, runner.jobs.get(slow.job_id).total) == (1, 3)
        assert runner.jobs.get(quick.job_id).state == "queued"
        work.go_on.set()
        first, second = ended(runner.jobs, slow), ended(runner.jobs, quick)
    assert (first.state, first.result, first.done) == ("done", {"steps": 3}, 3)
    assert (second.state, second.result) == ("done", {"n": 4})
    assert second.started_at >= first.finished_at


def test_a_job_of_hours_keeps_none_of_another_kind_waiting(database):
    slow, other = Steps(), Steps()
    kinds = {"import": slow, "reindex": other, "backup": lambda job, progress: {"path": "b"}}
    with JobRunner(Jobs(database), kinds, beside=("import", "reindex")) as runner:
        first = runner.start("import", {})
        assert slow.reached.wait(DEADLINE)
        second = runner.start("reindex", {})
        assert ended(runner.jobs, runner.start("backup", {})).state == "done"
        assert [runner.jobs.get(job.job_id).state for job in (first, second)] == ["running", "queued"]
        slow.go_on.set()
        other.go_on.set()
        assert [ended(runner.jobs, job).state for job in (first, second)] == ["done", "done"]
    assert len(slow.ran) == len(other.ran) == 1


@pytest.mark.parametrize(
    ("error", "told", "traceback"),
    [
        (OSError("no space\n  left"), "no space left", False),
        (ValueError("3 items"), "3 items", False),
        (KeyError("x"), "unexpected KeyError: 'x'", True),
        (ValueError(), "ValueError", False),
    ],
)
def test_an_error_is_one_line_and_the_next_job_runs(database, caplog, error, told, traceback):
    def fail(job, progress):
        raise error

    with (
        caplog.at_level(logging.INFO, "reid"),
        JobRunner(Jobs(database), {"bad": fail, "good": lambda job, progress: {}}) as runner,
    ):
        bad = ended(runner.jobs, runner.start("bad", {}))
        assert (bad.state, bad.error, bad.result) == ("failed", told, None)
        assert ended(runner.jobs, runner.start("good", {})).state == "done"
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert told in record.getMessage()
    assert bool(record.exc_info) == traceback


def test_a_kind_that_nobody_knows_fails(database):
    with JobRunner(Jobs(database), {}) as runner:
        with pytest.raises(NotServed, match="no other: it has nothing"):
            runner.start("other", {})
        queued = runner.jobs.create("other", {})  # by another version of the service, say
        runner._wanted[False].set()
        assert ended(runner.jobs, queued).error == "unexpected KeyError: 'other'"


def test_a_cancelled_job_ends_at_its_next_step(database):
    work = Steps()
    with JobRunner(Jobs(database), {"slow": work}) as runner:
        job = runner.start("slow", {})
        assert work.reached.wait(DEADLINE)
        runner.jobs.cancel(job.job_id)
        work.go_on.set()
        cancelled = ended(runner.jobs, job)
        assert (cancelled.state, cancelled.done, cancelled.error) == ("cancelled", 2, None)
        again = runner.start("slow", {})
        assert ended(runner.jobs, again).state == "done"


def test_closing_ends_a_job_at_its_next_step_and_the_next_start_goes_on(database):
    work = Steps()
    runner = JobRunner(Jobs(database), {"slow": work})
    job = runner.start("slow", {})
    assert work.reached.wait(DEADLINE)
    closer = threading.Thread(target=runner.close)
    closer.start()
    while not runner._closing.is_set():
        time.sleep(0.001)
    work.go_on.set()
    closer.join(DEADLINE)
    assert not closer.is_alive()
    assert (runner.jobs.get(job.job_id).state, runner.jobs.get(job.job_id).done) == ("running", 1)
    with JobRunner(Jobs(database), {"slow": work}) as runner:
        done = ended(runner.jobs, job)
    assert (done.state, done.started_at) == ("done", runner.jobs.get(job.job_id).started_at)
    assert work.ran == [job.job_id] * 2


def test_an_idle_runner_closes(database):
    with closing(JobRunner(Jobs(database), {})):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "jobs"]


def test_a_disk_that_is_full_for_a_while_does_not_stop_the_thread(database, monkeypatch, caplog):
    jobs = Jobs(database)
    failed = threading.Event()
    end = jobs.end

    def refuse(*_, **__):
        failed.set()
        raise OSError("disk is full")

    monkeypatch.setattr(service.upkeep.jobs, "PAUSE", 0.01)
    with JobRunner(jobs, {"a": lambda job, progress: {}, "b": lambda job, progress: {}}) as runner:
        monkeypatch.setattr(jobs, "end", refuse)
        first = runner.start("a", {})
        assert failed.wait(DEADLINE)
        assert jobs.get(first.job_id).state == "running"
        monkeypatch.setattr(jobs, "end", end)
        assert ended(jobs, runner.start("b", {})).state == "done"
        assert jobs.get(first.job_id).state == "done"


def test_a_job_whose_end_could_not_be_written_is_done_again_after_a_restart(database, monkeypatch):
    jobs = Jobs(database)
    failed = threading.Event()

    def refuse(*_, **__):
        failed.set()
        raise OSError("disk is full")

    monkeypatch.setattr(jobs, "end", refuse)
    with JobRunner(jobs, {"a": lambda job, progress: {}}) as runner:
        job = runner.start("a", {})
        assert failed.wait(DEADLINE)
    with JobRunner(Jobs(database), {"a": lambda job, progress: {"again": True}}):
        assert ended(Jobs(database), job).result == {"again": True}
