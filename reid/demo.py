"""Command `reid-demo`: the main job on the toy data, from pictures to a table and a ranked list."""

import argparse
import logging
import sys
import time
from pathlib import Path

from reid import cli
from reid.config import load_config
from reid.evaluate import evaluate
from reid.progress import duration
from reid.report.page import write_report
from reid.scoring import Result
from reid.train import train

log = logging.getLogger("reid")


def demo(output: Path, device: str = "auto") -> dict[str, Result]:
    """Train the baseline and DCAL on the toy data into `output`, continuing what is there; return both results."""
    results: dict[str, Result] = {}
    for method in ("baseline", "dcal"):
        run = output / method
        log.info("\n--- %s: training in %s", method, run)
        train(load_config("toy", None, {"model.method": method}), run, device=device, resume=True)
        found = evaluate(run, device=device, verification=True)
        results[method] = found.result
    page = write_report(output / "report", found.result, found.features, found.distances, embedder=found.embedder)
    log.info("\nreport on the DCAL model, with ranked lists and attention: %s", page)
    return results


def table(results: dict[str, Result]) -> str:
    """A row a method, in percent."""
    lines = [f"{'method':<10}{'mAP':>8}{'Rank-1':>8}{'Rank-5':>8}{'mINP':>8}"]
    for method, result in results.items():
        metrics = result.metrics
        values = (metrics.mAP, metrics.cmc[1], metrics.cmc[5], metrics.mINP)
        lines.append(f"{method:<10}" + "".join(f"{100 * value:8.1f}" for value in values))
    return "\n".join(lines)


def _command(arguments: argparse.Namespace) -> None:
    begun = time.monotonic()
    results = demo(arguments.output, arguments.device)
    print(f"\n{table(results)}\n\nDone in {duration(time.monotonic() - begun)}. Runs: {arguments.output}")
    print(f"Next: reid-train --dataset csv --data-root PHOTOS.csv, or reid-eval --checkpoint {arguments.output}/dcal")


def main(argv: list[str] | None = None) -> int:
    """Run `reid-demo`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-demo",
        description="Generate the toy vehicles, train the baseline and DCAL on them, evaluate both, write a report. "
        "Takes a few minutes on two cores; given again, it continues or shows what is there.",
    )
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("runs/demo"))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    return cli.run(_command, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
