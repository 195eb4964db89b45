"""Records of long work: what was asked for, how far it is, and how it ended."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args
from uuid import uuid4

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from service.fields import microseconds, time_from
from service.records import NOBODY, Cause, Conflict, Job, JobState, NotFound
from service.storage.columns import json_text, now
from service.storage.database import Database
from service.storage.inspection import DamagedDatabase
from service.storage.tables import jobs, operations
from service.storage.transaction import Transaction

LEASE = timedelta(minutes=5)  # of a running job, renewed by its progress

_JOBS = select(
    jobs.c.number,
    jobs.c.job_id,
    jobs.c.kind,
    jobs.c.parameters,
    jobs.c.state,
    jobs.c.done,
    jobs.c.total,
    jobs.c.result,
    jobs.c.error,
    jobs.c.actor,
    jobs.c.request_id,
    jobs.c.created_at,
    jobs.c.started_at,
    jobs.c.finished_at,
)
_IS_OPEN = jobs.c.state.in_(["queued", "running"])


class Jobs:
    """The jobs of a gallery, of which one of each kind at most is queued or running; errors as those of a `Database`.

    Whoever runs a job has it on a lease, so that another may go on with it when its owner is gone.
    """

    def __init__(self, database: Database, running: bool = True) -> None:
        """End all leases, for their owners are gone; where several processes share the gallery they end by time.

        Those who run no jobs, but read of them, end none.
        """
        self._database = database
        if running and not database.shared:
            # Of a damaged gallery, what can be read is served all the same, and no job is run.
            with suppress(DamagedDatabase), database.transaction() as connection:
                connection.execute(update(jobs).values(leased_until=None))

    def create(self, kind: str, parameters: Mapping[str, Any], cause: Cause = NOBODY) -> Job:
        """Queue a job; raises Conflict, naming the other, while one of its kind is queued or running."""
        job_id = uuid4().hex
        values = {"job_id": job_id, "kind": kind, "parameters": json_text(dict(parameters)), "state": "queued"}
        with self._database.transaction() as connection:
            if other := connection.execute(_JOBS.where(jobs.c.kind == kind, _IS_OPEN)).first():
                raise Conflict(f"job {other.job_id} of kind {kind} is {other.state} already")
            connection.execute(insert(jobs).values(created_at=now(), **values, **cause._asdict()))
            after = {"kind": kind, "parameters": dict(parameters)}
            Transaction(connection, cause).log("job.create", job_id, None, after)
            return _get(connection, job_id)

    def get(self, job_id: str) -> Job:
        """The job of a public id; raises NotFound."""
        for row in self._database.read(_JOBS.where(jobs.c.job_id == job_id)):
            return _job(row)
        raise NotFound(f"no job {job_id!r}")

    def page(self, before: int | None, limit: int) -> list[Job]:
        """The newest `limit` jobs with a number below `before`, newest first."""
        older = _JOBS if before is None else _JOBS.where(jobs.c.number < before)
        return [_job(row) for row in self._database.read(older.order_by(jobs.c.number.desc()).limit(limit))]

    def open(self) -> list[Job]:
        """Those that are queued or running."""
        return [_job(row) for row in self._database.read(_JOBS.where(_IS_OPEN))]

    def last_done(self, kind: str) -> Job | None:
        """The newest job of a kind that is done."""
        done = _JOBS.where(jobs.c.kind == kind, jobs.c.state == "done").order_by(jobs.c.number.desc()).limit(1)
        return next((_job(row) for row in self._database.read(done)), None)

    def last_start(self, kind: str) -> datetime | None:
        """When the last job of a kind was created, or else the gallery; None for one that nothing was done to."""
        latest = select(func.max(jobs.c.created_at)).where(jobs.c.kind == kind).scalar_subquery()
        first = select(operations.c.time).order_by(operations.c.seq).limit(1).scalar_subquery()
        ((created_at,),) = self._database.read(select(func.coalesce(latest, first)))
        return None if created_at is None else time_from(created_at)

    def claim(self, kinds: Collection[str] = (), *, among: bool = False) -> Job | None:
        """Lease the oldest job that is queued, or that runs without a lease; None where there is none.

        Of all kinds but these, or `among` them.
        """
        abandoned = and_(jobs.c.state == "running", func.coalesce(jobs.c.leased_until, 0) < now())
        wanted = jobs.c.kind.in_(kinds) if among else jobs.c.kind.not_in(kinds)
        waiting = select(jobs.c.job_id).where(or_(jobs.c.state == "queued", abandoned), wanted)
        free = waiting.order_by(jobs.c.number).limit(1)
        with self._database.transaction() as connection:
            job_id = connection.execute(free).scalar()
            if job_id is None:
                return None
            started = func.coalesce(jobs.c.started_at, now())
            _update(connection, job_id, state="running", leased_until=_lease(), started_at=started)
            return _get(connection, job_id)

    def progress(self, job_id: str, done: int, total: int) -> bool:
        """Tell how far a running job is, and renew its lease; False when it was cancelled and shall end."""
        with self._database.transaction() as connection:
            _update(connection, job_id, done=done, total=total, leased_until=_lease())
            cancelled = select(jobs.c.cancel_requested).where(jobs.c.job_id == job_id)
            return not connection.execute(cancelled).scalar_one()

    def end(
        self,
        job_id: str,
        state: Literal["done", "failed", "cancelled"],
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Tell how a running job ended."""
        with self._database.transaction() as connection:
            _end(connection, job_id, state, None if result is None else json_text(dict(result)), error)

    def cancel(self, job_id: str, cause: Cause = NOBODY) -> Job:
        """Ask a job to end: a queued one is cancelled at once, a running one when it next tells its progress.

        Raises NotFound, and Conflict for a job that has ended.
        """
        with self._database.transaction() as connection:
            job = _get(connection, job_id)
            if job.state not in ("queued", "running"):
                raise Conflict(f"job {job_id} of kind {job.kind} is {job.state} already")
            _update(connection, job_id, cancel_requested=True)
            if job.state == "queued":
                _end(connection, job_id, "cancelled", None, None)
            Transaction(connection, cause).log("job.cancel", job_id, {"state": job.state}, None)
            return _get(connection, job_id)


def cancel_all(connection: Connection) -> None:
    """End all jobs that are queued or running, in a gallery where nobody runs them."""
    connection.execute(update(jobs).where(_IS_OPEN).values(state="cancelled", finished_at=now()))


def _get(connection: Connection, job_id: str) -> Job:
    row = connection.execute(_JOBS.where(jobs.c.job_id == job_id)).first()
    if row is None:
        raise NotFound(f"no job {job_id!r}")
    return _job(tuple(row))


def _update(connection: Connection, job_id: str, **values: Any) -> None:
    connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(values))


def _end(connection: Connection, job_id: str, state: str, result: str | None, error: str | None) -> None:
    _update(connection, job_id, state=state, result=result, error=error, leased_until=None, finished_at=now())


def _job(row: tuple[Any, ...]) -> Job:
    number, job_id, kind, parameters, state, done, total, result, error, actor, request_id, *times = row
    assert state in get_args(JobState)
    created_at, started_at, finished_at = (None if time is None else time_from(time) for time in times)
    assert created_at is not None
    return Job(
        number,
        job_id,
        kind,
        json.loads(parameters),
        state,
        done,
        total,
        None if result is None else json.loads(result),
        error,
        actor,
        request_id,
        created_at,
        started_at,
        finished_at,
    )


def _lease() -> int:
    return microseconds(datetime.now(UTC) + LEASE)
