import numpy as np
import pytest

import reid.naming.candidates as candidates
from reid.naming.candidates import extended, nearest


@pytest.mark.parametrize("block", [1, 100, 2**24])
@pytest.mark.parametrize("views", [None, [0, 1, 0, 0, 1, 1, 0, 2, 0, 1, 0]])
def test_nearest_are_those_of_all_pairs(monkeypatch, block, views):
    monkeypatch.setattr(candidates, "BLOCK_SCORES", block)
    vectors = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    given = None if views is None else np.array(views)
    rows, scores = nearest(vectors, 4, given)
    for item in range(11):
        others = [o for o in range(11) if o != item and (views is None or views[o] == views[item])]
        cosine = {
            o: float(vectors[o] @ vectors[item] / np.linalg.norm(vectors[o]) / np.linalg.norm(vectors[item]))
            for o in others
        }
        expected = sorted(others, key=lambda o: -cosine[o])[:4]
        assert rows[item].tolist() == expected + [-1] * (4 - len(expected))
        assert scores[item][: len(expected)] == pytest.approx([cosine[o] for o in expected], abs=1e-5)
        assert np.isneginf(scores[item][len(expected) :]).all()


def test_no_item_has_more_neighbours_than_others():
    rows, _ = nearest(np.eye(3, dtype=np.float32), 10)
    assert [sorted(row) for row in rows.tolist()] == [[1, 2], [0, 2], [0, 1]]


def test_none_asked_for_is_refused():
    with pytest.raises(ValueError, match="0 nearest items"):
        nearest(np.eye(3, dtype=np.float32), 0)


@pytest.mark.parametrize("block", [1, 100, 2**24])
def test_new_vectors_are_compared_with_all_and_the_others_among_themselves_no_more(monkeypatch, block):
    monkeypatch.setattr(candidates, "BLOCK_SCORES", block)
    vectors = np.random.default_rng(1).normal(size=(23, 5)).astype(np.float32)
    rows, scores = extended(vectors, *nearest(vectors[:15], 4))
    expected, cosines = nearest(vectors, 4)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, cosines, atol=1e-6)
    same, _ = extended(vectors, expected, cosines)
    np.testing.assert_array_equal(same, expected)
