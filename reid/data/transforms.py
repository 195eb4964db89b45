"""From an RGB picture to the tensor a model takes: preprocessing, and the augmentation of training."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as T


@dataclass(frozen=True)
class Preprocessing:
    """What turns a picture into model input; stored with every checkpoint, so that served is what was measured.

    `image_size` is (height, width) in pixels; `mean` and `std` are per channel, for RGB in [0, 1].
    """

    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def as_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of `as_json`."""
        return cls(tuple(values["image_size"]), tuple(values["mean"]), tuple(values["std"]))


def evaluation_transform(preprocessing: Preprocessing) -> T.Compose:
    """PIL RGB to (3, height, width) float32: bicubic resize, then normalisation."""
    return T.Compose([*_resize(preprocessing), *_to_tensor(preprocessing)])


def training_transform(preprocessing: Preprocessing, *, flip: float, pad: int, erasing: float) -> T.Compose:
    """PIL RGB to (3, height, width) float32 with TransReID's augmentation.

    Resize, horizontal flip with probability `flip`, `pad` black pixels on every side and a random crop back to size,
    normalisation, and with probability `erasing` a random rectangle of 2 to 33 % filled with noise. Draws from torch's
    global generator.
    """
    steps: list[Any] = _resize(preprocessing)
    if flip:
        steps.append(T.RandomHorizontalFlip(flip))
    if pad:
        steps += [T.Pad(pad), T.RandomCrop(preprocessing.image_size)]
    steps += _to_tensor(preprocessing)
    if erasing:
        # torchvision's value="random" fills pixel by pixel with normal noise; one number would paint a flat rectangle.
        steps.append(T.RandomErasing(erasing, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), value="random"))
    return T.Compose(steps)


def _resize(preprocessing: Preprocessing) -> list[Any]:
    return [T.Resize(list(preprocessing.image_size), interpolation=InterpolationMode.BICUBIC, antialias=True)]


def _to_tensor(preprocessing: Preprocessing) -> list[Any]:
    return [
        T.ToImage(),
        T.ToDtype(torch.float32, scale=True),
        T.Normalize(list(preprocessing.mean), list(preprocessing.std)),
        T.ToPureTensor(),
    ]
