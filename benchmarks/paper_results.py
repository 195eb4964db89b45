"""What the paper's tables have measured so far, read from the run folders, beside what was published."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.paper import FIGURES, TITLES, Row, Table
from benchmarks.run_once import epochs
from reid.config import Config, differences, read_config
from reid.evaluation.protocol import describe_protocol
from reid.inference.checkpoint import KINDS
from reid.names import CONFIG_FILE, Task
from reid.progress import duration

# What changes no figure.
HARMLESS = ("data.root", "data.workers", "data.strict_counts", "train.eval_every", "eval.batch_size")


@dataclass(frozen=True)
class Found:
    """What there is of a row: measured figures in percent, and what must be told beside them.

    `changed` says what of the recipe is not the paper's; `weights` is what it started from; `warnings` say what of the
    data is not the official set.
    `seconds` are those of the epochs trained so far, `problem` why the row is not measured.
    """

    row: Row
    measured: Mapping[str, float] | None = None
    protocol: Mapping[str, Any] | None = None
    machine: str | None = None
    weights: str = "imagenet"
    changed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0
    epochs: int = 0
    problem: str | None = None

    def difference(self, figure: str) -> float | None:
        """Measured less published, in percentage points; None where one of them is missing."""
        published = self.row.published[figure]
        return None if self.measured is None or published is None else self.measured[figure] - published

    @property
    def marks(self) -> str:
        """What stands behind the row's name where its figures do not compare with the paper's; `notes` says why."""
        if self.measured is None:
            return ""
        return (" \\*" if self.changed else "") + (" †" if self.warnings else "")

    def as_json(self) -> dict[str, Any]:
        """All of it, figures in percent."""
        row = self.row
        return {
            "row": row.name,
            "dataset": row.dataset,
            "backbone": row.backbone,
            "method": row.method,
            "branch": row.branch,
            "source": row.source,
            "published": dict(row.published),
            "measured": dict(self.measured) if self.measured else None,
            "difference": {figure: self.difference(figure) for figure in row.published},
            "protocol": dict(self.protocol) if self.protocol else None,
            "weights": self.weights,
            "changed": list(self.changed),
            "warnings": list(self.warnings),
            "epochs": self.epochs,
            "training_seconds": self.seconds,
            "machine": self.machine,
            "problem": self.problem,
        }


def evaluation_file(row: Row, folder: Path) -> Path:
    """Where a row's evaluation is kept, as `--json` of reid-eval and fgvc-eval writes it."""
    return folder / f"evaluation-{row.branch}.json"


def look(row: Row, folder: Path) -> Found:
    """What a row's folder holds; a folder that cannot be read is the row's problem, not an error."""
    try:
        return _look(row, folder)
    except (OSError, ValueError, KeyError) as error:
        return Found(row, problem=f"{folder} cannot be read: {' '.join(str(error).split())}")


def _look(row: Row, folder: Path) -> Found:
    records = epochs(folder)
    found = Found(row, seconds=sum(record["seconds"] for record in records), epochs=len(records))
    if not (folder / CONFIG_FILE).exists():
        return replace(found, problem="not run")
    trained = read_config(folder / CONFIG_FILE, KINDS[row.task])
    found = replace(found, weights=trained.model.weights, changed=tuple(changes(row.config(), trained)))
    stored = evaluation_file(row, folder)
    if not stored.exists():
        return replace(found, problem=f"{len(records)} of {trained.train.epochs} epochs trained")
    values = json.loads(stored.read_text())
    return replace(
        found,
        measured=percent(row.task, values),
        protocol=values["protocol"],
        machine=values["machine"],
        warnings=tuple(values["warnings"]),
    )


def percent(task: Task, values: Mapping[str, Any]) -> dict[str, float]:
    """The table's figures of an evaluation's JSON."""
    if task == "reid":
        return {"mAP": 100 * values["mAP"], "rank1": 100 * values["cmc"]["1"]}
    return {"top1": 100 * values["accuracy"][values["protocol"]["prediction"]]["top1"]}


def changes(paper: Config, trained: Config) -> Iterable[str]:
    """What of a run's options differs from the row's own, each as NAME=VALUE (instead of VALUE)."""
    one, other = paper.model_dump(mode="json"), trained.model_dump(mode="json")
    from_file = trained.model.weights != "none"  # which may hold the very weights of the hub
    for name in differences(paper, trained):
        if name not in HARMLESS and not (name == "model.weights" and from_file):
            group, _, leaf = name.partition(".")
            yield f"{name}={other[group][leaf]} (instead of {one[group][leaf]})"


def markdown(table: Table, rows: Sequence[Found]) -> str:
    """The whole answer: a table for each kind of run, and what must be known to read it."""
    parts = [f"# {TITLES[table]}"]
    for task, figures in FIGURES.items():
        own = [found for found in rows if found.row.task == task]
        if own:
            parts.append("\n".join(lines(own, figures)))
    parts.append("\n".join(f"- {note}" for note in notes(rows)))
    return "\n\n".join(parts)


def lines(rows: Sequence[Found], figures: Mapping[str, str]) -> Iterable[str]:
    """A table: a line for each row, measured and published figures and their difference."""
    several = len({found.row.source for found in rows}) > 1
    columns = [text for name in figures.values() for text in (name, "published", "difference")]
    columns = ["row", *(["in the paper"] if several else []), *columns, "protocol", "training"]
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---' for _ in columns)} |"
    for found in rows:
        cells = [f"{found.row.name}{found.marks}"]
        cells += [found.row.source] if several else []
        for figure in figures:
            published, difference = found.row.published[figure], found.difference(figure)
            cells += [
                f"{found.measured[figure]:.1f}" if found.measured else "",
                "not verified" if published is None else f"{published:.1f}",
                "" if difference is None else f"{difference:+.1f}",
            ]
        cells.append(first_clause(found.problem) if found.problem else short_protocol(found.protocol or {}))
        cells.append(duration(found.seconds) if found.seconds else "")
        yield f"| {' | '.join(cells)} |"


def first_clause(problem: str) -> str:
    """A problem short enough for a cell; it was told whole when it arose."""
    return problem.split("; ")[0].replace("|", "/")


def short_protocol(protocol: Mapping[str, Any]) -> str:
    """What may differ from row to row."""
    names = ("version", "split", "level", "features", "prediction")
    return ", ".join(str(protocol[name]) for name in names if protocol.get(name))


def notes(rows: Sequence[Found]) -> Iterable[str]:
    """What is not the paper's, protocols in full, machines, and where the published figures are from."""
    measured = [found for found in rows if found.measured]
    together: dict[str, list[str]] = defaultdict(list)
    for found in measured:
        if found.changed:
            together[", ".join(found.changed)].append(found.row.name)
    for changed, names in together.items():
        whose = "all rows" if len(names) == len(measured) else ", ".join(names)
        yield f"\\* **Not the paper's recipe** ({whose}): {changed}."
    for warning in dict.fromkeys(warning for found in measured for warning in found.warnings):
        yield f"† **Not the official data**: {warning}."
    files = dict.fromkeys(found.weights for found in measured if found.weights not in ("imagenet", "none"))
    if files:
        yield f"Pretrained weights from files instead of timm's hub: {', '.join(files)}."
    common: dict[str, None] = {}
    for found in measured:
        rest = {k: v for k, v in (found.protocol or {}).items() if k not in ("features", "prediction")}
        common[describe_protocol(rest)] = None
    for protocol in common:
        yield f"Protocol: {protocol}."
    machines = "; ".join(dict.fromkeys(str(found.machine) for found in measured))
    if machines:
        yield f"Training: time of the epochs, on {machines}; one seed a row."
    yield (
        "Published: Zhu et al., CVPR 2022 (arXiv 2205.02151), read in transcriptions that benchmarks/paper.py names; "
        "differences are in percentage points."
    )
