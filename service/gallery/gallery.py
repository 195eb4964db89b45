"""A gallery at work: photos go in, are found, changed and taken out, and whatever was answered stays true.

E is the embedding size.
"""

import hashlib
import logging
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from reid.config import ReidConfig
from reid.data.images import UnknownFormat, UnusableImage
from reid.data.preprocessing import Decoding
from reid.inference.checkpoint import Checkpoint
from reid.inference.embedder import Embedder
from service.fields import Filter
from service.gallery.decoders import Decoders
from service.gallery.enrolment import Enrolment, Refusal
from service.gallery.holdings import Holdings
from service.gallery.index import Index
from service.gallery.rendering import Order, Rendered, smaller
from service.gallery.search import Answer, Search, SearchOptions
from service.gallery.subjects import Subjects
from service.gallery.worker import (
    Worker,
    describe_model,
    draw_attention,
    of_the_only_region,
    order_for,
    require_attention,
)
from service.metrics import Metrics
from service.records import NOBODY, Box, Cause, Details, Enrolled, Item, ItemEdit, Region, UnusableBox, Upload
from service.storage.database import Database
from service.storage.inspection import RESTORE
from service.storage.models import Models
from service.storage.queries import Queries

log = logging.getLogger("reid")


class Gallery:
    """The store of a folder, the pictures beside it, and a search engine that follows the store; threads may share it.

    What a method returned is on the disk and holds for every query that begins later. Methods raise OSError when the
    disk cannot be read or written, `Closed` after `close`, and `ModelMismatch` when they need the model and the gallery
    belongs to another one.
    """

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        model_id: str,
        index: Index,
        trained: Checkpoint[ReidConfig] | None = None,
        decoders: Decoders | None = None,
    ) -> None:
        """Put an open database to work, which is closed with the gallery, and have the index follow it.

        `trained` is what the model says of itself, for those who ask. `decoders` are closed with the gallery.
        Raises what reading the database raises; then it is closed, too.
        """
        self.folder = database.folder
        self.model_id = model_id
        self.trained = trained
        self.trained_on = None if trained is None else trained.protocol.get("dataset")
        self.embedder = embedder
        self.index = index
        self.database = database
        self.metrics = Metrics()
        try:
            self.models = Models(database)
            self.queries = Queries(database)
            if self.models.active is None:
                self.models.bind(model_id, embedder.size, describe_model(embedder))
            self.holdings = Holdings(database)
            self.store, self.pictures = self.holdings.store, self.holdings.pictures
            self.worker = Worker(embedder, model_id, self.models, index, self.metrics)
        except BaseException:
            database.close()
            raise
        self.decoders = decoders or Decoders()
        self.subjects = Subjects(database, self.decoders)
        self._enrolment = Enrolment(self.holdings, self.worker, self.decoders, self.metrics)
        self._search = Search(self.store, self.worker, self.queries, self.metrics)
        self._inspecting = ThreadPoolExecutor(1, "inspecting")
        self._closing = Event()
        self.inspected = self._inspecting.submit(self._inspect, datetime.now(UTC))
        self.metrics.watch_gallery(
            {"model_id": model_id, "features": embedder.features, "flip_test": str(embedder.flip_test).lower()},
            ready=lambda: self.worker.serves and index.trouble is None,
            items=lambda: index.items,  # not asked of the worker's thread, which may be the one that hangs
            unfollowed=lambda: index.waiting,
            recall=lambda: index.recall,
            waiting=lambda: self.worker.waiting,
            free=lambda: self.holdings.space.free,
            degraded=lambda: bool(self.troubles()),
        )

    def troubles(self) -> list[str]:
        """What somebody should look after, though queries are answered."""
        space = self.holdings.space.low
        damage = self.database.damage and f"the database is damaged ({self.database.damage}); {RESTORE}"
        return [trouble for trouble in (damage, space, self._search.trouble) if trouble]

    def enrol(
        self, uploads: Sequence[Upload], cause: Cause = NOBODY, *, again: bool = True
    ) -> list[Enrolled | Refusal]:
        """Add photos and tell, in their order, what became of each; errors as for `Enrolment.enrol`."""
        self.worker.require_model()
        try:
            results = self._enrolment.enrol(uploads, cause, again=again)
        finally:
            pending = not self.worker.publish()  # also what another request has stored and is about to publish
        return [one._replace(pending=pending) if isinstance(one, Enrolled) else one for one in results]

    def enrol_boxes(
        self, item: Item, boxes: Sequence[tuple[Details, Box]], cause: Cause = NOBODY
    ) -> list[Enrolled | Refusal]:
        """Add boxes in the photo of an item, as `enrol` does; raises NotFound without a copy of it."""
        copy, medium = self._copy(item), item.medium
        uploads = [Upload(medium.source, copy, details, box=box, sha256=medium.sha256) for details, box in boxes]
        return self.enrol(uploads, cause)

    def query(
        self,
        images: Sequence[bytes],
        options: SearchOptions,
        cause: Cause = NOBODY,
        boxes: Sequence[Box | None] | None = None,
        names: Sequence[str] | None = None,
    ) -> Answer:
        """Find the items most similar to the one subject that all the images show, each within its box if it has one.

        Several images are one query: the normalised mean of their unit embeddings. Raises UnknownFormat, UnusableImage
        and UnusableBox, which tell the image by its name if it has one, Busy when too many wait for the model, and
        IndexUnavailable.
        """
        answer = self._found(images, options, cause, boxes, names)
        sha256s = tuple(hashlib.sha256(data).hexdigest() for data in images)
        self._search.record(cause, options, answer, images=sha256s)
        return answer

    def _found(
        self,
        images: Sequence[bytes],
        options: SearchOptions,
        cause: Cause,
        boxes: Sequence[Box | None] | None,
        names: Sequence[str] | None = None,
    ) -> Answer:
        self.worker.require_model()
        self.worker.require_index()
        regions = [box and Region.around(*box) for box in boxes or [None] * len(images)]
        within = self.metrics.stages["decode"].time
        preparing = list[Future[Tensor]]()
        try:
            for data, region in zip(images, regions, strict=True):
                order = self.worker.order([region], "view")
                preparing.append(self.decoders.submit(cause.actor, data, order, self._prepare, within))
            named = zip(preparing, names or [""] * len(preparing), strict=True)
            prepared = torch.stack([_result(one, name) for one, name in named])
        finally:
            for one in preparing:
                one.cancel()
        return self._search.by_images(prepared, options)

    def query_item(self, item_id: str, options: SearchOptions, cause: Cause = NOBODY, box: Box | None = None) -> Answer:
        """Find the items most similar to an enrolled one, itself a candidate but no match; raises NotFound.

        With a `box`, those most similar to what that shows of its photo, as `query` does with a photo that is sent.
        """
        if box is None:
            self.worker.require_model()
            answer = self._search.by_item(item_id, options)
        else:
            answer = self._found([self._copy(self.store.get(item_id))], options, cause, [box])
        # By the item, also of a box: an erasure finds that, and does not know the SHA-256 of the copy.
        self._search.record(cause, options, answer, item_id=item_id)
        return answer

    def attention(self, data: bytes, box: Box | None = None, cause: Cause = NOBODY) -> Image.Image:
        """A photo, or a box in it, with the model's attention over it; raises as `query`, and NotServed."""
        return self._attention(data, box and Region.around(*box), cause)

    def item_attention(self, item: Item, cause: Cause = NOBODY) -> Image.Image:
        """What an item shows, with the model's attention over it; raises as `query`, NotServed and NotFound."""
        return self._attention(self._copy(item), item.region, cause)

    def views(self, items: Sequence[Item], share: str) -> list[Image.Image | UnusableBox]:
        """What the model sees of items of one photo, which is decoded once, for a `share`.

        Raises NotFound without a copy, and as `render`.
        """
        order = self.worker.order([item.region for item in items], "view")
        rendered = self.decoders.render(share, self._copy(items[0]), order)
        return [part if isinstance(part, UnusableBox) else part[0] for part in rendered.parts]

    def picture(self, item: Item, cause: Cause = NOBODY) -> bytes:
        """What an item shows as a file that `lossless` makes; raises NotFound without a copy, and as `render`."""
        order = Order(["picture"], [item.region], how=Decoding(profiles=False))
        picture: bytes = of_the_only_region(self.decoders.render(cause.actor, self._copy(item), order))[0]
        return picture

    def thumbnail(self, item: Item, cause: Cause = NOBODY, *, small: bool = False) -> bytes:
        """What an item shows as a small JPEG file, made now where it is not kept, or `smaller`; raises as `picture`."""
        thumbnail = self.holdings.thumbnails.read(item.crop)
        if thumbnail is None:
            order = Order(["thumbnail"], [item.region])
            thumbnail = of_the_only_region(self.decoders.render(cause.actor, self._copy(item), order))[0]
            self.holdings.keep_thumbnails({item.crop: thumbnail})
        return smaller(thumbnail) if small else thumbnail

    def edit(self, item_id: str, changes: ItemEdit, cause: Cause = NOBODY) -> Item:
        """Change some details of an item; raises NotFound, Conflict and, for a time without zone, ValueError."""
        item = self.store.edit(item_id, changes, cause)
        self.worker.publish()
        return item

    def delete(self, item_ids: Collection[str], cause: Cause = NOBODY) -> list[Item]:
        """Remove items and their pictures, never to be found again, and return them as they were."""
        try:
            return self.holdings.delete(item_ids, cause)
        finally:
            self.worker.publish()

    def delete_matching(self, chosen: Filter, expected: int, cause: Cause = NOBODY) -> list[Item]:
        """Remove the items that pass a filter, if they are as many as expected; raises Conflict otherwise."""
        try:
            return self.holdings.delete_matching(chosen, expected, cause)
        finally:
            self.worker.publish()

    def give_up(self) -> None:
        """Read and embed no photo any more: whoever waits for one gets `Closed`."""
        self.worker.give_up()
        self.decoders.close()

    def close(self) -> None:
        """Finish what waits for the model, and let go of the folder."""
        self._closing.set()
        self._inspecting.shutdown()
        self.worker.close()
        self._search.close()
        self.decoders.close()
        self.database.close()

    def _inspect(self, opened: datetime) -> None:
        """See that the tables are sound; only then are pictures held against them.

        Other processes may be about to save pictures in a shared folder; none takes an hour from there to its item.
        """
        try:
            if damage := self.database.inspect(self._closing):
                log.error("%s: damaged (%s): nothing is changed any more; %s", self.database.name, damage, RESTORE)
            elif not self._closing.is_set():
                self.holdings.sweep(opened - timedelta(hours=1) if self.database.shared else opened)
        except (OSError, ValueError) as error:
            log.error("pictures were not held against the gallery: %s", error)

    def _prepare(self, rendered: Rendered) -> Tensor:
        return self.embedder.prepare(of_the_only_region(rendered)[0])

    def _copy(self, item: Item) -> bytes:
        return self.pictures.read(item.medium.sha256, item.medium.copy_sha256)

    def _attention(self, data: bytes, region: Region | None, cause: Cause) -> Image.Image:
        require_attention(self.embedder)
        order = order_for(self.embedder, [region], "view", "shown")
        view, shown = of_the_only_region(self.decoders.render(cause.actor, data, order))
        return draw_attention(self.embedder, view, shown, self.worker.run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _result(preparing: "Future[Tensor]", name: str) -> Tensor:
    try:
        return preparing.result()
    except (UnknownFormat, UnusableImage, UnusableBox) as error:
        raise type(error)(f"{name}: {error}" if name else str(error)) from error
