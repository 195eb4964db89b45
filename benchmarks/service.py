"""What the search service adds to its model: queries and enrolment over HTTP, over the forward rate of the model alone.

    python -m benchmarks.service [--checkpoint RUN] [--rows 1000 100000 1000000]

`reid-serve` runs in a process of its own on a gallery of made-up vectors, and this process asks it over HTTP, with
distinct JPEGs of 256x128 pixels. The model alone, in a third process with as many threads, embeds batches of 32 that
were prepared before; it is measured before and after each load, and the ratio is to the mean of both. `forward` is its
rate as a gallery runs it, on a CPU in parts (`reid.inference.lanes`), `as one` that of a batch as torch shares it out,
and `asking` the share of the processors that the clients took of the service. A load ends when every request that was
sent is answered, so that no batch is counted in part. A million rows of ViT-S take 3 GiB of memory and 5 GiB of disk
where TMPDIR says.

Without a checkpoint, the model is a ViT-S for 256x128 pixels with random weights: what is measured does not depend on
them. REID_ENGINE=faiss-ivf and the like are passed on to the service.
"""

import argparse
import hashlib
import io
import itertools
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, partial
from http.client import HTTPConnection
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.http_load import Load, drive, multipart
from reid.config import load_config
from reid.data.preprocessing import Decoding, Preprocessing
from reid.inference.checkpoint import Checkpoint, save_model
from reid.inference.embedder import Embedder
from reid.models.dcal import build_dcal
from reid.models.specs import BACKBONES
from service.bulk.enrolling import enrol
from service.bulk.sources import find_photos
from service.opening import open_gallery
from service.records import Details, Medium, NewItem

SIZE = (256, 128)
BATCH = 32  # the service's own
FILES = 32  # in a request that enrols
ENROLLING_CLIENTS = 4
WARM_UP = 2.0  # seconds of queries that are not counted
QUERY_PHOTOS = 256
ROWS_AT_ONCE = 10_000
CAMERAS, PER_IDENTITY = 12, 20

Row = dict[str, Any]

COLUMNS = {
    "rows": "{:>9}",
    "start": "{:>9.1f}",
    "clients": "{:>9}",
    "rate": "{:>9.1f}",
    "p50": "{:>9.1f}",
    "p95": "{:>9.1f}",
    "p99": "{:>9.1f}",
    "forward": "{:>9.1f}",
    "of_forward": "{:>7.2f}",
    "as_one": "{:>9.1f}",
    "of_as_one": "{:>7.2f}",
    "asking": "{:>8.1%}",
}


def make_checkpoint(folder: Path, backbone: str, size: tuple[int, int] = SIZE) -> Path:
    """A run folder of DCAL with random weights, for images of (height, width)."""
    torch.manual_seed(0)
    model, _ = build_dcal(backbone, size, 2)
    options = {"model.backbone": backbone, "model.method": "dcal", "data.root": "images.csv"}
    config = load_config("csv", None, {**options, "data.image_size": "x".join(map(str, size))})
    how = Decoding.for_model(*size)
    preprocessing = Preprocessing(size, (0.5,) * 3, (0.5,) * 3, profiles=how.profiles, enough=how.enough)
    save_model(folder / "model.safetensors", model, Checkpoint(config, preprocessing, ("a", "b"), {}, 1))
    return folder


def make_photos(first: int, count: int) -> Iterator[bytes]:
    """JPEG files of soft coloured blots, each different, of about the size of real photos of a person."""
    height, width = SIZE
    for number in range(first, first + count):
        blots = np.random.default_rng(number).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        written = io.BytesIO()
        Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC).save(written, "JPEG", quality=90)
        yield written.getvalue()


def make_vectors(rows: int, size: int) -> Iterator[np.ndarray]:
    """Random unit vectors (n, E) float32, some at a time."""
    random = np.random.default_rng(0)
    for start in range(0, rows, ROWS_AT_ONCE):
        vectors = random.standard_normal((min(ROWS_AT_ONCE, rows - start), size), dtype=np.float32)
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(folder: Path, checkpoint: Path, device: str, rows: int) -> np.ndarray:
    """Make a gallery of items without pictures; returns the vectors of the first ones."""
    numbers, first = itertools.count(), None
    with open_gallery(folder, checkpoint, device) as gallery:
        for vectors in make_vectors(rows, gallery.embedder.size):
            gallery.store.enrol([_item(next(numbers), vector) for vector in vectors])
            first = vectors if first is None else first
    assert first is not None
    return first


def _item(number: int, vector: np.ndarray) -> NewItem:
    medium = Medium(hashlib.sha256(str(number).encode()).hexdigest(), SIZE[1], SIZE[0], f"{number}.jpg")
    return NewItem(medium, vector, Details(label=str(number // PER_IDENTITY), camera=str(number % CAMERAS)))


@cache
def _served_model(checkpoint: Path, device: str) -> Embedder:
    with TemporaryDirectory() as folder, open_gallery(Path(folder), checkpoint, device) as gallery:
        return gallery.embedder


class Forward(NamedTuple):
    """Images a second of the model alone: as a gallery runs it, and of each batch as one, in turn."""

    rate: float
    as_one: float


def forward_rate(checkpoint: Path, device: str, seconds: float) -> Forward:
    """What the model does alone within some seconds."""
    embedder = _served_model(checkpoint, device)
    images = torch.stack([embedder.prepare(Image.open(io.BytesIO(photo))) for photo in make_photos(0, BATCH)])
    spent, batches = [0.0, 0.0], 0
    while sum(spent) < seconds:
        for place, work in enumerate((embedder.embed_prepared, embedder.forward)):
            begun = time.perf_counter()
            work(images)
            if embedder.device.type == "cuda":
                torch.cuda.synchronize()
            spent[place] += time.perf_counter() - begun
        batches += 1
    return Forward(*(BATCH * batches / one for one in spent))


def enrol_rate(checkpoint: Path, device: str, folder: Path, photos: Path) -> float:
    """Images a second of `reid-enrol`, without the time to load the model."""
    with open_gallery(folder, checkpoint, device) as gallery:
        found = find_photos(photos)
        begun = time.perf_counter()
        counts = enrol(gallery, found)
        spent = time.perf_counter() - begun
    if counts["created"] != len(found):
        raise RuntimeError(f"reid-enrol of {len(found)} photos gave {dict(counts)}")
    return len(found) / spent


@contextmanager
def running(log: Path, *command: object) -> Iterator[str]:
    """A module that serves HTTP, in a process of its own; gives the address that it tells on stderr."""
    with log.open("w") as stderr:
        process = subprocess.Popen([sys.executable, "-m", *map(str, command)], stdout=stderr, stderr=stderr)
    try:
        while not (told := re.search(r"http://[\d.]+:\d+", log.read_text())):
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()}")
            time.sleep(0.02)
        yield told.group()
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(address: str) -> None:
    """Wait for the service to say that it answers queries; the request itself waits while the address is bound."""
    connection = HTTPConnection(address.removeprefix("http://"))
    connection.request("GET", "/health/ready")
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"{address} is not ready: {answer.read().decode()}")
    connection.close()


def query(address: str, photos: list[bytes], clients: int, seconds: float) -> Row:
    """Load `POST /query` with so many clients for so many seconds."""
    requests = [multipart(address, "/query", "image", [photo]) for photo in photos]
    deadline = time.monotonic() + seconds
    endless = itertools.cycle(requests)
    load = drive(address, itertools.takewhile(lambda _: time.monotonic() < deadline, endless), clients)
    if not load.latencies:
        raise RuntimeError(f"no query was answered: {dict(load.errors)}")
    p50, p95, p99 = (1000 * np.percentile(load.latencies, [50, 95, 99])).tolist()
    rate = len(load.latencies) / load.seconds
    return {"clients": clients, "rate": rate, "p50": p50, "p95": p95, "p99": p99, **_of(load)}


def enrol_over_http(address: str, photos: list[bytes]) -> Row:
    """Load `POST /v1/items` with these photos."""
    starts = range(0, len(photos), FILES)
    requests = [multipart(address, "/v1/items", "images", photos[start : start + FILES]) for start in starts]
    load = drive(address, iter(requests), ENROLLING_CLIENTS, status=201)
    return {"rate": FILES * len(load.latencies) / load.seconds, **_of(load)}


def _of(load: Load) -> Row:
    return {"asking": load.processor / load.seconds / (os.cpu_count() or 1), "errors": dict(load.errors)}


class Bench:
    """All measurements of one model; `found` collects them."""

    def __init__(
        self, checkpoint: Path, device: str, seconds: float, work: Path, forward: Callable[[], Forward]
    ) -> None:
        """`forward` gives the rates of the model alone at this moment."""
        self.model = (checkpoint, device)
        self.seconds = seconds
        self.work = work
        self.forward = forward
        self.found: list[Row] = []

    def beside_forward(self, what: dict[str, Any], measure: Callable[[], Row]) -> Row:
        """What is measured, with the rates of the model around it and the ratios to them."""
        before = self.forward()
        row = {**what, **measure()}
        row["forward"], row["as_one"] = (sum(pair) / 2 for pair in zip(before, self.forward(), strict=True))
        row |= {f"of_{name}": row["rate"] / row[name] for name in ("forward", "as_one")}
        self.found.append(row)
        return row

    def serving(self, folder: Path) -> AbstractContextManager[str]:
        """`reid-serve` on a gallery."""
        checkpoint, device = self.model
        options = ("--checkpoint", checkpoint, "--gallery", folder, "--device", device, "--port", 0)
        return running(self.work / "service.log", "service.serve", *options)

    def naive(self, vectors: np.ndarray) -> AbstractContextManager[str]:
        """The service that it is compared with, on these vectors."""
        checkpoint, device = self.model
        np.save(features := self.work / "features.npy", vectors)
        options = ("--checkpoint", checkpoint, "--features", features, "--device", device, "--port", 0)
        return running(self.work / "naive.log", "benchmarks.naive_service", *options)

    def queries(self, rows: int, clients: list[int], photos: list[bytes], with_naive: bool) -> Iterator[Row]:
        """Query a gallery of so many rows, then the naive service on its first ones with most clients."""
        with TemporaryDirectory(dir=self.work) as folder:
            vectors = fill(Path(folder), *self.model, rows)
            begun = time.perf_counter()
            with self.serving(Path(folder)) as address:
                wait_until_ready(address)
                what = {"what": "service", "rows": rows, "start": time.perf_counter() - begun}
                query(address, photos, max(clients), WARM_UP)  # threads begin, and caches fill
                for count in clients:
                    yield self.beside_forward(what, partial(query, address, photos, count, self.seconds))
                if with_naive:
                    with self.naive(vectors) as other:
                        query(other, photos, max(clients), WARM_UP)
                        measure = partial(query, other, photos, max(clients), self.seconds)
                        yield self.beside_forward({"what": "naive", "rows": len(vectors)}, measure)

    def enrolment(self) -> Iterator[Row]:
        """Enrol the same photos in two empty galleries, over HTTP and by `reid-enrol`."""
        requests = max(2 * ENROLLING_CLIENTS, math.ceil(self.forward().rate * self.seconds / FILES))
        photos = list(make_photos(QUERY_PHOTOS, requests * FILES))
        with TemporaryDirectory(dir=self.work) as folder, self.serving(Path(folder) / "gallery") as address:
            wait_until_ready(address)
            yield self.beside_forward({"what": "enrol over HTTP"}, partial(enrol_over_http, address, photos))
        with TemporaryDirectory(dir=self.work) as folder:
            files = Path(folder) / "photos"
            files.mkdir()
            for number, photo in enumerate(photos):
                (files / f"{number:06d}.jpg").write_bytes(photo)
            measure = partial(alone, enrol_rate, *self.model, Path(folder) / "gallery", files)
            yield self.beside_forward({"what": "reid-enrol"}, lambda: {"rate": measure()})


@contextmanager
def open_bench(checkpoint: Path, device: str, seconds: float, work: Path) -> Iterator[Bench]:
    """A bench whose model alone runs in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        measured = (checkpoint, device, max(1, seconds / 3))
        bench = Bench(checkpoint, device, seconds, work, lambda: process.submit(forward_rate, *measured).result())
        bench.forward()  # loads the model
        yield bench


def alone(function: Callable[..., float], *arguments: object) -> float:
    """Call a function in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def line(row: Row) -> str:
    """A row of the table; what was not measured is left empty."""
    cells = [f"{row['what']:<16}"]
    for name, form in COLUMNS.items():
        cells.append(form.format(row[name]) if name in row else " " * len(form.format(0)))
    errors = row.get("errors", {})
    return "".join([*cells, f"{sum(errors.values()):>8}", *(f"  {count} x {name}" for name, count in errors.items())])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="default: a model with random weights")
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default="vit_small", help="of that one (vit_small)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000], help="gallery sizes (1000 100000)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64], help="at a time (1 8 64)")
    parser.add_argument("--seconds", type=float, default=10, help="of each load (10)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was measured here")
    options = parser.parse_args(argv)

    with ExitStack() as opened:
        work = Path(opened.enter_context(TemporaryDirectory()))
        checkpoint = options.checkpoint or make_checkpoint(work, options.backbone)
        bench = opened.enter_context(open_bench(checkpoint, options.device, options.seconds, work))
        model = str(options.checkpoint or f"{options.backbone} with random weights")
        machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
        print(f"{model}, {machine}, torch {torch.__version__}; rates in images a second, latencies in milliseconds")
        print(f"{'':<16}{'rows':>9}{'start s':>9}{'clients':>9}{'rate':>9}{'p50':>9}{'p95':>9}{'p99':>9}", end="")
        print(f"{'forward':>9}{'ratio':>7}{'as one':>9}{'ratio':>7}{'asking':>8}{'errors':>8}")
        photos = list(make_photos(0, QUERY_PHOTOS))
        for rows in options.rows:
            for row in bench.queries(rows, options.clients, photos, with_naive=rows == options.rows[0]):
                print(line(row), flush=True)
        for row in bench.enrolment():
            print(line(row), flush=True)
    few = [row for row in bench.found if row.get("clients") == max(options.clients)]
    ours, naive = (next(row["of_forward"] for row in few if row["what"] == what) for what in ("service", "naive"))
    print(f"the service over the naive one, {max(options.clients)} clients: {ours / naive:.2f} x")
    if options.json:
        told = {"model": model, "machine": machine, "torch": torch.__version__, "seconds": options.seconds}
        options.json.write_text(json.dumps({**told, "measured": bench.found}, indent=1) + "\n")
    return int(any(row.get("errors") for row in bench.found))


if __name__ == "__main__":
    raise SystemExit(main())
