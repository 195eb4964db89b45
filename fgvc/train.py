"""Command `fgvc-train`: fine-grained categories and a recipe to a trained classifier.

fgvc-train --dataset cub --data-root DIR
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from fgvc.datasets import DATASETS
from fgvc.evaluate import open_dataset
from fgvc.scoring import data_protocol, result_protocol, score
from reid import cli
from reid.config import ConfigError, FgvcConfig
from reid.data.loaders import TrainingLoader, worker_count
from reid.data.sampler import ShuffledSampler
from reid.data.transforms import Preprocessing, training_transform
from reid.device import choose_device, choose_precision
from reid.distributed import ALONE, World
from reid.inference.checkpoint import CONFIG_FILE, Checkpoint, build_model, save_model, write_text
from reid.inference.classifier import Classifier
from reid.models.backbones import normalisation
from reid.models.dcal import DCAL
from reid.training.loop import Evaluation, fit
from reid.training.losses import FgvcLoss
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
    config: FgvcConfig, output: Path, *, device: str = "auto", resume: bool = False, world: World = ALONE
) -> list[dict[str, Any]]:
    """Train a classifier into the run folder `output`; return the record of every epoch.

    Raises FileExistsError when `output` already holds a run and `resume` is not asked for; what reading the dataset,
    the weights or the images raises; `reid.training.loop.Interrupted` when stopped by a signal, with the state saved.
    Every process of `world` (`reid.distributed.joined`) calls this alike.
    """
    goes_on = world.on_main(lambda: require_own_folder(config, output, resume))
    chosen = choose_device(device, world.local_rank)
    dataset = world.on_main(lambda: open_dataset(config.data))
    if not dataset.train:
        raise ValueError(f"{dataset.name} at {dataset.root} has no training images")
    labels = [sample.identity for sample in dataset.train]
    options = config.train
    sampler = ShuffledSampler(len(labels), batch_size=options.batch_size, seed=options.seed)
    torch.manual_seed(options.seed)
    weights = "none" if goes_on else config.model.weights
    model, report = build_model(config, config.data.image_size, len(dataset.classes), weights)
    require_even_shares(options.batch_size, model.pairs, world)
    if not goes_on:
        log.info("%s", report)
    resize, profiles = config.data.resize, applies_profiles(config, output, goes_on)
    preprocessing = Preprocessing(
        config.data.image_size, *normalisation(model.backbone), resize=resize, profiles=profiles
    )
    loader = TrainingLoader(
        dataset.train,
        labels,
        sampler,
        training_transform(preprocessing, flip=config.data.flip),
        seed=options.seed,
        workers=worker_count(config.data.workers, chosen.type),
        pin_memory=chosen.type == "cuda",
        share=world.share,
        profiles=profiles,
    )
    protocol = data_protocol(dataset)
    if config.eval.prediction == "glca" and model.glca is None:
        raise ConfigError(f"eval.prediction=glca asked of method {config.model.method!r}, which has no GLCA")

    def evaluate(trained: DCAL) -> Evaluation:
        classifier = Classifier(
            trained,
            preprocessing,
            dataset.classes,
            prediction=config.eval.prediction,
            device=chosen,
            batch_size=config.eval.batch_size,
            precision=choose_precision(options.precision, chosen),
        )
        probabilities = classifier.classify_samples(dataset.test, workers=config.data.workers, world=world)

        def judge() -> Evaluation:
            result = score(probabilities, dataset, dataset.classes, result_protocol(dataset, protocol, classifier))
            return Evaluation(result.as_json(), result.top1, str(result).splitlines()[0])

        return world.on_main(judge)

    def save(trained: DCAL, epoch: int, name: str) -> None:
        save_model(output / name, trained, Checkpoint(config, preprocessing, dataset.classes, protocol, epoch))

    log.info(describe(config, model, config.data.image_size, len(sampler), chosen, world))
    if not dataset.test:
        log.warning("warning: %s has no test images: training without evaluation", dataset.name)
    if world.main:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / CONFIG_FILE, config.as_yaml())
    return fit(
        model.to(chosen),
        loader,
        FgvcLoss(options.label_smoothing),
        options,
        output,
        device=chosen,
        save=save,
        evaluate=evaluate if dataset.test else None,
        resume=goes_on,
        world=world,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fgvc-train",
        description="Train a classifier of fine-grained categories with Dual Cross-Attention Learning (DCAL). With "
        "--dataset and --data-root alone it runs the paper's recipe. The images of a batch are each other's partners "
        "(PWCA), so those that do not fill an epoch's last batch are left out, others in every epoch.",
        epilog="KEY=VALUE sets any option by its dotted name, or by its last part where that is unique, for example "
        "train.lr=0.0001, label_smoothing=0.1, level=family, strict_counts=true. A run folder's config.yaml lists all "
        "of them. folder is a set of your own: train/CLASS/*.jpg and test/CLASS/*.jpg.",
    )
    add_training_flags(parser, FgvcConfig, DATASETS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run `fgvc-train`; returns its exit code."""
    return cli.run(lambda arguments: run_training(arguments, FgvcConfig, DATASETS, train), _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
