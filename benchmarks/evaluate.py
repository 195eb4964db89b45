"""Time and memory of the retrieval metrics, against the usual way: sort every row of distances, then loop over queries.

`python -m benchmarks.evaluate` at MSMT17's size takes some minutes, nearly all of them for the usual way;
`--reference-queries 1000` shortens that. Whole = matrix product and all the rest. Median of interleaved rounds.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from reid.retrieval.distances import FeatureDistances
from reid.retrieval.metrics import Metrics, evaluate_features

IDENTITIES, CAMERAS = 3060, 15  # MSMT17's test set
RANKS = (1, 5, 10, 20)
BLOCK = 512  # queries multiplied or sorted at a time: the usual way, whole, needs 30 GiB
LARGEST_DIFFERENCE = 1e-6

Integers = npt.NDArray[np.int64]


class Side(NamedTuple):
    """Queries or gallery: features (rows, E) float32 of unit length, identities and cameras (rows,)."""

    features: torch.Tensor
    ids: Integers
    cameras: Integers


def make_side(rows: int, size: int, rng: np.random.Generator, centres: torch.Tensor, views: torch.Tensor) -> Side:
    """Draw images of identities seen by cameras, about as hard to tell apart as a fair model finds MSMT17."""
    ids, cameras = rng.integers(0, IDENTITIES, rows), rng.integers(0, CAMERAS, rows)
    noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
    latent = centres[ids] + 0.5 * views[cameras] + 0.4 * torch.randn(rows, centres.shape[1], generator=noise)
    spread = torch.randn(centres.shape[1], size, generator=torch.Generator().manual_seed(1))
    features = latent @ spread + 0.3 * torch.randn(rows, size, generator=noise)
    return Side(torch.nn.functional.normalize(features), ids, cameras)


def usual_way(
    distances: npt.NDArray[np.float32], query: Side, gallery: Side
) -> tuple[list[float], list[float], list[int]]:
    """Average precision, inverse negative penalty and first rank of queries, by sorting all (Q, G) distances."""
    indices = np.argsort(distances, axis=1)
    matches = gallery.ids[indices] == query.ids[:, None]
    precisions, penalties, firsts = [], [], []
    for q in range(len(distances)):
        junk = matches[q] & (gallery.cameras[indices[q]] == query.cameras[q])
        hits = matches[q][~junk]
        if hits.any():
            ranks = np.flatnonzero(hits) + 1
            precisions.append(float((hits.cumsum()[ranks - 1] / ranks).mean()))
            penalties.append(float(len(ranks) / ranks[-1]))
            firsts.append(int(ranks[0]))
    return precisions, penalties, firsts


def time_product(query: Side, gallery: Side, device: torch.device) -> float:
    """Seconds of the matrix product alone, on features that are already where they are needed."""
    queries, rows = query.features.to(device), gallery.features.to(device)
    out = torch.empty(BLOCK, len(rows), device=device)
    started = time.perf_counter()
    for start in range(0, len(queries), BLOCK):
        block = queries[start : start + BLOCK]
        torch.mm(block, rows.T, out=out[: len(block)])
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def time_usual_way(query: Side, gallery: Side) -> tuple[float, list[float], list[float], list[int]]:
    """Seconds of the usual way without its matrix product, and its results, a block of queries at a time."""
    distances = FeatureDistances(query.features, gallery.features)
    seconds, precisions, penalties, firsts = 0.0, [], [], []
    for start in range(0, len(query.ids), BLOCK):
        stop = min(start + BLOCK, len(query.ids))
        block, side = distances.rows(start, stop).numpy(), Side(*(part[start:stop] for part in query))
        started = time.perf_counter()
        results = usual_way(block, side, gallery)
        seconds += time.perf_counter() - started
        for total, part in zip((precisions, penalties, firsts), results, strict=True):
            total.extend(part)
    return seconds, precisions, penalties, firsts


def measure_peak(run: Callable[[], Metrics], device: torch.device) -> tuple[Metrics, int]:
    """Run, and return the result with the bytes held at the peak beyond those held before (Linux, or the GPU's)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return run(), torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    before = _held("VmRSS")
    return run(), _held("VmHWM") - before


def _held(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def largest_difference(ours: Metrics, precisions: list[float], penalties: list[float], firsts: list[int]) -> float:
    """Largest difference of mAP, mINP and Rank-k over the queries that the usual way has scored."""
    scored = ~np.isnan(ours.first_hit)
    first = ours.first_hit[scored][: len(firsts)]
    differences = [
        np.mean(ours.average_precision[scored][: len(firsts)]) - np.mean(precisions),
        np.mean(ours.inverse_negative_penalty[scored][: len(firsts)]) - np.mean(penalties),
        *(np.mean(first <= rank) - np.mean(np.array(firsts) <= rank) for rank in RANKS),
    ]
    return float(np.abs(differences).max())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=11_659)
    parser.add_argument("--gallery", type=int, default=82_161)
    parser.add_argument("--dim", type=int, default=384, help="embedding size E (384)")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds to take medians of (3)")
    parser.add_argument("--reference-queries", type=int, help="give the usual way only the first N queries, 0 = none")
    options = parser.parse_args(argv)

    rng = np.random.default_rng(0)
    latent = [torch.randn(rows, 24, generator=torch.Generator().manual_seed(rows)) for rows in (IDENTITIES, CAMERAS)]
    query = make_side(options.queries, options.dim, rng, *latent)
    gallery = make_side(options.gallery, options.dim, rng, *latent)
    count = options.queries if options.reference_queries is None else min(options.reference_queries, options.queries)
    few = Side(*(part[:count] for part in query))
    print(f"{options.queries} queries x {options.gallery} gallery rows, E = {options.dim}, {options.device}, ", end="")
    print(f"{torch.get_num_threads()} threads; usual way on {count} of the queries", flush=True)

    product, ours, usual, peaks = [], [], [], []
    for _ in range(options.rounds):
        product.append(time_product(query, gallery, options.device) / options.queries)
        started = time.perf_counter()
        metrics, peak = measure_peak(lambda: evaluate_features(*query, *gallery, device=options.device), options.device)
        ours.append((time.perf_counter() - started) / options.queries)
        peaks.append(peak)
        if count:
            seconds, *results = time_usual_way(few, gallery)
            usual.append(seconds / count)

    rest = median(o - p for o, p in zip(ours, product, strict=True))
    print(
        f"mAP {metrics.mAP:.4f}  mINP {metrics.mINP:.4f}  Rank-1 {metrics.cmc[1]:.4f}  skipped {metrics.queries_skipped}"
    )
    print(f"{'ms a query':<24}{'product':>10}{'the rest':>10}{'whole':>10}")
    print(f"{'ours':<24}{1e3 * median(product):>10.3f}{1e3 * rest:>10.3f}{1e3 * median(ours):>10.3f}")
    print(f"{'ours, all queries (s)':<24}{options.queries * median(product):>10.2f}", end="")
    print(f"{options.queries * rest:>10.2f}{options.queries * median(ours):>10.2f}")
    print(f"peak memory beyond the features: {max(peaks) / 2**30:.2f} GiB")
    if not count:
        return 0
    whole = median(p + u for p, u in zip(product, usual, strict=True))
    print(f"{'usual way':<24}{1e3 * median(product):>10.3f}{1e3 * median(usual):>10.3f}{1e3 * whole:>10.3f}")
    print(f"{'usual way / ours':<24}{'':>10}{median(usual) / rest:>10.1f}{whole / median(ours):>10.1f}")
    difference = largest_difference(metrics, *results)
    print(f"largest difference of mAP, mINP and Rank-k: {difference:.1e} (must be below {LARGEST_DIFFERENCE})")
    return int(difference >= LARGEST_DIFFERENCE)


if __name__ == "__main__":
    raise SystemExit(main())
