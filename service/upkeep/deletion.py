"""Deleting many items: as a job, some at a time, so that nobody who writes waits for long."""

from typing import Any

from service.fields import filter_from_json
from service.gallery.gallery import Gallery
from service.records import Job
from service.upkeep.jobs import Progress, Work

KIND = "delete"
MOST_AT_ONCE = 10_000  # items that are deleted in one transaction; more are by a job
ITEMS_AT_ONCE = 1000


def delete_work(gallery: Gallery) -> Work:
    """The work of jobs of the kind `delete`: the items up to the number `last` that pass a `filter`.

    One that no longer passes by the time of its portion stays.
    """

    def work(job: Job, progress: Progress) -> dict[str, Any]:
        chosen, last = filter_from_json(job.parameters["filter"]), int(job.parameters["last"])
        total = int(job.parameters["expected"])
        done = total - gallery.store.count_until(chosen, last)  # before a restart, say
        while ids := gallery.store.first_until(chosen, last, ITEMS_AT_ONCE):
            progress(done, total)
            done += len(gallery.delete(ids, job.cause))
        progress(total, total)
        return {"items": done}

    return work
