"""Processes that torchrun started: who takes which share, what they tell each other, and how they end together.

N processes compute what one computes on the same batches. Each takes every N-th image; the tokens of all are gathered,
and necks, heads and losses work on the whole batch in each of them.
"""

import hashlib
import logging
import os
import signal
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from reid.device import choose_device

log = logging.getLogger("reid")

Value = TypeVar("Value")

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others within a step, such as for slow disks, before it gives them up."""
SECONDS_BETWEEN_SIGNS = 5.0
SECONDS_OF_ROLL_CALL = 3.0


@dataclass(frozen=True)
class World:
    """The processes that work together, as one of them sees it: a process alone unless `joined` says otherwise.

    `rank` in [0, size) is its number, `local_rank` that on its machine. Rank 0 is the main process, which alone writes,
    shows progress and prints.
    """

    rank: int = 0
    size: int = 1
    local_rank: int | None = None
    _host: dist.ProcessGroup | None = None  # for what is not on the device

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
        if self.size == 1:
            return step
        places = [device] if device.type == "cuda" else None
        # What is kept beside parameters, such as the statistics of the necks, is the same already and not told again.
        how: dict[str, Any] = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the option gets another name in 2.15
            return DistributedDataParallel(step, device_ids=places, **how)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        told = torch.tensor(int(flag))
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self._host)
        return bool(told)

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, by rank, in the main process; nothing elsewhere."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.main else None
        dist.gather_object(value, values, dst=0, group=self._host)
        return cast(list[Value], values or [])

    def on_main(self, work: Callable[[], Value]) -> Value:
        """What `work` gives in the main process, told to all; the others wait for it, however long it takes."""
        if self.size == 1:
            return work()
        told: list[Any] = [None]
        if self.main:
            with self._giving_signs():
                told = [work()]
        else:
            while not self._sign():
                pass
        dist.broadcast_object_list(told, src=0, group=self._host)
        return cast(Value, told[0])

    @contextmanager
    def _giving_signs(self) -> Iterator[None]:
        """Have a thread tell the others every few seconds that this process lives, and at the end that it is done."""
        done = threading.Event()

        def give() -> None:
            with suppress(RuntimeError):  # of one that is gone, the next word to all will tell
                while not done.wait(SECONDS_BETWEEN_SIGNS):
                    self._sign()

        thread = threading.Thread(target=give, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        self._sign(done=True)

    def _sign(self, done: bool = False) -> bool:
        told = torch.tensor(int(done))
        dist.broadcast(told, src=0, group=self._host)
        return bool(told)


ALONE = World()


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


@contextmanager
def joined(device: str = "auto", advice: str = "start again") -> Iterator[World]:
    """Join the other processes of torchrun; a process that was not started by it is alone.

    Once one of them fails all end, and one tells why: in the others the error becomes SystemExit. Raises ValueError
    where there are more processes than GPUs, ConnectionError, with the advice, where other processes are gone.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0))
    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    store = PrefixStore(_agree(store, rank, size), store)
    roll = _Roll(PrefixStore("reid", store), rank, size)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _quiet(rank > 0):
            host = _connect(choose_device(device, local_rank), PrefixStore("torch", store), rank, size)
            dist.all_gather_object(roll.machines, socket.gethostname(), group=host)
            yield World(rank, size, local_rank, host)
        dist.destroy_process_group()
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends those that are left, of whom one must tell why
        if not roll.is_first_to_end():
            raise SystemExit(1) from error
        if (reason := _lost(error)) is None:
            raise
        raise ConnectionError(f"{roll.who_is_gone()} ({reason}); {advice}") from error
    finally:
        roll.over.set()
        signal.signal(signal.SIGTERM, before)


def _agree(store: Store, rank: int, size: int) -> str:
    """A name for this start of the processes that all agree on.

    Where torchrun starts them again it keeps the store, with what earlier ones left there, such as their addresses.
    """
    hellos = [f"hello/{one}" for one in range(size)]
    store.set(hellos[rank], uuid.uuid4().hex)
    end = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < end:
        if store.check(hellos):
            # What was read from one that is gone makes a name that not all confirm.
            name = hashlib.sha256(b"".join(map(store.get, hellos))).hexdigest()
            store.set(f"{name}/{rank}", "")
            if store.check([f"{name}/{one}" for one in range(size)]):
                return name
        time.sleep(0.05)
    raise ConnectionError(f"not all of {size} processes came within {PATIENCE}")


def _connect(device: torch.device, store: Store, rank: int, size: int) -> dist.ProcessGroup:
    """Connect the processes; returns the group for what is not on the device."""
    how: dict[str, Any] = {"store": store, "rank": rank, "world_size": size}
    if device.type != "cuda":
        dist.init_process_group("gloo", timeout=PATIENCE, **how)
        return cast(dist.ProcessGroup, dist.group.WORLD)
    torch.cuda.set_device(device)
    # NCCL ends a process that has waited too long without a word, so the others' absence should be noticed before.
    dist.init_process_group("nccl", timeout=2 * PATIENCE, device_id=device, **how)
    return cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=PATIENCE))


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Have a process say nothing that the main process says."""
    if not quiet:
        yield
        return
    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def _lost(error: BaseException) -> str | None:
    """Why an error, or the one during which it arose, came from other processes being gone; None for any other."""
    seen: BaseException | None = error
    while seen is not None:
        text = " ".join(str(seen).split())
        for sign in ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting"):
            if isinstance(seen, RuntimeError) and sign in text:
                return text[text.index(sign) :].split(". ")[0]
        if isinstance(seen, dist.DistError):
            return text[:200]
        seen = seen.__cause__ or seen.__context__
    return None


class _Roll:
    """Who is there, in the store that all share. Torchrun keeps it on the first machine, which may be gone too."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.store, self.rank, self.size = store, rank, size
        self.machines: list[str] = [""] * size
        self.over = threading.Event()
        threading.Thread(target=self._beat, args=(store.clone(),), daemon=True).start()

    def _beat(self, store: Store) -> None:
        """Show that this process lives, also while it waits for others."""
        with suppress(RuntimeError):
            while not self.over.wait(SECONDS_OF_ROLL_CALL / 4):
                store.add(f"beats/{self.rank}", 1)

    def is_first_to_end(self) -> bool:
        """Whether no other process tells why all end; yes where the store is gone."""

        def ask() -> bool:
            self.store.set(f"ended/{self.rank}", "")
            return self.store.add("ends", 1) == 1

        return self._ask(ask, True)

    def who_is_gone(self) -> str:
        """Which of the other processes show no life for seconds and have not ended by themselves, in words."""
        others = [rank for rank in range(self.size) if rank != self.rank]

        def call() -> list[int]:
            before = [self.store.add(f"beats/{rank}", 0) for rank in others]
            time.sleep(SECONDS_OF_ROLL_CALL)
            after = [self.store.add(f"beats/{rank}", 0) for rank in others]
            still = [rank for rank, a, b in zip(others, before, after, strict=True) if a == b]
            return [rank for rank in still if not self.store.check([f"ended/{rank}"])]

        gone = self._ask(call, others)
        if not gone:
            return f"the {self.size} processes lost their connection"
        ranks, machines = ", ".join(map(str, gone)), ", ".join(sorted({self.machines[rank] for rank in gone}))
        are = f"process {ranks} of {self.size} is" if len(gone) == 1 else f"processes {ranks} of {self.size} are"
        return f"{are} gone on {machines}"

    def _ask(self, question: Callable[[], Value], otherwise: Value) -> Value:
        """The store's answer, or `otherwise` where none comes."""
        answers: list[Value] = []

        def ask() -> None:
            with suppress(RuntimeError):
                answers.append(question())

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(2 * SECONDS_OF_ROLL_CALL)
        return answers[0] if answers else otherwise
