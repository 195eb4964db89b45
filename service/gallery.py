"""A gallery at work: photos go in, are found, changed and taken out, and whatever was answered stays true.

E is the embedding size.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np
from PIL import Image

from reid.checkpoint import fingerprint, model_file
from reid.device import choose_device, choose_precision
from reid.embedder import Embedder
from service.batcher import Batcher
from service.changes import Changes, Enrolled
from service.engines import MemoryEngine
from service.images import Pictures, UnknownFormat, UnusableImage, decode
from service.records import Conflict, Details, Filter, Found, Item, Medium, NewItem, NotFound, Vectors
from service.store import ROWS_AT_ONCE, Store

PICTURES_FOLDER = "pictures"

Refusal = UnknownFormat | UnusableImage | Conflict


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of an image file, its name, and what is said of it."""

    name: str
    data: bytes
    details: Details


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


class Gallery:
    """The store of a folder, the pictures beside it, and a search engine that follows the store; threads may share it.

    One owner thread runs the model and the engine. What a method returned is on the disk and holds for every query that
    begins later. Methods raise OSError when the disk cannot be read or written, and `Closed` after `close`.
    """

    def __init__(self, folder: Path, embedder: Embedder, model_id: str) -> None:
        """Open the gallery of `folder`, or start one where it is new or empty, and give the engine all its vectors.

        Raises ModelMismatch for the gallery of another model, and what opening a `Store` raises.
        """
        self.model_id = model_id
        self.embedder = embedder
        self._engine = MemoryEngine(embedder.device)
        self._store = Store(folder)
        try:
            self._store.bind(model_id, embedder.size, {"features": embedder.features, "flip_test": embedder.flip_test})
            self._item_ids = self._read_item_ids()  # by the SHA-256 of the photo
            self._pictures = Pictures(folder / PICTURES_FOLDER)
            self._pictures.sweep(self._item_ids)
            rows = self._store.rows(model_id)
            while portion := list(islice(rows, ROWS_AT_ONCE)):
                self._engine.upsert(portion)
        except BaseException:
            self._store.close()
            raise
        # A picture is written before its item and removed after it; the lock keeps one thread from removing what
        # another is about to refer to.
        self._changing = Lock()
        self._batcher: Batcher[Image.Image, Vectors] = Batcher(self._embed)

    def enrol(self, uploads: Sequence[Upload], *, request_id: str = "") -> list[Enrolled | Refusal]:
        """Add photos and tell, in their order, what became of each: its item, new or not, or why there is none.

        A photo whose bytes are there already is left as it is. Raises Busy when too many wait for the model, and
        ValueError for a time without zone; then none is added.
        """
        results: dict[int, Enrolled | Refusal] = {}
        waiting: dict[int, tuple[str, Image.Image, Future[Vectors]]] = {}
        try:
            for place, upload in enumerate(uploads):
                sha256 = hashlib.sha256(upload.data).hexdigest()
                if there := self.find(sha256):
                    results[place] = Enrolled(there, created=False)
                    continue
                try:
                    image = decode(upload.data)
                except (UnknownFormat, UnusableImage) as error:
                    results[place] = error
                    continue
                waiting[place] = sha256, image, self._batcher.submit(image, urgent=False)
                self._pictures.save(sha256, image)  # while the model works
            photos: dict[int, tuple[NewItem, Image.Image]] = {}
            for place, (sha256, image, future) in waiting.items():
                try:
                    medium = Medium(sha256, *image.size, uploads[place].name)
                    photos[place] = NewItem(medium, future.result(), uploads[place].details), image
                except UnusableImage as error:
                    results[place] = error
            results |= zip(photos, self._commit(list(photos.values()), request_id), strict=True)
        finally:
            self._forget({sha256 for sha256, _, _ in waiting.values()}, [future for _, _, future in waiting.values()])
        return [results[place] for place in range(len(uploads))]

    def find(self, sha256: str) -> Item | None:
        """The item whose photo has these bytes, if there is one."""
        with self._changing:
            item_id = self._item_ids.get(sha256)
            return self._store.get(item_id) if item_id else None

    def query(self, images: Sequence[bytes], chosen: Filter, top_k: int, min_score: float = -1.0) -> Answer:
        """Find the `top_k` items most similar to the one subject that all the images show.

        Several images are one query: the normalised mean of their unit embeddings. Raises UnknownFormat and
        UnusableImage, and Busy when too many wait for the model.
        """
        futures = [self._batcher.submit(image) for image in [decode(data) for data in images]]
        mean = np.mean([future.result() for future in futures], axis=0)
        return self._search(mean / np.linalg.norm(mean), chosen, top_k, min_score)

    def query_item(self, item_id: str, chosen: Filter, top_k: int, min_score: float = -1.0) -> Answer:
        """Find the `top_k` items most similar to an enrolled one, itself a candidate but no match; raises NotFound."""
        item = self._store.get(item_id)
        for row in self._store.rows(self.model_id, [item.number]):
            return self._search(row.vector, chosen, top_k, min_score, without=item.number)
        raise NotFound(f"no item {item_id!r}")  # deleted meanwhile

    def get(self, item_id: str) -> Item:
        """The item of a public id; raises NotFound."""
        return self._store.get(item_id)

    def page(self, chosen: Filter, after: int, limit: int) -> list[Item]:
        """The first `limit` items that pass the filter and have a number above `after`, by rising number."""
        return self._store.page(chosen, after, limit)

    def edit(self, item_id: str, changes: Changes, *, request_id: str = "") -> Item:
        """Change some details of an item; raises NotFound, Conflict and, for a time without zone, ValueError."""
        item = self._store.edit(item_id, changes, request_id=request_id)
        self._publish([item.number])
        return item

    def delete(self, item_id: str, *, request_id: str = "") -> None:
        """Remove an item and its pictures, never to be found again; raises NotFound."""
        with self._changing:
            deleted = self._store.delete([item_id], request_id=request_id)
            if not deleted:
                raise NotFound(f"no item {item_id!r}")
            sha256 = deleted[0].medium.sha256
            del self._item_ids[sha256]
        self._publish([deleted[0].number])
        self._forget({sha256})

    def image(self, sha256: str) -> bytes:
        """The WebP file of an enrolled photo; raises NotFound."""
        return self._pictures.read(sha256)

    def thumbnail(self, sha256: str) -> bytes:
        """A small JPEG file of an enrolled photo; raises NotFound."""
        return self._pictures.thumbnail(sha256)

    def size(self) -> int:
        """The number of items that can be found, as the owner thread counts them."""
        return self._batcher.run(lambda: len(self._engine)).result()

    def close(self) -> None:
        """Finish what waits for the model, and let go of the folder."""
        self._batcher.close()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_item_ids(self) -> dict[str, str]:
        ids: dict[str, str] = {}
        after = 0
        while page := self._store.page(Filter(), after, ROWS_AT_ONCE):
            ids |= {item.medium.sha256: item.item_id for item in page}
            after = page[-1].number
        return ids

    def _embed(self, images: list[Image.Image]) -> list[Vectors | Exception]:
        rows = self.embedder.embed(images)
        broken = UnusableImage("the model's embedding of this image is not finite")
        return [row if np.isfinite(row).all() else broken for row in rows]

    def _commit(self, photos: Sequence[tuple[NewItem, Image.Image]], request_id: str) -> list[Enrolled | Conflict]:
        with self._changing:
            for photo, image in photos:
                self._pictures.save(photo.medium.sha256, image)  # again, for one that was deleted meanwhile
            enrolled = self._store.enrol([photo for photo, _ in photos], request_id=request_id)
            items = [result.item for result in enrolled if isinstance(result, Enrolled)]
            self._item_ids |= {item.medium.sha256: item.item_id for item in items}
        self._publish([item.number for item in items])
        return enrolled

    def _forget(self, photos: Collection[str], futures: Collection[Future[Vectors]] = ()) -> None:
        """Remove the pictures of photos that are no items, and drop jobs that nobody waits for any more."""
        for future in futures:
            future.cancel()
        with self._changing:
            for sha256 in photos:
                if sha256 not in self._item_ids:
                    self._pictures.delete(sha256)

    def _publish(self, numbers: Collection[int]) -> None:
        """Bring the engine's rows of these numbers to what the store holds when the owner thread gets there.

        Reading the store there and not before keeps two changes of one item from arriving in the wrong order.
        """

        def follow() -> None:
            rows = list(self._store.rows(self.model_id, numbers))
            self._engine.upsert(rows)
            self._engine.remove(set(numbers) - {row.number for row in rows})

        self._batcher.run(follow).result()

    def _search(
        self, vector: Vectors, chosen: Filter, top_k: int, min_score: float, without: int | None = None
    ) -> Answer:
        def search() -> Found:
            return self._engine.search(vector[None], top_k + (without is not None), chosen)[0]

        found = self._batcher.run(search).result()
        hits = [hit for hit in found.hits if hit.number != without][:top_k]
        items = self._store.get_many([hit.number for hit in hits])  # without those deleted meanwhile
        matches = [Match(items[hit.number], hit.score) for hit in hits if hit.number in items]
        best = matches[0].score if matches else None
        return Answer(tuple(match for match in matches if match.score >= min_score), found.candidates, best)


def open_gallery(folder: Path, checkpoint: Path, device: str = "auto") -> Gallery:
    """Open a gallery with the model of a run folder or model file, as that was trained to be evaluated.

    Raises what loading a model and opening a `Gallery` raise.
    """
    chosen = choose_device(device)
    embedder, described = Embedder.from_checkpoint(checkpoint, device=chosen)
    embedder.precision = choose_precision(described.config.train.precision, chosen)
    embedder.embed([Image.new("RGB", (8, 8))])  # the first pass is slow, so nobody shall wait for it
    identity = {
        "weights": fingerprint(model_file(checkpoint)),
        "preprocessing": described.preprocessing.as_json(),
        "features": embedder.features,
        "flip_test": embedder.flip_test,
    }
    model_id = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return Gallery(folder, embedder, model_id)
