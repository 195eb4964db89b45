"""Baseline, GLCA, PWCA and DCAL under one recipe, over several seeds: a table of mean and spread.

    python -m benchmarks.accuracy --name nyala --data-root ../shared/data/nyala/images.csv --weights FILE

Every run is a run folder under --runs; a run that is finished is not repeated and one that was interrupted continues,
so the same command can be given again. The table is printed and written to benchmarks/results/accuracy-NAME.{json,md}.
"""

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path

import torch

from benchmarks.run_once import train_once
from reid.checkpoint import MODEL_FILE
from reid.config import load_config, option_names, parse_override
from reid.evaluate import evaluate
from reid.models.dcal import BRANCHES

RESULTS = Path(__file__).parent / "results"
METHODS = ("baseline", "glca", "pwca", "dcal")
# What a run is called by; everything else is the recipe, the same for all.
VARIED = ("model.method", "train.seed")


def figures(folder: Path, method: str, device: str) -> dict[str, dict[str, float]]:
    """mAP and Rank-1 of a finished run, for every choice of features its method has, kept beside the run."""
    stored = folder / "accuracy.json"
    if stored.exists() and stored.stat().st_mtime >= (folder / MODEL_FILE).stat().st_mtime:
        return dict(json.loads(stored.read_text()))
    found = {}
    for features in ("concat", "sa", "glca") if "glca" in BRANCHES[method] else ("sa",):  # type: ignore[index]
        metrics = evaluate(folder, {"eval.features": features}, device=device).result.metrics
        found[features] = {"mAP": metrics.mAP, "rank1": metrics.cmc[1], "mINP": metrics.mINP}
    stored.write_text(json.dumps(found))
    return found


def table(rows: dict[str, dict[int, dict[str, dict[str, float]]]]) -> str:
    """Markdown: per method and features, mean and spread over seeds, and the gain over the baseline seed by seed."""
    lines = [
        "| method | features | mAP | each seed | Rank-1 | mAP over baseline |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    base = {seed: found["sa"]["mAP"] for seed, found in rows.get("baseline", {}).items()}
    for method, seeds in rows.items():
        for features in next(iter(seeds.values())):
            mAP = {seed: 100 * found[features]["mAP"] for seed, found in seeds.items()}
            rank1 = [100 * found[features]["rank1"] for found in seeds.values()]
            gains = [mAP[seed] - 100 * base[seed] for seed in mAP if seed in base]
            gain = f"{spread(gains)}" if gains and method != "baseline" else ""
            each = ", ".join(f"{value:.2f}" for value in mAP.values())
            lines.append(
                f"| {method} | {features} | {spread(list(mAP.values()))} | {each} | {spread(rank1)} | {gain} |"
            )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="of the result files")
    parser.add_argument("--data-root", required=True, help="a CSV file as reid-train --dataset csv takes")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--backbone", default="vit_tiny")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--table-only", action="store_true", help="print what is finished, train nothing")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="the recipe, as for reid-train")
    arguments = parser.parse_intermixed_args()
    recipe = dict(parse_override(text) for text in arguments.options)
    rows: dict[str, dict[int, dict[str, dict[str, float]]]] = {}
    for seed in arguments.seeds:
        for method in arguments.methods:
            folder = arguments.runs / arguments.name / f"{method}-{seed}"
            overrides = {
                "data.root": arguments.data_root,
                "model.backbone": arguments.backbone,
                "model.weights": arguments.weights,
                "model.method": method,
                "train.seed": seed,
                "train.eval_every": 0,
                **recipe,
            }
            if not arguments.table_only:
                train_once(folder, "reid", "csv", overrides, arguments.device)
            elif not (folder / MODEL_FILE).exists():
                continue
            rows.setdefault(method, {})[seed] = figures(folder, method, arguments.device)
            print(f"seed {seed} {method}: {rows[method][seed]}", file=sys.stderr)
    rows = {method: rows[method] for method in METHODS if method in rows}
    config = load_config("csv", None, {**overrides, **recipe}).model_dump(mode="json")
    known = {name: config[name.split(".")[0]][name.split(".")[1]] for name in option_names() if name not in VARIED}
    known = {name: value for name, value in known.items() if name not in ("data.root", "model.weights")}
    text = table(rows)
    print(text)
    arguments.results.mkdir(parents=True, exist_ok=True)
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    stated = {"machine": machine, "torch": torch.__version__, "recipe": known, "rows": rows}
    (arguments.results / f"accuracy-{arguments.name}.json").write_text(json.dumps(stated, indent=1) + "\n")
    (arguments.results / f"accuracy-{arguments.name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
