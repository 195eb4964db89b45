"""Routes that give pictures of items: photos, thumbnails, and where the model looks."""

from collections.abc import Callable
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import APIRouter, Query, Request, Response

from service.api.access import caller_of, cause_of
from service.api.attention import png
from service.api.items import ItemId, require_whole_photo, visible
from service.api.problems import documented, pictures_as
from service.api.uploads import QUERYING, apart
from service.gallery.gallery import Gallery
from service.records import Item

# By how a file begins.
MEDIA_TYPES = {b"\xff\xd8": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}

# A page has hundreds of thumbnails, and what an item shows never changes. For a day, so that a deleted one is gone from
# the caches of browsers soon; and for one key, which may be another tomorrow.
KEPT = {"Cache-Control": "private, max-age=86400, immutable", "Vary": "Authorization, Cookie, X-API-Key"}


def pictures(gallery: Gallery) -> APIRouter:
    """`/v1/items/{item_id}/image`, `/thumbnail` and `/attention`."""
    router = APIRouter(tags=["pictures"])
    apart_from_others = apart(CapacityLimiter(QUERYING))
    unchanged = {304: {"description": "The picture is the one that If-None-Match names"}, **documented(404, 422, 503)}

    @router.get(
        "/v1/items/{item_id}/image",
        response_class=Response,
        responses={200: pictures_as(*MEDIA_TYPES.values()), **unchanged},
    )
    @apart_from_others
    def image(
        item_id: ItemId,
        request: Request,
        whole: Annotated[bool, Query(description="the whole photo, also for an item that is a box in it")] = False,
    ) -> Response:
        """What an item shows, a photo or the box in it, lossless and without metadata but for how it lies.

        A JPEG file of a photo may tell by its EXIF orientation how to turn it upright, where boxes are measured. A key
        for some cameras gets the whole photo where it sees all items of it.
        """
        caller = caller_of(request)
        item = visible(gallery, item_id, caller)
        sha256 = item.medium.sha256
        if item.region is None:
            whole = True
        elif whole:
            require_whole_photo(gallery, item, caller)
        if whole:
            return _picture(request, sha256, lambda: gallery.pictures.read(sha256, item.medium.copy_sha256))
        return _picture(request, _tag(item), lambda: gallery.picture(item, cause_of(request)))

    @router.get(
        "/v1/items/{item_id}/thumbnail",
        response_class=Response,
        responses={200: pictures_as("image/jpeg"), **unchanged},
    )
    @apart_from_others
    def thumbnail(
        item_id: ItemId,
        request: Request,
        small: Annotated[bool, Query(description="of at most 160 pixels on a side, not 256")] = False,
    ) -> Response:
        """A small copy of what an item shows."""
        item = visible(gallery, item_id, caller_of(request))
        tag = f"{_tag(item)}-{'small' if small else 'thumbnail'}"
        answer = _picture(request, tag, lambda: gallery.thumbnail(item, cause_of(request), small=small))
        answer.headers.update(KEPT)
        return answer

    @router.get(
        "/v1/items/{item_id}/attention",
        response_class=Response,
        responses={200: pictures_as("image/png"), **unchanged},
    )
    @apart_from_others
    def attention(item_id: ItemId, request: Request) -> Response:
        """Where the model looks in what an item shows: bright where most, the patches that GLCA chose outlined."""
        item = visible(gallery, item_id, caller_of(request))
        return _picture(
            request, f"{_tag(item)}-{gallery.model_id}", lambda: png(gallery.item_attention(item, cause_of(request)))
        )

    return router


def _tag(item: Item) -> str:
    region = item.region
    shown = "" if region is None else f"-{region.x}-{region.y}-{region.w}-{region.h}"
    return f"{item.medium.sha256}{shown}"


def _picture(request: Request, tag: str, read: Callable[[], bytes]) -> Response:
    # Photos are not kept without asking again, so that a deleted one is gone from the caches of browsers, too.
    etag = f'"{tag}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    data = read()
    media_type = next(kind for beginning, kind in MEDIA_TYPES.items() if data.startswith(beginning))
    return Response(data, headers=headers, media_type=media_type)
