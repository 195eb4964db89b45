"""The route that takes every trace of items away."""

from pathlib import Path

from fastapi import APIRouter, Request

from service.api.access import cause_of
from service.api.problems import documented
from service.gallery.gallery import Gallery
from service.upkeep.erase import erase
from service.wire.admin_schemas import Erasure, Receipt


def erasure(gallery: Gallery, backups: Path) -> APIRouter:
    """`/v1/admin/erase`."""
    router = APIRouter(prefix="/v1/admin", tags=["admin"])

    @router.post("/erase", responses=documented(400, 413, 422, 503))
    def erase_items(wanted: Erasure, request: Request) -> Receipt:
        """Delete items, and take all that is said of them out of logs, replies and backups.

        Items that were deleted before can be named, too. What the receipt names as not reached is left to you.
        """
        try:
            receipt = erase(gallery.database, gallery.holdings, wanted.item_ids, backups, cause_of(request))
        finally:
            gallery.worker.publish()
        return Receipt.model_validate(receipt)

    return router
