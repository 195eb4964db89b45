"""What a query wants, and the answer that comes of what the index finds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from service.fields import Filter
from service.gallery.batcher import Batcher
from service.gallery.worker import Worker
from service.metrics import Metrics
from service.records import Cause, Found, Item, LoggedQuery, NotFound, Vectors
from service.storage.queries import Queries
from service.storage.store import EVERYTHING, Store

GROUP_FACTOR = 4  # hits first asked for each group wanted
QUERIES_WAITING = 10_000  # for the log


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a query wants: the `top_k` best of the items that pass the filter and score at least `min_score`.

    With `by_label`, the best item alone stands for each label; items without label stand for themselves. `conditions`
    is what the log keeps of all this, as JSON.
    """

    chosen: Filter = EVERYTHING
    top_k: int = 10
    min_score: float = -1.0
    by_label: bool = False
    conditions: Mapping[str, Any] | None = None

    @property
    def count(self) -> int:
        """The hits first asked for."""
        return self.top_k * GROUP_FACTOR if self.by_label else self.top_k


@dataclass(frozen=True, slots=True)
class Match:
    """An item found, and its cosine similarity to the query, in [-1, 1]."""

    item: Item
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Matches by falling score, and how many items passed the filter.

    `best_score` is that of the best item that passed, whether or not it reached the minimum; None where none passed.
    """

    matches: tuple[Match, ...]
    candidates: int
    best_score: float | None


class Search:
    """Answers queries from the hits of the worker's index and the items of the store, and logs them."""

    def __init__(self, store: Store, worker: Worker, queries: Queries, metrics: Metrics) -> None:
        self._store = store
        self._worker = worker
        self._queries = queries
        self._metrics = metrics
        self._log: Batcher[LoggedQuery, None] = Batcher(self._append, max_batch=1000, max_waiting=QUERIES_WAITING)

    def by_images(self, images: Tensor, options: SearchOptions) -> Answer:
        """Find the items most similar to the subject of prepared photos (n, 3, height, width); raises as `Worker`."""
        vector, found = self._worker.query(images, options.count, options.chosen)
        return self._answer(vector, found, options.count, options)

    def by_item(self, item_id: str, options: SearchOptions) -> Answer:
        """Find the items most similar to an enrolled one, itself a candidate but no match; raises NotFound."""
        item, count = self._store.get(item_id), options.count + 1
        for row in self._store.rows(self._worker.model_id, [item.number]):
            found = self._worker.search(row.vector, count, options.chosen)
            return self._answer(row.vector, found, count, options, without=item.number)
        raise NotFound(f"no item {item_id!r}")  # deleted meanwhile

    def record(
        self,
        cause: Cause,
        options: SearchOptions,
        answer: Answer,
        images: tuple[str, ...] = (),
        item_id: str | None = None,
    ) -> None:
        """Log a query by `images` of these SHA-256 or by an item; on return it is on the disk.

        It is written together with those of other threads.
        """
        matches = tuple((match.item.item_id, match.score) for match in answer.matches)
        asked = LoggedQuery(cause, images, item_id, options.conditions or {}, answer.candidates, matches)
        with self._metrics.stages["store"].time():
            self._log.submit(asked).result()

    def close(self) -> None:
        """Write what waits for the log."""
        self._log.close()

    def _append(self, asked: list[LoggedQuery]) -> list[None]:
        self._queries.append(asked)
        return [None] * len(asked)

    def _answer(
        self, vector: Vectors, found: Found, asked: int, options: SearchOptions, without: int | None = None
    ) -> Answer:
        """The matches that are wanted of what was found; asks for more while there are too few.

        That is so when groups are wanted, and when many hits were deleted of which the index has not heard.
        """
        chosen, top_k = options.chosen, options.top_k
        matches, candidates = self._matches(found, options, without)
        wanted = min(top_k, self._store.count_groups(chosen, without)) if options.by_label else top_k
        while len(matches) < wanted and asked < found.candidates and found.hits[-1].score >= options.min_score:
            asked *= GROUP_FACTOR
            found = self._worker.search(vector, asked, chosen)
            matches, candidates = self._matches(found, options, without)
        best = matches[0].score if matches else None
        shown = tuple(match for match in matches[:top_k] if match.score >= options.min_score)
        return Answer(shown, candidates, best)

    def _matches(self, found: Found, options: SearchOptions, without: int | None) -> tuple[list[Match], int]:
        """The matches among the hits, and the number of candidates; hits deleted or edited meanwhile may be neither."""
        # The store is ahead of the engine: an item must pass the filter as it is shown, for a key may hide its camera.
        items = self._store.get_many([hit.number for hit in found.hits], options.chosen)
        candidates = found.candidates - sum(hit.number not in items for hit in found.hits)
        matches = [
            Match(items[hit.number], hit.score) for hit in found.hits if hit.number != without and hit.number in items
        ]
        return _best_of_each_label(matches) if options.by_label else matches, candidates


def _best_of_each_label(matches: list[Match]) -> list[Match]:
    """The first match of each label, and all without label."""
    seen: set[str] = set()
    best = []
    for match in matches:
        label = match.item.details.label
        if label is None or label not in seen:
            best.append(match)
            seen |= {label} if label is not None else set()
    return best
