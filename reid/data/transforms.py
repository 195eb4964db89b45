"""From an RGB picture to the tensor a model takes: preprocessing, and the augmentation of training."""

from typing import Any

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as T

from reid.data.preprocessing import Preprocessing


def evaluation_transform(preprocessing: Preprocessing) -> T.Compose:
    """PIL RGB to (3, height, width) float32: bicubic resize, its centre where that is larger, then normalisation."""
    steps = _resize(preprocessing)
    if preprocessing.resize:
        steps.append(T.CenterCrop(preprocessing.image_size))
    return T.Compose([*steps, *_to_tensor(preprocessing)])


def training_transform(preprocessing: Preprocessing, *, flip: float, pad: int = 0, erasing: float = 0.0) -> T.Compose:
    """PIL RGB to (3, height, width) float32 with TransReID's augmentation, or the paper's for fine-grained categories.

    Resize, horizontal flip with probability `flip`, `pad` black pixels on every side and a random crop to size (of what
    `preprocessing.resize` leaves, or back to size), normalisation, and with probability `erasing` a random rectangle of
    2 to 33 % filled with noise. Draws from torch's global generator.
    """
    steps: list[Any] = _resize(preprocessing)
    if flip:
        steps.append(T.RandomHorizontalFlip(flip))
    if pad:
        steps.append(T.Pad(pad))
    if pad or preprocessing.resize:
        steps.append(T.RandomCrop(preprocessing.image_size))
    steps += _to_tensor(preprocessing)
    if erasing:
        # torchvision's value="random" fills pixel by pixel with normal noise; one number would paint a flat rectangle.
        steps.append(T.RandomErasing(erasing, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), value="random"))
    return T.Compose(steps)


def _resize(preprocessing: Preprocessing) -> list[Any]:
    size = preprocessing.resize or preprocessing.image_size
    return [T.Resize(list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)]


def _to_tensor(preprocessing: Preprocessing) -> list[Any]:
    return [
        T.ToImage(),
        T.ToDtype(torch.float32, scale=True),
        T.Normalize(list(preprocessing.mean), list(preprocessing.std)),
        T.ToPureTensor(),
    ]
