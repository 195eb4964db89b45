import math

import pytest
import torch
from timm.models.vision_transformer import Block

from reid.models.layers import open_block
from reid.models.rollout import class_row, local_queries


def looks(count=4, batch=2, heads=3, tokens=7, width=5, seed=0):
    """Layers with their queries and keys, the last layer first."""
    torch.manual_seed(seed)
    layer = open_block(Block(heads * width, heads))
    shape = (batch, tokens, heads, width)
    return [(layer, torch.randn(shape), torch.randn(shape)) for _ in range(count)]


def full_matrix(last_first):
    """The definition: the whole product Sbar_L ... Sbar_1, of which the class row is one row."""
    product = None
    for _, query, key in reversed(last_first):
        query, key = query.double().transpose(1, 2), key.double().transpose(1, 2)
        attention = (query @ key.transpose(-2, -1) * 5**-0.5).softmax(-1).mean(1)
        mixed = 0.5 * attention + 0.5 * torch.eye(attention.shape[-1], dtype=torch.float64)
        product = mixed if product is None else mixed @ product
    return product


@pytest.mark.parametrize("count", [1, 2, 5])
def test_class_row_is_the_full_products_row_and_sums_to_one(count):
    row = class_row(looks(count))
    torch.testing.assert_close(row.double(), full_matrix(looks(count))[:, 0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(row.sum(1), torch.ones(2))
    assert row.dtype == torch.float32


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_so_many_images_at_a_time_as_the_cache_holds_give_the_same_row(at_once, monkeypatch):
    monkeypatch.setattr("reid.models.layers.CACHED", at_once * 4 * 3 * 7**2)
    torch.testing.assert_close(class_row(looks(batch=5)).double(), full_matrix(looks(batch=5))[:, 0])


def test_class_row_takes_no_gradient_and_half_precision():
    halved = [(layer, query.bfloat16().requires_grad_(), key.bfloat16()) for layer, query, key in looks()]
    row = class_row(halved)
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
    one = local_queries(class_row(looks(seed=1)), 0.3, 1)
    (layer, query, key), *rest = looks(seed=1)
    other = local_queries(class_row([(layer, query, -key), *rest]), 0.3, 1)
    assert not torch.equal(one, other)
