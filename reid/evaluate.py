"""Command `reid-eval`: a checkpoint, or stored features, to mAP, Rank-k and mINP with the protocol beside them."""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reid import cli
from reid.checkpoint import load_model, write_text
from reid.config import Config, ConfigError, DataOptions, EvalOptions, full_name, override, parse_override
from reid.data.datasets import DATASETS, load_dataset
from reid.data.loaders import drop_unreadable
from reid.data.samples import ReidDataset, Sample
from reid.data.synthetic import generate
from reid.device import choose_device, choose_precision
from reid.embedder import Embedder
from reid.features import Features
from reid.retrieval.metrics import Metrics, evaluate_features

log = logging.getLogger("reid")

TOY_ROOT = "data/toy"


@dataclass(frozen=True)
class Result:
    """Metrics with the choices that decide whether two of them may be compared."""

    metrics: Metrics
    protocol: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The metrics JSON: fractions in [0, 1], and `protocol`."""
        return {**self.metrics.as_json(), "protocol": dict(self.protocol)}

    def __str__(self) -> str:
        metrics = self.metrics
        ranks = "  ".join(f"Rank-{k} {100 * value:5.1f}" for k, value in metrics.cmc.items())
        choices = ", ".join(f"{name} {value}" for name, value in self.protocol.items() if value)
        skipped = f" ({metrics.queries_skipped} skipped: no valid match)" if metrics.queries_skipped else ""
        return (
            f"mAP {100 * metrics.mAP:5.1f}  {ranks}  mINP {100 * metrics.mINP:5.1f}\n"
            f"{metrics.queries} queries{skipped}, {metrics.gallery} gallery images; {choices}"
        )


def open_dataset(options: DataOptions) -> ReidDataset:
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
    )
    if options.on_error == "skip":
        dataset = _without_unreadable(dataset)
    for warning in dataset.warnings:
        log.warning("warning: %s", warning)
    counts = ", ".join(
        f"{name} {count.images} images of {count.identities} identities" for name, count in dataset.counts.items()
    )
    log.info("%s: %s", dataset.name, counts)
    return dataset


def _without_unreadable(dataset: ReidDataset) -> ReidDataset:
    train, missing_train = drop_unreadable(dataset.train)
    query, missing_query = drop_unreadable(dataset.query)
    gallery, missing_gallery = drop_unreadable(dataset.gallery)
    problems = missing_train + missing_query + missing_gallery
    if not problems:
        return dataset
    warning = f"{len(problems)} images cannot be read and are left out, the first: {problems[0]}"
    return replace(dataset, train=train, query=query, gallery=gallery, warnings=(*dataset.warnings, warning))


def extract(embedder: Embedder, dataset: ReidDataset, workers: int = -1) -> Features:
    """Embed a dataset's query and gallery; raises ValueError when one of them is empty."""
    for name in ("query", "gallery"):
        if not dataset.splits[name]:
            raise ValueError(f"{dataset.name} at {dataset.root} has no {name} images, so it cannot be evaluated on")

    def labels(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
        return np.array([s.identity for s in samples], np.int64), np.array([s.camera for s in samples], np.int64)

    return Features(
        embedder.embed_samples(dataset.query, workers=workers, what="query"),
        *labels(dataset.query),
        embedder.embed_samples(dataset.gallery, workers=workers, what="gallery"),
        *labels(dataset.gallery),
        tuple(str(s.path) for s in dataset.query),
        tuple(str(s.path) for s in dataset.gallery),
    )


def score(features: Features, options: EvalOptions, protocol: Mapping[str, Any], device: str = "cpu") -> Result:
    """Score features by the protocol that `options` choose; `protocol` names the data they come from."""
    metrics = evaluate_features(
        features.query,
        features.query_ids,
        features.query_cameras,
        features.gallery,
        features.gallery_ids,
        features.gallery_cameras,
        distance=options.distance,
        junk=options.junk,
        ap=options.ap,
        device=device,
    )
    chosen = {"junk": options.junk, "ap": options.ap, "distance": options.distance, "rerank": None}
    return Result(metrics, {**protocol, **chosen})


def dataset_protocol(dataset: ReidDataset, features: str) -> dict[str, Any]:
    """What a result must say of its data and features."""
    split = dataset.protocol.get("train_split", dataset.protocol.get("split", dataset.protocol.get("table")))
    return {"dataset": dataset.name, "version": dataset.protocol.get("version"), "split": split, "features": features}


def evaluate(
    checkpoint: Path | str, overrides: Mapping[str, Any] | None = None, *, device: str = "auto"
) -> tuple[Result, Features]:
    """Evaluate a run folder or model file, on the data and by the protocol it was trained with unless overridden.

    `overrides` are options of the groups `data` and `eval`. Another dataset starts from that dataset's own options.
    Raises ConfigError for unusable options, and what reading the checkpoint, the dataset or an image raises.
    """
    chosen = choose_device(device)
    model, described = load_model(checkpoint)
    config = evaluation_config(described.config, overrides or {})
    embedder = Embedder(
        model.to(chosen),
        described.preprocessing,
        features=config.eval.features,
        device=chosen,
        batch_size=config.eval.batch_size,
        precision=choose_precision(config.train.precision, chosen),
    )
    dataset = open_dataset(config.data)
    features = extract(embedder, dataset, config.data.workers)
    return score(features, config.eval, dataset_protocol(dataset, embedder.features), str(chosen)), features


# What an evaluation may change of the data; how images are prepared belongs to the model.
DATA_OPTIONS = ("dataset", "root", "version", "train_split", "strict_counts", "on_error", "workers")


def evaluation_config(trained: Config, overrides: Mapping[str, Any]) -> Config:
    """The options of an evaluation; raises ConfigError for one that only a training may change."""
    named = {full_name(key): value for key, value in overrides.items()}
    allowed = {f"data.{name}" for name in DATA_OPTIONS}
    foreign = [name for name in named if name not in allowed and not name.startswith("eval.")]
    if foreign:
        raise ConfigError(f"{', '.join(foreign)}: fixed by the training; an evaluation can change {_CHANGEABLE}")
    if named.get("data.dataset", trained.data.dataset) != trained.data.dataset:
        trained = trained.model_copy(update={"data": DataOptions(dataset=named["data.dataset"])})
    return override(trained, named)


_CHANGEABLE = f"eval.* and data.{{{','.join(DATA_OPTIONS)}}}"


def stored_options(overrides: Mapping[str, Any]) -> EvalOptions:
    """The options for scoring stored features; raises ConfigError for one that needs a model or images."""
    named = {full_name(key): value for key, value in overrides.items()}
    foreign = [name for name in named if name not in ("eval.distance", "eval.junk", "eval.ap")]
    if foreign:
        raise ConfigError(f"{', '.join(foreign)}: stored features can only be scored by distance, junk and ap")
    return override(Config(data=DataOptions(dataset="features")), named).eval


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reid-eval",
        description="Evaluate a trained model, or stored features, by the field's protocol: mAP, Rank-k and mINP. "
        "Gallery images with the query's identity and camera are not counted (junk=camera), unless junk=none.",
        epilog="KEY=VALUE sets any option of the groups data and eval, for example junk=none, ap=trapezoid, "
        "version=v2 or on_error=skip.",
    )
    parser.add_argument("--checkpoint", metavar="RUN", help="a run folder of reid-train, or its model.safetensors")
    parser.add_argument("--from-features", metavar="FILE.npz", help="score stored features instead; needs no model")
    parser.add_argument("--dataset", metavar="NAME", help="evaluate on this set (default: the one it was trained on)")
    parser.add_argument("--data-root", metavar="DIR", help="the folder, or CSV file, that holds the dataset")
    parser.add_argument(
        "--features", choices=["concat", "sa", "glca"], help="tokens of the embedding (default: concat)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the metrics as JSON; - is standard output")
    parser.add_argument(
        "--report", metavar="DIR", help="write ranked lists as a picture, and the metrics, into this folder"
    )
    parser.add_argument("--save-features", metavar="FILE.npz", help="write the embeddings with identities and cameras")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="options of data and eval")
    return parser


def _command(arguments: argparse.Namespace) -> None:
    if (arguments.checkpoint is None) == (arguments.from_features is None):
        raise cli.UsageError("give either --checkpoint RUN or --from-features FILE.npz")
    flags = {
        "data.dataset": arguments.dataset,
        "data.root": arguments.data_root,
        "eval.features": arguments.features,
    }
    overrides = {name: value for name, value in flags.items() if value is not None}
    overrides |= dict(parse_override(text) for text in arguments.options)
    if arguments.checkpoint:
        result, features = evaluate(arguments.checkpoint, overrides, device=arguments.device)
    else:
        path = Path(arguments.from_features)
        options = stored_options(overrides)
        features = Features.load(path)
        try:
            result = score(
                features, options, {"dataset": path.name, "version": None, "split": None, "features": "stored"}
            )
        except ValueError as error:
            raise ValueError(f"features {path}: {error}") from error
    if arguments.save_features:
        features.save(Path(arguments.save_features))
    text = json.dumps(result.as_json(), indent=2) + "\n"
    if arguments.json == "-":
        sys.stdout.write(text)
    else:
        print(result)
    if arguments.json not in (None, "-"):
        write_text(Path(arguments.json), text)
    if arguments.report:
        from reid.figures import ranked_lists  # matplotlib takes a second to import

        folder = Path(arguments.report)
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"report {folder} is a file, expected a folder or a new name")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "metrics.json", text)
        rule = {"distance": result.protocol["distance"], "junk": result.protocol["junk"]}
        print(f"ranked lists: {ranked_lists(features, result.metrics, folder / 'ranked_lists.png', **rule)}")


def main(argv: list[str] | None = None) -> int:
    """Run `reid-eval`; returns its exit code."""
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
