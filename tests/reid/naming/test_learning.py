import numpy as np

from reid.naming.candidates import nearest
from reid.naming.learning import NEAR, Material, edges, learn, nearest_of, pool


def test_the_nearest_among_candidates_are_those_of_a_full_search():
    unit = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    candidates = np.random.default_rng(1).integers(-1, 40, size=(40, 25))
    found = nearest_of(unit, candidates)
    for item in range(40):
        others = sorted({other for other in candidates[item].tolist() if other not in (-1, item)})
        best = sorted(others, key=lambda other: -float(unit[other] @ unit[item]))[:NEAR]
        assert sorted(found[item][found[item] >= 0].tolist()) == sorted(best)


def test_the_pool_has_the_neighbours_of_neighbours():
    near = np.array([[1], [2], [-1]])
    assert pool(near, np.array([[2], [0], [0]])).tolist() == [[2, 2], [0, -1], [0, -1]]


def test_edges_name_every_pair_once():
    assert edges(3, np.array([[1, 2], [0, -1], [1, 0]])).tolist() == [0 * 3 + 1, 0 * 3 + 2, 1 * 3 + 2]


def test_lesson_by_lesson_candidates_get_better_than_the_nearest_by_cosine():
    """One loud direction is noise, which known groups unmask."""
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(30), 8)
    vectors = np.concatenate([random.normal(size=(30, 12))[truth], 3 * random.normal(size=(240, 1))], axis=1)
    vectors = (vectors + 0.2 * random.normal(size=vectors.shape)).astype(np.float32)
    rows, scores = nearest(vectors, 20)
    material = Material(vectors, rows, scores, None)
    labels = np.where(np.arange(240) % 8 < 4, np.searchsorted(truth, truth), np.arange(240))
    near = None
    for _ in range(4):
        near = learn(material, labels, near).near
    right = [(truth[found] == truth[:, None]).mean() for found in (near, rows[:, :NEAR])]
    assert right[0] > right[1] + 0.1


def test_items_of_other_views_are_no_candidates():
    vectors = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    views = np.arange(30) % 2
    lesson = learn(Material(vectors, *nearest(vectors, 10), views), np.arange(30) // 4)
    assert (views[lesson.low] == views[lesson.high]).all()


def test_an_item_among_strangers_still_meets_the_known_group_that_it_is_likeliest_of():
    """By its vector it is half way between its own kind and a crowd of single items that are nearer."""
    random = np.random.default_rng(0)
    known = random.normal(size=(40, 8)) + 4 * np.eye(8)[0]
    crowd = 0.1 * random.normal(size=(40, 8))
    vectors = np.concatenate([known, crowd, crowd.mean(axis=0, keepdims=True)]).astype(np.float32)
    labels = np.where(np.arange(81) < 40, 0, np.arange(81))
    material = Material(vectors, *nearest(vectors, 5), None)
    assert not (material.rows[80] < 40).any()
    lesson = learn(material, labels)
    assert (lesson.low[lesson.high == 80] < 40).any()
