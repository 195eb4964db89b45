import numpy as np
import pytest
from PIL import Image

from reid.evaluation.features import Features
from reid.report.ranked_lists import list_title, pick_queries, rank_gallery, ranked_list
from reid.retrieval.distances import FeatureDistances
from reid.retrieval.metrics import Metrics, evaluate_distances


def metrics(precision):
    precision = np.array(precision, np.float64)
    return Metrics(0, 0, {}, 0, 0, 0, precision, precision, np.ones(len(precision)))


@pytest.mark.parametrize("count", range(1, 30))
def test_best_median_and_worst_are_where_a_sort_has_them(count):
    precision = np.random.default_rng(count).permutation(np.linspace(0, 1, count))
    picked = pick_queries(metrics([*precision, np.nan]))
    order = sorted(range(count), key=lambda query: -precision[query])
    each = min(4, max(1, count // 3))
    assert picked["best"] == order[:each]
    assert picked["worst"] == order[max(each, count - each) :]
    everything = [query for queries in picked.values() for query in queries]
    assert len(set(everything)) == len(everything)
    if count >= 3:
        places = [order.index(query) for query in picked["median"]]
        assert len(places) == each
        assert abs(np.mean(places) - (count - 1) / 2) <= 0.5


def test_equals_are_drawn_at_random_but_always_the_same():
    one, again = pick_queries(metrics(np.ones(100))), pick_queries(metrics(np.ones(100)))
    assert one == again
    assert one["best"] != [0, 1, 2, 3]


def world(tmp_path, seed=0, queries=6, gallery=40, ties=False):
    random = np.random.default_rng(seed)
    draw = lambda rows, high: random.integers(0, high, rows)  # noqa: E731
    vectors = [random.normal(size=(rows, 3)) for rows in (queries, gallery)]
    if ties:
        vectors = [np.sign(part) for part in vectors]
    paths = []
    for split, rows in (("query", queries), ("gallery", gallery)):
        names = tuple(str(tmp_path / f"{split}{row}.png") for row in range(rows))
        for row, name in enumerate(names):
            Image.new("RGB", (20 + row, 10), (row, 0, 0)).save(name)
        paths.append(names)
    labels = (draw(queries, 4), draw(queries, 3) - 1, draw(gallery, 4), draw(gallery, 3) - 1)
    return Features(vectors[0], *labels[:2], vectors[1], *labels[2:], *paths)


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_are_those_of_the_metrics(tmp_path, ties):
    features = world(tmp_path, ties=ties)
    distances = FeatureDistances(features.query, features.gallery)
    groups = features.groups("camera")
    scored = evaluate_distances(
        distances, features.query_ids, features.query_cameras, features.gallery_ids, features.gallery_cameras
    )
    for query in range(6):
        matches = rank_gallery(features, groups, distances, query, shown=40)
        assert sorted(match.row for match in matches) == list(range(40))
        assert [match.distance for match in matches] == sorted(match.distance for match in matches)
        ranks = [match.rank for match in matches if match.kind != "junk"]
        assert ranks == list(range(1, len(ranks) + 1))
        hits = [match.rank for match in matches if match.kind == "right"]
        assert hits[0] == scored.first_hit[query]
        precision = np.mean([place / rank for place, rank in enumerate(hits, 1)])
        assert precision == pytest.approx(scored.average_precision[query])
        for match in matches:
            same = features.gallery_ids[match.row] == features.query_ids[query]
            camera = features.query_cameras[query]
            junk = same and camera != -1 and features.gallery_cameras[match.row] == camera
            assert match.kind == ("junk" if junk else "right" if same else "wrong")


def test_a_late_first_hit_is_shown_at_the_end():
    one = np.zeros(1, np.int64)
    gallery = np.stack([np.linspace(1, 0, 8), np.linspace(0, 1, 8)], axis=1)
    ids = np.array([1, 1, 1, 1, 1, 1, 0, 0])
    features = Features(np.array([[1.0, 0.0]]), one, one - 1, gallery, ids, ids * 0 - 1)
    distances = FeatureDistances(features.query, features.gallery)
    matches = rank_gallery(features, features.groups("camera"), distances, 0, shown=3)
    assert [(match.rank, match.kind) for match in matches] == [
        (1, "wrong"),
        (2, "wrong"),
        (3, "wrong"),
        (7, "right"),
    ]


def test_tiles_say_what_they_show(tmp_path):
    features = world(tmp_path)
    distances = FeatureDistances(features.query, features.gallery)
    tiles = ranked_list(features, features.groups("camera"), distances, 2, similarity=True, shown=5)
    assert (tiles[0].path, tiles[0].kind, tiles[0].heading) == (features.query_paths[2], "query", "query")
    assert tiles[0].read().tobytes() == features.picture("query", 2).tobytes()
    for tile, match in zip(tiles[1:], rank_gallery(features, features.groups("camera"), distances, 2, 5), strict=True):
        assert (tile.kind, tile.path) == (match.kind, features.gallery_paths[match.row])
        assert tile.heading == ("junk" if match.rank is None else f"rank {match.rank}")
        camera = features.gallery_cameras[match.row]
        assert tile.notes == (f"{1 - match.distance:.6f}", *([f"camera {camera}"] if camera >= 0 else []))
        assert max(tile.picture.size) == 224
    far = ranked_list(features, features.groups("camera"), distances, 2, similarity=False, shown=1)
    assert float(far[1].notes[0]) == pytest.approx(1 - float(tiles[1].notes[0]), abs=1e-4)


def test_a_title_names_the_file_without_its_folder(tmp_path):
    features = world(tmp_path)
    title = list_title("worst", features, metrics([0, 0, 0.25]), 2)
    assert title == "Worst: query2.png, average precision 25.0 %, first right match at rank 1"


def test_an_unreadable_image_is_named(tmp_path):
    features = world(tmp_path)
    (tmp_path / "query1.png").write_text("x")
    distances = FeatureDistances(features.query, features.gallery)
    with pytest.raises(ValueError, match=r"query1\.png: the file is no JPEG"):
        ranked_list(features, features.groups("none"), distances, 1, similarity=True)
