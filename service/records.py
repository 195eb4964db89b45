"""The words of the search service: what is enrolled, what is asked, what is found; and what a search engine must do.

Public ids are opaque strings; inside, an item is known by its number, which is never used again.
E is the embedding size.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Scope = Literal["read", "write", "admin"]
EngineName = Literal["memory", "faiss-ivf", "milvus"]
Consistency = Literal["Strong", "Session", "Bounded", "Eventually"]  # of reads, in the words of Milvus


class NotFound(LookupError):
    """No such item; the message names what was asked for."""


class NotServed(LookupError):
    """What is asked for needs a gallery, a classifier or a backbone that this service was not given; it says which."""


class Conflict(ValueError):
    """What is asked contradicts what is there, such as a key that another photo has; the message names both."""


class ModelMismatch(ValueError):
    """The gallery belongs to another model; the message names both."""


class IndexUnavailable(ConnectionError):
    """The search engine's server cannot be reached or is not ready; the message names it, without secrets, and why."""


class IndexLost(LookupError):
    """The search engine's server is there and the rows are not, so that they must be published anew."""


class UnusableText(ValueError):
    """A text that the database of the gallery cannot keep; the message names it."""


@dataclass(frozen=True, slots=True)
class Medium:
    """One stored photo: the SHA-256 of the bytes that were sent, and the size in pixels of the upright picture."""

    sha256: str
    width: int
    height: int
    source: str = ""


@dataclass(frozen=True, slots=True)
class Details:
    """What people say of an item. `captured_at` has a time zone; `label` is the name of its identity."""

    key: str | None = None
    label: str | None = None
    camera: str | None = None
    captured_at: datetime | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewItem:
    """A photo to be enrolled, with its unit embedding (E,) float32."""

    medium: Medium
    vector: Vectors
    details: Details = Details()


@dataclass(frozen=True, slots=True)
class Item:
    """An enrolled photo. `identity_id` is that of its label."""

    number: int
    item_id: str
    medium: Medium
    details: Details
    identity_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Row:
    """What a search engine keeps of an item; `captured_at` is in microseconds since 1970, UTC."""

    number: int
    vector: Vectors
    camera: str | None
    captured_at: int | None
    label: str | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items may be found: all conditions must hold, and None is no condition.

    An item without camera, time or label fails a condition that asks for one, and passes `exclude_cameras`. `since` and
    `until` are aware times, half open: since <= captured_at < until.
    """

    cameras: frozenset[str] | None = None
    exclude_cameras: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    labels: frozenset[str] | None = None


class Cause(NamedTuple):
    """Who wants something done, as the id of a key or the name of a command, and in which request."""

    actor: str = ""
    request_id: str = ""


NOBODY = Cause()


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone with a key: what it allows, and the cameras whose items it shows; None is all of them.

    An item without camera is shown only to those who see all.
    """

    actor: str
    scopes: frozenset[Scope]
    cameras: frozenset[str] | None = None

    def sees(self, camera: str | None) -> bool:
        """Whether items of a camera exist for this caller."""
        return self.cameras is None or camera in self.cameras

    def narrow(self, chosen: Filter) -> Filter:
        """The same filter over the items that this caller sees."""
        if self.cameras is None:
            return chosen
        return replace(chosen, cameras=self.cameras if chosen.cameras is None else self.cameras & chosen.cameras)


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found: its number and its cosine similarity to the query, in [-1, 1]."""

    number: int
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to one query: hits by falling score, ties by rising number; `candidates` passed the filter."""

    hits: tuple[Hit, ...]
    candidates: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One answered query, for the log: `images` are the SHA-256 of what was sent, `matches` public ids and scores.

    `conditions` are those of the request, as JSON.
    """

    cause: Cause
    images: tuple[str, ...]
    item_id: str | None
    conditions: Mapping[str, Any]
    candidates: int
    matches: tuple[tuple[str, float], ...]


class SearchEngine(Protocol):
    """A cache of the store's vectors that finds the nearest; exact unless it says otherwise.

    One owner thread calls it. What `upsert` and `remove` did holds for every later `search`. Where the rows are with a
    server, every method raises IndexUnavailable while that is away, and IndexLost where it has lost them.
    """

    def upsert(self, rows: Sequence[Row]) -> None:
        """Add rows, or replace those of the same numbers; raises ValueError for a vector that is not finite or unit."""

    def remove(self, numbers: Collection[int]) -> None:
        """Forget rows; numbers that are not there are none."""

    def search(self, vectors: Vectors, count: int, chosen: Filter) -> list[Found]:
        """Find the `count` best items for each of the unit vectors (n, E) among those that pass the filter."""

    def numbers(self) -> set[int]:
        """The numbers of all rows."""

    def __len__(self) -> int:
        """The number of rows."""


class ServerEngine(SearchEngine, Protocol):
    """A search engine whose rows are a collection on a server, which other processes ask and change too."""

    def create(self) -> None:
        """Make the collection, empty; one that is there stays as it is."""

    def drop(self) -> None:
        """Remove the collection, if it is there."""

    def drop_others(self, prefix: str) -> list[str]:
        """Remove, and name, all other collections whose names begin with `prefix`."""

    def point(self, alias: str) -> None:
        """Have a second name stand for the collection, and for no other any more."""

    def rows(self, after: int | None = None) -> Iterator[list[Row]]:
        """All rows, or those with a number above `after`, by rising number, some at a time."""
