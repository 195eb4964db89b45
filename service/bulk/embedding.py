"""Features of many photos, by any number of processes and machines, for galleries to import.

A process takes every N-th shard of the list and never waits for another; only the list is made by rank 0 alone. So a
restart may have another number of processes, and goes on from the shards that are there.
"""

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reid.device import choose_device
from reid.inference.embedder import Embedder
from reid.inference.pretrained import ModelSource
from reid.names import Runtime, counted
from reid.progress import Progress
from service.bulk.shards import MANIFEST, SHARD_SIZE, Embedding, FeatureFolder, Shard
from service.bulk.sources import Photo, Source, reason
from service.gallery.decoders import Decoders
from service.gallery.worker import describe_model, order_for
from service.opening import load_embedder
from service.records import Region, UnusableBox, Vectors
from service.settings import Backend, load

log = logging.getLogger("reid")

BOXES_AT_ONCE = 32  # of a photo, which is decoded once for them
INFINITE = "the model's embedding of this image is not finite"


@dataclass(frozen=True)
class Share:
    """Which process this is of how many, over all machines and on this one, as torchrun tells it."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @classmethod
    def from_environment(cls) -> "Share":
        """Raises ValueError for numbers that are none, or a rank outside the world."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        given = {name: os.environ.get(name, default) for name, default in zip(names, "0101", strict=True)}
        try:
            share = cls(*map(int, given.values()))
        except ValueError:
            share = cls(world=0)
        if not 0 <= share.rank < share.world or share.local_world < 1 or share.local_rank < 0:
            told = ", ".join(f"{name}={value}" for name, value in given.items())
            raise ValueError(f"{told} in the environment: expected a rank from 0 to below WORLD_SIZE")
        return share

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world}: " if self.world > 1 else ""


class _Seen(NamedTuple):
    """What the model sees of a photo or a box in it, and the SHA-256 of the photo's bytes."""

    image: Tensor
    sha256: bytes


class _Read(NamedTuple):
    """A photo by its place, and by its place in what `_read` gives of its file."""

    number: int
    line: int
    photo: Photo
    done: "Future[list[_Seen | ValueError]]"
    place: int

    def result(self) -> _Seen:
        """Waits for the file; raises why there is nothing of the photo."""
        seen = self.done.result()[self.place]
        if isinstance(seen, ValueError):
            raise seen
        return seen


def embed_sources(
    model: ModelSource,
    sources: Sequence[Source],
    folder: Path,
    share: Share,
    *,
    device: str = "auto",
    runtime: Runtime = "auto",
    shard_size: int = SHARD_SIZE,
    retry: bool = False,
) -> tuple[int, list[str]]:
    """Make this process's shards of all photos of the sources, with a model; returns as `embed`.

    Rank 0 lists the photos where `folder` has no list yet, and the others wait for it. Raises what loading a model,
    `FeatureFolder` and `embed` raise, and KeyboardInterrupt saying how to go on.
    """
    device = str(choose_device(device))
    if device == "cuda":  # of more processes than cards, several share one
        device = f"cuda:{share.local_rank % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    embedder, trained, model_id = load_embedder(model, device, runtime)
    embedding = Embedding(
        model_id=model_id,
        dimension=embedder.size,
        description=describe_model(embedder),
        preprocessing=trained.preprocessing.as_json(),
    )
    if share.rank == 0 and not (folder / MANIFEST).exists():
        log.info("listing the photos")
        features = FeatureFolder.create(folder, sources, embedding, shard_size)
    else:
        features = FeatureFolder.wait(folder)
    features.require(sources, embedding)
    if share.rank == 0:
        log.info("%s: %s in %s", folder, counted(features.manifest.photos, "photo"), counted(len(features), "shard"))
    try:
        return embed(embedder, features, share, retry=retry)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("given again, the command goes on from there") from None


def embed(embedder: Embedder, features: FeatureFolder, share: Share, *, retry: bool = False) -> tuple[int, list[str]]:
    """Make this process's shards, all that are not there yet or damaged; with `retry`, those with failures too.

    Returns how many photos of this process's shards have features, and a line for each that has none. Raises OSError
    where none of a shard's photos can be read, as when a disk is not mounted, and when a shard cannot be written.
    """
    embedded, failures = 0, list[str]()
    missing = []
    for number in range(share.rank, len(features), share.world):
        try:
            shard = features.read(number)
        except ValueError as error:
            log.warning("warning: %s: made anew", str(error).partition(";")[0])
            shard = None
        if shard is None or (retry and shard.failures):
            missing.append(number)
        else:
            embedded += len(shard.lines)
            failures += _told(features.photos(number), shard)
    total = sum(features.size(number) for number in missing)
    progress = Progress(f"{share}embedding", bar=share.world == 1)
    threads = max(1, (os.cpu_count() or 1) // share.local_world)
    done = 0

    def advance(photos: int) -> None:
        nonlocal done
        done += photos
        progress(done, total)

    with (
        Decoders(threads + 1, load(Backend).decode_seconds) as decoders,
        ThreadPoolExecutor(threads, "reading") as pool,
    ):
        # One batch beyond that which the model works on, so that it never waits for a disk that is fast enough.
        reads = _ahead(partial(_read, embedder, decoders), features, missing, pool, embedder.batch_size + threads)
        try:
            for number, run in groupby(reads, key=attrgetter("number")):
                shard = _embed_shard(embedder, number, run, advance)
                features.write(number, shard)
                embedded += len(shard.lines)
                failures += _told(features.photos(number), shard)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            progress.close()
    return embedded, failures


def _ahead(
    read: Callable[[Sequence[Photo]], list[_Seen | ValueError]],
    features: FeatureFolder,
    numbers: Iterable[int],
    pool: ThreadPoolExecutor,
    most: int,
) -> Iterator[_Read]:
    """The photos of shards in their order, while `most` that come after are read and decoded."""
    waiting: deque[_Read] = deque()
    for number in numbers:
        listed = enumerate(features.photos(number))
        for _, boxes in groupby(listed, key=lambda one: one[1].path):  # which tables list one after the other
            while run := list(islice(boxes, BOXES_AT_ONCE)):
                done = pool.submit(read, [photo for _, photo in run])
                waiting.extend(_Read(number, line, photo, done, place) for place, (line, photo) in enumerate(run))
                while len(waiting) > most:
                    yield waiting.popleft()
    yield from waiting


def _read(embedder: Embedder, decoders: Decoders, photos: Sequence[Photo]) -> list[_Seen | ValueError]:
    """What the model sees of boxes in one file, which is decoded once; refuses whatever a gallery would.

    Raises OSError for a file that cannot be read, and as `decode`.
    """
    data = photos[0].path.read_bytes()
    regions: dict[int, Region | None] = {}
    seen: dict[int, _Seen | ValueError] = {}
    for place, photo in enumerate(photos):
        try:
            photo.details()
            regions[place] = photo.region()
        except ValueError as error:
            seen[place] = error
    rendered = decoders.render("reid-embed", data, order_for(embedder, regions.values(), "view"))
    sha256 = hashlib.sha256(data).digest()
    for place, part in zip(regions, rendered.parts, strict=True):
        seen[place] = part if isinstance(part, UnusableBox) else _Seen(embedder.prepare(part[0]), sha256)
    return [seen[place] for place in range(len(photos))]


def _embed_shard(embedder: Embedder, number: int, run: Iterable[_Read], advance: Callable[[int], None]) -> Shard:
    """Embed a run of photos in batches that depend on the run alone, so that every process makes the same of it."""
    made: list[tuple[int, bytes, Vectors]] = []
    batch: list[tuple[int, bytes, Tensor]] = []
    failures: dict[int, str] = {}
    unread: list[_Read] = []

    def flush() -> None:
        if batch:
            rows = embedder.embed_prepared(torch.stack([image for _, _, image in batch]))
            made.extend((line, sha256, row) for (line, sha256, _), row in zip(batch, rows, strict=True))
            advance(len(batch))
            batch.clear()

    count = 0
    for read in run:
        count += 1
        try:
            image, sha256 = read.result()
            batch.append((read.line, sha256, image))
        except (OSError, ValueError) as error:
            failures[read.line] = reason(error)
            unread += [read] if isinstance(error, OSError) else []
            advance(1)
        if len(batch) == embedder.batch_size:
            flush()
    flush()
    if len(unread) == count:
        first = f"{unread[0].photo.path}: {failures[unread[0].line]}"
        raise OSError(f"none of the {count} photos of shard {number} can be read; the first is {first}")
    failures |= {line: INFINITE for line, _, row in made if not np.isfinite(row).all()}
    made = [one for one in made if one[0] not in failures]
    return Shard(
        np.array([line for line, _, _ in made], np.int64),
        np.stack([row for _, _, row in made]) if made else np.empty((0, embedder.size), np.float32),
        np.frombuffer(b"".join(sha256 for _, sha256, _ in made), np.uint8).reshape(-1, 32),
        dict(sorted(failures.items())),
    )


def _told(photos: Sequence[Photo], shard: Shard) -> list[str]:
    return [f"{photos[line]}: {why}" for line, why in shard.failures.items()]
