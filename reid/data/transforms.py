"""From an RGB picture to the tensor a model takes: preprocessing, and the augmentation of training."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as T

from reid.data.preprocessing import Preprocessing


def evaluation_transform(preprocessing: Preprocessing) -> T.Compose:
    """PIL RGB to (3, height, width) float32: bicubic resize, its centre where that is larger, then normalisation."""
    steps = _resize(preprocessing)
    if preprocessing.resize:
        steps.append(T.CenterCrop(preprocessing.image_size))
    return T.Compose([*steps, ToTensor(preprocessing)])


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
    steps.append(ToTensor(preprocessing))
    if erasing:
        # torchvision's value="random" fills pixel by pixel with normal noise; one number would paint a flat rectangle.
        steps.append(T.RandomErasing(erasing, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), value="random"))
    return T.Compose(steps)


def _resize(preprocessing: Preprocessing) -> list[Any]:
    size = preprocessing.resize or preprocessing.image_size
    return [T.Resize(list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)]


class ToTensor:
    """A PIL RGB picture to normalised values (3, height, width) float32.

    To the bit what torchvision's ToImage, ToDtype and Normalize give, in a third of their time.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._mean, self._std = (torch.tensor(three).view(3, 1, 1) for three in (preprocessing.mean, preprocessing.std))

    def __call__(self, picture: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return values.mul_(1 / 255).sub_(self._mean).div_(self._std)
