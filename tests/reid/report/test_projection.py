import numpy as np
import pytest

from reid.evaluation.features import Features
from reid.report.projection import project


def clusters(identities=12, queries=2, gallery=5, width=16, seed=0):
    """Embeddings of well separated identities; the last identity has no query."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(identities, width))
    query_ids = np.repeat(np.arange(identities - 1), queries) * 3
    gallery_ids = np.repeat(np.arange(identities), gallery) * 3
    vectors = [centres[ids // 3] + 0.05 * random.normal(size=(len(ids), width)) for ids in (query_ids, gallery_ids)]
    return Features(vectors[0], query_ids, query_ids * 0, vectors[1], gallery_ids, gallery_ids * 0)


def test_images_of_an_identity_lie_together():
    projection = project(clusters(), "cosine")
    assert projection.method == "t-SNE"
    assert projection.points.shape == (82, 2)
    assert projection.is_query.sum() == 22
    assert len(projection.names) == 8
    assert 33 not in projection.names  # it has no query
    for place in range(8):
        assert (projection.identity == place).sum() == 7
        own = projection.points[projection.identity == place]
        others = projection.points[projection.identity != place]
        spread = np.linalg.norm(own - own.mean(axis=0), axis=1).max()
        assert spread < np.linalg.norm(others - own.mean(axis=0), axis=1).min()


def test_the_same_picture_every_time():
    one, again = project(clusters(), "cosine"), project(clusters(), "cosine")
    np.testing.assert_array_equal(one.points, again.points)
    assert one.names == again.names


@pytest.mark.slow
def test_large_sets_are_thinned():
    features = clusters(identities=60, queries=1, gallery=100)
    projection = project(features, "euclidean")
    assert len(projection.points) == 1500
    assert [(projection.identity == place).sum() for place in range(8)] == [60] * 8


def test_few_rows_fall_on_their_principal_components():
    """Points of a plane in space keep their distances."""
    random = np.random.default_rng(0)
    plane = random.normal(size=(7, 2)) @ np.linalg.qr(random.normal(size=(5, 2)))[0].T
    ids = np.arange(7)
    features = Features(plane[:2], ids[:2], ids[:2], plane[2:], ids[2:], ids[2:])
    projection = project(features, "euclidean")
    assert projection.method == "principal components"
    everything = np.concatenate([plane[:2], plane[2:]])
    apart = lambda rows: np.sort(np.linalg.norm(rows[:, None] - rows, axis=2).ravel())  # noqa: E731
    np.testing.assert_allclose(apart(projection.points), apart(everything), atol=1e-5)


@pytest.mark.parametrize(("queries", "gallery", "width"), [(1, 1, 4), (2, 1, 1), (10, 20, 3), (10, 20, 1)])
def test_equal_embeddings_and_narrow_ones_are_points_all_the_same(queries, gallery, width):
    ids = np.zeros(queries, np.int64), np.zeros(gallery, np.int64)
    features = Features(np.ones((queries, width)), ids[0], ids[0], np.ones((gallery, width)), ids[1], ids[1])
    points = project(features, "cosine").points
    assert points.shape == (queries + gallery, 2)
    assert np.isfinite(points).all()
