"""Uploads on their way into a gallery: decoded, embedded and kept, each with a result of its own."""

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from reid.data.images import UnknownFormat, UnusableImage, decode
from service.gallery.capture import with_capture
from service.gallery.copies import copy_of
from service.gallery.holdings import Holdings
from service.gallery.pictures import cut
from service.gallery.worker import Embedded, Worker
from service.metrics import Metrics
from service.records import Cause, Conflict, Crop, Enrolled, Medium, NewItem, Region, UnusableBox, Upload

Refusal = UnknownFormat | UnusableImage | UnusableBox | Conflict


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    """A photo on its way in, the picture to keep, and what the model will say of the whole of it or its regions."""

    medium: Medium
    copy: bytes
    embedded: "Mapping[Region | None, Future[Embedded] | UnusableBox]"


class Enrolment:
    """Takes uploads into the holdings of a gallery, by way of its worker; threads may share it."""

    def __init__(self, holdings: Holdings, worker: Worker, metrics: Metrics) -> None:
        self._holdings = holdings
        self._worker = worker
        self._metrics = metrics
        # A photo of 50 megapixels takes some hundred MiB until it is prepared, and every thread that uses torch gets
        # threads of its own for it: no more than processors.
        self._decoding = ThreadPoolExecutor(os.cpu_count(), "enrolling")

    def enrol(self, uploads: Sequence[Upload], cause: Cause) -> list[Enrolled | Refusal]:
        """Add photos, or boxes in them, and tell, in their order, what became of each: its item or why there is none.

        What is there already, the same box of the same bytes, is left as it is. Uploads that share their bytes are
        decoded once. Raises Busy when too many wait for the model, and ValueError for a time without zone; then none is
        added.
        """
        sha256_of = cache(lambda data: hashlib.sha256(data).hexdigest())
        results: dict[int, Enrolled | Refusal] = {}
        crops: dict[int, Crop] = {}
        for place, upload in enumerate(uploads):
            try:
                region = None if upload.box is None else Region.around(*upload.box)
                crops[place] = Crop(sha256_of(upload.data), region)
            except UnusableBox as error:
                results[place] = error
        there = self._holdings.store.by_crop(crops.values())
        results |= {place: Enrolled(there[crop], created=False) for place, crop in crops.items() if crop in there}
        new = {place: crop for place, crop in crops.items() if crop not in there}
        photos = {crop.sha256: uploads[place] for place, crop in reversed(new.items())}  # the first of the same bytes
        regions = {sha256: {crop.region for crop in new.values() if crop.sha256 == sha256} for sha256 in photos}
        decoding = {
            sha256: self._decoding.submit(self._take, sha256, upload, regions[sha256])
            for sha256, upload in photos.items()
        }
        taken: dict[str, _Taken] = {}
        refused: dict[str, Refusal] = {}
        try:
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

    def close(self) -> None:
        """Wait for the threads that decode."""
        self._decoding.shutdown()

    def _take(self, sha256: str, upload: Upload, regions: Collection[Region | None]) -> _Taken:
        with self._metrics.stages["decode"].time():
            image = decode(upload.data, profiles=self._worker.profiles)
            embedded: dict[Region | None, Future[Embedded] | UnusableBox] = {}
            try:
                for region in regions:
                    try:
                        embedded[region] = self._worker.embed(cut(image, region))
                    except UnusableBox as error:
                        embedded[region] = error
                copy = copy_of(upload.data, image, profiles=self._worker.profiles)
            except BaseException:  # Busy at a later box, say
                _cancel(embedded.values())
                raise
            return _Taken(Medium(sha256, *image.size, upload.name), copy, embedded)

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
        return {**results, **dict(zip(items, added, strict=True))}


def _withdraw(decoding: Future[_Taken]) -> None:
    """Have the model embed nothing more of a photo that was decoded, where nobody waits for it any more."""
    if not decoding.cancelled() and decoding.exception() is None:
        _cancel(decoding.result().embedded.values())


def _cancel(embedded: Iterable[Future[Embedded] | UnusableBox]) -> None:
    for one in embedded:
        if isinstance(one, Future):
            one.cancel()
