"""Checked against `slow_metrics`, which walks down each ranking as the definitions say."""

import doctest
import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from reid.retrieval import metrics as module
from reid.retrieval.distances import FeatureDistances
from reid.retrieval.metrics import Metrics, evaluate_distances, evaluate_features


def slow_metrics(distances, query_ids, query_cameras, gallery_ids, gallery_cameras, junk="camera", ap="hits"):
    """Return three lists over queries, None for skipped ones: average precision, positives / last rank, first rank."""
    aps, inps, firsts = [], [], []
    for q, row in enumerate(distances):
        ranking = []
        for g, distance in enumerate(row):
            positive = gallery_ids[g] == query_ids[q]
            same_camera = gallery_cameras[g] == query_cameras[q] and query_cameras[q] != -1
            if positive and same_camera and junk == "camera":
                continue
            ranking.append((distance, positive))  # False sorts before True: negatives come first among equals
        hits = [positive for _, positive in sorted(ranking)]
        if not any(hits):
            aps.append(None), inps.append(None), firsts.append(None)
            continue
        ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
        aps.append(matlab_average_precision(hits) if ap == "trapezoid" else precision_at_hits(hits))
        inps.append(len(ranks) / ranks[-1])
        firsts.append(ranks[0])
    return aps, inps, firsts


def precision_at_hits(hits):
    precisions = [sum(hits[:rank]) / rank for rank in range(1, len(hits) + 1) if hits[rank - 1]]
    return sum(precisions) / len(precisions)


def matlab_average_precision(hits):
    """compute_AP.m of Market-1501, line by line, for a ranking without junk."""
    old_recall, old_precision, ap, found = 0.0, 1.0, 0.0, 0
    for j, hit in enumerate(hits):
        found += hit
        recall, precision = found / sum(hits), found / (j + 1)
        ap += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return ap


def assert_equals_slow(metrics: Metrics, slow, ranks=(1, 5, 10, 20)):
    aps, inps, firsts = ([np.nan if value is None else value for value in values] for values in slow)
    np.testing.assert_allclose(metrics.average_precision, aps, rtol=1e-12)
    np.testing.assert_allclose(metrics.inverse_negative_penalty, inps, rtol=1e-12)
    np.testing.assert_array_equal(metrics.first_hit, firsts)
    scored = [first for first in firsts if not np.isnan(first)]
    assert metrics.queries == len(scored)
    assert metrics.queries_skipped == len(aps) - len(scored)
    assert metrics.mAP == pytest.approx(np.nansum(aps) / len(scored))
    assert metrics.mINP == pytest.approx(np.nansum(inps) / len(scored))
    assert metrics.cmc == {rank: sum(first <= rank for first in scored) / len(scored) for rank in ranks}


def random_case(seed: int, queries: int = 15, gallery: int = 40) -> list[np.ndarray]:
    """Distances with many ties, identities with gaps, one only in the gallery (distractors), one only among queries."""
    rng = np.random.default_rng(seed)
    distances = rng.random((queries, gallery)).round(1).astype(np.float32)
    query_ids, gallery_ids = rng.choice([4, 7, 19, 2000], queries), rng.choice([0, 4, 7, 19], gallery)
    return [distances, query_ids, rng.choice([-1, 0, 3], queries), gallery_ids, rng.choice([-1, 0, 3], gallery)]


def feature_case(seed: int, queries: int = 30, gallery: int = 200, size: int = 16) -> list[np.ndarray]:
    """Arguments of `evaluate_features`: noisy clusters, exactly representable in float16."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, size))
    sides = []
    for rows in (queries, gallery):
        ids = rng.integers(0, 12, rows)
        noisy = (centres[ids] + rng.normal(size=(rows, size))).astype(np.float16).astype(np.float32)
        sides += [noisy, ids, rng.integers(0, 3, rows)]
    return sides


@pytest.fixture(params=["rows", "all at once"])
def way_of_counting(request, monkeypatch):
    """Count as on the CPU, and as on a GPU."""
    if request.param == "all at once":
        monkeypatch.setattr(module, "_closer_negatives_on_cpu", module._closer_negatives_on_gpu)


@pytest.mark.usefixtures("way_of_counting")
@pytest.mark.parametrize("ap", ["hits", "trapezoid"])
@pytest.mark.parametrize("junk", ["camera", "none"])
@pytest.mark.parametrize("seed", range(8))
def test_random_cases_equal_a_slow_loop(seed, junk, ap):
    case = random_case(seed)
    assert_equals_slow(evaluate_distances(*case, junk=junk, ap=ap), slow_metrics(*case, junk=junk, ap=ap))


@pytest.mark.usefixtures("way_of_counting")
@pytest.mark.parametrize("gallery", [1, 2, 3, 1000])
def test_few_positives_among_few_and_many_rows_equal_a_slow_loop(gallery):
    rng = np.random.default_rng(gallery)
    distances = rng.random((8, gallery)).round(2)
    ids = np.where(np.arange(gallery) < 3, 1, 0)
    case = [distances, np.ones(8, int), np.zeros(8, int), ids, np.ones(gallery, int)]
    assert_equals_slow(evaluate_distances(*case), slow_metrics(*case))


def test_many_junk_rows_equal_a_slow_loop():
    rng = np.random.default_rng(0)
    ids, cameras = np.zeros(100_000, int), np.zeros(100_000, int)
    ids[:50], cameras[50:55] = 1, 1
    case = [rng.random((2, 100_000)), np.zeros(2, int), np.zeros(2, int), ids, cameras]
    assert_equals_slow(evaluate_distances(*case), slow_metrics(*case))


def test_a_negative_tied_with_a_positive_ranks_before_it():
    ids, cameras = np.array([1, 2, 1, 3]), np.array([1, 1, 2, 1])
    metrics = evaluate_distances(np.array([[0.5, 0.5, 0.5, 0.9]]), np.array([1]), np.array([0]), ids, cameras)
    assert metrics.first_hit.tolist() == [2]
    assert metrics.mAP == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_duplicate_images_of_a_positive_rank_before_it():
    features, ids = np.random.default_rng(0).normal(size=(301, 33)), np.arange(300)
    query, gallery = features[:1], features[1:]
    gallery[1::2] = gallery[0]  # 150 images of other identities, all equal to the only positive
    distances = FeatureDistances(query, gallery).rows(0, 1)[0]
    closer = int((distances[2::2] <= distances[0]).sum())
    metrics = evaluate_features(query, ids[:1], np.array([0]), gallery, ids, np.full(300, 1))
    assert metrics.first_hit.tolist() == [1 + 150 + closer]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_features_are_scored_by_their_distances(distance):
    query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras = case = feature_case(0)
    if distance == "cosine":
        query, gallery = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (query, gallery))
    distances = np.linalg.norm(query[:, None].astype(np.float64) - gallery[None], axis=2)
    slow = slow_metrics(distances, query_ids, query_cameras, gallery_ids, gallery_cameras)
    assert_equals_slow(evaluate_features(*case, distance=distance), slow)


def test_order_of_rows_does_not_matter():
    query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras = feature_case(1)
    gallery[50:90] = gallery[10]
    rng = np.random.default_rng(0)
    q, g = rng.permutation(len(query)), rng.permutation(len(gallery))
    one = evaluate_features(query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras)
    two = evaluate_features(query[q], query_ids[q], query_cameras[q], gallery[g], gallery_ids[g], gallery_cameras[g])
    np.testing.assert_allclose(two.average_precision, one.average_precision[q], rtol=1e-12)
    np.testing.assert_array_equal(two.first_hit, one.first_hit[q])


def test_block_sizes_do_not_matter(monkeypatch):
    case = feature_case(2)
    whole = evaluate_features(*case)
    done = []
    monkeypatch.setattr(module, "BLOCK_DISTANCES", 5 * 200)
    monkeypatch.setattr("reid.retrieval.distances.TILE_ROWS", 7)
    blocks = evaluate_features(*case, progress=lambda queries, total: done.append((queries, total)))
    assert len(done) > 5 and done[-1] == (30, 30)
    np.testing.assert_array_equal(blocks.average_precision, whole.average_precision)
    np.testing.assert_array_equal(blocks.first_hit, whole.first_hit)


def test_every_kind_of_array_gives_the_same_metrics(tmp_path):
    case = feature_case(3)
    expected = evaluate_features(*case).as_json()
    for index, array in enumerate(case):
        np.save(tmp_path / f"{index}.npy", array)
    halves = [array.astype(np.float16) if array.ndim == 2 else array.astype(np.uint8) for array in case]
    for same in (
        halves,
        [torch.from_numpy(array) for array in halves],
        [torch.from_numpy(array) for array in case],
        [np.load(tmp_path / f"{index}.npy", mmap_mode="r") for index in range(6)],
    ):
        assert evaluate_features(*same).as_json() == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_distances_of_any_type_are_scored_and_left_as_they_are(dtype):
    distances, *labels = random_case(4)
    typed = torch.from_numpy(distances * 10).to(dtype)
    before = typed.clone()
    assert_equals_slow(evaluate_distances(typed, *labels), slow_metrics(typed.tolist(), *labels))
    assert torch.equal(typed, before)


def test_distances_closer_than_float32_can_tell_are_told_apart():
    distances = np.array([[1 + 1e-12, 1.0]])
    metrics = evaluate_distances(distances, np.array([1]), np.array([0]), np.array([2, 1]), np.array([1, 1]))
    assert metrics.mAP == 1


@pytest.mark.gpu
def test_gpu_and_cpu_agree():
    case = feature_case(5, queries=300, gallery=3000)
    on_cpu = evaluate_features(*case)
    for on_gpu in (
        evaluate_features(*case, device="cuda"),
        evaluate_features(*(torch.from_numpy(array).cuda() for array in case)),
    ):
        # Rows that are nearly as far can change places where products are summed in another order.
        np.testing.assert_allclose(on_gpu.average_precision, on_cpu.average_precision, atol=1e-5)


def test_json_has_the_agreed_keys_and_strings_for_ranks():
    written = json.loads(json.dumps(evaluate_features(*feature_case(0), ranks=(1, 3)).as_json()))
    assert list(written) == ["mAP", "mINP", "cmc", "queries", "queries_skipped", "gallery"]
    assert list(written["cmc"]) == ["1", "3"]
    assert written["gallery"] == 200


def test_documented_example_is_true():
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_no_identity_in_common_is_explained():
    query, query_ids, query_cameras, *gallery = feature_case(0)
    with pytest.raises(ValueError, match="queries and gallery have no identity in common"):
        evaluate_features(query, query_ids + 100, query_cameras, *gallery)


def test_one_camera_for_all_is_explained_with_the_option_to_use():
    query, query_ids, _, gallery, gallery_ids, _ = feature_case(0)
    case = [query, query_ids, np.full(30, 6), gallery, gallery_ids, np.full(200, 6)]
    with pytest.raises(ValueError, match="of its camera, or the query's own picture; .* use junk=none"):
        evaluate_features(*case)
    assert evaluate_features(*case, junk="none").queries == 30


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (1, np.zeros(29, int), r"query_ids have shape \(29,\); expected \(30,\)"),
        (2, np.zeros((30, 1), int), r"query_groups have shape \(30, 1\)"),
        (4, np.zeros(30, int), r"gallery_ids have shape \(30,\); expected \(200,\)"),
        (5, np.full(200, 0.5), r"query_groups and gallery_groups: found 0.5, expected whole numbers or text"),
        (3, np.full((200, 16), np.nan), r"gallery_features: 200 of 200 rows are NaN"),
    ],
)
def test_unusable_arrays_are_refused_by_name(position, value, message):
    case = feature_case(0)
    case[position] = value
    with pytest.raises(ValueError, match=message):
        evaluate_features(*case)


@pytest.mark.parametrize("option", ["junk", "ap", "distance"])
def test_unknown_options_are_refused_with_the_choices(option):
    with pytest.raises(ValueError, match=f"{option} is 'other'; expected one of "):
        evaluate_features(*feature_case(0), **{option: "other"})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_distances_that_are_not_finite_are_refused(value):
    case = random_case(0)
    case[0][[2, 5], 3] = value
    with pytest.raises(ValueError, match=r"distances: 2 of 15 rows hold NaN or infinite values \(row 2, 5\)"):
        evaluate_distances(*case)


PEAK_MEMORY = """
import numpy as np
from reid.retrieval.metrics import evaluate_features

def kibibytes(key):
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith(key)))

rng = np.random.default_rng(0)
centres = rng.normal(size=(2_000, 16)).astype(np.float32)
query_ids, gallery_ids = rng.integers(0, 2_000, 6_000), rng.integers(0, 2_000, 40_000)
query, gallery = (centres[ids] + 0.1 * rng.normal(size=(len(ids), 1)) for ids in (query_ids, gallery_ids))
before = kibibytes("VmRSS")
evaluate_features(query, query_ids, np.zeros(6_000, int), gallery, gallery_ids, np.ones(40_000, int))
print((kibibytes("VmHWM") - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of the process from /proc")
def test_peak_memory_is_far_below_the_matrix_of_distances():
    output = subprocess.run([sys.executable, "-c", PEAK_MEMORY], capture_output=True, text=True, check=True).stdout
    assert int(output) < 0.5 * 6_000 * 40_000 * 4


@pytest.mark.slow
def test_memory_for_lists_of_positives_is_bounded_where_all_rows_are_positives(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_DISTANCES", 2**20)
    distances = torch.rand(200, 20_000, generator=torch.manual_seed(0))
    labels = [np.zeros(rows, int) for rows in (200, 200, 20_000, 20_000)]
    tracemalloc.start()  # sees what NumPy allocates
    metrics = evaluate_distances(distances, *labels, junk="none")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert metrics.mAP == pytest.approx(1)
    assert peak < 200 * 20_000 * 8  # one number for every positive


def test_queries_without_a_positive_may_fill_a_block(monkeypatch):
    """As in a large gallery asked first for known and then for unknown individuals."""
    monkeypatch.setattr(module, "BLOCK_DISTANCES", 1)
    for seed in range(20):
        case = random_case(seed)
        assert_equals_slow(evaluate_distances(*case), slow_metrics(*case))


@pytest.mark.parametrize("width", [32, 64])
def test_whole_numbers_tie_exactly_by_euclidean_distance(width):
    rng = np.random.default_rng(width)
    features = rng.integers(0, 2, (220, width)).astype(np.float32)
    ids, cameras = rng.integers(0, 10, 220), rng.integers(0, 3, 220)
    query, gallery = np.arange(20), np.arange(20, 220)
    exact = (features[query, None] != features[gallery]).sum(axis=2)
    labels = (ids[query], cameras[query], ids[gallery], cameras[gallery])
    found = evaluate_features(features[query], *labels[:2], features[gallery], *labels[2:], distance="euclidean")
    assert_equals_slow(found, slow_metrics(exact, *labels))


def double_distances(query, gallery, distance):
    """The distances of the definition in float64, of the features as they are."""
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    if distance == "euclidean":
        return np.stack([np.square(gallery - row).sum(axis=1) for row in query])
    lengths = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(gallery, axis=1)
    return 1 - query @ gallery.T / lengths


@pytest.mark.parametrize(("distance", "spread"), [("cosine", 30), ("euclidean", 90)])
def test_quantised_features_are_ranked_as_in_float64(distance, spread):
    """Whole numbers whose distances float32 does not hold: cosines of rows of many lengths, squares above 2^22."""
    rng = np.random.default_rng(0)
    features = rng.normal(0, spread, (2008, 500)).round().clip(-127, 127).astype(np.int8)
    ids, unknown = rng.integers(0, 2, 2008), np.full(2008, -1)
    labels = (ids[:8], unknown[:8], ids[8:], unknown[8:])
    found = evaluate_features(features[:8], *labels[:2], features[8:], *labels[2:], distance=distance)
    exact = evaluate_distances(double_distances(features[:8], features[8:], distance), *labels)
    np.testing.assert_allclose(found.average_precision, exact.average_precision, rtol=1e-12)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("offset", [0, 2, 100])
@pytest.mark.parametrize("on_gpu_code", [False, True])
def test_near_ties_are_ranked_as_in_float64(monkeypatch, distance, offset, on_gpu_code):
    """Negatives a few units of rounding from positives, which float32 alone puts in another order."""
    if on_gpu_code:
        monkeypatch.setattr(module, "_closer_negatives_on_cpu", module._closer_negatives_on_gpu)
    rng = np.random.default_rng(3)
    query_ids, gallery_ids = np.arange(20), np.repeat(np.arange(40), 10)
    query = (rng.normal(size=(20, 48)) + offset).astype(np.float32)
    positives = rng.normal(size=(200, 48)) + offset
    negatives = np.nextafter(positives.astype(np.float32), rng.choice([-np.inf, np.inf], (200, 48)).astype(np.float32))
    gallery = np.concatenate([positives, negatives[rng.permutation(200)]]).astype(np.float32)
    cameras = np.full(20, -1), np.full(400, -1)
    metrics = evaluate_features(query, query_ids, cameras[0], gallery, gallery_ids, cameras[1], distance=distance)
    slow = slow_metrics(double_distances(query, gallery, distance), query_ids, cameras[0], gallery_ids, cameras[1])
    assert_equals_slow(metrics, slow)
    if offset < 100:  # there the matrix product alone is wrong even without near ties
        plain = FeatureDistances(query, gallery, distance).rows(0, 20)
        alone = evaluate_distances(plain, query_ids, cameras[0], gallery_ids, cameras[1])
        assert not np.allclose(alone.average_precision, metrics.average_precision, rtol=1e-12)


@pytest.fixture
def compared(monkeypatch):
    """How many pairs are compared exactly, call by call."""
    compared: list[int] = []
    exact = FeatureDistances.exact

    def counted(self, queries, gallery):
        compared.append(len(gallery))
        return exact(self, queries, gallery)

    monkeypatch.setattr(FeatureDistances, "exact", counted)
    return compared


@pytest.mark.parametrize("on_gpu_code", [False, True])
def test_rows_that_are_all_equal_are_compared_once_a_query(monkeypatch, compared, on_gpu_code):
    """As of a collapsed model: every negative is as far away as every positive."""
    if on_gpu_code:
        monkeypatch.setattr(module, "_closer_negatives_on_cpu", module._closer_negatives_on_gpu)
    query_ids, gallery_ids = np.arange(4), np.repeat(np.arange(5), 20)
    cameras = np.full(4, -1), np.full(100, -1)
    row = np.random.default_rng(0).normal(size=16).astype(np.float32)
    query, gallery = np.tile(row, (4, 1)), np.tile(row, (100, 1))
    metrics = evaluate_features(query, query_ids, cameras[0], gallery, gallery_ids, cameras[1])
    assert_equals_slow(metrics, slow_metrics(np.zeros((4, 100)), query_ids, cameras[0], gallery_ids, cameras[1]))
    assert 0 < sum(compared) <= 4 * 100


def test_only_what_is_in_doubt_is_compared_again(compared):
    """Two positives, each with a near tie, far from each other with many negatives between."""
    angles = np.concatenate([[0.1, 1.5, 0.1, 1.5], np.linspace(0.2, 1.4, 50)])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    ids = np.array([0, 0, *[1] * 52])
    unknown = np.full(1, -1), np.full(54, -1)
    metrics = evaluate_features(np.array([[1, 0]], np.float32), np.zeros(1, int), unknown[0], gallery, ids, unknown[1])
    assert metrics.mAP == pytest.approx((1 / 2 + 2 / 54) / 2)
    assert sum(compared) == 4


@pytest.mark.parametrize("offset", [1, 100, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_offset_of_all_features_changes_no_euclidean_figure(offset, dtype):
    arguments = feature_case(1)
    before = evaluate_features(*arguments, distance="euclidean")
    arguments[0], arguments[3] = (features.astype(dtype) + dtype(offset) for features in (arguments[0], arguments[3]))
    # What float32 cannot hold at that offset is lost before: the figures are those of the features as they are given.
    after = evaluate_features(*arguments, distance="euclidean")
    oracle = slow_metrics(double_distances(arguments[0], arguments[3], "euclidean"), *arguments[1:3], *arguments[4:])
    assert_equals_slow(after, oracle)
    assert after.mAP == pytest.approx(before.mAP, abs=1e-3)
