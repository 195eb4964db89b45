"""How a picture becomes model input, in numbers; `transforms` does it."""

from dataclasses import asdict, dataclass
from typing import Any


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
