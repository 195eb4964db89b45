"""Checked against `published_distances`, which follows the authors' code image by image."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from reid.retrieval import distances as distances_module
from reid.retrieval import neighbours as neighbours_module
from reid.retrieval import reranking as module
from reid.retrieval.reranking import PRESETS, KReciprocal, RerankedDistances, memory_estimate

SETTINGS = {
    **PRESETS,
    "k1 odd": KReciprocal(7, 3, 0.3),  # half of it is rounded to even
    "k1 odd, other way": KReciprocal(5, 2, 0.6),
    "no averaging": KReciprocal(8, 1, 0.3),
    "smallest": KReciprocal(1, 1, 0.3),
    "Jaccard alone": KReciprocal(10, 4, 0),
    "original alone": KReciprocal(10, 4, 1),
}


def published_distances(query, gallery, parameters, distance="cosine"):
    """Return the (Q, G) distances as `re_ranking` in zhunzhong07/person-re-ranking computes them, in float64."""
    k1, k2 = parameters.k1, parameters.k2
    features = np.concatenate([query, gallery]).astype(np.float64)
    if distance == "cosine":
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    original = np.array([[((a - b) ** 2).sum() for b in features] for a in features])
    original /= original.max(axis=1, keepdims=True)
    rank = np.argsort(original, axis=1, kind="stable")

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in rank[i, : k + 1] if i in rank[j, : k + 1]}

    encodings = np.zeros_like(original)
    for i in range(len(features)):
        own = reciprocal(i, k1)
        expanded = set(own)
        for candidate in own:
            others = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(others & own) > 2 / 3 * len(others):
                expanded |= others
        expanded = sorted(expanded)
        weights = np.exp(-original[i, expanded])
        encodings[i, expanded] = weights / weights.sum()
    if k2 > 1:
        encodings = np.array([encodings[rank[i, :k2]].mean(axis=0) for i in range(len(features))])
    result = np.empty((len(query), len(gallery)))
    for q in range(len(query)):
        for g in range(len(gallery)):
            overlap = np.minimum(encodings[q], encodings[len(query) + g]).sum()
            jaccard = 1 - overlap / (2 - overlap)
            result[q, g] = (1 - parameters.weight) * jaccard + parameters.weight * original[q, len(query) + g]
    return result


def clusters(
    queries: int = 25, gallery: int = 130, identities: int = 9, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features whose identities overlap a little, exactly representable in float16."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, identities, queries + gallery)
    features = rng.normal(size=(identities, 12))[ids] + 0.7 * rng.normal(size=(queries + gallery, 12))
    features = features.astype(np.float16).astype(np.float32)
    return features[:queries], features[queries:]


def reranked(query, gallery, parameters, **options) -> np.ndarray:
    return RerankedDistances(query, gallery, parameters, **options).rows(0, len(query)).numpy()


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("parameters", SETTINGS.values(), ids=SETTINGS)
def test_distances_are_the_published_ones(parameters, distance):
    query, gallery = clusters()
    expected = published_distances(query, gallery, parameters, distance)
    np.testing.assert_allclose(reranked(query, gallery, parameters, distance=distance), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("offset", [100, 1000, 10_000])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_features_far_from_zero_are_read_as_published(distance, offset):
    """All that tells them apart is a small part of each, and what float32 keeps of it is what counts."""
    sides = [(side + offset).astype(np.float32) for side in clusters()]
    expected = published_distances(*sides, PRESETS["zhong"], distance)
    np.testing.assert_allclose(reranked(*sides, PRESETS["zhong"], distance=distance), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("offset", [0, 100, 1000])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(10))
def test_neighbours_that_float32_would_swap_are_those_of_float64(seed, distance, offset):
    """Images come in bursts, some of the very same picture, whose distances differ in the last digits of float32.

    In float32 alone neighbours at the end of a list change places, and with them whole parts of an encoding.
    """
    rng = np.random.default_rng(seed)
    bursts = rng.normal(size=(40, 12))[rng.integers(0, 40, 150)]
    features = (bursts + rng.choice([0, 1e-6, 1e-5], (150, 1)) * rng.normal(size=(150, 12)) + offset).astype(np.float32)
    parameters = KReciprocal(int(rng.integers(2, 12)), 2, float(rng.choice([0.0, 0.3])))
    expected = published_distances(features[:30], features[30:], parameters, distance)
    found = reranked(features[:30], features[30:], parameters, distance=distance)
    np.testing.assert_allclose(found, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [4, 16])  # of 16 points and so with many duplicates, and of 65,536
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("parameters", SETTINGS.values(), ids=SETTINGS)
def test_exact_ties_are_read_as_published(parameters, distance, size):
    images = np.random.default_rng(0).choice([-1, 1], (140, size))  # distances of few values, exact in float32
    expected = published_distances(images[:20], images[20:], parameters, distance)
    np.testing.assert_allclose(
        reranked(images[:20], images[20:], parameters, distance=distance), expected, atol=1e-9, rtol=0
    )


@pytest.mark.parametrize(("queries", "gallery"), [(1, 1), (2, 1), (1, 5), (4, 17), (20, 30), (20, 31)])
@pytest.mark.parametrize("parameters", PRESETS.values(), ids=PRESETS)
def test_fewer_images_than_neighbours_work_as_published(queries, gallery, parameters):
    sides = clusters(queries, gallery, identities=3)
    np.testing.assert_allclose(reranked(*sides, parameters), published_distances(*sides, parameters), atol=1e-9, rtol=0)


def test_duplicates_more_than_the_lists_hold_work_as_published():
    query, gallery = clusters(10, 60)
    gallery[5:50] = query[3]  # the last of them are not even among their own nearest
    parameters = KReciprocal(6, 3, 0.3)
    expected = published_distances(query, gallery, parameters)
    np.testing.assert_allclose(reranked(query, gallery, parameters), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_images_that_are_all_the_same_are_equally_far(distance):
    result = reranked(np.ones((3, 4)), np.ones((12, 4)), KReciprocal(), distance=distance)
    np.testing.assert_allclose(result, 0, atol=1e-6)


def test_an_order_of_the_images_changes_nothing_but_the_order():
    query, gallery = clusters()
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(query)), rng.permutation(len(gallery))
    expected = reranked(query, gallery, PRESETS["zhong"])[rows][:, columns]
    np.testing.assert_allclose(reranked(query[rows], gallery[columns], PRESETS["zhong"]), expected, atol=1e-9, rtol=0)


def test_other_queries_are_neighbours_too():
    query, gallery = clusters()
    assert (
        np.abs(reranked(query, gallery, KReciprocal())[:1] - reranked(query[:1], gallery, KReciprocal())).max() > 1e-3
    )


@pytest.mark.parametrize("size", [1, 13, 64])
def test_blocks_change_nothing(monkeypatch, size):
    query, gallery = clusters()
    expected = reranked(query, gallery, PRESETS["transreid"])
    monkeypatch.setattr(neighbours_module, "BLOCK_DISTANCES", size * 155)
    monkeypatch.setattr(module, "ENCODED_ROWS", size)
    monkeypatch.setattr(distances_module, "PAIR_VALUES", size * 12)
    distances = RerankedDistances(query, gallery, PRESETS["transreid"])
    buffer = torch.full((len(query), len(gallery)), torch.nan, dtype=torch.float64)
    for start in range(0, len(query), size):
        block = distances.rows(start, min(start + size, len(query)), buffer[start : start + size])
        assert block.data_ptr() == buffer[start].data_ptr()
    np.testing.assert_allclose(buffer, expected, atol=1e-9, rtol=0)
    np.testing.assert_allclose(distances.rows(7, 9), expected[7:9], atol=1e-12, rtol=0)


def test_every_kind_of_array_gives_the_same_distances(tmp_path):
    query, gallery = clusters()
    expected = reranked(query, gallery, PRESETS["zhong"])
    np.save(tmp_path / "gallery.npy", gallery.astype(np.float16))
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    for same in (
        (query.astype(np.float16), gallery.astype(np.float16)),
        (query, mapped),
        (torch.from_numpy(query).double(), mapped),
        (torch.from_numpy(query), torch.from_numpy(gallery).requires_grad_()),
    ):
        np.testing.assert_array_equal(reranked(*same, PRESETS["zhong"]), expected)


def test_progress_counts_all_images():
    calls: list[tuple[int, int]] = []
    RerankedDistances(*clusters(), KReciprocal(), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (155, 155)


@pytest.mark.gpu
def test_gpu_and_cpu_agree():
    query, gallery = clusters()
    on_gpu = RerankedDistances(query, gallery, PRESETS["zhong"], device="cuda").rows(0, len(query))
    assert on_gpu.is_cuda
    np.testing.assert_allclose(on_gpu.cpu(), reranked(query, gallery, PRESETS["zhong"]), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k1": 0, "k2": 1}, r"k1 is 0; expected at least 1"),
        ({"k2": 0}, r"k2 is 0; expected between 1 and k1, which is 20"),
        ({"k1": 4, "k2": 5}, r"k2 is 5; expected between 1 and k1, which is 4"),
        ({"weight": 1.5}, r"weight is 1\.5; expected between 0 and 1"),
        ({"weight": float("nan")}, r"weight is nan; expected between 0 and 1"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        KReciprocal(**values)


def test_bad_features_are_refused_by_side_and_row():
    query, gallery = clusters()
    gallery[[4, 9]] = np.nan
    with pytest.raises(ValueError, match=r"gallery_features: 2 of 130 rows are NaN.* \(row 4, 9\)"):
        RerankedDistances(query, gallery, KReciprocal())
    with pytest.raises(ValueError, match="query_features have 11 columns and gallery_features 12"):
        RerankedDistances(query[:, :11], clusters()[1], KReciprocal())


PEAK_MEMORY = """
import sys
from pathlib import Path
import torch
from reid.retrieval.reranking import PRESETS, RerankedDistances
torch.set_num_threads(1)
def held(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])
def rerank(queries, gallery):
    distances = RerankedDistances(features[:queries], features[queries : queries + gallery], PRESETS["zhong"])
    for start in range(0, queries, 500):
        distances.rows(start, start + 500)
size, common = int(sys.argv[1]), float(sys.argv[2])
features = torch.randn(12_000, size, generator=torch.manual_seed(0)) + common
rerank(10, 100)  # whatever is allocated once
Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
before = held("VmRSS")
rerank(1_000, 11_000)
print(held("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of the process from /proc")
@pytest.mark.parametrize(("size", "common"), [(16, 0), (384, 5)])  # the latter point one way: mean cosine 0.96
def test_peak_memory_is_as_estimated(size, common):
    command = [sys.executable, "-c", PEAK_MEMORY, str(size), str(common)]
    # Otherwise glibc raises the size from which memory goes back at once: it keeps up to a third more of what is freed.
    fixed = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True, env=fixed).stdout)
    assert peak < 1.15 * memory_estimate(1_000, 11_000, size, PRESETS["zhong"])  # it wanders by a few percent
    if size == 16:
        assert peak < 0.6 * 12_000**2 * 4  # far below a matrix of all images
