"""The HTTP interface of a gallery."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Annotated

from fastapi import APIRouter, FastAPI, Form, Path, Query, Request, Response, UploadFile
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from reid.retrieval.calibration import Calibration
from service import problems, schemas
from service.changes import Enrolled
from service.gallery import Gallery, Refusal, Upload
from service.problems import TooLarge, documented
from service.settings import Settings

MULTIPART = Form(media_type="multipart/form-data")
QUERY_PROBLEMS = documented(400, 404, 413, 415, 422, 503)
ItemId = Annotated[str, Path(max_length=200)]
SOURCE_LENGTH = 255


def create_app(gallery: Gallery, settings: Settings, calibration: Calibration | None = None) -> FastAPI:
    """The application that serves an open gallery; who opened it closes it.

    `calibration` is that of the gallery's model, if it has one; without it, probabilities and verdicts are null.
    """
    app = FastAPI(
        title="Re-ID gallery",
        summary="Find the same person, vehicle or animal again.",
        version="1",
        docs_url=None,  # these pages would fetch scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body_bytes)
    problems.install(app)
    app.include_router(_queries(gallery, settings, calibration))
    app.include_router(_items(gallery, settings))
    app.include_router(_pictures(gallery))
    app.include_router(_health(gallery))
    return app


# The handlers below are plain functions, which run in a pool of threads: they decode, and wait for disk and model.


def _queries(gallery: Gallery, settings: Settings, calibration: Calibration | None) -> APIRouter:
    router = APIRouter(tags=["query"])

    @router.post("/query", responses=QUERY_PROBLEMS, form_limits={"max_files": settings.max_images})
    @router.post("/v1/query", responses=QUERY_PROBLEMS, form_limits={"max_files": settings.max_images})
    def query(form: Annotated[schemas.QueryForm, MULTIPART]) -> schemas.QueryAnswer:
        """Find the enrolled photos most similar to one subject."""
        begun = perf_counter()
        chosen = form.chosen()
        if form.item_id is not None:
            answer = gallery.query_item(form.item_id, chosen, form.top_k, form.min_score)
        else:
            images = [_read(file, settings) for file in form.image]
            answer = gallery.query(images, chosen, form.top_k, form.min_score)
        scores = [match.score for match in answer.matches]
        chances = [None] * len(scores) if calibration is None else calibration.probability(scores).tolist()
        best = answer.best_score
        return schemas.QueryAnswer(
            model_id=gallery.model_id,
            took_ms=1000 * (perf_counter() - begun),
            filter=form.conditions(),
            candidates=answer.candidates,
            verdict=None if calibration is None or best is None else calibration.verdict(best),
            matches=[
                schemas.Match.of(rank, match, chance)
                for rank, (match, chance) in enumerate(zip(answer.matches, chances, strict=True), 1)
            ],
        )

    return router


def _items(gallery: Gallery, settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/v1/items", tags=["items"])

    @router.post(
        "",
        status_code=201,
        responses={
            207: {"model": schemas.EnrolAnswer, "description": "Some files were not enrolled"},
            **documented(400, 413, 422, 503),
        },
        form_limits={"max_files": settings.max_images},
    )
    def enrol(
        form: Annotated[schemas.EnrolForm, MULTIPART], request: Request, response: Response
    ) -> schemas.EnrolAnswer:
        """Enrol photos; one whose bytes are there already is left as it is. 201 if every file is enrolled, else 207."""
        uploads = [
            Upload(_source(file), _read(file, settings), details)
            for file, details in zip(form.images, form.details(), strict=True)
        ]
        results = gallery.enrol(uploads, request_id=request.state.request_id)
        if not all(isinstance(result, Enrolled) for result in results):
            response.status_code = 207
        return schemas.EnrolAnswer(model_id=gallery.model_id, results=_results(uploads, results))

    @router.get("", responses=documented(422))
    def page(wanted: Annotated[schemas.PageQuery, Query()]) -> schemas.ItemPage:
        """List items in the order of their enrolment."""
        found = gallery.page(wanted.chosen(), wanted.cursor, wanted.limit + 1)
        items = found[: wanted.limit]
        return schemas.ItemPage(
            items=[schemas.Item.of(item) for item in items],
            next_cursor=items[-1].number if len(found) > wanted.limit else None,
        )

    @router.get("/{item_id}", responses=documented(404, 422))
    def get(item_id: ItemId) -> schemas.Item:
        """One item."""
        return schemas.Item.of(gallery.get(item_id))

    @router.patch("/{item_id}", responses=documented(400, 404, 409, 413, 422, 503))
    def edit(item_id: ItemId, changes: schemas.ItemChanges, request: Request) -> schemas.Item:
        """Change what is said of an item."""
        return schemas.Item.of(gallery.edit(item_id, changes.changes(), request_id=request.state.request_id))

    @router.delete("/{item_id}", status_code=204, responses=documented(404, 422, 503))
    def delete(item_id: ItemId, request: Request) -> None:
        """Delete an item with its photo; no later query finds it."""
        gallery.delete(item_id, request_id=request.state.request_id)

    return router


def _pictures(gallery: Gallery) -> APIRouter:
    router = APIRouter(prefix="/v1/items/{item_id}", tags=["items"])
    unchanged = {304: {"description": "The picture is the one that If-None-Match names"}, **documented(404, 422)}

    @router.get("/image", response_class=Response, responses={200: {"content": {"image/webp": {}}}, **unchanged})
    def image(item_id: ItemId, request: Request) -> Response:
        """The photo of an item, upright and without metadata."""
        sha256 = gallery.get(item_id).medium.sha256
        return _picture(request, f'"{sha256}"', "image/webp", lambda: gallery.image(sha256))

    @router.get("/thumbnail", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}, **unchanged})
    def thumbnail(item_id: ItemId, request: Request) -> Response:
        """A small copy of the photo of an item."""
        sha256 = gallery.get(item_id).medium.sha256
        return _picture(request, f'"{sha256}-thumbnail"', "image/jpeg", lambda: gallery.thumbnail(sha256))

    return router


def _health(gallery: Gallery) -> APIRouter:
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live")
    def live() -> schemas.Live:
        """Whether the process answers."""
        return schemas.Live()

    @router.get("/ready", responses=documented(503))
    def ready() -> schemas.Ready:
        """Whether queries are answered."""
        return schemas.Ready(model_id=gallery.model_id, items=gallery.size())

    return router


def _read(file: UploadFile, settings: Settings) -> bytes:
    if (file.size or 0) > settings.max_upload_bytes:
        raise TooLarge(f"{_source(file)}: {file.size:,} bytes, expected at most {settings.max_upload_bytes:,}")
    return file.file.read()


def _source(file: UploadFile) -> str:
    return (file.filename or "")[-SOURCE_LENGTH:]


def _results(uploads: Sequence[Upload], results: Sequence[Enrolled | Refusal]) -> list[schemas.FileResult]:
    told = []
    for index, (upload, result) in enumerate(zip(uploads, results, strict=True)):
        if isinstance(result, Enrolled):
            word, item = "created" if result.created else "existing", schemas.Item.of(result.item)
            told.append(schemas.FileResult(index=index, filename=upload.name, result=word, item=item))
        else:
            status, code = problems.status_and_code(result)
            error = schemas.FileError(status=status, code=code, detail=str(result))
            told.append(schemas.FileResult(index=index, filename=upload.name, result="error", error=error))
    return told


def _picture(request: Request, etag: str, media_type: str, read: Callable[[], bytes]) -> Response:
    # Nothing is kept without asking again, so that a deleted photo is gone from the caches of browsers, too.
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(read(), headers=headers, media_type=media_type)
