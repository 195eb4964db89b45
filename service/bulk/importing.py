"""Features that reid-embed made, into a gallery: no model runs, and photos that are there already are not even read."""

import hashlib
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from reid.data.preprocessing import AS_SHOWN, Decoding, Preprocessing
from service.bulk.shards import FeatureFolder
from service.bulk.sources import Photo
from service.gallery.capture import with_capture
from service.gallery.decoders import Decoders
from service.gallery.holdings import Holdings
from service.gallery.rendering import Order
from service.records import (
    ANY_CAMERA,
    Cameras,
    Cause,
    Crop,
    DeletedBefore,
    Details,
    Enrolled,
    Medium,
    NewItem,
    UnusableBox,
    Upload,
    Vectors,
)
from service.settings import Backend, load
from service.storage.database import Database

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
    how: Decoding = AS_SHOWN  # it was decoded
    cameras: Cameras = ANY_CAMERA


class _Taken(NamedTuple):
    """A photo as it will be enrolled, and the picture to keep."""

    item: NewItem
    copy: bytes


class _Reading(NamedTuple):
    """A photo by its place in what `_take` gives of its file."""

    done: "Future[list[_Taken | ValueError]]"
    place: int

    def result(self) -> _Taken:
        """Waits for the file; raises why there is nothing of the photo."""
        taken = self.done.result()[self.place]
        if isinstance(taken, ValueError):
            raise taken
        return taken


_Batch = list[tuple[_Embedded, Enrolled | DeletedBefore | _Reading | None]]


def import_features(
    database: Database,
    features: FeatureFolder,
    roots: Sequence[Path],
    cause: Cause,
    cameras: Cameras = ANY_CAMERA,
    *,
    again: bool = False,
) -> Iterator[list[Outcome]]:
    """Enrol the photos that have features, in the order of their list, and tell in that order what became of each.

    `roots` are where the sources lie now, if elsewhere. Photos are enrolled as they were embedded: one whose bytes are
    others now is refused; one that was deleted is left out, unless it is wanted `again`. Raises ModelMismatch if
    another process gives the gallery to another model meanwhile, and ValueError at the end for shards that are damaged
    or not there.
    """
    holdings, model_id = Holdings(database), features.manifest.embedding.model_id
    waiting: deque[_Batch] = deque()
    problems: list[str] = []
    with (
        closing(Decoders(seconds=load(Backend).decode_seconds)) as decoders,
        ThreadPoolExecutor(os.cpu_count(), "reading") as pool,
    ):

        def take(boxes: Sequence[_Embedded]) -> "Future[list[_Taken | ValueError]]":
            return pool.submit(_take, boxes, decoders)

        try:
            for batch in _batches(features, roots, problems, cameras):
                waiting.append(_begin(holdings, batch, take, again))
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
    how = Preprocessing.from_json(features.manifest.embedding.preprocessing).decoding
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
                how=how,
                cameras=cameras,
            )
            if line in there
            else _Embedded(photo, failure=shard.failures[line])
            for line, photo in enumerate(photos)
        )
        while batch := list(islice(embedded, BATCH)):
            yield batch


def _begin(
    holdings: Holdings,
    batch: list[_Embedded],
    take: "Callable[[Sequence[_Embedded]], Future[list[_Taken | ValueError]]]",
    again: bool,
) -> _Batch:
    """Have the photos read that are not there yet, or of which no copy is kept any more."""
    there = holdings.store.by_crop([one.crop for one in batch if one.crop is not None])
    new = {one.crop for one in batch if one.crop is not None and one.crop not in there}
    deleted = {} if again else holdings.tombstones.of_crops(new)
    begun: _Batch = []
    wanted: dict[tuple[Path, str], list[int]] = defaultdict(list)  # places in the batch, by what file is read for them
    for place, one in enumerate(batch):
        if one.crop is None:
            begun.append((one, None))
        elif one.crop in there and holdings.pictures.holds(one.crop.sha256):
            begun.append((one, Enrolled(there[one.crop], created=False)))
        elif one.crop in deleted:
            begun.append((one, DeletedBefore(f"deleted on {deleted[one.crop]:%Y-%m-%d}")))
        else:
            begun.append((one, None))
            wanted[one.photo.path, one.crop.sha256].append(place)
    for places in wanted.values():
        done = take([batch[place] for place in places])
        for number, place in enumerate(places):
            begun[place] = (batch[place], _Reading(done, number))
    return begun


def _take(boxes: Sequence[_Embedded], decoders: Decoders) -> list[_Taken | ValueError]:
    """What is to be enrolled of boxes in one file, decoded once; raises as `decode`, OSError and ValueError."""
    crops = [one.crop for one in boxes if one.crop is not None]
    data, sha256 = boxes[0].photo.path.read_bytes(), crops[0].sha256
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(CHANGED)
    order = Order([], [crop.region for crop in crops], how=boxes[0].how, copy=True)
    rendered = decoders.render("reid-enrol", data, order)
    assert rendered.copy is not None
    taken = list[_Taken | ValueError]()
    for one, crop, part in zip(boxes, crops, rendered.parts, strict=True):
        try:
            if isinstance(part, UnusableBox):
                raise part
            assert one.vector is not None
            upload = Upload(one.photo.name, data, one.photo.details(), one.cameras)
            medium = Medium(sha256, rendered.width, rendered.height, upload.name)
            taken.append(_Taken(NewItem(medium, one.vector, with_capture(upload), crop.region), rendered.copy))
        except ValueError as error:
            taken.append(error)
    return taken


def _finish(holdings: Holdings, batch: _Batch, model_id: str, cause: Cause) -> list[Outcome]:
    results: dict[int, Enrolled | Exception] = {}
    taken: dict[int, _Taken] = {}
    for place, (one, begun) in enumerate(batch):
        try:
            if begun is None:
                raise ValueError(one.failure)
            if isinstance(begun, Enrolled | DeletedBefore):
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
