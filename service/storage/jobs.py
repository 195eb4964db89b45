"""Records of long work: what was asked for, how far it is, and how it ended."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from sqlite3 import Connection
from typing import Any, Literal, get_args
from uuid import uuid4

from service.records import NOBODY, Cause, Conflict, NotFound
from service.storage.changes import Batch
from service.storage.columns import json_text, microseconds, time_from
from service.storage.database import Database

LEASE = timedelta(minutes=5)  # of a running job, renewed by its progress

State = Literal["queued", "running", "done", "failed", "cancelled"]
_COLUMNS = (
    "number, job_id, kind, parameters, state, done, total, result, error, actor, request_id, created_at, started_at, "
    "finished_at"
)
_OPEN = "state IN ('queued', 'running')"


@dataclass(frozen=True, slots=True)
class Job:
    """Long work of one kind. `done` of `total` steps are behind it; `error` is one line.

    A number is never used again, and rises with each job.
    """

    number: int
    job_id: str
    kind: str
    parameters: Mapping[str, Any]
    state: State
    done: int
    total: int | None
    result: Mapping[str, Any] | None
    error: str | None
    actor: str
    request_id: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def cause(self) -> Cause:
        """Who started it, and in which request."""
        return Cause(self.actor, self.request_id)


class Jobs:
    """The jobs of a gallery, of which one of each kind at most is queued or running; errors as those of a `Database`.

    Whoever runs a job has it on a lease, so that another may go on with it when its owner is gone.
    """

    def __init__(self, database: Database) -> None:
        """End all leases: their owners are gone, for the database is open in one process alone."""
        self._database = database
        with database.transaction() as connection:
            connection.execute("UPDATE jobs SET leased_until = NULL")

    def create(self, kind: str, parameters: Mapping[str, Any], cause: Cause = NOBODY) -> Job:
        """Queue a job; raises Conflict, naming the other, while one of its kind is queued or running."""
        job_id = uuid4().hex
        with self._database.transaction() as connection:
            for other, state in connection.execute(
                f"SELECT job_id, state FROM jobs WHERE kind = ? AND {_OPEN}", [kind]
            ):
                raise Conflict(f"job {other} of kind {kind} is {state} already")
            connection.execute(
                "INSERT INTO jobs (job_id, kind, parameters, state, actor, request_id, created_at) "
                "VALUES (?, ?, ?, 'queued', ?, ?, ?)",
                (job_id, kind, json_text(dict(parameters)), *cause, _now()),
            )
            after = {"kind": kind, "parameters": dict(parameters)}
            Batch(connection, cause).log("job.create", job_id, None, after)
            return _get(connection, job_id)

    def get(self, job_id: str) -> Job:
        """The job of a public id; raises NotFound."""
        for row in self._database.read(f"SELECT {_COLUMNS} FROM jobs WHERE job_id = ?", (job_id,)):
            return _job(row)
        raise NotFound(f"no job {job_id!r}")

    def page(self, before: int | None, limit: int) -> list[Job]:
        """The newest `limit` jobs with a number below `before`, newest first."""
        sql = f"SELECT {_COLUMNS} FROM jobs WHERE ?1 IS NULL OR number < ?1 ORDER BY number DESC LIMIT ?2"
        return [_job(row) for row in self._database.read(sql, (before, limit))]

    def claim(self) -> Job | None:
        """Lease the oldest job that is queued, or that runs without a lease; None where there is none."""
        with self._database.transaction() as connection:
            sql = (
                "SELECT job_id FROM jobs WHERE state = 'queued' OR state = 'running' AND coalesce(leased_until, 0) < ? "
            )
            for (job_id,) in connection.execute(f"{sql} ORDER BY number LIMIT 1", (_now(),)).fetchall():
                connection.execute(
                    "UPDATE jobs SET state = 'running', leased_until = ?, started_at = coalesce(started_at, ?) "
                    "WHERE job_id = ?",
                    (_lease(), _now(), job_id),
                )
                return _get(connection, job_id)
        return None

    def progress(self, job_id: str, done: int, total: int) -> bool:
        """Tell how far a running job is, and renew its lease; False when it was cancelled and shall end."""
        with self._database.transaction() as connection:
            sql = "UPDATE jobs SET done = ?, total = ?, leased_until = ? WHERE job_id = ? RETURNING cancel_requested"
            ((cancelled,),) = connection.execute(sql, (done, total, _lease(), job_id)).fetchall()
        return not cancelled

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
            connection.execute("UPDATE jobs SET cancel_requested = 1 WHERE job_id = ?", (job_id,))
            if job.state == "queued":
                _end(connection, job_id, "cancelled", None, None)
            Batch(connection, cause).log("job.cancel", job_id, {"state": job.state}, None)
            return _get(connection, job_id)

    def cancel_all(self) -> None:
        """End all jobs that are queued or running, in a gallery where nobody runs them."""
        with self._database.transaction() as connection:
            connection.execute(f"UPDATE jobs SET state = 'cancelled', finished_at = ? WHERE {_OPEN}", (_now(),))


def _get(connection: Connection, job_id: str) -> Job:
    row = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    if row is None:
        raise NotFound(f"no job {job_id!r}")
    return _job(row)


def _end(connection: Connection, job_id: str, state: str, result: str | None, error: str | None) -> None:
    connection.execute(
        "UPDATE jobs SET state = ?, result = ?, error = ?, leased_until = NULL, finished_at = ? WHERE job_id = ?",
        (state, result, error, _now(), job_id),
    )


def _job(row: tuple[Any, ...]) -> Job:
    number, job_id, kind, parameters, state, done, total, result, error, actor, request_id, *times = row
    assert state in get_args(State)
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


def _now() -> int:
    return microseconds(datetime.now(UTC))


def _lease() -> int:
    return microseconds(datetime.now(UTC) + LEASE)
