"""The work of imports: what was sent is enrolled, batch by batch, and what became of each photo is kept."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
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
from service.bulk.known import Known, Shown, edited_since, known_of, names_of, whole
from service.bulk.received import Received, preview, received
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
    Details,
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
FIRST = ("created", "existing", "updated", "edited", "differing")
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
        known, shown = known_of(gallery.store, photos, lambda paths: imports.sha256s(import_id, paths), _sees(one))
        imports.keep_shown(import_id, shown)
        return known

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
        try:
            # What is told meanwhile renews the lease, and ends the work where it shall.
            for name, reason_against in unpack_all(imports, import_id, lambda: progress(0, 0)).items():
                raise UnusableFile(f"{name}: {reason_against}")
            imports.count(import_id)
            found = _found(imports, one, settings)
            taking = _Taking(one, imports.results(import_id))
            waiting = [photo for photo in found.photos if not taking.is_final(str(photo))]
            total, done = len(found.photos), len(found.photos) - len(waiting)
            progress(done, total)  # ends the job where it was cancelled after a kill, and what it edited is noted, too
            shown = _shown(gallery, imports, one, waiting, lambda: progress(done, total)) if settings.update else None
            updating = _Updating(edits, shown, job, one)
            enrolling = _Enrolling(gallery, one, settings, job.cause, most_bytes_of_photo, found.alike)
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


def _found(imports: Imports, one: Import, settings: ImportSettings) -> Received:
    """The photos of an import; raises ValueError, with what is to be said first where that is what is missing."""
    folder = imports.files_folder(one.import_id)
    try:
        return received(folder, settings)
    except ValueError as error:
        needs = preview(folder, settings).needs
        first = " and ".join(SAID_FIRST[need] for need in needs)
        raise ValueError(f"say first {first}" if needs else _plain(imports, one, error)) from error


def _shown(gallery: Gallery, imports: Imports, one: Import, photos: Sequence[Photo], tell: Callable[[], None]) -> Shown:
    """What items that are there said when somebody looked at the import, or say now where nobody did."""
    if (shown := imports.shown(one.import_id)) is not None:
        return shown

    def sha256s(paths: Iterable[Path]) -> Mapping[Path, str]:
        return imports.sha256s(one.import_id, told_of(paths))

    def told_of(paths: Iterable[Path]) -> Iterator[Path]:
        for number, path in enumerate(paths):
            if number % BATCH == 0:
                tell()
            yield path

    _, shown = known_of(gallery.store, [photo for photo in photos if photo.path.is_file()], sha256s, _sees(one))
    imports.keep_shown(one.import_id, shown)
    return shown


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

    def result(self, taken: "_Taken") -> "tuple[Result, Item | None, Details]":
        """What became of a photo, and for one that was there before its item, with what is said of it here."""
        (name, result, details), clock = taken
        if isinstance(result, DeletedBefore):
            return Result(name, "deleted", None, str(result)), None, details
        if not isinstance(result, Enrolled):
            became: Became = "outage" if isinstance(result, Outage) else "failed"
            return Result(name, became, None, _reason(result, self._sees)), None, details
        item = result.item
        if self._cameras is not None and item.details.camera not in self._cameras:
            return Result(name, "failed", None, "this cannot be enrolled with this key"), None, details
        first = self._first.setdefault(item.item_id, name)
        if first != name:
            return Result(name, "duplicate", item.item_id, first), None, details
        # One that a job enrolled which was cut short before it could say so is not one that was there before.
        if result.created or item.created_at >= self._started_at:
            return Result(name, "created", item.item_id, "", clock), None, details
        # Of which import it is, is said of what it added alone.
        said = dict(one for one in details.attributes.items() if one != (ATTRIBUTE, self._import_id))
        return Result(name, "existing", item.item_id, "", clock), item, replace(details, attributes=said)


class _Updating:
    """Has items that were there before say what the import says of them, where that is wanted.

    Those are left as they are that say something else by then than was `shown`, for somebody edited them.
    """

    def __init__(self, edits: BulkEdits, shown: Shown | None, job: Job, one: Import) -> None:
        """Without `shown` nothing is changed."""
        self._edits, self._shown, self._job, self._sees = edits, shown, job, _sees(one)

    def updated(self, found: Sequence[tuple[Result, Item | None, Details]]) -> list[Result]:
        """The results of a batch, after those that change have changed."""
        differing: dict[str, list[str]] = {}
        said_here: dict[str, Details] = {}
        for _, item, said in found:
            if item is not None and (changes := said_otherwise(item.details, said)):
                differing[item.item_id], said_here[item.item_id] = names_of(item, changes), said
        if self._shown is None:
            became = {item_id: _Outcome("differing", ",".join(names)) for item_id, names in differing.items()}
        else:
            became = self._take_over(said_here, self._shown) if said_here else {}
        results = []
        for result, item, _ in found:
            if item is not None:
                kind, detail = became.get(item.item_id, _Outcome("existing", ""))
                clock = result.clock if kind == "updated" and "captured_at" in detail.split(",") else ""
                result = result._replace(became=kind, detail=detail, clock=clock)
            results.append(result)
        return results

    def _take_over(self, said_here: Mapping[str, Details], shown: Shown) -> dict[str, "_Outcome"]:
        """Edit items, and tell what became of each that is still there."""
        became: dict[str, _Outcome] = {}

        def changes_of(item: Item) -> ItemEdit:
            changes = said_otherwise(item.details, said_here[item.item_id])
            edited = edited_since(shown.get(item.item_id, {}), item, changes)
            if not self._sees(item.details.camera):
                edited = ["camera"]
            names = edited or names_of(item, changes)
            became[item.item_id] = _Outcome("edited" if edited else "updated" if names else "existing", ",".join(names))
            return {} if edited else whole(changes)

        try:
            self._edits.edit_each(said_here, changes_of, self._job.cause, self._job.job_id)
        except (Conflict, UnusableText) as error:
            if len(said_here) == 1:
                return dict.fromkeys(said_here, _Outcome("failed", _reason(error, self._sees)))
            return {
                one: outcome
                for item_id, said in said_here.items()
                for one, outcome in self._take_over({item_id: said}, shown).items()
            }
        return became


class _Outcome(NamedTuple):
    """What became of a photo whose item was there before, and of which of its fields, or why not."""

    became: Became
    detail: str


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
