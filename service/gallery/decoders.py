"""The processes that read photos of strangers, so that none takes more than its share of time, memory and processes."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from threading import Condition, Event, Thread
from typing import Any, Self

from reid.data.images import UnknownFormat, UnusableImage, max_pixels
from service.gallery.batcher import Busy, Closed
from service.gallery.decoder import receive, seconds_for, send_order
from service.gallery.rendering import Order, Rendered
from service.records import DECODE_SECONDS

log = logging.getLogger("reid")

MOST = 16  # processes that a machine with many processors has for this, of 40 MiB each
PIXELS_AT_ONCE = 160_000_000  # in all processes together; one photo may always be read
BYTES_WAITING = 512 * 2**20  # of each share
PATIENCE = 20  # times its processor time, after which a process that does nothing is ended, too
SECONDS_TO_END = 1.0
SECONDS_TO_TRY_AGAIN = 1.0
STOPPING = "the service stops, and no photo is read any more"

# Big pieces of memory go back at once: photos of 49 megapixels kept 3 GiB of 5.
_ALLOCATION = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "16777216"}
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


Within = Callable[[], AbstractContextManager[object]]

LEFT: ContextVar[Event | None] = ContextVar("LEFT", default=None)
"""Set once whoever is answered in this context has left: photos that it asked for and that still wait are not read."""


class OverBudget(UnusableImage):
    """A photo takes more work than one of its size may; the message has the limit."""


class Left(RuntimeError):
    """Whoever asked for a photo has left before it was read."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    data: bytes
    order: Order
    finish: Callable[[Rendered], Any]
    within: "Within"
    left: Event | None
    future: "Future[Any]" = field(default_factory=Future)


class Decoders:
    """Some processes, one more than processors, that render photos for any thread.

    Whoever asks names a share, such as a key and what it is used for. No share has all processes, so that another never
    waits for the photos of one; of several that wait, the one with fewest at work is next. Methods raise `Closed` after
    `close`.
    """

    def __init__(self, processes: int | None = None, seconds: float = DECODE_SECONDS) -> None:
        """`seconds` of a processor is what the smallest photo may take, larger ones more; `processes` is 2 or more."""
        self._seconds = seconds
        self._changed = Condition()  # guards all below
        self._waiting: dict[str, deque[_Job]] = {}
        self._bytes = Counter[str]()
        self._working = Counter[str]()
        self._pixels = 0
        self._closed = False
        self._processes: set[_Process] = set()
        count = processes or min(os.cpu_count() or 1, MOST) + 1
        self._most = count - 1  # of one share
        # Daemons, so that a forgotten close lets the process end; the others end with the sockets.
        self._threads = [Thread(target=self._serve, name="decoding", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        share: str,
        data: bytes,
        order: Order,
        finish: Callable[[Rendered], Any],
        within: Within = nullcontext,
    ) -> "Future[Any]":
        """Have a photo rendered, and give what `finish` makes of that, on a thread of which there are few.

        All of it happens `within` a context, such as one that takes the time. The result raises as `render` and
        `finish` do, OverBudget, and Left where `LEFT` of the caller's context is set before its turn. Raises Busy where
        too much of the share waits.
        """
        job = _Job(data, order, finish, within, LEFT.get())
        with self._changed:
            if self._closed:
                raise Closed(STOPPING)
            if self._bytes[share] and self._bytes[share] + len(data) > BYTES_WAITING:
                raise Busy(len(self._waiting[share]), 1)
            self._waiting.setdefault(share, deque()).append(job)
            self._bytes[share] += len(data)
            self._changed.notify_all()  # one alone may be one that waits for room
        return job.future

    def render(self, share: str, data: bytes, order: Order, within: Within = nullcontext) -> Rendered:
        """Have a photo rendered, and wait for it; raises as `submit` and its result."""
        rendered: Rendered = self.submit(share, data, order, lambda rendered: rendered, within).result()
        return rendered

    def close(self) -> None:
        """End all processes; whoever waits gets `Closed`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            for process in self._processes:
                process.kill()
            waiting = [job for jobs in self._waiting.values() for job in jobs]
            self._waiting.clear()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(Closed(STOPPING))
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        process = self._start()
        while process is not None and (taken := self._next()) is not None:
            share, job = taken
            try:
                if job.future.set_running_or_notify_cancel():
                    process = self._work(process, share, job)
            finally:
                with self._changed:
                    self._bytes -= Counter({share: len(job.data)})
                    self._working -= Counter({share: 1})
            if process.ended:
                process = self._start(process)
        if process is not None:
            process.end()

    def _work(self, process: "_Process", share: str, job: _Job) -> "_Process":
        """Have one photo rendered, and return the process that did, which is another if the first was gone."""
        made: Any
        try:
            if job.left is not None and job.left.is_set():
                raise Left("whoever asked for this photo has left")
            with job.within():
                try:
                    rendered = process.render(job.data, job.order, self._seconds, self._room)
                except _NotTaken:  # it was killed for want of memory, say, and no photo is to blame
                    if (another := self._start(process)) is None:
                        raise
                    process = another
                    rendered = process.render(job.data, job.order, self._seconds, self._room)
                made = job.finish(rendered)
        except BaseException as error:  # as in concurrent.futures: the caller gets it, the thread lives on
            if process.ended and not self._closed:
                log.warning("warning: ended a process that read a photo of %s: %s", share, error)
            job.future.set_exception(Closed(STOPPING) if self._closed else error)
        else:
            job.future.set_result(made)
        return process

    def _start(self, instead: "_Process | None" = None) -> "_Process | None":
        with self._changed:
            if instead is not None:
                self._processes.discard(instead)
            while not self._closed:
                try:
                    process = _Process()
                except OSError as error:  # for want of descriptors, say, which is over some time
                    log.warning("warning: a process that reads photos could not be started (%s)", error)
                    self._changed.wait_for(lambda: self._closed, SECONDS_TO_TRY_AGAIN)
                else:
                    self._processes.add(process)
                    return process
            return None

    def _next(self) -> tuple[str, _Job] | None:
        """Wait for something to do; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._share() is not None)
            share = self._share()
            if self._closed or share is None:
                return None
            jobs = self._waiting.pop(share)
            job = jobs.popleft()
            if jobs:
                self._waiting[share] = jobs  # behind the others
            self._working[share] += 1
            return share, job

    def _share(self) -> str | None:
        """Whose turn it is."""
        able = [share for share in self._waiting if self._working[share] < self._most]
        return min(able, key=self._working.__getitem__, default=None)

    @contextmanager
    def _room(self, pixels: int) -> Iterator[None]:
        """Wait until a photo of so many pixels may be read beside those that are."""
        if not 0 < pixels <= max_pixels():
            raise ValueError(f"{pixels} pixels, which a process should have refused")
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._pixels or self._pixels + pixels <= PIXELS_AT_ONCE)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()


class _NotTaken(RuntimeError):
    """A process ended before it took a photo."""


class _Process:
    """One of them, of one thread; `kill` alone may be called on any."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs, ExitStack() as failed:
            failed.callback(ours.close)
            self._running = subprocess.Popen(
                [sys.executable, "-m", "service.gallery.decoder"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**_open_environment(), **_ALLOCATION, **_ONE_THREAD, **path},
            )
            failed.pop_all()
        self._there = Connection(ours.detach())
        self.pid = self._running.pid
        self.ended = False

    def render(self, data: bytes, order: Order, seconds: float, room: Callable[[int], Any]) -> Rendered:
        """Render a photo; `room` is entered with the pixels of a large one. Raises as `receive`, OverBudget, and
        _NotTaken.

        The process has `ended` where it did not answer, or not as it should.
        """
        try:
            send_order(self._there, data, order, seconds)
            self._said(seconds)  # nothing, but that it has all of it
        except (EOFError, OSError) as error:
            raise _NotTaken(f"a process that reads photos ended before it took one ({_ending(self.end())})") from error
        limit = seconds
        try:
            said = self._said(limit)
            with ExitStack() as entered:
                if (pixels := said.get("pixels")) is not None:
                    entered.enter_context(room(pixels))
                    limit = seconds_for(pixels, seconds)
                    self._there.send_bytes(b"")
                    said = self._said(limit)
                return receive(self._there, said)
        except (EOFError, OSError) as error:
            raise self._reason(limit, error) from error
        except (UnknownFormat, UnusableImage, RuntimeError):
            raise
        except BaseException:  # what it says makes no sense
            self.end()
            raise

    def kill(self) -> None:
        """Have it end; it answers nothing more."""
        self._running.kill()

    def _said(self, seconds: float) -> dict[str, Any]:
        if not self._there.poll(PATIENCE * seconds):
            self.kill()
            raise TimeoutError
        said: dict[str, Any] = json.loads(self._there.recv_bytes())
        return said

    def end(self) -> int:
        """How it ended, after it was killed if need be."""
        self.ended = True
        self._there.close()  # on which it ends, if it has not
        with suppress(subprocess.TimeoutExpired):
            return self._running.wait(SECONDS_TO_END)
        self.kill()
        return self._running.wait()

    def _reason(self, limit: float, error: Exception) -> Exception:
        """Why it ended while it read a photo."""
        code = self.end()
        if code == -signal.SIGPROF:
            return OverBudget(
                f"the image takes more than the {limit:.3g} s of a processor that its size allows (REID_DECODE_SECONDS)"
            )
        if isinstance(error, TimeoutError):
            return OverBudget(f"the image was not read within {PATIENCE * limit:.3g} s")
        if code < 0:
            return UnusableImage(f"the image ended the process that read it ({_ending(code)})")
        return RuntimeError(f"a process that reads photos ended with {_ending(code)}")


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _open_environment() -> dict[str, str]:
    """The environment without what a photo that took a process over must not get at: keys, passwords, addresses."""
    secret, needed = ("REID_", "PG", "MILVUS_"), "REID_MAX_MEGAPIXELS"
    return {name: value for name, value in os.environ.items() if name == needed or not name.startswith(secret)}
