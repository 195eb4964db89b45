"""Routes of a classifier: which of its classes does a photo show."""

from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Annotated

import numpy as np
from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, Form, Request, Response

from reid.data.images import UnknownFormat, UnusableImage
from service.api import forms
from service.api.access import cause_of
from service.api.leaving import while_there
from service.api.problems import TooLarge, documented, file_error
from service.api.uploads import QUERYING, read, refuse_query, source
from service.classification import Classification
from service.records import Vectors
from service.settings import Settings
from service.wire import schemas


def classes(classification: Classification, settings: Settings) -> APIRouter:
    """`POST /v1/classify` and `GET /v1/classes`."""
    router = APIRouter(tags=["classify"])
    threads = CapacityLimiter(QUERYING)

    def answer(form: forms.ClassifyForm, request: Request) -> schemas.ClassifyAnswer:
        begun = perf_counter()
        images: dict[int, bytes] = {}
        results: dict[int, Vectors | TooLarge | UnknownFormat | UnusableImage] = {}
        for place, file in enumerate(form.image):
            try:
                images[place] = read(file, settings)
            except TooLarge as error:
                results[place] = error
        results |= zip(images, classification.classify(list(images.values()), cause_of(request)), strict=True)
        told = []
        for place, file in enumerate(form.image):
            result = results[place]
            one = schemas.Classified(index=place, filename=source(file))
            if isinstance(result, Exception):
                one.error = file_error(result)
            else:
                one.predictions = _best(result, classification.classes, form.top_k)
            told.append(one)
        return schemas.ClassifyAnswer(
            model_id=classification.model_id, took_ms=1000 * (perf_counter() - begun), results=told
        )

    @router.post(
        "/v1/classify",
        responses={
            207: {"model": schemas.ClassifyAnswer, "description": "Some files could not be used"},
            **documented(400, 413, 422, 503),
        },
        dependencies=[Depends(refuse_query)],
        max_body_size=settings.max_body_bytes,
        form_limits={"max_files": settings.max_images},
    )
    async def classify(
        form: Annotated[forms.ClassifyForm, Form(media_type="multipart/form-data")],
        request: Request,
        response: Response,
    ) -> schemas.ClassifyAnswer:
        """Find the most probable classes of each photo; none is kept."""
        found = await while_there(request, partial(answer, form, request), threads)
        if any(result.error for result in found.results):
            response.status_code = 207
        return found

    @router.get("/v1/classes")
    def names() -> schemas.Classes:
        """The classes that the classifier knows."""
        return schemas.Classes(model_id=classification.model_id, classes=list(classification.classes))

    return router


def _best(probabilities: Vectors, names: Sequence[str], top_k: int) -> list[schemas.Prediction]:
    """The `top_k` most probable classes, of equal ones the first in label order."""
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return [
        schemas.Prediction(rank=rank, probability=float(probabilities[label]), **{"class": names[label]})
        for rank, label in enumerate(order, 1)
    ]
