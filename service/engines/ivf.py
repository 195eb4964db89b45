"""The search engine for large galleries on a processor: FAISS finds candidates in some of many lists of rows.

N rows, E embedding size, B queries of one block, M rows that pass the filter, L lists, C candidates of a query. Each
row is in the list of the nearest of L centres, as float16. A query looks into the lists of the centres nearest to it,
its probes, and what it finds there is scored again with the float32 rows, as by `MemoryEngine`.
"""

import logging
import math
from collections.abc import Collection, Iterable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch

from service.engines.memory import Candidates, Mask, MemoryEngine, least_product, nearest
from service.engines.snapshot import Places, Saved
from service.fields import Filter
from service.records import Row

FIRST_ROWS = 20_000  # where training begins to pay; with fewer rows the search is exact
GROWTH = 3  # train again with so many times the rows
SAMPLE = 64  # rows for each list to train on
RECALL = 0.995  # wanted of the 10 nearest others of a row, so that queries of new photos find 0.99
ASKED = 200  # rows whose neighbours tell the recall
NEIGHBOURS = 11  # of a row when recall is measured: itself and 10 others
FIRST_PROBES = 8
WORTH = 0.3  # rows looked at for one that passes, beyond which multiplying those that pass is about as fast
SPARE = 64  # candidates asked for beyond twice those wanted
FLOAT16_ERROR = 2.0**-10  # twice the relative rounding, for the sum in float32

log = logging.getLogger("reid")


class IvfEngine(MemoryEngine):
    """A `SearchEngine` that misses a few of the best rows, for speed; what it finds has the scores of `MemoryEngine`.

    It is exact up to 20,000 rows. Then it trains, and again whenever its rows are three times as many, in the `upsert`
    that brings them. Each time it takes few probes with which 0.995 of its own rows' neighbours are found; where
    that needs too many, as with vectors that form no groups, it stays exact. More hits and narrower filters get more
    probes, and the narrowest an exact search.

    Raises ValueError if FAISS is not installed, and as `MemoryEngine`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._library = _faiss()
        self._probes = 0

    def clear(self) -> None:
        """Forget all rows."""
        super().clear()
        self._index: Any = None  # its ids are places
        self._trained = 0  # rows when it was trained
        self._recall: float | None = None

    @property
    def recall(self) -> float | None:
        """The share of the 10 nearest others that rows of the gallery found when it was trained; None while exact."""
        return self._recall

    @property
    def how(self) -> str:
        """By which part of the lists, once it is trained."""
        if self._index is None:
            return super().how
        return f"approximately, in {self._probes} of {self._index.nlist} lists or more"

    def upsert(self, rows: Sequence[Row]) -> None:
        """Add rows, or replace those of the same numbers; of two with one number the last counts.

        Raises ValueError naming the first row whose vector is refused; then no row is added.
        """
        before = len(self)
        super().upsert(rows)
        self._follow(np.unique([self._places[row.number] for row in rows]).astype(np.int64), before)

    def remove(self, numbers: Collection[int]) -> None:
        """Forget rows; numbers that are not there are none."""
        before, gone = len(self), [self._places[number] for number in self._places.keys() & set(numbers)]
        super().remove(numbers)
        self._follow(np.union1d(gone, np.arange(len(self), before)).astype(np.int64), before)

    def restore(self, saved: Saved) -> None:
        """Have the rows of a file in the place of those that there are; raises as `MemoryEngine.restore`."""
        super().restore(saved)
        self._read()
        if len(self) >= FIRST_ROWS:
            self._train()

    def _prepare(self) -> None:
        """Nothing: few searches are of all rows."""

    def _follow(self, changed: Places, before: int) -> None:
        """Have the index follow a change of the rows at some places; rows from 0 to `before` were there."""
        if len(self) >= max(FIRST_ROWS, GROWTH * self._trained):
            self._train()
        elif self._index:
            # An index takes an id a second time without complaint, and both rows answer.
            if (changed < before).any():
                self._index.remove_ids(changed[changed < before])
            kept = changed[changed < len(self)]
            self._index.add_with_ids(self._vectors[kept].numpy(), kept)

    def _train(self) -> None:
        """Build the index from all rows, and choose the probes."""
        self._index, self._recall, self._trained = None, None, len(self)
        vectors, lists = self._vectors[: len(self)].numpy(), math.isqrt(len(self))
        index = self._library.IndexIVFScalarQuantizer(
            self._library.IndexFlatIP(vectors.shape[1]),
            vectors.shape[1],
            lists,
            self._library.ScalarQuantizer.QT_fp16,
            self._library.METRIC_INNER_PRODUCT,
            False,  # codes of the rows, not of their distance from the centre, for the bound of the error
        )
        rng = np.random.default_rng(0)
        index.train(vectors[rng.permutation(len(vectors))[: SAMPLE * lists]])
        index.add_with_ids(vectors, np.arange(len(vectors)))
        asked = rng.permutation(len(vectors))[:ASKED]
        nearest = self._others(asked)  # exact, as there is no index yet
        self._index, self._probes = index, min(FIRST_PROBES, lists)
        while self._probes <= WORTH * lists:
            met = sum(len(some & others) for some, others in zip(self._others(asked), nearest, strict=True))
            self._recall = met / sum(map(len, nearest))
            if self._recall >= RECALL:
                text = "searching %d rows in %d lists with %d probes: recall@10 is %.3f of their own neighbours"
                log.info(text, len(self), lists, self._probes, self._recall)
                return
            self._probes += max(1, self._probes // 2)
        self._index, self._recall = None, None
        log.info("searching %d rows exactly: %d lists give no recall@10 of %.3f sooner", len(self), lists, RECALL)

    def _others(self, places: Places) -> list[set[int]]:
        """The numbers of the nearest others of the rows at some places."""
        answers = self.search(self._vectors[places].numpy(), NEIGHBOURS, Filter())
        own = self._facts["number"][places].tolist()
        return [{hit.number for hit in answer.hits} - {number} for answer, number in zip(answers, own, strict=True)]

    def _candidates(self, queries: torch.Tensor, passing: Mask, count: int) -> Iterable[Candidates]:
        """The rows of the probed lists that may be among the `count` best of those `passing` (N,), or all such rows."""
        if not self._index:
            return super()._candidates(queries, passing, count)
        share = np.count_nonzero(passing) / len(passing)
        # The best of a few that pass lie as far away as so many more of all, and these in more lists: measured, 100
        # times as many in 3 to 4 times the lists.
        depth = max(1.0, count / share / NEIGHBOURS)
        probes = math.ceil(self._probes * depth ** (1 / 3))
        found = None
        if probes <= WORTH * share * self._index.nlist:
            found = self._probe(queries, passing, count, probes)
        return [found] if found else super()._candidates(queries, passing, count)

    def _probe(self, queries: torch.Tensor, passing: Mask, count: int, probes: int) -> Candidates | None:
        """Search so many lists for queries (B, E); None if they hold fewer than `count` rows that pass."""
        selector = None
        if not passing.all():
            bits = np.packbits(passing, bitorder="little")  # FAISS reads it where it lies
            selector = self._library.IDSelectorBitmap(bits)
        parameters = self._library.SearchParametersIVF(nprobe=min(probes, self._index.nlist), sel=selector)
        wanted = 2 * count + SPARE
        while True:
            found, places = self._index.search(queries.numpy(), min(wanted, len(passing)), params=parameters)
            if (places[:, count - 1] < 0).any():
                return None
            products = torch.from_numpy(np.where(places < 0, -np.inf, found.clip(-1, 1)))
            # More rows as good as the last may have been left out: a crowd of photos that are nearly equal.
            if wanted >= len(passing) or (products[:, -1:] < least_product(products, count, FLOAT16_ERROR)).all():
                return nearest(products, torch.from_numpy(places), count, FLOAT16_ERROR)
            wanted *= 8


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ImportError as error:
        raise ValueError("the ivf engine needs FAISS, which is not installed: pip install faiss-cpu") from error
