"""Command `reid-enrol`: put the photos of folders, tables and datasets into a gallery."""

import argparse
import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from reid import cli
from reid.progress import Progress
from service.gallery import Gallery
from service.opening import open_gallery
from service.records import Cause, Details, Filter
from service.settings import Backend, load
from service.sources import Photo, add_arguments, chosen_sources, reason
from service.storage.changes import Changes, Enrolled

log = logging.getLogger("reid")

BATCH = 32  # photos of one transaction
AT_ONCE = 3  # batches, so that photos are read and saved while the model works
CAUSE = Cause(actor="reid-enrol")


def enrol(gallery: Gallery, photos: Sequence[Photo], *, update: bool = False) -> Counter[str]:
    """Enrol photos and count those `created`, `existing` and `failed`; each failure is logged, with its reason.

    Of those that are there already, `other` counts the ones of which something else is said here than in the gallery;
    `update` has the gallery say it too. `pending` are those that wait for the search index, which is away.

    Which of several photos with the same bytes or key is the first is left to chance. An interrupt lets the batches
    under way finish, and is raised again as KeyboardInterrupt with the counts.
    """
    counts: Counter[str] = Counter()
    progress = Progress("enrolling")
    pool = ThreadPoolExecutor(AT_ONCE)
    batches = [photos[start : start + BATCH] for start in range(0, len(photos), BATCH)]
    waiting = deque(pool.submit(_enrol_batch, gallery, batch, update) for batch in batches)
    try:
        try:
            for found in _results(waiting):
                counts += found
                progress(sum(counts[name] for name in ("created", "existing", "failed")), len(photos))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            for found in _results(deque(batch for batch in waiting if not batch.cancelled())):
                counts += found
            raise KeyboardInterrupt(f"{_told(counts)}; given again, the command goes on from there") from None
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    return counts


def _enrol_batch(gallery: Gallery, photos: Sequence[Photo], update: bool) -> tuple[Counter[str], list[str]]:
    """The counts of a batch, and a line for each failure."""
    counts: Counter[str] = Counter()
    failures, uploads = [], []
    for photo in photos:
        try:
            uploads.append(photo.upload())
        except (OSError, ValueError) as error:
            failures.append(f"{photo.name}: {reason(error)}")
    for upload, result in zip(uploads, gallery.enrol(uploads, CAUSE), strict=True):
        if isinstance(result, Enrolled):
            counts["created" if result.created else "existing"] += 1
            counts["pending"] += result.pending
            if not result.created and (changes := _changes(result.item.details, upload.details)):
                counts["other"] += 1
                if update:
                    gallery.edit(result.item.item_id, changes, CAUSE)
        else:
            failures.append(f"{upload.name}: {result}")
    counts["failed"] = len(failures)
    return counts, failures


def _changes(there: Details, said: Details) -> Changes:
    """What is said here and not there; what is left open here stays as it is."""
    changes = Changes()
    if said.key not in (None, there.key):
        changes["key"] = said.key
    if said.label not in (None, there.label):
        changes["label"] = said.label
    if said.camera not in (None, there.camera):
        changes["camera"] = said.camera
    if said.captured_at not in (None, there.captured_at):
        changes["captured_at"] = said.captured_at
    if not said.attributes.items() <= there.attributes.items():
        changes["attributes"] = {**there.attributes, **said.attributes}
    return changes


def _results(batches: "deque[Future[tuple[Counter[str], list[str]]]]") -> Iterator[Counter[str]]:
    """Take the batches in their order, each when it is done; log their failures and yield their counts."""
    while batches:
        counts, failures = batches[0].result()
        batches.popleft()
        for failure in failures:
            log.warning("%s", failure)
        yield counts


def _told(counts: Counter[str]) -> str:
    return f"{counts['created']} enrolled, {counts['existing']} there before, {counts['failed']} failed"


def _command(arguments: argparse.Namespace) -> int:
    photos = [photo for source in chosen_sources(arguments) for photo in source.photos()]
    with open_gallery(arguments.gallery, arguments.checkpoint, arguments.device, load(Backend)) as gallery:
        counts = enrol(gallery, photos, update=arguments.update)
        print(f"{_told(counts)}; {arguments.gallery} holds {gallery.store.count(Filter())} items")
        if counts["pending"]:
            print(f"{counts['pending']} wait for the search index, which is away, and will be found when it is back")
        if counts["other"] and arguments.update:
            print(f"{counts['other']} that were there before are updated")
        elif counts["other"]:
            print(f"of {counts['other']} there before something else is said here; --update takes it over")
    return 1 if counts["failed"] else 0


def main(argv: list[str] | None = None) -> int:
    """Run `reid-enrol`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-enrol",
        description="Put photos into a gallery. Those that are there already are skipped, so that it can be given "
        "again; files that cannot be used are named and skipped, and then the exit code is 1.",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="RUN",
        type=Path,
        required=True,
        help="a run folder, its model file, or its export",
    )
    parser.add_argument("--gallery", metavar="DIR", type=Path, required=True, help="made where it is not there")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add_arguments(parser)
    parser.add_argument("--update", action="store_true", help="label, camera and so on also for photos that are there")
    return cli.run(_command, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
