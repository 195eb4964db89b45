"""Long work beside the service: a thread runs jobs, one after the other, and goes on after a restart."""

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any, Literal, Self

from service.records import NOBODY, Cause, Conflict, Job, NotServed
from service.storage.inspection import DamagedDatabase
from service.storage.jobs import LEASE, Jobs

log = logging.getLogger("reid")

ITSELF = Cause("service")  # who starts what is due
NEVER: Mapping[str, timedelta] = {}
PAUSE = 5.0  # seconds, until an end that could not be written is written again

# Tells how many steps of how many are done; raises where the work shall end.
Progress = Callable[[int, int], None]

# Does a job and returns its result. A job that a kill or a closing service cut short is done again, so that the work
# itself finds what it has done before.
Work = Callable[[Job, Progress], Mapping[str, Any]]


class _Cancelled(Exception):
    """The job is no longer wanted."""


class _Closing(Exception):
    """The job goes on at the next start."""


class JobRunner:
    """Runs the jobs of a gallery, each by the work of its kind; what is left of an earlier process comes first.

    An error of the work becomes that of its job, on one line, and the next job is run.
    """

    def __init__(
        self,
        jobs: Jobs,
        kinds: Mapping[str, Work],
        every: Mapping[str, timedelta] = NEVER,
        beside: Collection[str] = (),
    ) -> None:
        """Some kinds are started unasked, `every` so often since the last of them or the gallery's beginning.

        Jobs of the kinds `beside` have a thread of their own, so that no other job waits for hours of one of them.
        """
        self.jobs = jobs
        self._every = every
        self._kinds = kinds
        self._closing = Event()
        self._beside = frozenset(beside)
        self._wanted = {slow: Event() for slow in ((False, True) if beside else (False,))}
        # Daemons, so that a forgotten close lets the process end.
        self._threads = [Thread(target=self._serve, args=(slow,), name="jobs", daemon=True) for slow in self._wanted]
        for wanted in self._wanted.values():
            wanted.set()
        for thread in self._threads:
            thread.start()

    def start(self, kind: str, parameters: Mapping[str, Any], cause: Cause = NOBODY) -> Job:
        """Queue a job; raises Conflict, naming the other, while one of its kind is queued or running.

        Raises NotServed for a kind that there is no work of here.
        """
        if kind not in self._kinds:
            raise NotServed(f"this service has no {kind}: it has {', '.join(sorted(self._kinds)) or 'nothing'}")
        job = self.jobs.create(kind, parameters, cause)
        self._wanted[kind in self._beside].set()
        return job

    def close(self) -> None:
        """Wait for what runs to tell its progress, where it ends and will go on at the next start."""
        self._closing.set()
        for wanted in self._wanted.values():
            wanted.set()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, slow: bool) -> None:
        wanted = self._wanted[slow]
        while not self._closing.is_set():
            wanted.wait(LEASE.total_seconds())  # then a job is free again whose end could not be written
            wanted.clear()
            try:
                if not slow:
                    self._start_due()
                while not self._closing.is_set() and (job := self.jobs.claim(self._beside, among=slow)):
                    self._run(job)
            except (
                Exception
            ) as error:  # the disk is full, say; the thread lives on, and the job goes on some other time
                log.error("jobs: %s", error, exc_info=None if isinstance(error, OSError) else error)

    def _start_due(self) -> None:
        for kind, pause in self._every.items():
            last = self.jobs.last_start(kind)
            if last is not None and datetime.now(UTC) - last > pause:
                with suppress(Conflict):  # another process did
                    self.jobs.create(kind, {}, ITSELF)

    def _run(self, job: Job) -> None:
        def progress(done: int, total: int) -> None:
            if self._closing.is_set():
                raise _Closing
            if not self.jobs.progress(job.job_id, done, total):
                raise _Cancelled

        log.info("job %s: %s", job.job_id, job.kind)
        try:
            result = self._kinds[job.kind](job, progress)
        except _Closing:
            log.info("job %s: goes on at the next start", job.job_id)
        except _Cancelled:
            self._end(job, "cancelled")
            log.info("job %s: cancelled", job.job_id)
        except Exception as error:
            message = " ".join(str(error).split()) or type(error).__name__
            expected = isinstance(error, OSError | ValueError)
            if not expected:
                message = f"unexpected {type(error).__name__}: {message}"
            log.error("job %s: %s", job.job_id, message, exc_info=None if expected else error)
            self._end(job, "failed", error=message)
        else:
            self._end(job, "done", result)
            log.info("job %s: done", job.job_id)

    def _end(
        self,
        job: Job,
        state: Literal["done", "failed", "cancelled"],
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Write how a job ended, again while the database is away: or it would run until its lease ends."""
        while True:
            try:
                return self.jobs.end(job.job_id, state, result, error)
            except OSError as away:
                log.error("job %s: %s", job.job_id, away)
                if isinstance(away, DamagedDatabase) or self._closing.wait(PAUSE):
                    return
