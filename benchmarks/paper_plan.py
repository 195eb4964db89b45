"""What the paper's tables would take, and how long their rows still will, by counted operations."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import fgvc.datasets
import reid.data.datasets
import reid.data.official
from benchmarks.paper import TITLES, Row, table_rows
from benchmarks.run_once import epochs
from reid.config import Config, ModelOptions
from reid.models.dcal import build_dcal
from reid.models.options import DcalOptions
from reid.names import Task

OPEN: Mapping[Task, Callable[[Any], Any]] = {
    "reid": reid.data.datasets.open_dataset,
    "fgvc": fgvc.datasets.open_dataset,
}
# Hours of one V100 that the paper states for a training (section 4.1): 9.5 hours, and 3.8 hours on four.
STATED_HOURS: Mapping[Task, tuple[str, float]] = {
    "reid": ("msmt17-vit_base-dcal", 9.5),
    "fgvc": ("cub-deit_tiny-dcal", 4 * 3.8),
}
STEP_COST = 3  # the operations of a training step over those of its forward pass


def plan(rows: Sequence[Row], settings: Mapping[Task, Mapping[str, Any]], runs: Path) -> str:
    """Recipe, work and likely time of each training, and how far it is; nothing is run."""
    columns = ("training", "pixels", "batch", "epochs", "steps", "optimiser", "PFLOP", "V100 hours", "done", "data")
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    data: dict[str, str] = {}
    total = 0.0
    for row in {row.run: row for row in rows}.values():
        config = row.config(settings[row.task])
        if row.dataset not in data:
            data[row.dataset] = describe_data(config)
        work = operations(row, config)
        hours = work / v100_rate(row.task)
        total += hours
        steps = config.train.epochs * (official_images(row, config) // config.train.batch_size)
        cells = [row.run, "x".join(map(str, config.data.image_size)), config.train.batch_size, config.train.epochs]
        cells += [f"{steps:,}", f"{config.train.optimizer} {config.train.lr:g}", f"{work / 1e15:,.0f}", f"{hours:.1f}"]
        cells += [len(epochs(runs / row.run)), data[row.dataset]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    stated = " and ".join(f"{hours:g} for {name}" for name, hours in STATED_HOURS.values())
    return "\n".join(lines) + (
        f"\n\nIn all about {total:,.0f} hours of one V100, scaled by operations from the two times that the paper "
        f"states ({stated}), for complete datasets; larger backbones than these use a card better. While rows run, the "
        "time left is told by what those before took."
    )


def describe_data(config: Config) -> str:
    """Whether the dataset is there and whole."""
    if config.data.root is None:
        return "not looked for"
    try:
        return "; ".join(OPEN[config.task](config.data).warnings) or "complete"
    except (OSError, ValueError) as error:
        return f"missing: {str(error).split(';')[0]}"


def time_left(
    done: Sequence[Row], rest: Sequence[Row], settings: Mapping[Task, Mapping[str, Any]], runs: Path
) -> float | None:
    """Seconds that the trainings of `rest` will take, by what those of `done` took; None where that is unknown."""
    speeds = {}
    for row in done:
        records = epochs(runs / row.run)
        if records:
            speeds[row.run] = (
                sum(record["seconds"] for record in records) / epoch_operations(row, settings) / len(records)
            )
    if not speeds:
        return None
    left = 0.0
    for row in {row.run: row for row in rest if row.run not in speeds}.values():
        lacking = row.config(settings[row.task]).train.epochs - len(epochs(runs / row.run))
        left += lacking * epoch_operations(row, settings)
    return left * sum(speeds.values()) / len(speeds)


def epoch_operations(row: Row, settings: Mapping[Task, Mapping[str, Any]]) -> float:
    """Floating-point operations of one epoch of a row under settings."""
    config = row.config(settings[row.task])
    return operations(row, config) / config.train.epochs


def operations(row: Row, config: Config) -> float:
    """Floating-point operations of a training on the complete dataset, about; a multiply-add counts as two."""
    forward = forward_operations(config.task, config.model, config.data.image_size)
    return STEP_COST * forward * official_images(row, config) * config.train.epochs


def official_images(row: Row, config: Config) -> int:
    """Training images of a complete copy of the row's dataset."""
    data = config.data
    if row.task == "fgvc":
        level = data.level or ("variant" if row.dataset == "aircraft" else None)
        return fgvc.datasets.OFFICIAL_COUNTS[row.dataset, level][0]["train"]
    return reid.data.official.OFFICIAL_COUNTS[row.dataset, data.version][data.train_split or "train"][0]


@cache
def forward_operations(task: Task, options: ModelOptions, size: tuple[int, int]) -> float:
    """Operations of a training step's forward pass for one image, counted on tensors without content."""
    with torch.device("meta"):
        model, _ = build_dcal(
            options.backbone, size, 100, DcalOptions(method=options.method, head=task, ratio=options.ratio)
        )
    # Not on the meta device as well, which knows no autocast.
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to_empty(device="cpu").train()
        model(torch.empty(2, 3, *size), torch.tensor([1, 0]))
    return counter.get_total_flops() / 2


@cache
def v100_rate(task: Task) -> float:
    """Operations an hour, from the time that the paper states for one of its trainings."""
    name, hours = STATED_HOURS[task]
    row = next(row for table in TITLES for row in table_rows(table) if row.run == name)
    return operations(row, row.config()) / hours
