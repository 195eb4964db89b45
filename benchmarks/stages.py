"""Where the processor time of a query and of an enrolment over HTTP goes: milliseconds a photo, by stage.

    python -m benchmarks.stages [--models vit_tiny:96x96 vit_small:256x128] [--megapixels 0.3 12] [--seconds 10]

The service runs in this process, and its clients in another: 64 that query, 4 that enrol 32 photos (of 12 megapixels:
4) a request. What Python does is timed by its thread, each stage less those within it; the model is what its threads
took, and decoders what their processes took, shared out as the same work takes here. Waiting is in none of it, so that
other work on the machine counts little.
"""

import argparse
import itertools
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time, thread_time
from typing import Any

import uvicorn

from benchmarks.http_load import drive, multipart
from benchmarks.ingest import draw
from benchmarks.service import fill, make_checkpoint, query
from reid.data.images import decode
from reid.inference.embedder import Embedder
from service import logs
from service.api.metrics import Observed
from service.gallery.copies import copy_of
from service.gallery.enrolment import Enrolment
from service.gallery.gallery import Gallery
from service.gallery.holdings import Holdings
from service.gallery.index import LocalIndex
from service.gallery.pictures import Pictures
from service.gallery.rendering import Order, render
from service.loading import load_app
from service.settings import Settings
from service.storage.queries import Queries
from service.storage.store import Store

CLIENTS, ENROLLING = 64, 4
SHAPES = {0.3: (640, 480), 12: (4000, 3000)}  # pixels, by megapixels
DRAWN = 4  # photos, which are told apart by a comment in each
# Where each stage of Python is; what its thread does beside these is told by the kind of the thread.
WATCHED: tuple[tuple[type, str, str], ...] = (
    (Observed, "_tell", "log line and metrics"),
    (Gallery, "_prepare", "to a tensor"),
    (Embedder, "prepare", "to a tensor"),
    (LocalIndex, "search", "search"),
    (Store, "get_many", "items from the database"),
    (Queries, "append", "query log, with fsync"),
    (Pictures, "save", "copies, with fsync"),
    (Holdings, "keep_thumbnails", "thumbnails to files"),
    (Holdings, "add", "rows to the database, with fsync"),
    (Enrolment, "enrol", "the rest of enrolment"),
    (Gallery, "_found", "the rest of a query"),
    (Embedder, "embed_prepared", "model"),
)
KINDS = {
    "answering": "receive, parse, respond",
    "AnyIO": "form to order, answer to JSON",
    "decoding": "hand-over to decoders",
    "lane": "model",
    "batcher": "batches",
}


class Stages:
    """Processor time by stage, of calls that begin and end while it is watching."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.by_kind: dict[str, float] = defaultdict(float)  # of the stages that ran on threads of a kind
        self._inner = threading.local()

    def watch(self, owner: type, name: str, stage: str) -> None:
        """Have a method add what it takes, less what watched ones within it take."""
        method = getattr(owner, name)

        @wraps(method)
        def timed(*given: Any, **named: Any) -> Any:
            outer, self._inner.spent = getattr(self._inner, "spent", 0.0), 0.0
            begun = thread_time()
            try:
                return method(*given, **named)
            finally:
                whole = thread_time() - begun
                own = whole - self._inner.spent
                self._inner.spent = outer + whole
                self.spent[stage] += own
                self.by_kind[kind_of(threading.current_thread().name)] += own

        setattr(owner, name, timed)


def kind_of(thread: str) -> str:
    """The kind of a thread by its name; empty for one that serves no request."""
    return next((kind for kind in KINDS if thread.startswith(kind)), "")


def thread_seconds() -> dict[str, float]:
    """Processor time of this process by kind of thread, from Linux's own account."""
    spent: dict[str, float] = defaultdict(float)
    for thread in threading.enumerate():
        account = Path(f"/proc/self/task/{thread.native_id}/schedstat")
        spent[kind_of(thread.name)] += int(account.read_text().split()[0]) / 1e9
    return spent


def decoder_seconds() -> float:
    """Processor time of the processes that decode."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"service.gallery.decoder" in (folder / "cmdline").read_bytes():
                told = (folder / "stat").read_text().rpartition(")")[2].split()
                ticks += (int(told[1]) == os.getpid()) * (int(told[11]) + int(told[12]))
        except OSError:  # it has ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def numbered(photo: bytes, number: int) -> bytes:
    """The same JPEG as a file of its own, by a comment after its first two bytes."""
    return photo[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + photo[2:]


def enrol(address: str, photos: list[bytes], files: int, count: int) -> None:
    """Enrol so many photos, some files a request."""
    every = [numbered(photo, place) for place, photo in zip(range(count), itertools.cycle(photos), strict=False)]
    starts = range(0, count, files)
    requests = [multipart(address, "/v1/items", "images", every[start : start + files]) for start in starts]
    load = drive(address, iter(requests), ENROLLING, status=201)
    if load.errors:
        raise RuntimeError(f"enrolment was refused: {dict(load.errors)}")


def ask(address: str, photos: list[bytes], seconds: float) -> None:
    """Query for so many seconds."""
    if errors := query(address, photos, CLIENTS, seconds)["errors"]:
        raise RuntimeError(f"queries were refused: {errors}")


@dataclass(frozen=True)
class Clients:
    """A process that asks the service at an address."""

    process: ProcessPoolExecutor
    address: str

    def __call__(self, load: Callable[..., None], *given: object) -> None:
        self.process.submit(load, self.address, *given).result()


@contextmanager
def serving(checkpoint: Path, folder: Path) -> Iterator[tuple[str, Gallery]]:
    """The service in this process, with its log on the null device; gives its address and gallery."""
    settings = Settings(checkpoint=checkpoint, gallery=folder, device="cpu", port=0)
    with open(os.devnull, "w") as null, load_app(settings, lambda _: None) as loaded:
        logs.configure("json")
        logging.getLogger().handlers[0].setStream(null)  # type: ignore[attr-defined]
        config = uvicorn.Config(loaded.app, port=0, log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        answering = threading.Thread(target=server.run, name="answering")
        answering.start()
        try:
            while not server.started:
                threading.Event().wait(0.02)
            assert loaded.gallery is not None
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", loaded.gallery
        finally:
            server.should_exit = True
            answering.join()


def measure(stages: Stages, gallery: Gallery, work: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds a photo by stage of what is asked of the service meanwhile; decoders are one stage."""
    stages.spent.clear()
    stages.by_kind.clear()
    batches = gallery.metrics.batch_size
    photos, threads, decoders = total(batches), thread_seconds(), decoder_seconds()
    work()
    photos, after = total(batches) - photos, thread_seconds()
    found = dict(stages.spent)
    for kind, stage in KINDS.items():
        rest = after[kind] - threads.get(kind, 0.0) - stages.by_kind[kind]
        found[stage] = found.get(stage, 0.0) + max(0.0, rest)
    found["decoders"] = decoder_seconds() - decoders
    return {stage: 1000 * spent / photos for stage, spent in found.items()}


def total(histogram: Any) -> float:
    """The sum of what a histogram of the metrics was told."""
    return float(next(one.value for one in histogram.collect()[0].samples if one.name.endswith("_sum")))


def share_out(found: dict[str, float], photo: bytes, order: Order) -> dict[str, float]:
    """The stages with that of the decoders shared out over what they do of a photo, as it takes here."""
    view = decode(photo, order.how)
    height, width = order.view or (view.height, view.width)
    parts: dict[str, Callable[[], object]] = {
        "decode": lambda: decode(photo, order.how),
        "resize": lambda: view.resize((width, height)),
    }
    if order.copy:
        parts["thumbnail"] = lambda: render(photo, replace(order, copy=False))  # and what the other two are
        parts["copy without metadata, decoded to be sure"] = lambda: copy_of(photo, view, order.how)
    spent = dict.fromkeys(parts, 0.0)
    for name in [*parts] * 5:
        begun = process_time()
        parts[name]()
        spent[name] += process_time() - begun
    if order.copy:
        spent["thumbnail"] -= spent["decode"] + spent["resize"]
    whole = found.pop("decoders")
    return found | {name: whole * own / sum(spent.values()) for name, own in spent.items()}


def table(columns: dict[str, dict[str, float]]) -> str:
    """The stages in Markdown, the longest first; a column for each load."""
    stages = sorted({stage for column in columns.values() for stage in column}, key=lambda stage: _most(columns, stage))
    lines = [f"| ms of a processor a photo | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for stage in stages:
        cells = [f"{column[stage]:.2f}" if stage in column else "" for column in columns.values()]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    lines.append(f"| all | {' | '.join(f'{sum(column.values()):.2f}' for column in columns.values())} |")
    return "\n".join(lines)


def _most(columns: dict[str, dict[str, float]], stage: str) -> float:
    return -max(column.get(stage, 0.0) for column in columns.values())


def columns_of(
    stages: Stages, clients: Clients, gallery: Gallery, megapixels: float, seconds: float, count: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """The name of each load with photos of one size, and the milliseconds of its stages."""
    photos = list(draw(DRAWN, SHAPES[megapixels]))
    clients(ask, photos, 1.0)  # threads begin, and caches fill
    files, count = (32, count) if megapixels < 1 else (4, count // 8)
    loads = {
        "query": (lambda: clients(ask, photos, seconds), False),
        "enrolment": (lambda: clients(enrol, photos, files, count), True),
    }
    for what, (work, copy) in loads.items():
        order = gallery.worker.order([None], "view", "thumbnail", copy=copy)
        yield f"{what}, {megapixels:g} MP", share_out(measure(stages, gallery, work), photos[0], order)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_tiny:96x96", "vit_small:256x128"], metavar="NAME:HxW")
    parser.add_argument("--megapixels", nargs="+", type=float, choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--seconds", type=float, default=10, help="of queries (10)")
    parser.add_argument("--photos", type=int, default=256, help="to enrol, of 12 megapixels an eighth of them (256)")
    options = parser.parse_args(argv)
    stages = Stages()
    for watched in WATCHED:
        stages.watch(*watched)
    for model in options.models:
        name, _, size = model.partition(":")
        height, width = map(int, size.split("x"))
        columns: dict[str, dict[str, float]] = {}
        with TemporaryDirectory() as work, ProcessPoolExecutor(1, get_context("spawn")) as process:
            checkpoint, folder = make_checkpoint(Path(work), name, (height, width)), Path(work) / "gallery"
            fill(folder, checkpoint, "cpu", 1000)
            with serving(checkpoint, folder) as (address, gallery):
                clients = Clients(process, address)
                for megapixels in options.megapixels:
                    columns |= columns_of(stages, clients, gallery, megapixels, options.seconds, options.photos)
        print(f"{name}, {height} x {width}, {os.cpu_count()} processors\n\n{table(columns)}\n", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
