"""Time of a search alone: the engine in memory, over the best of FAISS's IndexFlatIP and a plain matrix product.

    python -m benchmarks.search [--rows 1000 100000 1000000] [--dim 384] [--json FILE]

`former` is the engine without its compressed rows, which multiplies every row with every query.

Each cell is the median of interleaved rounds. The engines make their own row masks of the filter, one camera of 15 or
all but one; the others are given theirs ready. The plain product gathers the rows of the filter first. The recall is
that of the IVF engine: the share of the 10 best rows of 64 queries that it finds. A million rows need 10 GiB.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.evaluate import CAMERAS, make_sides
from service.engines.ivf import IvfEngine
from service.engines.memory import MemoryEngine
from service.engines.protocol import SearchEngine
from service.fields import Filter
from service.records import Row

COUNT = 10
BATCHES = (1, 8, 64)  # queries asked at once
UPSERT_ROWS = 10_000
LARGEST_DIFFERENCE = 1e-5

Scores = npt.NDArray[np.float32]


class Former(MemoryEngine):
    """The engine as it was before it had compressed rows."""

    def _closest(self, *asked: object) -> None:
        return None


def make_rows(features: torch.Tensor, cameras: npt.NDArray[np.int64]) -> Iterator[list[Row]]:
    """Rows of a gallery, some at a time; row i has the number i."""
    vectors, names = features.numpy(), [str(camera) for camera in cameras]
    for start in range(0, len(vectors), UPSERT_ROWS):
        stop = min(start + UPSERT_ROWS, len(vectors))
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


def ways_to_search(features: torch.Tensor, cameras: npt.NDArray[np.int64]) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each filter: its name and functions by name, from queries (n, E) to the best scores (n, COUNT)."""
    engine, faiss = MemoryEngine(), import_module("faiss") if find_spec("faiss") else None
    engines: dict[str, SearchEngine] = {"engine": engine, "former": Former()}
    if faiss:
        engines["ivf"] = IvfEngine()
    for rows in make_rows(features, cameras):
        for filled in engines.values():
            filled.upsert(rows)
    if faiss:
        faiss.omp_set_num_threads(torch.get_num_threads())
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
        ways["product"] = partial(with_product, features, places)
        if faiss:
            bits = None if passing is None else np.packbits(passing, bitorder="little")
            parameters = None if bits is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            ways["faiss"] = partial(with_faiss, index, parameters)
        yield name, ways


def measure(
    ways: dict[str, Callable[[torch.Tensor], Scores]], queries: torch.Tensor, rounds: int
) -> tuple[dict[str, float], float, float]:
    """Median milliseconds of each way, the first round not counted, the largest difference of scores, and the recall.

    The difference is that of the exact ways, and the recall that of the IVF engine, NaN without it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores = {}
    for _ in range(rounds + 1):
        for name, search in ways.items():
            started = time.perf_counter()
            scores[name] = search(queries)
            seconds[name].append(time.perf_counter() - started)
    listed, exact = scores.pop("ivf", None), scores["engine"]
    difference = max(float(abs(exact - other).max()) for other in scores.values())
    # The engines give a row the same score: what is as good as the worst of the best is one of these.
    recall = float("nan") if listed is None else float((listed >= exact[:, -1:]).mean())
    return {name: 1000 * median(spent[1:]) for name, spent in seconds.items()}, difference, recall


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000], help="gallery sizes (1000 100000)")
    parser.add_argument("--dim", type=int, nargs="+", default=[384, 768], help="embedding sizes (384 768)")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds to take medians of (9)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="the table as a list of rows")
    options = parser.parse_args(argv)

    print(f"milliseconds a search for the best {COUNT}; {torch.get_num_threads()} threads")
    names = ("engine", "former", "product", "faiss", "ivf")
    titles = "".join(f"{title:>9}" for title in (*names[:4], "ratio", "ivf", "recall"))
    print(f"{'rows':>9}{'E':>6}{'queries':>9}  {'filter':<18}{titles}")
    largest = 0.0
    table = []
    for rows in options.rows:
        for size in options.dim:
            query, gallery = make_sides(max(BATCHES), rows, size)
            for name, ways in ways_to_search(gallery.features, gallery.cameras):
                for batch in BATCHES:
                    spent, difference, recall = measure(ways, query.features[:batch], options.rounds)
                    largest = max(largest, difference)
                    engine, former, product, flat, ivf = (spent.get(way, float("nan")) for way in names)
                    cells = "".join(f"{cell:>9.2f}" for cell in (engine, former, product, flat))
                    cells += f"{engine / np.nanmin((product, flat)):>8.2f}x"
                    table.append(
                        {"rows": rows, "dimension": size, "k": COUNT, "queries": batch, "filter": name}
                        | {"memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, **spent}
                    )
                    print(f"{rows:>9}{size:>6}{batch:>9}  {name:<18}{cells}{ivf:>9.2f}{recall:>9.3f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    print(f"largest difference between scores: {largest:.1e} (must be below {LARGEST_DIFFERENCE:.0e})")
    return int(largest >= LARGEST_DIFFERENCE)


if __name__ == "__main__":
    raise SystemExit(main())
