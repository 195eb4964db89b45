"""Checked against sampling one image an identity with a loop, many times, and against what a single draw must be."""

import numpy as np
import pytest
import torch

from reid.retrieval.distances import FeatureDistances
from reid.retrieval.metrics import evaluate_features
from reid.retrieval.single_shot import _first_of_each, evaluate_redrawn, evaluate_single_shot, mean_of_draws


def world(seed=0, identities=9, images=5, size=6):
    """Features of identities seen several times by some of 3 cameras: (features, ids, cameras), ids not dense."""
    random = np.random.default_rng(seed)
    ids = np.repeat(random.permutation(100)[:identities], images)
    features = random.normal(size=(identities, size)).repeat(images, axis=0) + random.normal(size=(len(ids), size))
    order = random.permutation(len(ids))
    return features[order].astype(np.float32), ids[order], random.integers(0, 3, len(ids))[order]


def cosine_distances(query, gallery):
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query, gallery)]
    return 1 - unit[0] @ unit[1].T


def slow_draw(distances, query_ids, query_cameras, gallery_ids, gallery_cameras, random):
    """One draw as torchreid makes it: for each query, out of what the junk rule leaves, one image an identity."""
    ranks = []
    for row, identity, camera in zip(distances, query_ids, query_cameras, strict=True):
        junk = (gallery_ids == identity) & (gallery_cameras == camera)
        drawn = [random.choice(np.flatnonzero(~junk & (gallery_ids == i))) for i in np.unique(gallery_ids[~junk])]
        own = [g for g in drawn if gallery_ids[g] == identity]
        ranks.append(1 + sum(row[g] <= row[own[0]] for g in drawn if g != own[0]) if own else np.nan)
    return np.array(ranks)


@pytest.mark.slow
def test_many_draws_agree_with_drawing_for_each_query_by_hand():
    features, ids, cameras = world()
    query, gallery = np.arange(9), np.arange(9, 45)
    labels = (ids[query], cameras[query], ids[gallery], cameras[gallery])
    draws = evaluate_single_shot(FeatureDistances(features[query], features[gallery]), *labels, draws=2000)
    random = np.random.default_rng(1)
    distances = cosine_distances(features[query], features[gallery])
    slow = np.array([slow_draw(distances, *labels, random) for _ in range(2000)])
    ours = np.array([draw.first_hit for draw in draws])
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(slow))
    scored = ~np.isnan(ours[0])
    assert scored.sum() >= 5
    np.testing.assert_allclose((1 / ours).mean(axis=0)[scored], (1 / slow).mean(axis=0)[scored], atol=0.03)
    np.testing.assert_allclose((ours == 1).mean(axis=0)[scored], (slow == 1).mean(axis=0)[scored], atol=0.05)


def test_a_gallery_of_one_image_an_identity_is_scored_as_ever():
    """Where nothing can be drawn, every draw equals the plain metrics."""
    features, ids, _ = world(images=2)
    _, first = np.unique(ids, return_index=True)
    rest = np.setdiff1d(np.arange(len(ids)), first)
    labels = (ids[rest], np.zeros(len(rest), int), ids[first], np.ones(len(first), int))
    plain = evaluate_features(features[rest], *labels[:2], features[first], *labels[2:])
    draws = evaluate_single_shot(FeatureDistances(features[rest], features[first]), *labels, draws=3)
    for draw in (*draws, mean_of_draws(draws)):
        assert (draw.mAP, draw.mINP, draw.queries, draw.gallery) == pytest.approx(
            (plain.mAP, plain.mINP, plain.queries, plain.gallery)
        )
        assert draw.cmc == plain.cmc
        np.testing.assert_array_equal(draw.first_hit, plain.first_hit)


def test_one_image_stands_for_an_identity_in_all_rankings():
    """Two queries of other identities, alike to the last bit, must see the same drawn rivals."""
    features, ids, _ = world()
    features[1] = features[0]
    ids[0], ids[1] = 1000, 1001
    gallery = np.concatenate([features[2:], features[:2] + np.array([3, -3, 3, -3, 3, -3])])
    gallery_ids = np.append(ids[2:], [1000, 1001])
    unknown = np.full(len(gallery), -1)
    draws = evaluate_single_shot(
        FeatureDistances(features[:2], gallery), ids[:2], unknown[:2], gallery_ids, unknown, draws=50
    )
    ranks = np.array([draw.first_hit for draw in draws])
    assert len(np.unique(ranks[:, 0])) > 1
    np.testing.assert_array_equal(ranks[:, 0], ranks[:, 1])


def test_draws_are_seeded_and_do_not_depend_on_blocks(monkeypatch):
    features, ids, cameras = world()
    distances = FeatureDistances(features[:20], features[20:])
    labels = (ids[:20], cameras[:20], ids[20:], cameras[20:])
    one, same, other = (evaluate_single_shot(distances, *labels, seed=seed) for seed in (0, 0, 1))
    monkeypatch.setattr("reid.retrieval.metrics.BLOCK_DISTANCES", 100)
    blocks = evaluate_single_shot(distances, *labels)
    assert [draw.mAP for draw in one] == [draw.mAP for draw in same] == [draw.mAP for draw in blocks]
    assert [draw.mAP for draw in one] != [draw.mAP for draw in other]


def test_redrawn_galleries_equal_a_plain_evaluation_of_each_split():
    features, ids, _ = world(identities=12, images=4)
    ids[0] = 5000  # one image alone: always gallery, never a query
    draws = evaluate_redrawn(features, ids, draws=5)
    galleries = []
    for draw in draws:
        gallery = np.isnan(draw.first_hit)
        assert sorted(ids[gallery]) == sorted(set(ids))
        assert gallery[0]
        nothing = np.full(len(ids), -1)
        plain = evaluate_features(
            features[~gallery], ids[~gallery], nothing[~gallery], features[gallery], ids[gallery], nothing[gallery]
        )
        assert draw.mAP == pytest.approx(plain.mAP)
        assert draw.cmc == pytest.approx(plain.cmc)
        assert (draw.queries, draw.gallery) == (plain.queries, plain.gallery)
        galleries.append(tuple(np.flatnonzero(gallery)))
    assert len(set(galleries)) > 1
    mean = mean_of_draws(draws)
    assert mean.mAP == pytest.approx(np.mean([draw.mAP for draw in draws]))
    assert np.isnan(mean.average_precision[0])
    assert not np.isnan(mean.average_precision[1:]).any()


def test_equal_images_tie_pessimistically():
    features = torch.ones(6, 3)
    ids = np.array([3, 3, 8, 8, 9, 9])
    assert evaluate_redrawn(features, ids, draws=1)[0].cmc[1] == 0
    unknown = np.full(3, -1)
    draw = evaluate_single_shot(FeatureDistances(features[::2], features[1::2]), ids[::2], unknown, ids[1::2], unknown)
    assert draw[0].mAP == pytest.approx(1 / 3)


def test_what_cannot_be_scored_is_refused():
    features, _, _ = world(identities=4, images=1)
    with pytest.raises(ValueError, match="every identity has one image"):
        evaluate_redrawn(features, np.arange(4))
    with pytest.raises(ValueError, match="none has a match in the gallery that the junk rule leaves"):
        evaluate_single_shot(
            FeatureDistances(features, features), np.arange(4), np.zeros(4, int), np.arange(4), np.zeros(4, int)
        )


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_near_ties_are_ranked_as_in_float64(distance):
    """Rows that float32 cannot tell apart, by the definition in float64, with the same draws."""
    random = np.random.default_rng(0)
    ids = np.repeat(np.arange(20), 4)
    features = random.normal(size=16) + 1e-6 * random.normal(size=(len(ids), 16))
    if distance == "cosine":
        away = cosine_distances(features, features)
    else:
        away = ((features[:, None] - features) ** 2).sum(axis=2)
    draws = evaluate_redrawn(features, ids, draws=3, seed=5, distance=distance)
    generator = np.random.default_rng(5)
    for draw in draws:
        priority = generator.permutation(len(ids))
        drawn = np.array([min(np.flatnonzero(ids == i), key=priority.__getitem__) for i in range(20)])
        for query in set(range(len(ids))) - set(drawn.tolist()):
            own = away[query, drawn[ids[query]]]
            rank = 1 + sum(away[query, row] <= own for row in drawn if ids[row] != ids[query])
            assert draw.first_hit[query] == rank
    unknown = np.full(len(ids), -1)
    (shot,) = evaluate_single_shot(FeatureDistances(features, features, distance), ids, unknown, ids, unknown, draws=1)
    drawn = np.array(_first_of_each(ids, np.random.default_rng(0).permutation(len(ids))))
    ranks = [1 + sum(away[q, r] <= away[q, drawn[ids[q]]] for r in drawn if ids[r] != ids[q]) for q in range(len(ids))]
    assert shot.first_hit.tolist() == ranks
