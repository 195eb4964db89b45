"""What re-identification brings to a training: P x K batches, its losses, and evaluation by retrieval."""

from functools import partial

import torch
from torch import nn

from reid.config import ReidConfig, ReidTrainOptions
from reid.data.sampler import PKSampler
from reid.data.samples import ReidDataset
from reid.data.transforms import training_transform
from reid.distributed.world import World
from reid.evaluation.scoring import data_protocol, embedding_protocol, extract, rank, score
from reid.inference.checkpoint import Checkpoint
from reid.inference.embedder import Embedder
from reid.inference.side_info import SideInfo
from reid.models.dcal import DCAL
from reid.training.loop import Evaluation
from reid.training.losses import ArcFace, BranchLoss, Center, Circle, CrossEntropy, PerHead, Triplet
from reid.training.run import Plan


def plan_training(config: ReidConfig, dataset: ReidDataset, device: torch.device, world: World) -> Plan:
    """The plan of a training on a dataset; raises ValueError for one without training images."""
    identities = sorted({sample.identity for sample in dataset.train})
    if not identities:
        raise ValueError(f"{dataset.name} at {dataset.root} has no training images")
    label = {identity: index for index, identity in enumerate(identities)}
    labels = [label[sample.identity] for sample in dataset.train]
    options, kind = config.train, config.model.side_information
    each = options.images_per_identity
    side_info = SideInfo() if kind == "none" else SideInfo.of(kind, dataset)
    data = data_protocol(dataset)

    def evaluate(trained: DCAL, checkpoint: Checkpoint[ReidConfig]) -> Evaluation:
        embedder = Embedder.of_model(trained, checkpoint, device)
        features = extract(embedder, dataset, config.data.workers, world)

        def judge() -> Evaluation:
            distances = rank(features, config.eval, str(device))
            result = score(features, distances, config.eval, {**data, **embedding_protocol(data, embedder)})
            return Evaluation(result.as_json(), result.metrics.mAP, str(result).splitlines()[0])

        return world.on_main(judge)

    return Plan(
        config,
        dataset.train,
        labels,
        tuple(dataset.identity_names.get(identity, str(identity)) for identity in identities),
        PKSampler(labels, p=options.batch_size // each, k=each, seed=options.seed),
        partial(training_transform, flip=config.data.flip, pad=config.data.pad, erasing=config.data.erasing),
        lambda model: build_loss(options, model),
        evaluate if dataset.query and dataset.gallery else None,
        {**data, **dataset.protocol},
        side_info=side_info,
        sides=side_info.of_samples(dataset, dataset.train) if side_info else None,
    )


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
