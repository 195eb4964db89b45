"""Time and memory of k-reciprocal re-ranking, and how far it is from a published implementation.

    python -m benchmarks.rerank [--preset transreid] [--dim 1536]

At MSMT17's size this takes minutes, most of them for the distances of all images to each other. The published way
holds these whole, 35 GB, and several matrices as large beside them; it is compared on few images, as fastreid has it:
`pip install --no-deps fastreid` suffices.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.evaluate import Side, make_sides, time_ours
from benchmarks.published import fastreid
from reid.retrieval.distances import FeatureDistances
from reid.retrieval.metrics import Metrics, evaluate_distances, evaluate_features
from reid.retrieval.reranking import PRESETS, KReciprocal, RerankedDistances, memory_estimate

FEW = (50, 250)  # queries and gallery rows of the comparison: among more, fastreid's float32 swaps neighbours
LARGEST_DIFFERENCE = 1e-5


class Stages:
    """Seconds that the stages of re-ranking took, told apart by the progress it reports."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    def end(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self._started = now - self._started, now

    def progress(self, done: int, total: int) -> None:
        if done == total:
            self.end("neighbours")


def rerank_and_score(
    query: Side, gallery: Side, parameters: KReciprocal, device: torch.device, stages: Stages
) -> Metrics:
    distances = RerankedDistances(query.features, gallery.features, parameters, device=device, progress=stages.progress)
    stages.end("encoding")
    metrics = evaluate_distances(distances, query.ids, query.cameras, gallery.ids, gallery.cameras)
    stages.end("ranking")
    return metrics


def largest_difference(query: Side, gallery: Side, parameters: KReciprocal, reference: Callable[..., Any]) -> float:
    """Largest difference of the re-ranked distances to those of `reference`, given the same Euclidean distances."""
    sides = (query.features[: FEW[0]], gallery.features[: FEW[1]])
    queries, pool = len(sides[0]), torch.cat(sides)
    between = FeatureDistances(pool, pool, "euclidean").rows(0, len(pool)).numpy()
    blocks = (between[:queries, queries:], between[:queries, :queries], between[queries:, queries:])
    expected = reference(*blocks, parameters.k1, parameters.k2, parameters.weight)
    ours = RerankedDistances(*sides, parameters, distance="euclidean").rows(0, queries).numpy()
    return float(abs(ours - expected).max())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=11_659)
    parser.add_argument("--gallery", type=int, default=82_161)
    parser.add_argument("--dim", type=int, default=384, help="embedding size (384)")
    parser.add_argument("--preset", choices=PRESETS, default="zhong", help="parameters k1, k2 and weight (zhong)")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="of the products (cpu)")
    options = parser.parse_args(argv)

    parameters = PRESETS[options.preset]
    query, gallery = make_sides(options.queries, options.gallery, options.dim)
    print(f"{options.queries} queries, {options.gallery} gallery rows, E = {options.dim}, {options.device}, ", end="")
    print(f"{torch.get_num_threads()} threads; {parameters}")
    estimate = memory_estimate(options.queries, options.gallery, options.dim, parameters)
    print(f"estimated memory beyond the features: {estimate / 2**30:.2f} GiB", flush=True)
    both = (query.features, query.ids, query.cameras, gallery.features, gallery.ids, gallery.cameras)
    before = evaluate_features(*both, device=options.device)
    stages = Stages()
    seconds, peak, after = time_ours(
        lambda: rerank_and_score(query, gallery, parameters, options.device, stages), options.device
    )
    print(f"peak memory beyond the features: {peak / 2**30:.2f} GiB")
    for stage, spent in {**stages.seconds, "whole": seconds}.items():
        print(f"{stage:<12}{spent:>8.1f} s")
    print(f"mAP before {before.mAP:.4f}, after {after.mAP:.4f}; Rank-1 {before.cmc[1]:.4f}, {after.cmc[1]:.4f}")

    reference = fastreid("rerank")
    if reference is None:
        print("fastreid is not installed: no comparison with a published implementation")
        return 0
    difference = largest_difference(query, gallery, parameters, reference.re_ranking)
    print(f"largest difference to fastreid: {difference:.1e} (must be below {LARGEST_DIFFERENCE:.0e})")
    return int(difference >= LARGEST_DIFFERENCE)


if __name__ == "__main__":
    raise SystemExit(main())
