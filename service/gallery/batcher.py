"""One owner thread for the model and the search engine: jobs of many threads go through it in batches."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Condition, Thread, current_thread
from time import monotonic
from typing import Any, Generic, Self, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")
Result = TypeVar("Result")
Task = TypeVar("Task")  # a job or a function


GIVEN_UP = "the service stops, and this has waited too long"


class Busy(RuntimeError):
    """Too many jobs wait already; `retry_after` is when to come again, in whole seconds, 1 or more."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting} jobs are waiting, which is all that may; try again in {retry_after} s")
        self.retry_after = retry_after


class Closed(RuntimeError):
    """The batcher is closed and takes nothing more."""


class Batcher(Generic[Job, Answer]):
    """Gives jobs to `work` on one thread, in batches of what has come in by the time it is free: no timed wait.

    `work` answers a list of 1 to `max_batch` jobs in their order; an exception among the answers fails that job alone,
    one that is raised fails them all. Neither stops the thread. Urgent jobs go before bulk ones, which wait as long as
    urgent ones fill every batch. Each kind has its own queue of `max_waiting`, so that bulk never shuts urgent out.
    """

    def __init__(
        self, work: Callable[[list[Job]], Sequence[Answer | Exception]], *, max_batch: int = 32, max_waiting: int = 256
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._changed = Condition()  # guards the queues and whether they are closed
        self._urgent: deque[tuple[Job, Future[Answer]]] = deque()
        self._bulk: deque[tuple[Job, Future[Answer]]] = deque()
        self._functions: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closed = self._given_up = False
        self._seconds_per_job = 0.0
        self._owner = Thread(target=self._serve, name="batcher", daemon=True)  # a forgotten close lets the process end
        self._owner.start()

    def submit(self, job: Job, *, urgent: bool = True) -> Future[Answer]:
        """Queue a job; a future that is cancelled before its batch starts is dropped. Raises Busy and Closed."""
        future: Future[Answer] = Future()
        queue = self._urgent if urgent else self._bulk
        with self._changed:
            self._require_open()
            if self._given_up:
                raise Closed(GIVEN_UP)
            if len(queue) >= self._max_waiting:
                ahead = len(self._urgent) + (0 if urgent else len(self._bulk))
                raise Busy(len(queue), max(1, math.ceil(ahead * self._seconds_per_job)))
            queue.append((job, future))
            self._changed.notify()
        return future

    def run(self, function: Callable[[], Result]) -> Future[Result]:
        """Queue a function for the owner thread: after those queued before it, ahead of the next batch. Raises Closed.

        A batch goes between the functions queued before it and those queued since, so neither starves the other.
        """
        future: Future[Result] = Future()
        with self._changed:
            self._require_open()
            self._functions.append((function, future))
            self._changed.notify()
        return future

    @property
    def waiting(self) -> dict[str, int]:
        """How many urgent jobs, bulk jobs and functions wait to be taken, by these names."""
        return {"urgent": len(self._urgent), "bulk": len(self._bulk), "functions": len(self._functions)}

    def give_up(self) -> None:
        """Take no more jobs, and fail those that wait with `Closed`; functions are called as before."""
        with self._changed:
            self._given_up = True
        for _, future in self._take(len(self._urgent) + len(self._bulk), self._urgent, self._bulk):
            future.set_exception(Closed(GIVEN_UP))

    def close(self) -> None:
        """Take nothing more, finish what is queued, and wait for the thread to end.

        Called on the owner thread itself, it does not wait.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        if current_thread() is not self._owner:
            self._owner.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("the batcher is closed and takes nothing more")

    def _serve(self) -> None:
        while self._wait():
            for function, future in self._take(len(self._functions), self._functions):
                try:
                    future.set_result(function())
                except BaseException as error:  # as in concurrent.futures: the caller gets it, the thread lives on
                    future.set_exception(error)
            if batch := self._take(self._max_batch, self._urgent, self._bulk):
                self._answer(batch)

    def _wait(self) -> bool:
        """Wait for something to do; False when closed and done."""
        with self._changed:
            self._changed.wait_for(lambda: self._urgent or self._bulk or self._functions or self._closed)
            return bool(self._urgent or self._bulk or self._functions)

    def _take(self, most: int, *queues: deque[tuple[Task, Future[Any]]]) -> list[tuple[Task, Future[Any]]]:
        taken: list[tuple[Task, Future[Any]]] = []
        with self._changed:
            for queue in queues:
                while queue and len(taken) < most:
                    waiting = queue.popleft()
                    if waiting[1].set_running_or_notify_cancel():
                        taken.append(waiting)
        return taken

    def _answer(self, batch: list[tuple[Job, Future[Any]]]) -> None:
        answers: Sequence[Answer | BaseException]
        started = monotonic()
        try:
            answers = self._work([job for job, _ in batch])
            if len(answers) != len(batch):
                raise ValueError(f"{len(batch)} jobs got {len(answers)} answers, expected one each")
        except BaseException as error:
            answers = [error] * len(batch)
        self._seconds_per_job = (monotonic() - started) / len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
