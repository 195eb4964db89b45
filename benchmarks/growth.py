"""How a gallery grows: enrolment, disk, start-up, memory and the time of a search, by the number of its items.

    python -m benchmarks.growth [--rows 10000 100000 1000000] [--engines memory faiss-ivf milvus]

Items without pictures, their vectors drawn so that they are about as hard to tell apart as a fair model finds those of
MSMT17, go into the store of a gallery in transactions of a thousand: what `enrolled` counts, without a model. Then each
engine starts in a process of its own, and once more with the file of rows that the first one left. `start` and
`restart` are from opening the folder to the first answer; `memory` is the most that the process held beyond what it had
with the store open; searches are for the 10 best, of one query or 32 at once, and `camera` is a filter on one camera of
15. `recall` is the share of the 10 best of 64 queries that were found. Milvus is asked at REID_MILVUS_URI and counts
neither its memory nor its disk here. A million rows of 384 need 6 GiB of disk where TMPDIR says.
"""

import argparse
import hashlib
import json
import multiprocessing
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.evaluate import make_sides
from service.engines.ivf import IvfEngine
from service.engines.memory import MemoryEngine
from service.gallery.index import Index, LocalIndex
from service.opening import server_index
from service.records import Details, EngineName, Filter, Medium, NewItem, Vectors
from service.settings import Backend
from service.settling import settle
from service.storage.database import Database
from service.storage.models import Models
from service.storage.store import Store

MODEL = "growth"
AT_ONCE = 1000  # items in a transaction
COUNT = 10
BATCH = 32
EXACT = 64  # queries whose best rows are known
ONE_CAMERA = Filter(cameras=frozenset(["0"]))
LIVE, PEAK = "VmRSS", "VmHWM"

Row = dict[str, Any]

COLUMNS = {
    "rows": "{:,}",
    "engine": "{}",
    "start_s": "{:.1f}",
    "restart_s": "{:.1f}",
    "memory_mib": "{:,.0f}",
    "one_ms": "{:.1f}",
    "one_p95_ms": "{:.1f}",
    "one_camera_ms": "{:.1f}",
    "batch_ms": "{:.1f}",
    "recall": "{:.3f}",
}


def fill(folder: Path, rows: int, size: int) -> tuple[Row, Vectors, Vectors]:
    """Make a gallery; returns how that went, queries (64, E), and the scores (64, 10) of the best rows for them."""
    query, gallery = make_sides(EXACT, rows, size)
    vectors, cameras = gallery.features.numpy(), gallery.cameras.astype(str)
    settle()  # as `reid-enrol --features` and `reid-serve` do
    with Database(folder) as database:
        Models(database).bind(MODEL, size, {})
        store, seconds = Store(database), 0.0
        for start in range(0, rows, AT_ONCE):
            stop = min(start + AT_ONCE, rows)
            new = [_item(i, vectors[i], cameras[i], gallery.ids[i]) for i in range(start, stop)]
            begun = time.perf_counter()
            store.enrol(new)
            seconds += time.perf_counter() - begun
    disk = sum(path.stat().st_size for path in folder.iterdir())
    best = (query.features @ gallery.features.T).topk(COUNT, dim=1).values.numpy()
    return {"rows": rows, "enrolled_per_s": rows / seconds, "disk_mib": disk / 2**20}, query.features.numpy(), best


def _item(number: int, vector: Vectors, camera: str, identity: int) -> NewItem:
    medium = Medium(hashlib.sha256(str(number).encode()).hexdigest(), 128, 256, f"{number}.jpg")
    return NewItem(medium, vector, Details(label=str(identity), camera=str(camera)))


def measure(folder: Path, engine: EngineName, queries: Vectors, best: Vectors, rounds: int) -> Row:
    """Start an engine on a gallery, and search."""
    begun = time.perf_counter()
    with Database(folder) as database:
        before = _memory(LIVE)
        index = open_index(database, engine, queries.shape[1])
        if not index.follow():
            _tend(index)
        index.search(queries[:1], COUNT, Filter())
        start, memory = time.perf_counter() - begun, _memory(PEAK) - before
        one = [_milliseconds(index, queries[i % EXACT][None], Filter()) for i in range(rounds)]
        camera = [_milliseconds(index, queries[i % EXACT][None], ONE_CAMERA) for i in range(rounds)]
        batch = [_milliseconds(index, queries[:BATCH], Filter()) for _ in range(max(3, rounds // 4))]
        found = index.search(queries, COUNT, Filter())
        right = [
            hit.score >= worst - 1e-6 for answer, worst in zip(found, best[:, -1], strict=True) for hit in answer.hits
        ]
        _tend(index)
        return {
            "rows": len(index),
            "engine": engine,
            "start_s": start,
            "memory_mib": memory,
            "one_ms": median(one),
            "one_p95_ms": quantiles(one, n=20)[-1],
            "one_camera_ms": median(camera),
            "batch_ms": median(batch),
            "recall": sum(right) / best.size,
        }


def _tend(index: Index) -> None:
    while index.tend():
        pass


def restart(folder: Path, engine: EngineName, queries: Vectors) -> float:
    """Seconds of a start with the file of rows that another one left."""
    begun = time.perf_counter()
    with Database(folder) as database:
        index = open_index(database, engine, queries.shape[1])
        index.follow()
        index.search(queries[:1], COUNT, Filter())
        return time.perf_counter() - begun


def open_index(database: Database, engine: EngineName, size: int) -> Index:
    if engine == "milvus":
        return server_index(database, MODEL, size, Backend(engine="milvus"))
    return LocalIndex(database, IvfEngine() if engine == "faiss-ivf" else MemoryEngine(), MODEL)


def _milliseconds(index: Index, queries: Vectors, chosen: Filter) -> float:
    begun = time.perf_counter()
    index.search(queries, COUNT, chosen)
    return 1000 * (time.perf_counter() - begun)


def _memory(name: str) -> float:
    """MiB of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}")


def table(rows: Sequence[Row]) -> str:
    """The measurements as a table in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---:" for _ in COLUMNS) + " |"]
    lines += ["| " + " | ".join(form.format(row[name]) for name, form in COLUMNS.items()) + " |" for row in rows]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="items")
    parser.add_argument("--dim", type=int, default=384, help="embedding size (384)")
    parser.add_argument("--engines", nargs="+", default=["memory", "faiss-ivf"], help="memory faiss-ivf milvus")
    parser.add_argument("--rounds", type=int, default=41, help="searches to take medians of (41)")
    parser.add_argument("--json", type=Path, help="keep all figures here")
    options = parser.parse_args(argv)

    enrolments, searches = [], []
    apart = multiprocessing.get_context("spawn")  # a fork would begin with the memory of this process
    for rows in options.rows:
        with TemporaryDirectory() as folder:
            filled, queries, best = fill(Path(folder), rows, options.dim)
            enrolments.append(filled)
            print(
                "{rows:,} rows: enrolled {enrolled_per_s:,.0f} a second, {disk_mib:,.0f} MiB".format(**filled),
                flush=True,
            )
            for engine in options.engines:
                with apart.Pool(1) as pool:
                    found = pool.apply(measure, (Path(folder), engine, queries, best, options.rounds))
                with apart.Pool(1) as pool:
                    found["restart_s"] = pool.apply(restart, (Path(folder), engine, queries))
                searches.append(found)
    print(f"\n{table(searches)}\n\nE = {options.dim}, {torch.get_num_threads()} threads, {platform.processor()}")
    if options.json:
        options.json.write_text(json.dumps({"enrolments": enrolments, "searches": searches}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
