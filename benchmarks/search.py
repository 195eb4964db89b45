"""Time of a search alone: the engine in memory, over the best of FAISS's IndexFlatIP and a plain matrix product.

    python -m benchmarks.search [--rows 1000 100000 1000000] [--dim 384] [--json FILE]

`former` is the engine without its compressed rows, which multiplies every row with every query.

Each cell is the median of interleaved rounds. The engines make their own row masks of the filter, one camera of 15 or
all but one; the others are given theirs ready. The plain product gathers the rows of the filter first. The recall is
that of the IVF engine: the share of the 10 best rows of 64 queries that it finds.

Where memory is too small for all of them at once (a million rows of 384 need 10 GiB), each has a process to itself, one
after another over one file of vectors, and its rounds are not interleaved with those of others. `memory_mib` is then
that of the largest process, of which the file, as far as it was read, is a part.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.evaluate import CAMERAS, make_sides
from service.engines.ivf import IvfEngine
from service.engines.memory import MemoryEngine
from service.engines.protocol import SearchEngine
from service.fields import Filter
from service.gallery.space import free_memory
from service.records import Row

COUNT = 10
BATCHES = (1, 8, 64)  # queries asked at once
UPSERT_ROWS = 10_000
LARGEST_DIFFERENCE = 1e-5
DRAWN_VALUES = 96  # of a row, of which those of a file are made: its rows at once would not fit in memory either
# Bytes that each needs for a value of the rows: floats, codes of 8 bits, lists of float16 with room to grow, and for
# the product the rows of the filter. The rows themselves are further floats.
VALUE_BYTES = {"engine": 5, "former": 4, "product": 4, "faiss": 4, "ivf": 8}
WAYS = tuple(name for name in VALUE_BYTES if name not in ("faiss", "ivf") or find_spec("faiss"))

Scores = npt.NDArray[np.float32]


class Case(NamedTuple):
    """What `measure` found for some queries at once with a filter, and the memory of the largest process."""

    filtered: str
    queries: int
    spent: dict[str, float]
    difference: float
    recall: float
    memory_mib: float


class Former(MemoryEngine):
    """The engine as it was before it had compressed rows."""

    def _closest(self, *asked: object) -> None:
        return None


def make_rows(features: torch.Tensor, cameras: npt.NDArray[np.int64]) -> Iterator[list[Row]]:
    """Rows of a gallery, some at a time; row i has the number i."""
    vectors, names = features.numpy(), [str(camera) for camera in cameras]
    # A power of two of parts: an engine that doubles its room never holds more than all rows while it copies them.
    parts = 1
    while len(vectors) > parts * UPSERT_ROWS:
        parts *= 2
    step = max(1, -(-len(vectors) // parts))
    for start in range(0, len(vectors), step):
        stop = min(start + step, len(vectors))
        yield [Row(i, vectors[i], {"camera": names[i]}) for i in range(start, stop)]


def with_engine(engine: SearchEngine, chosen: Filter, queries: torch.Tensor) -> Scores:
    found = engine.search(queries.numpy(), COUNT, chosen)
    return np.array([[hit.score for hit in answer.hits] for answer in found], np.float32)


def with_product(gallery: torch.Tensor, places: torch.Tensor | None, queries: torch.Tensor) -> Scores:
    products = queries @ (gallery if places is None else gallery[places]).T
    return products.topk(COUNT, dim=1).values.numpy()


def with_faiss(index: Any, parameters: Any, queries: torch.Tensor) -> Scores:
    scores: Scores = index.search(queries.numpy(), COUNT, params=parameters)[0]
    return scores


def ways_to_search(
    features: torch.Tensor, cameras: npt.NDArray[np.int64], chosen_ways: Collection[str] = WAYS
) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each filter: its name and functions by name, from queries (n, E) to the best scores (n, COUNT)."""
    makers: dict[str, Callable[[], SearchEngine]] = {"engine": MemoryEngine, "former": Former, "ivf": IvfEngine}
    engines = {name: make() for name, make in makers.items() if name in chosen_ways}
    for filled in engines.values():
        for rows in make_rows(features, cameras):
            filled.upsert(rows)
    faiss = import_module("faiss") if "faiss" in WAYS else None
    if faiss:
        faiss.omp_set_num_threads(torch.get_num_threads())
    if faiss and "faiss" in chosen_ways:
        index = faiss.IndexFlatIP(features.shape[1])
        index.add(features.numpy())
    one = frozenset(["0"])
    for name, chosen, passing in (
        ("none", Filter(), None),
        (f"1 of {CAMERAS} cameras", Filter(cameras=one), cameras == 0),
        (f"all but 1 of {CAMERAS}", Filter(exclude_cameras=one), cameras != 0),
    ):
        ways = {name: partial(with_engine, filled, chosen) for name, filled in engines.items()}
        places = None if passing is None else torch.from_numpy(np.flatnonzero(passing))
        if "product" in chosen_ways:
            ways["product"] = partial(with_product, features, places)
        if faiss and "faiss" in chosen_ways:
            bits = None if passing is None else np.packbits(passing, bitorder="little")
            parameters = None if bits is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            ways["faiss"] = partial(with_faiss, index, parameters)
        yield name, ways


def time_ways(
    ways: dict[str, Callable[[torch.Tensor], Scores]], queries: torch.Tensor, rounds: int
) -> tuple[dict[str, float], dict[str, Scores]]:
    """Median milliseconds of each way, the first round not counted, and its scores."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores = {}
    order = np.random.default_rng(0)
    for _ in range(rounds + 1):
        for name in order.permutation(list(ways)):  # what one leaves in the caches would else always be for the same
            search = ways[name]
            started = time.perf_counter()
            scores[name] = search(queries)
            seconds[name].append(time.perf_counter() - started)
    return {name: 1000 * median(spent[1:]) for name, spent in seconds.items()}, scores


def compare(scores: dict[str, Scores]) -> tuple[float, float]:
    """The largest difference of scores of the exact ways, and the recall of the IVF engine, NaN without it."""
    exact = scores["engine"]
    difference = max(float(abs(exact - other).max()) for name, other in scores.items() if name != "ivf")
    # The engines give a row the same score: what is as good as the worst of the best is one of these.
    recall = float((scores["ivf"] >= exact[:, -1:]).mean()) if "ivf" in scores else float("nan")
    return difference, recall


def measure(
    ways: dict[str, Callable[[torch.Tensor], Scores]], queries: torch.Tensor, rounds: int
) -> tuple[dict[str, float], float, float]:
    """Median milliseconds of each way, the first round not counted, and what `compare` says of their scores."""
    spent, scores = time_ways(ways, queries, rounds)
    return spent, *compare(scores)


def peak_memory_mib() -> float:
    """Largest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def together(rows: int, size: int, rounds: int) -> Iterator[Case]:
    """Measure all ways in this process, in interleaved rounds."""
    query, gallery = make_sides(max(BATCHES), rows, size)
    for filtered, ways in ways_to_search(gallery.features, gallery.cameras):
        for batch in BATCHES:
            yield Case(filtered, batch, *measure(ways, query.features[:batch], rounds), peak_memory_mib())


def draw(file: BinaryIO, rows: int, size: int) -> tuple[Scores, npt.NDArray[np.int64]]:
    """Write the vectors (rows, E) of a gallery to a file, and give queries (64, E) and the cameras of the rows.

    They are those of `make_sides` with few values, turned into E dimensions, so that all scores stay as they are.
    """
    query, gallery = make_sides(max(BATCHES), rows, min(size, DRAWN_VALUES))
    directions = torch.randn(size, min(size, DRAWN_VALUES), generator=torch.Generator().manual_seed(0))
    turned = torch.linalg.qr(directions).Q.T
    for some in gallery.features.split(UPSERT_ROWS):
        file.write((some @ turned).numpy().data)
    file.flush()
    return (query.features @ turned).numpy(), gallery.cameras


def alone(
    name: str, path: str, cameras: npt.NDArray[np.int64], queries: Scores, rounds: int
) -> tuple[list[tuple[str, int, dict[str, float], dict[str, Scores]]], float]:
    """Measure one way over a file of vectors: filter, queries, times and scores of each case; and the peak in MiB."""
    shape = (len(cameras), queries.shape[1])
    features = torch.from_numpy(np.memmap(path, np.float32, "c", shape=shape))  # torch warns of what is read-only
    cases = [
        (filtered, batch, *time_ways(ways, torch.from_numpy(queries[:batch]), rounds))
        for filtered, ways in ways_to_search(features, cameras, [name])
        for batch in BATCHES
    ]
    return cases, peak_memory_mib()


def apart(rows: int, size: int, rounds: int) -> Iterator[Case]:
    """Measure each way in a process of its own, one after another over one file."""
    measured, memory = [], 0.0
    with NamedTemporaryFile() as file:
        queries, cameras = draw(file, rows, size)
        for name in WAYS:
            started = time.perf_counter()
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                cases, peak = process.submit(alone, name, file.name, cameras, queries, rounds).result()
            times = " ".join(f"{spent[name]:.1f}" for _, _, spent, _ in cases)
            seconds = time.perf_counter() - started
            print(f"{name}: {times} ms; at most {peak:,.0f} MiB; {seconds:.0f} s in all", flush=True)
            measured.append(cases)
            memory = max(memory, peak)
    for same in zip(*measured, strict=True):
        spent = {name: milliseconds for _, _, times, _ in same for name, milliseconds in times.items()}
        scores = {name: best for *_, found in same for name, best in found.items()}
        yield Case(*same[0][:2], spent, *compare(scores), memory)


def how_to_measure(rows: int, size: int) -> Callable[[int, int, int], Iterator[Case]]:
    """`together` where memory has room for all ways at once, else `apart`; prints which, and the room."""
    free, values = free_memory(), rows * size / 2**30
    needed = values * (4 + sum(VALUE_BYTES[name] for name in WAYS))
    told = f"{rows} rows of {size}: all at once need {needed:.1f} GiB"
    if free is None or needed <= free / 2**30:
        print(f"{told}, {'unknown' if free is None else f'{free / 2**30:.1f}'} free: in one process", flush=True)
        return together
    largest = values * (4 + max(VALUE_BYTES[name] for name in WAYS))
    print(f"{told}, {free / 2**30:.1f} free: one process after another, of {largest:.1f} GiB at most", flush=True)
    return apart


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000], help="gallery sizes (1000 100000)")
    parser.add_argument("--dim", type=int, nargs="+", default=[384, 768], help="embedding sizes (384 768)")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds to take medians of (9)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="the table as a list of rows")
    options = parser.parse_args(argv)

    print(f"milliseconds a search for the best {COUNT}; {torch.get_num_threads()} threads")
    titles = "".join(f"{title:>9}" for title in ("engine", "former", "product", "faiss", "ratio", "ivf", "recall"))
    print(f"{'rows':>9}{'E':>6}{'queries':>9}  {'filter':<18}{titles}")
    largest = 0.0
    table = []
    for rows in options.rows:
        for size in options.dim:
            for case in how_to_measure(rows, size)(rows, size, options.rounds):
                largest = max(largest, case.difference)
                engine, former, product, flat, ivf = (case.spent.get(way, float("nan")) for way in VALUE_BYTES)
                cells = "".join(f"{cell:>9.2f}" for cell in (engine, former, product, flat))
                cells += f"{engine / np.nanmin((product, flat)):>8.2f}x{ivf:>9.2f}{case.recall:>9.3f}"
                table.append(
                    {"rows": rows, "dimension": size, "k": COUNT, "queries": case.queries, "filter": case.filtered}
                    | {"memory_mib": case.memory_mib, **case.spent}
                )
                print(f"{rows:>9}{size:>6}{case.queries:>9}  {case.filtered:<18}{cells}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    print(f"largest difference between scores: {largest:.1e} (must be below {LARGEST_DIFFERENCE:.0e})")
    return int(largest >= LARGEST_DIFFERENCE)


if __name__ == "__main__":
    raise SystemExit(main())
