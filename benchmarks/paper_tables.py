"""The tables of the DCAL paper, trained and evaluated row by row, beside the published figures.

    python -m benchmarks.paper_tables --table 2 --data-root DIR                           # re-identification
    python -m benchmarks.paper_tables --table 1 --data-root DIR --rows 'cub-*'            # fine-grained categories
    python -m benchmarks.paper_tables --table more --data-root DIR                        # ablation, CaiT, Swin
    python -m benchmarks.paper_tables --table 2 --plan                                    # what that would take

DIR holds the datasets in their usual folders. Every row is a run folder under --runs, trained by `reid-train` or
`fgvc-train` in a process of its own and evaluated after its last epoch: a row that is done is not repeated and one that
was interrupted goes on, so the same command can be given again, and on several GPUs at once. A row whose dataset or
weights are missing is reported, and the others go on. `--table-only` prints what there is.
"""

import argparse
import fnmatch
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import fgvc.evaluate
import reid.evaluate
from benchmarks.paper import TITLES, Row, Table, table_rows
from benchmarks.paper_plan import OPEN, plan, time_left
from benchmarks.paper_results import Found, evaluation_file, look, markdown
from benchmarks.run_once import TrainingFailed, epochs, train_once
from reid import cli
from reid.config import ConfigError, full_name, parse_override
from reid.files import write_text
from reid.inference.checkpoint import KINDS
from reid.names import MODEL_FILE, Task
from reid.progress import duration

RESULTS = Path(__file__).parent / "results"
EVALUATE: Mapping[Task, Callable[..., Any]] = {"reid": reid.evaluate.evaluate, "fgvc": fgvc.evaluate.evaluate}
CHOICE: Mapping[Task, str] = {"reid": "eval.features", "fgvc": "eval.prediction"}
# What the rows differ in, or has a flag of its own.
FIXED = ("data.dataset", "data.root", "model.method")


def run(row: Row, folder: Path, settings: Mapping[str, Any], device: str) -> None:
    """Train and evaluate a row in its folder, whatever of it is not done yet.

    Raises what the missing dataset, `train_once` and the evaluation raise.
    """
    config = row.config(settings)
    if len(epochs(folder)) < config.train.epochs:
        OPEN[row.task](config.data)  # a missing dataset is told before a training starts
    train_once(folder, row.task, row.dataset, {**row.recipe, **settings}, device)
    stored = evaluation_file(row, folder)
    if stored.exists() and stored.stat().st_mtime >= (folder / MODEL_FILE).stat().st_mtime:
        return
    options = {"data.root": settings["data.root"], "eval.batch_size": config.eval.batch_size}
    if row.branch != "both":
        options[CHOICE[row.task]] = row.branch
    evaluated = EVALUATE[row.task](folder, options, device=device)
    on_gpu = torch.cuda.is_available() and device != "cpu"
    machine = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()} CPU"
    also = {"warnings": list(evaluated.dataset.warnings), "machine": f"{machine}, torch {torch.__version__}"}
    write_text(stored, json.dumps({**evaluated.result.as_full_json(), **also}) + "\n")


def choose_rows(table: Table, patterns: Sequence[str]) -> list[Row]:
    """The table's rows that a pattern fits, all without one; raises UsageError for a pattern that fits none."""
    rows = table_rows(table)
    names = [row.name for row in rows]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise cli.UsageError(f"--rows {pattern}: no such row in table {table}; rows: {', '.join(names)}")
    return [row for row in rows if not patterns or any(fnmatch.fnmatch(row.name, p) for p in patterns)]


def read_settings(rows: Sequence[Row], arguments: argparse.Namespace) -> dict[Task, dict[str, Any]]:
    """The options of --set and --data-root for each kind of run in the table, which takes those that it has.

    Raises ConfigError for an option that none of them has, or that the table fixes.
    """
    tasks = list(dict.fromkeys(row.task for row in table_rows(arguments.table)))
    settings: dict[Task, dict[str, Any]] = {task: {} for task in tasks}
    for text in arguments.set:
        key, value = parse_override(text)
        problems = []
        for task in tasks:
            try:
                name = full_name(key, KINDS[task])
            except ConfigError as error:
                problems.append(str(error))
                continue
            if name in FIXED or (name.startswith("eval.") and name != "eval.batch_size"):
                raise ConfigError(f"--set {name}: the table fixes it")
            settings[task][name] = value
        if len(problems) == len(tasks):
            raise ConfigError(f"--set {text}: {problems[0]}")
    for row in rows:
        row.config(settings[row.task])  # an unusable value is told before anything runs
    if arguments.data_root:
        for task in tasks:
            settings[task]["data.root"] = str(arguments.data_root)
    return settings


def with_weights(row: Row, settings: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """The settings with the weights of the row's backbone in `folder`, if one is given.

    Raises FileNotFoundError where there are none.
    """
    if folder is None:
        return dict(settings)
    backbone = row.config(settings).model.backbone
    places = [folder / f"{backbone}{suffix}" for suffix in (".safetensors", ".pth", ".npz")]
    for place in places:
        if place.is_file():
            return {**settings, "model.weights": str(place)}
    raise FileNotFoundError(f"no weights in {folder}: expected {', '.join(place.name for place in places)}")


def run_rows(
    rows: Sequence[Row], settings: Mapping[Task, Mapping[str, Any]], arguments: argparse.Namespace
) -> list[Found]:
    """Run every row; those that cannot be run are told and left."""
    found: list[Found] = []
    for number, row in enumerate(rows, start=1):
        print(f"[{number}/{len(rows)}] {row.name}", file=sys.stderr)
        folder, problem = arguments.runs / row.run, None
        try:
            run(row, folder, with_weights(row, settings[row.task], arguments.weights), arguments.device)
        except (OSError, ValueError, RuntimeError) as error:
            what = "failed" if isinstance(error, TrainingFailed) else "not run"
            problem = f"{what}: {' '.join(str(error).split())}"
            print(f"  {problem}", file=sys.stderr)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on from here") from None
        one = look(row, folder)
        found.append(replace(one, problem=problem, measured=None) if problem else one)
        left = time_left([one.row for one in found], rows[number:], settings, arguments.runs)
        if left is not None:
            print(f"  {number} of {len(rows)} rows, about {duration(left)} left", file=sys.stderr)
    return found


def _command(arguments: argparse.Namespace) -> int:
    rows = choose_rows(arguments.table, arguments.rows)
    settings = read_settings(rows, arguments)
    if arguments.plan:
        print(plan(rows, settings, arguments.runs))
        return 0
    if not arguments.table_only and arguments.data_root is None:
        raise cli.UsageError("--data-root is missing: the folder that holds the datasets")
    cli.require_places(json=arguments.json)
    if arguments.table_only:
        found = [look(row, arguments.runs / row.run) for row in rows]
    else:
        found = run_rows(rows, settings, arguments)
    text = markdown(arguments.table, found)
    print(text)
    values = {"table": arguments.table, "rows": [one.as_json() for one in found]}
    places = [arguments.json] if arguments.json else []
    if arguments.results:
        arguments.results.mkdir(parents=True, exist_ok=True)
        write_text(arguments.results / f"paper-table-{arguments.table}.md", text + "\n")
        places.append(arguments.results / f"paper-table-{arguments.table}.json")
    for place in places:
        write_text(place, json.dumps(values, indent=1) + "\n")
    lacking = [one for one in found if one.measured is None]
    if lacking and not arguments.table_only:
        print(f"{len(lacking)} of {len(found)} rows are not measured", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paper_tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", required=True, choices=list(TITLES), help="1: categories; 2: re-identification")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="holds the datasets in their usual folders")
    parser.add_argument(
        "--rows", nargs="+", default=[], metavar="NAME", help="only these, e.g. msmt17-vit_base-dcal or 'cub-*'"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help="BACKBONE.safetensors, .pth or .npz instead of timm's hub"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="other options than the paper's; the table says so"
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--plan", action="store_true", help="recipes, work and likely time; run nothing")
    parser.add_argument("--table-only", action="store_true", help="print what there is; run nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything as JSON")
    parser.add_argument(
        "--results",
        type=Path,
        nargs="?",
        const=RESULTS,
        metavar="DIR",
        help="also keep table and JSON there (default: benchmarks/results)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
