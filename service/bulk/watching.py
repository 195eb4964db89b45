"""Folders that are watched: what is finished being written there is enrolled, once, also over restarts."""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from reid.names import counted
from service.bulk.enrolling import BATCH, enrol, told
from service.bulk.sources import Photo, Source
from service.gallery.batcher import Busy, Closed
from service.gallery.gallery import Gallery
from service.records import ANY_CAMERA, Cameras, IndexUnavailable, ModelMismatch

log = logging.getLogger("reid")

SECONDS_BETWEEN_LOOKS = 5.0
SECONDS_SETTLED = 5.0  # in which a file does not change before it counts as written
AT_ONCE = 8 * BATCH  # photos between two looks, so that no look is long away


class _Seen(NamedTuple):
    """A file as it was when it was last looked at, and since when."""

    size: int
    changed: int
    since: float


class Watched:
    """The photos of some sources, each of which is `new` once: when its file has not changed for a while.

    What is known of files is kept in memory alone. After a restart all are new again, which costs their reading: those
    that are in the gallery stay as they are, and those that were deleted from it stay out.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._troubles: dict[str, str] = {}  # what was said of the sources last
        self._seen: dict[str, _Seen] = {}
        self._done: dict[str, tuple[int, int]] = {}

    def new(self, now: float) -> list[Photo]:
        """The photos that are written by now, in seconds that only rise, and not `done`."""
        photos, there = [], set[str]()
        for photo in self._found():
            name = f"{photo.path}\0{photo}"
            try:
                state = os.stat(photo.path)
            except OSError:  # gone in the meantime
                continue
            there.add(name)
            size, changed = state.st_size, state.st_mtime_ns
            if self._done.get(name) == (size, changed):
                continue
            seen = self._seen.get(name)
            if seen is None or (seen.size, seen.changed) != (size, changed):
                self._seen[name] = _Seen(size, changed, now)
            elif now - seen.since >= SECONDS_SETTLED:
                photos.append(photo)
        self._seen = {name: seen for name, seen in self._seen.items() if name in there}
        self._done = {name: done for name, done in self._done.items() if name in there}
        return photos

    def done(self, photos: Sequence[Photo]) -> None:
        """Take it that these were enrolled, or refused, as they were seen."""
        for photo in photos:
            name = f"{photo.path}\0{photo}"
            if seen := self._seen.pop(name, None):
                self._done[name] = (seen.size, seen.changed)

    def _found(self) -> list[Photo]:
        found, troubles = list[Photo](), dict[str, str]()
        for source in self._sources:
            try:
                found += source.photos()
            except (OSError, ValueError) as error:  # none yet, or the disk is away
                troubles[str(source)] = str(error)
                if self._troubles.get(str(source)) != str(error):
                    log.warning("warning: watching: %s", error)
        self._troubles = troubles
        return found


def watch(
    gallery: Gallery,
    sources: Sequence[Source],
    stop: threading.Event,
    *,
    cameras: Cameras = ANY_CAMERA,
    clock: Callable[[], float] = time.monotonic,
    told_of: Callable[[Counter[str]], None] = lambda counts: log.info("watching: %s", told(counts)),
) -> None:
    """Enrol what comes to be written in some folders until `stop` is set.

    What the gallery cannot take now, for too much else to do or a disk that is full, is tried again; a file that cannot
    be used is named once, until it changes.
    """
    watched = Watched(sources)
    trouble = ""
    while True:
        new = watched.new(clock())
        for start in range(0, len(new), AT_ONCE):
            part = new[start : start + AT_ONCE]
            if stop.is_set():
                return
            try:
                counts = enrol(gallery, part, cameras=cameras)
            except (Busy, Closed, CancelledError, IndexUnavailable, ModelMismatch, OSError) as error:
                if str(error) != trouble:
                    log.warning("warning: watching: %s; what comes meanwhile is enrolled later", error)
                trouble = str(error)
                break
            except Exception:  # a fault, which shall not end the watching for good
                log.exception("watching: %s tried again later", counted(len(part), "file is", "files are"))
                break
            trouble = ""
            watched.done(part)
            if counts["created"] or counts["failed"]:
                told_of(counts)
        if stop.wait(SECONDS_BETWEEN_LOOKS):
            return


class Watcher:
    """A thread that watches folders for a service, until it is closed."""

    def __init__(self, gallery: Gallery, sources: Sequence[Source]) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=watch, args=(gallery, sources, self._stop), name="watching")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def require_folders(folders: Sequence[Path]) -> None:
    """Raise NotADirectoryError for what cannot be watched."""
    for folder in folders:
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder}: no such folder, which could be watched")
