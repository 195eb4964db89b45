"""What finds the items of a gallery: a search engine that follows the store by its operation log.

An index is of one space. All that is committed to the store is in its log, in that order. An index knows up to which
entry its engine has followed, and goes on from there after whatever cut it short: rows are read from the store as they
are by then, and an engine may be given them twice.
"""

import hashlib
import logging
from collections.abc import Callable, Collection
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from service.engines.inputs import UNIT_TOLERANCE
from service.engines.protocol import SearchEngine, ServerEngine
from service.engines.snapshot import Damaged
from service.fields import FIELDS, Filter
from service.gallery.kept_rows import KeptEngine, KeptRows
from service.gallery.space import free_memory
from service.records import (
    APPEARANCE,
    Found,
    IndexLost,
    IndexUnavailable,
    MilvusIndex,
    Row,
    Vectors,
)
from service.storage.database import Database
from service.storage.indexes import Indexes, Place
from service.storage.inspection import DamagedDatabase
from service.storage.models import Models
from service.storage.store import ROWS_AT_ONCE, Store

log = logging.getLogger("reid")

Result = TypeVar("Result")

LOCK, LOCK_SECONDS = "index", 5.0  # no longer, for queries wait too
PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds
LOCAL_PAUSE = 5.0
SAMPLE, GROWN = 64, 2  # rows by which the recall is measured, again when there are so many times as many


class Differences(NamedTuple):
    """Of so many rows of the store, those that an engine lacks and has wrong, and those that it alone has."""

    rows: int
    missing: int
    ghosts: int
    wrong: int


class Index(Protocol):
    """A search engine that follows the store; the owner thread alone calls its methods."""

    @property
    def pause(self) -> float | None:
        """Seconds until `tend` shall be called; None where it need not be."""

    @property
    def trouble(self) -> str | None:
        """Why no query can be answered, as far as is known without asking a server."""

    @property
    def recall(self) -> float | None:
        """The share of the 10 best that was found when it was last measured; None where it is 1, or not known."""

    @property
    def how(self) -> str:
        """How the engine searches, in words."""

    @property
    def items(self) -> int:
        """The items that can be found, as far as is known without asking a server."""

    @property
    def waiting(self) -> int:
        """Changes that queries do not know of yet."""

    def follow(self) -> bool:
        """Have the engine follow the log, a portion at least where it can; tells whether it is at the log's end.

        The gallery need not belong to the index's model yet: so it is filled before a switch.
        """

    def tend(self) -> bool:
        """Do a portion of what is left to do; tells whether to come back at once for more."""

    def search(self, vectors: Vectors, count: int, chosen: Filter) -> list[Found]:
        """Find as `SearchEngine.search` does; raises IndexUnavailable while the engine cannot answer for all items."""

    def __len__(self) -> int:
        """The items that can be found; raises as `search`."""

    def close(self) -> None:
        """Give up what is half done."""


class LocalIndex:
    """An `Index` over an engine in this process, which the first `follow` fills from a file of rows or the store."""

    trouble, pause, waiting = None, LOCAL_PAUSE, 0

    def __init__(self, database: Database, engine: KeptEngine, model_id: str, space: str = APPEARANCE) -> None:
        self._database, self._store = database, Store(database)
        self._engine, self._model_id, self._space = engine, model_id, space
        whose = collection(database.gallery_id, model_id, space)
        self._kept = KeptRows(database.folder, self._store, engine, space, whose)
        self._shared = database.shared
        self._followed: int | None = None  # up to this entry of the log

    @property
    def recall(self) -> float | None:
        """That of the engine."""
        return self._engine.recall

    @property
    def how(self) -> str:
        """As the engine says."""
        return self._engine.how

    @property
    def items(self) -> int:
        """The items that can be found."""
        return len(self._engine)

    def follow(self) -> bool:
        """Have the engine follow the log to its end."""
        return self._mended(self._follow)

    def _follow(self) -> bool:
        if self._followed is None:
            self._tell_memory()
            self._followed = self._kept.take()
        if self._followed is None:
            self._fill()
        assert self._followed is not None
        while entries := self._store.entries(self._followed, ROWS_AT_ONCE):
            if any(entry.space == self._space for entry in entries):
                self._fill()  # while the space was another model's, photos got no vector of this one
            else:
                _bring(self._store, self._engine, self._model_id, self._space, self._store.touched(entries))
                self._followed = entries[-1].seq
        return True

    def tend(self) -> bool:
        """Read a portion of the rows that a start left in their file, or write one, if it is due."""
        return self._mended(self._tend)

    def _tend(self) -> bool:
        if self._followed is None:
            return False
        return self._engine.read_on() or self._kept.write(self._followed)

    def search(self, vectors: Vectors, count: int, chosen: Filter) -> list[Found]:
        """Find as the engine does, among all that was committed before, by any process."""
        if self._shared:
            self.follow()
        return self._mended(lambda: self._engine.search(vectors, count, chosen))

    def _mended(self, work: Callable[[], Result]) -> Result:
        """What the work gives; where rows turn out to be damaged in their file, all come from the store first."""
        try:
            return work()
        except Damaged as error:
            self._kept.refuse(error)
            self._fill()
            return work()

    def __len__(self) -> int:
        """The items that can be found."""
        return len(self._engine)

    def _fill(self) -> None:
        followed, before = self._store.last_entry(), self._engine.numbers()
        rows = self._store.rows(self._model_id, space=self._space)
        while portion := list(islice(rows, ROWS_AT_ONCE)):
            _give(self._engine, portion)
        if before:
            self._engine.remove(before - self._store.numbers(self._model_id, self._space))
        self._followed = followed

    def close(self) -> None:
        """Give up what is half done."""
        self._kept.close()

    def _tell_memory(self) -> None:
        """Warn before the rows are loaded where that needs more memory than there is."""
        active = Models(self._database, self._space).active
        if active is None or active.model_id != self._model_id:
            return
        try:
            rows, free = self._store.count(Filter()), free_memory()
        except DamagedDatabase:
            return  # a warning that needs the damaged part is no reason not to serve the rest
        needed = self._engine.memory(rows, active.dimension)
        if free is not None and needed > free:
            text = "warning: %s rows of %d values take about %.1f GiB of memory, and %.1f are free: see REID_ROWS=disk"
            log.warning(text, f"{rows:,}", active.dimension, needed / 2**30, free / 2**30)


class ServerIndex:
    """An `Index` over an engine on a server, shared by all processes of a gallery, of which one at a time changes it.

    The store keeps how far the engine has followed. What is committed while the server is away waits in the log.
    Whenever the number of rows may be wrong, and is, all rows are compared with the store, and mended.
    """

    def __init__(
        self,
        database: Database,
        engine: ServerEngine,
        model_id: str,
        space: str = APPEARANCE,
        kind: MilvusIndex = "flat",
    ) -> None:
        """The engine's collection has the name that `collection` gives."""
        self._database, self._store, self._models = database, Store(database), Models(database, space)
        self._places = Indexes(database)
        self._engine, self._model_id, self._space = engine, model_id, space
        self._collection = collection(database.gallery_id, model_id, space, kind)
        self.recall: float | None = None
        self._sampled = 0  # the largest number of an item when the recall was measured
        self.trouble: str | None = None  # why the server does not answer, as far as is known
        self._whole = False  # all items are there
        self._counted = False  # and as many as the store has
        self._compared: int | None = None  # a comparison has come to this number; None: there is none
        self.pause: float | None = PAUSE

    @property
    def how(self) -> str:
        """As the engine says."""
        return self._engine.how

    @property
    def items(self) -> int:
        """The items that can be found."""
        return self._store.count_rows(self._model_id, self._space) if self._whole and self.trouble is None else 0

    @property
    def waiting(self) -> int:
        """The entries of the log that the engine has not followed, and the items that it has to be filled with."""
        place = self._places.find(self._collection) or Place(0, self._store.last_entry())
        missing = 0 if place.filled is None else self._store.count_above(place.filled)
        return missing + self._store.count_entries(place.followed)

    def follow(self) -> bool:
        """Have the engine follow the log by one portion, unless the server is away or another process is at it."""
        if self.trouble is not None:
            return False  # a server that hangs costs seconds every time: only `tend` asks for it
        try:
            return self._ask(self._step)
        except (IndexUnavailable, TimeoutError):
            return False

    def tend(self) -> bool:
        """Ask for a server that was away, and do a portion of what is left; tells whether there is more."""
        try:
            if self.trouble is not None:
                self._ask(self._engine.__len__)  # nothing may be left to follow, and then a step asks for nothing
            at_end = self._ask(self._step)
            if at_end and not self._counted:
                self._ask(self._count)
            elif at_end and self._compared is not None:
                _, self._compared = self._ask(partial(self.compare, self._compared))
            elif at_end and self._store.last_number() >= max(SAMPLE, GROWN * self._sampled):
                self._ask(self._sample)
            return not at_end or self._compared is not None
        except IndexUnavailable:
            return self.trouble is None  # then the rows are lost, and to be filled in again
        except TimeoutError:
            return False

    def search(self, vectors: Vectors, count: int, chosen: Filter) -> list[Found]:
        """Find as the engine does; raises IndexUnavailable where the server is away or not all items are there yet."""
        self._require_whole()
        return self._ask(lambda: self._engine.search(vectors, count, chosen))

    def __len__(self) -> int:
        """The items that can be found; raises as `search`."""
        self._require_whole()
        return self._ask(self._engine.__len__)

    def close(self) -> None:
        """Nothing is half done that another process does not go on with."""

    def compare(self, after: int = 0, *, mend: bool = True) -> tuple[Differences, int | None]:
        """Compare a portion of rows with the store, those with a number above `after`, and mend what differs.

        The second value is the number with which to go on, None at the end. Raises IndexUnavailable and IndexLost.
        """
        with self._database.exclusive(LOCK, LOCK_SECONDS):
            following = self._store.rows(self._model_id, after=after, space=self._space)
            ours = list(islice(following, ROWS_AT_ONCE))
            theirs = next(self._engine.rows(after), [])
            # A portion that may have a next one ends at its last row; so far as both reach, they are compared.
            ends = [page[-1].number for page in (ours[ROWS_AT_ONCE - 1 :], theirs) if page]
            end = min(ends, default=None)
            kept, found = (
                {row.number: row for row in page if end is None or row.number <= end} for page in (ours, theirs)
            )
            wrong = [number for number in kept.keys() & found.keys() if not _same(kept[number], found[number])]
            missing, ghosts = kept.keys() - found.keys(), found.keys() - kept.keys()
            if mend and (missing or ghosts or wrong):
                _bring(self._store, self._engine, self._model_id, self._space, {*missing, *ghosts, *wrong})
        return Differences(len(kept), len(missing), len(ghosts), len(wrong)), end

    def _step(self) -> bool:
        """Follow one portion, and tell whether the engine is at the log's end."""
        with self._database.exclusive(LOCK, LOCK_SECONDS):
            place = self._places.find(self._collection)
            if place is None:
                self._engine.drop()
                self._engine.create()
                place = Place(0, self._store.last_entry())
                self._move(place)
            if place.filled is not None:
                return self._fill(place)
            self._whole = True
            entries = self._store.entries(place.followed, ROWS_AT_ONCE)
            if entries:
                _bring(self._store, self._engine, self._model_id, self._space, self._store.touched(entries))
                if any(entry.space == self._space for entry in entries):
                    self._take_over()
                self._move(Place(None, entries[-1].seq))
            return len(entries) < ROWS_AT_ONCE

    def _fill(self, place: Place) -> bool:
        """Give the engine the next items; what is done to those that it has already, it follows afterwards."""
        assert place.filled is not None
        self._whole = self._counted = False
        following = self._store.rows(self._model_id, after=place.filled, space=self._space)
        rows = list(islice(following, ROWS_AT_ONCE))
        _give(self._engine, rows)
        if len(rows) == ROWS_AT_ONCE:
            filled: int | None = rows[-1].number
            log.info("filling the search index: %d items left", self._store.count_above(rows[-1].number))
        else:
            filled = None
            self._take_over()
        self._move(Place(filled, place.followed))
        return False

    def _move(self, place: Place) -> None:
        self._places.keep(self._collection, self._model_id, place)

    def _take_over(self) -> None:
        """If the space is this model's, have its name stand for this collection, and drop those of other models."""
        active = self._models.active
        if active is None or active.model_id != self._model_id:
            return
        name = alias(self._database.gallery_id, self._space)
        self._engine.point(name)
        for former in self._engine.drop_others(f"{name}_"):
            self._places.forget(former)
        self._counted = False

    def _count(self) -> None:
        """Begin to compare all rows if their number is wrong; the answer is put off while items change."""
        last = self._store.last_entry()
        rows, items = len(self._engine), self._store.count_rows(self._model_id, self._space)
        if self._store.last_entry() != last:
            return
        self._counted = True
        if rows != items:
            log.warning("warning: the search index has %d items, the gallery %d: comparing them all", rows, items)
            self._compared = 0

    def _sample(self) -> None:
        """Measure the recall by some rows."""
        self._sampled = self._store.last_number()
        numbers = np.random.default_rng().integers(1, self._sampled + 1, SAMPLE).tolist()
        vectors = [row.vector for row in self._store.rows(self._model_id, numbers, space=self._space)]
        self.recall = self._engine.recall(np.array(vectors)) if vectors else None
        if self.recall is not None:
            log.info("the search index finds %.3f of the 10 best", self.recall)

    def _require_whole(self) -> None:
        if self.trouble is not None:
            raise IndexUnavailable(self.trouble)
        if not self._whole:
            raise IndexUnavailable(f"the search index is being filled: {self.waiting} items wait")

    def _ask(self, work: Callable[[], Result]) -> Result:
        """What the work at the server gives; raises IndexUnavailable where the server is away, or lost the rows."""
        try:
            result = work()
        except IndexUnavailable as error:
            if self.trouble is None:
                log.warning("warning: the search index is away, changes wait: %s", error)
            self.trouble = str(error)
            self.pause = min(2 * (self.pause or PAUSE), LONGEST_PAUSE)
            raise
        except IndexLost as error:
            log.warning("warning: %s: it will be filled again", error)
            self._places.forget(self._collection)
            self.trouble, self._whole = None, False
            raise IndexUnavailable(f"{error}; it will be filled again") from error
        if self.trouble is not None:
            log.warning("warning: the search index is back")
            self.trouble, self._counted = None, False
        self.pause = PAUSE
        return result


def collection(gallery_id: str, model_id: str, space: str = APPEARANCE, kind: MilvusIndex = "flat") -> str:
    """The name of the collection for a model's vectors in a space: another for other fields, or a kind of index."""
    kept = repr([(field.name, field.kind) for field in FIELDS] + [kind] * (kind != "flat")).encode()
    return f"{alias(gallery_id, space)}_{model_id}_{hashlib.sha256(kept).hexdigest()[:8]}"


def alias(gallery_id: str, space: str = APPEARANCE) -> str:
    """The name that stands for the collection of a space's model, for those who look at the server with other tools.

    A gallery itself asks by the name of its collection: while the space goes from one model to another, the alias
    would have a process with the former model ask among vectors of the latter. No space's name begins with that of
    another; the first was there before there were others, and is not named.
    """
    return f"reid_{gallery_id}" if space == APPEARANCE else f"reid_{space}_{gallery_id}"


def _bring(store: Store, engine: SearchEngine, model_id: str, space: str, numbers: Collection[int]) -> None:
    """Give the engine the items of these numbers as they are now, and take away those that are gone."""
    ordered = sorted(numbers)
    for start in range(0, len(ordered), ROWS_AT_ONCE):
        some = ordered[start : start + ROWS_AT_ONCE]
        rows = list(store.rows(model_id, some, space=space))
        _give(engine, rows)
        engine.remove(set(some) - {row.number for row in rows})


def _give(engine: SearchEngine, rows: list[Row]) -> None:
    """Give an engine rows, without those whose vectors are damaged so that nothing could be compared with them."""
    try:
        engine.upsert(rows)
    except ValueError:
        sound = [row for row in rows if abs(np.linalg.norm(row.vector) - 1) <= UNIT_TOLERANCE]
        if len(sound) == len(rows):
            raise
        log.error("%d items cannot be found, for their vectors are damaged: reid-gallery check", len(rows) - len(sound))
        engine.upsert(sound)


def _same(one: Row, other: Row) -> bool:
    return one.facts == other.facts and np.array_equal(one.vector, other.vector)
