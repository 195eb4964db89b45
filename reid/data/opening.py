"""What every dataset goes through before its images are used."""

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from reid.config import DataOptions
from reid.data.cropping import crop_to_boxes
from reid.data.detections import Detections
from reid.data.images import outside, read_image, upright_size
from reid.data.samples import LabelledDataset, Sample
from reid.names import counted
from reid.progress import track

log = logging.getLogger("reid")

Data = TypeVar("Data", bound=LabelledDataset)

TAIL = 32  # bytes in which a whole file ends


def make_usable(dataset: Data, options: DataOptions, splits: Collection[str] | None = None) -> Data:
    """Crop to detected boxes if the options say so, and look at every image of the `splits` (all by default).

    What cannot be read is left out, if the options say so. Counts and warnings are logged. Raises what `Detections` and
    `crop_to_boxes` raise, and ValueError, naming the first, where images cannot be read and are not left out.
    """
    if options.detections:
        categories = [options.category] if options.category else []
        detections = Detections(Path(options.detections), least=options.min_confidence, categories=categories)
        dataset = crop_to_boxes(dataset, detections, whole=options.whole)
    if options.on_error == "skip":
        dataset = without_unreadable(dataset, splits)
    for warning in dataset.warnings:
        log.warning("warning: %s", warning)
    counts = (
        f"{split} {counted(count.images, 'image')} of {counted(count.identities, *dataset.unit)}"
        for split, count in dataset.counts.items()
    )
    log.info("%s: %s", dataset.name, ", ".join(counts))
    if options.on_error == "raise":
        require_readable(dataset, splits)
    return dataset


def require_readable(dataset: LabelledDataset, splits: Collection[str] | None = None) -> None:
    """Raise ValueError, naming the first, where images cannot be read, by their headers and ends.

    So an epoch, or an evaluation after many, does not end with the one file that was not copied whole.
    """
    for split, samples in dataset.splits.items():
        if splits is not None and split not in splits:
            continue
        problems = [problem for problem in _each(find_problem, samples, f"looking at {split}") if problem]
        if problems:
            raise ValueError(
                f"{dataset.name} {split}: {len(problems):,} of {len(samples):,} images cannot be read, the first: "
                f"{problems[0]} (on_error=skip leaves them out)"
            )


def without_unreadable(dataset: Data, splits: Collection[str] | None = None) -> Data:
    """The dataset without the images that cannot be read, and with a warning that counts them; reads every image."""
    kept: dict[str, Any] = {}
    problems: list[str] = []
    for split, samples in dataset.splits.items():
        if splits is None or split in splits:
            kept[split], unreadable = drop_unreadable(samples)
            problems += unreadable
    if not problems:
        return dataset
    told = counted(len(problems), "image cannot be read and is", "images cannot be read and are")
    warning = f"{told} left out, the first: {problems[0]}"
    return replace(dataset, **kept, warnings=(*dataset.warnings, warning))


def drop_unreadable(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], list[str]]:
    """Read every image once; return the samples that can be read, and a message for each that cannot."""
    problems = _each(_read, samples, "reading")
    kept = tuple(sample for sample, message in zip(samples, problems, strict=True) if not message)
    return kept, [message for message in problems if message]


def find_problem(sample: Sample) -> str:
    """Why a sample cannot be read, or nothing: its header is read, and the whole where the file may have been cut."""
    try:
        if not _ends_well(sample.path):
            return _read(sample)
        width, height = upright_size(sample.path)
        return outside(sample.path, sample.box, width, height)
    except (OSError, ValueError) as error:
        return str(error)


def _read(sample: Sample) -> str:
    try:
        read_image(sample.path, sample.box)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _ends_well(path: Path) -> bool:
    """Whether a JPEG, PNG or WebP file ends as a whole one does; of another it is not known."""
    with path.open("rb") as file:
        head = file.read(12)
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL))
        tail = file.read()
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in tail
    if head.startswith(b"\x89PNG"):
        return b"IEND" in tail
    return head.startswith(b"RIFF") and int.from_bytes(head[4:8], "little") + 8 <= size


def _each(look: Callable[[Sample], str], samples: Sequence[Sample], what: str) -> list[str]:
    with ThreadPoolExecutor() as pool:  # Pillow decodes, and files are read, outside the interpreter lock
        return list(track(pool.map(look, samples), len(samples), what))
