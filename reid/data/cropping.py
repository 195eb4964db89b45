"""Images of a dataset cropped to the box that a detector found in each."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from reid.data.detections import Detections
from reid.data.images import UnknownFormat, UnusableImage, upright_size
from reid.data.samples import Box, LabelledDataset, Sample
from reid.names import counted
from reid.progress import track

Data = TypeVar("Data", bound=LabelledDataset)


def crop_to_boxes(dataset: Data, detections: Detections, *, whole: bool = False) -> Data:
    """The dataset with each image that has no box yet cropped to the one that a detector found in it.

    Of an image with several boxes nobody knows which of them its label means: it is left out, with a warning that
    counts. So is one without any, unless it is to be taken `whole`, and one whose boxes cannot be used, which is named.
    Images that cannot be read stay as they are. Raises ValueError as `Detections.match` does.
    """
    samples = [sample for split in dataset.splits.values() for sample in split if sample.box is None]
    paths = list(dict.fromkeys(sample.path for sample in samples))
    names = detections.match(paths)
    told: Counter[str] = Counter()
    boxed: dict[Path, list[Box] | None] = {}
    unusable: dict[Path, str] = {}
    for path in track(paths, len(paths), "placing boxes"):
        try:
            boxed[path] = _boxes(path, names.get(path), detections)
        except ValueError as error:
            unusable[path] = f"{path}: {error}"

    def cropped(sample: Sample) -> list[Sample]:
        if sample.box is None and sample.path in unusable:
            told["unusable"] += 1
            return []
        found = None if sample.box is not None else boxed[sample.path]
        if found is None:
            return [sample]
        if len(found) == 1:
            told["cropped"] += 1
            return [replace(sample, box=found[0])]
        told["several" if found else "none"] += 1
        return [sample] if whole and not found else []

    splits: dict[str, Any] = {
        split: tuple(kept for sample in given for kept in cropped(sample)) for split, given in dataset.splits.items()
    }
    words = [f"{counted(told['cropped'], 'image')} cropped to a box by {detections.origin}"]
    words += [f"{told['several']:,} with several boxes left out"] if told["several"] else []
    words += [f"{told['none']:,} without a box {'taken whole' if whole else 'left out'}"] if told["none"] else []
    if unusable:
        first = next(iter(unusable.values()))
        words.append(f"{told['unusable']:,} with boxes that cannot be used left out, the first: {first}")
    if left_out := +detections.left_out:
        words.append("boxes left out: " + ", ".join(f"{boxes:,} {why}" for why, boxes in left_out.most_common()))
    words += [f"{detections.clipped:,} clipped to their picture"] if detections.clipped else []
    warnings = (*dataset.warnings, f"{dataset.name}: {'; '.join(words)}")
    return replace(dataset, **splits, warnings=warnings, protocol={**dataset.protocol, "boxes": detections.chosen})


def _boxes(path: Path, name: str | None, detections: Detections) -> list[Box] | None:
    """The boxes of an image; None for one that cannot be read. Raises ValueError for boxes that cannot be used."""
    try:
        size = upright_size(path)
    except (OSError, UnknownFormat, UnusableImage):
        return None
    return [] if name is None else [one.box for one in detections.of(name, size) or ()]
