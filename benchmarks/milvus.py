"""Time of a search and of filling on a Milvus server that runs, beside the engine in memory, with the same answers.

    python -m benchmarks.milvus --uri http://127.0.0.1:19530 [--rows 10000 100000] [--dim 384]

Each cell is the median of some rounds, in milliseconds; `upsert/s` is in rows a second, at 1,000 rows a call. `one
camera` is one query among the rows of one camera of 15. It makes a collection of its own, and drops it.
"""

import argparse
import time
from statistics import median
from typing import get_args

import torch

from benchmarks.evaluate import make_sides
from benchmarks.search import COUNT, make_rows
from service.engines.memory import MemoryEngine
from service.engines.milvus import Consistency, MilvusEngine
from service.engines.protocol import SearchEngine
from service.fields import Filter

COLLECTION = "benchmark_of_search"
UPSERT_ROWS = 1000
MANY = 32
ASKED = {
    "1 query": (1, Filter()),
    f"{MANY} queries": (MANY, Filter()),
    "one camera": (1, Filter(cameras=frozenset("0"))),
}


def times(engine: SearchEngine, queries: torch.Tensor, rounds: int) -> str:
    """Median milliseconds of each kind of search, as cells; the first round is not counted."""
    cells = ""
    for count, chosen in ASKED.values():
        spent = []
        for _ in range(rounds + 1):
            started = time.perf_counter()
            engine.search(queries[:count].numpy(), COUNT, chosen)
            spent.append(time.perf_counter() - started)
        cells += f"{1000 * median(spent[1:]):>12.1f}"
    return cells


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uri", required=True, help="the server, such as http://127.0.0.1:19530")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="gallery sizes (10000 100000)")
    parser.add_argument("--dim", type=int, default=384, help="embedding size (384)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds to take medians of (15)")
    options = parser.parse_args(argv)

    print(f"milliseconds a search for the best {COUNT}; {torch.get_num_threads()} threads here")
    print(f"{'rows':>9}  {'engine':<12}" + "".join(f"{title:>12}" for title in ASKED) + f"{'upsert/s':>12}")
    differ = False
    for rows in options.rows:
        query, gallery = make_sides(MANY, rows, options.dim)
        memory = MemoryEngine()
        engines = {
            name: MilvusEngine(options.uri, COLLECTION, options.dim, consistency=name) for name in get_args(Consistency)
        }
        strong = engines["Strong"]
        strong.drop()
        strong.create()
        try:
            filling = 0.0
            for some in make_rows(gallery.features, gallery.cameras):
                memory.upsert(some)
                started = time.perf_counter()
                for start in range(0, len(some), UPSERT_ROWS):
                    strong.upsert(some[start : start + UPSERT_ROWS])
                filling += time.perf_counter() - started
            print(f"{rows:>9}  {'memory':<12}{times(memory, query.features, options.rounds)}", flush=True)
            for name, engine in engines.items():
                cells = times(engine, query.features, options.rounds)
                print(f"{rows:>9}  {name:<12}{cells}{rows / filling:>12.0f}", flush=True)
            vectors = query.features.numpy()
            for _, chosen in ASKED.values():
                differ |= strong.search(vectors, COUNT, chosen) != memory.search(vectors, COUNT, chosen)
        finally:
            strong.drop()
            for engine in engines.values():
                engine.close()
    print("answers of Strong: " + ("not those of memory" if differ else "those of memory, all"))
    return int(differ)


if __name__ == "__main__":
    raise SystemExit(main())
