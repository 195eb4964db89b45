"""Evaluating a checkpoint or stored features: what is asked for, then embeddings, then the result.

What cannot be done is refused before torch, which takes seconds, is imported.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid.config import ConfigError, EvalOptions, ReidConfig, ReidDataOptions, evaluation_config, full_name, override
from reid.data.datasets import open_dataset
from reid.data.samples import ReidDataset
from reid.distributed.world import ALONE, World
from reid.evaluation.features import SPLITS, Features, label_rows
from reid.evaluation.readiness import require_scorable
from reid.inference.checkpoint import Checkpoint, read_checkpoint
from reid.inference.pretrained import ModelSource, Pretrained, require_model

if TYPE_CHECKING:
    from reid.evaluation.scoring import Result
    from reid.inference.embedder import Embedder
    from reid.retrieval.distances import Distances


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A result with what it was made of; the last three are None for stored features."""

    result: "Result"
    features: Features
    distances: "Distances"
    options: EvalOptions
    dataset: ReidDataset | None = None
    embedder: "Embedder | None" = None
    checkpoint: Checkpoint[ReidConfig] | None = None


@dataclass(frozen=True, eq=False)
class Embedded:
    """A dataset's query and gallery, embedded by a model, and how they are to be evaluated."""

    features: Features
    dataset: ReidDataset
    embedder: "Embedder"
    checkpoint: Checkpoint[ReidConfig]
    options: EvalOptions


def evaluate(
    checkpoint: ModelSource,
    overrides: Mapping[str, Any] | None = None,
    *,
    device: str = "auto",
    verification: bool = False,
) -> Evaluated:
    """Evaluate a run folder, model file or export on the data and by the protocol of its training unless overridden.

    A `Pretrained` model, which has no data of its own, needs `data.dataset`. `overrides` are options of the groups
    `data` and `eval`. Another dataset starts from that dataset's own options.
    `verification` also measures how well scores tell known from unknown. Raises ConfigError for unusable options, and
    what reading the checkpoint, the dataset or an image raises.
    """
    return judge(embed(checkpoint, overrides, device=device), verification=verification)


def embed(
    checkpoint: ModelSource,
    overrides: Mapping[str, Any] | None = None,
    *,
    device: str = "auto",
    world: World = ALONE,
) -> Embedded:
    """Embed the data that `evaluate` is asked for; errors as there.

    The work is shared out over the processes of `world`; the main one has all features, the others none.
    """
    require_model(checkpoint)
    described = checkpoint if isinstance(checkpoint, Pretrained) else read_checkpoint(checkpoint, ReidConfig)
    config = evaluation_config(described.config, overrides or {})
    if not config.data.dataset:
        raise ConfigError(f"{checkpoint} was trained on no dataset of ours; --dataset NAME says what to evaluate it on")

    def look() -> tuple[ReidDataset, Features]:
        dataset = open_dataset(config.data, SPLITS)
        rows = label_rows(dataset)
        require_scorable(rows, config.eval, dataset.identity_name, dataset.camera_name)
        return dataset, rows

    dataset, rows = world.on_main(look)
    from reid.device import choose_device
    from reid.evaluation.scoring import extract
    from reid.inference.embedder import Embedder
    from reid.inference.predictor import open_model

    chosen = choose_device(device, world.local_rank)
    model, trained = open_model(checkpoint, ReidConfig, chosen)
    embedder = Embedder.of_model(model, replace(trained, config=config), chosen)
    features = extract(embedder, dataset, config.data.workers, world, rows)
    return Embedded(features, dataset, embedder, trained, config.eval)


def judge(embedded: Embedded, *, verification: bool = False) -> Evaluated:
    """Rank and score what is embedded, as `evaluate` does."""
    from reid.evaluation.scoring import data_protocol, embedding_protocol, rank, score

    features, dataset, embedder = embedded.features, embedded.dataset, embedded.embedder
    distances = rank(features, embedded.options, str(embedder.device))
    protocol = {**data_protocol(dataset), **embedding_protocol(embedded.checkpoint.protocol, embedder)}
    result = score(features, distances, embedded.options, protocol, verification=verification)
    return Evaluated(result, features, distances, embedded.options, dataset, embedder, embedded.checkpoint)


def evaluate_stored(
    path: Path, overrides: Mapping[str, Any] | None = None, *, device: str = "auto", verification: bool = False
) -> Evaluated:
    """Evaluate a features file (`Features.load`) by options of the group `eval`; no model and no image is needed.

    Raises ConfigError for an option that needs one of them, ValueError naming the file for features that are refused.
    """
    options = stored_options(overrides or {})
    features = Features.load(path)
    name = os.fsencode(path.name).decode("utf-8", "replace")
    protocol = {"dataset": name, "version": None, "split": None, "features": "stored"}
    from reid.device import choose_device
    from reid.evaluation.scoring import rank, score

    try:
        require_scorable(features, options)
        distances = rank(features, options, str(choose_device(device)))
        result = score(features, distances, options, protocol, verification=verification)
    except ValueError as error:
        raise ValueError(f"features {path}: {error}") from error
    return Evaluated(result, features, distances, options)


OF_THE_MODEL = ("features", "flip_test", "batch_size")


def stored_options(overrides: Mapping[str, Any]) -> EvalOptions:
    """The options for scoring stored features; raises ConfigError for one that needs a model or images."""
    named = {full_name(key, group="eval"): value for key, value in overrides.items()}
    foreign = [name for name in named if not name.startswith("eval.") or name.split(".")[1] in OF_THE_MODEL]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)}: needs a model or images; of stored features, an evaluation can change eval.* "
            f"except {', '.join(OF_THE_MODEL)}"
        )
    return override(ReidConfig(data=ReidDataOptions(dataset="features")), named).eval
