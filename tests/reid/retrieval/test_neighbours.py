"""Checked against a stable sort of every row."""

import numpy as np
import pytest
import torch

from reid.retrieval import neighbours as module
from reid.retrieval.distances import FeatureDistances
from reid.retrieval.neighbours import nearest


class Matrix:
    """A matrix as `Distances`."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = torch.from_numpy(matrix.astype(np.float32))
        self.shape = matrix.shape
        self.device = self.matrix.device

    def rows(self, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor:
        block = self.matrix[start:stop]
        return block.clone() if out is None else out.copy_(block)


def assert_equals_sorted(found: module.Neighbours, matrix: np.ndarray, count: int) -> None:
    order = np.argsort(matrix, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_array_equal(found.distances, np.take_along_axis(matrix, order, axis=1).astype(np.float32))
    np.testing.assert_array_equal(found.farthest, matrix.argmax(axis=1))


@pytest.mark.parametrize("values", [2, 5, 10**6])  # few values: ties inside the list and across its end
@pytest.mark.parametrize("count", [1, 2, 19, 39, 40])
def test_neighbours_are_those_of_a_stable_sort(values, count):
    matrix = np.random.default_rng(0).integers(0, values, (25, 40)) / 4
    assert_equals_sorted(nearest(Matrix(matrix), count), matrix, count)


def test_where_all_distances_are_equal_the_first_rows_come_first():
    assert_equals_sorted(nearest(Matrix(np.full((3, 5000), 0.5)), 7), np.full((3, 5000), 0.5), 7)


@pytest.mark.parametrize("size", [1, 40, 200, 10**6])
def test_blocks_change_nothing_and_progress_reaches_the_end(monkeypatch, size):
    monkeypatch.setattr(module, "BLOCK_DISTANCES", size)
    matrix = np.random.default_rng(0).integers(0, 9, (25, 40)).astype(float)
    calls: list[tuple[int, int]] = []
    found = nearest(Matrix(matrix), 6, progress=lambda done, total: calls.append((done, total)))
    assert_equals_sorted(found, matrix, 6)
    assert calls == sorted(set(calls))
    assert calls[-1] == (25, 25)


def test_duplicate_images_come_in_the_order_of_the_gallery():
    gallery = np.random.default_rng(0).normal(size=(60, 24))
    gallery[[3, 17, 18, 40, 59]] = gallery[3]
    found = nearest(FeatureDistances(gallery[[17, 59]], gallery), 3)
    np.testing.assert_array_equal(found.indices, [[3, 17, 18]] * 2)


@pytest.mark.parametrize("size", [1, 100, 2**22])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_rows_that_float32_cannot_tell_apart_have_the_order_of_float64(monkeypatch, distance, size):
    """Each of 12 rows is there 8 times, moved by less than float32 keeps of a distance, but not of a feature."""
    monkeypatch.setattr(module, "SEARCHED_DISTANCES", size)
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(12, 8)), 8, axis=0)[rng.permutation(96)]
    rows = (rows + 1e-7 * rng.normal(size=rows.shape)).astype(np.float32)
    wide = rows.astype(np.float64)
    wide = wide / np.linalg.norm(wide, axis=1, keepdims=True) if distance == "cosine" else wide
    squared = ((wide[:, None] - wide) ** 2).sum(axis=2)
    distances = FeatureDistances(rows, rows, distance)
    assert (np.argsort(distances.rows(0, 96).numpy(), axis=1) != np.argsort(squared, axis=1)).any()
    found = nearest(distances, 21)
    expected = np.argsort(squared, axis=1, kind="stable")[:, :21]
    if distance == "euclidean":
        np.testing.assert_array_equal(found.indices, expected)
    else:  # 1 - cosine, of rows nearly equal, has few digits of their distance
        away = np.take_along_axis(squared, found.indices, axis=1)
        np.testing.assert_allclose(away, np.take_along_axis(squared, expected, axis=1), atol=1e-15)
    np.testing.assert_array_equal(found.farthest, squared.argmax(axis=1))


@pytest.mark.parametrize("count", [0, 41, -1])
def test_a_count_that_the_gallery_does_not_have_is_refused(count):
    with pytest.raises(ValueError, match=f"{count} nearest rows asked for; expected between 1 and the 40 "):
        nearest(Matrix(np.zeros((2, 40))), count)


@pytest.mark.gpu
def test_gpu_and_cpu_agree():
    features = np.random.default_rng(0).integers(-3, 4, (300, 4)) + 0.5  # exact in float32, with many ties
    on_cpu, on_gpu = (
        nearest(FeatureDistances(features, features, "euclidean", device), 9) for device in ("cpu", "cuda")
    )
    np.testing.assert_array_equal(on_gpu.indices, on_cpu.indices)
