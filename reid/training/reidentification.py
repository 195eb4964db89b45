"""What re-identification brings to a training: P x K batches, its losses, and evaluation by retrieval."""

import logging
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import nn

from reid.config import ReidConfig, ReidTrainOptions
from reid.data.holding_out import hold_out
from reid.data.sampler import PKSampler
from reid.data.samples import ReidDataset
from reid.data.transforms import training_transform
from reid.distributed.world import World
from reid.evaluation.features import Features, label_rows
from reid.evaluation.readiness import require_scorable
from reid.evaluation.scoring import data_protocol, embedding_protocol, extract, rank, score
from reid.inference.checkpoint import Checkpoint
from reid.inference.embedder import Embedder
from reid.inference.side_info import SideInfo
from reid.models.dcal import DCAL
from reid.training.judging import Evaluation
from reid.training.losses import ArcFace, BranchLoss, Center, Circle, CrossEntropy, PerHead, Triplet
from reid.training.run import Plan
from reid.training.sizing import with_batch, with_epochs

log = logging.getLogger("reid")


def plan_training(config: ReidConfig, dataset: ReidDataset, device: torch.device, world: World) -> Plan:
    """The plan of a training on a dataset; raises ValueError for one without training images."""
    if not dataset.train:
        raise ValueError(f"{dataset.name} at {dataset.root} has no training images")
    dataset, held_out = _hold_out(dataset, config)
    identities = sorted({sample.identity for sample in dataset.train})
    label = {identity: index for index, identity in enumerate(identities)}
    labels = [label[sample.identity] for sample in dataset.train]
    options, kind = with_batch(config.train, labels), config.model.side_information
    each = options.images_per_identity
    sampler = PKSampler(labels, p=options.batch_size // each, k=each, seed=options.seed)
    side_info = SideInfo() if kind == "none" else SideInfo.of(kind, dataset)
    data = data_protocol(dataset)
    rows = world.on_main(lambda: _require_scorable(dataset, config)) if dataset.query and dataset.gallery else None

    def evaluate(
        trained: DCAL,
        checkpoint: Checkpoint[ReidConfig],
        on: ReidDataset = dataset,
        rows: Features | None = rows,
        tokens: Literal["sa"] | None = None,
    ) -> Evaluation:
        embedder = Embedder.of_model(trained, checkpoint, device, features=tokens)
        features = extract(embedder, on, config.data.workers, world, rows)

        def judge() -> Evaluation:
            distances = rank(features, config.eval, str(device))
            result = score(
                features, distances, config.eval, {**data, **embedding_protocol({**data, **dataset.protocol}, embedder)}
            )
            return Evaluation(result.as_json(), result.metrics.mAP, str(result).splitlines()[0])

        return world.on_main(judge)

    return Plan(
        config,
        with_epochs(options, len(sampler)),
        dataset.train,
        labels,
        tuple(map(dataset.identity_name, identities)),
        sampler,
        partial(training_transform, flip=config.data.flip, pad=config.data.pad, erasing=config.data.erasing),
        lambda model: build_loss(options, model),
        evaluate if rows else None,
        {**data, **dataset.protocol},
        side_info=side_info,
        sides=side_info.of_samples(dataset, dataset.train) if side_info else None,
        # What timm pretrained is the SA token's: GLCA has learned nothing of its own yet.
        frozen=partial(evaluate, tokens="sa") if rows else None,
        validation=partial(evaluate, on=held_out, rows=None) if held_out else None,
        patience=options.patience,
    )


def _hold_out(dataset: ReidDataset, config: ReidConfig) -> tuple[ReidDataset, ReidDataset | None]:
    """The dataset to train and test on, and that of the identities held out, each image a query among the others."""
    share, options = config.train.validation, config.train
    kept, held = hold_out(dataset.train, share, options.seed, config.eval.junk)
    if not held:
        if share:
            log.info("too few identities to hold any out: all are trained on, and the last epoch is kept")
        return dataset, None
    names = {sample.identity for sample in held}
    log.info("%d images of %d identities are held out, to choose the epoch that is kept by", len(held), len(names))
    return replace(dataset, train=kept), replace(dataset, train=(), query=held, gallery=held)


def _require_scorable(dataset: ReidDataset, config: ReidConfig) -> Features:
    """The rows that every evaluation scores; raises ValueError, before the first step, where it could not."""
    rows = label_rows(dataset)
    require_scorable(rows, config.eval, dataset.identity_name, dataset.camera_name)
    return rows


def build_loss(options: ReidTrainOptions, model: DCAL) -> BranchLoss:
    """The loss of a branch that the options name, with what it learns for each head of the model.

    Where it has class weights of its own, those of the heads are retired.
    """
    classes = model.classes
    parts: dict[str, nn.Module] = {}
    if options.id_loss == "arcface":
        retire_classifiers(model)
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
