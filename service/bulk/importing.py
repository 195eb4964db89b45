"""Features that reid-embed made, into a gallery: no model runs, and photos that are there already are not even read."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from reid.data.images import decode
from service.bulk.shards import FeatureFolder
from service.bulk.sources import Photo
from service.gallery.capture import with_capture
from service.gallery.copies import copy_of
from service.gallery.holdings import Holdings
from service.records import ANY_CAMERA, Cameras, Cause, Crop, Details, Enrolled, Medium, NewItem, Vectors
from service.storage.database import Database
from service.storage.store import Store

BATCH = 32  # photos of one transaction
AT_ONCE = 3  # batches, so that photos are read and decoded while others are written
NOTHING = Details()
CHANGED = "its bytes are not those that were embedded; embed it again"


class Outcome(NamedTuple):
    """What became of a photo that was to be enrolled: its item, or why there is none; and what is said of it now."""

    name: str
    result: Enrolled | Exception
    details: Details = NOTHING


class _Embedded(NamedTuple):
    """A photo with its features (E,) and what they are of, or why there are none."""

    photo: Photo
    crop: Crop | None = None
    vector: Vectors | None = None
    failure: str = ""
    profiles: bool = False  # whether its colour profile was applied
    cameras: Cameras = ANY_CAMERA


class _Taken(NamedTuple):
    """A photo as it will be enrolled, and the picture to keep."""

    item: NewItem
    copy: bytes


_Batch = list[tuple[_Embedded, "Enrolled | Future[_Taken] | None"]]


def import_features(
    database: Database, features: FeatureFolder, roots: Sequence[Path], cause: Cause, cameras: Cameras = ANY_CAMERA
) -> Iterator[list[Outcome]]:
    """Enrol the photos that have features, in the order of their list, and tell in that order what became of each.

    `roots` are where the sources lie now, if elsewhere. Photos are enrolled as they were embedded: one whose bytes are
    others now is refused. Raises ModelMismatch if another process gives the gallery to another model meanwhile, and
    ValueError at the end for shards that are damaged or not there.
    """
    holdings, model_id = Holdings(database), features.manifest.embedding.model_id
    waiting: deque[_Batch] = deque()
    problems: list[str] = []
    with ThreadPoolExecutor(os.cpu_count(), "decoding") as pool:
        try:
            for batch in _batches(features, roots, problems, cameras):
                waiting.append(_begin(holdings.store, batch, pool))
                if len(waiting) == AT_ONCE:
                    yield _finish(holdings, waiting.popleft(), model_id, cause)
            while waiting:
                yield _finish(holdings, waiting.popleft(), model_id, cause)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    if problems:
        raise ValueError(
            f"{features.folder}: {len(problems)} of {len(features)} shards could not be imported, the first: "
            f"{problems[0]}"
        )


def _batches(
    features: FeatureFolder, roots: Sequence[Path], problems: list[str], cameras: Cameras
) -> Iterator[list[_Embedded]]:
    profiles = bool(features.manifest.embedding.preprocessing.get("profiles"))
    for number in range(len(features)):
        try:
            shard, photos = features.read(number), features.photos(number, roots)
        except ValueError as error:
            problems.append(str(error))
            continue
        if shard is None:
            problems.append(f"shard {number} is not there yet; give reid-embed again")
            continue
        there = {int(line): row for row, line in enumerate(shard.lines)}
        embedded = (
            _Embedded(
                photo,
                Crop(shard.sha256[there[line]].tobytes().hex(), photo.region()),
                shard.features[there[line]],
                profiles=profiles,
                cameras=cameras,
            )
            if line in there
            else _Embedded(photo, failure=shard.failures[line])
            for line, photo in enumerate(photos)
        )
        while batch := list(islice(embedded, BATCH)):
            yield batch


def _begin(store: Store, batch: list[_Embedded], pool: ThreadPoolExecutor) -> _Batch:
    """Have the photos read that are not there yet."""
    there = store.by_crop([one.crop for one in batch if one.crop is not None])
    begun: _Batch = []
    for one in batch:
        if one.crop is None:
            begun.append((one, None))
        elif one.crop in there:
            begun.append((one, Enrolled(there[one.crop], created=False)))
        else:
            begun.append((one, pool.submit(_take, one)))
    return begun


def _take(one: _Embedded) -> _Taken:
    assert one.crop is not None and one.vector is not None
    upload, (sha256, region) = one.photo.upload(one.cameras), one.crop
    if hashlib.sha256(upload.data).hexdigest() != sha256:
        raise ValueError(CHANGED)
    image = decode(upload.data, profiles=one.profiles)
    medium = Medium(sha256, *image.size, upload.name)
    return _Taken(
        NewItem(medium, one.vector, with_capture(upload), region), copy_of(upload.data, image, profiles=one.profiles)
    )


def _finish(holdings: Holdings, batch: _Batch, model_id: str, cause: Cause) -> list[Outcome]:
    results: dict[int, Enrolled | Exception] = {}
    taken: dict[int, _Taken] = {}
    for place, (one, begun) in enumerate(batch):
        try:
            if begun is None:
                raise ValueError(one.failure)
            if isinstance(begun, Enrolled):
                results[place] = begun
            else:
                taken[place] = begun.result()
        except (OSError, ValueError) as error:
            results[place] = error
    copies = {one.item.medium.sha256: one.copy for one in taken.values()}
    with holdings.saved(copies):
        added = holdings.add([one.item for one in taken.values()], copies, cause, model_id)
    results |= zip(taken, added, strict=True)
    outcomes = []
    for place, (one, _) in enumerate(batch):
        result = results[place]
        said = one.photo.details() if isinstance(result, Enrolled) else NOTHING
        outcomes.append(Outcome(str(one.photo), result, said))
    return outcomes
