"""Which cameras and views a model with side information knows, by the names that its training images had."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from reid.data.samples import ReidDataset, Sample
from reid.names import SideKind

log = logging.getLogger("reid")


@dataclass(frozen=True)
class SideInfo:
    """Cameras and views by name, each empty where it is not used; a combination of the two is a side.

    Of a `numbered` model, which keeps no names, sides are the cameras of a dataset that has just as many.
    """

    cameras: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    numbered: bool = False

    @classmethod
    def of(cls, kind: SideKind, dataset: ReidDataset) -> "SideInfo":
        """Those of a dataset's training images; empty, with a warning, where none is known, or one alone.

        The view is the column `view` of a CSV file.
        """
        found = {"camera": set[str](), "view": set[str]()}
        for sample in dataset.train:
            for what, name in (("camera", _camera(dataset, sample)), ("view", sample.extra.get("view", ""))):
                if what in kind.split("+") and name:
                    found[what].add(name)
        missing = [what for what in kind.split("+") if not found[what]]
        if missing:
            log.warning("warning: no %s is known of the training images: side information is left out", missing[0])
            return cls()
        sides = cls(tuple(sorted(found["camera"])), tuple(sorted(found["view"])))
        if len(sides) == 1:
            log.warning("warning: all training images are of one %s: side information is left out", kind)
            return cls()
        return sides

    @classmethod
    def by_number(cls, count: int) -> "SideInfo":
        """`count` sides that are known by their number alone."""
        return cls(tuple(map(str, range(count))), numbered=True)

    def __len__(self) -> int:
        """How many sides there are; 0 where side information is not used."""
        return max(1, len(self.cameras)) * max(1, len(self.views)) if self.cameras or self.views else 0

    def of_samples(self, dataset: ReidDataset, samples: Sequence[Sample]) -> list[int]:
        """The side of each image, -1 where camera or view are unknown or were not trained on; warns of those."""
        found = {sample.camera for split in dataset.splits.values() for sample in split} - {-1}
        if self.numbered and found != set(range(len(self))):
            log.warning(
                "warning: the model knows %d combinations of camera and view, and %s has %d cameras: the images get no "
                "side information, with which the model was trained",
                len(self),
                dataset.name,
                len(found),
            )
            return [-1] * len(samples)
        sides = [self._side(dataset, sample) for sample in samples]
        if unknown := sides.count(-1):
            log.warning(
                "warning: %d of %d images of %s are of cameras or views that the model was not trained on: they get no "
                "side information",
                unknown,
                len(sides),
                dataset.name,
            )
        return sides

    def _side(self, dataset: ReidDataset, sample: Sample) -> int:
        camera, view = _camera(dataset, sample), sample.extra.get("view", "")
        if self.numbered:
            return sample.camera
        if (self.cameras and camera not in self.cameras) or (self.views and view not in self.views):
            return -1
        row = self.cameras.index(camera) if self.cameras else 0
        return row * len(self.views) + self.views.index(view) if self.views else row


def _camera(dataset: ReidDataset, sample: Sample) -> str:
    """The camera's own name; one with a number alone is not the camera of this number in another dataset."""
    if sample.camera < 0:
        return ""
    return dataset.camera_names.get(sample.camera, f"{dataset.name} {sample.camera}")
