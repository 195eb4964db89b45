"""Routes of subjects: photos of somebody who is searched for, kept for a while, so that others find it again."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Form, Path, Request, Response

from service.api import forms
from service.api.access import caller_of, cause_of
from service.api.items import require_camera, result_of
from service.api.pictures import MEDIA_TYPES
from service.api.problems import documented, file_error, pictures_as
from service.api.proxies import root_of
from service.api.uploads import ENROLLING, QUERYING, apart, read, refuse_query, source
from service.gallery.gallery import Gallery
from service.gallery.subjects import Refusal, Subject
from service.records import Caller, Cameras, NotFound, Upload
from service.settings import Settings
from service.wire import schemas, work_schemas

SubjectId = Annotated[str, Path(max_length=200)]
Place = Annotated[int, Path(ge=0, le=schemas.MAX_NUMBER)]


def visible_subject(gallery: Gallery, subject_id: str, caller: Caller) -> Subject:
    """A subject of which the caller sees all that its sender sees; raises NotFound."""
    subject = gallery.subjects.get(subject_id)
    if not caller.covers(subject.cameras):
        raise NotFound(f"no subject {subject_id!r}: it was never there, or its time is over")
    return subject


def subjects(gallery: Gallery, settings: Settings) -> APIRouter:
    """`/v1/subjects`."""
    router = APIRouter(prefix="/v1/subjects", tags=["query"])
    threads = CapacityLimiter(QUERYING)
    keep, most_bytes = timedelta(days=settings.subject_days), int(settings.subject_mb * 2**20)

    def keep_all(form: forms.SubjectForm, request: Request) -> work_schemas.Subject:
        names = [source(file) for file in form.image]
        data = [read(file, settings) for file in form.image]
        photos = list(zip(names, data, form.boxes(), strict=True))
        subject, refused = gallery.subjects.add(photos, caller_of(request).cameras, keep, cause_of(request))
        if subject is None:
            place, error = min(refused.items())
            raise type(error)(f"{names[place]}: {error}" if names[place] else str(error)) from error
        gallery.subjects.prune(most_bytes)
        return _told(subject, root_of(request), refused, names)

    @router.post(
        "",
        status_code=201,
        responses={
            207: {"model": work_schemas.Subject, "description": "Some files could not be used"},
            **documented(400, 413, 415, 422, 503),
        },
        dependencies=[Depends(refuse_query)],
        max_body_size=settings.max_body_bytes,
        form_limits={"max_files": settings.max_images},
    )
    async def add(
        form: Annotated[forms.SubjectForm, Form(media_type="multipart/form-data")], request: Request, response: Response
    ) -> work_schemas.Subject:
        """Keep photos of one subject for a while, to search for it by `subject_id`; 207 where some cannot be used.

        It is there for every key that may read and sees all cameras that the key of its sender sees.
        """
        answer = await to_thread.run_sync(partial(keep_all, form, request), limiter=threads)
        response.headers["Location"] = f"{root_of(request)}/v1/subjects/{answer.subject_id}"
        if answer.refused:
            response.status_code = 207
        return answer

    @router.get("/{subject_id}", responses=documented(404, 422, 503))
    def get(subject_id: SubjectId, request: Request) -> work_schemas.Subject:
        """One subject with its photos."""
        return _told(visible_subject(gallery, subject_id, caller_of(request)), root_of(request))

    @router.delete("/{subject_id}", status_code=204, responses=documented(404, 422, 503))
    def delete(subject_id: SubjectId, request: Request) -> None:
        """Remove a subject before its time."""
        visible_subject(gallery, subject_id, caller_of(request))
        gallery.subjects.delete(subject_id, cause_of(request))

    @router.get(
        "/{subject_id}/photos/{index}",
        response_class=Response,
        responses={200: pictures_as(*MEDIA_TYPES.values()), **documented(404, 422, 503)},
    )
    @apart(threads)
    def photo(subject_id: SubjectId, index: Place, request: Request) -> Response:
        """A photo of a subject, the whole of it, lossless and without metadata but for how it lies."""
        subject = visible_subject(gallery, subject_id, caller_of(request))
        copy = gallery.subjects.copy(subject, index, cause_of(request))
        seconds = max(0, int((subject.expires_at - datetime.now(UTC)).total_seconds()))
        kept = {"Cache-Control": f"private, max-age={seconds}, immutable", "X-Content-Type-Options": "nosniff"}
        media_type = next(kind for beginning, kind in MEDIA_TYPES.items() if copy.startswith(beginning))
        return Response(copy, headers=kept, media_type=media_type)

    @router.post(
        "/{subject_id}/items",
        status_code=201,
        responses={
            207: {"model": schemas.EnrolAnswer, "description": "Some photos were not enrolled"},
            **documented(400, 404, 413, 422, 503),
        },
    )
    @apart(CapacityLimiter(ENROLLING))
    def enrol(
        subject_id: SubjectId, said: work_schemas.SubjectEnrolment, request: Request, response: Response
    ) -> schemas.EnrolAnswer:
        """Enrol the photos of a subject, or the boxes in them, as `POST /v1/items` does with files."""
        caller, cause = caller_of(request), cause_of(request)
        subject = visible_subject(gallery, subject_id, caller)
        details = said.details()
        require_camera(caller, details.camera)
        boxes = gallery.subjects.boxes(subject, said.boxes)
        photos = zip(subject.photos, gallery.subjects.data(subject), boxes, strict=True)
        uploads = [Upload(photo.name, data, details, Cameras(said.zone), box) for photo, data, box in photos]
        results = [
            result_of(gallery.store, place, upload.name, upload.box, result, request)
            for place, (upload, result) in enumerate(zip(uploads, gallery.enrol(uploads, cause), strict=True))
        ]
        if any(result.error for result in results):
            response.status_code = 207
        return schemas.EnrolAnswer(model_id=gallery.model_id, results=results)

    return router


def _told(
    subject: Subject, root: str, refused: dict[int, Refusal] | None = None, names: list[str] | None = None
) -> work_schemas.Subject:
    photos = [
        work_schemas.SubjectPhoto(
            index=place,
            filename=photo.name,
            width=photo.width,
            height=photo.height,
            box=photo.box,
            image_url=f"{root}/v1/subjects/{subject.subject_id}/photos/{place}",
        )
        for place, photo in enumerate(subject.photos)
    ]
    left_out = [
        work_schemas.RefusedPhoto(index=place, filename=(names or [])[place], error=file_error(error))
        for place, error in (refused or {}).items()
    ]
    return work_schemas.Subject(
        subject_id=subject.subject_id,
        created_at=subject.created_at,
        expires_at=subject.expires_at,
        photos=photos,
        refused=left_out,
    )
