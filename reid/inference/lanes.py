"""A batch in parts, each computed on a processor of its own, in the place of one computed by all of them together.

Layer after layer, processors that share one batch wait for the slowest of them, and spin meanwhile. On two, a batch in
halves takes less of them, and much less where others want them too: those who decode photos, say, or read requests.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

LEAST = 4  # images of a part; smaller ones take longer for each

Part = TypeVar("Part")


class Lanes:
    """As many threads as torch computes with, of one each; whoever calls `map` waits for them, one call at a time."""

    def __init__(self) -> None:
        self._count = torch.get_num_threads()
        self._threads = ThreadPoolExecutor(self._count, "lane", initializer=_alone)
        started = Barrier(self._count + 1)
        for _ in range(self._count):
            self._threads.submit(started.wait)
        started.wait()
        torch.set_num_threads(self._count)  # of threads that begin from here on, for which the last word counts

    def map(self, function: Callable[[Tensor], Part], images: Tensor) -> list[Part]:
        """What a function gives of each part of a batch (n, ...), in order: of the whole where parts would be small."""
        if self._count == 1 or len(images) < LEAST * self._count:
            return [function(images)]
        return list(self._threads.map(function, images.tensor_split(self._count)))


def _alone() -> None:
    torch.get_num_threads()  # or the first layer would take the number of the others
    torch.set_num_threads(1)
