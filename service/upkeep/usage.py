"""What a gallery takes of its disk, part by part, and how much is left."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from service.gallery.gallery import Gallery
from service.gallery.imports import IMPORTS_FOLDER
from service.gallery.kept_rows import FILE as ROWS_FILE
from service.gallery.pictures import PICTURES_FOLDER
from service.gallery.subjects import SUBJECTS_FOLDER
from service.gallery.thumbnails import THUMBNAILS_FOLDER
from service.storage.folder import GALLERY_FILE
from service.storage.sizes import bytes_of_log, bytes_of_vectors, photos
from service.storage.tables import operations, queries

PartName = Literal["pictures", "thumbnails", "database", "index", "subjects", "imports", "backups", "other"]

ROWS_PREFIX = ROWS_FILE.partition("{")[0]
FOLDERS: dict[str, PartName] = {
    PICTURES_FOLDER: "pictures",
    THUMBNAILS_FOLDER: "thumbnails",
    SUBJECTS_FOLDER: "subjects",
    IMPORTS_FOLDER: "imports",
}
GROWING: tuple[PartName, ...] = ("pictures", "thumbnails", "database", "index")  # with the photos


class Part(NamedTuple):
    """The files of one kind; what a backup shares with the gallery counts in the gallery alone."""

    name: PartName
    files: int
    bytes: int


class Usage(NamedTuple):
    """Bytes of a disk, and of a gallery on it.

    `trouble` says in words that there is little room; `room_for` is how many more photos of the size of those there fit
    (None without any). `vectors`, `changes` and `queries` are about what these take of the database, wherever it is.
    """

    free: int
    total: int
    trouble: str | None
    room_for: int | None
    parts: tuple[Part, ...]
    vectors: int
    changes: int
    queries: int


def usage(gallery: Gallery, backups: Path) -> Usage:
    """What there is now; it looks at every file, which takes seconds where there are millions.

    Raises OSError where the disk or the database cannot be read.
    """
    space = gallery.holdings.space
    found: dict[PartName, list[int]] = {name: [0, 0] for name in get_args(PartName)}
    seen: set[tuple[int, int]] = set()
    for name, file in _files(gallery.folder, backups):
        known = (file.st_dev, file.st_ino)
        if file.st_nlink > 1 and known in seen:
            continue
        seen.update([known] if file.st_nlink > 1 else ())
        found[name][0] += 1
        found[name][1] += file.st_size
    kept = photos(gallery.database)
    grows = sum(found[name][1] for name in GROWING)
    return Usage(
        space.free,
        space.total,
        space.low,
        space.free * kept // grows if kept and grows else None,
        tuple(Part(name, *numbers) for name, numbers in found.items()),
        bytes_of_vectors(gallery.database),
        bytes_of_log(gallery.database, operations),
        bytes_of_log(gallery.database, queries),
    )


def _files(folder: Path, backups: Path) -> Iterator[tuple[PartName, os.stat_result]]:
    """The files of a gallery by the part that they belong to, those of its backups last."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.path) == backups:
                continue
            if entry.is_dir(follow_symlinks=False):
                part = FOLDERS.get(entry.name, "other")
                yield from ((part, file) for file in _within(entry.path))
            else:
                with suppress(FileNotFoundError):
                    yield _part_of(entry.name), entry.stat(follow_symlinks=False)
    yield from (("backups", file) for file in _within(str(backups)))


def _part_of(name: str) -> PartName:
    if name.startswith(GALLERY_FILE):  # and what SQLite has beside it
        return "database"
    return "index" if name.startswith(ROWS_PREFIX) else "other"


def _within(folder: str) -> Iterator[os.stat_result]:
    """The files below a folder; what goes meanwhile, or is not there, is none."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _within(entry.path)
            else:
                with suppress(FileNotFoundError):
                    yield entry.stat(follow_symlinks=False)
