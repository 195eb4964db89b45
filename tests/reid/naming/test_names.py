"""People's names tell individuals apart; a person's answer weighs more than they do."""

import numpy as np
import pytest

from reid.naming.candidates import nearest
from reid.naming.decisions import Decision
from reid.naming.names import agreeing, apart, at_least
from reid.naming.review import Review, answered

LOOK_ALIKES = 16


def named_groups(photos=4, seed=0):
    """Sixteen named groups of four photos that vectors hardly tell apart, joined by people; and their names."""
    random = np.random.default_rng(seed)
    truth = np.repeat(np.arange(LOOK_ALIKES), photos)
    vectors = (random.normal(size=(3, 24))[truth % 3] + 0.3 * random.normal(size=(len(truth), 24))).astype(np.float32)
    firsts = np.arange(0, len(truth), photos)
    joins = [Decision(int(first), int(first) + n, "same") for first in firsts for n in range(1, photos)]
    return vectors, truth, joins


def start(vectors, joins, names, **options):
    return Review(vectors, *nearest(vectors, 20), decisions=joins, names=names, **options)


def test_groups_of_different_names_are_neither_asked_about_nor_joined_and_count_as_many():
    vectors, truth, joins = named_groups()
    review = start(vectors, joins, truth)
    assert review.questions(50) == []
    assert review.machine_joins() == []
    status = review.status()
    assert (status.low, status.identities, status.high, status.questions_left) == (16, 16, 16, 0)
    unnamed = start(vectors, joins, None)
    assert unnamed.questions(50)
    assert unnamed.status().low < 16


def test_names_given_later_count_from_then_on_and_those_taken_back_no_more():
    vectors, truth, joins = named_groups()
    review = start(vectors, joins, None)
    review.call(truth)
    assert (review.questions(50), review.status().low) == ([], 16)
    review.call(np.full(len(truth), -1))
    assert review.questions(50)
    with pytest.raises(ValueError, match="names of 3 items beside vectors of 64"):
        review.call(truth[:3])


def test_names_that_may_be_one_are_asked_about_and_never_joined_by_the_machine():
    vectors, truth, joins = named_groups()
    alike = np.where(truth == 3, 0, truth)  # of one cluster, and spelt alike
    review = start(vectors, joins, alike)
    asked = review.questions(50)
    assert [{int(truth[one.a]), int(truth[one.b])} for one in asked] == [{0, 3}]
    low, identities = review.status().low, review.status().identities
    assert low == 15 <= identities <= 16
    places = np.arange(len(review.pairs.left))
    kept = review._once_named(places)
    ends = {frozenset((int(truth[review.pairs.left[one]]), int(truth[review.pairs.right[one]]))) for one in kept}
    assert frozenset((0, 3)) not in ends


def test_a_person_who_says_same_outweighs_names():
    vectors, truth, joins = named_groups()
    review = start(vectors, joins, truth)
    review.add([Decision(0, 12, "same", reviewer="ada")])
    assert review.groups.label[0] == review.groups.label[12]
    assert review.status().conflicts == ()
    assert (review.status().low, review.status().high) == (15, 15)
    review.add([Decision(0, 12, "withdrawn", supersedes=len(joins))])
    assert (review.status().low, review.status().high) == (16, 16)


def test_a_batch_of_the_machine_gives_no_group_two_names():
    """Two named pairs, each likeliest of one group without a name, which may have only one of them."""
    random = np.random.default_rng(1)
    truth = np.repeat(np.arange(12), 12)
    vectors = (3 * random.normal(size=(12, 24))[truth] + 0.4 * random.normal(size=(144, 24))).astype(np.float32)
    review = start(vectors, [], None, budget=0.3)
    for _ in range(40):
        for one in review.questions(4):
            review.add([answered(one, "same" if truth[one.a] == truth[one.b] else "different")])
        review._refresh()
        joins = review._once_named(np.arange(len(review.pairs.left)))
        assert len(joins) == len(review.pairs.left), "without names nothing is held back"
        smalls = [place for place in joins if review.pairs.small[place] <= 3 < review.pairs.large[place]]
        targets = np.array(
            [
                review.pairs.left[p] if review.pairs.sizes[review.pairs.left[p]] > 3 else review.pairs.right[p]
                for p in smalls
            ]
        )
        if len(targets) and np.bincount(targets).max() > 1:
            break
    target = int(np.bincount(targets).argmax())
    two = [place for place, one in zip(smalls, targets, strict=True) if one == target][:2]
    others = [int(review.pairs.left[p] + review.pairs.right[p]) - target for p in two]
    names = np.full(144, -1)
    names[others] = 0, 1
    review.call(names)
    review._refresh()
    assert review._once_named(np.array(two)).tolist() == two[:1]


def test_who_bears_a_name_in_common_is_not_told_apart():
    labels = np.array([0, 0, 2, 3, 3, 5, 6])
    names = np.array([0, 1, 1, 2, -1, -1, 0])
    pairs = np.array([(0, 2), (0, 3), (2, 3), (2, 5), (2, 6), (0, 6)])
    assert apart(names, labels, *pairs.T).tolist() == [False, True, True, False, True, False]
    assert at_least(names, labels) == 2  # those of names 0 and 1 are one, by group 0
    assert at_least(np.full(7, -1), labels) == 0
    assert not apart(np.full(7, -1), labels, *pairs.T).any()


def test_joins_that_would_connect_different_names_are_all_left_out():
    labels = np.arange(8)
    names = np.array([0, -1, 1, -1, -1, 2, -1, 2])
    a, b = np.array([(0, 1), (1, 2), (3, 4), (5, 6), (6, 7)]).T
    assert agreeing(names, labels, a, b).tolist() == [False, False, True, True, True]
    assert agreeing(names, np.array([0, 1, 2, 3, 3, 5, 3, 7]), a, b).tolist() == [False, False, True, True, True]
    by_group = np.array([0, 1, 1, 3, 4, 5, 6, 7])  # 1 and 2 are one by other answers
    assert agreeing(names, by_group, a[:1], b[:1]).tolist() == [False]


def test_who_has_no_name_is_likely_somebody_named_and_not_the_other_way_round():
    vectors, truth, joins = named_groups(photos=6)
    vectors += 2 * np.random.default_rng(1).normal(size=(LOOK_ALIKES, 24)).astype(np.float32)[truth]
    parts = [one for one in joins if one.b - one.a < 4]  # of six photos two stay alone,
    names = np.where(np.arange(len(truth)) % 6 == 5, truth, -1)  # of which one has the name
    review = start(vectors, parts, names)
    other, chance = review.likely()
    named = names >= 0
    assert (other[named] == -1).all() and (chance[named] == 0).all()
    found = (np.arange(len(truth)) % 6 < 4) & (other >= 0)
    assert found.sum() > len(truth) / 2
    assert named[other[found]].mean() > 0.9
    nameless, _ = start(vectors, parts, None).likely()
    assert (nameless[named] >= 0).any()
