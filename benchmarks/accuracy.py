"""Baseline, GLCA, PWCA and DCAL under one recipe, over several seeds: a table of mean and spread.

    python -m benchmarks.accuracy --name nyala --data-root ../shared/data/nyala/images.csv --weights FILE
    python -m benchmarks.accuracy --task fgvc --name cub30 --data-root ../shared/data/cub30 --weights FILE

Every run is a run folder under --runs; a run that is finished is not repeated and one that was interrupted continues,
so the same command can be given again. The table is printed and written to benchmarks/results/accuracy-NAME.{json,md}.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import fgvc.evaluate
import reid.evaluate
from benchmarks.run_once import train_once
from reid.config import load_config, option_names, parse_override
from reid.inference.checkpoint import KINDS
from reid.names import BRANCHES, MODEL_FILE

RESULTS = Path(__file__).parent / "results"
METHODS = ("baseline", "glca", "pwca", "dcal")
# What a run is called by; everything else is the recipe, the same for all.
VARIED = ("model.method", "train.seed")
Figures = dict[str, dict[str, float]]  # by what is used of the model, then by figure, in [0, 1]


@dataclass(frozen=True)
class Task:
    """What differs between the tasks: the dataset by default, the names of the first two figures, and how to measure.

    `measure(run folder, method, device)` gives the figures, those of all branches together first; `used` heads their
    column.
    """

    dataset: str
    used: str
    titles: dict[str, str]
    measure: Callable[[Path, str, str], Figures]


def measure_reid(folder: Path, method: str, device: str) -> Figures:
    """mAP and Rank-1 for every choice of features that the method has."""
    found = {}
    for features in ("concat", "sa", "glca") if "glca" in BRANCHES[method] else ("sa",):  # type: ignore[index]
        metrics = reid.evaluate.evaluate(folder, {"eval.features": features}, device=device).result.metrics
        found[features] = {"mAP": metrics.mAP, "rank1": metrics.cmc[1]}
    return found


def measure_fgvc(folder: Path, method: str, device: str) -> Figures:
    """Top-1 and top-5 for every prediction that the method has."""
    accuracy = fgvc.evaluate.evaluate(folder, device=device).result.accuracy
    return {prediction: {"top1": by[1], "top5": by[5]} for prediction, by in accuracy.items()}


TASKS = {
    "reid": Task("csv", "features", {"mAP": "mAP", "rank1": "Rank-1"}, measure_reid),
    "fgvc": Task("cub", "prediction", {"top1": "top-1", "top5": "top-5"}, measure_fgvc),
}


def figures(task: Task, folder: Path, method: str, device: str) -> Figures:
    """The figures of a finished run, kept beside it."""
    stored = folder / "accuracy.json"
    if stored.exists() and stored.stat().st_mtime >= (folder / MODEL_FILE).stat().st_mtime:
        return dict(json.loads(stored.read_text()))
    found = task.measure(folder, method, device)
    stored.write_text(json.dumps(found, indent=1) + "\n")
    return found


def table(task: Task, rows: dict[str, dict[int, Figures]]) -> str:
    """Markdown: per method and part of it, mean and spread over seeds, and the gain over the baseline seed by seed."""
    (first, title), (second, other_title) = task.titles.items()
    lines = [
        f"| method | {task.used} | {title} | each seed | {other_title} | {title} over baseline |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    base = {seed: found["sa"][first] for seed, found in rows.get("baseline", {}).items()}
    for method, seeds in rows.items():
        for used in next(iter(seeds.values())):
            values = {seed: 100 * found[used][first] for seed, found in seeds.items()}
            other = spread([100 * found[used][second] for found in seeds.values()])
            gains = [values[seed] - 100 * base[seed] for seed in values if seed in base]
            gain = spread(gains) if gains and method != "baseline" else ""
            each = ", ".join(f"{value:.2f}" for value in values.values())
            lines.append(f"| {method} | {used} | {spread(list(values.values()))} | {each} | {other} | {gain} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), default="reid")
    parser.add_argument("--name", required=True, help="of the result files")
    parser.add_argument("--dataset", help="as reid-train or fgvc-train takes it (default: csv, or cub for fgvc)")
    parser.add_argument("--data-root", required=True)
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
    task = TASKS[arguments.task]
    dataset = arguments.dataset or task.dataset
    recipe = dict(parse_override(text) for text in arguments.options)
    rows: dict[str, dict[int, Figures]] = {}
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
                train_once(folder, arguments.task, dataset, overrides, arguments.device)
            elif not (folder / MODEL_FILE).exists():
                continue
            rows.setdefault(method, {})[seed] = figures(task, folder, method, arguments.device)
            print(f"seed {seed} {method}: {rows[method][seed]}", file=sys.stderr)
    rows = {method: rows[method] for method in METHODS if method in rows}
    kind = KINDS[arguments.task]
    config = load_config(dataset, None, overrides, kind).model_dump(mode="json")
    known = {name: config[name.split(".")[0]][name.split(".")[1]] for name in option_names(kind) if name not in VARIED}
    known = {name: value for name, value in known.items() if name not in ("data.root", "model.weights")}
    text = table(task, rows)
    print(text)
    arguments.results.mkdir(parents=True, exist_ok=True)
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    stated = {"machine": machine, "torch": torch.__version__, "recipe": known, "rows": rows}
    (arguments.results / f"accuracy-{arguments.name}.json").write_text(json.dumps(stated, indent=1) + "\n")
    (arguments.results / f"accuracy-{arguments.name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
