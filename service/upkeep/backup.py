"""Backups of a gallery, each a folder that can be served in its place."""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, func, select, text, update

from reid.names import counted
from service.gallery.pictures import PICTURES_FOLDER, PICTURES_LOCK, Pictures, sync
from service.gallery.thumbnails import THUMBNAILS_FOLDER
from service.records import Job
from service.storage.copying import TABLES
from service.storage.database import Database
from service.storage.folder import GALLERY_FILE, make_folder, make_folder_within
from service.storage.jobs import cancel_all
from service.storage.tables import gallery, indexes, items, media
from service.upkeep.jobs import Progress, Work

PICTURES_AT_ONCE = 1000
MARK = "INCOMPLETE"  # in a backup that lacks pictures

log = logging.getLogger("reid")

# A hard link is not to be had: another disk, a file system without links, too many links.
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}


def backup_work(database: Database, pictures: Pictures, backups: Path) -> Work:
    """The work of jobs of the kind `backup`: write the gallery to a folder of `backups` with the time in its name.

    A `dry_run` tells what that would write.
    """

    def work(job: Job, progress: Progress) -> dict[str, Any]:
        if job.parameters.get("dry_run"):
            return weigh(database, pictures, backups, progress)
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

    Pictures that are lost or damaged are left out, and then the folder has a file INCOMPLETE that names their items.
    The result is `folder`, its name, the number of `items` and `bytes` in it, and the public ids of items whose picture
    is `missing`. Raises FileExistsError for a folder that is there, OSError when it cannot be written, and ValueError
    for a gallery whose database is damaged.
    """
    if folder.exists():
        raise FileExistsError(f"{folder}: is there already; expected a new folder")
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        make_folder(partial)
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
                checksums = dict(copy.read(select(media.c.sha256, media.c.copy_sha256).order_by(media.c.sha256)))
                sha256s = list(checksums)
            kept = Pictures(partial / PICTURES_FOLDER)
            _link_all(pictures, kept, checksums, lambda done: progress(steps + done, steps + len(sha256s)))
            _link_thumbnails(database.folder, partial, set(sha256s))
        result = _checked(partial)
        if missing := result["missing"]:
            log.warning("warning: the backup lacks the pictures of %s, as %s says", counted(len(missing), "item"), MARK)
            (partial / MARK).write_text("\n".join(["items without picture:", *missing, ""]))
            sync(partial / MARK)
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


def weigh(database: Database, pictures: Pictures, backups: Path, progress: Progress) -> dict[str, Any]:
    """What `back_up` into a folder of `backups` would write: `bytes`, of which so many are `free` there.

    Pictures count where they would be copied for want of a link. The result has the number of `items`, too, whether it
    all `fits`, and the public ids of items whose picture is `missing`; damage is found by the backup itself.
    """
    there = next(folder for folder in (backups, *backups.absolute().parents) if folder.exists())
    copied = there.stat().st_dev != database.folder.stat().st_dev
    size = sum(path.stat().st_size for path in database.folder.glob(f"{GALLERY_FILE}*"))
    of_items = _sha256s(database)
    missing = []
    for done, (item_id, sha256) in enumerate(of_items.items()):
        if done % PICTURES_AT_ONCE == 0:
            progress(done, len(of_items))
        try:
            picture = pictures.path(sha256).stat().st_size
        except FileNotFoundError:
            missing.append(item_id)
        else:
            size += picture if copied else 0
    free = shutil.disk_usage(there).free
    told = {"items": len(of_items), "bytes": size, "free": free, "fits": size < free, "missing": missing}
    return {"dry_run": True, **told}


def restore(source: Database, target: Database, progress: Progress) -> int:
    """Write a backup, or another gallery in a file that nobody changes meanwhile, to a gallery that is empty.

    Each is then a gallery of its own, with an id of its own; jobs are not taken over. Pictures are linked to, or copied
    where that cannot be. Items whose pictures the source lacks are logged. After a kill it can be called again. Returns
    the number of items. Raises ValueError where the target is not empty, or the source's database damaged, and OSError
    where the target cannot be written.
    """
    _require_sound(source)
    if missing := _missing(source):
        log.warning("warning: no pictures of %s: %s", counted(len(missing), "item"), ", ".join(missing))
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
        checksums = dict(source.read(select(media.c.sha256, media.c.copy_sha256).order_by(media.c.sha256)))
        _link_all(pictures, kept, checksums, lambda done: progress(done, len(sha256s) + rows))
        _link_thumbnails(source.folder, target.folder, set(sha256s))
        for folder in {kept.path(sha256).parent for sha256 in sha256s}:
            sync(folder)
        with target.transaction() as connection:
            target.fill(connection, source, progress_of_rows)
            cancel_all(connection)
    return len(of_items)


def _checked(folder: Path) -> dict[str, Any]:
    """The size of a backup, and the items whose pictures it lacks; raises ValueError for one that is damaged."""
    with Database(folder) as database:
        _require_sound(database)
        missing = _missing(database)
        items = len(_sha256s(database))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"folder": folder.name, "items": items, "bytes": size, "missing": missing}


def _require_sound(database: Database) -> None:
    """Raise ValueError for a gallery in a file that is damaged."""
    (found, *_), *_ = database.read(text("PRAGMA integrity_check"))
    if found != "ok":
        raise ValueError(f"{database.folder}: the gallery is damaged ({found})")


def _missing(database: Database) -> list[str]:
    """The public ids of the items of a gallery whose pictures are not there."""
    pictures = Pictures(database.folder / PICTURES_FOLDER)
    return [item_id for item_id, sha256 in _sha256s(database).items() if not pictures.path(sha256).exists()]


def _sha256s(database: Database) -> dict[str, str]:
    """The pictures of a gallery, by the public id of their item."""
    return dict(database.read(select(items.c.item_id, media.c.sha256).join_from(items, media)))


def _link_all(
    source: Pictures, target: Pictures, checksums: Mapping[str, str | None], progress: Callable[[int], None]
) -> None:
    """Link to pictures, which is safe since their files are never written to again, or copy them.

    Those that are lost, or have another checksum, are left out.
    """
    target.make_folders(checksums)
    for done, (sha256, checksum) in enumerate(checksums.items()):
        if done % PICTURES_AT_ONCE == 0:
            progress(done)
        with suppress(FileNotFoundError, FileExistsError):
            if source.intact(sha256, checksum):
                _link(source.path(sha256), target.path(sha256))


def _link_thumbnails(source: Path, target: Path, sha256s: Container[str]) -> None:
    """Have the thumbnails of these photos, so far as they are there: others are made when they are wanted."""
    for path in (source / THUMBNAILS_FOLDER).glob("??/*.jpg"):
        if path.name[:64] in sha256s:
            linked = target / path.relative_to(source)
            make_folder_within(linked.parent.parent)
            make_folder_within(linked.parent)
            with suppress(FileNotFoundError, FileExistsError):
                _link(path, linked)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        unfinished = target.with_name(f".{target.name}.{uuid4().hex}.tmp")  # as `Pictures.sweep` knows it
        try:
            shutil.copyfile(source, unfinished)
            shutil.copymode(source, unfinished)
            sync(unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
