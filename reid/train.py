"""Command `reid-train`: a dataset and a recipe to a trained model.

reid-train --dataset msmt17 --data-root DIR
reid-train --dataset toy --epochs 2
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reid import cli
from reid.config import ConfigError, ReidConfig, ReidTrainOptions
from reid.data.datasets import DATASETS
from reid.data.loaders import TrainingLoader, worker_count
from reid.data.sampler import PKSampler
from reid.data.samples import ReidDataset
from reid.data.transforms import Preprocessing, training_transform
from reid.device import choose_device, choose_precision
from reid.distributed import ALONE, World
from reid.evaluate import open_dataset
from reid.evaluation.scoring import data_protocol, embedding_protocol, extract, rank, score
from reid.inference.checkpoint import CONFIG_FILE, Checkpoint, build_model, save_model, write_text
from reid.inference.embedder import Embedder
from reid.inference.side_info import Sides
from reid.models.backbones import normalisation
from reid.models.dcal import DCAL
from reid.training.loop import Evaluation, fit
from reid.training.losses import ArcFace, BranchLoss, Center, Circle, CrossEntropy, PerHead, Triplet
from reid.training.runs import (
    add_training_flags,
    applies_profiles,
    describe,
    require_even_shares,
    require_own_folder,
    run_training,
)

log = logging.getLogger("reid")


def train(
    config: ReidConfig, output: Path, *, device: str = "auto", resume: bool = False, world: World = ALONE
) -> list[dict[str, Any]]:
    """Train a Re-ID model into the run folder `output`; return the record of every epoch.

    Raises FileExistsError when `output` already holds a run and `resume` is not asked for; what reading the dataset,
    the weights or the images raises; `reid.training.loop.Interrupted` when stopped by a signal, with the state saved.
    Every process of `world` (`reid.distributed.joined`) calls this alike.
    """
    goes_on = world.on_main(lambda: require_own_folder(config, output, resume))
    chosen = choose_device(device, world.local_rank)
    dataset = world.on_main(lambda: open_dataset(config.data))
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
    weights = "none" if goes_on else config.model.weights
    kind = config.model.side_information
    sides = Sides() if kind == "none" else Sides.of(kind, dataset)
    model, report = build_model(config, config.data.image_size, len(classes), weights, len(sides))
    require_even_shares(options.batch_size, model.pairs, world)
    if not goes_on:
        log.info("%s", report)
    if options.id_loss == "arcface":
        retire_classifiers(model)
    profiles = applies_profiles(config, output, goes_on)
    preprocessing = Preprocessing(config.data.image_size, *normalisation(model.backbone), profiles=profiles)
    loader = TrainingLoader(
        dataset.train,
        labels,
        sampler,
        training_transform(preprocessing, flip=config.data.flip, pad=config.data.pad, erasing=config.data.erasing),
        seed=options.seed,
        workers=worker_count(config.data.workers, chosen.type),
        pin_memory=chosen.type == "cuda",
        share=world.share,
        profiles=profiles,
        sides=sides.of_samples(dataset, dataset.train) if sides else None,
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
            sides=sides,
        )
        features = extract(embedder, dataset, config.data.workers, world)

        def judge() -> Evaluation:
            distances = rank(features, config.eval, str(chosen))
            result = score(features, distances, config.eval, {**data, **embedding_protocol(data, embedder)})
            return Evaluation(result.as_json(), result.metrics.mAP, str(result).splitlines()[0])

        return world.on_main(judge)

    def save(trained: DCAL, epoch: int, name: str) -> None:
        save_model(output / name, trained, Checkpoint(config, preprocessing, classes, protocol, epoch, sides))

    log.info(describe(config, model, config.data.image_size, len(sampler), chosen, world))
    if world.main:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / CONFIG_FILE, config.as_yaml())
    return fit(
        model.to(chosen),
        loader,
        build_loss(options, model, len(classes)).to(chosen),
        options,
        output,
        device=chosen,
        save=save,
        evaluate=evaluate if has_test_split(dataset) else None,
        resume=goes_on,
        world=world,
    )


def build_loss(options: ReidTrainOptions, model: DCAL, classes: int) -> BranchLoss:
    """The loss of a branch that the options name, with what it learns for each head of the model."""
    parts: dict[str, nn.Module] = {}
    if options.id_loss == "arcface":
        scale, margin = options.arcface_scale, options.arcface_margin
        parts["arcface"] = PerHead(model.heads, lambda: ArcFace(classes, model.width, scale, margin))
    else:
        parts["ce"] = CrossEntropy(options.label_smoothing)
    if options.metric_loss == "triplet":
        parts["triplet"] = Triplet(options.margin)
    elif options.metric_loss == "circle":
        parts["circle"] = Circle(options.circle_scale, options.circle_margin)
    if options.center_loss:
        parts["center"] = PerHead(model.heads, lambda: Center(classes, model.width, options.center_loss))
    return BranchLoss(**parts)


def retire_classifiers(model: DCAL) -> None:
    """Set the heads' classifiers to 0 for good, where the loss has class weights of its own and never reads logits."""
    for name, parameter in model.heads.named_parameters():
        if name.endswith("classifier.weight"):
            nn.init.zeros_(parameter.requires_grad_(False))


def has_test_split(dataset: ReidDataset) -> bool:
    """Whether there is something to evaluate on; warns when there is not."""
    if dataset.query and dataset.gallery:
        return True
    log.warning("warning: %s has no query or no gallery images: training without evaluation", dataset.name)
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reid-train",
        description="Train a re-identification model with Dual Cross-Attention Learning (DCAL). With --dataset and "
        "--data-root alone it runs the paper's recipe for that dataset.",
        epilog="KEY=VALUE sets any option by its dotted name, or by its last part where that is unique, for example "
        "train.lr=0.01, erasing=0, version=v2, strict_counts=true. A run folder's config.yaml lists all of them.",
    )
    add_training_flags(parser, ReidConfig, DATASETS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run `reid-train`; returns its exit code."""
    return cli.run(lambda arguments: run_training(arguments, ReidConfig, DATASETS, train), _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
