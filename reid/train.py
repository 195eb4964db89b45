"""Command `reid-train`: a dataset and a recipe to a trained model.

reid-train --dataset msmt17 --data-root DIR
reid-train --dataset toy --epochs 2
"""

import argparse
import json
import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reid import cli
from reid.checkpoint import (
    CONFIG_FILE,
    MODEL_FILE,
    STATE_FILE,
    Checkpoint,
    save_model,
    write_text,
)
from reid.config import (
    ConfigError,
    ReidConfig,
    differences,
    load_config,
    option_names,
    override,
    parse_override,
    read_config,
)
from reid.data.datasets import DATASETS
from reid.data.loaders import TrainingLoader, worker_count
from reid.data.sampler import PKSampler
from reid.data.samples import ReidDataset
from reid.data.transforms import Preprocessing, training_transform
from reid.device import choose_device, choose_precision
from reid.embedder import Embedder
from reid.evaluate import open_dataset
from reid.loop import Evaluation, Interrupted, fit
from reid.losses import ReidLoss
from reid.models.backbones import normalisation
from reid.models.dcal import BRANCHES, DCAL, build_dcal
from reid.scoring import data_protocol, embedding_protocol, extract, rank, score

log = logging.getLogger("reid")

# What may differ when a run is resumed: where things are and how the result is scored, not what is trained.
MOVABLE = ("data.root", "data.workers", *(name for name in option_names() if name.startswith("eval.")))


def train(config: ReidConfig, output: Path, *, device: str = "auto", resume: bool = False) -> list[dict[str, Any]]:
    """Train a Re-ID model into the run folder `output`; return the record of every epoch.

    Raises FileExistsError when `output` already holds a run and `resume` is not asked for; what reading the dataset,
    the weights or the images raises; `reid.loop.Interrupted` when stopped by a signal, with the state saved.
    """
    goes_on = require_own_folder(config, output, resume)
    chosen = choose_device(device)
    dataset = open_dataset(config.data)
    identities = sorted({sample.identity for sample in dataset.train})
    if not identities:
        raise ValueError(f"{dataset.name} at {dataset.root} has no training images")
    label = {identity: index for index, identity in enumerate(identities)}
    classes = tuple(dataset.identity_names.get(identity, str(identity)) for identity in identities)
    labels = [label[sample.identity] for sample in dataset.train]
    options = config.train
    sampler = PKSampler(
        labels, p=options.batch_size // options.images_per_identity, k=options.images_per_identity, seed=options.seed
    )
    torch.manual_seed(options.seed)
    model, report = build_dcal(
        config.model.backbone,
        config.data.image_size,
        len(classes),
        method=config.model.method,
        weights="none" if goes_on else config.model.weights,
        drop_path=config.model.drop_path,
        ratio=config.model.ratio,
        partner_stream=config.model.partner_stream,
    )
    if not goes_on:
        log.info("%s", report)
    preprocessing = Preprocessing(config.data.image_size, *normalisation(model.backbone))
    loader = TrainingLoader(
        dataset.train,
        labels,
        sampler,
        training_transform(preprocessing, flip=config.data.flip, pad=config.data.pad, erasing=config.data.erasing),
        seed=options.seed,
        workers=worker_count(config.data.workers, chosen.type),
        pin_memory=chosen.type == "cuda",
    )
    data = data_protocol(dataset)
    protocol = {**data, **dataset.protocol}
    if config.eval.features == "glca" and model.glca is None:
        raise ConfigError(f"eval.features=glca asked of method {config.model.method!r}, which has no GLCA")

    def evaluate(trained: DCAL) -> Evaluation:
        embedder = Embedder(
            trained,
            preprocessing,
            features=config.eval.features,
            flip_test=config.eval.flip_test,
            device=chosen,
            batch_size=config.eval.batch_size,
            precision=choose_precision(options.precision, chosen),
        )
        features = extract(embedder, dataset, config.data.workers)
        distances = rank(features, config.eval, str(chosen))
        result = score(features, distances, config.eval, {**data, **embedding_protocol(data, embedder)})
        return Evaluation(result.as_json(), result.metrics.mAP, str(result).splitlines()[0])

    def save(trained: DCAL, epoch: int, name: str) -> None:
        save_model(output / name, trained, Checkpoint(config, preprocessing, classes, protocol, epoch))

    log.info(describe(config, model, len(sampler), chosen))
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / CONFIG_FILE, config.as_yaml())
    return fit(
        model.to(chosen),
        loader,
        ReidLoss(options.label_smoothing, options.margin),
        options,
        output,
        device=chosen,
        save=save,
        evaluate=evaluate if has_test_split(dataset) else None,
        resume=goes_on,
    )


def require_own_folder(config: ReidConfig, output: Path, resume: bool) -> bool:
    """Whether `output` holds this very run's state, to go on from.

    Raises FileExistsError for a folder with a run when `resume` is not asked for, FileNotFoundError for a resume
    without a state, ConfigError for one with changed options. A run that ended before it saved anything leaves nothing
    to lose.
    """
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"output {output} is a file, expected a folder or a new name")
    if not any((output / name).exists() for name in (STATE_FILE, MODEL_FILE)):
        return False
    if not resume:
        raise FileExistsError(f"{output} already holds a run; continue it with --resume, or choose another --output")
    if not (output / STATE_FILE).exists():
        raise FileNotFoundError(f"{output} holds a model but no {STATE_FILE} to resume from; choose another --output")
    path = output / CONFIG_FILE
    changed = [name for name in differences(read_config(path), config) if name not in MOVABLE]
    if changed:
        raise ConfigError(f"--resume cannot change {', '.join(changed)}; the run's options are in {path}")
    return True


def has_test_split(dataset: ReidDataset) -> bool:
    """Whether there is something to evaluate on; warns when there is not."""
    if dataset.query and dataset.gallery:
        return True
    log.warning("warning: %s has no query or no gallery images: training without evaluation", dataset.name)
    return False


def describe(config: ReidConfig, model: DCAL, steps: int, device: torch.device) -> str:
    """What is about to run, in one line."""
    patches = model.backbone.patch_embed.num_patches
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    size = "x".join(str(side) for side in config.data.image_size)
    name = f"{config.model.method} on {config.model.backbone}"
    line = f"{name}: {parameters:.1f} M parameters, {size} pixels, {patches} patches"
    if "glca" in BRANCHES[config.model.method]:
        line += f", GLCA asks with {max(1, math.ceil(config.model.ratio * patches))} of them"
    return line + f"; {config.train.epochs} epochs of {steps} steps of {config.train.batch_size} images on {device}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reid-train",
        description="Train a re-identification model with Dual Cross-Attention Learning (DCAL). With --dataset and "
        "--data-root alone it runs the paper's recipe for that dataset.",
        epilog="KEY=VALUE sets any option by its dotted name, or by its last part where that is unique, for example "
        "train.lr=0.01, erasing=0, version=v2, strict_counts=true. A run folder's config.yaml lists all of them.",
    )
    parser.add_argument("--dataset", metavar="NAME", help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("--data-root", metavar="DIR", help="the folder, or CSV file, that holds the dataset")
    parser.add_argument("--config", metavar="YAML", type=Path, help="options file, instead of the dataset's own recipe")
    parser.add_argument(
        "--backbone", metavar="NAME", help="deit_tiny, deit_small, deit_base, vit_base, ... or a timm ViT"
    )
    parser.add_argument("--method", choices=list(BRANCHES), help="default: dcal")
    parser.add_argument("--weights", metavar="imagenet|none|PATH", help="pretrained weights (default: imagenet)")
    parser.add_argument("--image-size", metavar="HxW", help="height x width in pixels, e.g. 256x128")
    parser.add_argument("--epochs", metavar="N", help="passes over the training images (default: 120)")
    parser.add_argument("--batch-size", metavar="B", help="identities x images of each, e.g. 64 = 16 x 4")
    parser.add_argument("--seed", metavar="S", help="of every random choice (default: 0)")
    parser.add_argument("--output", metavar="RUN", type=Path, help="run folder (default: runs/DATASET-BACKBONE-METHOD)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output where it stopped")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="any option")
    return parser


def _overrides(arguments: argparse.Namespace) -> Mapping[str, Any]:
    flags = {
        "data.root": arguments.data_root,
        "model.backbone": arguments.backbone,
        "model.method": arguments.method,
        "model.weights": arguments.weights,
        "data.image_size": arguments.image_size,
        "train.epochs": arguments.epochs,
        "train.batch_size": arguments.batch_size,
        "train.seed": arguments.seed,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    return given | dict(parse_override(text) for text in arguments.options)


def _command(arguments: argparse.Namespace) -> None:
    overrides = _overrides(arguments)
    saved = arguments.output / CONFIG_FILE if arguments.output and arguments.resume else None
    if saved and saved.exists() and arguments.config is None:
        config = override(read_config(saved), overrides)
    elif arguments.dataset:
        config = load_config(arguments.dataset, arguments.config, overrides)
    elif arguments.config:
        config = override(read_config(arguments.config), overrides)
    elif saved:
        raise FileNotFoundError(f"{arguments.output} holds no run to resume; give --dataset to begin one")
    else:
        raise cli.UsageError(f"--dataset is missing; one of {', '.join(DATASETS)}")
    if config.data.dataset not in DATASETS:
        raise cli.UsageError(f"unknown dataset {config.data.dataset!r}; one of {', '.join(DATASETS)}")
    names = (config.data.dataset, config.model.backbone, config.model.method)
    output = arguments.output or Path("runs") / "-".join(names)
    try:
        records = train(config, output, device=arguments.device, resume=arguments.resume)
    except Interrupted as interrupt:
        raise KeyboardInterrupt(f"{interrupt}; continue with reid-train --output {output} --resume") from None
    print(json.dumps({"run": str(output), **records[-1]}))


def main(argv: list[str] | None = None) -> int:
    """Run `reid-train`; returns its exit code."""
    return cli.run(_command, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
