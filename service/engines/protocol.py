"""What a search engine must do. E is the embedding size."""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from service.fields import Filter
from service.records import Found, Row, Vectors


class SearchEngine(Protocol):
    """A cache of the store's vectors that finds the nearest; exact unless it says otherwise.

    One owner thread calls it, but for `how`. What `upsert` and `remove` did holds for every later `search`. Where the
    rows are with a server, every method raises IndexUnavailable while that is away, and IndexLost where it has lost
    them.
    """

    def upsert(self, rows: Sequence[Row]) -> None:
        """Add rows, or replace those of the same numbers; raises ValueError for a vector that is not finite or unit."""

    def remove(self, numbers: Collection[int]) -> None:
        """Forget rows; numbers that are not there are none."""

    def search(self, vectors: Vectors, count: int, chosen: Filter) -> list[Found]:
        """Find the `count` best items for each of the unit vectors (n, E) among those that pass the filter."""

    def numbers(self) -> set[int]:
        """The numbers of all rows."""

    @property
    def how(self) -> str:
        """How it searches now, in words, as far as is known without asking a server."""

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

    def recall(self, vectors: Vectors) -> float | None:
        """The share of the 10 best rows beside themselves that rows (n, E) find; None where the engine is exact."""
