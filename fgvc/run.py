"""Evaluating a classifier: what is asked for, then probabilities, then the result.

What cannot be done is refused before torch, which takes seconds, is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.datasets import FgvcDataset, open_dataset
from fgvc.metrics import Floats
from fgvc.scoring import Result, result_protocol, score, test_labels
from reid.config import FgvcConfig, evaluation_config
from reid.distributed.world import ALONE, World
from reid.files import model_file
from reid.inference.checkpoint import Checkpoint, read_checkpoint
from reid.names import Prediction

if TYPE_CHECKING:
    from reid.inference.classifier import Classifier


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A result with what it was made of."""

    result: Result
    dataset: FgvcDataset
    classifier: "Classifier"
    checkpoint: Checkpoint[FgvcConfig]


@dataclass(frozen=True, eq=False)
class Classified:
    """A dataset's test images as a classifier sees them: probabilities (n, C) by prediction."""

    probabilities: Mapping[Prediction, Floats]
    dataset: FgvcDataset
    classifier: "Classifier"
    checkpoint: Checkpoint[FgvcConfig]


def evaluate(checkpoint: Path | str, overrides: Mapping[str, Any] | None = None, *, device: str = "auto") -> Evaluated:
    """Evaluate a run folder or model file on the test images it was trained beside, or on those that overrides name.

    `overrides` are options of the groups `data` and `eval`. Another dataset needs its own root, and has classes of the
    same names. Raises ConfigError for unusable options, and what reading the checkpoint, the dataset or an image
    raises.
    """
    return judge(classify(checkpoint, overrides, device=device))


def classify(
    checkpoint: Path | str,
    overrides: Mapping[str, Any] | None = None,
    *,
    device: str = "auto",
    world: World = ALONE,
) -> Classified:
    """Classify the images that `evaluate` is asked for; errors as there.

    The work is shared out over the processes of `world`; the main one has all probabilities, the others none.
    """
    file = model_file(checkpoint)
    described = read_checkpoint(file, FgvcConfig)
    config = evaluation_config(described.config, overrides or {})
    dataset = world.on_main(lambda: open_dataset(config.data, ("test",)))
    test_labels(dataset, described.classes)  # refused before the work
    from reid.device import choose_device
    from reid.inference.classifier import Classifier
    from reid.inference.predictor import open_model

    chosen = choose_device(device, world.local_rank)
    model, _ = open_model(file, FgvcConfig, chosen)
    classifier = Classifier.of_model(model, replace(described, config=config), chosen)
    probabilities = classifier.classify_samples(dataset.test, workers=config.data.workers, world=world)
    return Classified(probabilities, dataset, classifier, described)


def judge(classified: Classified) -> Evaluated:
    """Score what is classified, as `evaluate` does."""
    dataset, classifier, trained = classified.dataset, classified.classifier, classified.checkpoint
    protocol = result_protocol(dataset, trained.protocol, classifier)
    result = score(classified.probabilities, dataset, trained.classes, protocol)
    return Evaluated(result, dataset, classifier, trained)
