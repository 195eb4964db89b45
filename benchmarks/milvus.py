"""Searches and filling on a Milvus server that runs, by each kind of index, beside the engine in memory.

    python -m benchmarks.milvus --uri http://127.0.0.1:19530 [--rows 10000 100000] [--index flat hnsw ivf] [--pid PID]

The rows go in once, 1,000 a call, which `filling` tells; then each kind of index is made of them in turn. `index` is
the seconds until the server has made it and searches by it, and `GiB` what the server holds then, if it is the process
PID of this machine, and at the most until then; for `memory`, what this process holds more by the engine.

`p50` and `p99` are milliseconds of one query among all rows, or among those of one camera of 15; `32` is the median of
32 queries at once; inf is a search that the engine gave up. `recall` is the share of the 10 best that the single
queries found. It makes a collection of its own, and drops it. A million rows of 384 values need 6 GiB beside the
server.
"""

import argparse
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.evaluate import make_sides
from benchmarks.search import COUNT, make_rows
from service.engines.memory import MemoryEngine
from service.engines.milvus import Consistency, MilvusEngine
from service.engines.protocol import SearchEngine
from service.fields import Filter
from service.records import Found, IndexUnavailable, MilvusIndex, Vectors

Cells = list[float]

COLLECTION = "benchmark_of_search"
UPSERT_ROWS = 1000
MANY, EXACT = 32, 64  # queries at once, and all that there are
EVERYTHING, ONE_CAMERA = Filter(), Filter(cameras=frozenset("0"))
INDEX_SECONDS = 7200.0
TITLES = ("index s", "GiB", "peak", "p50", "p99", "camera p50", "p99", f"{MANY}", "recall")


def ask(
    engine: SearchEngine, queries: Vectors, at_once: int, chosen: Filter, rounds: int
) -> tuple[list[float], dict[int, Found]]:
    """How many milliseconds each search took, by rising time, without the first, and what was found for which query."""
    spent, found = [], {}
    for number in range(rounds + 1):
        asked = [(number + i) % len(queries) for i in range(at_once)]
        started = time.perf_counter()
        try:
            answers = engine.search(queries[asked], COUNT, chosen)
            spent.append(1000 * (time.perf_counter() - started))
            found |= zip(asked, answers, strict=True)
        except IndexUnavailable:
            spent.append(float("inf"))
    return sorted(spent[1:]), found


def measure(
    engine: SearchEngine, queries: Vectors, exact: dict[Filter, list[Found]], rounds: int
) -> tuple[Cells, bool]:
    """The percentiles and the recall that are printed, and whether all that was found is as in memory."""
    cells, same, share = [], True, float("nan")
    for chosen, right in exact.items():
        spent, found = ask(engine, queries, 1, chosen, rounds)
        cells += [spent[rounds // 2], spent[(99 * rounds) // 100]]
        same &= all(one == right[query] for query, one in found.items())
        if chosen == EVERYTHING and found:
            good = [hit.score >= right[query].hits[-1].score for query, one in found.items() for hit in one.hits]
            share = sum(good) / sum(len(right[query].hits) for query in found)
    few = max(3, rounds // 10)
    return [*cells, ask(engine, queries, MANY, EVERYTHING, few)[0][few // 2], share], same


def gibibytes(key: str, pid: int | str) -> float:
    """What a process of this machine holds (VmRSS), or held at the most (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 2**20


def index_again(client: Any, engine: MilvusEngine) -> None:
    """Have the server make the engine's kind of index of all rows of the collection, and search by it."""
    client.flush(COLLECTION, timeout=INDEX_SECONDS)  # only rows of closed segments are in an index
    client.release_collection(COLLECTION)
    for name in client.list_indexes(COLLECTION):
        client.drop_index(COLLECTION, name)
    made = False
    while not made:
        with suppress(IndexUnavailable):  # it waits for a minute
            engine.create()
            made = True
        while client.describe_index(COLLECTION, "vector").get("pending_index_rows"):
            made = False
            time.sleep(1)
        if not made:
            client.release_collection(COLLECTION)  # may have begun without the index


def print_row(rows: int, *names: str, cells: list[float]) -> None:
    told = "".join(f"{cell:>11.3f}" if abs(cell) < 10 else f"{cell:>11.0f}" for cell in cells)
    print(f"{rows:>9}  {' '.join(names):<14}{told}", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uri", required=True, help="the server, such as http://127.0.0.1:19530")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="gallery sizes (10000 100000)")
    parser.add_argument("--dim", type=int, default=384, help="embedding size (384)")
    parser.add_argument("--index", nargs="+", default=["flat"], choices=get_args(MilvusIndex), help="kinds (flat)")
    parser.add_argument("--consistency", nargs="+", default=["Strong", "Bounded"], choices=get_args(Consistency))
    parser.add_argument("--rounds", type=int, default=101, help="searches to take percentiles of (101)")
    parser.add_argument("--pid", type=int, help="the server's process on this machine, whose memory is told")
    options = parser.parse_args(argv)

    print(f"searches for the best {COUNT}; {torch.get_num_threads()} threads here; times in milliseconds")
    differ = False
    for rows in options.rows:
        query, gallery = make_sides(EXACT, rows, options.dim)
        queries, held = query.features.numpy(), gibibytes("VmRSS", "self")
        engines = {
            (kind, consistency): MilvusEngine(
                options.uri, COLLECTION, options.dim, index=kind, consistency=consistency, expected=rows
            )
            for kind in options.index
            for consistency in options.consistency
        }
        filled, memory = MilvusEngine(options.uri, COLLECTION, options.dim), MemoryEngine()
        client = import_module("pymilvus").MilvusClient(options.uri, dedicated=True)
        filled.drop()
        filled.create()
        try:
            filling = 0.0
            for some in make_rows(gallery.features, gallery.cameras):
                memory.upsert(some)
                started = time.perf_counter()
                for start in range(0, len(some), UPSERT_ROWS):
                    filled.upsert(some[start : start + UPSERT_ROWS])
                filling += time.perf_counter() - started
            exact = {chosen: memory.search(queries, COUNT, chosen) for chosen in (EVERYTHING, ONE_CAMERA)}
            print(f"{rows:>9}  filling: {filling:.0f} s, {rows / filling:.0f} rows/s")
            print(f"{'rows':>9}  {'engine':<14}" + "".join(f"{title:>11}" for title in TITLES))
            ours = [0.0, gibibytes("VmRSS", "self") - held, float("nan")]
            print_row(rows, "memory", cells=[*ours, *measure(memory, queries, exact, options.rounds)[0]])
            made = ""
            for (kind, consistency), engine in engines.items():
                if kind != made:
                    if options.pid:
                        Path(f"/proc/{options.pid}/clear_refs").write_text("5")  # sets VmHWM back
                    started = time.perf_counter()
                    index_again(client, engine)
                    building, made = time.perf_counter() - started, kind
                server = [gibibytes(key, options.pid) if options.pid else float("nan") for key in ("VmRSS", "VmHWM")]
                cells, same = measure(engine, queries, exact, options.rounds)
                print_row(rows, kind, consistency, cells=[building, *server, *cells])
                differ |= (kind, consistency) == ("flat", "Strong") and not same
        finally:
            filled.drop()
            client.close()
            for engine in (filled, *engines.values()):
                engine.close()
    print("answers of flat, Strong: " + ("not those of memory" if differ else "those of memory, all"))
    return int(differ)


if __name__ == "__main__":
    raise SystemExit(main())
