"""Is this copy of a set of categories complete, readable, and free of test images in training?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgvc.datasets import FgvcDataset, load_dataset, official_counts
from reid.data.check import Report, find_broken, find_empty
from reid.data.folders import EVERYTHING, Patterns
from reid.data.overlap import shared_contents, shared_pictures
from reid.data.samples import Sample

COLUMNS = ("split", "images", "official", "classes", "official", "fewest a class", "most a class")  # of `SplitReport`


@dataclass(frozen=True)
class SplitReport:
    """One split: what was found beside the official counts, None where there are none; a class may have no image."""

    images: int
    official_images: int | None
    classes: int
    official_classes: int | None
    fewest: int
    most: int


@dataclass(frozen=True, kw_only=True)
class DatasetReport(Report):
    """What `check` found."""

    splits: Mapping[str, SplitReport]

    def as_text(self) -> str:
        """The report as a short table and a line for each finding."""
        return self.as_table(COLUMNS, {})


def check(
    name: str,
    root: Path,
    *,
    level: str | None = None,
    hash_contents: bool = False,
    wanted: Patterns = EVERYTHING,
) -> DatasetReport:
    """Load a dataset and look for what spoils training or makes results too good; options as in `load_dataset`.

    With `hash_contents` every image is read whole, so that equal images under different names and broken ones are
    found. Raises what `load_dataset` raises.
    """
    dataset = load_dataset(name, root, level=level, wanted=wanted)
    everything = dataset.train + dataset.test
    return DatasetReport(
        dataset=name,
        root=str(dataset.root),
        protocol=dataset.protocol,
        splits={split: _report_split(dataset, split, samples) for split, samples in dataset.splits.items()},
        path_overlap=shared_pictures(dataset.train, dataset.test),
        content_overlap=shared_contents(dataset.train, dataset.test) if hash_contents else None,
        unreadable=tuple((find_broken if hash_contents else find_empty)(everything)),
        warnings=dataset.warnings,
    )


def _report_split(dataset: FgvcDataset, split: str, samples: Sequence[Sample]) -> SplitReport:
    images, classes = official_counts(dataset).get(split, (None, None))
    by_class = Counter(sample.identity for sample in samples)
    counts = [by_class[label] for label in range(len(dataset.classes))]
    return SplitReport(len(samples), images, len(by_class), classes, min(counts), max(counts))
