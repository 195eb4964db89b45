"""Batches of images: drawn and augmented for training, in order for evaluation."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reid.data.images import read_image
from reid.data.preprocessing import AS_SHOWN, Decoding
from reid.data.samples import Sample

Transform = Callable[[Image.Image], Tensor]


@dataclass
class Batch:
    """Images (B, 3, height, width) with their class labels (B,) int64 in [0, C), and which samples they are.

    `sides` (B,) int64 are their combinations of camera and view, -1 for unknown, where the model is told of them. Of a
    batch that is shared out over N processes, labels and positions are whole; images and sides are the B / N of this
    process.
    """

    images: Tensor
    labels: Tensor
    positions: list[int]
    sides: Tensor | None = None


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
        sides: Sequence[int] | None = None,
        share: slice = slice(None),
        how: Decoding = AS_SHOWN,
    ) -> None:
        """`labels` are the samples' class labels in [0, C); `workers` reading processes, 0 to read in this one.

        `sides` are the samples' combinations of camera and view, for a model that is told of them. `share` is what of
        each batch this process reads. `how` as for `read_image`.
        """
        self.samples, self.labels, self.how = samples, labels, how
        self._all_labels = torch.tensor(labels)
        self._sides = None if sides is None else torch.tensor(sides)
        self._draws = _Draws(sampler, share)
        self._loader: DataLoader[Any] = DataLoader(
            _DrawnImages(samples, transform, seed, how),
            batch_sampler=self._draws,
            num_workers=workers,
            collate_fn=_stack,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=leave_signals_to_main,
            # Without one of its own the loader draws from torch's global generator, and a resumed run would differ.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._draws.sampler)

    @property
    def fingerprint(self) -> str:
        """A hash of the images' names and labels in their order: what a resumed run must train on again."""
        pairs = zip(self.samples, self.labels, strict=True)
        lines = [f"{sample.path.name} {sample.box} {label}\n" for sample, label in pairs]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The epoch's batches, without the first `skip`, which are neither read nor decoded.

        Raises ValueError or FileNotFoundError naming an image that cannot be read.
        """
        self._draws.number, self._draws.skip = epoch, skip
        batches = islice(self._draws.sampler.epoch(epoch), skip, None)
        for positions, images in zip(batches, self._loader, strict=True):
            if isinstance(images, Exception):
                raise images
            sides = None if self._sides is None else self._sides[positions[self._draws.share]]
            yield Batch(images, self._all_labels[positions], positions, sides)


class _Draws:
    """The batch sampler under the loader: what to draw, and the place in the epoch that seeds its augmentation."""

    def __init__(self, sampler: EpochSampler, share: slice) -> None:
        self.sampler, self.share = sampler, share
        self.number = self.skip = 0

    def __len__(self) -> int:
        return len(self.sampler) - self.skip

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        place = 0
        for step, batch in enumerate(self.sampler.epoch(self.number)):
            if step >= self.skip:
                yield [(position, self.number, place + i) for i, position in enumerate(batch)][self.share]
            place += len(batch)


class _DrawnImages(Dataset[Tensor | Exception]):
    def __init__(self, samples: Sequence[Sample], transform: Transform, seed: int, how: Decoding) -> None:
        self.samples, self.transform, self.seed, self.how = samples, transform, seed, how

    def __getitem__(self, draw: tuple[int, int, int]) -> Tensor | Exception:
        position, epoch, place = draw
        image = _read(self.samples[position], self.how)
        if isinstance(image, Exception):
            return image
        seed = int(np.random.SeedSequence([self.seed, epoch, place]).generate_state(1, np.uint64)[0])
        with torch.random.fork_rng(devices=[]):  # the loop's own random state must not depend on the augmentation
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the GPU's generator too
            return self.transform(image)


def _read(sample: Sample, how: Decoding) -> Image.Image | Exception:
    """The image, or why not: an error raised in a reading process would arrive wrapped in that process's traceback."""
    try:
        return read_image(sample.path, sample.box, how)
    except (OSError, ValueError) as error:
        return error.with_traceback(None)


def evaluation_batches(
    samples: Sequence[Sample],
    transform: Transform,
    batches: Sequence[list[int]],
    *,
    workers: int,
    pin_memory: bool,
    how: Decoding = AS_SHOWN,
) -> DataLoader[Tensor | Exception]:
    """The samples at each batch's places, preprocessed, (B, 3, height, width); an exception for one unreadable."""
    return DataLoader(
        _PreparedImages(samples, transform, how),
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_stack,
        worker_init_fn=leave_signals_to_main,
        generator=torch.Generator(),  # an evaluation must not move the training's random numbers
    )


class _PreparedImages(Dataset[Tensor | Exception]):
    def __init__(self, samples: Sequence[Sample], transform: Transform, how: Decoding) -> None:
        self.samples, self.transform, self.how = samples, transform, how

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor | Exception:
        image = _read(self.samples[index], self.how)
        return image if isinstance(image, Exception) else self.transform(image)


def _stack(images: list[Tensor | Exception]) -> Tensor | Exception:
    whole = [image for image in images if not isinstance(image, Exception)]
    return torch.stack(whole) if len(whole) == len(images) else next(i for i in images if isinstance(i, Exception))


def leave_signals_to_main(worker: int) -> None:
    """Keep a reading process out of reach of Ctrl-C, and of torchrun's SIGTERM to all: the main process saves first.

    Its own SIGTERM ends it as usual.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def worker_count(requested: int, device: str) -> int:
    """Reading processes for `requested`; -1 asks for a good number: none beside a CPU model, up to 8 for a GPU."""
    if requested >= 0:
        return requested
    return 0 if device == "cpu" else min(8, os.cpu_count() or 1)
