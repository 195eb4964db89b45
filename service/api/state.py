"""What an operator asks of a service: the room on its disk, and what it searches with."""

from pathlib import Path

from fastapi import APIRouter

from reid.evaluation.protocol import model_name
from reid.inference.pretrained import Pretrained
from reid.retrieval.calibration import Calibration
from service.api.problems import documented
from service.gallery.gallery import Gallery
from service.settings import BACKUPS_FOLDER, Settings
from service.upkeep.usage import usage
from service.wire.state_schemas import (
    CalibrationFacts,
    Disk,
    DiskPart,
    EngineFacts,
    ModelFacts,
    WithinDatabase,
)

UNCALIBRATED = "there is no calibration beside the model: reid-eval --calibrate makes one"


def state(gallery: Gallery, settings: Settings, calibration: Calibration | None, probabilities: str) -> APIRouter:
    """`/v1/admin/disk` and `/v1/admin/model`; `probabilities` says where they come from, or why there are none."""
    router = APIRouter(prefix="/v1/admin", tags=["admin"])
    backups = settings.backups or gallery.folder / BACKUPS_FOLDER

    @router.get("/disk", responses=documented(503))
    def disk() -> Disk:
        """Tell how much room there is, and what takes how much of it.

        All files are looked at, which takes seconds where there are millions.
        """
        found = usage(gallery, backups)
        return Disk(
            free=found.free,
            total=found.total,
            warning=found.trouble,
            room_for=found.room_for,
            parts=[DiskPart(**part._asdict()) for part in found.parts],
            within_database=WithinDatabase(vectors=found.vectors, changes=found.changes, queries=found.queries),
        )

    @router.get("/model", responses=documented(503))
    def model() -> ModelFacts:
        """Tell what is known of the model, of its calibration and of the search engine."""
        embedder, trained = gallery.embedder, gallery.trained
        assert trained is not None, "a gallery that is served was opened with a model that says what it is"
        known = None if calibration is None else CalibrationFacts.model_validate(calibration, from_attributes=True)
        return ModelFacts(
            model_id=gallery.model_id,
            name=model_name(trained.config),
            source=_source(settings.model),
            checksum=trained.fingerprint,
            trained_on=gallery.trained_on,
            epoch=trained.epoch,
            image_size=trained.preprocessing.image_size,
            embedding_size=embedder.size,
            features=embedder.features,
            flip_test=embedder.flip_test,
            device=str(embedder.device),
            probabilities=probabilities,
            calibration=known,
            engine=EngineFacts(
                name=settings.engine, how=gallery.index.how, items=gallery.index.items, recall=gallery.index.recall
            ),
        )

    return router


def _source(model: Path | Pretrained | None) -> str:
    """A model by its name, not by where it is on this machine."""
    return model.name if isinstance(model, Path) else str(model)
