"""What fine-grained categories bring to a training: batches of any images, cross-entropy, and accuracy."""

from functools import partial

import torch

from fgvc.datasets import FgvcDataset
from fgvc.scoring import data_protocol, result_protocol, score
from reid.config import FgvcConfig
from reid.data.sampler import ShuffledSampler
from reid.data.transforms import training_transform
from reid.distributed.world import World
from reid.inference.checkpoint import Checkpoint
from reid.inference.classifier import Classifier
from reid.models.dcal import DCAL
from reid.training.judging import Evaluation
from reid.training.losses import FgvcLoss
from reid.training.run import Plan
from reid.training.sizing import with_epochs


def plan_training(config: FgvcConfig, dataset: FgvcDataset, device: torch.device, world: World) -> Plan:
    """The plan of a training on a dataset; raises ValueError for one without training images."""
    if not dataset.train:
        raise ValueError(f"{dataset.name} at {dataset.root} has no training images")
    labels = [sample.identity for sample in dataset.train]
    options, protocol = config.train, data_protocol(dataset)

    def evaluate(trained: DCAL, checkpoint: Checkpoint[FgvcConfig]) -> Evaluation:
        classifier = Classifier.of_model(trained, checkpoint, device)
        probabilities = classifier.classify_samples(dataset.test, workers=config.data.workers, world=world)

        def judge() -> Evaluation:
            result = score(probabilities, dataset, dataset.classes, result_protocol(dataset, protocol, classifier))
            return Evaluation(result.as_json(), result.top1, str(result).splitlines()[0])

        return world.on_main(judge)

    sampler = ShuffledSampler(len(labels), batch_size=options.batch_size, seed=options.seed)
    return Plan(
        config,
        with_epochs(options, len(sampler)),
        dataset.train,
        labels,
        dataset.classes,
        sampler,
        partial(training_transform, flip=config.data.flip),
        lambda model: FgvcLoss(options.label_smoothing),
        evaluate if dataset.test else None,
        protocol,
        resize=config.data.resize,
    )
