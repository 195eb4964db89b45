"""Images to embeddings: one facade for evaluation and for search, so that what is measured is what is served."""

from collections.abc import Sequence
from functools import cached_property
from math import isfinite
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from reid.config import ReidConfig
from reid.data.boxes import whole_box
from reid.data.preprocessing import Preprocessing
from reid.data.samples import Sample
from reid.device import inference_precision
from reid.distributed.world import ALONE, World
from reid.inference.checkpoint import Checkpoint
from reid.inference.exported import ExportedModel
from reid.inference.lanes import Lanes
from reid.inference.predictor import Model, Picture, Predictor, has_glca, open_model
from reid.inference.pretrained import ModelSource
from reid.inference.side_info import SideInfo
from reid.models.dcal import embedding
from reid.names import Features


class Embedder(Predictor):
    """A Re-ID model with its preprocessing: pictures in, unit embeddings out.

    `features` chooses the tokens: `concat` (SA and GLCA, E = 2 D), `sa` or `glca` (E = D).
    """

    def __init__(
        self,
        model: Model,
        preprocessing: Preprocessing,
        *,
        features: Features = "concat",
        flip_test: bool = False,
        device: torch.device | str = "cpu",
        batch_size: int = 128,
        precision: torch.dtype = torch.float32,
        side_info: SideInfo | None = None,
    ) -> None:
        """`flip_test` adds the embedding of the mirrored picture to each, at twice the cost.

        `side_info` are the cameras and views that the model knows; only `embed_samples` can tell it of them.

        Raises ValueError for unknown features, and for `glca` of a model without that branch.
        """
        if features not in get_args(Features):
            raise ValueError(f"unknown features {features!r}; choose {', '.join(get_args(Features))}")
        if features == "glca" and not has_glca(model):
            raise ValueError(
                f"features 'glca' asked of a model trained with method {model.method!r}, which has no GLCA"
            )
        self.features: Features = features if has_glca(model) else "sa"
        self.flip_test = flip_test
        self.side_info = side_info or SideInfo()
        super().__init__(
            model,
            preprocessing,
            glca=self.features != "sa",
            device=device,
            batch_size=batch_size,
            precision=precision,
        )

    @classmethod
    def from_checkpoint(
        cls,
        source: ModelSource,
        *,
        features: Features | None = None,
        flip_test: bool | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 128,
        precision: torch.dtype | None = None,
    ) -> tuple["Embedder", Checkpoint[ReidConfig]]:
        """Load a run folder, model file, export or `Pretrained`; what is None is as it was trained to be evaluated."""
        model, checkpoint = open_model(source, ReidConfig, device)
        chosen = {"features": features, "flip_test": flip_test, "batch_size": batch_size, "precision": precision}
        return cls.of_model(model, checkpoint, device, **chosen), checkpoint

    @classmethod
    def of_model(
        cls,
        model: Model,
        checkpoint: Checkpoint[ReidConfig],
        device: torch.device | str,
        **chosen: Any,
    ) -> "Embedder":
        """A model on a device as the options of its `checkpoint` say, but for what is `chosen` and not None."""
        config = checkpoint.config
        options = {
            "features": config.eval.features,
            "flip_test": config.eval.flip_test,
            "batch_size": config.eval.batch_size,
            "precision": inference_precision(config.train.precision, torch.device(device)),
            **{name: value for name, value in chosen.items() if value is not None},
        }
        return cls(model, checkpoint.preprocessing, device=device, side_info=checkpoint.side_info, **options)

    @property
    def runtime(self) -> Literal["torch", "onnx"]:
        """What runs the model."""
        return "onnx" if isinstance(self.model, ExportedModel) else "torch"

    @property
    def size(self) -> int:
        """E, the numbers in an embedding."""
        return self.model.embedding_size(self.features)

    @cached_property
    def _lanes(self) -> Lanes | None:
        """None where the model has its own way to share out a batch."""
        return Lanes() if self.device.type == "cpu" and self.runtime == "torch" else None

    def embed(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Paths, PIL images or RGB uint8 arrays (height, width, 3) to unit embeddings (n, E) float32.

        Raises ValueError or FileNotFoundError naming a file that cannot be read, ValueError naming the place of a PIL
        image that cannot, of an array of another shape or type, and of what is none of these or no list.
        """
        rows = [np.empty((0, self.size), np.float32)]
        rows += [self._embed(images) for images in self.batches(pictures)]
        return np.concatenate(rows)

    def embed_boxes(self, picture: Picture, boxes: ArrayLike) -> np.ndarray:
        """What boxes (N, 4) of one picture show, as unit embeddings (N, E) float32: what a tracker asks for.

        Boxes are left, top, right and bottom in pixels of the upright picture, as detectors give them; what lies
        beyond the picture is cut off. Raises ValueError for boxes of another shape, naming a box that is not finite or
        shows nothing of the picture, and what `embed` raises.
        """
        image = self.picture(picture)
        rows = np.asarray(boxes, np.float64) if np.size(boxes) else np.empty((0, 4))
        if rows.ndim != 2 or rows.shape[1] != 4:  # such as detections with a confidence and a class
            raise ValueError(f"boxes are of shape {rows.shape}, expected (N, 4): left, top, right, bottom")
        return self.embed([_cut(image, place, *row) for place, row in enumerate(rows.tolist())])

    def embed_prepared(self, images: Tensor) -> np.ndarray:
        """Pictures by `prepare` (n, 3, height, width) to unit embeddings (n, E) float32, as `embed` gives them.

        So a service can prepare beside the thread of the model. On a CPU, torch computes large batches in parts.
        """
        rows = [np.empty((0, self.size), np.float32)]
        for batch in images.split(self.batch_size) if len(images) else ():
            rows += [self._embed(batch)] if self._lanes is None else self._lanes.map(self._embed, batch)
        return np.concatenate(rows)

    def embed_samples(
        self,
        samples: Sequence[Sample],
        *,
        sides: Sequence[int] | None = None,
        workers: int = -1,
        what: str = "embedding",
        world: World = ALONE,
    ) -> np.ndarray:
        """Dataset samples to unit embeddings (n, E) float32 in order, read by `workers` processes, with progress.

        `sides` are their combinations of camera and view, -1 where unknown, for a model that is told of them. The work
        is shared out over the processes of `world`; the main one has all embeddings, the others none.
        """
        told = None if sides is None else torch.tensor(sides)

        def embed(images: Tensor, places: list[int]) -> np.ndarray:
            return self._embed(images, None if told is None else told[places])

        rows = [np.empty((0, self.size), np.float32)]
        rows += self.over_samples(samples, embed, workers=workers, what=what, world=world)
        return np.concatenate(rows)

    def _embed(self, images: Tensor, sides: Tensor | None = None) -> np.ndarray:
        rows = embedding(self.forward(images, sides), self.features)
        if self.flip_test:
            rows = F.normalize(rows + embedding(self.forward(images.flip(-1), sides), self.features), dim=1)
        return rows.cpu().numpy()


def _cut(image: Image.Image, place: int, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """What a box shows of an upright picture."""
    seen = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
    if not all(map(isfinite, (left, top, right, bottom))) or seen[0] >= seen[2] or seen[1] >= seen[3]:
        raise ValueError(
            f"box {place}, {(left, top, right, bottom)}, shows nothing of a picture of {image.width} x {image.height} "
            "pixels; expected left, top, right, bottom"
        )
    x, y, w, h = whole_box(seen[0], seen[1], seen[2] - seen[0], seen[3] - seen[1])
    return image.crop((x, y, min(x + w, image.width), min(y + h, image.height)))
