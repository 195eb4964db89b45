"""From settings to the application that answers: models, gallery and index, and what runs beside them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import NamedTuple

from fastapi import FastAPI

from reid.data.tables import AS_IT_IS
from reid.evaluation.calibrate import load_calibration
from reid.inference.pretrained import ModelSource, Pretrained
from reid.names import counted
from reid.retrieval.calibration import Calibration
from service.api.app import create_app, create_classifier_app
from service.api.state import UNCALIBRATED
from service.bulk.import_work import KIND as IMPORT
from service.bulk.import_work import import_work
from service.bulk.sources import source_of
from service.bulk.watching import Watcher, require_folders
from service.classification import Classification
from service.gallery.decoders import Decoders
from service.gallery.gallery import Gallery
from service.gallery.imports import Imports
from service.gallery.index import ServerIndex
from service.opening import load_classifier, open_gallery
from service.records import ModelMismatch
from service.review.reviews import KIND, Reviews
from service.settings import BACKUPS_FOLDER, Settings
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.upkeep.backup import backup_work
from service.upkeep.check import check_work
from service.upkeep.deletion import delete_work
from service.upkeep.jobs import JobRunner
from service.upkeep.reconcile import reconcile_work
from service.upkeep.reindex import reindex_work
from service.upkeep.retention import expire_work, prune_work

log = logging.getLogger("reid")

LARGE = 200_000  # items from which exact search on a CPU is felt


class Loaded(NamedTuple):
    """What is served, and the application that answers for it."""

    app: FastAPI
    gallery: Gallery | None
    classification: Classification | None

    def give_up(self) -> None:
        """Have whoever waits for a photo to be read or embedded get `Closed`, before all is closed."""
        for served in (self.gallery, self.classification):
            if served is not None:
                served.give_up()


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
        model = settings.model
        if model is None or settings.gallery is None:
            assert classifier is not None  # settings have one or the other
            classification = opened.enter_context(
                Classification(*classifier, decoders=Decoders(seconds=settings.decode_seconds))
            )
            _require_some_key(settings, None)
            yield Loaded(create_classifier_app(classification, settings), None, classification)
            return
        gallery = opened.enter_context(open_gallery(settings.gallery, model, settings.device, settings, doing))
        _require_some_key(settings, gallery)
        backups = settings.backups or settings.gallery / BACKUPS_FOLDER
        reviews = Reviews(gallery.database, gallery.worker.publish)
        imports = Imports(gallery.database, settings.most_bytes_of_imports, settings.max_upload_bytes)
        kinds = {
            "backup": backup_work(gallery.database, gallery.pictures, backups),
            "reindex": reindex_work(gallery),
            "check": check_work(gallery.database, gallery.pictures),
            "delete": delete_work(gallery),
            KIND: reviews.work,
            IMPORT: import_work(gallery, imports, settings.max_upload_bytes),
        }
        every = {"prune": timedelta(days=1), "check": timedelta(days=7)}
        log_bytes, subject_bytes = (
            int(megabytes * 2**20) for megabytes in (settings.query_log_mb, settings.subject_mb)
        )
        kinds["prune"] = prune_work(
            gallery, settings.query_log_days, log_bytes, subject_bytes, imports, settings.import_days
        )
        if settings.keep_days:
            kinds["expire"] = expire_work(gallery, settings.keep_days)
            every["expire"] = timedelta(days=1)
        if isinstance(gallery.index, ServerIndex):
            kinds["reconcile"] = reconcile_work(gallery, gallery.index)
        calibration, probabilities = _calibration(model, gallery)
        beside = classifier and opened.enter_context(Classification(*classifier, gallery))
        # Both work the model for hours: one after the other, and a backup waits for neither.
        slow = (IMPORT, "reindex")
        runner = opened.enter_context(JobRunner(Jobs(gallery.database), kinds, every, slow))
        if settings.watch is not None:
            require_folders([settings.watch])
            opened.enter_context(Watcher(gallery, [source_of(settings.watch, AS_IT_IS)]))
        yield Loaded(
            create_app(gallery, runner, settings, calibration, beside, reviews, probabilities), gallery, beside
        )


def announce(loaded: Loaded, settings: Settings, address: str) -> None:
    """Log what is served at an address, who may ask, and what its owner had better know."""
    _, gallery, classification = loaded
    unguarded = settings.open_to_others and not settings.keys_required
    who = (
        "with a key" if settings.keys_required else "without a key" if unguarded else "from this machine, without a key"
    )
    served = []
    if gallery is not None:
        by = {"torch": "torch", "onnx": "ONNX Runtime"}[gallery.embedder.runtime]
        served.append(f"{counted(gallery.index.items, 'item')} of model {gallery.model_id} (run by {by})")
    if classification is not None:
        served.append(
            f"{counted(len(classification.classes), 'class', 'classes')} of classifier {classification.model_id}"
        )
    log.info("%s on %s, %s", " and ".join(served), address, who)
    if unguarded:
        through = "a proxy lets pass" if settings.behind_proxy else f"reaches {settings.host}"
        log.warning("warning: whoever %s may see and change everything (REID_REQUIRE_KEYS=false)", through)
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
        log.warning("warning: beyond %d items on a CPU, REID_ENGINE=approximate answers faster, nearly exactly", LARGE)


def _require_some_key(settings: Settings, gallery: Gallery | None) -> None:
    if not settings.keys_required or settings.admin_key is not None:
        return
    others = "a proxy lets others ask" if settings.behind_proxy else f"{settings.host} is not this machine alone"
    why = f"{others}, so that keys are required"
    if gallery is None:
        raise ValueError(f"{why}, and only a gallery can keep keys; set REID_ADMIN_KEY to serve a classifier alone")
    if all(key.revoked_at is not None for key in Keys(gallery.database).list()):
        raise ValueError(
            f"{why}, but the gallery has none; make one "
            f"with: reid-gallery keys add --gallery {settings.gallery} --scope admin NAME, or set REID_ADMIN_KEY"
        )


def _calibration(model: ModelSource, gallery: Gallery) -> tuple[Calibration | None, str]:
    """The calibration beside a checkpoint, if it was made for the embeddings of the gallery, and whence it is.

    Where there is none, why.
    """
    kept = None if isinstance(model, Pretrained) else load_calibration(model)
    if kept is None:
        return None, UNCALIBRATED
    for name in ("features", "flip_test"):
        served = getattr(gallery.embedder, name)
        if kept.protocol.get(name) != served:
            made = kept.protocol.get(name)
            why = f"the calibration was made with {name} {made}, the gallery with {served}"
            log.warning("warning: no probabilities: %s", why)
            return None, why
    return kept.calibration, f"an evaluation on {kept.protocol.get('dataset') or 'features'} with other individuals"
