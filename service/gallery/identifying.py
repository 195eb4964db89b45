"""Whom a query shows, by all photos of each identity that is in question."""

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from threading import Lock

import numpy as np

from reid.retrieval.identities import IdentityOdds, learn_identity_odds
from service.fields import Filter
from service.records import Item, Vectors
from service.storage.store import Store

log = logging.getLogger("reid")

MOST_LEARNED_FROM = 20_000  # items
MOST_PHOTOS = 500  # of an identity that are weighed
REST = 20  # times as long as learning took, the odds stay as they are while the gallery changes


class Identifying:
    """Weighs the evidence for identities, by odds that it learns from the gallery's own; threads may share it."""

    def __init__(self, store: Store, model_id: str) -> None:
        self._store, self._model_id = store, model_id
        self._lock = Lock()
        self._odds: IdentityOdds | None = None
        self._learned: tuple[int, float] | None = None  # at which entry of the log, and until when they stay

    def probabilities(
        self, vector: Vectors, items: Sequence[Item], chosen: Filter, without: int | None = None
    ) -> list[float] | None:
        """The probability that a query (E,) shows the identity of each of some items, of which no two are of one.

        Of their photos those that pass a filter count, but for the item of a number; an item without identity counts by
        itself. None while too few identities are known to learn from.
        """
        odds = self._learn()
        if odds is None or not items:
            return None
        ids = [item.identity_id for item in items if item.identity_id is not None]
        theirs = self._store.of_identities(ids, chosen, MOST_PHOTOS)
        numbers = [theirs.get(item.identity_id or "", [item.number]) for item in items]
        wanted = {number for one in numbers for number in one if number != without}
        vectors = {row.number: row.vector for row in self._store.rows(self._model_id, wanted)}
        scores = [[float(vectors[number] @ vector) for number in one if number in vectors] for one in numbers]
        # An item that is gone by now is as far as can be.
        chances: list[float] = odds.probabilities([one or [-1.0] for one in scores]).tolist()
        return chances

    def _learn(self) -> IdentityOdds | None:
        with self._lock:
            entry, now = self._store.last_entry(), time.monotonic()
            if self._learned is not None and (self._learned[0] == entry or now < self._learned[1]):
                return self._odds
            known = self._store.identified()
            by_identity: dict[int, list[int]] = defaultdict(list)
            for number, identity in known:
                by_identity[identity].append(number)
            several = [identity for identity, numbers in by_identity.items() if len(numbers) > 1]
            chosen: dict[int, int] = {}
            for identity in np.random.default_rng(0).permutation(several).tolist():
                if len(chosen) < MOST_LEARNED_FROM:
                    chosen |= dict.fromkeys(by_identity[identity][:MOST_PHOTOS], identity)
            rows = list(self._store.rows(self._model_id, chosen))
            try:
                if not rows:
                    raise ValueError("no identity has several photos")
                self._odds = learn_identity_odds(
                    np.stack([row.vector for row in rows]), np.array([chosen[row.number] for row in rows])
                )
            except ValueError as error:
                log.debug("identities: %s", error)
                self._odds = None
            done = time.monotonic()
            self._learned = entry, done + REST * (done - now)
            return self._odds
