import numpy as np
import pytest
import torch

from reid.retrieval import metrics
from reid.retrieval.camera_pairs import evaluate_camera_pairs
from reid.retrieval.distances import FeatureDistances


def world(seed=0, queries=40, gallery=150, identities=9, cameras=(0, 3, 7)):
    random = np.random.default_rng(seed)
    draw = lambda rows, values: random.choice(values, rows)  # noqa: E731
    distances = FeatureDistances(random.normal(size=(queries, 8)), random.normal(size=(gallery, 8)))
    ids = np.arange(identities) * 5
    return distances, draw(queries, ids), draw(queries, cameras), draw(gallery, ids), draw(gallery, cameras)


def by_hand(distances, query_ids, query_cameras, gallery_ids, gallery_cameras, groups, query_camera, gallery_camera):
    """Average precisions from the definition, one query and one gallery row at a time."""
    precisions = []
    for query in range(len(query_ids)):
        if query_cameras[query] != query_camera:
            continue
        ranked = []
        for row in np.argsort(distances[query], kind="stable"):
            same = gallery_ids[row] == query_ids[query]
            junk = same and groups[0][query] == groups[1][row] != -1
            if gallery_cameras[row] == gallery_camera and not junk:
                ranked.append(same)
        hits = [place for place, same in enumerate(ranked, 1) if same]
        if hits:
            precisions.append(np.mean([(i + 1) / place for i, place in enumerate(hits)]))
    return precisions


@pytest.mark.parametrize("rule", ["camera", "none", "sequence"])
def test_every_cell_is_the_map_of_its_queries_among_its_images(rule, monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK_DISTANCES", 4000)  # several blocks, the last one short
    distances, *labels = world()
    if rule == "camera":
        groups = (labels[1], labels[3])
    else:
        high = {"none": 0, "sequence": 4}[rule]
        random = np.random.default_rng(1)
        groups = tuple(random.integers(-1, high, len(rows)) for rows in (labels[0], labels[2]))
    pairs = evaluate_camera_pairs(distances, *labels, query_groups=groups[0], gallery_groups=groups[1])
    assert pairs.query_cameras.tolist() == pairs.gallery_cameras.tolist() == [0, 3, 7]
    matrix = distances.rows(0, distances.shape[0]).numpy()
    for row, query_camera in enumerate(pairs.query_cameras):
        for column, gallery_camera in enumerate(pairs.gallery_cameras):
            expected = by_hand(matrix, *labels, groups, query_camera, gallery_camera)
            assert pairs.queries[row, column] == len(expected)
            if expected:
                assert pairs.mAP[row, column] == pytest.approx(np.mean(expected), abs=1e-12)
            else:
                assert np.isnan(pairs.mAP[row, column])
    assert (rule == "camera") == np.isnan(np.diag(pairs.mAP)).all()


def test_unknown_cameras_take_no_part():
    distances, query_ids, _, gallery_ids, gallery_cameras = world()
    nowhere, groups = (
        np.full(len(query_ids), -1),
        {"query_groups": query_ids * 0 - 1, "gallery_groups": gallery_cameras},
    )
    pairs = evaluate_camera_pairs(distances, query_ids, nowhere, gallery_ids, gallery_cameras, **groups)
    assert pairs.mAP.shape == pairs.queries.shape == (0, 3)
    gallery_nowhere = np.full(len(gallery_ids), -1)
    pairs = evaluate_camera_pairs(distances, query_ids, nowhere, gallery_ids, gallery_nowhere, **groups)
    assert pairs.mAP.shape == (0, 0)


def test_of_many_cameras_the_busiest_are_kept():
    """Cameras 3, 5 and 9 have a query each, 5 most images of the three; 7 has most images but no query."""
    distances = FeatureDistances(torch.eye(3), torch.eye(3).repeat(3, 1)[:7])
    pairs = evaluate_camera_pairs(
        distances,
        np.array([1, 1, 1]),
        np.array([9, 3, 5]),
        np.ones(7, np.int64),
        np.array([7, 7, 7, 5, 5, 3, 9]),
        query_groups=np.full(3, -1),
        gallery_groups=np.full(7, -1),
        cameras=2,
    )
    assert pairs.query_cameras.tolist() == [5, 9] or pairs.query_cameras.tolist() == [3, 5]
    assert pairs.query_cameras.tolist() == pairs.gallery_cameras.tolist() == [3, 5]
    assert pairs.left_out == 2
    assert (pairs.queries == 1).all()


def test_progress_ends_at_all_queries():
    calls = []
    distances, *labels = world()
    evaluate_camera_pairs(
        distances, *labels, query_groups=labels[1], gallery_groups=labels[3], progress=lambda *call: calls.append(call)
    )
    assert calls[-1] == (40, 40)
