"""The thread that owns a gallery's model and its index: photos become vectors there, and vectors find items.

E is the embedding size.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event, Thread
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reid.data.images import UnusableImage
from reid.inference.embedder import Embedder
from reid.inference.predictor import Predictor
from reid.report.attention import overlay
from service.fields import Filter
from service.gallery.batcher import Batcher, Closed
from service.gallery.index import Index
from service.gallery.rendering import Order, Rendered, Want
from service.metrics import Metrics
from service.records import Cause, Found, IndexUnavailable, ModelMismatch, NotServed, Region, UnusableBox, Vectors
from service.storage.models import Models

log = logging.getLogger("reid")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Search:
    count: int
    chosen: Filter


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Prepared photos (n, 3, height, width) of one subject, and what to look for among the items, if anything."""

    images: Tensor
    search: _Search | None = None
    queued: float = field(default_factory=perf_counter)


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """The embedding (E,) of the photos of one subject, and what a search with it found, if one was asked for."""

    vector: Vectors
    found: Found | None


class Worker:
    """A model and an index that follows the store, on one thread, which any thread may give work.

    Methods raise `Closed` after `close`.
    """

    def __init__(self, embedder: Embedder, model_id: str, models: Models, index: Index, metrics: Metrics) -> None:
        """Have the index follow the store to its end first, if the gallery belongs to the model."""
        self._embedder = embedder
        self.model_id = model_id
        self._models = models
        self._index = index
        self._metrics = metrics
        if self.serves and not index.follow():  # what is left then keeps queries from being answered
            while index.tend():
                pass
        self._batcher: Batcher[_Job, Embedded] = Batcher(self._work)
        self._closing = Event()
        self._tending = Thread(target=self._tend, name="index", daemon=True)  # a forgotten close lets the process end
        self._tending.start()

    def order(self, regions: Iterable[Region | None], *wants: Want, copy: bool = False) -> Order:
        """What is wanted of regions of a photo, as the model sees them."""
        return order_for(self._embedder, regions, *wants, copy=copy)

    @property
    def serves(self) -> bool:
        """Whether the gallery belongs to the model that is loaded."""
        active = self._models.active
        return active is not None and active.model_id == self.model_id

    @property
    def waiting(self) -> Mapping[str, int]:
        """The length of each queue, as `Batcher.waiting` has them."""
        return self._batcher.waiting

    def require_model(self) -> None:
        """Raise ModelMismatch, naming both models, unless the gallery belongs to the one that is loaded."""
        active = self._models.active
        if active is None or active.model_id != self.model_id:
            raise ModelMismatch(
                f"the gallery belongs to model {active and active.model_id}, but model {self.model_id} is loaded; "
                "load the former or re-index the gallery"
            )

    def require_index(self) -> None:
        """Raise IndexUnavailable where it is known already that no query can be answered."""
        if self._index.trouble is not None:
            raise IndexUnavailable(self._index.trouble)

    def run(self, function: Callable[[], Result]) -> "Future[Result]":
        """Have the thread call a function, ahead of photos that wait."""
        return self._batcher.run(function)

    def embed(self, image: Image.Image) -> "Future[Embedded]":
        """Have the model embed a photo after all queries; the result's `vector` (E,) is of unit length.

        The result raises UnusableImage where the embedding is not finite. Raises Busy when too many wait.
        """
        return self._batcher.submit(_Job(self._embedder.prepare(image)[None]), urgent=False)

    def query(self, images: Tensor, count: int, chosen: Filter) -> tuple[Vectors, Found]:
        """Embed prepared photos (n, 3, height, width) of one subject, and find the `count` best items that pass.

        The embedding (E,) is the normalised mean of those of the photos. Raises UnusableImage where it is not finite,
        Busy when too many wait, and IndexUnavailable.
        """
        embedded = self._batcher.submit(_Job(images, _Search(count, chosen))).result()
        assert embedded.found is not None
        return embedded.vector, embedded.found

    def search(self, vector: Vectors, count: int, chosen: Filter) -> Found:
        """Find the `count` best items that pass, for a vector (E,) that is there already; raises IndexUnavailable."""
        return self.run(lambda: self._index.search(vector[None], count, chosen)[0]).result()

    def search_many(self, vectors: Vectors, count: int, chosen: Filter) -> list[Found]:
        """The same for several vectors (n, E) at once."""
        return self.run(lambda: self._index.search(vectors, count, chosen)).result()

    def publish(self) -> bool:
        """Have queries know of all that is committed, and tell whether they do.

        The index reads the store when the thread gets there, so that two changes of one item cannot arrive in the wrong
        order.
        """
        return self.run(lambda: self.serves and self._index.follow()).result()

    def fill(self) -> bool:
        """Bring a portion of the loaded model's vectors to the index; tells whether that has all there are."""

        def portion() -> bool:
            self._index.tend()
            return self._index.follow()

        return self.run(portion).result()

    def adopt(self, cause: Cause, left_out: Collection[int] = ()) -> None:
        """Give the gallery to the model that is loaded, and serve it; errors and `left_out` as for `Models.switch`."""

        def switch() -> None:  # on the thread, so that no query meets an engine without vectors
            self._models.switch(self.model_id, cause, left_out)
            self._index.follow()

        self.run(switch).result()
        self._models.drop_former()

    def size(self) -> int:
        """The number of items that can be found; raises IndexUnavailable."""
        return self.run(lambda: len(self._index)).result()

    def give_up(self) -> None:
        """Have photos that wait for the model, and those that come, raise `Closed`."""
        self._batcher.give_up()

    def close(self) -> None:
        """Finish what waits."""
        self._closing.set()
        self._batcher.close()
        self._tending.join()
        self._index.close()

    def _tend(self) -> None:
        """Have the thread do, between other work, what the index has left to do."""
        while (pause := self._index.pause) is not None and not self._closing.wait(pause):
            try:
                while self.serves and self.run(self._index.tend).result() and not self._closing.is_set():
                    pass
            except Closed:
                return
            except Exception as error:  # the database is away, say; the thread lives on, and tries again
                log.error("index: %s", error, exc_info=None if isinstance(error, OSError) else error)

    def _work(self, jobs: list[_Job]) -> list[Embedded | Exception]:
        """Embed the photos of all jobs at once, and search once for each filter among them."""
        now = perf_counter()
        for job in jobs:
            self._metrics.stages["wait"].observe(now - job.queued)
        images = torch.cat([job.images for job in jobs])
        self._metrics.batch_size.observe(len(images))
        with self._metrics.stages["model"].time():
            vectors = _fuse(self._embedder.embed_prepared(images), jobs)
        founds: dict[int, Found | IndexUnavailable] = {}
        sound = [place for place, vector in enumerate(vectors) if np.isfinite(vector).all()]
        searches = {place: search for place in sound if (search := jobs[place].search)}
        for chosen in {search.chosen for search in searches.values()}:
            places = [place for place, search in searches.items() if search.chosen == chosen]
            most = max(searches[place].count for place in places)
            try:
                with self._metrics.stages["search"].time():
                    found = self._index.search(np.stack([vectors[place] for place in places]), most, chosen)
                founds |= zip(places, found, strict=True)
            except IndexUnavailable as error:  # photos to be enrolled do not need it
                founds |= dict.fromkeys(places, error)
        broken = UnusableImage("the model's embedding of this image is not finite")
        answers: list[Embedded | Exception] = []
        for place, vector in enumerate(vectors):
            outcome = founds.get(place) if place in sound else broken
            answers.append(outcome if isinstance(outcome, Exception) else Embedded(vector, outcome))
        return answers


def _fuse(rows: Vectors, jobs: Sequence[_Job]) -> list[Vectors]:
    """The normalised mean of the embeddings of each job."""
    ends = np.cumsum([len(job.images) for job in jobs])
    return [part[0] if len(part) == 1 else _direction(part.mean(axis=0)) for part in np.split(rows, ends[:-1])]


def _direction(mean: Vectors) -> Vectors:
    direction: Vectors = mean / np.linalg.norm(mean)
    return direction


def describe_model(embedder: Embedder) -> dict[str, Any]:
    """What a gallery keeps of a model beside its id and size."""
    return {"features": embedder.features, "flip_test": embedder.flip_test}


def order_for(predictor: Predictor, regions: Iterable[Region | None], *wants: Want, copy: bool = False) -> Order:
    """What is wanted of regions of a photo, as a model sees them."""
    return Order(wants, tuple(regions), predictor.resized, predictor.decoding, copy)


def of_the_only_region(rendered: Rendered) -> Sequence[Any]:
    """What was wanted of the one region of an order; raises UnusableBox."""
    (part,) = rendered.parts
    if isinstance(part, UnusableBox):
        raise part
    return part


def draw_attention(
    predictor: Predictor, view: Image.Image, shown: Image.Image, run: Callable[[Callable[[], Any]], "Future[Any]"]
) -> Image.Image:
    """The picture that people are `shown`, with the attention over it that the model pays to its `view` of it.

    `run` has the thread that owns the model call a function.
    """
    return overlay(shown, run(lambda: predictor.attention([view])[0]).result())


def require_attention(predictor: Predictor) -> None:
    """Raise NotServed where a model has no map of its attention."""
    if not predictor.model.rolls_out:
        raise NotServed("the backbone of this model has no class token, whose attention could be shown")
