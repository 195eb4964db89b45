import numpy as np
import pytest
import torch

from reid.retrieval import distances
from reid.retrieval.distances import FeatureDistances


def features(rows: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1, 2, (rows, size)).astype(np.float32)


def exact(query: np.ndarray, gallery: np.ndarray, distance: str) -> np.ndarray:
    """(Q, G) float64, row by row from the definition."""
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    result = np.empty((len(query), len(gallery)))
    for i, a in enumerate(query):
        for j, b in enumerate(gallery):
            if distance == "cosine":
                result[i, j] = 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
            else:
                result[i, j] = np.linalg.norm(a - b)
    return result


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("tile_rows", [1, 7, 4096])
def test_distances_are_those_of_the_definition(monkeypatch, distance, tile_rows):
    monkeypatch.setattr(distances, "TILE_ROWS", tile_rows)
    query, gallery = features(9, 12), features(31, 12, seed=1)
    result = FeatureDistances(query, gallery, distance).rows(2, 9)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, exact(query[2:], gallery, distance), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("values", [1, 50, 4096])
def test_exact_distances_are_those_of_the_definition_in_float64(monkeypatch, distance, values, offset):
    monkeypatch.setattr(distances, "PAIR_VALUES", values)
    monkeypatch.setattr(distances, "TILE_ROWS", values)
    query, gallery = features(9, 12) + offset, features(31, 12, seed=1) + offset
    left, right = torch.tensor([8, 0, 0, 3, 8, 7, 1]), torch.tensor([30, 0, 17, 17, 30, 2, 5])
    found, expected = FeatureDistances(query, gallery, distance), exact(query, gallery, distance)
    expected = expected**2 if distance == "euclidean" else expected
    np.testing.assert_allclose(found.exact(left, right), expected[left, right], rtol=1e-12, atol=1e-14)
    assert len(found.exact(left[:0], right[:0])) == 0
    block = found.exact_rows(2, 9)
    assert block.dtype == torch.float64
    np.testing.assert_allclose(block, expected[2:], rtol=1e-12, atol=1e-14)


def test_bounds_hold_for_far_rows_beside_many_near_zero():
    """What the product rounds grows with the two rows that are multiplied, not with those of the gallery on average."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 64))
    rows[:20] = 1000 * rng.normal(size=64) + 0.01 * rows[:20]
    rows[20:40] = 0.999 * rows[:20]
    rows = rows.astype(np.float32)
    found = FeatureDistances(rows[:40], rows, "euclidean")
    block, true = found.rows(0, 40).numpy(), exact(rows[:40], rows, "euclidean")
    low, high = found.bounds(torch.arange(40)[:, None], block)
    assert ((low <= true) & (true <= high)).all()


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_every_kind_of_array_gives_the_same_distances(tmp_path, distance):
    half = features(20, 8).astype(np.float16)
    np.save(tmp_path / "half.npy", half)
    expected = FeatureDistances(half.astype(np.float32), half.astype(np.float32), distance).rows(0, 20)
    for same in (
        half,
        half.astype(np.float64),
        half.astype(">f4"),
        np.asfortranarray(half),
        half[::-1].copy()[::-1],
        np.load(tmp_path / "half.npy", mmap_mode="r"),
        torch.from_numpy(half),
        torch.from_numpy(half).float().requires_grad_(),
    ):
        assert torch.equal(FeatureDistances(same, same, distance).rows(0, 20), expected)


@pytest.mark.parametrize("size", [7, 64, 384])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_equal_gallery_rows_have_equal_distances(monkeypatch, size, distance):
    monkeypatch.setattr(
        distances, "TILE_ROWS", 16
    )  # a last tile of one row is multiplied in another way than whole tiles
    gallery = features(33, size)
    gallery[[1, 15, 16, 31, 32]] = gallery[0]
    for queries in range(1, 9):
        block = FeatureDistances(features(queries, size, seed=1), gallery, distance).rows(0, queries)
        assert torch.equal(block[:, [1, 15, 16, 31, 32]], block[:, :1].expand(-1, 5))


def test_a_lower_precision_allowed_elsewhere_is_not_used_and_stays_allowed():
    distances = FeatureDistances(features(64, 256), features(5000, 256, seed=1))
    matmul, expected = torch.backends.mkldnn.matmul, distances.rows(0, 64)
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        assert torch.equal(distances.rows(0, 64), expected)
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


@pytest.mark.gpu
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_gpu_and_cpu_agree(distance):
    query, gallery = features(64, 256), features(5000, 256, seed=1)
    on_gpu = FeatureDistances(query, gallery, distance, device="cuda").rows(0, 64)
    assert on_gpu.is_cuda
    torch.testing.assert_close(
        on_gpu.cpu(), FeatureDistances(query, gallery, distance).rows(0, 64), rtol=1e-5, atol=1e-5
    )


def with_rows(value: float, *rows: int) -> np.ndarray:
    array = features(10, 4)
    array[list(rows)] = value
    return array


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (with_rows(np.nan, 3, 7), features(10, 4), r"query_features: 2 of 10 rows are NaN, infinite .* \(row 3, 7\)"),
        (features(10, 4), with_rows(np.inf, 9), r"gallery_features: 1 of 10 rows are NaN, infinite .* \(row 9\)"),
        (features(10, 4), with_rows(1e30, 9), r"gallery_features: 1 of 10 rows are .* too large for float32 \(row 9\)"),
        (with_rows(0, *range(9)), features(10, 4), r"9 of 10 rows have length zero.* \(row 0, 1, 2, 3, 4, \.\.\.\)"),
        (features(10, 4), with_rows(0, 2), r"gallery_features: 1 of 10 rows have length zero"),
        (features(10, 4), features(10, 5), r"query_features have 4 columns and gallery_features 5"),
        (features(0, 4), features(10, 4), r"query_features have shape \(0, 4\)"),
        (features(10, 4), features(0, 4), r"gallery_features have shape \(0, 4\)"),
        (features(10, 4)[0], features(10, 4), r"query_features have shape \(4,\); expected \(rows, columns\)"),
        (features(10, 4), features(10, 4).astype(str), r"gallery_features are of type <U32; expected real numbers"),
        (features(10, 4), torch.ones(10, 4, dtype=torch.bool), r"gallery_features are of type torch.bool"),
    ],
)
def test_unusable_features_are_refused_by_name_and_row(query, gallery, message):
    with pytest.raises(ValueError, match=message):
        FeatureDistances(query, gallery)


def test_rows_of_zeros_have_a_euclidean_distance():
    assert FeatureDistances(np.zeros((1, 2)), np.array([[3.0, 4.0], [0, 0]]), "euclidean").rows(0, 1).tolist() == [
        [5, 0]
    ]


def test_unknown_distance_is_refused():
    with pytest.raises(ValueError, match="distance is 'cosin'; expected one of cosine, euclidean"):
        FeatureDistances(features(2, 2), features(2, 2), "cosin")


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
def test_embeddings_that_point_one_way_keep_their_differences(spread):
    """As trained class tokens do: cosines close to 1, whose last digits are the ranking."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=64) + spread * rng.normal(size=(300, 64))).astype(np.float32)
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    exact = ((unit[:40, None] - unit[None, 40:]) ** 2).sum(axis=2) / 2
    distances = FeatureDistances(features[:40], features[40:])
    found = distances.rows(0, 40).numpy()
    np.testing.assert_allclose(found, exact, rtol=2e-3 if spread == 1e-4 else 2e-4)
    naive = (
        1
        - (features[:40] / np.linalg.norm(features[:40], axis=1, keepdims=True))
        @ (features[40:] / np.linalg.norm(features[40:], axis=1, keepdims=True)).T
    )
    assert np.abs(found - exact).max() < 0.1 * np.abs(naive - exact).max()
    np.testing.assert_allclose(distances.exact_rows(0, 40), exact, rtol=1e-9, atol=1e-15)


def test_codes_of_whole_numbers_tie_exactly_by_cosine():
    rng = np.random.default_rng(0)
    codes = rng.choice([-1.0, 1.0], (200, 32)).astype(np.float32)
    found = FeatureDistances(codes[:20], codes[20:]).rows(0, 20).numpy()
    exact = 32 - codes[:20] @ codes[20:].T
    assert len(np.unique(found)) == len(np.unique(exact))
