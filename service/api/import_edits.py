"""Routes that change items of an import that was done: the time zone of its clocks, and its edits taken back."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Path, Request

from reid.data.times import read_zone
from service.api.access import caller_of, cause_of
from service.api.problems import documented
from service.bulk.import_work import edit_of
from service.gallery.capture import ZONE_UNKNOWN
from service.gallery.gallery import Gallery
from service.gallery.imports import Import, Imports
from service.records import Caller, Conflict, Item, ItemEdit, NotFound
from service.storage.bulk_edits import BulkEdits
from service.wire import import_schemas as schemas
from service.wire.schemas import EditAnswer

ImportId = Annotated[str, Path(max_length=200)]


def import_edits(
    router: APIRouter,
    gallery: Gallery,
    kept: Imports,
    visible: Callable[[str, Caller], Import],
    require_ended: Callable[[Import], None],
    told: Callable[[Import], schemas.Import],
) -> None:
    """Add the routes to those of imports."""
    edits = BulkEdits(gallery.database)

    @router.post("/{import_id}/timezone", responses=documented(400, 404, 409, 413, 422, 503))
    def timezone(import_id: ImportId, wanted: schemas.ImportZone, request: Request) -> EditAnswer:
        """Say where the clocks were of an import that was done, whose times do not tell it.

        It moves the times of its items that were read so, but for those that somebody has changed since.
        """
        caller = caller_of(request)
        visible(import_id, caller)
        with kept.editing(import_id) as one:
            require_ended(one)
            clocks = {result.item_id: result.clock for result in kept.results(import_id).values() if result.clock}
            found = gallery.store.find([item_id for item_id in clocks if item_id is not None])
            there = [item for item in found if caller.sees(item.details.camera)]

            def moved(item: Item) -> ItemEdit:
                return _moved(item, clocks[item.item_id], wanted) if caller.sees(item.details.camera) else {}

            if wanted.dry_run:
                return EditAnswer(
                    dry_run=True, items=len(there), changed=sum(map(bool, map(moved, there))), batch_id=None
                )
            batch_id, settings = uuid4().hex, {**one.wanted, "timezone": wanted.timezone}
            edit = edit_of(batch_id, "timezone", 0, one.wanted.get("timezone"))
            with kept.step(import_id, batch_id, wanted=settings, edits=[*one.edits, edit]):
                done = edits.edit_each([item.item_id for item in there], moved, cause_of(request), batch_id)
            if not done.changed:
                kept.change(import_id, wanted=settings)
            gallery.worker.publish()
            return EditAnswer(dry_run=False, items=len(there), changed=done.changed, batch_id=batch_id)

    @router.post("/{import_id}/undo", responses=documented(400, 404, 409, 413, 422, 503))
    def undo(import_id: ImportId, wanted: schemas.ImportUndo, request: Request) -> schemas.Import:
        """Take back what an import changed of items, in one of its edits; 409 where any was changed since."""
        caller = caller_of(request)
        visible(import_id, caller)
        with kept.editing(import_id) as one:
            require_ended(one)
            edit = next((edit for edit in one.edits if edit["batch_id"] == wanted.batch_id), None)
            if edit is None:
                raise NotFound(f"import {import_id} has no edit {wanted.batch_id!r}")
            if edit["undone"]:
                raise Conflict("this edit was taken back already")
            after = [{**each, "undone": each["undone"] or each is edit} for each in one.edits]
            settings = {**one.wanted, "timezone": edit["before"]} if edit["what"] == "timezone" else one.wanted
            undoing = uuid4().hex
            with kept.step(import_id, undoing, wanted=settings, edits=after):
                edits.undo(wanted.batch_id, caller.sees, cause_of(request), undoing=undoing)
            changed = kept.change(import_id, wanted=settings, edits=after)  # also where none of its items is left
            gallery.worker.publish()
            return told(changed)


def _moved(item: Item, clock: str, wanted: schemas.ImportZone) -> ItemEdit:
    """The time of an item as that of a clock in a zone, unless it shows another time than the clock did."""
    time, shown = item.details.captured_at, datetime.fromisoformat(clock)
    after = shown.replace(tzinfo=read_zone(wanted.timezone))
    precision = (item.details.captured_precision or "").removesuffix(f", {ZONE_UNKNOWN}") or None
    if time is None or time.replace(tzinfo=None) != shown:
        return {}
    if time.isoformat() == after.isoformat() and precision == item.details.captured_precision:
        return {}
    return {"captured_at": after, "captured_precision": precision}
