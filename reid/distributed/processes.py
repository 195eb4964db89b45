"""Several processes that compute what one computes on the same batches.

Each takes every N-th image; the tokens of all are gathered, and necks, heads and losses work on the whole batch in each
of them.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.nn.parallel import DistributedDataParallel

from reid.distributed.world import World

Value = TypeVar("Value")

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others within a step, such as for slow disks, before it gives them up."""
ENDLESS = timedelta(days=7)


@dataclass(frozen=True)
class Processes(World):
    """The processes of torchrun: `host` for what is not on the device, `waiting` for what may take any time."""

    host: dist.ProcessGroup | None = None
    waiting: dist.ProcessGroup | None = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def gather_batch(self, rows: Tensor) -> Tensor:
        """The rows (B, D) of a whole batch in its order, of every process's own (B / N, D), with gradient.

        Every process computes the same loss of them, and gradients are averaged over processes. So the gradient of
        one's own rows, in which the others have no part, comes back N-fold.
        """
        gathered: Tensor = _GatherBatch.apply(rows, self.share, self.size)
        return gathered

    def distribute(self, step: nn.Module, device: torch.device) -> nn.Module:
        """The module with the parameters of the main process, whose gradients are averaged over processes."""
        places = [device] if device.type == "cuda" else None
        # What is kept beside parameters, such as the statistics of the necks, is the same already and not told again.
        how: dict[str, Any] = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the option gets another name in 2.15
            return DistributedDataParallel(step, device_ids=places, **how)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        told = torch.tensor(int(flag))
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self.host)
        return bool(told)

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, by rank, in the main process; nothing elsewhere."""
        values: list[Any] | None = [None] * self.size if self.main else None
        dist.gather_object(value, values, dst=0, group=self.host)
        return cast(list[Value], values or [])

    def on_main(self, work: Callable[[], Value]) -> Value:
        """What `work` gives in the main process, told to all; the others wait for it, however long it takes."""
        told: list[Any] = [work() if self.main else None]
        dist.broadcast_object_list(told, src=0, group=self.waiting)
        return cast(Value, told[0])


class _GatherBatch(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor, share: slice, size: int) -> Tensor:
        context.share, context.size = share, size
        shares = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(size)]
        dist.all_gather(shares, rows.contiguous())
        return torch.stack(shares, dim=1).flatten(0, 1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return context.size * gradients[0][context.share], None, None


def connect(world: World, device: torch.device, store: Store) -> Processes:
    """Connect the processes that meet in a store, to compute on a device."""
    how: dict[str, Any] = {"store": store, "rank": world.rank, "world_size": world.size}
    host: Any = None  # the group of all
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # NCCL ends a process that has waited too long without a word; the others' absence should be noticed before.
        dist.init_process_group("nccl", timeout=2 * PATIENCE, device_id=device, **how)
        host = dist.new_group(backend="gloo", timeout=PATIENCE)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE, **how)
    # A process that is gone closes its connections, which ends the longest wait.
    waiting: Any = dist.new_group(backend="gloo", timeout=ENDLESS)
    return Processes(world.rank, world.size, world.local_rank, host, waiting)
