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
    """Shows how much of some work is done, and when the rest will be, each time it is called with (done, total).

    Without `bar` there are lines on a terminal too, as for one of several processes that share it.
    """

    def __init__(self, what: str, initial: int = 0, *, bar: bool = True) -> None:
        self._what = what
        self._initial = initial
        self._has_bar = bar
        self._start = self._last = time.monotonic()
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if log.disabled:
            return
        if self._has_bar and sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(desc=self._what, total=total, initial=self._initial, leave=False, dynamic_ncols=True)
            self._bar.update(done - self._bar.n)
            if done >= total:
                self.close()
            return
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES and self._initial < done < total:
            rate = (done - self._initial) / (now - self._start)
            pace = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
            left = duration((total - done) / rate)
            log.info("%s: %d of %d, %s a second, about %s left", self._what, done, total, pace, left)
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
