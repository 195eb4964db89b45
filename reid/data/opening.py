"""What every dataset goes through before its images are used."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from reid.config import DataOptions
from reid.data.images import read_image
from reid.data.samples import LabelledDataset, Sample

log = logging.getLogger("reid")

Data = TypeVar("Data", bound=LabelledDataset)


def make_usable(dataset: Data, options: DataOptions) -> Data:
    """Leave out what cannot be read, if the options say so; log counts and warnings."""
    if options.on_error == "skip":
        dataset = without_unreadable(dataset)
    for warning in dataset.warnings:
        log.warning("warning: %s", warning)
    counts = (
        f"{split} {count.images} images of {count.identities} {dataset.unit}" for split, count in dataset.counts.items()
    )
    log.info("%s: %s", dataset.name, ", ".join(counts))
    return dataset


def without_unreadable(dataset: Data) -> Data:
    """The dataset without the images that cannot be read, and with a warning that counts them; reads every image."""
    kept: dict[str, Any] = {}
    problems: list[str] = []
    for split, samples in dataset.splits.items():
        kept[split], unreadable = drop_unreadable(samples)
        problems += unreadable
    if not problems:
        return dataset
    warning = f"{len(problems)} images cannot be read and are left out, the first: {problems[0]}"
    return replace(dataset, **kept, warnings=(*dataset.warnings, warning))


def drop_unreadable(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], list[str]]:
    """Read every image once; return the samples that can be read, and a message for each that cannot."""

    def problem(sample: Sample) -> str | None:
        try:
            read_image(sample.path, sample.box)
        except (OSError, ValueError) as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        problems = list(pool.map(problem, samples))
    kept = tuple(sample for sample, message in zip(samples, problems, strict=True) if message is None)
    return kept, [message for message in problems if message is not None]
