"""What a gallery holds: items in its store, and beside it a picture of each."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from service.fields import Filter
from service.gallery.pictures import PICTURES_FOLDER, PICTURES_LOCK, Pictures
from service.records import Cause, Conflict, Enrolled, Item, NewItem
from service.storage.database import Database
from service.storage.store import Store

log = logging.getLogger("reid")


class Holdings:
    """The items of a gallery with their pictures, added and removed together; threads and processes may share them.

    A picture is written before its item and removed after it. Whoever does so holds a lock, so that nobody removes what
    is about to be referred to.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.store = Store(database)
        self.pictures = Pictures(database.folder / PICTURES_FOLDER)

    @contextmanager
    def saved(self, copies: Mapping[str, bytes]) -> Iterator[None]:
        """Save copies by their SHA-256, and at the end remove those of which the block has made no items.

        Raises as `Pictures.save`.
        """
        try:
            self.pictures.save(copies)
            yield
        finally:
            with self._database.exclusive(PICTURES_LOCK):
                self._remove_unused(copies)

    def add(
        self, photos: Sequence[NewItem], copies: Mapping[str, bytes], cause: Cause, model_id: str
    ) -> list[Enrolled | Conflict]:
        """Add photos, whose copies are `saved`, as `Store.enrol` does."""
        sha256s = {photo.medium.sha256 for photo in photos}
        with self._database.exclusive(PICTURES_LOCK):
            # Some may have been deleted meanwhile, with an item of the same photo.
            self.pictures.save({sha256: copies[sha256] for sha256 in sha256s if not self.pictures.holds(sha256)})
            return self.store.enrol(photos, cause, model_id)

    def delete(self, item_ids: Collection[str], cause: Cause) -> list[Item]:
        """Remove items and their pictures, and return them as they were."""
        with self._database.exclusive(PICTURES_LOCK):
            return self._without_pictures(self.store.delete(item_ids, cause))

    def delete_matching(self, chosen: Filter, expected: int, cause: Cause) -> list[Item]:
        """Remove the items that pass a filter and their pictures, as `Store.delete_matching` does."""
        with self._database.exclusive(PICTURES_LOCK):
            return self._without_pictures(self.store.delete_matching(chosen, expected, cause))

    def sweep(self) -> None:
        """Set aside pictures that belong to no item, as an older database that was put back leaves them.

        Those whose item was deleted, by a process that was killed then, are removed.
        """
        with self._database.exclusive(PICTURES_LOCK):
            aside = self.pictures.sweep(self.store.contents(), self.store.deletions)
        if aside:
            log.warning(
                "warning: %d pictures in %s belong to no item: they come back with their items, and reid-gallery sweep "
                "removes them",
                len(aside),
                aside[0].parent,
            )

    def _without_pictures(self, gone: list[Item]) -> list[Item]:
        self._remove_unused({item.medium.sha256 for item in gone})
        return gone

    def _remove_unused(self, sha256s: Collection[str]) -> None:
        for sha256 in set(sha256s) - self.store.contents(sha256s):
            self.pictures.delete(sha256)
