"""What runs have written of their training so far: their options, and a record for each epoch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid.config import Config, read_any_config
from reid.names import CONFIG_FILE, METRICS_FILE
from reid.report.tables import Share


@dataclass(frozen=True)
class History:
    """A run that may be in progress: its records, as in metrics.jsonl, the last one of its latest whole epoch."""

    name: str
    config: Config
    records: tuple[Mapping[str, Any], ...]

    @property
    def epoch(self) -> int:
        """How many epochs have ended."""
        return int(self.records[-1]["epoch"])

    @property
    def epochs(self) -> int | None:
        """How many it is to have; None where that was left to the images and the run is an earlier one."""
        found: int | None = self.records[-1].get("epochs", self.config.train.epochs)
        return found

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches that have a loss."""
        return tuple(self.records[0]["losses"])

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of a branch's loss."""
        return tuple(dict.fromkeys(part for parts in self.records[0]["losses"].values() for part in parts))

    def evaluations(self) -> dict[str, dict[int, Share]]:
        """Every figure of the evaluations by its name, and by the epoch after which it was measured."""
        found: dict[str, dict[int, Share]] = {}
        for record in self.records:
            for name, share in measures(record.get("evaluation") or {}).items():
                # A run that held identities out scores its test images once, with the weights of the epoch it keeps.
                found.setdefault(name, {})[int(record.get("kept", record["epoch"]))] = share
        return found

    @property
    def held_out(self) -> dict[int, float]:
        """The scores on identities held out of training, by epoch; epoch 0 is the weights that it started from."""
        scores: dict[int, float] = {}
        for record in self.records:
            if "held_out" in record:
                scores.setdefault(0, float(record["held_out"]["frozen"]))
                scores[int(record["epoch"])] = float(record["held_out"]["score"])
        return scores

    @property
    def kept(self) -> int | None:
        """The epoch that the scores on identities held out chose, once the training has ended."""
        found: int | None = self.records[-1].get("kept")
        return found

    @property
    def frozen(self) -> float | None:
        """The first figure of the weights that the training started from, in [0, 1]."""
        return next((record["frozen"] for record in self.records if "frozen" in record), None)


def measures(evaluation: Mapping[str, Any]) -> dict[str, Share]:
    """The figures of an evaluation, of either task, that are shown over the epochs, the one that decides first."""
    ends = evaluation.get("intervals_95") or {}
    if "mAP" in evaluation:
        ranks = {f"Rank-{k}": (evaluation["cmc"][k], (ends.get("cmc") or {}).get(k)) for k in ("1", "5")}
        shown = {"mAP": (evaluation["mAP"], ends.get("mAP")), **ranks, "mINP": (evaluation["mINP"], ends.get("mINP"))}
    elif "accuracy" in evaluation:
        chosen = evaluation["protocol"]["prediction"]
        tops, known = evaluation["accuracy"][chosen], (ends.get("accuracy") or {}).get(chosen) or {}
        shown = {name.replace("top", "Top-"): (share, known.get(name)) for name, share in tops.items()}
        shown["Mean over classes"] = evaluation["mean_class_accuracy"], ends.get("mean_class_accuracy")
    else:
        shown = {}
    return {name: Share(share, *(between or ())) for name, (share, between) in shown.items()}


def read_histories(folders: Sequence[Path]) -> tuple[History, ...]:
    """The histories of run folders, by the names of these, or by their paths where two have one name.

    Raises FileNotFoundError for a folder that holds no run or none that has ended an epoch, ValueError for one whose
    records are damaged, and ConfigError for options that cannot be read.
    """
    names = [folder.resolve().name for folder in folders]
    return tuple(
        _read(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    )


def _read(folder: Path, name: str) -> History:
    if not (folder / CONFIG_FILE).is_file():
        reason = f"no {CONFIG_FILE} in this folder" if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"run {folder}: {reason}; expected the --output of reid-train or fgvc-train")
    config, log = read_any_config(folder / CONFIG_FILE), folder / METRICS_FILE
    if not log.is_file():
        raise FileNotFoundError(f"run {folder}: none of its epochs has ended yet, so there is no {METRICS_FILE}")
    try:
        records = tuple(json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
        for record in records:
            if wanted := {"epoch", "loss", "losses", "log_variances", "lr"} - set(record):
                raise ValueError(f"no {', '.join(sorted(wanted))} in a line")
            measures(record.get("evaluation") or {})
            [float(record["held_out"][name]) for name in ("score", "frozen") if "held_out" in record]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"run {folder}: {METRICS_FILE} is damaged ({type(error).__name__}: {error})") from error
    if not records:
        raise ValueError(f"run {folder}: {METRICS_FILE} is empty")
    return History(name, config, records)
