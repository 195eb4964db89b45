"""Giving a gallery to the model that is loaded: all kept pictures are embedded anew."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from time import sleep
from typing import Any

from PIL import Image

from reid.data.images import UnknownFormat, UnusableImage
from service.fields import Filter
from service.gallery.batcher import Busy
from service.gallery.gallery import Gallery
from service.gallery.worker import Embedded, describe_model
from service.records import NOBODY, Cause, Item, Job, NotFound, UnusableBox
from service.upkeep.jobs import Progress, Work

log = logging.getLogger("reid")

PHOTOS_AT_ONCE = 32
LOOKED_AT_ONCE = 1000
PAUSE = 0.1  # seconds
SHARE = "reindex"  # of the processes that decode


def reindex_work(gallery: Gallery) -> Work:
    """The work of jobs of the kind `reindex`; a `dry_run` tells what it would do."""

    def work(job: Job, progress: Progress) -> dict[str, Any]:
        # A restart may have brought a third model, which nobody asked for.
        if (asked := job.parameters.get("model_id", gallery.model_id)) != gallery.model_id:
            raise ValueError(f"asked for model {asked}, but model {gallery.model_id} is loaded now; ask again")
        if job.parameters.get("dry_run"):
            return outlook(gallery, progress)
        return reindex(gallery, progress, job.cause)

    return work


def outlook(gallery: Gallery, progress: Progress) -> dict[str, Any]:
    """What `reindex` would do: the `model_id`, the number of `items`, and how many it would `embed`.

    `left_out` are the public ids of items without picture; one that cannot be read is found by the re-index itself.
    """
    models, model_id = gallery.models, gallery.model_id
    items, lacking = gallery.store.count(Filter()), models.count_missing(model_id)
    left_out: list[str] = []
    done = after = 0
    while portion := models.missing(model_id, after, LOOKED_AT_ONCE):
        left_out += [item.item_id for item in portion if not gallery.pictures.holds(item.medium.sha256)]
        done, after = done + len(portion), portion[-1].number
        progress(min(done, lacking), lacking)
    told = {"model_id": model_id, "items": items, "embed": done - len(left_out), "left_out": left_out}
    return {"dry_run": True, **told}


def reindex(gallery: Gallery, progress: Progress, cause: Cause = NOBODY) -> dict[str, Any]:
    """Embed every item that has no vector of the loaded model, then have the gallery belong to that model.

    What is embedded is on the disk, so that a second call goes on where a first one ended; damaged vectors of the model
    are made anew. Items whose pictures cannot be read are left out: they keep their old vectors and are not found,
    until their photos are enrolled again and this is called again. The result is the `model_id`, the number of `items`
    and the public ids of those `left_out`. Raises ValueError, which names the first of them, when no picture at all can
    be read, as where their disk is not there; then the gallery keeps its model.
    """
    gallery.inspected.result()  # which may bring pictures back
    models, model_id = gallery.models, gallery.model_id
    models.prepare(model_id, gallery.embedder.size, describe_model(gallery.embedder))
    models.forget_damaged(model_id, cause)
    mended = cause if gallery.worker.serves else None
    left_out: dict[int, str] = {}
    items = gallery.store.count(Filter())
    done = items - models.count_missing(model_id)
    after = 0
    progress(done, items)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # waits for photos to be decoded
        while True:
            while portion := models.missing(model_id, after, PHOTOS_AT_ONCE):
                photos = [list(run) for _, run in groupby(portion, lambda item: item.medium.sha256)]
                waiting = [(run, pool.submit(_submit, gallery, run)) for run in photos]
                vectors = {}
                for place, item, submitted in ((*one, done) for run, done in waiting for one in enumerate(run)):
                    try:
                        vectors[item.number] = submitted.result()[place].result().vector
                    except (NotFound, UnknownFormat, UnusableImage, UnusableBox, OSError) as error:
                        log.warning("item %s: left out: %s", item.item_id, error)
                        left_out[item.number] = item.item_id
                models.add(model_id, vectors, mended)
                after = portion[-1].number
                done = min(done + len(portion), items)
                progress(done, items)
            if gallery.worker.serves:
                gallery.worker.publish()
                break
            while not gallery.worker.fill():
                progress(done, items)
                sleep(PAUSE)
            try:
                readable = len(left_out) < gallery.store.count(Filter())
                gallery.worker.adopt(cause, left_out if readable else ())
                break
            except ValueError:
                # Processes that still have the former model may have enrolled more.
                if not models.missing(model_id, after, 1):
                    raise
    lacking = {item.number for item in models.missing(model_id, 0, len(left_out))} if left_out else set()
    return {
        "model_id": model_id,
        "items": items,
        "left_out": [item_id for number, item_id in left_out.items() if number in lacking],  # the others are gone
    }


def _submit(gallery: Gallery, items: Sequence[Item]) -> "list[Future[Embedded]]":
    """Items of one photo on their way to the model, which fail by themselves where their box does."""
    return [_embed(gallery, view) for view in gallery.views(items, SHARE)]


def _embed(gallery: Gallery, view: Image.Image | UnusableBox) -> "Future[Embedded]":
    if isinstance(view, UnusableBox):
        failed = Future[Embedded]()
        failed.set_exception(view)
        return failed
    while True:
        try:
            return gallery.worker.embed(view)
        except Busy as busy:
            sleep(busy.retry_after)
