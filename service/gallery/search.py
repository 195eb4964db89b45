"""What a query wants, and the answer that comes of what the index finds."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from reid.retrieval.identities import CANDIDATES
from service.fields import Filter
from service.gallery.batcher import Batcher
from service.gallery.identifying import Identifying
from service.gallery.worker import Worker
from service.metrics import Metrics
from service.records import Cause, Found, Item, LoggedQuery, NotFound, Vectors
from service.storage.queries import Queries
from service.storage.store import EVERYTHING, Store

log = logging.getLogger("reid")

GROUP_FACTOR = 4  # hits first asked for each group wanted
QUERIES_WAITING = 10_000  # for the log


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a query wants: the `top_k` best of the items that pass the filter and score at least `min_score`.

    With `by_label`, the best item alone stands for each label, and with `by_identity` for each identity; items without
    one stand for themselves. `conditions` is what the log keeps of all this, as JSON.
    """

    chosen: Filter = EVERYTHING
    top_k: int = 10
    min_score: float = -1.0
    by_label: bool = False
    by_identity: bool = False
    conditions: Mapping[str, Any] | None = None

    @property
    def count(self) -> int:
        """The hits first asked for."""
        return self.top_k * GROUP_FACTOR if self.by_label or self.by_identity else self.top_k


@dataclass(frozen=True, slots=True)
class Match:
    """An item found, and its cosine similarity to the query, in [-1, 1].

    `identity_probability` is that of its identity, by all photos of it, of a query that asks by identity.
    """

    item: Item
    score: float
    identity_probability: float | None = None


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
        self.trouble: str | None = None  # why the last query is not in the log
        self._identifying = Identifying(store, worker.model_id)
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

        It is written together with those of other threads. One that cannot be written, say for a full disk, is counted,
        and `trouble` says why.
        """
        matches = tuple((match.item.item_id, match.score) for match in answer.matches)
        asked = LoggedQuery(cause, images, item_id, options.conditions or {}, answer.candidates, matches)
        with self._metrics.stages["store"].time():
            self._log.submit(asked).result()

    def close(self) -> None:
        """Write what waits for the log."""
        self._log.close()

    def _append(self, asked: list[LoggedQuery]) -> list[None]:
        try:
            self._queries.append(asked)
        except OSError as error:
            self._metrics.unlogged.inc(len(asked))
            if self.trouble is None:
                log.error("queries are answered and not logged: %s", error)
            self.trouble = f"queries are not logged: {error}"
        else:
            self.trouble = None
        return [None] * len(asked)

    def _answer(
        self, vector: Vectors, found: Found, asked: int, options: SearchOptions, without: int | None = None
    ) -> Answer:
        """The matches that are wanted of what was found; asks for more while there are too few.

        That is so when groups are wanted, and when many hits were deleted of which the index has not heard.
        """
        chosen, top_k = options.chosen, options.top_k
        matches, candidates = self._matches(found, options, without)
        wanted = top_k
        if options.by_label or options.by_identity:
            wanted = min(top_k, self._store.count_groups(chosen, without, options.by_label))
        while len(matches) < wanted and asked < found.candidates and found.hits[-1].score >= options.min_score:
            asked *= GROUP_FACTOR
            found = self._worker.search(vector, asked, chosen)
            matches, candidates = self._matches(found, options, without)
        best = matches[0].score if matches else None
        if options.by_identity:
            matches = self._by_evidence(vector, matches, chosen, without)
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
        if options.by_label:
            matches = _best_of_each(matches, lambda item: item.details.label)
        elif options.by_identity:
            matches = _best_of_each(matches, lambda item: item.identity_id)
        return matches, candidates

    def _by_evidence(self, vector: Vectors, matches: list[Match], chosen: Filter, without: int | None) -> list[Match]:
        """The same with the probabilities of the first identities, which come first by falling probability."""
        weighed, others = matches[:CANDIDATES], matches[CANDIDATES:]
        chances = self._identifying.probabilities(vector, [match.item for match in weighed], chosen, without)
        if chances is None:
            return matches
        told = [replace(match, identity_probability=one) for match, one in zip(weighed, chances, strict=True)]
        return sorted(told, key=lambda match: -(match.identity_probability or 0.0)) + others


def _best_of_each(matches: list[Match], name: Callable[[Item], str | None]) -> list[Match]:
    """The first match of each name, and all without one."""
    seen: set[str] = set()
    best = []
    for match in matches:
        named = name(match.item)
        if named is None or named not in seen:
            best.append(match)
            seen |= {named} if named is not None else set()
    return best
