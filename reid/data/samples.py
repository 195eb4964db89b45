"""What a dataset is, whatever it was read from: labelled images in splits."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

Box = tuple[int, int, int, int]

IMAGE_SUFFIXES: tuple[str, ...] = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif")
IMAGE_SUFFIXES += (".tiff", ".heic", ".heif", ".hif", ".avif", ".ppm", ".pgm")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image, or one labelled box in an image.

    `identity` is the dataset's own number, 0 or more; `camera` counts from 0, and -1 says that it is unknown. `box` is
    (x, y, width, height) in pixels of the upright image. `extra` holds what else is known, as text: the
    further columns of a CSV file, or the `sequence` of a Market-1501 name.
    """

    path: Path
    identity: int
    camera: int = -1
    box: Box | None = None
    # A plain dict, because data loader workers that are spawned get their samples pickled.
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class SplitCounts:
    """Size of one split; unknown cameras do not count as a camera."""

    images: int
    identities: int
    cameras: int


@dataclass(frozen=True)
class LabelledDataset(ABC):
    """Labelled images in splits, with what must be told beside every result on them.

    `protocol` names the choices that decide whether two results are comparable. `understood` says in one line how a
    file of the user's own was read. `warnings` are sentences for the user.
    """

    unit: ClassVar[tuple[str, str]] = ("identity", "identities")  # what labels tell apart, one and several

    name: str
    root: Path
    protocol: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    understood: str = field(default="", kw_only=True)
    warnings: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    @abstractmethod
    def splits(self) -> dict[str, tuple[Sample, ...]]:
        """The samples by split, which is also the name of their field."""

    @property
    def counts(self) -> dict[str, SplitCounts]:
        """Images, identities and cameras by split name."""
        return {split: count_samples(samples) for split, samples in self.splits.items()}


@dataclass(frozen=True)
class ReidDataset(LabelledDataset):
    """Training, query and gallery images of individuals.

    An identity number means the same individual in all three splits. `identity_names` and `camera_names` give back the
    user's own names where the dataset has any.
    """

    train: tuple[Sample, ...]
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]
    identity_names: Mapping[int, str] = field(default_factory=dict, kw_only=True)
    camera_names: Mapping[int, str] = field(default_factory=dict, kw_only=True)

    @property
    def splits(self) -> dict[str, tuple[Sample, ...]]:
        """The samples by split name."""
        return {"train": self.train, "query": self.query, "gallery": self.gallery}

    def identity_name(self, identity: int) -> str:
        """The user's name of an identity, or else its number."""
        return self.identity_names.get(identity, str(identity))

    def camera_name(self, camera: int) -> str:
        """The user's name of a camera, or else its number, counted from 1 as published sets do."""
        return self.camera_names.get(camera, str(camera + 1))


def count_samples(samples: Iterable[Sample]) -> SplitCounts:
    """Count images, different identities and different known cameras."""
    samples = tuple(samples)
    return SplitCounts(
        images=len(samples),
        identities=len({sample.identity for sample in samples}),
        cameras=len({sample.camera for sample in samples} - {-1}),
    )


def is_image(name: str) -> bool:
    """Whether a file name is that of an image, judged by its extension; hidden files are none."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
