"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

log = logging.getLogger("reid")

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Shows how much of some work is done, and when the rest will be, each time it is called with (done, total)."""

    def __init__(self, what: str, initial: int = 0) -> None:
        self._what = what
        self._initial = initial
        self._start = self._last = time.monotonic()
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if log.disabled:
            return
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(desc=self._what, total=total, initial=self._initial, leave=False, dynamic_ncols=True)
            self._bar.update(done - self._bar.n)
            if done >= total:
                self.close()
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES and self._initial < done < total:
            left = (now - self._start) / (done - self._initial) * (total - done)
            log.info("%s: %d of %d, about %s left", self._what, done, total, duration(left))
            self._last = now

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def track(items: Iterable[Item], total: int, what: str, initial: int = 0) -> Iterator[Item]:
    """Yield `items`, showing how many of `total` are done and when the rest will be."""
    progress = Progress(what, initial)
    try:
        for done, item in enumerate(items, initial + 1):
            yield item
            progress(done, total)
    finally:
        progress.close()


def duration(seconds: float) -> str:
    """Seconds as a person writes them: 42s, 3m05s, 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
