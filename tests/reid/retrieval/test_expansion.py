"""Checked against `slow_expansion`, one row at a time from the definition."""

import numpy as np
import pytest
import torch

from reid.retrieval import expansion as module
from reid.retrieval.expansion import augment_database, expand_queries


def slow_expansion(row, gallery, neighbours, alpha):
    """Return `row` with its nearest `neighbours` rows of `gallery` added to it, in float64."""
    row = row / np.linalg.norm(row)
    gallery = [other / np.linalg.norm(other) for other in gallery]
    total = row.copy()
    for other in sorted(gallery, key=lambda other: -(row @ other))[:neighbours]:
        total += max(row @ other, 0) ** alpha * other
    return total / np.linalg.norm(total)


def features(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 2, (rows, 6)).astype(np.float16).astype(np.float64)


@pytest.mark.parametrize(("neighbours", "alpha"), [(1, 3.0), (4, 3.0), (4, 0.5), (30, 1.0)])
def test_queries_are_expanded_as_defined(neighbours, alpha):
    query, gallery = features(12, 0), features(30, 1)
    expected = [slow_expansion(row, gallery, neighbours, alpha) for row in query]
    result = expand_queries(query, gallery, neighbours, alpha)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(("neighbours", "alpha"), [(1, 3.0), (4, 0.5), (29, 1.0)])
def test_gallery_rows_are_joined_by_the_others(neighbours, alpha):
    gallery = features(30, 1)
    expected = [slow_expansion(row, np.delete(gallery, i, axis=0), neighbours, alpha) for i, row in enumerate(gallery)]
    np.testing.assert_allclose(augment_database(gallery, neighbours, alpha), expected, atol=1e-5)


def test_a_row_counts_once_among_its_duplicates():
    gallery = features(30, 1)
    gallery[4:24] = gallery[4]
    expected = [slow_expansion(row, np.delete(gallery, i, axis=0), 3, 3.0) for i, row in enumerate(gallery)]
    result = augment_database(gallery, 3)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(
        result[4:24], np.broadcast_to(gallery[4] / np.linalg.norm(gallery[4]), (20, 6)), atol=1e-6
    )


def test_a_neighbour_on_the_other_side_adds_nothing():
    np.testing.assert_allclose(expand_queries(np.array([[3.0, 0]]), np.array([[-1.0, 0.5]]), 1), [[1, 0]])


@pytest.mark.parametrize("size", [1, 100])
def test_neither_blocks_nor_the_kind_of_array_change_anything(monkeypatch, tmp_path, size):
    query, gallery = features(12, 0), features(30, 1)
    expected = expand_queries(query, gallery, 5), augment_database(gallery, 5)
    np.save(tmp_path / "gallery.npy", gallery.astype(np.float16))
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    monkeypatch.setattr(module, "BLOCK_VALUES", size)
    for same in (gallery, mapped, torch.from_numpy(gallery).float().requires_grad_()):
        np.testing.assert_allclose(expand_queries(query, same, 5), expected[0], atol=1e-6)
        np.testing.assert_allclose(augment_database(same, 5), expected[1], atol=1e-6)


def test_progress_counts_the_rows():
    calls: list[tuple[int, int]] = []
    expand_queries(features(12, 0), features(30, 1), 5, progress=lambda done, total: calls.append((done, total)))
    augment_database(features(30, 1), 5, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(12, 12), (30, 30)]


@pytest.mark.gpu
def test_gpu_and_cpu_agree():
    query, gallery = features(12, 0), features(30, 1)
    on_gpu = expand_queries(query, gallery, 5, device="cuda"), augment_database(gallery, 5, device="cuda")
    np.testing.assert_allclose(on_gpu[0], expand_queries(query, gallery, 5), atol=1e-5)
    np.testing.assert_allclose(on_gpu[1], augment_database(gallery, 5), atol=1e-5)


@pytest.mark.parametrize("neighbours", [0, 31])
def test_neighbours_that_the_gallery_does_not_have_are_refused(neighbours):
    with pytest.raises(ValueError, match=f"neighbours is {neighbours}; expected between 1 and 30"):
        expand_queries(features(12, 0), features(30, 1), neighbours)


def test_a_gallery_row_has_one_neighbour_less():
    with pytest.raises(ValueError, match="neighbours is 30; expected between 1 and 29"):
        augment_database(features(30, 1), 30)


@pytest.mark.parametrize("alpha", [-1.0, float("nan")])
def test_a_bad_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match=f"alpha is {alpha}; expected at least 0"):
        expand_queries(features(12, 0), features(30, 1), 5, alpha)


def test_bad_features_are_refused_by_side_and_row():
    gallery = features(30, 1)
    gallery[7] = 0
    for refused in (lambda: expand_queries(features(12, 0), gallery, 5), lambda: augment_database(gallery, 5)):
        with pytest.raises(ValueError, match=r"gallery_features: 1 of 30 rows have length zero.* \(row 7\)"):
            refused()


def test_an_exponent_of_0_adds_no_opposite():
    opposite = np.array([[1, 0], [-1, 0.0]], np.float32)
    np.testing.assert_allclose(augment_database(opposite, 1, 0.0), opposite, atol=1e-6)
