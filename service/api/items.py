"""Routes over what is enrolled."""

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from math import isfinite
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Form, Header, Path, Query, Request, Response

from service.api import forms
from service.api.access import caller_of, cause_of
from service.api.cursors import Cursors
from service.api.description import ATTRIBUTES_ASKED
from service.api.problems import Forbidden, TooLarge, documented, file_error
from service.api.proxies import root_of
from service.api.seen import as_seen
from service.api.uploads import ENROLLING, read, refuse_query, source
from service.fields import Filter, filter_as_json
from service.gallery.capture import placed_in
from service.gallery.enrolment import Refusal
from service.gallery.gallery import Gallery
from service.records import Box, Caller, Cameras, Conflict, Enrolled, Item, NotFound, Upload
from service.settings import Settings
from service.storage.bulk_edits import BulkEdits, Edited
from service.storage.replies import Replies
from service.storage.store import Store
from service.upkeep.deletion import KIND, MOST_AT_ONCE
from service.upkeep.jobs import JobRunner
from service.wire import schemas

ItemId = Annotated[str, Path(max_length=200)]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]


def visible(gallery: Gallery, item_id: str, caller: Caller) -> Item:
    """An item that the caller may see; raises NotFound."""
    item = gallery.store.get(item_id)
    if not caller.sees(item.details.camera):
        raise NotFound(f"no item {item_id!r}")
    return item


def require_whole_photo(gallery: Gallery, item: Item, caller: Caller) -> None:
    """Raise NotFound where the photo of an item shows the caller more than its items that he may see."""
    if not all(caller.sees(one.details.camera) for one in gallery.store.of_photo(item.medium.sha256)):
        raise NotFound(f"no whole photo of item {item.item_id!r} for this key")


def items(gallery: Gallery, settings: Settings, runner: JobRunner) -> APIRouter:
    """`/v1/items`, `/v1/cameras` and `/v1/labels`."""
    router = APIRouter(tags=["items"])
    cursors = Cursors(gallery.database.gallery_id)
    _enrolling(router, gallery, settings)
    _deleting(router, gallery, runner)
    _editing(router, gallery)

    filtered = partial(router.get, responses=documented(422, 503), openapi_extra={"parameters": ATTRIBUTES_ASKED})

    @filtered("/v1/items")
    def page(wanted: Annotated[schemas.PageQuery, Query()], request: Request) -> schemas.ItemPage:
        """List items by their enrolment, the oldest first; with `media`, the boxes in one photo, or the whole of it."""
        caller = caller_of(request)
        chosen, after = caller.narrow(wanted.chosen()), cursors.read(wanted.cursor, caller)
        newest = wanted.order == "newest"
        if wanted.media is None:
            found = gallery.store.page(chosen, after, wanted.limit + 1, newest_first=newest, named=wanted.named)
        else:
            found = [
                item
                for item in gallery.store.of_photo(wanted.media, chosen)[:: -1 if newest else 1]
                if (not after or (item.number < after) == newest)
                and item.number != after
                and wanted.named in (None, item.details.label is not None)
            ]
        shown = found[: wanted.limit]
        last = shown[-1].number if len(found) > wanted.limit else None
        return schemas.ItemPage(
            items=[schemas.Item.of(item, root_of(request)) for item in as_seen(gallery.store, shown, caller)],
            next_cursor=None if last is None else cursors.written(last, caller),
        )

    @filtered("/v1/days")
    def days(wanted: Annotated[schemas.DaysQuery, Query()], request: Request) -> schemas.Days:
        """The days on which the items were captured, for choosing filters; the first one first."""
        found = gallery.store.days(caller_of(request).narrow(wanted.chosen()), wanted.named)
        return schemas.Days(days=[schemas.Day(day=day, items=count) for day, count in found])

    @filtered("/v1/cameras")
    def cameras(wanted: Annotated[schemas.Wanted, Query()], request: Request) -> schemas.Cameras:
        """The cameras among the items, for choosing filters; those with most items first."""
        found = gallery.store.cameras(caller_of(request).narrow(wanted.chosen()))
        return schemas.Cameras(cameras=[schemas.Counted(name=name, items=count) for name, count in found])

    @filtered("/v1/labels")
    def labels(wanted: Annotated[schemas.Wanted, Query()], request: Request) -> schemas.Labels:
        """The labels among the items, for choosing filters; those with most items first."""
        found = gallery.store.labels(caller_of(request).narrow(wanted.chosen()))
        return schemas.Labels(labels=[schemas.Counted(name=name, items=count) for name, count in found])

    @router.get("/v1/items/{item_id}", responses=documented(404, 422, 503))
    def get(item_id: ItemId, request: Request) -> schemas.Item:
        """One item."""
        caller = caller_of(request)
        [item] = as_seen(gallery.store, [visible(gallery, item_id, caller)], caller)
        return schemas.Item.of(item, root_of(request))

    @router.patch("/v1/items/{item_id}", responses=documented(400, 404, 409, 413, 422, 503))
    def edit(item_id: ItemId, changes: schemas.ItemChanges, request: Request) -> schemas.Item:
        """Change what is said of an item."""
        caller, wanted = caller_of(request), changes.changes()
        item = visible(gallery, item_id, caller)
        if "camera" in wanted:
            require_camera(caller, wanted["camera"])
        if changes.zone is not None:
            wanted |= placed_in(item, changes.zone)
        [edited] = as_seen(gallery.store, [gallery.edit(item_id, wanted, cause_of(request))], caller)
        return schemas.Item.of(edited, root_of(request))

    return router


def _enrolling(router: APIRouter, gallery: Gallery, settings: Settings) -> None:
    threads = CapacityLimiter(ENROLLING)
    replies = Replies(gallery.database)
    under_way: set[tuple[str, str]] = set()  # changed on the event loop alone

    def work(form: forms.EnrolForm, request: Request, key: str | None) -> schemas.EnrolAnswer:
        caller, uploads, files = caller_of(request), list[Upload](), list[tuple[str, str]]()
        places: list[tuple[int, Box | None]] = []  # of what is to be enrolled: the file, and the box in it
        results: dict[int, Enrolled | Refusal | TooLarge] = {}
        for index, (file, zone, parts) in enumerate(zip(form.images, form.zones(), form.parts(), strict=True)):
            require_camera(caller, parts[0][0].camera)
            name, refusal, data = source(file), None, b""
            try:
                data = read(file, settings)
                files.append((name, hashlib.sha256(data).hexdigest()))
            except TooLarge as error:
                refusal = error
            for details, box in parts:
                if refusal is None:
                    uploads.append(Upload(name, data, details, Cameras(zone), box))
                else:
                    results[len(places)] = refusal
                places.append((index, box))
        sha256 = _request_sha256(files, form.metadata)
        if key is not None and (kept := replies.find(caller.actor, key, sha256)) is not None:
            return _as_now(gallery, schemas.EnrolAnswer.model_validate(kept), request)
        others = [place for place in range(len(places)) if place not in results]
        results |= zip(others, gallery.enrol(uploads, cause_of(request)), strict=True)
        told = [
            result_of(gallery.store, index, source(form.images[index]), box, results[place], request)
            for place, (index, box) in enumerate(places)
        ]
        answer = schemas.EnrolAnswer(model_id=gallery.model_id, results=told)
        if key is not None:
            replies.keep(caller.actor, key, sha256, answer.model_dump(mode="json"))
        return answer

    @router.post(
        "/v1/items",
        status_code=201,
        responses={
            207: {"model": schemas.EnrolAnswer, "description": "Some files or boxes were not enrolled"},
            **documented(400, 409, 413, 422, 503),
        },
        dependencies=[Depends(refuse_query)],
        max_body_size=settings.max_body_bytes,
        form_limits={"max_files": settings.max_images},
    )
    async def enrol(
        form: Annotated[forms.EnrolForm, Form(media_type="multipart/form-data")],
        request: Request,
        response: Response,
        idempotency_key: IdempotencyKey = None,
    ) -> schemas.EnrolAnswer:
        """Enrol photos, or boxes in them; what is there already is left as it is. 201 if all are enrolled, else 207.

        There already means a photo of the same bytes, and for a box the same pixels of one. A repetition with the same
        `Idempotency-Key` within a day is given the first answer again, with the items as they are by then.
        """
        claim = (caller_of(request).actor, idempotency_key or "")
        if idempotency_key is not None:
            if claim in under_way:
                raise Conflict(f"a request with Idempotency-Key {idempotency_key!r} is under way")
            under_way.add(claim)
        try:
            answer = await to_thread.run_sync(partial(work, form, request, idempotency_key), limiter=threads)
        finally:
            if idempotency_key is not None:
                under_way.discard(claim)
        if any(result.error for result in answer.results):
            response.status_code = 207
        return answer


def _deleting(router: APIRouter, gallery: Gallery, runner: JobRunner) -> None:
    @router.delete("/v1/items/{item_id}", status_code=204, responses=documented(404, 422, 503))
    def delete(item_id: ItemId, request: Request) -> None:
        """Delete an item, and its photo with the last item of it; no later query finds it."""
        visible(gallery, item_id, caller_of(request))
        if not gallery.delete([item_id], cause_of(request)):
            raise NotFound(f"no item {item_id!r}")

    @router.post(
        "/v1/items/delete",
        response_model_exclude_none=True,
        dependencies=[Depends(refuse_query)],
        responses={
            202: {"model": schemas.DeletionAnswer, "description": "A job deletes them"},
            **documented(400, 409, 413, 422, 503),
        },
    )
    def delete_many(wanted: schemas.Deletion, request: Request, response: Response) -> schemas.DeletionAnswer:
        """Delete items by their ids, or all that pass a filter.

        By default nothing is deleted but counted: `dry_run` must be false to delete, and a filter then needs the
        `expected` number that the dry run gave. If by now others pass it, the answer is 409 and nothing is deleted.
        More than 10,000 are deleted by a job, some at a time, which the answer 202 names; what is enrolled meanwhile
        stays.
        """
        caller, cause = caller_of(request), cause_of(request)
        if wanted.filter is not None:
            chosen = caller.narrow(wanted.filter.chosen())
            if wanted.dry_run:
                return schemas.DeletionAnswer(dry_run=True, items=gallery.store.count(chosen))
            assert wanted.expected is not None
            if wanted.expected > MOST_AT_ONCE:
                last = gallery.store.last_matching(chosen, wanted.expected)
                asked = {"filter": filter_as_json(chosen), "last": last, "expected": wanted.expected}
                response.status_code = 202
                job = runner.start(KIND, asked, cause)
                return schemas.DeletionAnswer(dry_run=False, items=wanted.expected, job_id=job.job_id)
            return schemas.DeletionAnswer(
                dry_run=False, items=len(gallery.delete_matching(chosen, wanted.expected, cause))
            )
        there = [item for item in gallery.store.find(wanted.item_ids or ()) if caller.sees(item.details.camera)]
        if wanted.dry_run:
            return schemas.DeletionAnswer(dry_run=True, items=len(there))
        return schemas.DeletionAnswer(dry_run=False, items=len(gallery.delete([item.item_id for item in there], cause)))


def _editing(router: APIRouter, gallery: Gallery) -> None:
    edits = BulkEdits(gallery.database)

    def told(done: Edited, dry_run: bool) -> schemas.EditAnswer:
        gallery.worker.publish()
        batch_id = None if dry_run else done.batch_id
        return schemas.EditAnswer(dry_run=dry_run, items=done.chosen, changed=done.changed, batch_id=batch_id)

    @router.post("/v1/items/edit", dependencies=[Depends(refuse_query)], responses=documented(400, 409, 413, 422, 503))
    def edit_many(
        wanted: schemas.ItemsEdit, request: Request, idempotency_key: IdempotencyKey = None
    ) -> schemas.EditAnswer:
        """Say the same of many items, by their ids or all that pass a filter, and move their times.

        By default nothing is changed but counted: `dry_run` must be false to change, and a filter then needs the
        `expected` number that the dry run gave. If by now others pass it, the answer is 409 and nothing is changed.
        The same request with the same `Idempotency-Key` is done once, and told of again by how many items it changed.
        """
        caller, changes = caller_of(request), wanted.changes.model_dump(exclude_unset=True)
        if "camera" in changes:
            require_camera(caller, changes["camera"])
        if wanted.filter is not None:
            chosen: Filter | list[str] = caller.narrow(wanted.filter.chosen())
        else:
            found = gallery.store.find(wanted.item_ids or ())
            seen = [item for item in found if caller.sees(item.details.camera)]
            chosen = [item.item_id for item in seen if wanted.named in (None, item.details.label is not None)]
        done = edits.edit(
            chosen,
            changes,
            timedelta(seconds=wanted.shift_seconds),
            cause_of(request),
            named=wanted.named,
            expected=None if wanted.filter is None or wanted.dry_run else wanted.expected,
            dry_run=wanted.dry_run,
            batch_id=None if idempotency_key is None or wanted.dry_run else _step_of(caller, idempotency_key, wanted),
        )
        return told(done, wanted.dry_run)

    @router.post(
        "/v1/items/edit/undo",
        dependencies=[Depends(refuse_query)],
        responses=documented(400, 404, 409, 413, 422, 503),
    )
    def undo(wanted: schemas.EditUndo, request: Request) -> schemas.EditAnswer:
        """Take back what an edit of many items changed, of those that are still there.

        The answer is 409, and nothing is taken back, where any of them was changed since.
        """
        done = edits.undo(wanted.batch_id, caller_of(request).sees, cause_of(request), dry_run=wanted.dry_run)
        return told(done, wanted.dry_run)


def _step_of(caller: Caller, key: str, wanted: schemas.ItemsEdit) -> str:
    return hashlib.sha256(f"{caller.actor}\0{key}\0{wanted.model_dump_json()}".encode()).hexdigest()[:32]


def require_camera(caller: Caller, camera: str | None) -> None:
    """Raise Forbidden for a camera whose items the caller may not write."""
    if not caller.sees(camera):
        raise Forbidden(f"this key may not write items of camera {camera!r}, only of {sorted(caller.cameras or ())}")


def _request_sha256(files: Sequence[tuple[str, str]], metadata: list[schemas.Metadata] | None) -> str:
    said = None if metadata is None else [_as_before(one.model_dump(mode="json")) for one in metadata]
    return hashlib.sha256(json.dumps([files, said]).encode()).hexdigest()


def _as_before(said: dict[str, Any]) -> dict[str, Any]:
    """The fields of earlier versions in their order, whose replies are kept; later ones where they are said."""
    before = {name: said.pop(name) for name in ("key", "label", "camera", "captured_at", "attributes")}
    return before | {name: value for name, value in said.items() if value is not None}


def _as_now(gallery: Gallery, answer: schemas.EnrolAnswer, request: Request) -> schemas.EnrolAnswer:
    """An answer that was given before, with its items as they are now."""
    wanted = [result.item.item_id for result in answer.results if result.item is not None]
    caller = caller_of(request)
    found = [item for item in gallery.store.find(wanted) if caller.sees(item.details.camera)]
    there = {item.item_id: item for item in as_seen(gallery.store, found, caller)}
    for result in answer.results:
        if result.item is not None:
            item = there.get(result.item.item_id)
            result.item = None if item is None else schemas.Item.of(item, root_of(request))
    return answer


def result_of(
    store: Store, index: int, filename: str, box: Box | None, result: Enrolled | Refusal | TooLarge, request: Request
) -> schemas.FileResult:
    """What became of a file, or a box in it, as it is told to whoever sent it."""
    told = schemas.FileResult(index=index, filename=filename, result="error")
    told.box = box if box is not None and all(map(isfinite, box)) else None  # JSON has no other numbers
    if isinstance(result, Enrolled):
        if not caller_of(request).sees(result.item.details.camera):
            told.error = schemas.FileError(status=409, code="conflict", detail="this cannot be enrolled with this key")
            return told
        told.result = "created" if result.created else "existing"
        [item] = as_seen(store, [result.item], caller_of(request))
        told.item = schemas.Item.of(item, root_of(request))
        told.pending = result.pending
    else:
        told.error = file_error(result, caller_of(request))
    return told
