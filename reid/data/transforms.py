"""From an RGB picture to the tensor a model takes: preprocessing, and the augmentation of training."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as T


@dataclass(frozen=True)
class Preprocessing:
    """What turns a picture into model input; stored with every checkpoint, so that served is what was measured.

    `image_size` is (height, width) in pixels; `mean` and `std` are per channel, for RGB in [0, 1]. Where `resize` is
    given, the picture is resized to that (height, width) and `image_size` is its centre. `profiles` says whether
    embedded colour profiles are applied, as `upright_rgb` does; models trained before that was so go without.
    """

    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: tuple[int, int] | None = None
    profiles: bool = False

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """The part of the picture that the model sees: (x, y, width, height) as shares of its width and height."""
        (height, width), (whole_height, whole_width) = self.image_size, self.resize or self.image_size
        left, top = round((whole_width - width) / 2), round((whole_height - height) / 2)
        return left / whole_width, top / whole_height, width / whole_width, height / whole_height

    def as_json(self) -> dict[str, Any]:
        """Plain lists and numbers; without what is not used, so that the names of models stay what they were."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of `as_json`."""
        resize = values.get("resize")
        sizes = tuple(values["image_size"]), tuple(resize) if resize else None
        return cls(sizes[0], tuple(values["mean"]), tuple(values["std"]), sizes[1], values.get("profiles", False))


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
