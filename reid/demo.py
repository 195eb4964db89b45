"""The main job on the toy data, from pictures to a table and a report."""

import logging
from collections.abc import Mapping
from pathlib import Path

from reid.config import load_config
from reid.evaluation.protocol import model_name
from reid.evaluation.run import Evaluated, evaluate
from reid.report.page import write_report
from reid.retrieval.bootstrap import paired_difference
from reid.train import train

log = logging.getLogger("reid")

WHY_NOT = "as on the photos of ETH-80 where the baseline is given as much work: docs/results.md"


def demo(output: Path, device: str = "auto") -> dict[str, Evaluated]:
    """Train the baseline and DCAL on the toy data into folders of `output`, continuing what is there, and report.

    Returns both evaluations by the name of the method. Raises what training and evaluation raise.
    """
    results: dict[str, Evaluated] = {}
    for method in ("baseline", "dcal"):
        run = output / method
        log.info("\n--- %s: training in %s", method, run)
        train(load_config("toy", None, {"model.method": method}), run, device=device, resume=True)
        found = evaluate(run, device=device, verification=True)
        results[method] = found
    assert found.checkpoint is not None
    page = write_report(
        output / "report",
        found.result,
        found.features,
        found.distances,
        model=model_name(found.checkpoint.config),
        embedder=found.embedder,
    )
    log.info("\nreport on the DCAL model, with ranked lists and attention: %s", page)
    return results


def table(results: Mapping[str, Evaluated]) -> str:
    """A row a method, in percent."""
    lines = [f"{'method':<10}{'mAP':>8}{'Rank-1':>8}{'Rank-5':>8}{'mINP':>8}"]
    for method, found in results.items():
        metrics = found.result.metrics
        values = (metrics.mAP, metrics.cmc[1], metrics.cmc[5], metrics.mINP)
        lines.append(f"{method:<10}" + "".join(f"{100 * value:8.1f}" for value in values))
    return "\n".join(lines)


def verdict(results: Mapping[str, Evaluated]) -> str:
    """Whether DCAL is above its baseline, with the interval of the difference, and where it is not, why."""
    baseline, dcal = results["baseline"], results["dcal"]
    vehicles = baseline.features.query_ids
    gain = paired_difference(baseline.result.metrics.average_precision, dcal.result.metrics.average_precision, vehicles)
    line = (
        f"DCAL against its baseline: mAP {100 * gain.mean:+.1f}, 95 % interval {100 * gain.low:+.1f} to "
        f"{100 * gain.high:+.1f} over {len(set(vehicles.tolist()))} vehicles, one training of each."
    )
    if gain.low > 0:
        return line
    return f"{line}\nNot above it, {WHY_NOT}"
