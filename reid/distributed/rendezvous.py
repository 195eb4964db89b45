"""How processes of torchrun find each other, and how all end, with one word on why, once one of them is gone."""

import hashlib
import logging
import signal
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from reid.device import choose_device
from reid.distributed.processes import PATIENCE, Processes, connect
from reid.distributed.world import World

log = logging.getLogger("reid")

Value = TypeVar("Value")

SECONDS_OF_ROLL_CALL = 3.0


@contextmanager
def joined_several(world: World, device: str, advice: str) -> Iterator[Processes]:
    """As `joined` for a process that torchrun started beside others; `world` says which of them it is."""
    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    store = PrefixStore(_agree(store, world.rank, world.size), store)
    roll = _Roll(PrefixStore("reid", store), world)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _quiet(not world.main):
            processes = connect(world, choose_device(device, world.local_rank), PrefixStore("torch", store))
            dist.all_gather_object(roll.machines, socket.gethostname(), group=processes.host)
            yield processes
        dist.destroy_process_group()
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends those that are left, of whom one must tell why
        if not roll.is_first_to_end():
            raise SystemExit(1) from error
        raised = _raised_by_torch(error)
        gone = roll.who_is_gone() if raised else ""
        if not gone and (isinstance(raised, dist.DistError) or "Timed out waiting" in str(raised)):
            gone = f"the {world.size} processes lost their connection"
        if not gone:
            raise
        raise ConnectionError(f"{gone}; {advice}") from error
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


def _raised_by_torch(error: BaseException) -> RuntimeError | None:
    """An error, or the one during which it arose, that may be what torch raises where a connection is lost."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, RuntimeError):
        seen = seen.__cause__ or seen.__context__
    return seen


class _Roll:
    """Who is there, in the store that all share. Torchrun keeps it on the first machine, which may be gone too."""

    def __init__(self, store: Store, world: World) -> None:
        self.store, self.rank, self.size = store, world.rank, world.size
        self.machines: list[str] = [""] * world.size
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
        """Which other processes show no life for seconds and have not ended by themselves, in words; empty for none."""
        others = [rank for rank in range(self.size) if rank != self.rank]

        def call() -> list[int]:
            before = [self.store.add(f"beats/{rank}", 0) for rank in others]
            time.sleep(SECONDS_OF_ROLL_CALL)
            after = [self.store.add(f"beats/{rank}", 0) for rank in others]
            still = [rank for rank, a, b in zip(others, before, after, strict=True) if a == b]
            return [rank for rank in still if not self.store.check([f"ended/{rank}"])]

        gone = self._ask(call, others)
        if not gone:
            return ""
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
