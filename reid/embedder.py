"""Images to embeddings: one facade for evaluation and for search, so that what is measured is what is served."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from reid.checkpoint import Checkpoint, load_model
from reid.data.images import read_image
from reid.data.loaders import evaluation_batches, worker_count
from reid.data.samples import Sample
from reid.data.transforms import Preprocessing, evaluation_transform
from reid.models.dcal import DCAL, Features, embedding
from reid.progress import track

Picture = Path | str | Image.Image | np.ndarray


class Embedder:
    """A model with its preprocessing: pictures in, unit embeddings out.

    `features` chooses the tokens: `concat` (SA and GLCA, E = 2 D), `sa` or `glca` (E = D).
    """

    def __init__(
        self,
        model: DCAL,
        preprocessing: Preprocessing,
        *,
        features: Features = "concat",
        device: torch.device | str = "cpu",
        batch_size: int = 128,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Raises ValueError when `glca` is asked of a model without that branch."""
        if features == "glca" and model.glca is None:
            raise ValueError(
                f"features 'glca' asked of a model trained with method {model.method!r}, which has no GLCA"
            )
        self.model = model
        self.features: Features = features
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.precision = precision
        self._transform = evaluation_transform(preprocessing)

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
        *,
        features: Features | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 128,
        precision: torch.dtype = torch.float32,
    ) -> tuple["Embedder", Checkpoint]:
        """Load a run folder or model file; `features` None takes the choice it was trained to be evaluated with."""
        model, checkpoint = load_model(path)
        chosen = features or checkpoint.config.eval.features
        model = model.to(device)
        embedder = cls(
            model, checkpoint.preprocessing, features=chosen, device=device, batch_size=batch_size, precision=precision
        )
        return embedder, checkpoint

    @property
    def size(self) -> int:
        """E, the numbers in an embedding."""
        both = self.features == "concat" and self.model.glca is not None
        return int(self.model.backbone.embed_dim) * (2 if both else 1)

    def embed(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Paths, PIL images or RGB uint8 arrays (height, width, 3) to unit embeddings (n, E) float32.

        Raises ValueError or FileNotFoundError naming a file that cannot be read, and ValueError for an array of another
        shape or type, naming its place.
        """
        rows = [np.empty((0, self.size), np.float32)]
        for start in range(0, len(pictures), self.batch_size):
            chunk = pictures[start : start + self.batch_size]
            images = [self._transform(_as_image(picture, start + i)) for i, picture in enumerate(chunk)]
            rows.append(self._forward(torch.stack(images)))
        return np.concatenate(rows)

    def embed_samples(self, samples: Sequence[Sample], *, workers: int = -1, what: str = "embedding") -> np.ndarray:
        """Dataset samples to unit embeddings (n, E) float32 in order, read by `workers` processes, with progress."""
        loader = evaluation_batches(
            samples,
            self._transform,
            batch_size=self.batch_size,
            workers=worker_count(workers, self.device.type),
            pin_memory=self.device.type == "cuda",
        )
        rows = [np.empty((0, self.size), np.float32)]
        for images in track(loader, len(loader), what):
            if isinstance(images, Exception):
                raise images
            rows.append(self._forward(images))
        return np.concatenate(rows)

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> np.ndarray:
        was_training = self.model.training
        self.model.eval()
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            output = self.model(images.to(self.device, non_blocking=True), glca=self.features != "sa")
        self.model.train(was_training)
        return embedding(output, self.features).cpu().numpy()


def _as_image(picture: Picture, place: int) -> Image.Image:
    if isinstance(picture, Path | str):
        return read_image(picture)
    if isinstance(picture, Image.Image):
        return ImageOps.exif_transpose(picture).convert("RGB")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"picture {place} is an array of shape {picture.shape} and type {picture.dtype}, "
            "expected (height, width, 3) uint8 RGB"
        )
    return Image.fromarray(picture)
