from collections import Counter

import numpy as np
import pytest

from reid.data.sampler import PKSampler, ShuffledSampler


def identities(*counts):
    return [identity for identity, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize("counts", [(4,) * 8, (1, 2, 3, 4, 5, 9, 31), (100, 1, 1, 1), (7, 7, 2, 40, 3)])
def test_a_batch_has_p_different_identities_of_k_images(counts):
    labels = identities(*counts)
    sampler = PKSampler(labels, p=3, k=4)
    batches = list(sampler.epoch(0))
    assert len(batches) == len(sampler)
    for batch in batches:
        groups = np.array(labels)[batch].reshape(3, 4)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == 3


def test_every_image_is_drawn_once_when_everything_divides():
    sampler = PKSampler(identities(*(8,) * 6), p=3, k=4)
    drawn = [i for batch in sampler.epoch(3) for i in batch]
    assert sorted(drawn) == list(range(48))
    assert len(sampler) == 4


def test_every_image_is_used_about_once():
    """Remainders repeat at most K - 1 draws an identity; what is left out changes, so some epochs reach every image."""
    counts = np.random.default_rng(0).integers(1, 30, 60)
    sampler = PKSampler(identities(*counts), p=8, k=4)
    drawn = Counter(i for batch in sampler.epoch(0) for i in batch)
    assert max(drawn[i] for i in range(counts.sum())) <= 4
    slots, images = len(sampler) * 32, counts.sum()
    assert images - 8 * 4 <= slots <= images + 3 * 60
    everything = {i for epoch in range(20) for batch in sampler.epoch(epoch) for i in batch}
    assert everything == set(range(images))


def test_identities_with_few_images_repeat_evenly():
    sampler = PKSampler(identities(1, 2, 3), p=3, k=4)
    (batch,) = list(sampler.epoch(0))
    drawn = Counter(batch)
    assert drawn[0] == 4
    assert drawn[1] == drawn[2] == 2
    assert sorted(drawn[i] for i in (3, 4, 5)) == [1, 1, 2]


def brute_force_batches(groups, p):
    """Deal batches greedily, always from the identities with most groups left: optimal for this problem."""
    left, batches = sorted(groups, reverse=True), 0
    while len([count for count in left if count]) >= p:
        left = sorted([count - 1 if i < p else count for i, count in enumerate(left)], reverse=True)
        batches += 1
    return batches


def test_length_is_the_largest_possible():
    random = np.random.default_rng(1)
    for _ in range(100):
        counts, p, k = (
            random.integers(1, 20, random.integers(3, 9)),
            int(random.integers(2, 4)),
            int(random.integers(1, 5)),
        )
        sampler = PKSampler(identities(*counts), p=p, k=k)
        assert len(sampler) == brute_force_batches([-(-count // k) for count in counts], p)
        assert len(list(sampler.epoch(0))) == len(sampler)


def test_an_epoch_depends_on_seed_and_number_alone():
    labels = identities(5, 6, 7, 8)
    one, two = PKSampler(labels, p=2, k=2, seed=7), PKSampler(labels, p=2, k=2, seed=7)
    list(one.epoch(0))
    assert list(one.epoch(4)) == list(two.epoch(4))
    assert list(one.epoch(4)) != list(one.epoch(5))
    assert list(one.epoch(4)) != list(PKSampler(labels, p=2, k=2, seed=8).epoch(4))


@pytest.mark.parametrize(
    ("counts", "p", "k", "message"),
    [
        ((9,), 2, 2, "has 1 identity, fewer than the P=2"),
        ((4, 4, 4), 4, 2, "has 3 identities, fewer than the P=4"),
        ((4, 4), 1, 2, "P=1 identities x K=2"),
    ],
)
def test_too_few_identities_are_explained(counts, p, k, message):
    with pytest.raises(ValueError, match=message):
        PKSampler(identities(*counts), p=p, k=k)


def test_shuffled_batches_hold_each_image_at_most_once_and_drop_the_rest():
    sampler = ShuffledSampler(22, batch_size=4)
    batches = list(sampler.epoch(0))
    assert len(batches) == len(sampler) == 5
    assert {len(batch) for batch in batches} == {4}
    drawn = [position for batch in batches for position in batch]
    assert len(set(drawn)) == 20
    everything = {position for epoch in range(8) for batch in sampler.epoch(epoch) for position in batch}
    assert everything == set(range(22)), "what is left out changes"


def test_shuffled_batches_follow_from_seed_and_epoch_alone():
    def deal(seed, epoch):
        return list(ShuffledSampler(22, batch_size=4, seed=seed).epoch(epoch))

    assert deal(1, 2) == deal(1, 2)
    assert len({str(deal(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6
    sampler = ShuffledSampler(22, batch_size=4, seed=1)
    list(sampler.epoch(0))
    assert list(sampler.epoch(2)) == deal(1, 2)


def test_too_few_images_for_a_batch_are_refused():
    with pytest.raises(ValueError, match="the training split has 3 images, fewer than a batch of 4; lower batch_size"):
        ShuffledSampler(3, batch_size=4)
