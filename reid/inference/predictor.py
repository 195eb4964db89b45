"""Pictures through a trained model: one way for every task, so that what is measured is what is served."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reid.config import ReidConfig
from reid.data.images import read_image, upright_rgb
from reid.data.loaders import evaluation_batches, worker_count
from reid.data.preprocessing import Decoding, Preprocessing
from reid.data.samples import Sample
from reid.data.transforms import evaluation_transform
from reid.distributed.world import ALONE, World
from reid.files import model_file
from reid.inference.checkpoint import EXPORT_SUFFIX, TITLES, Checkpoint, Kind, load_model
from reid.inference.exported import ExportedModel, open_exported
from reid.inference.pretrained import ModelSource, Pretrained, open_pretrained
from reid.models.dcal import DCAL, DcalOutput
from reid.models.pooled import PooledNetwork
from reid.names import BRANCHES
from reid.progress import track

Picture = Path | str | Image.Image | np.ndarray
Model = DCAL | PooledNetwork | ExportedModel
Prediction = TypeVar("Prediction")


@dataclass(frozen=True, eq=False)
class Attention:
    """Where in a picture the model looked: the class token's attention rollout, laid out as the patch grid.

    The grid spans the part of the picture that the model sees, `seen` (x, y, width, height) as shares of its width and
    height. `map` (rows, columns) float32 holds each patch's share, 0 or more, whose sum is 1 less the share of the
    class token itself. `chosen` (rows, columns) bool marks the R patches that GLCA chose; it is None where GLCA is not
    used.
    """

    map: np.ndarray
    chosen: np.ndarray | None
    seen: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


class Predictor:
    """A model with its preprocessing. `glca` says whether its second branch is used, `decoding` how it reads."""

    def __init__(
        self,
        model: Model,
        preprocessing: Preprocessing,
        *,
        glca: bool,
        device: torch.device | str = "cpu",
        batch_size: int = 128,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """`model` is on `device`; `precision` is that of its matrix products.

        An export takes its images from the CPU and computes in float32, wherever it runs.
        """
        exported = isinstance(model, ExportedModel)
        self.model = model
        self.glca = glca
        self.device = torch.device("cpu" if exported else device)
        self.batch_size = batch_size
        self.precision = torch.float32 if exported else precision
        self.decoding = preprocessing.decoding
        self.resized = preprocessing.resized
        self._seen = preprocessing.seen
        self._transform = evaluation_transform(preprocessing)

    def prepare(self, picture: Picture) -> Tensor:
        """What the model sees of a picture, (3, height, width) float32; any thread may do this.

        Raises ValueError or FileNotFoundError naming a file that cannot be read, and ValueError for a PIL image that
        cannot, an array that is not (height, width, 3) uint8, and what is none of these.
        """
        prepared: Tensor = self._transform(self.picture(picture))
        return prepared

    def picture(self, picture: Picture) -> Image.Image:
        """A picture upright, in RGB, with its colours as the model was trained on them; raises as `prepare` does."""
        return _as_image(picture, 0, self.decoding)

    def attention(self, pictures: Sequence[Picture]) -> list[Attention]:
        """Where the model looked in each picture; pictures and errors as for `prepare`.

        Raises ValueError for a network without class token (`DCAL.rolls_out`).
        """
        grid, prefix = self.model.grid, self.model.prefix
        attentions = []
        for images in self.batches(pictures):
            output = self.forward(images, rollout=True)
            assert output.rollout is not None
            maps = output.rollout[:, prefix:].unflatten(1, grid).cpu().numpy()
            if output.chosen is None:
                attentions += [Attention(row, None, self._seen) for row in maps]
            else:
                marked = torch.zeros_like(output.rollout, dtype=torch.bool).scatter(1, output.chosen, True)
                chosen = marked[:, prefix:].unflatten(1, grid).cpu().numpy()
                attentions += [Attention(*pair, self._seen) for pair in zip(maps, chosen, strict=True)]
        return attentions

    def batches(self, pictures: Sequence[Picture]) -> Iterator[Tensor]:
        """Pictures as prepared batches (B, 3, height, width), in order; raises ValueError for no list."""
        if isinstance(pictures, str | Path | Image.Image):
            raise ValueError(f"expected a list of pictures, found one, {pictures!r}: write [{pictures!r}]")
        for start in range(0, len(pictures), self.batch_size):
            chunk = pictures[start : start + self.batch_size]
            images = (_as_image(picture, start + i, self.decoding) for i, picture in enumerate(chunk))
            yield torch.stack([self._transform(image) for image in images])

    def over_samples(
        self,
        samples: Sequence[Sample],
        predict: Callable[[Tensor, list[int]], Prediction],
        *,
        workers: int = -1,
        what: str,
        world: World = ALONE,
    ) -> Iterator[Prediction]:
        """What `predict` gives for each batch of a dataset's samples, in order, with progress on `what`.

        It is called with a prepared batch and the samples' places; `workers` processes read. The batches are shared out
        over the processes of `world`, of which the main one yields what all predict, and the others nothing.
        """
        size = self.batch_size
        batches = [list(range(start, min(start + size, len(samples)))) for start in range(0, len(samples), size)]
        own = batches[world.share]
        loader = evaluation_batches(
            samples,
            self._transform,
            own,
            workers=worker_count(workers, self.device.type),
            pin_memory=self.device.type == "cuda",
            how=self.decoding,
        )
        prepared = iter(track(loader, len(own), what))
        for number in range(-(-len(batches) // world.size)):
            predicted: list[Prediction] = []
            if number < len(own):
                images = next(prepared)
                if isinstance(images, Exception):
                    raise images
                predicted = [predict(images, own[number])]
            for of_one in world.gather(predicted):
                yield from of_one

    @torch.inference_mode()
    def forward(self, images: Tensor, sides: Tensor | None = None, *, rollout: bool = False) -> DcalOutput:
        """The model's output on a prepared batch, in evaluation mode; `sides` and `rollout` as for `DCAL`."""
        was_training = self.model.training
        self.model.eval()
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            images = images.to(self.device, non_blocking=True)
            sides = None if sides is None else sides.to(self.device, non_blocking=True)
            output: DcalOutput = self.model(images, sides=sides, glca=self.glca, rollout=rollout)
        self.model.train(was_training)
        return output


def open_model(
    source: ModelSource, kind: type[Kind], device: torch.device | str = "cpu"
) -> tuple[Model, Checkpoint[Kind]]:
    """The model of a run folder, of its model file, of an export (.onnx), or one that no run trained, on a device.

    Beside it is what it says of itself. Raises what `load_model`, `open_exported` and `open_pretrained` raise.
    """
    if isinstance(source, Pretrained):
        if not issubclass(ReidConfig, kind):
            raise ValueError(f"{source} has no classes, expected {TITLES[kind]}")
        network, described = open_pretrained(source)
        return network.to(device), cast(Checkpoint[Kind], described)
    file = model_file(source)
    if file.suffix == EXPORT_SUFFIX:
        return open_exported(file, kind, device)
    model, checkpoint = load_model(file, kind)
    return model.to(device), checkpoint


def has_glca(model: Model) -> bool:
    """Whether a model has the second branch."""
    return "glca" in BRANCHES[model.method]


def _as_image(picture: Picture, place: int, how: Decoding) -> Image.Image:
    if isinstance(picture, Path | str):
        return read_image(picture, how=how)
    if isinstance(picture, Image.Image):
        try:
            return upright_rgb(picture, how)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"picture {place} cannot be read as an image ({error})") from error
    if not isinstance(picture, np.ndarray):
        raise ValueError(
            f"picture {place} is {picture!r:.80}, expected a path, a PIL image or an array (height, width, 3) uint8 RGB"
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"picture {place} is an array of shape {picture.shape} and type {picture.dtype}, "
            "expected (height, width, 3) uint8 RGB"
        )
    return Image.fromarray(picture)
