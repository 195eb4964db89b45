"""Giving a gallery to the model that is loaded: all kept pictures are embedded anew."""

import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from time import sleep
from typing import Any

from reid.data.images import UnknownFormat, UnusableImage
from service.fields import Filter
from service.gallery.batcher import Busy
from service.gallery.gallery import Gallery
from service.gallery.worker import Embedded, describe_model
from service.records import NOBODY, Cause, Item, Job, NotFound, UnusableBox
from service.upkeep.jobs import Progress, Work

log = logging.getLogger("reid")

PHOTOS_AT_ONCE = 32
PAUSE = 0.1  # seconds


def reindex_work(gallery: Gallery) -> Work:
    """The work of jobs of the kind `reindex`."""

    def work(job: Job, progress: Progress) -> dict[str, Any]:
        # A restart may have brought a third model, which nobody asked for.
        if (asked := job.parameters.get("model_id", gallery.model_id)) != gallery.model_id:
            raise ValueError(f"asked for model {asked}, but model {gallery.model_id} is loaded now; ask again")
        return reindex(gallery, progress, job.cause)

    return work


def reindex(gallery: Gallery, progress: Progress, cause: Cause = NOBODY) -> dict[str, Any]:
    """Embed every item that has no vector of the loaded model, then have the gallery belong to that model.

    What is embedded is on the disk, so that a second call goes on where a first one ended. The result is the `model_id`
    and the number of `items`. Raises ValueError, which names the first of them, when pictures cannot be read; then the
    gallery keeps its model, and what was embedded stays.
    """
    models, model_id = gallery.models, gallery.model_id
    models.prepare(model_id, gallery.embedder.size, describe_model(gallery.embedder))
    items = gallery.store.count(Filter())
    done = items - models.count_missing(model_id)
    after = 0
    progress(done, items)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decodes; a photo of 50 megapixels takes some hundred MiB
        while True:
            while portion := models.missing(model_id, after, PHOTOS_AT_ONCE):
                waiting = [(item, pool.submit(_submit, gallery, item)) for item in portion]
                vectors = {}
                for item, submitted in waiting:
                    try:
                        vectors[item.number] = submitted.result().result().vector
                    except (NotFound, UnknownFormat, UnusableImage, UnusableBox, OSError) as error:
                        log.warning("item %s: %s", item.item_id, error)
                models.add(model_id, vectors)
                after = portion[-1].number
                done = min(done + len(portion), items)
                progress(done, items)
            if gallery.worker.serves:
                break
            while not gallery.worker.fill():
                progress(done, items)
                sleep(PAUSE)
            try:
                gallery.worker.adopt(cause)
                break
            except ValueError:
                # Processes that still have the former model may have enrolled more.
                if not models.missing(model_id, after, 1):
                    raise
    return {"model_id": model_id, "items": items}


def _submit(gallery: Gallery, item: Item) -> "Future[Embedded]":
    image = gallery.pictures.crop(item, profiles=gallery.worker.profiles)
    while True:
        try:
            return gallery.worker.embed(image)
        except Busy as busy:
            sleep(busy.retry_after)
