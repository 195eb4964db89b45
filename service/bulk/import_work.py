"""The work of imports: what was sent is enrolled, batch by batch, and what became of each photo is kept."""

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any, Literal, NamedTuple

from reid.data.capture import read_capture
from reid.data.times import read_zone
from service.bulk.enrolling import AT_ONCE, BATCH, outcomes, said_otherwise
from service.bulk.importing import Outcome
from service.bulk.known import Known, known_of, names_of, whole
from service.bulk.received import preview, received
from service.bulk.sources import Photo, reason
from service.bulk.unpacking import unpack_all
from service.gallery.batcher import Busy, Closed
from service.gallery.gallery import Gallery
from service.gallery.imports import Became, Import, Imports, Result, UnusableFile
from service.records import (
    Cameras,
    Cause,
    Conflict,
    DeletedBefore,
    Enrolled,
    Item,
    ItemEdit,
    Job,
    KeyTaken,
    ModelMismatch,
    UnusableText,
)
from service.storage.bulk_edits import BulkEdits
from service.wire.import_schemas import ImportPreview, ImportSettings, settings_of

KIND = "import"
# Of the items that an import added, where their table has no column of that name: its id, to find them again by.
ATTRIBUTE = "import"
PAUSE = 0.2  # seconds
BUSY_TRIES = 60  # until it counts as an outage
NOT_FINAL = "outage"
FIRST = ("created", "existing", "updated", "differing")
SHOWN = 5  # names in a message
NOT_SENT = "not among the files that were sent"
# What people have to say before an import can be read, as an error names it.
SAID_FIRST = {
    "columns": "which column of the table has the names of the files",
    "dates": "how dates such as 05/03/2026 are meant",
    "timezone": "in which time zone the clocks were",
}


class Outage(OSError):
    """A photo was not looked at because the gallery could not take any."""


def look_at(gallery: Gallery, imports: Imports, import_id: str) -> ImportPreview:
    """How an import would be read, and what of it is in the gallery; archives are unpacked for it."""
    unusable = unpack_all(imports, import_id)
    one = imports.get(import_id)

    def compare(photos: Sequence[Photo]) -> Known:
        return known_of(gallery.store, photos, lambda paths: imports.sha256s(import_id, paths), _sees(one))

    return preview(imports.files_folder(import_id), settings_of(one.wanted), unusable, compare)


def import_work(
    gallery: Gallery, imports: Imports, most_bytes_of_photo: int
) -> Callable[[Job, Callable[[int, int], None]], Mapping[str, Any]]:
    """The work of jobs of the kind `import`: the photos of an import that have not become anything for good yet.

    A second job of the same import, and one that a kill cut short, goes on where the first one stopped.
    """

    edits = BulkEdits(gallery.database)

    def work(job: Job, progress: Callable[[int, int], None]) -> Mapping[str, Any]:
        import_id = job.parameters["import_id"]
        one = imports.get(import_id)
        if one.settled:  # a kill cut short what comes after
            report = one.report or {**imports.counts(import_id), "left_out": {}}
            imports.settle(import_id, report)
            return report
        one = imports.change(import_id, job_id=job.job_id, started_at=one.started_at or datetime.now(UTC))
        settings = settings_of(one.wanted)
        # What is told meanwhile renews the lease, and ends the work where it shall.
        for name, reason_against in unpack_all(imports, import_id, lambda: progress(0, 0)).items():
            raise UnusableFile(f"{name}: {reason_against}")
        imports.count(import_id)
        try:
            found = received(imports.files_folder(import_id), settings)
        except ValueError as error:
            needs = preview(imports.files_folder(import_id), settings).needs
            first = " and ".join(SAID_FIRST[need] for need in needs)
            raise ValueError(f"say first {first}" if needs else _plain(imports, one, error)) from error
        taking = _Taking(one, imports.results(import_id))
        updating = _Updating(edits, bool(settings.update), job, one)
        waiting = [photo for photo in found.photos if not taking.is_final(str(photo))]
        total, done = len(found.photos), len(found.photos) - len(waiting)
        enrolling = _Enrolling(gallery, one, settings, job.cause, most_bytes_of_photo, found.alike)
        try:
            progress(done, total)  # ends the job where it was cancelled after a kill, and what it edited is noted, too
            with closing(enrolling.batches(waiting)) as batches:
                for batch in batches:
                    imports.add_results(import_id, updating.updated([taking.result(taken) for taken in batch]))
                    done += len(batch)
                    progress(done, total)
        except Closed:
            while True:  # until the runner ends the job, which goes on at the next start
                progress(done, total)
                sleep(PAUSE)
        finally:
            if settings.update:
                _note_edit(imports, import_id, job.job_id, edits.changed_by(job.job_id))
                gallery.worker.publish()
        report = {**imports.counts(import_id), "left_out": found.left_out}
        imports.settle(import_id, report)
        return report

    return work


class _Taking:
    """Turns outcomes into results: the first photo of an item became it, and others are its duplicates."""

    def __init__(self, one: Import, before: Mapping[str, Result]) -> None:
        assert one.started_at is not None
        self._cameras, self._started_at = one.cameras, one.started_at
        self._before, self._sees, self._import_id = before, _sees(one), one.import_id
        firsts = (one for one in before.values() if one.became in FIRST)
        self._first = {one.item_id: one.name for one in firsts}

    def is_final(self, name: str) -> bool:
        """Whether a photo became something that stays."""
        return name in self._before and self._before[name].became != NOT_FINAL

    def result(self, taken: "_Taken") -> "tuple[Result, Item | None, ItemEdit]":
        """What became of a photo, and for one that was there before its item with what is said otherwise of it."""
        (name, result, details), clock = taken
        if isinstance(result, DeletedBefore):
            return Result(name, "deleted", None, str(result)), None, {}
        if not isinstance(result, Enrolled):
            became: Became = "outage" if isinstance(result, Outage) else "failed"
            return Result(name, became, None, _reason(result, self._sees)), None, {}
        item = result.item
        if self._cameras is not None and item.details.camera not in self._cameras:
            return Result(name, "failed", None, "this cannot be enrolled with this key"), None, {}
        first = self._first.setdefault(item.item_id, name)
        if first != name:
            return Result(name, "duplicate", item.item_id, first), None, {}
        # One that a job enrolled which was cut short before it could say so is not one that was there before.
        if result.created or item.created_at >= self._started_at:
            return Result(name, "created", item.item_id, "", clock), None, {}
        # Of which import it is, is said of what it added alone.
        said = dict(one for one in details.attributes.items() if one != (ATTRIBUTE, self._import_id))
        changes = said_otherwise(item.details, replace(details, attributes=said))
        clock = clock if "captured_at" in changes else ""
        return Result(name, "existing", item.item_id, ",".join(names_of(item, changes)), clock), item, changes


class _Updating:
    """Has items that were there before say what the import says of them, where that is wanted."""

    def __init__(self, edits: BulkEdits, wanted: bool, job: Job, one: Import) -> None:
        self._edits, self._wanted, self._job, self._sees = edits, wanted, job, _sees(one)

    def updated(self, found: Sequence[tuple[Result, Item | None, ItemEdit]]) -> list[Result]:
        """The results of a batch, after those that change have changed."""
        changed = {item.item_id: whole(changes) for _, item, changes in found if item is not None and changes}
        if not changed:
            return [result for result, _, _ in found]
        if not self._wanted:
            return [
                result._replace(became="differing", clock="") if changes else result for result, _, changes in found
            ]
        refused = self._refused(changed)
        return [
            result._replace(became="failed", detail=refused[item.item_id], clock="")
            if item is not None and item.item_id in refused
            else result._replace(became="updated" if changes else result.became)
            for result, item, changes in found
        ]

    def _refused(self, changed: Mapping[str, ItemEdit]) -> dict[str, str]:
        """Edit items, and tell why some cannot be."""
        try:
            self._edits.edit_each(changed, self._job.cause, self._job.job_id)
        except (Conflict, UnusableText) as error:
            if len(changed) == 1:
                return dict.fromkeys(changed, _reason(error, self._sees))
            return {one: why for item_id in changed for one, why in self._refused({item_id: changed[item_id]}).items()}
        return {}


class _Taken(NamedTuple):
    """What the gallery made of a photo, and its time as a clock showed it which does not tell its zone."""

    outcome: Outcome
    clock: str = ""


class _Enrolling:
    """Gives photos to the gallery, some batches at a time."""

    def __init__(
        self,
        gallery: Gallery,
        one: Import,
        settings: ImportSettings,
        cause: Cause,
        most_bytes: int,
        alike: Mapping[str, Sequence[str]],
    ) -> None:
        zone = None if settings.timezone is None else read_zone(settings.timezone)
        self._said = Cameras(zone, named_by_device=settings.camera_from == "device")
        self._gallery, self._cameras, self._cause, self._again = gallery, one.cameras, cause, settings.again
        self._most_bytes, self._alike, self._import_id = most_bytes, alike, one.import_id

    def batches(self, photos: Sequence[Photo]) -> Generator[list[_Taken], None, None]:
        """What became of photos, in their order; raises Closed."""
        pool = ThreadPoolExecutor(AT_ONCE, "import")
        waiting: deque[Future[list[_Taken]]] = deque()
        try:
            for start in range(0, len(photos), BATCH):
                waiting.append(pool.submit(self._batch, photos[start : start + BATCH]))
                if len(waiting) > AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, photos: Sequence[Photo]) -> list[_Taken]:
        found, good = list[_Taken](), list[Photo]()
        for photo in photos:
            if refusal := self._refusal(photo):
                found.append(_Taken(Outcome(str(photo), refusal)))
            else:
                good.append(replace(photo, cells={ATTRIBUTE: self._import_id, **photo.cells}))
        for _ in range(BUSY_TRIES):
            try:
                made = outcomes(self._gallery, good, self._cause, cameras=self._said, again=self._again)
                of_name = {str(photo): photo for photo in good}
                return found + [_Taken(one, _clock(of_name[one.name], one)) for one in made]
            except Busy as busy:
                trouble: Exception = busy
                sleep(busy.retry_after)
            except (OSError, ModelMismatch) as error:  # the disk is full, the database or the index is away
                trouble = error
                break
        return found + [_Taken(Outcome(str(photo), Outage(str(trouble)))) for photo in good]

    def _refusal(self, photo: Photo) -> ValueError | None:
        """Why a photo is not even read, if it is not."""
        if alike := self._alike.get(photo.name):
            shown = ", ".join(alike[:SHOWN]) + (f" and {len(alike) - SHOWN} more" if len(alike) > SHOWN else "")
            return ValueError(f"{len(alike)} photos of this name were sent: {shown}; say the folder in the table")
        if not photo.path.is_file():
            return ValueError(NOT_SENT)
        if (size := photo.path.stat().st_size) > self._most_bytes:
            return ValueError(f"{size:,} bytes, expected at most {self._most_bytes:,}")
        if self._cameras is not None:
            try:
                camera = photo.details().camera
            except ValueError as error:
                return error
            if camera not in self._cameras:
                seen = sorted(self._cameras)
                return ValueError(f"this key may not write items of camera {camera!r}, only of {seen}")
        return None


def _clock(photo: Photo, outcome: Outcome) -> str:
    """The time of a photo as its clock showed it, where neither its row nor its camera tells the zone."""
    result = outcome.result
    if photo.clock or not isinstance(result, Enrolled) or result.item.details.captured_precision is None:
        return photo.clock
    with suppress(OSError):
        time = read_capture(photo.path.read_bytes()).captured_at
        return time.isoformat() if time is not None and time.tzinfo is None else ""
    return ""


def _note_edit(imports: Imports, import_id: str, batch_id: str, changed: int) -> None:
    """Keep with an import that items were edited by it, so that this can be taken back."""
    with imports.editing(import_id) as one:
        before = [edit for edit in one.edits if edit["batch_id"] != batch_id]
        if changed:
            imports.change(import_id, edits=[*before, edit_of(batch_id, "update", changed)])


def edit_of(
    batch_id: str, what: Literal["update", "timezone"], items: int, before: str | None = None
) -> dict[str, Any]:
    """An edit of items as an import keeps it; `before` is the time zone that there was."""
    return {"batch_id": batch_id, "what": what, "items": items, "before": before, "undone": False}


def _sees(one: Import) -> Callable[[str | None], bool]:
    """Whether the maker of an import sees a camera."""
    return lambda camera: one.cameras is None or camera in one.cameras


def _reason(error: Exception, sees: Callable[[str | None], bool]) -> str:
    return error.told(sees) if isinstance(error, KeyTaken) else reason(error)


def _plain(imports: Imports, one: Import, error: Exception) -> str:
    folder: Path = imports.files_folder(one.import_id)
    return str(error).replace(f"{folder}/", "").replace(str(folder), "the files that were sent")
