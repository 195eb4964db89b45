"""A gallery at work: photos go in, are found, changed and taken out, and whatever was answered stays true.

E is the embedding size.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from reid.inference.embedder import Embedder
from service.fields import Filter
from service.gallery.enrolment import Enrolment, Refusal
from service.gallery.holdings import Holdings
from service.gallery.index import Index
from service.gallery.search import Answer, Search, SearchOptions
from service.gallery.worker import Worker, describe_model, draw_attention, read_upload
from service.metrics import Metrics
from service.records import NOBODY, Box, Cause, Enrolled, Item, ItemEdit, Upload
from service.storage.database import Database
from service.storage.models import Models
from service.storage.queries import Queries


class Gallery:
    """The store of a folder, the pictures beside it, and a search engine that follows the store; threads may share it.

    What a method returned is on the disk and holds for every query that begins later. Methods raise OSError when the
    disk cannot be read or written, `Closed` after `close`, and `ModelMismatch` when they need the model and the gallery
    belongs to another one.
    """

    def __init__(
        self, database: Database, embedder: Embedder, model_id: str, index: Index, trained_on: str | None = None
    ) -> None:
        """Put an open database to work, which is closed with the gallery, and have the index follow it.

        `trained_on` is the dataset that the model has seen, for those who ask. Raises what reading the database raises;
        then it is closed, too.
        """
        self.folder = database.folder
        self.model_id = model_id
        self.trained_on = trained_on
        self.embedder = embedder
        self.index = index
        self.database = database
        self.metrics = Metrics()
        try:
            self.models = Models(database)
            self.queries = Queries(database)
            if self.models.active is None:
                self.models.bind(model_id, embedder.size, describe_model(embedder))
            self._holdings = Holdings(database)
            self._holdings.sweep()
            self.store, self.pictures = self._holdings.store, self._holdings.pictures
            self.worker = Worker(embedder, model_id, self.models, index, self.metrics)
        except BaseException:
            database.close()
            raise
        # No more than processors, and apart from those of enrolment, so that no query waits for it.
        self.decoding = ThreadPoolExecutor(os.cpu_count(), "decoding")
        self._enrolment = Enrolment(self._holdings, self.worker, self.metrics)
        self._search = Search(self.store, self.worker, self.queries, self.metrics)
        self.metrics.watch_gallery(
            {"model_id": model_id, "features": embedder.features, "flip_test": str(embedder.flip_test).lower()},
            ready=lambda: self.worker.serves and index.trouble is None,
            items=lambda: index.items,  # not asked of the worker's thread, which may be the one that hangs
            unfollowed=lambda: index.waiting,
            waiting=lambda: self.worker.waiting,
        )

    def enrol(self, uploads: Sequence[Upload], cause: Cause = NOBODY) -> list[Enrolled | Refusal]:
        """Add photos and tell, in their order, what became of each; errors as for `Enrolment.enrol`."""
        self.worker.require_model()
        try:
            results = self._enrolment.enrol(uploads, cause)
        finally:
            pending = not self.worker.publish()  # also what another request has stored and is about to publish
        return [one._replace(pending=pending) if isinstance(one, Enrolled) else one for one in results]

    def query(
        self,
        images: Sequence[bytes],
        options: SearchOptions,
        cause: Cause = NOBODY,
        boxes: Sequence[Box | None] | None = None,
    ) -> Answer:
        """Find the items most similar to the one subject that all the images show, each within its box if it has one.

        Several images are one query: the normalised mean of their unit embeddings. Raises UnknownFormat, UnusableImage
        and UnusableBox, Busy when too many wait for the model, and IndexUnavailable.
        """
        self.worker.require_model()
        self.worker.require_index()
        prepared = self.decoding.map(self._prepare, images, boxes or [None] * len(images))
        answer = self._search.by_images(torch.stack(list(prepared)), options)
        sha256s = tuple(hashlib.sha256(data).hexdigest() for data in images)
        self._search.record(cause, options, answer, images=sha256s)
        return answer

    def query_item(self, item_id: str, options: SearchOptions, cause: Cause = NOBODY) -> Answer:
        """Find the items most similar to an enrolled one, itself a candidate but no match; raises NotFound."""
        self.worker.require_model()
        answer = self._search.by_item(item_id, options)
        self._search.record(cause, options, answer, item_id=item_id)
        return answer

    def attention(self, data: bytes, box: Box | None = None) -> Image.Image:
        """A photo, or a box in it, with the model's attention over it, as `draw_attention` makes it."""
        return self._attention(partial(read_upload, data, box, profiles=self.embedder.profiles))

    def item_attention(self, item: Item) -> Image.Image:
        """What an item shows, with the model's attention over it, as `draw_attention` makes it."""
        return self._attention(partial(self.pictures.crop, item, profiles=self.embedder.profiles))

    def edit(self, item_id: str, changes: ItemEdit, cause: Cause = NOBODY) -> Item:
        """Change some details of an item; raises NotFound, Conflict and, for a time without zone, ValueError."""
        item = self.store.edit(item_id, changes, cause)
        self.worker.publish()
        return item

    def delete(self, item_ids: Collection[str], cause: Cause = NOBODY) -> list[Item]:
        """Remove items and their pictures, never to be found again, and return them as they were."""
        try:
            return self._holdings.delete(item_ids, cause)
        finally:
            self.worker.publish()

    def delete_matching(self, chosen: Filter, expected: int, cause: Cause = NOBODY) -> list[Item]:
        """Remove the items that pass a filter, if they are as many as expected; raises Conflict otherwise."""
        try:
            return self._holdings.delete_matching(chosen, expected, cause)
        finally:
            self.worker.publish()

    def close(self) -> None:
        """Finish what waits for the model, and let go of the folder."""
        self.worker.close()
        self._search.close()
        self.decoding.shutdown()
        self._enrolment.close()
        self.database.close()

    def _prepare(self, data: bytes, box: Box | None) -> Tensor:
        with self.metrics.stages["decode"].time():
            return self.embedder.prepare(read_upload(data, box, profiles=self.embedder.profiles))

    def _attention(self, read: Callable[[], Image.Image]) -> Image.Image:
        return self.decoding.submit(draw_attention, self.embedder, read, self.worker.run).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
