"""From probabilities to a result: accuracy, confusions and calibration, with the protocol beside the figures."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fgvc.datasets import FgvcDataset
from fgvc.metrics import (
    Confusion,
    Floats,
    Integers,
    class_accuracy,
    class_mean_interval,
    confusions,
    top_k_accuracy,
)
from reid.evaluation.protocol import describe_protocol
from reid.names import Prediction, counted
from reid.retrieval.calibration import ReliabilityBin, calibration_error, reliability_bins
from reid.retrieval.intervals import wilson

if TYPE_CHECKING:
    from reid.inference.classifier import Classifier

NAMES: Mapping[Prediction, str] = {"sum": "SA + GLCA", "sa": "SA", "glca": "GLCA"}
RANKS = (1, 5)


@dataclass(frozen=True, eq=False)
class Result:
    """How n test images of C classes were classified, with the choices that decide what may be compared.

    `accuracy` has top-1 and top-5 by prediction, in [0, 1]. All else is of the prediction that `protocol` names:
    `predicted` (n,) and its `confidence` (n,), against `labels` (n,); `per_class` (C,), NaN for a class without images.
    `images` name the images, by their path below the dataset.
    """

    classes: tuple[str, ...]
    accuracy: Mapping[Prediction, Mapping[int, float]]
    images: tuple[str, ...]
    labels: Integers
    predicted: Integers
    confidence: Floats
    per_class: Floats
    confusions: list[Confusion]
    reliability: tuple[ReliabilityBin, ...]
    protocol: Mapping[str, Any]

    @property
    def top1(self) -> float:
        """Share of the images whose most probable class is right, in [0, 1]."""
        return self.accuracy[self.protocol["prediction"]][1]

    @property
    def mean_class_accuracy(self) -> float:
        """The mean of the accuracies of the classes that have images, in [0, 1]."""
        return float(np.nanmean(self.per_class))

    @property
    def images_per_class(self) -> Integers:
        """How many test images each class has, (C,)."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def interval(self, share: float) -> tuple[float, float]:
        """The ends of the 95 % interval of a share of all images."""
        low, high = wilson(share, len(self.labels)).tolist()
        return low, high

    @cached_property
    def mean_class_interval(self) -> tuple[float, float]:
        """The ends of the 95 % interval of the mean over classes."""
        return class_mean_interval(self.per_class, self.images_per_class)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, in [0, 1]."""
        return calibration_error(self.reliability)

    def as_json(self) -> dict[str, Any]:
        """The figures: fractions in [0, 1], and `protocol`."""
        return {
            "accuracy": {name: {f"top{k}": share for k, share in by.items()} for name, by in self.accuracy.items()},
            "mean_class_accuracy": self.mean_class_accuracy,
            "calibration_error": self.calibration_error,
            "intervals_95": {
                "accuracy": {
                    name: {f"top{k}": list(self.interval(share)) for k, share in by.items()}
                    for name, by in self.accuracy.items()
                },
                "mean_class_accuracy": list(self.mean_class_interval),
            },
            "images": len(self.labels),
            "classes": len(self.classes),
            "protocol": dict(self.protocol),
        }

    def as_full_json(self) -> dict[str, Any]:
        """The figures with those of each class, every confusion, the reliability curve, and each image's prediction."""
        images = self.images_per_class.tolist()
        per_class = [
            {"class": name, "images": count, "accuracy": None if np.isnan(share) else float(share)}
            for name, count, share in zip(self.classes, images, self.per_class, strict=True)
        ]
        return {
            **self.as_json(),
            "per_class": per_class,
            "confusions": [
                {
                    "class": self.classes[pair.label],
                    "predicted": self.classes[pair.predicted],
                    "count": pair.count,
                    "images": pair.images,
                }
                for pair in self.confusions
            ],
            "reliability": [vars(part) for part in self.reliability],
            "per_image": {
                "image": list(self.images),
                "class": [self.classes[label] for label in self.labels],
                "predicted": [self.classes[label] for label in self.predicted],
                "probability": [float(value) for value in self.confidence],
            },
        }

    def __str__(self) -> str:
        chosen: Prediction = self.protocol["prediction"]
        lines = [
            f"{NAMES[name]:9}  top-1 {100 * self.accuracy[name][1]:5.1f}  top-5 {100 * self.accuracy[name][5]:5.1f}"
            for name in (chosen, *(name for name in self.accuracy if name != chosen))
        ]
        per_class, error = 100 * self.mean_class_accuracy, 100 * self.calibration_error
        lines[0] += f"  per class {per_class:5.1f}  calibration error {error:4.1f}"
        tested = np.count_nonzero(~np.isnan(self.per_class))
        what = f"{counted(len(self.labels), 'image')} of {counted(int(tested), 'class', 'classes')}"
        return "\n".join([*lines, f"{what}; {describe_protocol(self.protocol)}"])


def score(
    probabilities: Mapping[Prediction, Floats],
    dataset: FgvcDataset,
    classes: tuple[str, ...],
    protocol: Mapping[str, Any],
) -> Result:
    """Score probabilities (n, C) of a dataset's n test images, by prediction, for a model of these C classes.

    `protocol` names the data and, as `prediction`, what is scored in detail. Raises ValueError for a test class that
    the model does not know, and for probabilities that are not finite.
    """
    labels = test_labels(dataset, classes)
    for name, rows in probabilities.items():
        if not np.isfinite(rows).all():
            raise ValueError(f"the model's probabilities ({name}) are not finite; its weights may be damaged")
    rows = probabilities[protocol["prediction"]]
    predicted, confidence = rows.argmax(axis=1), rows.max(axis=1)
    return Result(
        classes,
        {name: {k: top_k_accuracy(rows, labels, k) for k in RANKS} for name, rows in probabilities.items()},
        tuple(os.path.relpath(sample.path, dataset.root) for sample in dataset.test),
        labels,
        predicted,
        confidence,
        class_accuracy(predicted, labels, len(classes)),
        confusions(predicted, labels),
        reliability_bins(confidence, predicted == labels),
        protocol,
    )


def test_labels(dataset: FgvcDataset, classes: tuple[str, ...]) -> Integers:
    """The labels (n,) of a dataset's test images among a model's classes, matched by name.

    Raises ValueError for a dataset without test images, or with a class that the model does not know.
    """
    if not dataset.test:
        raise ValueError(f"{dataset.name} at {dataset.root} has no test images, so it cannot be evaluated on")
    label = {name: place for place, name in enumerate(classes)}
    used = {sample.identity for sample in dataset.test}
    unknown = [name for place, name in enumerate(dataset.classes) if place in used and name not in label]
    if unknown:
        raise ValueError(
            f"{dataset.name} at {dataset.root} has {counted(len(unknown), 'test class', 'test classes')} that the "
            f"model does not know, first {unknown[0]!r}; it was trained on {len(classes)}, first {classes[0]!r}"
        )
    return np.array([label[dataset.classes[sample.identity]] for sample in dataset.test], np.int64)


def data_protocol(dataset: FgvcDataset) -> dict[str, Any]:
    """What a result must say of its images, and a checkpoint of what it was trained on."""
    level = dataset.protocol.get("level")
    return {"dataset": dataset.name, **({"level": level} if level else {})}


def result_protocol(dataset: FgvcDataset, trained_on: Mapping[str, Any], classifier: "Classifier") -> dict[str, Any]:
    """What a result must say of its images and of the model; `trained_on` is the `data_protocol` of the training."""
    names = [trained_on.get(name) for name in ("dataset", "level")]
    return {
        **data_protocol(dataset),
        "split": dataset.protocol.get("split", "test"),
        "trained_on": " ".join(str(name) for name in names if name),
        "prediction": classifier.prediction,
        "precision": str(classifier.precision).removeprefix("torch."),
    }
