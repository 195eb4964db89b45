"""Routes for whoever starts, stops and watches the service."""

from fastapi import APIRouter, Request

from service.api.access import asker_of
from service.api.problems import documented
from service.classification import Classification
from service.fields import Filter
from service.gallery.gallery import Gallery
from service.records import ModelMismatch
from service.wire import schemas


def health(gallery: Gallery | None, classification: Classification | None) -> APIRouter:
    """`/health/live` and `/health/ready`."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live")
    async def live() -> schemas.Live:  # which waits for no thread
        """Whether the process answers."""
        return schemas.Live()

    @router.get("/ready", responses=documented(503))
    def ready(request: Request) -> schemas.Ready:
        """Whether all that is served is answered: models are warm, and the gallery belongs to its own.

        `degraded` is answered as well, and somebody should look after it. Who needs a key and sends none is told that
        word alone. While the service starts, this and every other route but `/health/live` answers 503 `starting`.
        """
        caller = asker_of(request)
        ready = schemas.Ready(model_id=None, items=None, trained_on=None, runtime=None, classifier=None)
        if classification is not None:
            classification.check()
        if classification is not None and caller is not None:
            model_id, count = classification.model_id, len(classification.classes)
            ready.classifier = schemas.ServedClassifier(model_id=model_id, classes=count)
        if gallery is not None:
            items = gallery.worker.size()  # when the worker answers
            try:
                gallery.worker.require_model()
            except ModelMismatch as mismatch:
                raise mismatch if caller else ModelMismatch("not ready; who sends a key is told why") from None
            troubles = gallery.troubles()
            ready.status = "degraded" if troubles else "ready"
            if caller is not None:
                ready.model_id, ready.trained_on = gallery.model_id, gallery.trained_on
                ready.runtime = gallery.embedder.runtime
                ready.items = items if caller.cameras is None else gallery.store.count(caller.narrow(Filter()))
                ready.reasons = troubles
        return ready

    return router
