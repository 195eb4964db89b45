"""The ratios that the toolkit promises on one page: today's, the last ones, what they must be, and what regressed.

    python -m benchmarks.all --quick [--busy] [--only training search ...]

Each comes of the benchmark that the page names, with small sizes under --quick (minutes on two cores) and those of the
promise without it (hours). `last` are the figures that `all.json` had from the same sizes; today's go there and onto
the page `all.md`, where what --only leaves out stays as it was. A figure has regressed where it is worse than the last
by more than a quarter. Each benchmark runs in a process of its own. The exit code is 1 where one failed or a figure
regressed. On a machine with other work, --busy gives processor time of one thread in the place of time, except for the
service: waiting for the disk is not in it, nor what a second thread would gain.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
REGRESSED, WORSE = "**regressed**", 1.25  # times the last figure
DIM = 384
CLIENTS = 64
COMMANDS = ("reid.train", "reid.evaluate", "service.serve", "service.enrol", "service.embed", "fgvc.train")
PACKAGES = ("torch", "faiss-gpu", "onnxruntime", "numpy")


Part = dict[str, Any]  # `where` and under which `load` it was measured, and its `figures`, or why it `failed`


@dataclass(frozen=True)
class Sizes:
    """How much each benchmark is given, as the design asks for it."""

    batch: tuple[int, int] = (32, 8)
    rounds: int = 15
    queries: int = 11_659
    gallery: int = 82_161
    usual: int = 11_659
    reranked: tuple[int, int] = (11_659, 82_161)
    searched: int = 1_000_000
    started: int = 1_000_000
    seconds: float = 10.0
    photos: int = 8
    answers: int = 40


FULL = Sizes()
QUICK = Sizes((8, 8), 15, 1_000, 82_161, 60, (1_166, 8_216), 100_000, 50_000, 8.0, 2, 6)


class Figure(NamedTuple):
    """One number: at most `most` or at least `least` is asked for."""

    name: str
    value: float
    unit: str = "x"
    most: float | None = None
    least: float | None = None
    note: str = ""

    @property
    def kept(self) -> bool:
        """Whether it is what it must be."""
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def worse_than(self, last: float) -> bool:
        """Whether it is worse than the last one by more than luck."""
        return self.value > last * WORSE if self.least is None else self.value < last / WORSE

    @property
    def asked(self) -> str:
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


def training(sizes: Sizes) -> Iterator[Figure]:
    """benchmarks.train_step"""
    from benchmarks import train_step

    for (height, width), ratio, batch, most in (
        ((256, 128), 0.3, sizes.batch[0], 2.2),
        ((448, 448), 0.1, sizes.batch[1], 2.6),
    ):
        arguments = argparse.Namespace(
            backbone="deit_tiny",
            batch_size=batch,
            image_size=(height, width),
            ratio=ratio,
            device="cpu",
            compile=False,
            checkpointing=False,
            rounds=sizes.rounds if height < 448 else max(2, sizes.rounds // 3),
            warmup=1,
        )
        times, operations = train_step.compare(arguments)
        floor = operations["dcal"] / operations["plain"]
        pairs = [dcal / plain for dcal, plain in zip(times["dcal"], times["plain"], strict=True)]
        name = f"DCAL's training step over the plain one, {height} x {width}, batch {batch}"
        yield Figure(name, median(pairs), most=most, note=f"operations {floor:.2f} x")


def metrics(sizes: Sizes) -> Iterator[Figure]:
    """benchmarks.evaluate"""
    import torch

    from benchmarks.evaluate import compare, make_sides

    query, gallery = make_sides(sizes.queries, sizes.gallery, DIM)
    found = compare(query, gallery, query.rows(0, sizes.usual), 3, torch.device("cpu"))
    assert found.usual is not None
    usual = 1000 * found.usual / sizes.queries
    note = f"{sizes.queries:,} queries, {sizes.gallery:,} rows; the usual way: {usual:.1f} ms a query"
    yield Figure("the usual metrics over ours, without the product", found.usual / found.rest, least=50, note=note)
    yield Figure("the same, whole", (found.product + found.usual) / found.whole, least=10, note=note)
    yield Figure("memory of the metrics beyond the features", found.peak / 2**30, "GiB", most=0.5, note=note)


def reranking(sizes: Sizes) -> Iterator[Figure]:
    """benchmarks.rerank"""
    import torch

    from benchmarks.evaluate import make_sides, time_ours
    from benchmarks.rerank import Stages, rerank_and_score
    from reid.retrieval.reranking import PRESETS

    query, gallery = make_sides(*sizes.reranked, DIM)
    chosen = PRESETS["zhong"]
    seconds, peak, _ = time_ours(
        lambda: rerank_and_score(query, gallery, chosen, torch.device("cpu"), Stages()), torch.device("cpu")
    )
    images = sum(sizes.reranked)
    share = images / sum(FULL.reranked)  # its time grows as the square of the images at most
    note = f"{images:,} images" + (
        "" if share == 1 else f"; time as if it grew by the square to {sum(FULL.reranked):,}"
    )
    yield Figure("re-ranking of MSMT17's size", seconds / share**2 / 60, "minutes", most=3, note=note)
    yield Figure("its memory beyond the features", peak / 2**30, "GiB", most=1, note=f"{images:,} images")


def search(sizes: Sizes) -> Iterator[Figure]:
    """benchmarks.search"""
    from benchmarks.evaluate import make_sides
    from benchmarks.search import BATCHES, measure, ways_to_search

    query, gallery = make_sides(max(BATCHES), sizes.searched, DIM)
    beside = []
    for filtered, ways in ways_to_search(gallery.features, gallery.cameras):
        ways = {name: way for name, way in ways.items() if name in ("engine", "product", "faiss")}
        for batch in BATCHES:
            spent, _, _ = measure(ways, query.features[:batch], 5)
            ratio = spent["engine"] / min(spent["product"], spent.get("faiss", float("inf")))
            if filtered == "none" and batch == 1 and "faiss" in spent:
                name = f"FAISS Flat over the exact search, one query, {sizes.searched:,} rows"
                yield Figure(name, spent["faiss"] / spent["engine"], least=3)
            else:
                beside.append((ratio, f"{batch} queries, filter {filtered}"))
    worst, where = max(beside)
    yield Figure("exact search over the best of FAISS Flat and a product, elsewhere", worst, most=1.1, note=where)


def start(sizes: Sizes) -> Iterator[Figure]:
    """benchmarks.growth"""
    from benchmarks.growth import fill, measure, restart

    with TemporaryDirectory() as folder:
        filled, queries, best = fill(Path(folder), sizes.started, DIM)
        measure(Path(folder), "memory", queries, best, 3)  # which leaves the file of rows
        seconds = restart(Path(folder), "memory", queries)
    share = sizes.started / FULL.started
    note = f"{sizes.started:,} rows" + ("" if share == 1 else ", as if all of it grew with the rows")
    yield Figure("start at a million rows", seconds / share, "s", most=5, note=note)
    enrolled = filled["enrolled_per_s"]
    yield Figure("enrolment of known features", enrolled, "rows/s", least=10_000, note=f"{sizes.started:,} rows")


def service(sizes: Sizes) -> Iterator[Figure]:
    """benchmarks.service"""
    from benchmarks.service import QUERY_PHOTOS, make_checkpoint, make_photos, open_bench

    photos = list(make_photos(0, QUERY_PHOTOS))
    for backbone, least in (("vit_small", 0.9), ("vit_tiny", 0.75)):
        with TemporaryDirectory() as folder:
            checkpoint = make_checkpoint(Path(folder), backbone)
            with open_bench(checkpoint, "cpu", sizes.seconds, Path(folder)) as bench:
                rows = [*bench.queries(1000, [CLIENTS], photos, with_naive=False), *bench.enrolment()]
        for what, name in (("service", f"queries of {CLIENTS} clients"), ("enrol over HTTP", "enrolment over HTTP")):
            row = next(row for row in rows if row["what"] == what)
            note = f"{row['rate']:.0f} of {row['forward']:.0f} images/s; {row['of_as_one']:.2f} x of a batch as one, "
            note += f"{row['asking']:.1%} of the processors for the clients"
            yield Figure(f"{name} over the model's own rate, {backbone}", row["of_forward"], least=least, note=note)


def ingest(sizes: Sizes) -> Iterator[Figure]:
    """benchmarks.ingest"""
    from benchmarks.ingest import draw, measure

    parts, _, _ = measure(draw(sizes.photos), 224, 224)
    now, former = parts["now"].seconds, parts["former"].seconds
    note = f"{1000 * now:.0f} ms of a processor, then {1000 * former:.0f}"
    yield Figure("enrolling a photo of 12 megapixels, the former way over now", former / now, least=5, note=note)


def naming(sizes: Sizes) -> Iterator[Figure]:
    """benchmarks.naming --speed"""
    from benchmarks.naming import measure_speed

    taken = measure_speed(10_000, sizes.answers)
    note = f"{median(taken[:, 1].tolist()):.2f} s of a processor"
    yield Figure("answer to next question, 10,000 items", median(taken[:, 0].tolist()), "s", most=1, note=note)


def commands(sizes: Sizes) -> Iterator[Figure]:
    """python -X importtime"""
    with_torch = [command for command in COMMANDS if re.search(r"\| +torch$", _imported(command), re.MULTILINE)]
    note = ", ".join(with_torch) or f"{len(COMMANDS)} commands"
    yield Figure("commands whose --help imports torch", len(with_torch), "", most=0, note=note)


def _imported(command: str) -> str:
    told = subprocess.run([sys.executable, "-X", "importtime", "-m", command, "--help"], capture_output=True, text=True)
    told.check_returncode()
    return told.stderr


def gpu(sizes: Sizes) -> Iterator[Figure]:
    """benchmarks.train_step --device cuda --compile"""
    import torch

    if not torch.cuda.is_available():
        return
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_step", "--device", "cuda", "--compile"], capture_output=True, text=True
    )
    told.check_returncode()
    row = next(line.split() for line in told.stdout.splitlines() if line.startswith("dcal"))
    share = next(float(cell[:-1]) for cell in row if cell.endswith("%"))
    yield Figure(
        "DCAL's training of the card's bf16 rate, ViT-B", share, "%", least=40, note=torch.cuda.get_device_name()
    )


PARTS: dict[str, Callable[[Sizes], Iterator[Figure]]] = {
    part.__name__: part
    for part in (training, metrics, reranking, search, start, service, ingest, naming, commands, gpu)
}


SEVERAL = ("service", "commands", "gpu")  # work in several processes, whose time is not that of this one


def measured(part: str, sizes: Sizes, busy: bool) -> list[Figure]:
    """The figures of a part, in a process of its own; what its benchmark prints is left out."""
    if busy and part not in SEVERAL:
        import torch

        torch.set_num_threads(1)
        time.perf_counter = time.process_time  # which all of them read
    with redirect_stdout(StringIO()):
        return list(PARTS[part](sizes))


def page(command: str, parts: dict[str, Part], last: dict[str, float]) -> str:
    """The parts' figures beside the last ones, in Markdown, and where each was measured."""
    lines = [
        f"`{command}`",
        "",
        "| what | today | last | must be | | how it is known |",
        "| --- | ---: | ---: | --- | --- | --- |",
    ]
    places: dict[str, list[str]] = {}
    for name, part in parts.items():
        places.setdefault(part["where"], []).append(f"{name} (load {part['load']:.1f})")
        how = f"`{PARTS[name].__doc__}`"
        if "failed" in part:
            lines.append(f"| {name} | failed | | | {part['failed']} | {how} |")
        for figure in map(Figure._make, part.get("figures", [])):
            before = last.get(figure.name)
            regressed = before is not None and figure.worse_than(before)
            said = [REGRESSED] * regressed + ["not kept"] * (not figure.kept) + [figure.note] * bool(figure.note)
            shown = [f"{number:.3g} {figure.unit}" if number is not None else "" for number in (figure.value, before)]
            lines.append(f"| {figure.name} | {shown[0]} | {shown[1]} | {figure.asked} | {'; '.join(said)} | {how} |")
    if "--quick" in command:
        lines += ["", "Sizes are smaller than what the figures are promised for: hold them against the last ones."]
    lines += ["", "Load is that of the machine before the part began, where 0 is an idle one.", ""]
    lines += [f"- {where}: {', '.join(names)}" for where, names in places.items()]
    if missing := [name for name in PARTS if name not in parts]:
        lines.append(f"- not measured: {', '.join(missing)}")
    if not parts.get("gpu", {}).get("figures"):
        lines.append("- training on a GPU was not measured, for there was none; the last is in `train_step-h100.md`")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: minutes")
    parser.add_argument("--busy", action="store_true", help="processor time, where the machine has other work")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="the others stay")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="of all.md and all.json")
    options = parser.parse_args(argv)

    asked = [f"--{name}" for name in ("quick", "busy") if getattr(options, name)]
    command = " ".join(["python -m benchmarks.all", *asked])
    sizes = QUICK if options.quick else FULL
    file = options.results / "all.json"
    kept: dict[str, dict[str, Part]] = json.loads(file.read_text()) if file.exists() else {}
    former = kept.get(command, {})
    last = {figure[0]: figure[1] for part in former.values() for figure in part.get("figures", [])}
    now: dict[str, Part] = {}
    told = ""
    for name in options.only:
        part: Part = {"where": _where(), "load": os.getloadavg()[0]}
        begun = time.monotonic()
        try:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                figures = process.submit(measured, name, sizes, options.busy).result()
            part["figures"] = [list(figure) for figure in figures]
        except Exception as error:  # one that fails shall not cost the others' figures
            part["failed"] = " ".join(str(error).split())[:200] or repr(error)
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        now[name] = part
        both = {name: part for name in PARTS if (part := {**former, **now}.get(name))}
        told = page(command, both, last)
        (options.results / "all.md").write_text(f"# Every ratio\n\n{told}")  # after each, for the next may take hours
        file.write_text(json.dumps({**kept, command: both}, indent=1) + "\n")
    print(told, end="")
    return int(any("failed" in part for part in now.values()) or REGRESSED in told)


def _where() -> str:
    told = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = told.group(1) if told else platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{datetime.now(UTC):%Y-%m-%d}, {processor}, {os.cpu_count()} cores; {versions}"


if __name__ == "__main__":
    raise SystemExit(main())
