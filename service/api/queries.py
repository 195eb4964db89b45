"""Routes that ask: who is this, and where does the model look."""

from functools import partial
from time import perf_counter
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, Form, Request

from reid.retrieval.calibration import Calibration
from service.api import forms
from service.api.access import caller_of, cause_of
from service.api.items import require_whole_photo, visible
from service.api.leaving import while_there
from service.api.problems import documented
from service.api.proxies import root_of
from service.api.subjects import visible_subject
from service.api.uploads import QUERYING, read, refuse_query, source
from service.gallery.gallery import Gallery
from service.gallery.search import Answer, SearchOptions
from service.settings import Settings
from service.wire import schemas

PROBLEMS = documented(400, 404, 413, 415, 422, 503)


def queries(gallery: Gallery, settings: Settings, calibration: Calibration | None) -> APIRouter:
    """`POST /query` and `/v1/query`."""
    router = APIRouter(tags=["query"])
    threads = CapacityLimiter(QUERYING)

    def answer(form: forms.QueryForm, request: Request) -> schemas.QueryAnswer:
        begun = perf_counter()
        caller, cause = caller_of(request), cause_of(request)
        chosen = caller.narrow(form.chosen())
        conditions = schemas.Conditions.of(chosen)
        asked = form.model_dump(mode="json", include={"top_k", "min_score", "group_by"})
        if form.box:
            asked["box"] = form.box
        options = SearchOptions(
            chosen,
            form.top_k,
            form.min_score,
            by_label=form.group_by == "label",
            by_identity=form.group_by == "identity",
            conditions={**asked, **conditions.model_dump(mode="json", by_alias=True, exclude_none=True)},
        )
        if form.subject_id is not None:
            subject = visible_subject(gallery, form.subject_id, caller)
            boxes = gallery.subjects.boxes(subject, form.boxes() if form.box else None)
            images, names = gallery.subjects.data(subject), [photo.name for photo in subject.photos]
            found = gallery.query(images, options, cause, boxes, names)
        elif form.item_id is None:
            images, names = [read(file, settings) for file in form.image], [source(file) for file in form.image]
            found = gallery.query(images, options, cause, form.boxes(), names)
        else:
            [box] = form.boxes()
            item = visible(gallery, form.item_id, caller)
            if box is not None:
                require_whole_photo(gallery, item, caller)
            found = gallery.query_item(form.item_id, options, cause, box)
        first = found.matches[0] if options.by_identity and found.matches else None
        return schemas.QueryAnswer(
            model_id=gallery.model_id,
            took_ms=1000 * (perf_counter() - begun),
            filter=conditions,
            candidates=found.candidates,
            verdict=None if calibration is None or found.best_score is None else calibration.verdict(found.best_score),
            identity_id=first and first.item.identity_id,
            identity_probability=first and first.identity_probability,
            matches=_matches(found, calibration, root_of(request)),
        )

    route = partial(
        router.post,
        responses=PROBLEMS,
        dependencies=[Depends(refuse_query)],
        max_body_size=settings.max_body_bytes,
        form_limits={"max_files": settings.max_images},
    )

    @route("/query")
    @route("/v1/query")
    async def query(
        form: Annotated[forms.QueryForm, Form(media_type="multipart/form-data")], request: Request
    ) -> schemas.QueryAnswer:
        """Find the enrolled photos, and boxes in photos, most similar to one subject."""
        return await while_there(request, partial(answer, form, request), threads)

    return router


def _matches(found: Answer, calibration: Calibration | None, root: str) -> list[schemas.Match]:
    scores = [match.score for match in found.matches]
    chances = [None] * len(scores) if calibration is None else calibration.probability(scores).tolist()
    return [
        schemas.Match.of(rank, match.item, match.score, chance, root, match.identity_probability)
        for rank, (match, chance) in enumerate(zip(found.matches, chances, strict=True), 1)
    ]
