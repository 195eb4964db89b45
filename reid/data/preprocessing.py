"""How a picture becomes model input, in numbers; `transforms` does it."""

from dataclasses import asdict, dataclass, replace
from typing import Any

SPARE = 5  # times what a model is given a side is enough to decode; `benchmarks.ingest` shows what that changes


@dataclass(frozen=True)
class Decoding:
    """How the bytes of a picture become pixels.

    `profiles` says whether embedded colour profiles are applied. Where `enough` (height, width) is given, a JPEG that
    is larger is decoded at the smallest scale, an eighth at least, that leaves so many pixels of the upright picture.
    """

    profiles: bool = True
    enough: tuple[int, int] | None = None

    @classmethod
    def for_model(cls, height: int, width: int) -> "Decoding":
        """How pictures are decoded for a model that is trained now and is given so many pixels."""
        return cls(enough=(SPARE * height, SPARE * width))

    @property
    def in_full(self) -> "Decoding":
        """The same, at the size that the picture has."""
        return replace(self, enough=None)

    def at_least(self, side: int) -> "Decoding":
        """The same, but never smaller than `side` pixels a side."""
        if self.enough is None:
            return self
        height, width = self.enough
        return replace(self, enough=(max(side, height), max(side, width)))


AS_SHOWN = Decoding()  # as people see it


@dataclass(frozen=True)
class Preprocessing:
    """What turns a picture into model input; stored with every checkpoint, so that served is what was measured.

    `image_size` is (height, width) in pixels; `mean` and `std` are per channel, for RGB in [0, 1]. Where `resize` is
    given, the picture is resized to that (height, width) and `image_size` is its centre. `profiles` and `enough` are
    those of `Decoding`; models trained before there were such go without.
    """

    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: tuple[int, int] | None = None
    profiles: bool = False
    enough: tuple[int, int] | None = None

    @property
    def decoding(self) -> Decoding:
        """How pictures are decoded for it."""
        return Decoding(self.profiles, self.enough)

    @property
    def resized(self) -> tuple[int, int]:
        """The (height, width) to which a whole picture is resized."""
        return self.resize or self.image_size

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """The part of the picture that the model sees: (x, y, width, height) as shares of its width and height."""
        (height, width), (whole_height, whole_width) = self.image_size, self.resized
        left, top = round((whole_width - width) / 2), round((whole_height - height) / 2)
        return left / whole_width, top / whole_height, width / whole_width, height / whole_height

    def as_json(self) -> dict[str, Any]:
        """Plain lists and numbers; without what is not used, so that the names of models stay what they were."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of `as_json`."""
        sizes = {name: tuple(values[name]) for name in ("resize", "enough") if values.get(name)}
        required = {name: tuple(values[name]) for name in ("image_size", "mean", "std")}
        return cls(**required, **sizes, profiles=values.get("profiles", False))
