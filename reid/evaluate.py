"""Command `reid-eval`: a checkpoint, or stored features, to mAP, Rank-k and mINP with the protocol beside them."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from reid import cli, compare
from reid.config import (
    Config,
    ConfigError,
    EvalOptions,
    ReidConfig,
    ReidDataOptions,
    full_name,
    load_config,
    override,
    parse_override,
)
from reid.data.datasets import DATASETS, choose_protocol, load_dataset
from reid.data.loaders import without_unreadable
from reid.data.samples import ReidDataset
from reid.data.synthetic import generate
from reid.data.tables import parse_columns
from reid.device import choose_device, choose_precision
from reid.distributed import ALONE, World, joined
from reid.evaluation.calibrate import calibrate, load_calibration
from reid.evaluation.features import Features
from reid.evaluation.scoring import Result, data_protocol, embedding_protocol, extract, rank, score
from reid.inference.checkpoint import Checkpoint, write_text
from reid.inference.embedder import Embedder
from reid.inference.predictor import open_model
from reid.retrieval.calibration import Calibration
from reid.retrieval.distances import Distances

log = logging.getLogger("reid")

TOY_ROOT = "data/toy"


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A result with what it was made of; the last three are None for stored features."""

    result: Result
    features: Features
    distances: Distances
    options: EvalOptions
    dataset: ReidDataset | None = None
    embedder: Embedder | None = None
    checkpoint: Checkpoint[ReidConfig] | None = None


def open_dataset(options: ReidDataOptions) -> ReidDataset:
    """Load the dataset that the options name, generating the toy one; log its counts and warnings.

    Raises ValueError or FileNotFoundError as the reader of the dataset does, or for a dataset that needs a root.
    """
    root = options.root
    if options.dataset == "toy":
        root = str(generate(Path(root or TOY_ROOT)))
    if root is None and options.dataset in DATASETS:
        raise cli.UsageError(f"dataset {options.dataset!r} needs --data-root, the folder or file that holds it")
    dataset = load_dataset(
        options.dataset,
        Path(root or ""),
        version=options.version,
        train_split=options.train_split,
        strict_counts=options.strict_counts,
        columns=parse_columns(options.columns),
    )
    if dataset.understood:
        log.info("%s", dataset.understood)
    if options.on_error == "skip":
        dataset = without_unreadable(dataset)
    for warning in dataset.warnings:
        log.warning("warning: %s", warning)
    counts = ", ".join(
        f"{name} {count.images} images of {count.identities} identities" for name, count in dataset.counts.items()
    )
    log.info("%s: %s", dataset.name, counts)
    return dataset


@dataclass(frozen=True, eq=False)
class Embedded:
    """A dataset's query and gallery, embedded by a model, and how they are to be evaluated."""

    features: Features
    dataset: ReidDataset
    embedder: Embedder
    checkpoint: Checkpoint[ReidConfig]
    options: EvalOptions


def evaluate(
    checkpoint: Path | str,
    overrides: Mapping[str, Any] | None = None,
    *,
    device: str = "auto",
    verification: bool = False,
) -> Evaluated:
    """Evaluate a run folder, model file or export on the data and by the protocol of its training unless overridden.

    `overrides` are options of the groups `data` and `eval`. Another dataset starts from that dataset's own options.
    `verification` also measures how well scores tell known from unknown. Raises ConfigError for unusable options, and
    what reading the checkpoint, the dataset or an image raises.
    """
    return judge(embed(checkpoint, overrides, device=device), verification=verification)


def embed(
    checkpoint: Path | str,
    overrides: Mapping[str, Any] | None = None,
    *,
    device: str = "auto",
    world: World = ALONE,
) -> Embedded:
    """Embed the data that `evaluate` is asked for; errors as there.

    The work is shared out over the processes of `world`; the main one has all features, the others none.
    """
    chosen = choose_device(device, world.local_rank)
    model, described = open_model(checkpoint, ReidConfig, chosen)
    config = evaluation_config(described.config, overrides or {})
    embedder = Embedder(
        model,
        described.preprocessing,
        features=config.eval.features,
        flip_test=config.eval.flip_test,
        device=chosen,
        batch_size=config.eval.batch_size,
        precision=choose_precision(config.train.precision, chosen),
        sides=described.sides,
    )
    dataset = world.on_main(lambda: open_dataset(config.data))
    features = extract(embedder, dataset, config.data.workers, world)
    return Embedded(features, dataset, embedder, described, config.eval)


def judge(embedded: Embedded, *, verification: bool = False) -> Evaluated:
    """Rank and score what is embedded, as `evaluate` does."""
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
    try:
        distances = rank(features, options, str(choose_device(device)))
        result = score(features, distances, options, protocol, verification=verification)
    except ValueError as error:
        raise ValueError(f"features {path}: {error}") from error
    return Evaluated(result, features, distances, options)


# What an evaluation may change of the data; how images are prepared belongs to the model.
DATA_OPTIONS = ("dataset", "root", "version", "train_split", "columns", "strict_counts", "on_error", "workers")


def evaluation_config(trained: ReidConfig, overrides: Mapping[str, Any]) -> ReidConfig:
    """The options of an evaluation; raises ConfigError for one that only a training may change.

    Another dataset than the one trained on brings its own recipe's data and protocol options.
    """
    named = evaluation_overrides(overrides, ReidConfig, DATA_OPTIONS)
    other = named.get("data.dataset", trained.data.dataset)
    if other != trained.data.dataset:
        recipe = load_config(other)
        how = {"gallery": recipe.eval.gallery, "draws": recipe.eval.draws}
        trained = trained.model_copy(update={"data": recipe.data, "eval": trained.eval.model_copy(update=how)})
    return override(trained, named)


def evaluation_overrides(
    overrides: Mapping[str, Any], kind: type[Config], data_options: Sequence[str]
) -> dict[str, Any]:
    """Overrides by their dotted names; raises ConfigError for one that is not of `eval` nor one of `data_options`."""
    named = {full_name(key, kind, "eval"): value for key, value in overrides.items()}
    allowed = {f"data.{name}" for name in data_options}
    foreign = [name for name in named if name not in allowed and not name.startswith("eval.")]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)}: fixed by the training; an evaluation can change eval.* and "
            f"data.{{{','.join(data_options)}}}"
        )
    return named


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


OF_THE_MODEL = ("features", "flip_test", "batch_size")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reid-eval",
        description="Evaluate a trained model, or stored features, by the field's protocol: mAP, Rank-k and mINP. "
        "Gallery images with the query's identity and camera are not counted (junk=camera), nor those of its sequence "
        "(junk=sequence), unless junk=none. `reid-eval compare A.json B.json` tells a difference from noise.",
        epilog="KEY=VALUE sets any option of the groups data and eval, for example junk=none, ap=trapezoid, "
        "gallery=single, flip_test=true, query_expansion=5, rerank_k1=30, version=v2 or on_error=skip.",
    )
    parser.add_argument("--checkpoint", metavar="RUN", help="a run folder of reid-train, its model file or its export")
    parser.add_argument(
        "--from-features",
        metavar="FILE.npz",
        type=Path,
        help="score stored features instead, a file or a folder of .npy; needs no model",
    )
    parser.add_argument(
        "--dataset",
        metavar="NAME[:VERSION]",
        action="append",
        default=[],
        help="evaluate on this set (default: the one it was trained on); given several times, on each",
    )
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        action="append",
        default=[],
        help="the folder, or CSV file, that holds the dataset; once for each --dataset, in their order",
    )
    parser.add_argument("--columns", metavar="NAME=HEADING,...", help="headings of the CSV file, as path=image_path")
    parser.add_argument(
        "--features", choices=["concat", "sa", "glca"], help="tokens of the embedding (default: concat)"
    )
    parser.add_argument(
        "--rerank",
        nargs="?",
        const="zhong",
        type=_preset,
        metavar="PRESET",
        help="k-reciprocal re-ranking: zhong (k1=20 k2=6 lambda=0.3, the default) or transreid (50, 15, 0.3)",
    )
    parser.add_argument(
        "--verification",
        action="store_true",
        help="also tell how well scores separate: TPR at FPR, equal error rate, unknown queries rejected",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit scores to probabilities on these identities, and write calibration.json beside the checkpoint",
    )
    parser.add_argument("--json", metavar="FILE", help="write the metrics as JSON; - is standard output")
    parser.add_argument(
        "--report", metavar="DIR", type=Path, help="write index.html, a report that opens from disk, and its figures"
    )
    parser.add_argument(
        "--save-features", metavar="FILE.npz", type=Path, help="write the embeddings with identities and cameras"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="options of data and eval")
    return parser


def _preset(text: str) -> str:
    if text not in ("zhong", "transreid"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no preset; expected zhong or transreid (before KEY=VALUE, write --rerank zhong)"
        )
    return text


def _command(arguments: argparse.Namespace) -> None:
    evaluations: list[Evaluated] = []
    with joined(arguments.device) as world:
        sets = world.on_main(lambda: _asked(arguments))
        try:
            for overrides in sets:
                evaluations += _evaluate_one(arguments, overrides, world)
        finally:  # what is evaluated is not lost to what fails after it
            if evaluations and arguments.json:
                values = [evaluated.result.as_full_json() for evaluated in evaluations]
                write_json(arguments.json, values[0] if len(values) == 1 else values)
        world.on_main(lambda: _keep(arguments, evaluations))


def _asked(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The options of each evaluation; raises before the work what would make it worthless."""
    if (arguments.checkpoint is None) == (arguments.from_features is None):
        raise cli.UsageError("give either --checkpoint RUN or --from-features FILE.npz")
    if arguments.calibrate and arguments.from_features:
        raise cli.UsageError("--calibrate writes beside a checkpoint; give --checkpoint RUN")
    flags = {"eval.features": arguments.features, "eval.rerank": arguments.rerank, "data.columns": arguments.columns}
    overrides = {name: value for name, value in flags.items() if value is not None}
    overrides |= dict(parse_override(text) for text in arguments.options)
    sets = _datasets(arguments.dataset, arguments.data_root)
    if len(sets) > 1 and (arguments.save_features or arguments.calibrate):
        raise cli.UsageError(f"--save-features and --calibrate take one dataset, given {len(sets)}")
    require_places(arguments.report, json=arguments.json, save_features=arguments.save_features)
    return [{**overrides, **chosen} for chosen in sets]


def _keep(arguments: argparse.Namespace, evaluations: Sequence[Evaluated]) -> None:
    """Write what else was asked for."""
    calibration: Calibration | None = None
    for index, evaluated in enumerate(evaluations, start=1):
        if arguments.save_features:
            evaluated.features.save(arguments.save_features)
        if arguments.calibrate:
            assert evaluated.dataset is not None and evaluated.checkpoint is not None
            calibration = calibrate(
                arguments.checkpoint,
                evaluated.checkpoint,
                evaluated.result,
                evaluated.features,
                evaluated.dataset,
                evaluated.options.false_alarm,
            )
        if arguments.report:
            name = f"{index}-{evaluated.result.protocol['dataset']}" if len(evaluations) > 1 else ""
            _report(arguments.report / name, arguments.checkpoint, evaluated, calibration)


def require_places(report: Path | None = None, **files: str | Path | None) -> None:
    """Refuse before the work what could not be written after it; `files` are by the name of their option."""
    for option, place in files.items():
        if place not in (None, "-") and not Path(str(place)).absolute().parent.is_dir():
            name = option.replace("_", "-")
            raise FileNotFoundError(f"--{name} {place}: there is no folder {Path(str(place)).parent}")
    if report and report.exists() and not report.is_dir():
        raise NotADirectoryError(f"report {report} is a file, expected a folder or a new name")


def _evaluate_one(arguments: argparse.Namespace, overrides: Mapping[str, Any], world: World) -> list[Evaluated]:
    """Evaluate, and print the result unless the JSON is what is printed; only the main process has one."""
    verification = arguments.verification or arguments.calibrate or arguments.report is not None
    if arguments.checkpoint:
        embedded = embed(arguments.checkpoint, overrides, device=arguments.device, world=world)
        finish = partial(judge, embedded, verification=verification)
    else:
        stored = arguments.from_features
        finish = partial(evaluate_stored, stored, overrides, device=arguments.device, verification=verification)
    done: list[Evaluated] = []

    def show() -> None:
        done.append(finish())
        if arguments.json != "-":
            print(done[0].result)

    world.on_main(show)
    return done


def write_json(place: str, values: Any) -> None:
    """Write a result to a file, or to standard output for `-`."""
    text = json.dumps(values, indent=2) + "\n"
    if place == "-":
        sys.stdout.write(text)
    else:
        write_text(Path(place), text)


def _report(folder: Path, checkpoint: str | None, evaluated: Evaluated, calibration: Calibration | None) -> None:
    from reid.report.page import write_report  # matplotlib takes a second to import

    if checkpoint and calibration is None:
        calibration = _kept_calibration(checkpoint, evaluated.result.protocol)
    page = write_report(
        folder,
        evaluated.result,
        evaluated.features,
        evaluated.distances,
        embedder=evaluated.embedder,
        calibration=calibration,
    )
    log.info("report: %s", page)


def _kept_calibration(checkpoint: str, protocol: Mapping[str, Any]) -> Calibration | None:
    """The calibration beside the checkpoint, if it was made for the embeddings that `protocol` describes."""
    try:
        kept = load_calibration(checkpoint)
    except ValueError as error:
        log.warning("warning: the report leaves the calibration out: %s", error)
        return None
    if kept is None:
        return None
    others = [name for name in ("features", "flip_test") if kept.protocol.get(name) != protocol[name]]
    if others:
        log.warning("warning: the report leaves the calibration out: it was made with another %s", " and ".join(others))
        return None
    return kept.calibration


def _datasets(names: Sequence[str], roots: Sequence[str]) -> list[dict[str, Any]]:
    """The data options of each evaluation: NAME or NAME:VERSION with the root given in the same place."""
    if not names:
        if len(roots) > 1:
            raise cli.UsageError(f"--data-root is given {len(roots)} times and --dataset never; expected one of each")
        return [{"data.root": root} for root in roots] or [{}]
    if len(roots) not in (0, len(names)):
        raise cli.UsageError(f"--dataset is given {len(names)} times, --data-root {len(roots)} times; expected as many")
    sets: list[dict[str, Any]] = []
    for name, root in zip_longest(names, roots):
        dataset, _, version = name.partition(":")
        try:
            choose_protocol(dataset, version=version or None)
        except ValueError as error:
            raise cli.UsageError(str(error)) from error
        options = {"data.dataset": dataset, "data.version": version or None, "data.root": root}
        sets.append({key: value for key, value in options.items() if value is not None})
    return sets


def main(argv: list[str] | None = None) -> int:
    """Run `reid-eval`; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["compare"]:
        return compare.main(argv[1:])
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
