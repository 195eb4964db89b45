"""Images to embeddings: one facade for evaluation and for search, so that what is measured is what is served."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from reid.checkpoint import Checkpoint, load_model
from reid.data.images import read_image
from reid.data.loaders import evaluation_batches, worker_count
from reid.data.samples import Sample
from reid.data.transforms import Preprocessing, evaluation_transform
from reid.models.dcal import DCAL, DcalOutput, Features, embedding
from reid.progress import track

Picture = Path | str | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False)
class Attention:
    """Where in a picture the model looked: the class token's attention rollout, laid out as the patch grid.

    The grid spans the whole picture. `map` (rows, columns) float32 holds each patch's share, 0 or more, whose sum is 1
    less the share of the class token itself. `chosen` (rows, columns) bool marks the R patches that GLCA chose; it is
    None where the embedding uses no GLCA.
    """

    map: np.ndarray
    chosen: np.ndarray | None


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
        flip_test: bool = False,
        device: torch.device | str = "cpu",
        batch_size: int = 128,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """`flip_test` adds the embedding of the mirrored picture to each, at twice the cost.

        Raises ValueError when `glca` is asked of a model without that branch.
        """
        if features == "glca" and model.glca is None:
            raise ValueError(
                f"features 'glca' asked of a model trained with method {model.method!r}, which has no GLCA"
            )
        self.model = model
        self.features: Features = features if model.glca is not None else "sa"
        self.flip_test = flip_test
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
        flip_test: bool | None = None,
        device: torch.device | str = "cpu",
        batch_size: int = 128,
        precision: torch.dtype = torch.float32,
    ) -> tuple["Embedder", Checkpoint]:
        """Load a run folder or model file; what is None is taken as it was trained to be evaluated."""
        model, checkpoint = load_model(path)
        options = checkpoint.config.eval
        embedder = cls(
            model.to(device),
            checkpoint.preprocessing,
            features=features or options.features,
            flip_test=options.flip_test if flip_test is None else flip_test,
            device=device,
            batch_size=batch_size,
            precision=precision,
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
        rows += [self._embed(images) for images in self._batches(pictures)]
        return np.concatenate(rows)

    def prepare(self, picture: Picture) -> Tensor:
        """What the model sees of a picture, (3, height, width) float32; any thread may do this. Errors as for `embed`.

        `embed_prepared` of it gives what `embed` gives, so that a service can prepare beside the thread of the model.
        """
        prepared: Tensor = self._transform(_as_image(picture, 0))
        return prepared

    def embed_prepared(self, images: Tensor) -> np.ndarray:
        """Prepared pictures (n, 3, height, width) to unit embeddings (n, E) float32."""
        return np.concatenate([self._embed(part) for part in images.split(self.batch_size)])

    def attention(self, pictures: Sequence[Picture]) -> list[Attention]:
        """The attention behind the embedding of each picture, unmirrored; pictures and errors as for `embed`."""
        backbone = self.model.backbone
        grid, prefix = backbone.patch_embed.grid_size, backbone.num_prefix_tokens
        attentions = []
        for images in self._batches(pictures):
            output = self._forward(images, rollout=True)
            assert output.rollout is not None
            maps = output.rollout[:, prefix:].unflatten(1, grid).cpu().numpy()
            if output.chosen is None:
                attentions += [Attention(row, None) for row in maps]
            else:
                marked = torch.zeros_like(output.rollout, dtype=torch.bool).scatter(1, output.chosen, True)
                chosen = marked[:, prefix:].unflatten(1, grid).cpu().numpy()
                attentions += [Attention(*pair) for pair in zip(maps, chosen, strict=True)]
        return attentions

    def _batches(self, pictures: Sequence[Picture]) -> Iterator[Tensor]:
        for start in range(0, len(pictures), self.batch_size):
            chunk = pictures[start : start + self.batch_size]
            yield torch.stack([self._transform(_as_image(picture, start + i)) for i, picture in enumerate(chunk)])

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
            rows.append(self._embed(images))
        return np.concatenate(rows)

    def _embed(self, images: Tensor) -> np.ndarray:
        rows = embedding(self._forward(images), self.features)
        if self.flip_test:
            rows = F.normalize(rows + embedding(self._forward(images.flip(-1)), self.features), dim=1)
        return rows.cpu().numpy()

    @torch.inference_mode()
    def _forward(self, images: Tensor, rollout: bool = False) -> DcalOutput:
        was_training = self.model.training
        self.model.eval()
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            images = images.to(self.device, non_blocking=True)
            output: DcalOutput = self.model(images, glca=self.features != "sa", rollout=rollout)
        self.model.train(was_training)
        return output


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
