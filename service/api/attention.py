"""The route that shows where the model looks in a photo."""

import io
from collections.abc import Callable
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import APIRouter, Form, Request, Response
from PIL import Image

from service.api import forms
from service.api.access import cause_of
from service.api.leaving import while_there
from service.api.problems import documented, pictures_as
from service.api.uploads import QUERYING, read
from service.records import Box, Cause
from service.settings import Settings

Look = Callable[[bytes, Box | None, Cause], Image.Image]


def attention(look: Look, settings: Settings) -> APIRouter:
    """`POST /v1/attention`."""
    router = APIRouter(tags=["pictures"])
    threads = CapacityLimiter(QUERYING)

    @router.post(
        "/v1/attention",
        response_class=Response,
        responses={200: pictures_as("image/png"), **documented(400, 404, 413, 415, 422, 503)},
        max_body_size=settings.max_body_bytes,
        form_limits={"max_files": 1},
    )
    async def attention_of(
        form: Annotated[forms.AttentionForm, Form(media_type="multipart/form-data")], request: Request
    ) -> Response:
        """Where the model looks in a photo, or in a box in it; it is not kept."""

        def answer() -> Response:
            shown = look(read(form.image, settings), form.region(), cause_of(request))
            return Response(png(shown), media_type="image/png")

        return await while_there(request, answer, threads)

    return router


def png(image: Image.Image) -> bytes:
    """A picture as a PNG file."""
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()
