"""Backups of a gallery, each a folder that can be served in its place."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, func, select, text, update

from service.gallery.pictures import PICTURES_FOLDER, PICTURES_LOCK, Pictures, sync
from service.records import Job
from service.storage.copying import TABLES
from service.storage.database import Database
from service.storage.folder import GALLERY_FILE
from service.storage.jobs import cancel_all
from service.storage.tables import gallery, indexes, items, media
from service.upkeep.jobs import Progress, Work

PICTURES_AT_ONCE = 1000
NAMED = 5  # items in an error

# A hard link is not to be had: another disk, a file system without links, too many links.
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}


def backup_work(database: Database, pictures: Pictures, backups: Path) -> Work:
    """The work of jobs of the kind `backup`: write the gallery to a folder of `backups` with the time in its name."""

    def work(job: Job, progress: Progress) -> dict[str, Any]:
        folder = backups / f"{job.created_at:%Y%m%dT%H%M%SZ}-{job.job_id}"
        if folder.exists():  # whole, since it has its name; a kill kept the job from saying so
            return _checked(folder)
        return back_up(database, pictures, folder, progress)

    return work


def back_up(database: Database, pictures: Pictures, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the gallery, as it is at one moment, to a new folder while others change it; tell its size.

    It is in SQLite, also where the gallery is on a server, and has an id of its own, so that the two never share the
    index of a search engine. The folder has its name when all is on the disk and checked. Before, it is called
    NAME.partial and is removed when something goes wrong; a kill leaves it to be written anew. Pictures are linked to,
    or copied where that cannot be.

    The result is `folder`, its name, and the number of `items` and `bytes` in it. Raises FileExistsError for a folder
    that is there, OSError when it cannot be written, and ValueError for a gallery that is damaged or lacks pictures.
    """
    if folder.exists():
        raise FileExistsError(f"{folder}: is there already; expected a new folder")
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        with pictures.kept():
            ((expected,),) = database.read(select(func.count()).select_from(media))
            steps = 0

            def copied(done: int, total: int) -> None:
                nonlocal steps
                steps = total
                progress(done, total + expected)

            database.copy(partial / GALLERY_FILE, copied)
            with Database(partial) as copy:
                with copy.transaction() as connection:
                    cancel_all(connection)
                    connection.execute(update(gallery).values(gallery_id=uuid4().hex))
                    connection.execute(delete(indexes))
                sha256s = sorted(set(_sha256s(copy).values()))
            kept = Pictures(partial / PICTURES_FOLDER)
            _link_all(pictures, kept, sha256s, lambda done: progress(steps + done, steps + len(sha256s)))
        result = _checked(partial)
        for path in [partial, *partial.rglob("*")]:
            if path.is_dir():
                sync(path)
        progress(steps + len(sha256s), steps + len(sha256s))
        partial.rename(folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return {**result, "folder": folder.name}


def restore(source: Database, target: Database, progress: Progress) -> int:
    """Write a backup, or another gallery in a file that nobody changes meanwhile, to a gallery that is empty.

    Each is then a gallery of its own, with an id of its own; jobs are not taken over. Pictures are linked to, or copied
    where that cannot be. After a kill it can be called again. Returns the number of items. Raises ValueError where the
    target is not empty, or the source damaged or lacking pictures, and OSError where the target cannot be written.
    """
    _require_sound(source)
    of_items = _sha256s(source)
    sha256s = sorted(set(of_items.values()))
    rows = sum(source.read(select(func.count()).select_from(table))[0][0] for table in TABLES)

    def progress_of_rows(done: int, _: int) -> None:
        progress(len(sha256s) + done, len(sha256s) + rows)

    with target.exclusive(PICTURES_LOCK):  # a service that starts would sweep away pictures without item
        with target.transaction() as connection:
            target.require_empty(connection)
        kept = Pictures(target.folder / PICTURES_FOLDER)
        pictures = Pictures(source.folder / PICTURES_FOLDER)
        _link_all(pictures, kept, sha256s, lambda done: progress(done, len(sha256s) + rows))
        for folder in {kept.path(sha256).parent for sha256 in sha256s}:
            sync(folder)
        with target.transaction() as connection:
            target.fill(connection, source, progress_of_rows)
            cancel_all(connection)
    return len(of_items)


def _checked(folder: Path) -> dict[str, Any]:
    """The size of a backup that holds all it should; raises ValueError for another."""
    with Database(folder) as database:
        _require_sound(database)
        items = len(_sha256s(database))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"folder": folder.name, "items": items, "bytes": size}


def _require_sound(database: Database) -> None:
    """Raise ValueError for a gallery in a file that is damaged or lacks pictures."""
    (found, *_), *_ = database.read(text("PRAGMA integrity_check"))
    if found != "ok":
        raise ValueError(f"{database.folder}: the gallery is damaged ({found})")
    pictures = Pictures(database.folder / PICTURES_FOLDER)
    if lost := [item_id for item_id, sha256 in _sha256s(database).items() if not pictures.path(sha256).exists()]:
        first = ", ".join(lost[:NAMED]) + (", ..." if len(lost) > NAMED else "")
        raise ValueError(f"{len(lost)} items have no picture: {first}")


def _sha256s(database: Database) -> dict[str, str]:
    """The pictures of a gallery, by the public id of their item."""
    return dict(database.read(select(items.c.item_id, media.c.sha256).join_from(items, media)))


def _link_all(source: Pictures, target: Pictures, sha256s: Sequence[str], progress: Callable[[int], None]) -> None:
    """Link to pictures, which is safe since their files are never written to again, or copy them.

    Those that are lost are left out, for `_require_sound` tells of all of them.
    """
    target.make_folders(sha256s)
    for done, sha256 in enumerate(sha256s):
        if done % PICTURES_AT_ONCE == 0:
            progress(done)
        with suppress(FileNotFoundError, FileExistsError):
            _link(source.path(sha256), target.path(sha256))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        unfinished = target.with_name(f".{target.name}.{uuid4().hex}.tmp")  # as `Pictures.sweep` knows it
        try:
            shutil.copyfile(source, unfinished)
            sync(unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
