"""Routes of imports: files are sent part by part, looked at, enrolled by a job, and told of one by one."""

import hashlib
from datetime import timedelta
from functools import partial
from threading import Lock
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from starlette.requests import ClientDisconnect

from reid.data.images import UnknownFormat
from service.api.access import caller_of, cause_of
from service.api.import_edits import import_edits
from service.api.items import IdempotencyKey, require_camera
from service.api.problems import Forbidden, TooLarge, documented, file_error
from service.api.proxies import root_of
from service.api.uploads import apart
from service.bulk.import_work import KIND, look_at
from service.gallery.gallery import Gallery
from service.gallery.imports import Import, Imports, UnusableFile, Writing
from service.records import Caller, Conflict, NotFound
from service.records import Job as StoredJob
from service.settings import Settings
from service.storage.replies import Replies
from service.upkeep.jobs import JobRunner
from service.wire import import_schemas as schemas
from service.wire.schemas import MAX_NUMBER

ImportId = Annotated[str, Path(max_length=200)]
FileName = Annotated[str, Path(max_length=2000, description="as it was announced, also with / in it")]
BYTES = "application/octet-stream"
PREVIEWS = 2  # at a time, which may unpack large archives
_OPEN = ("queued", "running")
_BODY = {"required": True, "content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}


def imports(gallery: Gallery, settings: Settings, runner: JobRunner) -> APIRouter:
    """`/v1/imports`."""
    router = APIRouter(prefix="/v1/imports", tags=["imports"])
    kept = Imports(gallery.database, settings.most_bytes_of_imports, settings.max_upload_bytes)
    kept.finish_steps()
    keep, replies, making = timedelta(days=settings.import_days), Replies(gallery.database), Lock()

    def visible(import_id: str, caller: Caller) -> Import:
        """An import whose maker sees no more than the caller."""
        found = kept.get(import_id)
        if not caller.covers(found.cameras):
            raise NotFound(f"no import {import_id!r}: it was never there, or its time is over")
        return found

    def job_of(one: Import) -> StoredJob | None:
        return None if one.job_id is None else runner.jobs.get(one.job_id)

    def told(one: Import, in_full: bool = True) -> schemas.Import:
        job, files = job_of(one), [] if one.files else kept.files(one.import_id)
        report = one.report
        if in_full and report is None and one.started_at is not None:
            report = kept.counts(one.import_id)
        state = "receiving" if job is None else job.state
        left = state in ("failed", "cancelled") or (state == "done" and bool(report and report["outage"]))
        return schemas.Import(
            import_id=one.import_id,
            state=state,
            settings=schemas.settings_of(one.wanted),
            files=one.files or len(files),
            bytes=one.bytes or sum(file.size for file in files),
            files_received=one.files or sum(file.received == file.size for file in files),
            bytes_received=one.bytes or sum(file.received for file in files),
            job_id=one.job_id,
            done=0 if job is None else job.done,
            total=None if job is None else job.total,
            error=None if job is None else job.error,
            report=None if report is None else schemas.ImportReport(**{"left_out": {}, **report}),
            retryable=left,
            edits=[schemas.ImportEdit(**edit) for edit in one.edits],
            created_at=one.created_at,
            expires_at=None if state in _OPEN else one.changed_at + keep,
        )

    def require_allowed(wanted: schemas.ImportSettings, caller: Caller) -> None:
        if wanted.said.camera is not None:
            require_camera(caller, wanted.said.camera)
        if caller.cameras is not None and wanted.camera_from == "device":
            raise Forbidden("a key for some cameras may not have devices name cameras")

    def require_receiving(one: Import) -> None:
        if one.job_id is not None:
            raise Conflict(f"import {one.import_id} was started already")

    def require_still(one: Import) -> None:
        if one.settled or ((job := job_of(one)) is not None and job.state in _OPEN):
            raise Conflict(f"import {one.import_id} was started already")

    @router.get("", responses=documented(503))
    def page(request: Request) -> schemas.ImportList:
        """List the imports, the newest first."""
        caller = caller_of(request)
        return schemas.ImportList(
            imports=[told(one, in_full=False) for one in kept.all() if caller.covers(one.cameras)]
        )

    @router.post("", status_code=201, responses=documented(400, 403, 409, 413, 422, 503))
    def create(
        wanted: schemas.ImportSettings,
        request: Request,
        response: Response,
        idempotency_key: IdempotencyKey = None,
    ) -> schemas.Import:
        """Make an import, to which files are sent; every key that sees all cameras of its maker's key sees it.

        A repetition with the same `Idempotency-Key` within a day is answered with the same import.
        """
        caller = caller_of(request)
        require_allowed(wanted, caller)
        sent = wanted.model_dump(mode="json")
        sha256 = hashlib.sha256(f"import {wanted.model_dump_json()}".encode()).hexdigest()
        with making:
            known = replies.find(caller.actor, idempotency_key, sha256) if idempotency_key is not None else None
            if known is None:
                one = kept.create(sent, caller.cameras, cause_of(request))
            else:
                one = kept.get(known["import_id"])
            if idempotency_key is not None and known is None:
                replies.keep(caller.actor, idempotency_key, sha256, {"import_id": one.import_id})
        response.headers["Location"] = f"{root_of(request)}/v1/imports/{one.import_id}"
        return told(one)

    @router.get("/{import_id}", responses=documented(404, 422, 503))
    def get(import_id: ImportId, request: Request) -> schemas.Import:
        """One import: how far it is, or what became of it."""
        return told(visible(import_id, caller_of(request)))

    @router.patch("/{import_id}", responses=documented(400, 403, 404, 409, 413, 422, 503))
    def edit(import_id: ImportId, wanted: schemas.ImportSettings, request: Request) -> schemas.Import:
        """Change how an import is to be read, while it does not run; what is not given stays as it is."""
        caller = caller_of(request)
        one = visible(import_id, caller)
        require_still(one)
        after = schemas.settings_of({**one.wanted, **wanted.model_dump(mode="json", exclude_unset=True)})
        require_allowed(after, caller)
        return told(kept.reread(import_id, after.model_dump(mode="json")))

    @router.delete("/{import_id}", status_code=204, responses=documented(404, 409, 422, 503))
    def delete(import_id: ImportId, request: Request) -> None:
        """Remove an import with its files and its report, and none of the items that came of it."""
        one = visible(import_id, caller_of(request))
        if (job := job_of(one)) is not None and job.state in _OPEN:
            raise Conflict(f"import {import_id} is {job.state}: cancel it first")
        kept.delete(import_id, cause_of(request))

    _files(router, kept, visible, require_receiving, require_still, settings)

    @router.post("/{import_id}/preview", responses=documented(404, 409, 422, 503))
    @apart(CapacityLimiter(PREVIEWS))
    def preview(import_id: ImportId, request: Request) -> schemas.ImportPreview:
        """Tell how the files that have come would be read, and what has to be said first; archives are unpacked."""
        require_still(visible(import_id, caller_of(request)))
        return look_at(gallery, kept, import_id)

    def run(one: Import, request: Request) -> schemas.Import:
        kept.count(one.import_id)
        job = runner.start(KIND, {"import_id": one.import_id}, cause_of(request))
        return told(kept.change(one.import_id, job_id=job.job_id, report=None))

    @router.post("/{import_id}/start", status_code=202, responses=documented(404, 409, 422, 503))
    def start(import_id: ImportId, request: Request, incomplete: bool = False) -> schemas.Import:
        """Have a job enrol what was sent; with `incomplete`, without the files that have not come whole.

        One import runs at a time. Starting again one that was started changes nothing.
        """
        one = visible(import_id, caller_of(request))
        if one.job_id is not None:
            return told(one)
        files = kept.files(import_id)
        missing = [file.name for file in files if file.received < file.size]
        if not files or len(missing) == len(files):
            raise Conflict(f"import {import_id} has no file yet")
        if missing and not incomplete:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise Conflict(f"{missing[0]}{more}: not sent whole; send the rest, or start it incomplete")
        if missing:
            if other := next((job for job in runner.jobs.open() if job.kind == KIND), None):
                raise Conflict(f"job {other.job_id} of kind {KIND} is {other.state} already")
            kept.drop_missing(import_id)
        return run(one, request)

    @router.post("/{import_id}/cancel", status_code=202, responses=documented(404, 409, 422, 503))
    def cancel(import_id: ImportId, request: Request) -> schemas.Import:
        """Have the job of an import end; what is enrolled by then stays, and a retry goes on."""
        one = visible(import_id, caller_of(request))
        if one.job_id is None:
            raise Conflict(f"import {import_id} was not started")
        runner.jobs.cancel(one.job_id, cause_of(request))
        return told(one)

    @router.post("/{import_id}/retry", status_code=202, responses=documented(404, 409, 422, 503))
    def retry(import_id: ImportId, request: Request) -> schemas.Import:
        """Go on with the photos that an outage, a failure of the job or a cancellation kept out."""
        one = visible(import_id, caller_of(request))
        if not told(one).retryable:
            raise Conflict(f"import {import_id} has nothing to be tried again")
        return run(one, request)

    @router.get("/{import_id}/photos", responses=documented(404, 422, 503))
    def photos(
        import_id: ImportId, wanted: Annotated[schemas.PhotosQuery, Query()], request: Request
    ) -> schemas.ImportedPhotos:
        """What became of each photo, and why."""
        caller = caller_of(request)
        visible(import_id, caller)
        every = kept.results(import_id).values()
        chosen = [one for one in every if not wanted.became or one.became in wanted.became]
        shown = chosen[wanted.cursor : wanted.cursor + wanted.limit]
        found = gallery.store.find([one.item_id for one in shown if one.item_id is not None])
        there = {item.item_id for item in found if caller.sees(item.details.camera)}
        following = wanted.cursor + len(shown)
        return schemas.ImportedPhotos(
            photos=[
                schemas.ImportedPhoto(
                    name=one.name,
                    became=one.became,
                    item_id=one.item_id if one.item_id in there else None,
                    detail=one.detail,
                )
                for one in shown
            ],
            next_cursor=following if following < len(chosen) else None,
        )

    def require_ended(one: Import) -> None:
        if (job := job_of(one)) is None or job.state in _OPEN:
            raise Conflict(f"import {one.import_id} is not done yet")

    import_edits(router, gallery, kept, visible, require_ended, told)
    return router


def _files(
    router: APIRouter, kept: Imports, visible: Any, require_receiving: Any, require_still: Any, settings: Settings
) -> None:
    @router.post("/{import_id}/files", responses=documented(400, 404, 409, 413, 422, 503))
    def announce(import_id: ImportId, wanted: schemas.AnnouncedFiles, request: Request) -> schemas.AnnouncedAnswers:
        """Tell which files will be sent; each is answered with how much of it is there, or why it is not taken."""
        require_receiving(visible(import_id, caller_of(request)))
        found = kept.announce(import_id, [(file.name, file.size) for file in wanted.files])
        answers = [
            schemas.AnnouncedAnswer(name=asked.name, size=asked.size, received=0, error=file_error(one))
            if isinstance(one, UnusableFile)
            else schemas.AnnouncedAnswer(**one._asdict(), error=None)
            for asked, one in zip(wanted.files, found, strict=True)
        ]
        return schemas.AnnouncedAnswers(files=answers)

    @router.get("/{import_id}/files", responses=documented(404, 422, 503))
    def files(
        import_id: ImportId, wanted: Annotated[schemas.FilesQuery, Query()], request: Request
    ) -> schemas.ReceivedFiles:
        """The files of an import, with how much of each is there."""
        visible(import_id, caller_of(request))
        every = [file for file in kept.files(import_id) if not wanted.missing or file.received < file.size]
        shown = every[wanted.cursor : wanted.cursor + wanted.limit]
        following = wanted.cursor + len(shown)
        return schemas.ReceivedFiles(
            files=[schemas.ReceivedFile(**file._asdict()) for file in shown],
            next_cursor=following if following < len(every) else None,
        )

    @router.get("/{import_id}/files/{name:path}", responses=documented(404, 422, 503))
    def file(import_id: ImportId, name: FileName, request: Request) -> schemas.ReceivedFile:
        """How much of a file is there."""
        visible(import_id, caller_of(request))
        return schemas.ReceivedFile(**kept.file(import_id, name)._asdict())

    @router.delete("/{import_id}/files/{name:path}", status_code=204, responses=documented(404, 409, 422, 503))
    def remove_file(import_id: ImportId, name: FileName, request: Request) -> None:
        """Take a file out of an import that does not run, such as an archive that cannot be unpacked."""
        require_still(visible(import_id, caller_of(request)))
        kept.remove_file(import_id, name)

    @router.put(
        "/{import_id}/files/{name:path}",
        responses=documented(400, 404, 409, 413, 415, 422, 503),
        openapi_extra={"requestBody": _BODY},
        max_body_size=settings.max_body_bytes,
    )
    async def send(
        import_id: ImportId,
        name: FileName,
        request: Request,
        offset: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="how much of the file is there")] = 0,
    ) -> schemas.ReceivedFile:
        """Send a part of a file that was announced, as plain bytes; what came of it stays, also of a cut connection."""
        if request.headers.get("content-type", BYTES).partition(";")[0].strip() != BYTES:
            raise UnknownFormat(f"expected the bytes of a part as {BYTES}")

        def begin() -> Writing:
            visible(import_id, caller_of(request))
            return kept.open(import_id, name, offset)

        writing = await to_thread.run_sync(begin)
        try:
            async for part in request.stream():
                if part:
                    await to_thread.run_sync(partial(writing.write, part))
        except ClientDisconnect:  # nobody reads the answer, and the rest comes with another request
            pass
        except UnusableFile as error:
            raise TooLarge(str(error)) from None
        finally:
            there = await to_thread.run_sync(writing.close)
        return schemas.ReceivedFile(**there._asdict())
