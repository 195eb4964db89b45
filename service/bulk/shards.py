"""Features of many photos in a folder: fixed runs of the list of photos, each with a file of its features beside it.

`manifest.json` tells what was embedded and by which model. `00000000.jsonl` lists the first run of photos, one a line,
and `00000000.safetensors` holds what the model made of them. Every file appears whole or not at all, the manifest after
all the lists. E is the embedding size.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from reid.files import write_text, write_whole
from service.bulk.sources import Photo, Source
from service.records import Vectors

log = logging.getLogger("reid")

MANIFEST = "manifest.json"
MADE = "made"  # the entry of a shard's metadata
SHARD_SIZE = 4096
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_LINES = 30.0

_OURS = re.compile(r"\d{8}\.(jsonl|safetensors)|\.(\d{8}\.jsonl|\d{8}\.safetensors|manifest\.json)\.tmp")


class Embedding(BaseModel):
    """The model that made the features, and what else decides how they came about."""

    model_config = ConfigDict(frozen=True)

    model_id: str
    dimension: int
    description: dict[str, Any]
    preprocessing: dict[str, Any]


class Manifest(BaseModel):
    """What was embedded. `sources` tell it in words, `roots` are where their photos lie.

    `lists` are the SHA-256 of the files that list the photos.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["1"] = "1"
    sources: tuple[str, ...]
    roots: tuple[str, ...]
    photos: int
    shard_size: int
    lists: tuple[str, ...]
    embedding: Embedding


@dataclass(frozen=True, eq=False)
class Shard:
    """What became of a run of photos: `features` (n, E) float32 of those at `lines` (n,) int64 of their list.

    `sha256` (n, 32) uint8 are of the bytes that were embedded. `failures` tell why the others could not be.
    """

    lines: npt.NDArray[np.int64]
    features: Vectors
    sha256: npt.NDArray[np.uint8]
    failures: Mapping[int, str]


class FeatureFolder:
    """A folder of features, complete or not. What is written to it is on the disk and stays as it is."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a folder whose photos are listed; raises FileNotFoundError, and ValueError for a damaged manifest."""
        path = folder / MANIFEST
        try:
            return cls(folder, Manifest.model_validate_json(path.read_bytes()))
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder}: no features, for there is no {MANIFEST} in it") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path}: not a manifest of reid-embed ({where}: {first['msg']})") from None

    @classmethod
    def create(
        cls, folder: Path, sources: Sequence[Source], embedding: Embedding, shard_size: int = SHARD_SIZE
    ) -> Self:
        """List the photos of the sources into a new or empty folder, or one where that was cut short.

        Raises ValueError for a folder that holds other files, and what the sources raise.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if strange := [name for name in sorted(os.listdir(folder)) if not _OURS.fullmatch(name)]:
            raise ValueError(
                f"{folder}: holds {strange[0]!r} but no {MANIFEST}; expected features, or a new or empty folder"
            )
        lines = _lines(sources)
        lists: list[str] = []
        count, told = 0, time.monotonic()
        while portion := list(islice(lines, shard_size)):
            text = "".join(portion)
            write_text(_list_file(folder, len(lists)), text)
            lists.append(hashlib.sha256(text.encode()).hexdigest())
            count += len(portion)
            if time.monotonic() - told >= SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                log.info("listing: %s photos so far", f"{count:,}")
        manifest = Manifest(
            sources=tuple(source.description for source in sources),
            roots=tuple(os.fspath(source.root) for source in sources),
            photos=count,
            shard_size=shard_size,
            lists=tuple(lists),
            embedding=embedding,
        )
        write_text(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        return cls(folder, manifest)

    @classmethod
    def wait(cls, folder: Path) -> Self:
        """Open a folder once another process has listed its photos."""
        told = time.monotonic()
        while not (folder / MANIFEST).exists():
            if time.monotonic() - told >= SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                log.info("%s: waiting for the process of rank 0 to list the photos", folder)
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return cls.open(folder)

    def require(self, sources: Sequence[Source], embedding: Embedding) -> None:
        """Raise ValueError, naming both, unless these are the sources and the model that the folder is of."""
        asked = [source.description for source in sources]
        if asked != list(self.manifest.sources):
            given, there = (", ".join(words) for words in (asked, self.manifest.sources))
            raise ValueError(f"{self.folder}: holds features of {there}, not of {given}; give another --output")
        if embedding.model_id != self.manifest.embedding.model_id:
            raise ValueError(
                f"{self.folder}: holds features of model {self.manifest.embedding.model_id}, not of model "
                f"{embedding.model_id}; give another --output"
            )

    def __len__(self) -> int:
        """The number of shards, made or not."""
        return len(self.manifest.lists)

    def size(self, number: int) -> int:
        """How many photos a shard has in its list."""
        return min(self.manifest.shard_size, self.manifest.photos - number * self.manifest.shard_size)

    def photos(self, number: int, roots: Sequence[Path] = ()) -> list[Photo]:
        """The photos of a shard, below the `roots` if they lie elsewhere now; raises ValueError for a damaged list."""
        places = roots or [Path(root) for root in self.manifest.roots]
        path = _list_file(self.folder, number)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest.lists[number]:
            raise ValueError(f"{path}: damaged, for it is not what {MANIFEST} says; embed into another folder")
        rows = [json.loads(line) for line in data.splitlines()]
        return [Photo(places[row["source"]] / row["path"], row["name"], row["cells"]) for row in rows]

    def write(self, number: int, shard: Shard) -> None:
        """Keep a shard; raises OSError when it cannot be written."""
        tensors: dict[str, np.ndarray] = {"lines": shard.lines, "features": shard.features, "sha256": shard.sha256}
        failures = json.dumps(shard.failures)
        # One entry, for of several the order is left to chance; and its save_file makes files for one user alone.
        made = json.dumps({"failures": failures, "checksum": self._checksum(number, tensors, failures)})
        data = save(tensors, {MADE: made})

        def write(temporary: Path) -> None:
            temporary.write_bytes(data)

        write_whole(self._file(number), write)

    def read(self, number: int) -> Shard | None:
        """A shard, or None while there is none; raises ValueError, naming the file, for a damaged one."""
        path = self._file(number)
        try:
            with safe_open(path, framework="numpy") as opened:
                made = json.loads((opened.metadata() or {})[MADE])
                arrays = {name: opened.get_tensor(name) for name in ("lines", "features", "sha256")}
            failures = {int(line): reason for line, reason in json.loads(made["failures"]).items()}
            shard = Shard(failures=failures, **arrays)
            checksum = self._checksum(number, arrays, made["failures"])
            if made["checksum"] != checksum:
                raise ValueError("its checksum is another")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ValueError(
                f"{path}: damaged, or of other photos or another model ({error}); give reid-embed again"
            ) from error
        return shard

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08d}.safetensors"

    def _checksum(self, number: int, arrays: Mapping[str, np.ndarray], failures: str) -> str:
        """What a shard's contents, its photos and its model hash to."""
        digest = hashlib.sha256(f"{self.manifest.embedding.model_id} {self.manifest.lists[number]} ".encode())
        digest.update(failures.encode())
        for name in sorted(arrays):
            digest.update(f" {name} {arrays[name].shape} ".encode())
            digest.update(arrays[name].data)
        return digest.hexdigest()


def _list_file(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.jsonl"


def _lines(sources: Iterable[Source]) -> Iterator[str]:
    """A line of JSON for each photo, in ASCII: names of files may hold line ends, and bytes that are no text."""
    for place, source in enumerate(sources):
        for photo in source.photos():
            path = photo.path.absolute()
            inside = path.relative_to(source.root) if path.is_relative_to(source.root) else path
            row = {"source": place, "path": os.fspath(inside), "name": photo.name, "cells": dict(photo.cells)}
            yield json.dumps(row) + "\n"
