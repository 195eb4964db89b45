import numpy as np
import pytest

from reid.retrieval.matches import Matches


def random_labels(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Identities with gaps and far apart, groups with gaps and -1."""
    return rng.choice([0, 3, 50, 10**9], rows), rng.choice([-1, 2, 7, 100], rows)


@pytest.mark.parametrize("seed", range(20))
def test_matches_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    (query_ids, query_groups), (gallery_ids, gallery_groups) = random_labels(rng, 6), random_labels(rng, 12)
    matches = Matches(query_ids, query_groups, gallery_ids, gallery_groups)
    start, stop = 1, 5
    found = set(zip(*(part.tolist() for part in matches.rows(start, stop)), strict=True))
    expected = set()
    for query in range(start, stop):
        for row in range(12):
            if gallery_ids[row] == query_ids[query]:
                junk = gallery_groups[row] == query_groups[query] != -1
                expected.add((query - start, row, bool(junk)))
    assert found == expected
    for query in range(start, stop):
        kept = [junk for of, _, junk in expected if of == query - start]
        assert matches.same_identity[query] == len(kept)
        assert matches.positives[query] == kept.count(False)
