"""What is kept for a time only goes in its time, and nothing else does."""

from datetime import UTC, datetime, timedelta
from threading import Event

import pytest
from sqlalchemy import update

from service.fields import Filter
from service.records import Cause, Details, LoggedQuery, Upload
from service.settings import Settings, load
from service.storage.database import Database
from service.storage.jobs import Jobs
from service.storage.queries import Queries
from service.storage.tables import items, jobs, operations, queries
from service.upkeep.jobs import JobRunner
from service.upkeep.retention import expire_work, expired
from tests.waiting import wait_until

DAY = 86_400_000_000  # microseconds


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "of jobs") as database:
        yield database


def aged(database, table, column, number, days):
    with database.transaction() as connection:
        key = next(iter(table.primary_key))
        moved = {column.name: column - int(days * DAY)}
        connection.execute(update(table).where(key == number).values(moved))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("30", {"*": 30}),
        ("north=30, south=7.5,*=90", {"north": 30, "south": 7.5, "*": 90}),
        ("a=b=3", {"a=b": 3}),
        ("", {}),
    ],
)
def test_days_are_read(said, kept, monkeypatch):
    monkeypatch.setenv("REID_KEEP_DAYS", said)
    assert load(Settings, {"classifier": "x"}).keep_days == kept


@pytest.mark.parametrize("said", ["soon", "north=", "0", "north=-1", "nan", "north"])
def test_what_is_no_number_of_days_is_refused(said, monkeypatch):
    monkeypatch.setenv("REID_KEEP_DAYS", said)
    with pytest.raises(Exception, match=r"keep_days \(REID_KEEP_DAYS\): .*expected days, as 30, or CAMERA=DAYS"):
        load(Settings, {"classifier": "x"})


def test_items_go_when_the_days_of_their_camera_are_over(gallery, picture):
    cameras = ["north", "north", "south", "east", None]
    enrolled = gallery.enrol([Upload("", picture(n), Details(camera=camera)) for n, camera in enumerate(cameras)])
    numbers = [one.item.number for one in enrolled]
    for number, days in zip(numbers, [31, 29, 8, 91, 91], strict=True):
        aged(gallery.database, items, items.c.created_at, number, days)
    keep = {"north": 30.0, "south": 7.0, "*": 90.0}
    assert expired(gallery.store, keep) == {"north": 1, "south": 1, "*": 2}
    store, done = Jobs(gallery.database), Event()
    with JobRunner(store, {"expire": expire_work(gallery, keep)}) as runner:
        for parameters, left in (({"dry_run": True}, numbers), ({}, [numbers[1]])):
            job = runner.start("expire", parameters).job_id
            wait_until(lambda job=job: store.get(job).state == "done")
            assert store.get(job).result["items"] == {"north": 1, "south": 1, "*": 2}
            assert [item.number for item in gallery.store.page(Filter())] == left
    assert gallery.worker.size() == 1 and not done.is_set()
    assert {change.actor for change in gallery.store.operations() if change.kind == "item.delete"} == {"retention"}


def test_the_oldest_queries_go_by_age_and_by_size(database):
    log = Queries(database)
    log.append([LoggedQuery(Cause(str(n)), (), None, {}, 0, (("i" * 850, 0.5),)) for n in range(20)])  # 1 kB each
    for seq in (1, 2):
        with database.transaction() as connection:  # as it was written then
            connection.exec_driver_sql("DROP TRIGGER IF EXISTS queries_are_not_changed")
        aged(database, queries, queries.c.time, seq, 91)
    limit = datetime.now(UTC) - timedelta(days=90)
    assert log.prune(limit, 10**9) == 2
    assert log.prune(limit, 10**9) == 0
    assert log.prune(limit, 10_000) in range(7, 11)
    left = [query.asked.cause.actor for query in log.page()]
    assert left == [str(n) for n in range(20)][-len(left) :] and len(left) in range(8, 12)
    assert log.prune(datetime.now(UTC), 1) == len(left) and log.page() == []


def test_what_is_due_is_started_once_in_its_time(database):
    ran, store = [], Jobs(database)
    store.create("other", {})  # the beginning of the gallery
    every = {"prune": timedelta(days=1)}
    kinds = {"prune": lambda job, progress: ran.append(job.kind) or {}, "other": lambda job, progress: {}}
    with JobRunner(store, kinds, every):
        wait_until(lambda: store.page(None, 9)[0].state == "done")
    assert ran == []
    with database.transaction() as connection:
        connection.exec_driver_sql("DROP TRIGGER operations_are_not_changed")
        connection.execute(update(operations).values(time=operations.c.time - 2 * DAY))
    for _ in range(2):
        with JobRunner(store, kinds, every):
            wait_until(lambda: all(job.state == "done" for job in store.page(None, 9)))
    wait_until(lambda: ran == ["prune"])
    with database.transaction() as connection:
        connection.execute(update(jobs).values(created_at=jobs.c.created_at - 2 * DAY))
    with JobRunner(store, kinds, every):
        wait_until(lambda: ran == ["prune", "prune"])
