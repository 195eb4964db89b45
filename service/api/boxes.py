"""The route that enrols boxes in photos that are enrolled already."""

from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, Request, Response

from service.api.access import caller_of, cause_of
from service.api.items import ItemId, require_whole_photo, result_of, visible
from service.api.problems import documented
from service.api.uploads import ENROLLING, apart, refuse_query
from service.gallery.gallery import Gallery
from service.records import Details
from service.wire import schemas


def boxes(gallery: Gallery) -> APIRouter:
    """`/v1/items/{item_id}/boxes`."""
    router = APIRouter(tags=["items"])

    @router.post(
        "/v1/items/{item_id}/boxes",
        status_code=201,
        responses={
            207: {"model": schemas.EnrolAnswer, "description": "Some boxes were not enrolled"},
            **documented(400, 404, 413, 422, 503),
        },
        dependencies=[Depends(refuse_query)],
    )
    @apart(CapacityLimiter(ENROLLING))
    def enrol(item_id: ItemId, wanted: schemas.BoxesForm, request: Request, response: Response) -> schemas.EnrolAnswer:
        """Enrol boxes in the photo of an item, each an item of its own, without sending the photo again.

        They get its camera, time, place, site, origin and device. What is there already is left as it is.
        """
        caller = caller_of(request)
        item = visible(gallery, item_id, caller)
        require_whole_photo(gallery, item, caller)
        parts = wanted.parts(_of_the_photo(item.details))
        results = [
            result_of(gallery.store, 0, item.medium.source, box, result, request)
            for (_, box), result in zip(parts, gallery.enrol_boxes(item, parts, cause_of(request)), strict=True)
        ]
        if any(result.error for result in results):
            response.status_code = 207
        return schemas.EnrolAnswer(model_id=gallery.model_id, results=results)

    return router


def _of_the_photo(said: Details) -> Details:
    """What is said of an item that holds of whatever else its photo shows."""
    return Details(
        camera=said.camera,
        captured_at=said.captured_at,
        captured_precision=said.captured_precision,
        site=said.site,
        origin=said.origin,
        latitude=said.latitude,
        longitude=said.longitude,
        attributes={name: value for name, value in said.attributes.items() if name == "device"},
    )
