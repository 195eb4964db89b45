"""Photos of subjects that somebody searches for, kept for a while, so that a link shows the same search again."""

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from reid.data.images import UnknownFormat, UnusableImage
from service.gallery.decoders import Decoders
from service.gallery.pictures import sync
from service.gallery.rendering import Order, Rendered
from service.records import Box, Cause, NotFound, Region, UnusableBox
from service.storage.database import Database
from service.storage.folder import as_its_folder, make_folder_within
from service.storage.transaction import Transaction

SUBJECTS_FOLDER = "subjects"  # of a gallery
RECORD = "subject.json"
ABANDONED = timedelta(hours=1)  # after which a folder that is not whole is nobody's

Refusal = UnknownFormat | UnusableImage | UnusableBox
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of a subject: the name of its file, its size upright, and the box that is meant if not all of it."""

    name: str
    sha256: str
    width: int
    height: int
    box: Box | None


@dataclass(frozen=True, slots=True)
class Subject:
    """What somebody searches for; `cameras` are those that its sender sees, None for all."""

    subject_id: str
    cameras: frozenset[str] | None
    created_at: datetime
    expires_at: datetime
    photos: tuple[Photo, ...]


class Subjects:
    """A folder beside a gallery with the bytes that were sent; threads and processes may share it.

    It is no part of a backup. Methods raise OSError where the disk cannot be read or written.
    """

    def __init__(self, database: Database, decoders: Decoders) -> None:
        self._database = database
        self._folder = database.folder / SUBJECTS_FOLDER
        self._decoders = decoders

    def add(
        self,
        photos: Sequence[tuple[str, bytes, Box | None]],
        cameras: frozenset[str] | None,
        keep: timedelta,
        cause: Cause,
    ) -> tuple[Subject | None, dict[int, Refusal]]:
        """Keep photos by name, bytes and box, but for those that cannot be used, which are told by their places.

        There is no subject where none can. Raises as `Decoders.submit`.
        """
        taken: list[tuple[Photo, bytes]] = []
        refused: dict[int, Refusal] = {}
        for place, (name, data, box) in enumerate(photos):
            try:
                rendered = self._render(data, box, cause)
            except (UnknownFormat, UnusableImage, UnusableBox) as error:
                refused[place] = error
            else:
                sha256 = hashlib.sha256(data).hexdigest()
                taken.append((Photo(name, sha256, rendered.width, rendered.height, box), data))
        if not taken:
            return None, refused
        now = datetime.now(UTC)
        subject = Subject(uuid4().hex, cameras, now, now + keep, tuple(photo for photo, _ in taken))
        self._write(subject, [data for _, data in taken])
        with self._database.transaction() as connection:
            told = {"photos": len(taken), "expires_at": subject.expires_at.isoformat()}
            Transaction(connection, cause).log("subject.create", subject.subject_id, None, told)
        return subject, refused

    def get(self, subject_id: str) -> Subject:
        """The subject of a public id; raises NotFound, also for one whose time is over."""
        subject = _read(self._folder / subject_id) if _ID.fullmatch(subject_id) else None
        if subject is not None and datetime.now(UTC) < subject.expires_at:
            return subject
        raise NotFound(f"no subject {subject_id!r}: it was never there, or its time is over")

    def boxes(self, subject: Subject, others: Sequence[Box | None] | None) -> list[Box | None]:
        """The box of each photo, or others in their place; raises UnusableBox where these are not as many."""
        if others is None:
            return [photo.box for photo in subject.photos]
        if len(others) != len(subject.photos):
            raise UnusableBox(f"{len(others)} boxes for {len(subject.photos)} photos, expected one for each or none")
        return list(others)

    def data(self, subject: Subject) -> list[bytes]:
        """The bytes of its photos as they were sent; raises NotFound where they are gone by now."""
        try:
            return [self._file(subject, place).read_bytes() for place in range(len(subject.photos))]
        except FileNotFoundError:
            raise NotFound(f"no subject {subject.subject_id!r}: its time is over") from None

    def copy(self, subject: Subject, place: int, cause: Cause) -> bytes:
        """One of its photos as a file without metadata; raises NotFound."""
        if not 0 <= place < len(subject.photos):
            raise NotFound(f"no photo {place} of subject {subject.subject_id!r}, which has {len(subject.photos)}")
        copy = self._decoders.render(cause.actor, self.data(subject)[place], Order([], copy=True)).copy
        assert copy is not None
        return copy

    def delete(self, subject_id: str, cause: Cause) -> None:
        """Remove a subject before its time; raises NotFound."""
        self.get(subject_id)
        _remove(self._folder / subject_id)
        with self._database.transaction() as connection:
            Transaction(connection, cause).log("subject.delete", subject_id, {}, None)

    def prune(self, most_bytes: int) -> int:
        """Remove those whose time is over, and the oldest while all take more room; tell how many that were."""
        whole: list[tuple[datetime, Path]] = []
        gone, now = 0, datetime.now(UTC)
        for folder in _folders(self._folder):
            subject = _read(folder)
            if subject is None:  # on its way, unless it is old
                with suppress(FileNotFoundError):
                    if folder.stat().st_mtime < (now - ABANDONED).timestamp():
                        _remove(folder)
            elif subject.expires_at <= now:
                _remove(folder)
                gone += 1
            else:
                whole.append((subject.created_at, folder))
        room = 0
        for _, folder in sorted(whole, reverse=True):
            room += _size(folder)
            if room > most_bytes:
                _remove(folder)
                gone += 1
        return gone

    def _render(self, data: bytes, box: Box | None, cause: Cause) -> Rendered:
        """Have a photo, or the box in it, read as a query will; raises as that."""
        region = None if box is None else Region.around(*box)
        rendered = self._decoders.render(cause.actor, data, Order(["thumbnail"], [region]))
        (part,) = rendered.parts
        if isinstance(part, UnusableBox):
            raise part
        return rendered

    def _write(self, subject: Subject, files: Sequence[bytes]) -> None:
        make_folder_within(self._folder)
        unfinished = self._folder / f".{subject.subject_id}.tmp"
        try:
            make_folder_within(unfinished)
            named = {str(place): data for place, data in enumerate(files)}
            for name, data in {**named, RECORD: _written(subject)}.items():
                with open(unfinished / name, "xb", opener=as_its_folder) as file:
                    file.write(data)
                sync(unfinished / name)
            unfinished.rename(self._folder / subject.subject_id)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise OSError(f"{unfinished}: could not be written ({error.strerror}); nothing was kept") from error
        sync(self._folder)

    def _file(self, subject: Subject, place: int) -> Path:
        return self._folder / subject.subject_id / str(place)


def erase_subjects(gallery: Path, sha256s: Collection[str]) -> int:
    """Remove from the folder of a gallery the subjects with one of these photos, and tell how many."""
    wanted, gone = set(sha256s), 0
    for folder in _folders(gallery / SUBJECTS_FOLDER):
        subject = _read(folder)
        if subject is not None and wanted & {photo.sha256 for photo in subject.photos}:
            _remove(folder)
            gone += 1
    return gone


def _folders(subjects: Path) -> list[Path]:
    return [path for path in subjects.iterdir() if path.is_dir()] if subjects.exists() else []


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # another process may be at it


def _read(folder: Path) -> Subject | None:
    """The subject in a folder; None where there is none, or not all of it."""
    try:
        told: dict[str, Any] = json.loads((folder / RECORD).read_text())
    except FileNotFoundError:
        return None
    photos = tuple(Photo(**{**one, "box": None if one["box"] is None else tuple(one["box"])}) for one in told["photos"])
    created_at, expires_at = (datetime.fromisoformat(told[name]) for name in ("created_at", "expires_at"))
    cameras = None if told["cameras"] is None else frozenset(told["cameras"])
    return Subject(told["subject_id"], cameras, created_at, expires_at, photos)


def _written(subject: Subject) -> bytes:
    told = {
        **asdict(subject),
        "cameras": None if subject.cameras is None else sorted(subject.cameras),
        "created_at": subject.created_at.isoformat(),
        "expires_at": subject.expires_at.isoformat(),
    }
    return json.dumps(told).encode()


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:
        return 0
