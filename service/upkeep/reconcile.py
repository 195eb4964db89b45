"""Comparing a search index on a server with the gallery, row by row, and mending what differs."""

from collections.abc import Callable
from functools import partial
from typing import Any

from service.gallery.gallery import Gallery
from service.gallery.index import Differences, ServerIndex
from service.records import IndexUnavailable, Job
from service.upkeep.jobs import Progress, Work


def reconcile_work(gallery: Gallery, index: ServerIndex) -> Work:
    """The work of jobs of the kind `reconcile`: portions go between other work of the owner thread."""

    def work(job: Job, progress: Progress) -> dict[str, Any]:
        gallery.worker.require_model()
        found = reconcile(index, progress, run=lambda some: gallery.worker.run(some).result())
        return found._asdict()

    return work


def reconcile(
    index: ServerIndex,
    progress: Progress,
    *,
    mend: bool = True,
    run: Callable[[Callable[[], Any]], Any] = lambda work: work(),
) -> Differences:
    """Have the index follow the gallery's log to its end, then compare all rows, and mend those that differ.

    `run` calls a portion of the work where it has to be done. Raises IndexUnavailable while the server is away.
    """
    while not run(index.follow):
        if index.trouble is not None:
            raise IndexUnavailable(index.trouble)
    total = Differences(0, 0, 0, 0)
    after: int | None = 0
    while after is not None:
        found, after = run(partial(index.compare, after, mend=mend))
        total = Differences(*map(sum, zip(total, found, strict=True)))
        progress(total.rows, index.items)
    return total
