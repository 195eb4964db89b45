"""From settings to the application that answers: models, gallery and index, and what runs beside them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI

from reid.evaluation.calibrate import load_calibration
from reid.retrieval.calibration import Calibration
from service.api.app import create_app, create_classifier_app
from service.classification import Classification
from service.fields import Filter
from service.gallery.gallery import Gallery
from service.gallery.index import ServerIndex
from service.opening import load_classifier, open_gallery
from service.records import ModelMismatch
from service.settings import Settings
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.upkeep.backup import backup_work
from service.upkeep.jobs import JobRunner
from service.upkeep.reconcile import reconcile_work
from service.upkeep.reindex import reindex_work

log = logging.getLogger("reid")

BACKUPS_FOLDER = "backups"
LARGE = 200_000  # items from which exact search on a CPU is felt


class Loaded(NamedTuple):
    """What is served, and the application that answers for it."""

    app: FastAPI
    gallery: Gallery | None
    classification: Classification | None


@contextmanager
def load_app(settings: Settings, doing: Callable[[str], None]) -> Iterator[Loaded]:
    """Open a gallery, a classifier or both, with the jobs of a gallery running; `doing` is told what is under way.

    Raises what loading models, opening a gallery and reading a calibration raise, and ValueError where keys are
    required and there is none.
    """
    with ExitStack() as opened:
        classifier = None
        if settings.classifier is not None:
            doing("loading the classifier")
            classifier = load_classifier(settings.classifier, settings.device)
        if settings.checkpoint is None or settings.gallery is None:
            assert classifier is not None  # settings have one or the other
            classification = opened.enter_context(Classification(*classifier))
            _require_some_key(settings, None)
            yield Loaded(create_classifier_app(classification, settings), None, classification)
            return
        gallery = opened.enter_context(
            open_gallery(settings.gallery, settings.checkpoint, settings.device, settings, doing)
        )
        _require_some_key(settings, gallery)
        backups = settings.backups or settings.gallery / BACKUPS_FOLDER
        kinds = {
            "backup": backup_work(gallery.database, gallery.pictures, backups),
            "reindex": reindex_work(gallery),
        }
        if isinstance(gallery.index, ServerIndex):
            kinds["reconcile"] = reconcile_work(gallery, gallery.index)
        calibration = _calibration(settings.checkpoint, gallery)
        beside = classifier and opened.enter_context(Classification(*classifier, gallery))
        runner = opened.enter_context(JobRunner(Jobs(gallery.database), kinds))
        yield Loaded(create_app(gallery, runner, settings, calibration, beside), gallery, beside)


def announce(loaded: Loaded, settings: Settings, address: str) -> None:
    """Log what is served at an address, who may ask, and what its owner had better know."""
    _, gallery, classification = loaded
    who = "with a key" if settings.keys_required else "from this machine, without a key"
    served = []
    if gallery is not None:
        served.append(f"{gallery.store.count(Filter())} items of model {gallery.model_id}")
    if classification is not None:
        served.append(f"{len(classification.classes)} classes of classifier {classification.model_id}")
    log.info("%s on %s, %s", " and ".join(served), address, who)
    if gallery is None:
        return
    if gallery.trained_on == "toy":
        log.warning(
            "warning: this is the toy model: it was trained on drawn vehicles and knows nothing of photos; "
            "serve a model of your own with REID_CHECKPOINT or --checkpoint"
        )
    try:
        gallery.worker.require_model()
    except ModelMismatch as mismatch:
        log.warning("warning: %s: POST /v1/admin/reindex; until then queries are refused", mismatch)
    if gallery.index.items > LARGE and settings.engine == "memory" and gallery.embedder.device.type == "cpu":
        log.warning("warning: beyond %d items on a CPU, REID_ENGINE=faiss-ivf answers faster, nearly exactly", LARGE)


def _require_some_key(settings: Settings, gallery: Gallery | None) -> None:
    if not settings.keys_required or settings.admin_key is not None:
        return
    why = f"{settings.host} is not this machine alone, so that keys are required"
    if gallery is None:
        raise ValueError(f"{why}, and only a gallery can keep keys; set REID_ADMIN_KEY to serve a classifier alone")
    if all(key.revoked_at is not None for key in Keys(gallery.database).list()):
        raise ValueError(
            f"{why}, but the gallery has none; make one "
            f"with: reid-gallery keys add --gallery {settings.gallery} --scope admin NAME, or set REID_ADMIN_KEY"
        )


def _calibration(checkpoint: Path, gallery: Gallery) -> Calibration | None:
    """The calibration beside the checkpoint, if it was made for the embeddings of the gallery."""
    kept = load_calibration(checkpoint)
    if kept is None:
        return None
    for name in ("features", "flip_test"):
        served = getattr(gallery.embedder, name)
        if kept.protocol.get(name) != served:
            log.warning(
                "warning: no probabilities: the calibration was made with %s %s, the gallery with %s",
                name,
                kept.protocol.get(name),
                served,
            )
            return None
    return kept.calibration
