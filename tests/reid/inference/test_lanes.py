"""Batches in parts: the same rows in the same order, each part by one thread, and torch's own number left as it was."""

from threading import Barrier, Thread, current_thread

import numpy as np
import pytest
import torch

from reid.data.preprocessing import Preprocessing
from reid.inference.embedder import Embedder
from reid.inference.lanes import LEAST, Lanes
from reid.models.dcal import build_dcal


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_large_batches_are_shared_out_and_small_ones_are_not(two_threads):
    both = Barrier(2)  # or one thread might take both parts

    def look(part):
        if len(part) < 2 * LEAST - 1:
            both.wait(timeout=60)
        return part.tolist(), current_thread().name, torch.get_num_threads()

    lanes = Lanes()
    odd = torch.arange(2 * LEAST + 1)
    first, second = lanes.map(look, odd)
    assert first[0] + second[0] == odd.tolist()
    assert {first[1], second[1]} == {"lane_0", "lane_1"}
    assert first[2] == second[2] == 1
    few = odd[: 2 * LEAST - 1]
    assert lanes.map(look, few) == [(few.tolist(), current_thread().name, 2)]


def test_other_threads_keep_torchs_number(two_threads):
    lanes, seen = Lanes(), []
    lanes.map(lambda part: part @ part.T, torch.ones(64, 256))  # a layer that would be computed by all
    later = Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]
    assert torch.get_num_threads() == 2


def test_an_error_of_one_part_is_the_batchs(two_threads):
    def refuse(part):
        if part[0] > 0:
            raise ValueError("the second part")

    with pytest.raises(ValueError, match=r"^the second part$"):
        Lanes().map(refuse, torch.arange(2 * LEAST))


def test_embeddings_are_those_of_the_whole_batch(two_threads):
    torch.manual_seed(0)
    model, _ = build_dcal("vit_toy", (32, 16), 3)
    embedder = Embedder(model.eval(), Preprocessing((32, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), batch_size=12)
    widths = []
    model.register_forward_pre_hook(lambda _, given: widths.append(len(given[0])))
    images = torch.randn(21, 3, 32, 16)
    rows = embedder.embed_prepared(images)
    assert sorted(widths) == [4, 5, 6, 6]
    whole = np.concatenate([embedder._embed(images[:12]), embedder._embed(images[12:])])
    np.testing.assert_allclose(rows, whole, atol=1e-6)
