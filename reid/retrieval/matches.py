"""Which gallery rows are a query's positives and which are its junk.

Q queries, G gallery rows, N gallery rows with the identity of a query, counted over a block of queries.
"""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

UNKNOWN = -1


class Matches:
    """The gallery rows of each query's identity, split into positives and junk.

    Identities and groups are integers, (Q,) and (G,). A gallery row of the query's identity is junk when it is also of
    the query's group, and a positive otherwise. Groups are whatever the protocol excludes: cameras, sequences, ...;
    a query of group -1 (unknown) has no junk.

    `same_identity` and `positives` (Q,) count the gallery rows of each query's identity, with and without junk.
    """

    def __init__(
        self, query_ids: Integers, query_groups: Integers, gallery_ids: Integers, gallery_groups: Integers
    ) -> None:
        _, identity = np.unique(np.concatenate([gallery_ids, query_ids]), return_inverse=True)
        groups, group = np.unique(np.concatenate([gallery_groups, query_groups]), return_inverse=True)
        # Sorted by identity, then group, an identity is one run of gallery rows, and a query's junk a run inside it.
        keys: Integers = identity * len(groups) + group
        gallery_keys, query_keys = keys[: len(gallery_ids)], keys[len(gallery_ids) :]
        identity_keys = query_keys - group[len(gallery_ids) :]
        past_junk: Integers = query_keys + (query_groups != UNKNOWN)
        self._order = np.argsort(gallery_keys, kind="stable")
        gallery_keys = gallery_keys[self._order]
        self._start = np.searchsorted(gallery_keys, identity_keys)
        self._junk_start = np.searchsorted(gallery_keys, query_keys)
        self._junk_stop = np.searchsorted(gallery_keys, past_junk)
        self.shape = (len(query_ids), len(gallery_ids))
        self.same_identity = np.searchsorted(gallery_keys, identity_keys + len(groups)) - self._start
        self.positives = self.same_identity - (self._junk_stop - self._junk_start)

    def rows(self, start: int, stop: int) -> tuple[Integers, Integers, npt.NDArray[np.bool_]]:
        """List the gallery rows of the identities of queries `start` to `stop` (excluded).

        Returns three (N,) arrays: the query, counted from `start` and ascending; the gallery row; whether it is junk.
        """
        counts = self.same_identity[start:stop]
        query = np.repeat(np.arange(len(counts)), counts)
        ends = np.cumsum(counts)
        place = np.repeat(self._start[start:stop] - (ends - counts), counts) + np.arange(len(query))
        junk = (place >= self._junk_start[start:stop][query]) & (place < self._junk_stop[start:stop][query])
        return query, self._order[place], junk
