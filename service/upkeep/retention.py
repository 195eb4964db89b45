"""What is kept for a time only: items, by their cameras, the log of queries, and subjects of searches."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from service.fields import Filter
from service.gallery.gallery import Gallery
from service.gallery.imports import Imports
from service.records import Cause, Job
from service.storage.jobs import Jobs
from service.storage.store import Store
from service.upkeep.jobs import Progress, Work

ITEMS_AT_ONCE = 1000
OTHERS = "*"  # the cameras that are not named, and items without camera

KeepDays = Mapping[str, float]  # by camera


def expire_work(gallery: Gallery, keep_days: KeepDays) -> Work:
    """The work of jobs of the kind `expire`: delete the items whose time is over, or count them in a `dry_run`."""

    def work(job: Job, progress: Progress) -> dict[str, Any]:
        counts = expired(gallery.store, keep_days)
        if job.parameters.get("dry_run"):
            return {"dry_run": True, "items": counts}
        done, total = 0, sum(counts.values())
        for chosen, before in _limits(keep_days):
            while ids := gallery.store.enrolled_before(before, chosen, ITEMS_AT_ONCE):
                progress(min(done, total), total)
                done += len(gallery.delete(ids, Cause("retention", job.request_id)))
        return {"dry_run": False, "items": counts}

    return work


def expired(store: Store, keep_days: KeepDays) -> dict[str, int]:
    """How many items are in the gallery for longer than they are to be kept, by the cameras that `keep_days` names."""
    limits = zip(keep_days, _limits(keep_days), strict=True)
    return {camera: store.count_enrolled_before(before, chosen) for camera, (chosen, before) in limits}


def prune_work(
    gallery: Gallery, days: float, most_bytes: int, most_of_subjects: int, imports: Imports, import_days: float
) -> Work:
    """The work of jobs of the kind `prune`: remove the oldest queries from their log, and subjects and imports."""

    def work(job: Job, progress: Progress) -> dict[str, Any]:
        queries = gallery.queries.prune(datetime.now(UTC) - timedelta(days=days), most_bytes)
        gone = {"queries": queries, "subjects": gallery.subjects.prune(most_of_subjects)}
        running = {str(one.parameters.get("import_id")) for one in Jobs(gallery.database, running=False).open()}
        return {**gone, "imports": imports.prune(timedelta(days=import_days), running)}

    return work


def _limits(keep_days: KeepDays) -> list[tuple[Filter, datetime]]:
    named = [camera for camera in keep_days if camera != OTHERS]
    now = datetime.now(UTC)
    return [
        (Filter(exclude_cameras=named) if camera == OTHERS else Filter(cameras=[camera]), now - timedelta(days=days))
        for camera, days in keep_days.items()
    ]
