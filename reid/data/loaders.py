"""Batches of images: drawn and augmented for training, in order for evaluation."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reid.data.images import read_image
from reid.data.samples import Sample

Transform = Callable[[Image.Image], Tensor]


@dataclass
class Batch:
    """Images (B, 3, height, width) with their class labels (B,) int64 in [0, C), and which samples they are."""

    images: Tensor
    labels: Tensor
    positions: list[int]


class EpochSampler(Protocol):
    """Anything that deals an epoch's batches of sample positions from the epoch's number alone."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int) -> Iterator[list[int]]: ...


class TrainingLoader:
    """Augmented training batches that depend on (seed, epoch) alone, not on workers or on what ran before."""

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: Sequence[int],
        sampler: EpochSampler,
        transform: Transform,
        *,
        seed: int,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """`labels` are the samples' class labels in [0, C); `workers` reading processes, 0 to read in this one."""
        self.samples = samples
        self._draws = _Draws(sampler)
        self._loader: DataLoader[Any] = DataLoader(
            _DrawnImages(samples, labels, transform, seed),
            batch_sampler=self._draws,
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=ignore_interrupts,
            # Without one of its own the loader draws from torch's global generator, and a resumed run would differ.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._draws.sampler)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The epoch's batches, without the first `skip`, which are neither read nor decoded."""
        self._draws.number, self._draws.skip = epoch, skip
        yield from self._loader


class _Draws:
    """The batch sampler under the loader: what to draw, and the place in the epoch that seeds its augmentation."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler
        self.number = self.skip = 0

    def __len__(self) -> int:
        return len(self.sampler) - self.skip

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        place = 0
        for step, batch in enumerate(self.sampler.epoch(self.number)):
            if step >= self.skip:
                yield [(position, self.number, place + i) for i, position in enumerate(batch)]
            place += len(batch)


class _DrawnImages(Dataset[tuple[Tensor, int, int]]):
    def __init__(self, samples: Sequence[Sample], labels: Sequence[int], transform: Transform, seed: int) -> None:
        self.samples, self.labels, self.transform, self.seed = samples, labels, transform, seed

    def __getitem__(self, draw: tuple[int, int, int]) -> tuple[Tensor, int, int]:
        position, epoch, place = draw
        sample = self.samples[position]
        image = read_image(sample.path, sample.box)
        seed = int(np.random.SeedSequence([self.seed, epoch, place]).generate_state(1, np.uint64)[0])
        with torch.random.fork_rng(devices=[]):  # the loop's own random state must not depend on the augmentation
            torch.manual_seed(seed)
            return self.transform(image), self.labels[position], position


def _collate(drawn: list[tuple[Tensor, int, int]]) -> Batch:
    images, labels, positions = zip(*drawn, strict=True)
    return Batch(torch.stack(images), torch.tensor(labels), list(positions))


class EvaluationImages(Dataset[Tensor]):
    """Images in their order, preprocessed: what `Embedder` reads files through."""

    def __init__(self, samples: Sequence[Sample], transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        sample = self.samples[index]
        return self.transform(read_image(sample.path, sample.box))


def ignore_interrupts(worker: int) -> None:
    """Leave Ctrl-C to the main process, which saves first, and let SIGTERM end a reading process as usual."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


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


def worker_count(requested: int, device: str) -> int:
    """Reading processes for `requested`; -1 asks for a good number: none beside a CPU model, up to 8 for a GPU."""
    if requested >= 0:
        return requested
    return 0 if device == "cpu" else min(8, os.cpu_count() or 1)
