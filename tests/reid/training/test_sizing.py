import pytest

from reid.config import ReidTrainOptions
from reid.training.sizing import with_batch, with_epochs


def batch(counts: list[int], size: int = 32, each: object = "auto") -> tuple[int, int]:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    options = ReidTrainOptions.model_validate({"batch_size": size, "images_per_identity": each})
    found = with_batch(options, labels)
    return found.batch_size // found.images_per_identity, found.images_per_identity


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([41] * 40, (8, 4)),
        ([3] * 200, (10, 3)),
        ([1] * 200, (16, 2)),
        ([2, 2, 2, 9] * 10, (16, 2)),
        ([60, 60, 60], (3, 10)),
        ([30, 30], (2, 16)),
        ([5] * 7, (7, 4)),
    ],
)
def test_p_and_k_are_by_what_is_there(counts: list[int], expected: tuple[int, int]) -> None:
    assert batch(counts) == expected
    assert batch(counts, each=16) == (2, 16), "unless they are said"


@pytest.mark.parametrize(("size", "expected"), [(4, (2, 2)), (5, (2, 2)), (6, (2, 3)), (7, (2, 3)), (8, (2, 4))])
def test_a_small_batch_has_two_identities(size: int, expected: tuple[int, int]) -> None:
    assert batch([41] * 40, size) == expected


def test_epochs_are_by_steps_unless_they_are_said() -> None:
    auto = ReidTrainOptions.model_validate({"epochs": "auto"})
    assert with_epochs(auto, 7).epochs == 57
    assert with_epochs(auto, 5_000).epochs == 10
    assert with_epochs(ReidTrainOptions(epochs=3), 7).epochs == 3


@pytest.mark.parametrize(
    ("epochs", "every", "expected"), [(57, -1, 6), (10, -1, 1), (3, -1, 1), (57, 20, 20), (57, 0, 0)]
)
def test_evaluations_are_ten_where_the_images_decide(epochs: int, every: int, expected: int) -> None:
    assert with_epochs(ReidTrainOptions(epochs=epochs, eval_every=every), 7).eval_every == expected
