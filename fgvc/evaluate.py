"""Command `fgvc-eval`: a classifier to top-1 and top-5 accuracy, by branch and class, with the protocol beside them."""

import argparse
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.datasets import DATASETS, FgvcDataset, load_dataset
from fgvc.metrics import Floats
from fgvc.scoring import Result, result_protocol, score, test_labels
from reid import cli
from reid.config import FgvcConfig, FgvcDataOptions, load_config, override, parse_override
from reid.data.loaders import without_unreadable
from reid.device import choose_device, choose_precision
from reid.distributed import ALONE, World, joined
from reid.evaluate import evaluation_overrides, require_places, write_json
from reid.inference.checkpoint import Checkpoint
from reid.inference.classifier import Classifier
from reid.inference.predictor import open_model
from reid.models.dcal import Prediction

log = logging.getLogger("reid")


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A result with what it was made of."""

    result: Result
    dataset: FgvcDataset
    classifier: Classifier


def open_dataset(options: FgvcDataOptions) -> FgvcDataset:
    """Load the dataset that the options name; log its counts and warnings.

    Raises ValueError or FileNotFoundError as the reader of the dataset does, or for one that is given no root.
    """
    if options.root is None and options.dataset in DATASETS:
        raise cli.UsageError(f"dataset {options.dataset!r} needs --data-root, the folder that holds it")
    dataset = load_dataset(
        options.dataset, Path(options.root or ""), level=options.level, strict_counts=options.strict_counts
    )
    if options.on_error == "skip":
        dataset = without_unreadable(dataset)
    for warning in dataset.warnings:
        log.warning("warning: %s", warning)
    counts = ", ".join(f"{name} {count.images} images of {count.identities}" for name, count in dataset.counts.items())
    log.info("%s: %s classes", dataset.name, counts)
    return dataset


# What an evaluation may change of the data; how images are prepared belongs to the model.
DATA_OPTIONS = ("dataset", "root", "level", "strict_counts", "on_error", "workers")


@dataclass(frozen=True, eq=False)
class Classified:
    """A dataset's test images as a classifier sees them: probabilities (n, C) by prediction."""

    probabilities: Mapping[Prediction, Floats]
    dataset: FgvcDataset
    classifier: Classifier
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
    chosen = choose_device(device, world.local_rank)
    model, described = open_model(checkpoint, FgvcConfig, chosen)
    config = evaluation_config(described.config, overrides or {})
    classifier = Classifier(
        model,
        described.preprocessing,
        described.classes,
        prediction=config.eval.prediction,
        device=chosen,
        batch_size=config.eval.batch_size,
        precision=choose_precision(config.train.precision, chosen),
    )
    dataset = world.on_main(lambda: open_dataset(config.data))
    test_labels(dataset, described.classes)  # refused before the work
    probabilities = classifier.classify_samples(dataset.test, workers=config.data.workers, world=world)
    return Classified(probabilities, dataset, classifier, described)


def judge(classified: Classified) -> Evaluated:
    """Score what is classified, as `evaluate` does."""
    dataset, classifier, trained = classified.dataset, classified.classifier, classified.checkpoint
    protocol = result_protocol(dataset, trained.protocol, classifier)
    return Evaluated(score(classified.probabilities, dataset, trained.classes, protocol), dataset, classifier)


def evaluation_config(trained: FgvcConfig, overrides: Mapping[str, Any]) -> FgvcConfig:
    """The options of an evaluation; raises ConfigError for one that only a training may change."""
    named = evaluation_overrides(overrides, FgvcConfig, DATA_OPTIONS)
    other = named.get("data.dataset", trained.data.dataset)
    if other != trained.data.dataset:
        trained = trained.model_copy(update={"data": load_config(other, kind=FgvcConfig).data})
    return override(trained, named)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fgvc-eval",
        description="Evaluate a classifier of fine-grained categories: top-1 and top-5 accuracy of the self-attention "
        "branch (SA), of the global-local branch (GLCA) and of the sum of their probabilities, accuracy by class, and "
        "which classes are taken for which.",
        epilog="KEY=VALUE sets any option of the groups data and eval, for example prediction=sa, on_error=skip or "
        "batch_size=32.",
    )
    parser.add_argument(
        "--checkpoint", metavar="RUN", required=True, help="a run folder of fgvc-train, its model file or its export"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="evaluate on this set, of the same classes (default: the one trained on)"
    )
    parser.add_argument("--data-root", metavar="DIR", help="the folder that holds the dataset, or one above it")
    parser.add_argument("--json", metavar="FILE", help="write all figures as JSON; - is standard output")
    parser.add_argument(
        "--report", metavar="DIR", type=Path, help="write index.html, a report that opens from disk, and its figures"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="options of data and eval")
    return parser


def _command(arguments: argparse.Namespace) -> None:
    with joined(arguments.device) as world:
        overrides = world.on_main(lambda: _overrides(arguments))
        classified = classify(arguments.checkpoint, overrides, device=arguments.device, world=world)
        world.on_main(lambda: _keep(arguments, judge(classified)))


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    require_places(arguments.report, json=arguments.json)
    flags = {"data.dataset": arguments.dataset, "data.root": arguments.data_root}
    overrides = {name: value for name, value in flags.items() if value is not None}
    return overrides | dict(parse_override(text) for text in arguments.options)


def _keep(arguments: argparse.Namespace, evaluated: Evaluated) -> None:
    """Print the result, unless the JSON is what is printed, and write what was asked for."""
    result = evaluated.result
    if arguments.json != "-":
        print(result)
    if arguments.json:
        write_json(arguments.json, result.as_full_json())
    if arguments.report:
        from fgvc.report import write_report  # matplotlib takes a second to import

        page = write_report(arguments.report, result, evaluated.dataset, evaluated.classifier)
        log.info("report: %s", page)


def main(argv: list[str] | None = None) -> int:
    """Run `fgvc-eval`; returns its exit code."""
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
