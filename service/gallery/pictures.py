"""A copy of each enrolled photo, kept for people and for a later re-index."""

import io
import os
import re
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Semaphore
from uuid import uuid4

from PIL import Image

from reid.data.images import decode
from service.gallery.copies import lossless
from service.records import Item, NotFound, Region

PICTURES_FOLDER = "pictures"  # of a gallery
PICTURES_LOCK = "pictures"  # of its database, for those who write a picture before its item or remove it after

ORPHANS = "orphans"  # in the folder of pictures: copies that no item has, by the day on which that was seen

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COPY = re.compile(r"(?P<sha256>[0-9a-f]{64})\.webp")
_LEFT_OVER = re.compile(r"\.[0-9a-f]{64}\.webp\.([0-9a-f]{32}\.)?tmp")  # of a `save` that was killed


def cut(image: Image.Image, region: Region | None) -> Image.Image:
    """What a region shows of an upright picture, the whole of it without one; raises UnusableBox."""
    if region is None:
        return image
    region.require_inside(*image.size)
    return image.crop((region.x, region.y, region.x + region.w, region.y + region.h))


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


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
        # A photo of 50 megapixels takes 700 MiB until it is cut or small: no more at a time than processors.
        self._shrinking = Semaphore(os.cpu_count() or 1)
        self._durable: set[Path] = set()  # folders of copies whose names are on the disk, as far as is known
        folder.mkdir(parents=True, exist_ok=True)

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

    def make_folders(self, sha256s: Collection[str]) -> None:
        """Have the folders in which these copies lie, durable on return; raises OSError where one cannot be made."""
        # Also those that are there: another thread or process may have made one a moment ago.
        if new := {self.path(sha256).parent for sha256 in sha256s} - self._durable:
            for folder in new:
                folder.mkdir(exist_ok=True)
            sync(self._folder)
            sync(self._folder.parent)
            self._durable |= new

    def save(self, copies: Mapping[str, bytes]) -> None:
        """Keep copies as `copy_of` makes them, by their SHA-256, durable on return; those that are there already stay.

        Raises ValueError for what is no SHA-256 and OSError, naming the file, when one cannot be written.
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
                if not path.exists():
                    written[path] = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
                    written[path].write_bytes(copies[sha256])
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

    def read(self, sha256: str) -> bytes:
        """The file of a copy, as `copy_of` made it.

        Raises NotFound where there is none and ValueError for what is no SHA-256.
        """
        try:
            return self.path(sha256).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"picture {sha256}: no copy of it is kept") from None

    def crop(self, item: Item, *, profiles: bool = True) -> Image.Image:
        """What an item shows: with the `profiles` of its model, the very pixels that were embedded at first.

        Raises as `read` and `decode`.
        """
        return cut(decode(self.read(item.medium.sha256), profiles=profiles), item.region)

    def picture(self, item: Item) -> bytes:
        """What an item shows as a file that `lossless` makes; errors as for `crop`."""
        with self._shrinking:
            return lossless(self.crop(item, profiles=False))

    def thumbnail(self, item: Item, side: int = 256) -> bytes:
        """The crop of an item as a JPEG file of at most `side` x `side` pixels, never enlarged; errors as for `crop`.

        Made anew each time: 2 ms for a photo of one subject, 0.5 s for one of 12 megapixels.
        """
        written = io.BytesIO()
        with self._shrinking:
            image = self.crop(item)
            image.thumbnail((side, side))
            image.save(written, "JPEG", quality=85)
        return written.getvalue()

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
        self, known: Container[str], deletions: Callable[[Collection[str]], Mapping[str, datetime]]
    ) -> list[Path]:
        """Bring back `known` copies that were set aside, and set aside those that are not known by their SHA-256.

        Nothing is lost where a database is older than its pictures: a copy goes to `orphans`, to one of the paths that
        are returned, unless `deletions`, asked about all of them and all set aside before, says that it was to go after
        it was written. What a kill left half written goes too. For the start of a service, before anything is saved: a
        picture is saved before it is known.
        """
        before = self._bring_back(known)
        unknown = dict[str, Path]()
        for path in self._folder.glob("??/*"):
            copy = _COPY.fullmatch(path.name)
            if copy and copy["sha256"] not in known:
                unknown[copy["sha256"]] = path
            elif _LEFT_OVER.fullmatch(path.name):
                path.unlink(missing_ok=True)  # another process may have just made a copy of it
        deleted = deletions({path.stem for path in before} | unknown.keys()) if before or unknown else {}
        day = self._folder / ORPHANS / f"{datetime.now(UTC):%Y-%m-%d}"
        aside = list[Path]()
        for path in (*before, *unknown.values()):
            if path.stem in deleted and path.stat().st_mtime <= deleted[path.stem].timestamp():
                path.unlink()
            elif path is unknown.get(path.stem):
                day.mkdir(parents=True, exist_ok=True)
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
                place.parent.mkdir(exist_ok=True)
                path.rename(place)
        return others
