"""The route that gives the catalogue of a gallery as a table."""

from functools import partial
from io import StringIO
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from reid.data.cells import BOM
from service.api.access import caller_of
from service.api.description import ATTRIBUTES_ASKED
from service.api.problems import documented
from service.fields import Filter
from service.gallery.gallery import Gallery
from service.review.reviews import Reviews
from service.review.rows import sightings
from service.review.sheets import write_table, write_wildbook
from service.wire.review_schemas import CatalogueQuery

MEDIA_TYPE = "text/csv"
_TABLE: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}


def catalogue(gallery: Gallery, reviews: Reviews) -> APIRouter:
    """`/v1/catalogue`."""
    router = APIRouter(tags=["identities"])

    @router.get(
        "/v1/catalogue",
        response_class=Response,
        responses={200: _TABLE, **documented(409, 422, 503)},
        openapi_extra={"parameters": ATTRIBUTES_ASKED},
    )
    def table(wanted: Annotated[CatalogueQuery, Query()], request: Request) -> Response:
        """Tell of each item whom it shows, who decided that and how sure it is, as a table (CSV).

        With `likely` it also tells whom each item may be found to show that the review has not settled yet, which needs
        one that was started. `reid-gallery name` gives the items of this or another gallery the names of such a table.
        """
        caller = caller_of(request)
        likely = reviews.likely() if wanted.likely else {}
        rows = sightings(gallery.database, caller.narrow(wanted.chosen()), caller.narrow(Filter()), likely)
        write = write_table if wanted.format == "table" else partial(write_wildbook, species=wanted.species or "")
        file = StringIO(newline="")
        file.write(BOM if wanted.format == "table" else "")  # Wildbook takes it for a part of the first heading
        write(file, rows)
        name = "who_is_who.csv" if wanted.format == "table" else "wildbook.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(file.getvalue(), media_type=MEDIA_TYPE, headers=headers)

    return router
