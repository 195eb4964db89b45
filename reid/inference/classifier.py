"""Images to probabilities of fine-grained categories: one facade for evaluation and for use."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from reid.config import FgvcConfig
from reid.data.preprocessing import Preprocessing
from reid.data.samples import Sample
from reid.device import inference_precision
from reid.distributed.world import ALONE, World
from reid.inference.checkpoint import Checkpoint
from reid.inference.predictor import Model, Picture, Predictor, has_glca, open_model
from reid.models.dcal import probabilities
from reid.names import Prediction


class Classifier(Predictor):
    """A classification model with its preprocessing: pictures in, a probability for each class out.

    `classes` names the C categories. `prediction` chooses the branches: `sum` (the mean of SA's and GLCA's
    probabilities, whose largest is that of their sum), `sa` or `glca`.
    """

    def __init__(
        self,
        model: Model,
        preprocessing: Preprocessing,
        classes: Sequence[str],
        *,
        prediction: Prediction = "sum",
        device: torch.device | str = "cpu",
        batch_size: int = 128,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Raises ValueError for an unknown prediction, `glca` of a model without that branch, or other than C names."""
        if prediction not in get_args(Prediction):
            raise ValueError(f"unknown prediction {prediction!r}; choose {', '.join(get_args(Prediction))}")
        if prediction == "glca" and not has_glca(model):
            raise ValueError(
                f"prediction 'glca' asked of a model trained with method {model.method!r}, which has no GLCA"
            )
        if len(classes) != model.classes:
            raise ValueError(f"{len(classes)} names of classes for a model of {model.classes}")
        self.classes = tuple(classes)
        self.prediction: Prediction = prediction if has_glca(model) else "sa"
        super().__init__(
            model,
            preprocessing,
            glca=self.prediction != "sa",
            device=device,
            batch_size=batch_size,
            precision=precision,
        )

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
        *,
        prediction: Prediction | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 128,
        precision: torch.dtype | None = None,
    ) -> tuple["Classifier", Checkpoint[FgvcConfig]]:
        """Load a run folder, model file or export; what is None is taken as it was trained to be evaluated."""
        model, checkpoint = open_model(path, FgvcConfig, device)
        chosen = {"prediction": prediction, "batch_size": batch_size, "precision": precision}
        return cls.of_model(model, checkpoint, device, **chosen), checkpoint

    @classmethod
    def of_model(
        cls,
        model: Model,
        checkpoint: Checkpoint[FgvcConfig],
        device: torch.device | str,
        **chosen: Any,
    ) -> "Classifier":
        """A model on a device as the options of its `checkpoint` say, but for what is `chosen` and not None."""
        config = checkpoint.config
        options = {
            "prediction": config.eval.prediction,
            "batch_size": config.eval.batch_size,
            "precision": inference_precision(config.train.precision, torch.device(device)),
            **{name: value for name, value in chosen.items() if value is not None},
        }
        return cls(model, checkpoint.preprocessing, checkpoint.classes, device=device, **options)

    def classify(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Pictures to probabilities (n, C) float32, each row of sum 1; pictures and errors as for `prepare`."""
        return np.concatenate([self._nothing(), *(self._classify(images) for images in self.batches(pictures))])

    def classify_prepared(self, images: Tensor) -> np.ndarray:
        """Pictures by `prepare` (n, 3, height, width) to probabilities (n, C), as `classify` gives them."""
        parts = images.split(self.batch_size) if len(images) else ()
        return np.concatenate([self._nothing(), *(self._classify(part) for part in parts)])

    def classify_samples(
        self, samples: Sequence[Sample], *, workers: int = -1, what: str = "classifying", world: World = ALONE
    ) -> Mapping[Prediction, np.ndarray]:
        """Dataset samples to probabilities (n, C) by every prediction that the branches in use allow, with progress.

        The work is shared out over the processes of `world`; the main one has all probabilities, the others none.
        """

        def classify(images: Tensor, places: list[int]) -> dict[Prediction, np.ndarray]:
            output = self.forward(images)
            return {name: probabilities(output, name).cpu().numpy() for name in self._available()}

        found = {prediction: [self._nothing()] for prediction in self._available()}
        for batch in self.over_samples(samples, classify, workers=workers, what=what, world=world):
            for prediction, rows in batch.items():
                found[prediction].append(rows)
        return {prediction: np.concatenate(rows) for prediction, rows in found.items()}

    def _classify(self, images: Tensor) -> np.ndarray:
        rows: np.ndarray = probabilities(self.forward(images), self.prediction).cpu().numpy()
        return rows

    def _nothing(self) -> np.ndarray:
        return np.empty((0, len(self.classes)), np.float32)

    def _available(self) -> tuple[Prediction, ...]:
        """The predictions that the branches in use allow, the one to prefer first."""
        return ("sum", "sa", "glca") if self.glca else ("sa",)
