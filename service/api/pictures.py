"""Routes that give pictures: photos, thumbnails, and where the model looks."""

import io
from collections.abc import Callable
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Form, Request, Response

from service.api import forms
from service.api.access import caller_of
from service.api.items import ItemId, visible
from service.api.problems import documented
from service.api.uploads import QUERYING, read
from service.gallery import Gallery
from service.settings import Settings


def pictures(gallery: Gallery, settings: Settings) -> APIRouter:
    """`/v1/items/{item_id}/image`, `/thumbnail` and `/attention`, and `/v1/attention`."""
    router = APIRouter(tags=["pictures"])
    unchanged = {304: {"description": "The picture is the one that If-None-Match names"}, **documented(404, 422, 503)}
    threads = CapacityLimiter(QUERYING)

    @router.get(
        "/v1/items/{item_id}/image",
        response_class=Response,
        responses={200: {"content": {"image/webp": {}}}, **unchanged},
    )
    def image(item_id: ItemId, request: Request) -> Response:
        """The photo of an item, upright and without metadata."""
        sha256 = visible(gallery, item_id, caller_of(request)).medium.sha256
        return _picture(request, sha256, "image/webp", lambda: gallery.pictures.read(sha256))

    @router.get(
        "/v1/items/{item_id}/thumbnail",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **unchanged},
    )
    def thumbnail(item_id: ItemId, request: Request) -> Response:
        """A small copy of the photo of an item."""
        sha256 = visible(gallery, item_id, caller_of(request)).medium.sha256
        return _picture(request, f"{sha256}-thumbnail", "image/jpeg", lambda: gallery.pictures.thumbnail(sha256))

    @router.get(
        "/v1/items/{item_id}/attention",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **unchanged},
    )
    def attention(item_id: ItemId, request: Request) -> Response:
        """Where the model looks in the photo of an item: bright where most, the patches that GLCA chose outlined."""
        sha256 = visible(gallery, item_id, caller_of(request)).medium.sha256
        tag = f"{sha256}-{gallery.model_id}"
        return _picture(request, tag, "image/png", lambda: _attention(gallery, gallery.pictures.read(sha256)))

    @router.post(
        "/v1/attention",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **documented(400, 413, 415, 422, 503)},
        max_body_size=settings.max_body_bytes,
        form_limits={"max_files": 1},
    )
    async def attention_of(form: Annotated[forms.AttentionForm, Form(media_type="multipart/form-data")]) -> Response:
        """Where the model looks in a photo that is not enrolled; it is not kept."""

        def answer() -> Response:
            return Response(_attention(gallery, read(form.image, settings)), media_type="image/png")

        return await to_thread.run_sync(answer, limiter=threads)

    return router


def _attention(gallery: Gallery, data: bytes) -> bytes:
    written = io.BytesIO()
    gallery.attention(data).save(written, "PNG")
    return written.getvalue()


def _picture(request: Request, tag: str, media_type: str, read: Callable[[], bytes]) -> Response:
    # Nothing is kept without asking again, so that a deleted photo is gone from the caches of browsers, too.
    etag = f'"{tag}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(read(), headers=headers, media_type=media_type)
