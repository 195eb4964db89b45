"""Uploads on their way into a gallery: decoded, embedded and kept, each with a result of its own."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache, partial

from reid.data.images import UnknownFormat, UnusableImage
from service.gallery.capture import with_capture
from service.gallery.decoders import Decoders
from service.gallery.holdings import Holdings
from service.gallery.rendering import Rendered
from service.gallery.worker import Embedded, Worker
from service.metrics import Metrics
from service.records import (
    Cause,
    Conflict,
    Crop,
    DeletedBefore,
    Enrolled,
    Medium,
    NewItem,
    Region,
    UnusableBox,
    UnusableText,
    Upload,
)

Refusal = UnknownFormat | UnusableImage | UnusableBox | UnusableText | Conflict | DeletedBefore


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    """A photo on its way in, the picture to keep, and what the model will say of the whole of it or its regions."""

    medium: Medium
    copy: bytes
    thumbnails: Mapping[Crop, bytes]
    embedded: "Mapping[Region | None, Future[Embedded] | UnusableBox]"


class Enrolment:
    """Takes uploads into the holdings of a gallery, by way of its worker; threads may share it."""

    def __init__(self, holdings: Holdings, worker: Worker, decoders: Decoders, metrics: Metrics) -> None:
        self._holdings = holdings
        self._worker = worker
        self._decoders = decoders
        self._metrics = metrics

    def enrol(self, uploads: Sequence[Upload], cause: Cause, *, again: bool = True) -> list[Enrolled | Refusal]:
        """Add photos, or boxes in them, and tell, in their order, what became of each: its item or why there is none.

        What is there already, the same bytes and a box that agrees within 1 % of its side, is left as it is, but for
        the copy of its photo, which is put back where it is lost or damaged. Unless it is wanted `again`, what was
        deleted is left out. Uploads that share their bytes are decoded once. Raises Busy when too many wait for the
        model, and ValueError for a time without zone; then none is added.
        """
        sha256_of = cache(lambda data: hashlib.sha256(data).hexdigest())
        results: dict[int, Enrolled | Refusal] = {}
        crops: dict[int, Crop] = {}
        of_photo: dict[str, list[Crop]] = defaultdict(list)
        for place, upload in enumerate(uploads):
            try:
                region = None if upload.box is None else Region.around(*upload.box)
                crop = Crop(upload.sha256 or sha256_of(upload.data), region)
                first = next((other for other in of_photo[crop.sha256] if crop.agrees(other)), crop)
                of_photo[crop.sha256].append(first)
                crops[place] = first
            except UnusableBox as error:
                results[place] = error
        there = self._holdings.store.by_crop(crops.values())
        results |= {place: Enrolled(there[crop], created=False) for place, crop in crops.items() if crop in there}
        new = {place: crop for place, crop in crops.items() if crop not in there}
        if not again:
            deleted = self._holdings.tombstones.of_crops(set(new.values()))
            left_out = {place: deleted[crop] for place, crop in new.items() if crop in deleted}
            results |= {place: DeletedBefore(f"deleted on {when:%Y-%m-%d}") for place, when in left_out.items()}
            new = {place: crop for place, crop in new.items() if place not in left_out}
        lost = self._holdings.lacking(there.values())
        wanted = {place: crop for place, crop in crops.items() if place in new or crop.sha256 in lost}
        photos = {
            crop.sha256: uploads[place] for place, crop in reversed(wanted.items())
        }  # the first of the same bytes
        regions = {sha256: {crop.region for crop in new.values() if crop.sha256 == sha256} for sha256 in photos}
        share = f"{cause.actor}, enrolling"  # so that no query waits for it
        decoding = {}
        taken: dict[str, _Taken] = {}
        refused: dict[str, Refusal] = {}
        try:
            for sha256, upload in photos.items():
                order = self._worker.order(regions[sha256], "view", "thumbnail", copy=True)
                take = partial(self._take, sha256, upload, order.regions)
                decoding[sha256] = self._decoders.submit(
                    share, upload.data, order, take, self._metrics.stages["decode"].time
                )
            for sha256, future in decoding.items():
                try:
                    taken[sha256] = future.result()
                except (UnknownFormat, UnusableImage) as error:
                    refused[sha256] = error
            results |= {place: refused[crop.sha256] for place, crop in new.items() if crop.sha256 in refused}
            if taken:
                decoded = {place: crop for place, crop in new.items() if crop.sha256 in taken}
                results |= self._keep(taken, decoded, uploads, cause)
        finally:
            for waiting in decoding.values():
                waiting.cancel()
                waiting.add_done_callback(_withdraw)
        return [results[place] for place in range(len(uploads))]

    def _take(self, sha256: str, upload: Upload, regions: Sequence[Region | None], rendered: Rendered) -> _Taken:
        embedded: dict[Region | None, Future[Embedded] | UnusableBox] = {}
        thumbnails: dict[Crop, bytes] = {}
        try:
            for region, part in zip(regions, rendered.parts, strict=True):
                if isinstance(part, UnusableBox):
                    embedded[region] = part
                else:
                    view, thumbnail = part
                    thumbnails[Crop(sha256, region)] = thumbnail
                    embedded[region] = self._worker.embed(view)
        except BaseException:  # Busy at a later box, say
            _cancel(embedded.values())
            raise
        assert rendered.copy is not None
        medium = Medium(sha256, rendered.width, rendered.height, upload.name)
        return _Taken(medium, rendered.copy, thumbnails, embedded)

    def _keep(
        self, taken: Mapping[str, _Taken], decoded: Mapping[int, Crop], uploads: Sequence[Upload], cause: Cause
    ) -> dict[int, Enrolled | Refusal]:
        """What becomes of those that were decoded, by their places."""
        results: dict[int, Enrolled | Refusal] = {}
        copies = {sha256: one.copy for sha256, one in taken.items()}
        with self._holdings.saved(copies):  # while the model works
            items: dict[int, NewItem] = {}
            for place, (sha256, region) in decoded.items():
                embedded = taken[sha256].embedded[region]
                if isinstance(embedded, UnusableBox):
                    results[place] = embedded
                    continue
                try:
                    vector = embedded.result().vector
                except UnusableImage as error:
                    results[place] = error
                else:
                    items[place] = NewItem(taken[sha256].medium, vector, with_capture(uploads[place]), region)
            with self._metrics.stages["store"].time():
                added = self._holdings.add(list(items.values()), copies, cause, self._worker.model_id)
            results |= zip(items, added, strict=True)
            crops = [decoded[place] for place in items if isinstance(results[place], Enrolled)]
            self._holdings.keep_thumbnails({crop: taken[crop.sha256].thumbnails[crop] for crop in crops})
        return results


def _withdraw(decoding: Future[_Taken]) -> None:
    """Have the model embed nothing more of a photo that was decoded, where nobody waits for it any more."""
    if not decoding.cancelled() and decoding.exception() is None:
        _cancel(decoding.result().embedded.values())


def _cancel(embedded: Iterable[Future[Embedded] | UnusableBox]) -> None:
    for one in embedded:
        if isinstance(one, Future):
            one.cancel()
