"""The work of imports: what was sent is enrolled, batch by batch, and what became of each photo is kept."""

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any

from reid.data.times import read_zone
from service.bulk.enrolling import AT_ONCE, BATCH, outcomes
from service.bulk.importing import Outcome
from service.bulk.received import preview, received
from service.bulk.sources import Photo, reason
from service.bulk.unpacking import unpack_all
from service.gallery.batcher import Busy, Closed
from service.gallery.gallery import Gallery
from service.gallery.imports import Import, Imports, Result, counts_of
from service.records import Cameras, Cause, DeletedBefore, Enrolled, Job, ModelMismatch
from service.wire.import_schemas import ImportPreview, ImportSettings, settings_of

KIND = "import"
PAUSE = 0.2  # seconds
BUSY_TRIES = 60  # until it counts as an outage
FINAL = ("created", "existing", "duplicate", "deleted", "failed")
NOT_SENT = "not among the files that were sent"


class Outage(OSError):
    """A photo was not looked at because the gallery could not take any."""


def look_at(imports: Imports, import_id: str) -> ImportPreview:
    """How an import would be read; archives are unpacked for it. Raises UnusableFile for one that cannot be."""
    unpack_all(imports, import_id)
    return preview(imports.files_folder(import_id), settings_of(imports.get(import_id).wanted))


def import_work(
    gallery: Gallery, imports: Imports, most_bytes_of_photo: int
) -> Callable[[Job, Callable[[int, int], None]], Mapping[str, Any]]:
    """The work of jobs of the kind `import`: the photos of an import that have not become anything for good yet.

    A second job of the same import, and one that a kill cut short, goes on where the first one stopped.
    """

    def work(job: Job, progress: Callable[[int, int], None]) -> Mapping[str, Any]:
        import_id = job.parameters["import_id"]
        one = imports.get(import_id)
        if one.settled:  # a kill cut short what comes after
            report = one.report or {**counts_of(imports.results(import_id).values()), "left_out": {}}
            imports.settle(import_id, report)
            return report
        one = imports.change(import_id, job_id=job.job_id, started_at=one.started_at or datetime.now(UTC))
        settings = settings_of(one.wanted)
        unpack_all(imports, import_id, lambda: progress(0, 0))  # which renews the lease, and ends it where it shall
        imports.count(import_id)
        try:
            found = received(imports.files_folder(import_id), settings)
        except ValueError as error:
            needs = preview(imports.files_folder(import_id), settings).needs
            said = f"{', '.join(needs)}: has to be said first" if needs else _plain(imports, one, error)
            raise ValueError(said) from error
        taking = _Taking(one, imports.results(import_id))
        waiting = [photo for photo in found.photos if not taking.is_final(str(photo))]
        total, done = len(found.photos), len(found.photos) - len(waiting)
        enrolling = _Enrolling(gallery, one, settings, job.cause, most_bytes_of_photo)
        progress(done, total)
        try:
            with closing(enrolling.batches(waiting)) as batches:
                for batch in batches:
                    imports.add_results(import_id, map(taking.result, batch))
                    done += len(batch)
                    progress(done, total)
        except Closed:
            while True:  # until the runner ends the job, which goes on at the next start
                progress(done, total)
                sleep(PAUSE)
        report = {**counts_of(imports.results(import_id).values()), "left_out": found.left_out}
        imports.settle(import_id, report)
        return report

    return work


class _Taking:
    """Turns outcomes into results: the first photo of an item became it, and others are its duplicates."""

    def __init__(self, one: Import, before: Mapping[str, Result]) -> None:
        assert one.started_at is not None
        self._cameras, self._started_at = one.cameras, one.started_at
        self._before = before
        firsts = (one for one in before.values() if one.became in ("created", "existing"))
        self._first = {one.item_id: one.name for one in firsts}

    def is_final(self, name: str) -> bool:
        """Whether a photo became something that stays."""
        return name in self._before and self._before[name].became in FINAL

    def result(self, outcome: Outcome) -> Result:
        """What became of a photo."""
        name, result, _ = outcome
        if isinstance(result, DeletedBefore):
            return Result(name, "deleted", None, str(result))
        if not isinstance(result, Enrolled):
            return Result(name, "outage" if isinstance(result, Outage) else "failed", None, reason(result))
        item = result.item
        if self._cameras is not None and item.details.camera not in self._cameras:
            return Result(name, "failed", None, "this cannot be enrolled with this key")
        first = self._first.setdefault(item.item_id, name)
        if first != name:
            return Result(name, "duplicate", item.item_id, first)
        # One that a job enrolled which was cut short before it could say so is not one that was there before.
        new = result.created or item.created_at >= self._started_at
        return Result(name, "created" if new else "existing", item.item_id)


class _Enrolling:
    """Gives photos to the gallery, some batches at a time."""

    def __init__(self, gallery: Gallery, one: Import, settings: ImportSettings, cause: Cause, most_bytes: int) -> None:
        zone = None if settings.timezone is None else read_zone(settings.timezone)
        self._said = Cameras(zone, named_by_device=settings.camera_from == "device")
        self._gallery, self._cameras, self._cause, self._again = gallery, one.cameras, cause, settings.again
        self._most_bytes = most_bytes

    def batches(self, photos: Sequence[Photo]) -> Generator[list[Outcome], None, None]:
        """What became of photos, in their order; raises Closed."""
        pool = ThreadPoolExecutor(AT_ONCE, "import")
        waiting: deque[Future[list[Outcome]]] = deque()
        try:
            for start in range(0, len(photos), BATCH):
                waiting.append(pool.submit(self._batch, photos[start : start + BATCH]))
                if len(waiting) > AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, photos: Sequence[Photo]) -> list[Outcome]:
        found, good = list[Outcome](), list[Photo]()
        for photo in photos:
            if refusal := self._refusal(photo):
                found.append(Outcome(str(photo), refusal))
            else:
                good.append(photo)
        for _ in range(BUSY_TRIES):
            try:
                return found + outcomes(self._gallery, good, self._cause, cameras=self._said, again=self._again)
            except Busy as busy:
                trouble: Exception = busy
                sleep(busy.retry_after)
            except (OSError, ModelMismatch) as error:  # the disk is full, the database or the index is away
                trouble = error
                break
        return found + [Outcome(str(photo), Outage(str(trouble))) for photo in good]

    def _refusal(self, photo: Photo) -> ValueError | None:
        """Why a photo is not even read, if it is not."""
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


def _plain(imports: Imports, one: Import, error: Exception) -> str:
    folder: Path = imports.files_folder(one.import_id)
    return str(error).replace(f"{folder}/", "").replace(str(folder), "the files that were sent")
