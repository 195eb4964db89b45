"""Images to their most probable classes."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reid.data.folders import EVERYTHING, LeftOut, Patterns, pictures_below
from reid.files import model_file
from reid.names import Prediction
from reid.progress import track

log = logging.getLogger("reid")


if TYPE_CHECKING:
    from torch import Tensor

    from reid.inference.classifier import Classifier


@dataclass(frozen=True)
class Answer:
    """An image's most probable classes with their probabilities in [0, 1], best first, or why it cannot be read."""

    image: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """`image` with `classes`, or with `error`."""
        if self.error:
            return {"image": str(self.image), "error": self.error}
        classes = [{"class": name, "probability": probability} for name, probability in self.classes]
        return {"image": str(self.image), "classes": classes}

    def __str__(self) -> str:
        return f"{self.image}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.classes)


def predict(
    checkpoint: Path | str,
    images: Sequence[Path],
    *,
    top: int = 5,
    prediction: Prediction | None = None,
    device: str = "auto",
    wanted: Patterns = EVERYTHING,
) -> list[Answer]:
    """The `top` most probable classes of each image, and of each that is `wanted` in and below a folder, in order.

    An image that cannot be read gets an answer with an error; what else lies below folders is counted in the log.
    Raises FileNotFoundError for a folder without images,
    ValueError for a `top` below 1, and what loading the checkpoint raises.
    """
    if top < 1:
        raise ValueError(f"top is {top}, expected 1 or more")
    left_out = LeftOut()
    files = [file for image in images for file in _files(image, left_out, wanted)]
    model_file(checkpoint)  # refused before torch, which takes seconds, is imported
    from reid.device import choose_device
    from reid.inference.classifier import Classifier

    classifier, _ = Classifier.from_checkpoint(checkpoint, prediction=prediction, device=choose_device(device))
    answers = list(track(_answers(classifier, files, top), len(files), "classifying"))
    if left_out:
        log.warning("%s", left_out)
    return answers


def _files(image: Path, left_out: LeftOut, wanted: Patterns) -> list[Path]:
    if not image.is_dir():
        return [image]
    files = [image / inside for inside in pictures_below(image, left_out, wanted)]
    if not files:
        told = f"; {left_out}" if left_out else ""
        raise FileNotFoundError(f"folder {image}: no image in or below it{told}")
    return files


def _answers(classifier: "Classifier", files: Sequence[Path], top: int) -> Iterator[Answer]:
    import torch

    for start in range(0, len(files), classifier.batch_size):
        batch = files[start : start + classifier.batch_size]
        prepared = [_prepare(classifier, file) for file in batch]
        readable = [image for image in prepared if not isinstance(image, str)]
        rows = iter(classifier.classify_prepared(torch.stack(readable)) if readable else ())
        for file, image in zip(batch, prepared, strict=True):
            yield Answer(file, error=image) if isinstance(image, str) else _best(classifier, file, next(rows), top)


def _prepare(classifier: "Classifier", file: Path) -> "Tensor | str":
    """What the model sees of an image, or why it cannot be read."""
    try:
        return classifier.prepare(file)
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())


def _best(classifier: "Classifier", file: Path, row: np.ndarray, top: int) -> Answer:
    best = np.argsort(-row, kind="stable")[:top]
    return Answer(file, tuple((classifier.classes[label], float(row[label])) for label in best))
