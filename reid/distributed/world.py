"""Who works together and what each takes of it. A process alone computes everything, without torch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """The processes that work together, as one of them sees it: a process alone, unless `joined` gives another.

    `rank` in [0, size) is its number, `local_rank` that on its machine. Rank 0 is the main process, which alone writes,
    shows progress and prints.
    """

    rank: int = 0
    size: int = 1
    local_rank: int | None = None

    @property
    def main(self) -> bool:
        """Whether this is the main process."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """What of anything in order is this process's: every N-th.

        Dealt like cards, the images of an identity in a batch go to different processes: a partner for cross-attention,
        which comes from the same process, is then as rarely of one's own identity as in one process.
        """
        return slice(self.rank, None, self.size)

    def gather_batch(self, rows: "Tensor") -> "Tensor":
        """The rows (B, D) of a whole batch in its order, of every process's own (B / N, D), with gradient."""
        return rows

    def distribute(self, step: "nn.Module", device: "torch.device") -> "nn.Module":
        """The module with the parameters of the main process, whose gradients are averaged over processes."""
        return step

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, by rank, in the main process; nothing elsewhere."""
        return [value]

    def on_main(self, work: Callable[[], Value]) -> Value:
        """What `work` gives in the main process, told to all; the others wait for it, however long it takes."""
        return work()


ALONE = World()


@contextmanager
def joined(device: str = "auto", advice: str = "start again") -> Iterator[World]:
    """Join the other processes of torchrun; a process that was not started by it is alone.

    Once one of them fails all end, and one tells why: in the others the error becomes SystemExit. Raises ValueError
    where there are more processes than GPUs, ConnectionError, with the advice, where others are gone or do not answer.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    from reid.distributed.rendezvous import joined_several  # torch

    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0))
    with joined_several(World(rank, size, local_rank), device, advice) as world:
        yield world
