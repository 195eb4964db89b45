"""Routes for whoever starts, stops and watches the service."""

from fastapi import APIRouter

from service.api import schemas
from service.api.problems import documented
from service.gallery import Gallery


def health(gallery: Gallery) -> APIRouter:
    """`/health/live` and `/health/ready`."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live")
    def live() -> schemas.Live:
        """Whether the process answers."""
        return schemas.Live()

    @router.get("/ready", responses=documented(503))
    def ready() -> schemas.Ready:
        """Whether queries are answered: the model is warm, and the gallery belongs to it."""
        items = gallery.size()
        gallery.require_model()
        return schemas.Ready(model_id=gallery.model_id, items=items)

    return router
