"""Routes for whoever starts, stops and watches the service."""

from fastapi import APIRouter

from service.api.problems import documented
from service.classification import Classification
from service.gallery.gallery import Gallery
from service.wire import schemas


def health(gallery: Gallery | None, classification: Classification | None) -> APIRouter:
    """`/health/live` and `/health/ready`."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live")
    def live() -> schemas.Live:
        """Whether the process answers."""
        return schemas.Live()

    @router.get("/ready", responses=documented(503))
    def ready() -> schemas.Ready:
        """Whether all that is served is answered: models are warm, and the gallery belongs to its own.

        While the service starts, this and every other route but `/health/live` answers 503 `starting`.
        """
        ready = schemas.Ready(model_id=None, items=None, trained_on=None, classifier=None)
        if classification is not None:
            classification.check()
            model_id, count = classification.model_id, len(classification.classes)
            ready.classifier = schemas.ServedClassifier(model_id=model_id, classes=count)
        if gallery is not None:
            ready.model_id, ready.items, ready.trained_on = gallery.model_id, gallery.worker.size(), gallery.trained_on
            gallery.worker.require_model()
        return ready

    return router
