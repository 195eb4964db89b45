import math

import pytest
import torch

from reid.models.rollout import class_row, local_queries


def layers(count=4, batch=2, heads=3, tokens=7, width=5, seed=0):
    torch.manual_seed(seed)
    make = lambda: [torch.randn(batch, heads, tokens, width) for _ in range(count)]  # noqa: E731
    return make(), make()


def full_matrix(queries, keys, scale):
    """The definition: the whole product Sbar_L ... Sbar_1, of which the class row is one row."""
    product = None
    for query, key in zip(queries, keys, strict=True):
        attention = (query.double() @ key.double().transpose(-2, -1) * scale).softmax(-1).mean(1)
        mixed = 0.5 * attention + 0.5 * torch.eye(attention.shape[-1], dtype=torch.float64)
        product = mixed if product is None else mixed @ product
    return product


@pytest.mark.parametrize("count", [1, 2, 5])
def test_class_row_is_the_full_products_row_and_sums_to_one(count):
    queries, keys = layers(count)
    row = class_row(queries, keys, 5**-0.5)
    torch.testing.assert_close(row.double(), full_matrix(queries, keys, 5**-0.5)[:, 0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(row.sum(1), torch.ones(2))
    assert row.dtype == torch.float32


def test_class_row_takes_no_gradient_and_half_precision():
    queries, keys = layers()
    queries[0].requires_grad_()
    row = class_row([q.bfloat16() for q in queries], [k.bfloat16() for k in keys], 1.0)
    assert not row.requires_grad
    assert row.dtype == torch.float32


@pytest.mark.parametrize(("patches", "ratio", "count"), [(128, 0.3, 39), (784, 0.1, 79), (4, 0.01, 1), (9, 1.0, 9)])
def test_number_of_queries_rounds_up(patches, ratio, count):
    assert local_queries(torch.rand(2, 1 + patches), ratio, 1).shape == (2, count)
    assert count == max(1, math.ceil(ratio * patches))


def test_chosen_patches_are_the_strongest_by_a_hand_written_sort():
    row = torch.rand(5, 1 + 4 + 20, generator=torch.Generator().manual_seed(3))
    chosen = local_queries(row, 0.25, prefix=5)
    for image in range(5):
        by_hand = sorted(range(5, 25), key=lambda token: -row[image, token].item())[:5]
        assert chosen[image].tolist() == by_hand


def test_choice_changes_with_the_attention():
    queries, keys = layers(seed=1)
    one = local_queries(class_row(queries, keys, 1.0), 0.3, 1)
    keys[-1] = keys[-1].flip(2)
    other = local_queries(class_row(queries, keys, 1.0), 0.3, 1)
    assert not torch.equal(one, other)
