"""A copy of each enrolled photo, kept for people and for a later re-index."""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from threading import Lock
from uuid import uuid4

from service.records import NotFound
from service.storage.folder import as_its_folder, make_folder_within

PICTURES_FOLDER = "pictures"  # of a gallery
PICTURES_LOCK = "pictures"  # of its database, for those who write a picture before its item or remove it after

ORPHANS = "orphans"  # in the folder of pictures: copies that no item has, by the day on which that was seen

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COPY = re.compile(r"(?P<sha256>[0-9a-f]{64})\.webp")
_LEFT_OVER = re.compile(r"\.[0-9a-f]{64}\.webp\.([0-9a-f]{32}\.)?tmp")  # of a `save` that was killed


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _written(path: Path) -> float:
    """When a file was written; that of one that is gone by now is never."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return inf


def _holds_bytes(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:  # not there, or it cannot be read
        return False


class Pictures:
    """A folder of copies of enrolled photos, each under the SHA-256 of the bytes that were sent; any thread may use it.

    The copies are what `copy_of` makes: the bytes that came less their metadata, or lossless, so that a re-index sees
    the very pixels that were enrolled. With ViT-Tiny on small photos of animals and things, JPEG of quality 95 moved
    embeddings by a cosine of 0.0003 to 0.0007 in the median, which changed 20 to 40 % of the first ten places of a
    ranking. A copy holds pixels only, and what decides their colours and how they lie: no other metadata, and nothing
    that was hidden behind the image.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is not there; raises OSError where it cannot be made."""
        self._folder = folder
        self._deleting = Lock()  # guards the two below
        self._keepers = 0
        self._unwanted: set[str] = set()
        self._durable: set[Path] = set()  # folders of copies whose names are on the disk, as far as is known
        make_folder_within(folder)

    def path(self, sha256: str) -> Path:
        """The file of a copy, there or not, which never changes; raises ValueError for what is no SHA-256.

        It is called .webp, as all once were, also where it is JPEG or PNG: its bytes say what it is.
        """
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"picture {sha256!r}: expected a SHA-256 of 64 hexadecimal digits in lower case")
        return self._folder / sha256[:2] / f"{sha256}.webp"

    def holds(self, sha256: str) -> bool:
        """Whether there is a copy, other than one that waits for its removal; errors as for `path`."""
        path = self.path(sha256)
        with self._deleting:
            return sha256 not in self._unwanted and path.exists()

    def sound(self, sha256: str, copy_sha256: str | None) -> bool:
        """Whether `holds`, and the copy is `intact`; errors as for `path`."""
        return self.holds(sha256) and self.intact(sha256, copy_sha256)

    def intact(self, sha256: str, copy_sha256: str | None) -> bool:
        """Whether a copy, even one that waits for its removal, is what was written, where its own SHA-256 is known."""
        try:
            return bool(self.read(sha256, copy_sha256))
        except (NotFound, OSError):  # a sector that cannot be read is as good as lost
            return False

    def make_folders(self, sha256s: Collection[str]) -> None:
        """Have the folders in which these copies lie, durable on return; raises OSError where one cannot be made."""
        # Also those that are there: another thread or process may have made one a moment ago.
        if new := {self.path(sha256).parent for sha256 in sha256s} - self._durable:
            for folder in new:
                make_folder_within(folder)
            sync(self._folder)
            sync(self._folder.parent)
            self._durable |= new

    def save(self, copies: Mapping[str, bytes]) -> None:
        """Keep copies as `copy_of` makes them, by the SHA-256 of their photos, durable on return.

        One that is there already and has other bytes is replaced: nobody knew it, or it is damaged. Raises
        ValueError for what is no SHA-256 and OSError, naming the file, when one cannot be written.
        """
        paths = {sha256: self.path(sha256) for sha256 in copies}
        with self._deleting:
            self._unwanted -= copies.keys()
        written: dict[Path, Path] = {}
        path = self._folder
        try:
            self.make_folders(copies)
            # Step by step for all: the first fsync of each step takes along what the next ones ask for.
            for sha256, path in paths.items():
                if not _holds_bytes(path, copies[sha256]):
                    written[path] = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
                    with open(written[path], "xb", opener=as_its_folder) as file:
                        file.write(copies[sha256])
            for path in written:
                sync(written[path])
            for path, temporary in written.items():
                temporary.replace(path)
            for path in {path.parent for path in paths.values()}:  # where another thread's copy may be as new
                sync(path)
        except OSError as error:
            raise OSError(f"{path}: could not be written ({error.strerror}); what was saved before is kept") from error
        finally:
            for temporary in written.values():
                temporary.unlink(missing_ok=True)

    def read(self, sha256: str, copy_sha256: str | None = None) -> bytes:
        """The file of a copy, as `copy_of` made it, whose own SHA-256 is `copy_sha256`, where that is known.

        Raises NotFound where there is none, or one with other bytes, and ValueError for what is no SHA-256.
        """
        try:
            data = self.path(sha256).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"picture {sha256}: no copy of it is kept; enrolling the photo again keeps one") from None
        if copy_sha256 is not None and hashlib.sha256(data).hexdigest() != copy_sha256:
            raise NotFound(f"picture {sha256}: the copy of it is damaged; enrolling the photo again mends it")
        return data

    def delete(self, sha256: str) -> None:
        """Remove a copy, while some are `kept` later; one that is not there is none. Errors as for `path`."""
        path = self.path(sha256)
        with self._deleting:
            if self._keepers:
                self._unwanted.add(sha256)
            else:
                path.unlink(missing_ok=True)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep all copies in place while the block runs, for a reader of many, such as a backup.

        The last of several blocks to end removes what was deleted meanwhile and not saved again. Where a kill comes
        first, `sweep` does. Raises OSError when a file cannot be removed.
        """
        with self._deleting:
            self._keepers += 1
        try:
            yield
        finally:
            with self._deleting:
                self._keepers -= 1
                while self._unwanted and not self._keepers:
                    self.path(self._unwanted.pop()).unlink(missing_ok=True)

    def sweep(
        self,
        known: Container[str],
        deletions: Callable[[Collection[str]], Mapping[str, datetime]],
        before: datetime | None = None,
    ) -> list[Path]:
        """Bring back `known` copies that were set aside, and set aside those that are not known by their SHA-256.

        Nothing is lost where a database is older than its pictures: a copy goes to `orphans`, to one of the paths that
        are returned, unless `deletions`, asked about all of them and all set aside before, says that it was to go after
        it was written. What a kill left half written goes too. What was written since a time `before` stays as it is,
        for a picture is saved before it is known.
        """
        limit = inf if before is None else before.timestamp()
        set_aside = self._bring_back(known)
        unknown = dict[str, Path]()
        for path in self._folder.glob("??/*"):
            copy = _COPY.fullmatch(path.name)
            if copy and copy["sha256"] not in known and _written(path) < limit:
                unknown[copy["sha256"]] = path
            elif _LEFT_OVER.fullmatch(path.name) and _written(path) < limit:
                path.unlink(missing_ok=True)
        deleted = deletions({path.stem for path in set_aside} | unknown.keys()) if set_aside or unknown else {}
        day = self._folder / ORPHANS / f"{datetime.now(UTC):%Y-%m-%d}"
        aside = list[Path]()
        for path in (*set_aside, *unknown.values()):
            if path.stem in deleted and path.stat().st_mtime <= deleted[path.stem].timestamp():
                path.unlink()
            elif path is unknown.get(path.stem):
                make_folder_within(day.parent)
                make_folder_within(day)
                aside.append(path.rename(day / path.name))
        return aside

    def remove_orphans(self, known: Container[str]) -> tuple[int, int]:
        """Remove for good what `sweep` set aside, and return how many copies that were, and their bytes.

        Those that are `known` again go back first.
        """
        found = self._bring_back(known)
        size = sum(path.stat().st_size for path in found)
        for path in found:
            path.unlink()
        for folder in (self._folder / ORPHANS).glob("*"):
            with suppress(OSError):  # something else is in it
                folder.rmdir()
        return len(found), size

    def _bring_back(self, known: Container[str]) -> list[Path]:
        """Bring back `known` copies that were set aside, unless they are there again; returns the others."""
        others = list[Path]()
        for path in (self._folder / ORPHANS).glob("*/*"):
            if not (copy := _COPY.fullmatch(path.name)):
                continue
            if copy["sha256"] not in known:
                others.append(path)
            elif (place := self.path(copy["sha256"])).exists():
                path.unlink()
            else:
                make_folder_within(place.parent)
                path.rename(place)
        return others
