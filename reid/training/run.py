"""Running a plan: all that trainings have in common, whatever the task."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reid.config import Config, ConfigError, TrainOptions
from reid.data.loaders import EpochSampler, TrainingLoader, Transform, worker_count
from reid.data.preprocessing import Decoding, Preprocessing
from reid.data.samples import Sample
from reid.distributed.world import World
from reid.files import write_text
from reid.inference.checkpoint import NO_SIDE_INFO, Checkpoint, build_model, save_model
from reid.inference.side_info import SideInfo
from reid.models.backbones import normalisation
from reid.models.dcal import DCAL
from reid.names import CONFIG_FILE, STATE_FILE, counted
from reid.training.judging import Evaluation, Judge
from reid.training.loop import fit
from reid.training.losses import BranchLoss
from reid.training.state import require_resumable, saved_decoding

log = logging.getLogger("reid")


@dataclass(frozen=True, eq=False)
class Plan:
    """What a task brings to a training.

    `train` are the options of `config` with numbers for what those leave to the images. `labels` in [0, C) are those of
    the `samples`, and `classes` the C names. `resize` is what `Preprocessing` crops from; `transform` makes the
    augmentation of it, and `build_loss` the loss of a model's branches. `evaluate` scores a model, given what its file
    would say; None where there is nothing to evaluate on. `frozen` scores one that has its pretrained weights and no
    training yet. `validation` scores one on what is held out of the samples, and ends the training after `patience`
    scores that are no better. `protocol` says on what is trained, `side_info` what the model is told, and `sides` what
    of that each sample is.
    """

    config: Config
    train: TrainOptions
    samples: Sequence[Sample]
    labels: Sequence[int]
    classes: tuple[str, ...]
    sampler: EpochSampler
    transform: Callable[[Preprocessing], Transform]
    build_loss: Callable[[DCAL], BranchLoss]
    evaluate: Callable[[DCAL, Checkpoint[Any]], Evaluation] | None
    protocol: Mapping[str, Any]
    resize: tuple[int, int] | None = None
    side_info: SideInfo = NO_SIDE_INFO
    sides: Sequence[int] | None = None
    frozen: Callable[[DCAL, Checkpoint[Any]], Evaluation] | None = None
    validation: Callable[[DCAL, Checkpoint[Any]], Evaluation] | None = None
    patience: int = 0


def run(plan: Plan, output: Path, *, device: torch.device, resume: bool, world: World) -> list[dict[str, Any]]:
    """Train as the plan says into the run folder `output`; return the record of every epoch.

    `resume` goes on from the state that the folder holds. Raises ConfigError for a batch that the processes of `world`
    cannot share out, and what `require_resumable`, building the model, reading images and `fit` raise.
    """
    config, options = plan.config, plan.train
    image_size = config.data.image_size
    torch.manual_seed(options.seed)
    weights = "none" if resume else config.model.weights
    model, report = build_model(config, image_size, len(plan.classes), weights, len(plan.side_info))
    require_even_shares(options.batch_size, model.pairs, world)
    if not resume:
        log.info("%s", report)
    loss = plan.build_loss(model)
    how = Decoding.for_model(*(plan.resize or image_size))
    if resume:
        how = world.on_main(lambda: saved_decoding(output / STATE_FILE))
    preprocessing = Preprocessing(image_size, *normalisation(model.backbone), plan.resize, how.profiles, how.enough)
    loader = TrainingLoader(
        plan.samples,
        plan.labels,
        plan.sampler,
        plan.transform(preprocessing),
        seed=options.seed,
        workers=worker_count(config.data.workers, device.type),
        pin_memory=device.type == "cuda",
        share=world.share,
        sides=plan.sides,
        how=how,
    )

    if resume:  # before the options are written
        world.on_main(lambda: require_resumable(output / STATE_FILE, loader.fingerprint, options.epochs))

    def described(epoch: int) -> Checkpoint[Config]:
        return Checkpoint(config, preprocessing, plan.classes, plan.protocol, epoch, plan.side_info)

    def save(trained: DCAL, epoch: int, name: str) -> None:
        save_model(output / name, trained, described(epoch))

    def given(score: Callable[[DCAL, Checkpoint[Any]], Evaluation] | None) -> Callable[[DCAL], Evaluation] | None:
        return None if score is None else lambda trained: score(trained, described(0))

    log.info(describe(config, options, model, len(plan.sampler), device, world))
    if plan.evaluate is None:
        log.warning("warning: %s has nothing to evaluate on: training without evaluation", config.data.dataset)
    if world.main:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / CONFIG_FILE, config.as_yaml())
    judge = Judge(
        output,
        save,
        test=given(plan.evaluate),
        frozen=given(plan.frozen) if weights != "none" else None,
        validation=given(plan.validation),
        patience=plan.patience,
        world=world,
    )
    return fit(
        model.to(device),
        loader,
        loss.to(device),
        options,
        output,
        device=device,
        judge=judge,
        resume=resume,
        world=world,
    )


def require_even_shares(batch_size: int, pairs: bool, world: World) -> None:
    """Raise ConfigError for a batch that processes cannot share out evenly, two images or more each where they pair."""
    least = 2 if pairs else 1

    def fits(size: int) -> bool:
        return batch_size % size == 0 and batch_size >= least * size

    if not fits(world.size):
        most = max(size for size in range(1, world.size) if fits(size))
        each = ", at least 2 each" if pairs else ""
        raise ConfigError(
            f"train.batch_size={batch_size} cannot be shared out evenly over {world.size} processes{each}; "
            f"start {most}, or choose a multiple of {world.size}"
        )


def describe(config: Config, options: TrainOptions, model: DCAL, steps: int, device: torch.device, world: World) -> str:
    """What is about to run, in one line."""
    patches = model.backbone.patch_embed.num_patches
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    size = "x".join(str(side) for side in config.data.image_size)
    name = f"{config.model.method} on {config.model.backbone}"
    line = f"{name}: {parameters:.1f} M parameters, {size} pixels, {patches} patches"
    line += (
        f"; {counted(options.epochs, 'epoch')} of {counted(steps, 'step')} of {counted(options.batch_size, 'image')}"
    )
    if world.size == 1:
        return f"{line} on {device}"
    return f"{line}, {options.batch_size // world.size} in each of {world.size} processes on {device.type}"
