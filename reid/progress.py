"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger("reid")

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 15.0


def track(items: Iterable[Item], total: int, what: str, initial: int = 0) -> Iterator[Item]:
    """Yield `items`, showing how many of `total` are done and when the rest will be."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, initial=initial, leave=False, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, initial + 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done < total:
            left = (now - start) / (done - initial) * (total - done)
            log.info("%s: %d of %d, about %s left", what, done, total, duration(left))
            last = now


def duration(seconds: float) -> str:
    """Seconds as a person writes them: 42s, 3m05s, 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
