"""Photos or their features into a gallery, many at once, with what became of each."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import cast

from reid.progress import Progress
from service.bulk.importing import Outcome, import_features
from service.bulk.shards import FeatureFolder
from service.bulk.sources import Photo, reason
from service.fields import Filter, said_of
from service.gallery.capture import ZONE_UNKNOWN
from service.gallery.gallery import Gallery
from service.records import (
    ANY_CAMERA,
    Cameras,
    Cause,
    Conflict,
    DeletedBefore,
    Details,
    Enrolled,
    Item,
    ItemEdit,
    UnusableText,
    Upload,
)
from service.settings import Backend, load
from service.storage.database import Database
from service.storage.models import Models
from service.storage.store import Store

log = logging.getLogger("reid")

BATCH = 32  # photos of one transaction
AT_ONCE = 3  # batches, so that photos are read and saved while the model works
CAUSE = Cause(actor="reid-enrol")


def enrol(
    gallery: Gallery,
    photos: Sequence[Photo],
    *,
    update: bool = False,
    cameras: Cameras = ANY_CAMERA,
    again: bool = False,
) -> Counter[str]:
    """Enrol photos and count those `created`, `existing` and `failed`; each failure is logged, with its reason.

    Of those that are there already, `other` counts the ones of which something else is said here than in the gallery;
    `update` has the gallery say it too. `pending` are those that wait for the search index, which is away; `zoneless`
    are new, and of a clock whose zone neither they nor `cameras` tell. Those that were `deleted` from the gallery
    before are left out, unless they are wanted `again`.

    Which of several photos with the same bytes or key is the first is left to chance. An interrupt lets the batches
    under way finish, and is raised again as KeyboardInterrupt with the counts.
    """
    counts: Counter[str] = Counter()
    progress = Progress("enrolling")
    pool = ThreadPoolExecutor(AT_ONCE)
    batches = [photos[start : start + BATCH] for start in range(0, len(photos), BATCH)]
    waiting = deque(pool.submit(_enrol_batch, gallery, batch, update, cameras, again) for batch in batches)
    try:
        try:
            for found in _results(waiting):
                counts += found
                progress(_done(counts), len(photos))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            for found in _results(deque(batch for batch in waiting if not batch.cancelled())):
                counts += found
            raise KeyboardInterrupt(f"{told(counts)}; given again, the command goes on from there") from None
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    return counts


def enrol_features(
    folder: Path,
    features: FeatureFolder,
    roots: Sequence[Path] = (),
    *,
    update: bool = False,
    cameras: Cameras = ANY_CAMERA,
    again: bool = False,
) -> tuple[Counter[str], int]:
    """Enrol photos that have features into the gallery of a folder, without the model, and count as `enrol` does.

    `roots` are where the sources lie now, if elsewhere. Returns the counts, and how many items the gallery holds then.
    Raises ModelMismatch for a gallery of another model, ValueError at the end when features are missing or damaged,
    and KeyboardInterrupt, both with the counts, and what opening a `Database` raises.
    """
    counts: Counter[str] = Counter()
    progress = Progress("enrolling")
    embedding = features.manifest.embedding
    with Database(folder, load(Backend).database_url) as database:
        store = Store(database)
        Models(database).bind(embedding.model_id, embedding.dimension, embedding.description, CAUSE)
        edit = partial(store.edit, cause=CAUSE)
        try:
            for imported in import_features(database, features, roots, CAUSE, cameras, again=again):
                found, failures = _count(imported, edit, update)
                for failure in failures:
                    log.warning("%s", failure)
                counts += found
                progress(_done(counts), features.manifest.photos)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{told(counts)}; given again, the command goes on from there") from None
        except ValueError as error:
            raise ValueError(f"{told(counts)}; {error}") from error
        finally:
            progress.close()
        return counts, store.count(Filter())


def _enrol_batch(
    gallery: Gallery, photos: Sequence[Photo], update: bool, cameras: Cameras, again: bool
) -> tuple[Counter[str], list[str]]:
    """The counts of a batch, and a line for each failure."""
    return _count(
        outcomes(gallery, photos, CAUSE, cameras=cameras, again=again),
        lambda item_id, changes: gallery.edit(item_id, changes, CAUSE),
        update,
    )


def outcomes(
    gallery: Gallery, photos: Sequence[Photo], cause: Cause, *, cameras: Cameras = ANY_CAMERA, again: bool = False
) -> list[Outcome]:
    """Enrol the photos of one batch, and tell what became of each; raises as `Gallery.enrol`.

    Those that cannot be read come first.
    """
    found: list[Outcome] = []
    uploads: list[tuple[Photo, Upload]] = []
    read = cache(Path.read_bytes)  # boxes of one photo mostly follow one another
    for photo in photos:
        try:
            uploads.append((photo, photo.upload(cameras, read)))
        except (OSError, ValueError) as error:
            found.append(Outcome(str(photo), error))
    results = gallery.enrol([upload for _, upload in uploads], cause, again=again)
    for (photo, upload), result in zip(uploads, results, strict=True):
        found.append(Outcome(str(photo), result, upload.details))
    return found


def _count(
    found: Iterable[Outcome], edit: Callable[[str, ItemEdit], Item], update: bool
) -> tuple[Counter[str], list[str]]:
    """The counts of photos, and a line for each failure; `update` edits those of which something else is said now."""
    counts: Counter[str] = Counter()
    failures = []
    for name, result, details in found:
        if isinstance(result, Enrolled):
            counts["created" if result.created else "existing"] += 1
            counts["pending"] += result.pending
            precision = result.item.details.captured_precision or ""
            counts["zoneless"] += result.created and precision.endswith(ZONE_UNKNOWN)
            if not result.created and (changes := said_otherwise(result.item.details, details)):
                counts["other"] += 1
                if update:
                    try:
                        edit(result.item.item_id, changes)
                    except (Conflict, UnusableText) as error:
                        counts["existing"] -= 1
                        failures.append(f"{name}: {reason(error)}")
        elif isinstance(result, DeletedBefore):
            counts["deleted"] += 1
        else:
            failures.append(f"{name}: {reason(result)}")
    counts["failed"] = len(failures)
    return counts, failures


def said_otherwise(there: Details, said: Details) -> ItemEdit:
    """What is said here and not there; what is left open here stays as it is."""
    one, other = (
        {"key": details.key, "latitude": details.latitude, "longitude": details.longitude, **said_of(details)}
        for details in (there, said)
    )
    changes = cast(ItemEdit, {name: value for name, value in other.items() if value not in (None, one[name])})
    if not said.attributes.items() <= there.attributes.items():
        changes["attributes"] = {**there.attributes, **said.attributes}
    return changes


def _results(batches: "deque[Future[tuple[Counter[str], list[str]]]]") -> Iterator[Counter[str]]:
    """Take the batches in their order, each when it is done; log their failures and yield their counts."""
    while batches:
        counts, failures = batches[0].result()
        batches.popleft()
        for failure in failures:
            log.warning("%s", failure)
        yield counts


def _done(counts: Counter[str]) -> int:
    return counts["created"] + counts["existing"] + counts["deleted"] + counts["failed"]


def told(counts: Counter[str]) -> str:
    """The counts of photos in words."""
    deleted = f", {counts['deleted']} deleted before, left out" if counts["deleted"] else ""
    return f"{counts['created']} enrolled, {counts['existing']} there before, {counts['failed']} failed{deleted}"
