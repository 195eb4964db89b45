"""Time and memory of the retrieval metrics, against the usual way: sort every row of distances, then loop over queries.

    python -m benchmarks.evaluate [--dim 1536] [--reference-queries 1000]

At MSMT17's size this takes minutes, nearly all of them for the usual way; --reference-queries shortens that. Times are
medians of interleaved rounds; the matrix product is timed alone, and what a way needs beyond it is "the rest".
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.published import fastreid
from reid.retrieval.distances import FeatureDistances
from reid.retrieval.metrics import Metrics, evaluate_distances, evaluate_features

IDENTITIES, CAMERAS, RANKS = 3060, 15, (1, 5, 10, 20)  # of MSMT17's test set
BLOCK = 512  # queries multiplied or sorted at a time: all at once, the usual way needs about 30 GiB
LARGEST_DIFFERENCE = 1e-6
FEW = 300  # queries to compare with a published implementation

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """Queries or gallery: features (rows, E) float32 of unit length, identities and cameras (rows,)."""

    features: torch.Tensor
    ids: npt.NDArray[np.int64]
    cameras: npt.NDArray[np.int64]

    def rows(self, start: int, stop: int) -> "Side":
        return Side(self.features[start:stop], self.ids[start:stop], self.cameras[start:stop])


def make_sides(queries: int, gallery: int, size: int) -> tuple[Side, Side]:
    """Draw images of identities seen by cameras, about as hard to tell apart as a fair model finds those of MSMT17."""
    rng, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    rows, latent = queries + gallery, 24
    ids, cameras = rng.integers(0, IDENTITIES, rows), rng.integers(0, CAMERAS, rows)
    centres, views = (torch.randn(count, latent, generator=noise) for count in (IDENTITIES, CAMERAS))
    looks = centres[ids] + 0.5 * views[cameras] + 0.4 * torch.randn(rows, latent, generator=noise)
    features = looks @ torch.randn(latent, size, generator=noise) + 0.3 * torch.randn(rows, size, generator=noise)
    both = Side(torch.nn.functional.normalize(features), ids, cameras)
    return both.rows(0, queries), both.rows(queries, rows)


def usual_way(distances: npt.NDArray[np.float32], query: Side, gallery: Side) -> Floats:
    """Score (Q, G) distances: average precision, inverse negative penalty and first rank, (3, Q), NaN for skipped."""
    indices = np.argsort(distances, axis=1)
    matches = gallery.ids[indices] == query.ids[:, None]
    scores = np.full((3, len(distances)), np.nan)
    for q in range(len(distances)):
        junk = matches[q] & (gallery.cameras[indices[q]] == query.cameras[q])
        hits = matches[q][~junk]
        if hits.any():
            ranks = np.flatnonzero(hits) + 1
            scores[:, q] = (hits.cumsum()[ranks - 1] / ranks).mean(), len(ranks) / ranks[-1], ranks[0]
    return scores


def time_usual_way(query: Side, gallery: Side) -> tuple[float, Floats]:
    """Seconds of the usual way without its matrix product, and its scores (3, Q)."""
    distances = FeatureDistances(query.features, gallery.features)
    seconds, scores = 0.0, []
    for start in range(0, len(query.ids), BLOCK):
        queries = query.rows(start, start + BLOCK)
        block = distances.rows(start, start + BLOCK).numpy()
        started = time.perf_counter()
        scores.append(usual_way(block, queries, gallery))
        seconds += time.perf_counter() - started
    return seconds, np.concatenate(scores, axis=1)


def time_product(query: Side, gallery: Side, device: torch.device) -> float:
    """Seconds of the matrix product alone, with the features where they are needed and nothing kept."""
    queries, rows = query.features.to(device), gallery.features.to(device)
    out = torch.empty(BLOCK, len(rows), device=device)
    started = time.perf_counter()
    for block in queries.split(BLOCK):
        torch.mm(block, rows.T, out=out[: len(block)])
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def time_ours(evaluate: Callable[[], Metrics], device: torch.device) -> tuple[float, int, Metrics]:
    """Seconds, bytes held at the peak beyond those held before (of the process, or on the GPU), and the metrics."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets the peak back to what is held now
        before = _held("VmRSS")
    started = time.perf_counter()
    metrics = evaluate()
    seconds = time.perf_counter() - started
    return seconds, (torch.cuda.max_memory_allocated() if device.type == "cuda" else _held("VmHWM")) - before, metrics


def _held(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def largest_difference(metrics: Metrics, reference: Floats) -> float:
    """Largest difference of mAP, mINP and Rank-k over the queries of `reference` (3, Q)."""
    ours = np.stack([metrics.average_precision, metrics.inverse_negative_penalty, metrics.first_hit])
    figures = []
    for scores in (ours[:, : reference.shape[1]], reference):
        average_precision, penalty, first = scores[:, ~np.isnan(scores[0])]
        figures.append([average_precision.mean(), penalty.mean(), *((first <= rank).mean() for rank in RANKS)])
    return float(np.abs(np.diff(figures, axis=0)).max())


def published_difference(query: Side, gallery: Side, published: ModuleType) -> float:
    """Largest difference of mAP, mINP and Rank-k to fastreid's, over a few queries."""
    labels = (query.ids, gallery.ids, query.cameras, gallery.cameras)
    distances = FeatureDistances(query.features, gallery.features).rows(0, len(query.ids)).numpy()
    cmc, precisions, penalties = published.eval_market1501(distances, *labels, max(RANKS))
    ours = evaluate_distances(distances, query.ids, query.cameras, gallery.ids, gallery.cameras)
    pairs = [(ours.mAP, np.mean(precisions)), (ours.mINP, np.mean(penalties))]
    pairs += [(ours.cmc[rank], cmc[rank - 1]) for rank in RANKS]
    return float(max(abs(a - b) for a, b in pairs))


@dataclass(frozen=True)
class Compared:
    """Medians of rounds in turn, in seconds for all queries: the product, all of ours, and what that takes beside it.

    `usual` is what the usual way takes beside the product, scaled up from the `few` queries that it had; None
    without any. `peak` is the most that ours held, in bytes.
    """

    product: float
    whole: float
    rest: float
    usual: float | None
    peak: int
    metrics: Metrics
    reference: Floats | None


def compare(query: Side, gallery: Side, few: Side, rounds: int, device: torch.device) -> Compared:
    """Time ours on all queries, and the usual way on a few of them."""
    both = (query.features, query.ids, query.cameras, gallery.features, gallery.ids, gallery.cameras)
    products, ours, usuals, peaks, reference = [], [], [], [], None
    for _ in range(rounds):
        products.append(time_product(query, gallery, device))
        seconds, peak, metrics = time_ours(lambda: evaluate_features(*both, device=device), device)
        ours.append(seconds)
        peaks.append(peak)
        if len(few.ids):
            seconds, reference = time_usual_way(few, gallery)
            usuals.append(seconds * len(query.ids) / len(few.ids))
    rest = median(o - p for o, p in zip(ours, products, strict=True))
    usual = median(usuals) if usuals else None
    return Compared(median(products), median(ours), rest, usual, max(peaks), metrics, reference)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=11_659)
    parser.add_argument("--gallery", type=int, default=82_161)
    parser.add_argument("--dim", type=int, default=384, help="embedding size (384)")
    parser.add_argument(
        "--device", type=torch.device, default=torch.device("cpu"), help="of the product and ours (cpu)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds to take medians of (3)")
    parser.add_argument(
        "--reference-queries", type=int, help="first N queries alone for the usual way; 0 leaves it out"
    )
    options = parser.parse_args(argv)

    query, gallery = make_sides(options.queries, options.gallery, options.dim)
    few = query.rows(0, options.queries if options.reference_queries is None else options.reference_queries)
    print(f"{options.queries} queries x {options.gallery} gallery rows, E = {options.dim}, {options.device}, ", end="")
    print(f"{torch.get_num_threads()} threads; the usual way on {len(few.ids)} of the queries", flush=True)
    found = compare(query, gallery, few, options.rounds, options.device)
    metrics, product, whole, rest = found.metrics, found.product, found.whole, found.rest
    print(f"mAP {metrics.mAP:.4f}, Rank-1 {metrics.cmc[1]:.4f}, mINP {metrics.mINP:.4f}")
    print(f"{'seconds for all queries':<25}{'product':>10}{'the rest':>10}{'whole':>10}")
    print(f"{'ours':<25}{product:>10.2f}{rest:>10.2f}{whole:>10.2f}")
    if found.usual is not None:
        usual, scaled = found.usual, ", scaled up" if len(few.ids) < options.queries else ""
        print(f"{'the usual way' + scaled:<25}{product:>10.2f}{usual:>10.2f}{product + usual:>10.2f}")
        print(f"{'ours is faster by':<25}{'':>10}{usual / rest:>9.1f}x{(product + usual) / whole:>9.1f}x")
    print(f"peak memory beyond the features: {found.peak / 2**30:.2f} GiB")
    if found.reference is None:
        return 0
    difference = largest_difference(metrics, found.reference)
    print(f"largest difference of mAP, mINP and Rank-k: {difference:.1e} (must be below {LARGEST_DIFFERENCE:.0e})")
    published = fastreid("rank")
    if published is None:
        print("fastreid is not installed: no comparison with a published implementation")
    else:
        same = published_difference(query.rows(0, FEW), gallery, published)
        print(
            f"to fastreid's on {min(FEW, len(query.ids))} queries: {same:.1e} (must be below {LARGEST_DIFFERENCE:.0e})"
        )
        difference = max(difference, same)
    return int(difference >= LARGEST_DIFFERENCE)


if __name__ == "__main__":
    raise SystemExit(main())
