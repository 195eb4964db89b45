"""Uploads on their way into a gallery: decoded, embedded and kept, each with a result of its own."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from reid.data.images import UnknownFormat, UnusableImage, decode
from service.gallery.capture import with_capture
from service.gallery.holdings import Holdings
from service.gallery.pictures import lossless
from service.gallery.worker import Embedded, Worker
from service.metrics import Metrics
from service.records import Cause, Conflict, Crop, Details, Enrolled, Medium, NewItem, Upload

Refusal = UnknownFormat | UnusableImage | Conflict


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    """An upload on its way in: what the model will say of it, and the picture to keep."""

    medium: Medium
    details: Details
    embedded: "Future[Embedded]"
    copy: bytes


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
        """Add photos and tell, in their order, what became of each: its item, new or not, or why there is none.

        A photo whose bytes are there already is left as it is. Raises Busy when too many wait for the model, and
        ValueError for a time without zone; then none is added.
        """
        sha256s = [hashlib.sha256(upload.data).hexdigest() for upload in uploads]
        there = self._holdings.store.by_crop([Crop(sha256) for sha256 in sha256s])
        results: dict[int, Enrolled | Refusal] = {
            place: Enrolled(there[Crop(sha256)], created=False)
            for place, sha256 in enumerate(sha256s)
            if Crop(sha256) in there
        }
        decoding = {
            place: self._decoding.submit(self._take, sha256, upload)
            for place, (upload, sha256) in enumerate(zip(uploads, sha256s, strict=True))
            if Crop(sha256) not in there
        }
        taken: dict[int, _Taken] = {}
        try:
            for place, future in decoding.items():
                try:
                    taken[place] = future.result()
                except (UnknownFormat, UnusableImage) as error:
                    results[place] = error
            if taken:
                results |= self._keep(taken, uploads, cause)
        finally:
            for future in decoding.values():
                future.cancel()
            for one in taken.values():
                one.embedded.cancel()
        return [results[place] for place in range(len(uploads))]

    def close(self) -> None:
        """Wait for the threads that decode."""
        self._decoding.shutdown()

    def _take(self, sha256: str, upload: Upload) -> _Taken:
        with self._metrics.stages["decode"].time():
            image = decode(upload.data, profiles=self._worker.profiles)
            embedded = self._worker.embed(image)
            medium = Medium(sha256, *image.size, upload.name)
            return _Taken(medium, with_capture(upload), embedded, lossless(image))

    def _keep(self, taken: dict[int, _Taken], uploads: Sequence[Upload], cause: Cause) -> dict[int, Enrolled | Refusal]:
        """What becomes of those that were decoded, by their places."""
        results: dict[int, Enrolled | Refusal] = {}
        copies = {one.medium.sha256: one.copy for one in taken.values()}
        with self._holdings.saved(copies):  # while the model works
            photos: dict[int, NewItem] = {}
            for place, one in taken.items():
                try:
                    photos[place] = NewItem(one.medium, one.embedded.result().vector, one.details)
                except UnusableImage as error:
                    results[place] = error
            with self._metrics.stages["store"].time():
                added = self._holdings.add(list(photos.values()), copies, cause, self._worker.model_id)
        return {**results, **dict(zip(photos, added, strict=True))}
