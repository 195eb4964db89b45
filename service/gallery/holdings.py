"""What a gallery holds: items in its store, and beside it a picture of each."""

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime

from service.fields import Filter
from service.gallery.pictures import PICTURES_FOLDER, PICTURES_LOCK, Pictures
from service.gallery.space import Space
from service.gallery.thumbnails import THUMBNAILS_FOLDER, Thumbnails
from service.records import Cause, Conflict, Crop, Enrolled, Item, NewItem, UnusableText
from service.storage.database import Database
from service.storage.store import Store
from service.storage.tombstones import Tombstones

log = logging.getLogger("reid")


class Holdings:
    """The items of a gallery with their pictures, added and removed together; threads and processes may share them.

    A picture is written before its item and removed after it. Whoever does so holds a lock, so that nobody removes what
    is about to be referred to.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.store, self.tombstones = Store(database), Tombstones(database)
        self.pictures = Pictures(database.folder / PICTURES_FOLDER)
        self.space = Space(database.folder)
        self.thumbnails = Thumbnails(database.folder / THUMBNAILS_FOLDER)

    @contextmanager
    def saved(self, copies: Mapping[str, bytes]) -> Iterator[None]:
        """Save copies by the SHA-256 of their photos, and at the end remove those of which there are no items then.

        Those of photos that are there already are put back where they are lost or damaged. Raises as `Pictures.save`.
        """
        try:
            self.pictures.save(self._lacking(copies))
            yield
        finally:
            with self._database.exclusive(PICTURES_LOCK):
                self._remove_unused(copies)

    def add(
        self, photos: Sequence[NewItem], copies: Mapping[str, bytes], cause: Cause, model_id: str
    ) -> list[Enrolled | Conflict | UnusableText]:
        """Add photos, whose copies are `saved`, as `Store.enrol` does; `copies` may be of other photos, too."""
        checksums = {sha256: hashlib.sha256(data).hexdigest() for sha256, data in copies.items()}
        new = [_with_checksum(photo, checksums[photo.medium.sha256]) for photo in photos]
        with self._database.exclusive(PICTURES_LOCK):
            # Some may have been deleted meanwhile, with an item of the same photo.
            lacking = self._lacking(copies)
            self.pictures.save(lacking)
            self.store.keep_checksums({sha256: checksums[sha256] for sha256 in lacking})
            return self.store.enrol(new, cause, model_id)

    def lacking(self, items: Iterable[Item]) -> set[str]:
        """The SHA-256 of those photos of items of which no sound copy is kept."""
        media = {item.medium.sha256: item.medium for item in items}
        return {sha256 for sha256, medium in media.items() if not self.pictures.sound(sha256, medium.copy_sha256)}

    def delete(self, item_ids: Collection[str], cause: Cause) -> list[Item]:
        """Remove items and their pictures, and return them as they were; a full disk does not keep them."""
        return self._delete(lambda: self.store.delete(item_ids, cause))

    def delete_matching(self, chosen: Filter, expected: int, cause: Cause) -> list[Item]:
        """Remove the items that pass a filter and their pictures, as `Store.delete_matching` does."""
        return self._delete(lambda: self.store.delete_matching(chosen, expected, cause))

    def sweep(self, before: datetime) -> None:
        """Set aside pictures that belong to no item, as an older database that was put back leaves them.

        Those whose item was deleted, by a process that was killed then, are removed, and so are thumbnails. What was
        written since a time `before` stays: it may be on its way in.
        """
        with self._database.exclusive(PICTURES_LOCK):
            known = self.store.contents()
            aside = self.pictures.sweep(known, self.tombstones.of_photos, before)
            self.thumbnails.sweep(known)
        if aside:
            log.warning(
                "warning: %d pictures in %s belong to no item: they come back with their items, and reid-gallery sweep "
                "removes them",
                len(aside),
                aside[0].parent,
            )

    def _lacking(self, copies: Mapping[str, bytes]) -> dict[str, bytes]:
        """Those copies of which no sound one is kept, or that are of no photo yet."""
        known = self.store.checksums(copies)
        return {
            sha256: data
            for sha256, data in copies.items()
            if sha256 not in known or not self.pictures.sound(sha256, known[sha256])
        }

    def keep_thumbnails(self, made: Mapping[Crop, bytes]) -> None:
        """Keep thumbnails of what items show, but for items that were deleted meanwhile."""
        with self._database.exclusive(PICTURES_LOCK):
            there = {item.crop for item in self.store.by_crop(made).values()}
            self.thumbnails.keep({crop: data for crop, data in made.items() if crop in there})

    def _delete(self, delete: Callable[[], list[Item]]) -> list[Item]:
        """Have the store delete, in the room that is kept back if it must be, and remove the pictures."""
        with self._database.exclusive(PICTURES_LOCK), ExitStack() as spent:
            try:
                gone = delete()
            except OSError:
                if not self.space.spend():
                    raise
                spent.callback(self.space.take_back)
                gone = delete()
            self.thumbnails.delete(item.crop for item in gone)
            self._remove_unused({item.medium.sha256 for item in gone})
            self.space.refill()
            return gone

    def _remove_unused(self, sha256s: Collection[str]) -> None:
        for sha256 in set(sha256s) - self.store.contents(sha256s):
            self.pictures.delete(sha256)


def _with_checksum(photo: NewItem, copy_sha256: str) -> NewItem:
    return replace(photo, medium=replace(photo.medium, copy_sha256=copy_sha256))
