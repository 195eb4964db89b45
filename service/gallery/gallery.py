"""A gallery at work: photos go in, are found, changed and taken out, and whatever was answered stays true.

E is the embedding size.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event, Thread
from time import perf_counter
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reid.inference.embedder import Embedder
from service.gallery.batcher import Batcher, Closed
from service.gallery.index import Index
from service.gallery.pictures import Pictures, UnknownFormat, UnusableImage, decode, lossless
from service.gallery.predicting import attended, prepared
from service.metrics import Metrics
from service.records import (
    NOBODY,
    Asked,
    Cause,
    Conflict,
    Details,
    Filter,
    Found,
    IndexUnavailable,
    Item,
    Medium,
    ModelMismatch,
    NewItem,
    NotFound,
    Vectors,
)
from service.storage.changes import Changes, Enrolled
from service.storage.database import Database
from service.storage.models import Models
from service.storage.queries import Queries
from service.storage.store import EVERYTHING, Store

log = logging.getLogger("reid")

PICTURES_FOLDER = "pictures"
# Of the database. A picture is written before its item and removed after it; whoever does so holds this lock, so that
# nobody removes what is about to be referred to.
PICTURES_LOCK = "pictures"
GROUP_FACTOR = 4  # hits first asked for each group wanted
QUERIES_WAITING = 10_000  # for the log

Refusal = UnknownFormat | UnusableImage | Conflict


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of an image file, its name, and what is said of it."""

    name: str
    data: bytes
    details: Details


@dataclass(frozen=True, slots=True)
class Wish:
    """What a query wants: the `top_k` best of the items that pass the filter and score at least `min_score`.

    With `by_label`, the best item alone stands for each label; items without label stand for themselves. `conditions`
    is what the log keeps of all this, as JSON.
    """

    chosen: Filter = EVERYTHING
    top_k: int = 10
    min_score: float = -1.0
    by_label: bool = False
    conditions: Mapping[str, Any] | None = None

    @property
    def count(self) -> int:
        """The hits first asked for."""
        return self.top_k * GROUP_FACTOR if self.by_label else self.top_k


@dataclass(frozen=True, slots=True)
class Match:
    """An item found, and its cosine similarity to the query, in [-1, 1]."""

    item: Item
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Matches by falling score, and how many items passed the filter.

    `best_score` is that of the best item that passed, whether or not it reached the minimum; None where none passed.
    """

    matches: tuple[Match, ...]
    candidates: int
    best_score: float | None


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
class _Taken:
    """An upload on its way in: what the model will say of it, and the picture to keep."""

    medium: Medium
    done: "Future[Done]"
    copy: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """The embedding (E,) of the photos of a job, and what a search with it found, if one was asked for."""

    vector: Vectors
    found: Found | None


class Gallery:
    """The store of a folder, the pictures beside it, and a search engine that follows the store; threads may share it.

    One owner thread runs the model and the engine. What a method returned is on the disk and holds for every query that
    begins later. Methods raise OSError when the disk cannot be read or written, `Closed` after `close`, and
    `ModelMismatch` when they need the model and the gallery belongs to another one.
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
        try:
            self.store = Store(database)
            self.models = Models(database)
            self.queries = Queries(database)
            if self.models.active is None:
                self.models.bind(model_id, embedder.size, described(embedder))
            self.pictures = Pictures(self.folder / PICTURES_FOLDER)
            with self.database.exclusive(PICTURES_LOCK):
                self.pictures.sweep(self.store.contents())
            if self.serves:
                index.follow()
                while index.tend():
                    pass
        except BaseException:
            database.close()
            raise
        # A photo of 50 megapixels takes some hundred MiB until it is prepared, and every thread that uses torch gets
        # threads of its own for it: no more than processors. Enrolment has its own, so that no query waits for it.
        self.decoding = ThreadPoolExecutor(os.cpu_count(), "decoding")
        self._enrolling = ThreadPoolExecutor(os.cpu_count(), "enrolling")
        self.batcher: Batcher[_Job, Done] = Batcher(self._work)
        self.metrics = Metrics()
        self.metrics.watch_gallery(
            {"model_id": model_id, "features": embedder.features, "flip_test": str(embedder.flip_test).lower()},
            ready=lambda: self.serves and index.trouble is None,
            items=lambda: index.items,  # not asked of the owner thread, which may be the one that hangs
            unfollowed=lambda: index.waiting,
            waiting=lambda: self.batcher.waiting,
        )
        self._log: Batcher[Asked, None] = Batcher(self._write, max_batch=1000, max_waiting=QUERIES_WAITING)
        self._closing = Event()
        self._tending = Thread(target=self._tend, name="index", daemon=True)  # a forgotten close lets the process end
        self._tending.start()

    @property
    def serves(self) -> bool:
        """Whether the gallery belongs to the model that is loaded."""
        active = self.models.active
        return active is not None and active.model_id == self.model_id

    def require_model(self) -> None:
        """Raise ModelMismatch, naming both models, unless the gallery belongs to the one that is loaded."""
        active = self.models.active
        if active is None or active.model_id != self.model_id:
            raise ModelMismatch(
                f"the gallery belongs to model {active and active.model_id}, but model {self.model_id} is loaded; "
                "load the former or re-index the gallery"
            )

    def enrol(self, uploads: Sequence[Upload], cause: Cause = NOBODY) -> list[Enrolled | Refusal]:
        """Add photos and tell, in their order, what became of each: its item, new or not, or why there is none.

        A photo whose bytes are there already is left as it is. Raises Busy when too many wait for the model, and
        ValueError for a time without zone; then none is added.
        """
        self.require_model()
        sha256s = [hashlib.sha256(upload.data).hexdigest() for upload in uploads]
        there = self.store.by_content(sha256s)
        pending = bool(there) and not self._publish()  # what another request has stored and is about to publish
        results: dict[int, Enrolled | Refusal] = {
            place: Enrolled(there[sha256], created=False, pending=pending)
            for place, sha256 in enumerate(sha256s)
            if sha256 in there
        }
        taken = {
            place: self._enrolling.submit(self._take_in, sha256, upload)
            for place, (upload, sha256) in enumerate(zip(uploads, sha256s, strict=True))
            if sha256 not in there
        }
        waiting: dict[int, _Taken] = {}
        try:
            for place, future in taken.items():
                try:
                    waiting[place] = future.result()
                except (UnknownFormat, UnusableImage) as error:
                    results[place] = error
            copies = {one.medium.sha256: one.copy for one in waiting.values()}
            self.pictures.save(copies)  # while the model works
            photos: dict[int, NewItem] = {}
            for place, one in waiting.items():
                try:
                    photos[place] = NewItem(one.medium, one.done.result().vector, uploads[place].details)
                except UnusableImage as error:
                    results[place] = error
            results |= zip(photos, self._commit(list(photos.values()), copies, cause), strict=True)
        finally:
            for future in taken.values():
                future.cancel()
            for one in waiting.values():
                one.done.cancel()
            self._forget({one.medium.sha256 for one in waiting.values()})
        return [results[place] for place in range(len(uploads))]

    def _take_in(self, sha256: str, upload: Upload) -> "_Taken":
        with self.metrics.stages["decode"].time():
            image = decode(upload.data)
            done = self.submit(image)
            return _Taken(Medium(sha256, *image.size, upload.name), done, lossless(image))

    def submit(self, image: Image.Image) -> "Future[Done]":
        """Have the model embed a photo after all queries; the result's `vector` (E,) is of unit length.

        The result raises UnusableImage where the embedding is not finite. Raises Busy when too many wait.
        """
        return self.batcher.submit(_Job(self.embedder.prepare(image)[None]), urgent=False)

    def query(self, images: Sequence[bytes], wish: Wish, cause: Cause = NOBODY) -> Answer:
        """Find the items most similar to the one subject that all the images show.

        Several images are one query: the normalised mean of their unit embeddings. Raises UnknownFormat and
        UnusableImage, Busy when too many wait for the model, and IndexUnavailable.
        """
        self.require_model()
        if self.index.trouble is not None:
            raise IndexUnavailable(self.index.trouble)
        seen = self.decoding.map(lambda data: prepared(self.embedder, data, self.metrics), images)
        search = _Search(wish.count, wish.chosen)
        done = self.batcher.submit(_Job(torch.stack(list(seen)), search)).result()
        assert done.found is not None
        answer = self._answer(done.vector, done.found, search.count, wish)
        sha256s = tuple(hashlib.sha256(data).hexdigest() for data in images)
        self._record(cause, wish, answer, images=sha256s)
        return answer

    def query_item(self, item_id: str, wish: Wish, cause: Cause = NOBODY) -> Answer:
        """Find the items most similar to an enrolled one, itself a candidate but no match; raises NotFound."""
        self.require_model()
        item = self.store.get(item_id)
        for row in self.store.rows(self.model_id, [item.number]):
            found = self._search(row.vector, wish.count + 1, wish.chosen)
            answer = self._answer(row.vector, found, wish.count + 1, wish, without=item.number)
            self._record(cause, wish, answer, item_id=item_id)
            return answer
        raise NotFound(f"no item {item_id!r}")  # deleted meanwhile

    def attention(self, data: bytes) -> Image.Image:
        """A photo with the model's attention over it, as `attended` makes it."""
        return self.decoding.submit(attended, self.embedder, data, self.batcher).result()

    def edit(self, item_id: str, changes: Changes, cause: Cause = NOBODY) -> Item:
        """Change some details of an item; raises NotFound, Conflict and, for a time without zone, ValueError."""
        item = self.store.edit(item_id, changes, cause)
        self._publish()
        return item

    def delete(self, item_ids: Collection[str], cause: Cause = NOBODY) -> list[Item]:
        """Remove items and their pictures, never to be found again, and return them as they were."""
        return self._deleted(lambda: self.store.delete(item_ids, cause))

    def delete_matching(self, chosen: Filter, expected: int, cause: Cause = NOBODY) -> list[Item]:
        """Remove the items that pass a filter, if they are as many as expected; raises Conflict otherwise."""
        return self._deleted(lambda: self.store.delete_matching(chosen, expected, cause))

    def adopt(self, cause: Cause = NOBODY) -> None:
        """Give the gallery to the model that is loaded, and serve it; raises ValueError as `Models.switch` does."""

        def switch() -> None:  # on the owner thread, so that no query meets an engine without vectors
            self.models.switch(self.model_id, cause)
            self.index.follow()

        self.batcher.run(switch).result()

    def prepare(self) -> bool:
        """Bring a portion of the loaded model's vectors to the index; tells whether that has all there are."""

        def portion() -> bool:
            self.index.tend()
            return self.index.follow()

        return self.batcher.run(portion).result()

    def size(self) -> int:
        """The number of items that can be found, as the owner thread counts them; raises IndexUnavailable."""
        return self.batcher.run(lambda: len(self.index)).result()

    def close(self) -> None:
        """Finish what waits for the model, and let go of the folder."""
        self._closing.set()
        self.batcher.close()
        self._tending.join()
        self._log.close()
        self.decoding.shutdown()
        self._enrolling.shutdown()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tend(self) -> None:
        """Have the owner thread do, between other work, what the index has left to do."""
        while (pause := self.index.pause) is not None and not self._closing.wait(pause):
            try:
                while self.serves and self.batcher.run(self.index.tend).result() and not self._closing.is_set():
                    pass
            except Closed:
                return
            except Exception as error:  # the database is away, say; the thread lives on, and tries again
                log.error("index: %s", error, exc_info=None if isinstance(error, OSError) else error)

    def _work(self, jobs: list[_Job]) -> list[Done | Exception]:
        """Embed the photos of all jobs at once, and search once for each filter among them."""
        now = perf_counter()
        for job in jobs:
            self.metrics.stages["wait"].observe(now - job.queued)
        images = torch.cat([job.images for job in jobs])
        self.metrics.batch_size.observe(len(images))
        with self.metrics.stages["model"].time():
            vectors = _fuse(self.embedder.embed_prepared(images), jobs)
        founds: dict[int, Found | IndexUnavailable] = {}
        sound = [place for place, vector in enumerate(vectors) if np.isfinite(vector).all()]
        searches = {place: search for place in sound if (search := jobs[place].search)}
        for chosen in {search.chosen for search in searches.values()}:
            places = [place for place, search in searches.items() if search.chosen == chosen]
            most = max(searches[place].count for place in places)
            try:
                with self.metrics.stages["search"].time():
                    found = self.index.search(np.stack([vectors[place] for place in places]), most, chosen)
                founds |= zip(places, found, strict=True)
            except IndexUnavailable as error:  # photos to be enrolled do not need it
                founds |= dict.fromkeys(places, error)
        broken = UnusableImage("the model's embedding of this image is not finite")
        answers: list[Done | Exception] = []
        for place, vector in enumerate(vectors):
            outcome = founds.get(place) if place in sound else broken
            answers.append(outcome if isinstance(outcome, Exception) else Done(vector, outcome))
        return answers

    def _write(self, asked: list[Asked]) -> list[None]:
        self.queries.append(asked)
        return [None] * len(asked)

    def _record(
        self, cause: Cause, wish: Wish, answer: Answer, images: tuple[str, ...] = (), item_id: str | None = None
    ) -> None:
        """Log a query; on return it is on the disk, together with those of other threads."""
        matches = tuple((match.item.item_id, match.score) for match in answer.matches)
        asked = Asked(cause, images, item_id, wish.conditions or {}, answer.candidates, matches)
        with self.metrics.stages["store"].time():
            self._log.submit(asked).result()

    def _commit(
        self, photos: Sequence[NewItem], copies: Mapping[str, bytes], cause: Cause
    ) -> list[Enrolled | Conflict]:
        sha256s = {photo.medium.sha256 for photo in photos}
        with self.database.exclusive(PICTURES_LOCK):
            # Some may have been deleted meanwhile, with an item of the same photo.
            self.pictures.save({sha256: copies[sha256] for sha256 in sha256s if not self.pictures.holds(sha256)})
            with self.metrics.stages["store"].time():
                enrolled = self.store.enrol(photos, cause, self.model_id)
        pending = not self._publish()
        return [one._replace(pending=pending) if isinstance(one, Enrolled) else one for one in enrolled]

    def _deleted(self, delete: Callable[[], list[Item]]) -> list[Item]:
        with self.database.exclusive(PICTURES_LOCK):
            items = delete()
        self._publish()
        self._forget({item.medium.sha256 for item in items})
        return items

    def _forget(self, sha256s: Collection[str]) -> None:
        """Remove the pictures of photos that are no items."""
        with self.database.exclusive(PICTURES_LOCK):
            for sha256 in set(sha256s) - self.store.by_content(sha256s).keys():
                self.pictures.delete(sha256)

    def _publish(self) -> bool:
        """Have queries know of all that is committed, and tell whether they do.

        The index reads the store when the owner thread gets there, so that two changes of one item cannot arrive in the
        wrong order.
        """
        return self.batcher.run(lambda: self.serves and self.index.follow()).result()

    def _search(self, vector: Vectors, count: int, chosen: Filter) -> Found:
        return self.batcher.run(lambda: self.index.search(vector[None], count, chosen)[0]).result()

    def _answer(self, vector: Vectors, found: Found, asked: int, wish: Wish, without: int | None = None) -> Answer:
        """The matches that a wish takes of what was found; asks for more while there are too few.

        That is so when groups are wanted, and when many hits were deleted of which the index has not heard.
        """
        matches, candidates = self._matches(found, wish, without)
        wanted = min(wish.top_k, self.store.count_groups(wish.chosen, without)) if wish.by_label else wish.top_k
        while len(matches) < wanted and asked < found.candidates and found.hits[-1].score >= wish.min_score:
            asked *= GROUP_FACTOR
            found = self._search(vector, asked, wish.chosen)
            matches, candidates = self._matches(found, wish, without)
        best = matches[0].score if matches else None
        chosen = tuple(match for match in matches[: wish.top_k] if match.score >= wish.min_score)
        return Answer(chosen, candidates, best)

    def _matches(self, found: Found, wish: Wish, without: int | None) -> tuple[list[Match], int]:
        """The matches among the hits, and the number of candidates; hits deleted or edited meanwhile may be neither."""
        # The store is ahead of the engine: an item must pass the filter as it is shown, for a key may hide its camera.
        items = self.store.get_many([hit.number for hit in found.hits], wish.chosen)
        candidates = found.candidates - sum(hit.number not in items for hit in found.hits)
        matches = [
            Match(items[hit.number], hit.score) for hit in found.hits if hit.number != without and hit.number in items
        ]
        if not wish.by_label:
            return matches, candidates
        seen: set[str] = set()
        best = []
        for match in matches:
            label = match.item.details.label
            if label is None or label not in seen:
                best.append(match)
                seen |= {label} if label is not None else set()
        return best, candidates


def _fuse(rows: Vectors, jobs: Sequence[_Job]) -> list[Vectors]:
    """The normalised mean of the embeddings of each job."""
    ends = np.cumsum([len(job.images) for job in jobs])
    return [part[0] if len(part) == 1 else _direction(part.mean(axis=0)) for part in np.split(rows, ends[:-1])]


def _direction(mean: Vectors) -> Vectors:
    direction: Vectors = mean / np.linalg.norm(mean)
    return direction


def described(embedder: Embedder) -> dict[str, Any]:
    """What a gallery keeps of a model beside its id and size."""
    return {"features": embedder.features, "flip_test": embedder.flip_test}
