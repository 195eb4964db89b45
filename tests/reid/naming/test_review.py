from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from reid.naming.agreement import b_cubed
from reid.naming.candidates import nearest
from reid.naming.decisions import Decision
from reid.naming.pairs import Pairs
from reid.naming.review import Review, answered


def world(seed=0, individuals=15, photos=8, noise=0.55, size=24):
    random = np.random.default_rng(seed)
    truth = np.repeat(np.arange(individuals), photos)
    vectors = random.normal(size=(individuals, size))[truth] + noise * random.normal(size=(len(truth), size))
    return vectors.astype(np.float32), truth


def start(vectors, **options):
    return Review(vectors, *nearest(vectors, 12), **options)


def work(review, truth, most, error=0.0, seed=0):
    """Answer until B-cubed 0.95, or so many questions; the number asked."""
    random = np.random.default_rng(seed)
    asked = 0
    while asked < most and b_cubed(review.groups.label, truth) < 0.95:
        questions = review.questions(2)
        if not questions:
            break
        for question in questions:
            right = bool(truth[question.a] == truth[question.b]) ^ bool(random.random() < error)
            review.add([answered(question, "same" if right else "different", "r")])
            asked += 1
        while joins := review.machine_joins():
            review.add(joins)
    return asked


def test_everybody_is_named_with_fewer_questions_than_items_and_few_wrong_joins():
    vectors, truth = world(noise=0.45)
    review = start(vectors)
    asked = work(review, truth, 200)
    joins = [decision for decision in review.groups.decisions if decision.basis == "machine"]
    assert b_cubed(review.groups.label, truth) >= 0.95
    assert asked < len(truth)
    assert sum(truth[join.a] != truth[join.b] for join in joins) <= 1
    status = review.status()
    assert status.low <= 15 <= status.high
    assert 0.5 < status.settled <= 1
    assert not status.weak


def test_wrong_answers_are_asked_again_and_do_not_chain_groups():
    vectors, truth = world()
    review = start(vectors, errors={"r": 0.05})
    work(review, truth, 400, error=0.05)
    assert b_cubed(review.groups.label, truth) >= 0.95
    repeated = [pair for pair, number in review.groups.answers.items() if number > 1]
    assert repeated


def test_a_conflict_is_the_first_thing_asked_about():
    vectors, truth = world()
    review = start(vectors)
    work(review, truth, 40)
    items = np.nonzero(truth == 0)[0].tolist()
    review.add([Decision(a, b, "same") for a, b in pairwise(items)])
    review.add([Decision(items[0], items[-1], "different")])
    assert (items[0], items[-1]) in review.status().conflicts
    question = review.questions(1)[0]
    assert question.reason == "conflict"
    assert {question.a, question.b} <= set(items)


def test_nobody_gets_a_question_twice():
    vectors, _ = world()
    review = start(vectors)
    first = review.questions(5)
    second = review.questions(5, leased=[(question.a, question.b) for question in first])
    ends = [{question.a, question.b} for question in (*first, *second)]
    assert len(set().union(*ends)) == 20


def test_what_nobody_can_tell_is_not_asked_again():
    vectors, _ = world()
    review = start(vectors)
    question = review.questions(1)[0]
    review.add([answered(question, "not_comparable")])
    for _ in range(20):
        other = review.questions(1)[0]
        assert {other.a, other.b} != {question.a, question.b}
        review.add([answered(other, "unsure")])


def test_items_of_different_views_are_never_compared():
    vectors, truth = world()
    views = np.arange(len(truth)) % 2
    review = Review(vectors, *nearest(vectors, 12), views=views)  # neighbours of both views, which it must sort out
    for _ in range(15):
        for question in review.questions(4):
            assert views[question.a] == views[question.b]
            review.add([answered(question, "same" if truth[question.a] == truth[question.b] else "different")])


def test_what_is_kept_from_answer_to_answer_is_what_a_new_review_of_the_decisions_finds():
    vectors, truth = world()
    review = start(vectors)
    work(review, truth, 45)
    again = start(vectors, decisions=review.groups.decisions)
    assert (review.groups.label == again.groups.label).all()
    review._relearn()
    review._refresh()
    again._refresh()
    # Which items are near in the space depends a little on who was near before.
    ends = [
        dict(zip(zip(one.pairs.left, one.pairs.right, strict=True), one.probability, strict=True))
        for one in (review, again)
    ]
    shared = ends[0].keys() & ends[1].keys()
    assert len(shared) > 0.9 * max(map(len, ends))
    assert np.mean([abs(ends[0][pair] - ends[1][pair]) for pair in shared]) < 0.02


def test_cached_evidence_is_that_of_a_full_computation():
    vectors, truth = world()
    review = start(vectors)
    for _ in range(6):  # fewer answers than a refit takes
        question = review.questions(1)[0]
        review.add([answered(question, "same" if truth[question.a] == truth[question.b] else "different")])
    review._refresh()
    again = Pairs(review.pairs.material, review.pairs.lesson)
    again.update(review.groups.label)
    again.rank(review._odds, review._told)
    assert (again.left == review.pairs.left).all() and (again.right == review.pairs.right).all()
    assert review.pairs.features == pytest.approx(again.features, abs=1e-4)


def test_without_a_budget_the_machine_joins_nothing():
    vectors, truth = world()
    review = start(vectors, budget=0.0)
    work(review, truth, 150)
    assert not any(decision.basis == "machine" for decision in review.groups.decisions)


def test_a_wrong_decision_in_a_batch_leaves_nothing_of_it():
    vectors, _ = world()
    review = start(vectors)
    with pytest.raises(ValueError, match="item 999"):
        review.add([Decision(0, 1, "same"), Decision(0, 999, "same")])
    assert review.groups.decisions == []


def test_a_history_with_corrections_opens_a_review_that_knows_what_holds_alone():
    vectors, truth = world()
    review = start(vectors)
    work(review, truth, 45)
    asked = [number for number, decision in enumerate(review.groups.decisions) if decision.basis == "visual"]
    for number in (asked[0], asked[1]):
        wrong = review.groups.decisions[number]
        review.add([Decision(wrong.a, wrong.b, "unsure", supersedes=number)])
    history = review.groups.decisions
    again = start(vectors, decisions=history)
    assert (review.groups.label == again.groups.label).all()
    with pytest.raises(ValueError, match=f"supersedes {asked[0]}: expected an earlier decision that still holds"):
        again.add([Decision(0, 1, "same", supersedes=asked[0])])
    twice = [Decision(0, 1, "same", supersedes=asked[2])] * 2
    with pytest.raises(ValueError, match=f"supersedes {asked[2]}: expected"):
        again.add(twice)
    assert again.groups.decisions == history


def test_what_was_taken_back_teaches_nothing():
    vectors, _ = world()
    review, untaught = start(vectors), start(vectors)
    question = review.questions(1)[0]
    join = Decision(question.a, question.b, "same", "machine", evidence=(0.6,))
    review.add([join, answered(question, "unsure"), *[answered(question, "same")] * 12])
    assert review._closed
    assert review._odds.weights != pytest.approx(untaught._odds.weights, abs=1e-3)
    review.add([Decision(0, 1, "same", supersedes=number) for number in range(14)])
    assert not review._asked and not review._closed
    assert review._odds.weights == pytest.approx(untaught._odds.weights, abs=1e-3)


def test_vectors_that_tell_nothing_are_called_weak_early():
    truth = np.repeat(np.arange(60), 2)
    vectors = np.random.default_rng(0).normal(size=(120, 24)).astype(np.float32)
    review = start(vectors)
    work(review, truth, 60)
    status = review.status()
    assert status.weak
    assert "the vectors tell little" in status.words()


@pytest.mark.parametrize(
    "change, words",
    [({"rows": np.zeros((2, 3), int)}, "rows of 2 items"), ({"views": np.zeros(5, int)}, "views of 5 items")],
)
def test_arrays_of_other_lengths_are_refused(change, words):
    vectors, _ = world()
    rows, scores = nearest(vectors, 3)
    given = {"rows": rows, "scores": scores, **change}
    with pytest.raises(ValueError, match=words):
        Review(vectors, given.pop("rows"), given.pop("scores"), **given)


def test_a_budget_of_one_is_refused():
    vectors, _ = world()
    with pytest.raises(ValueError, match=r"error budget 1: expected a share"):
        start(vectors, budget=1)


def test_one_item_needs_no_question_and_none_is_refused():
    vectors = np.ones((1, 4), np.float32)
    review = Review(vectors, np.full((1, 1), -1), np.full((1, 1), -np.inf))
    assert review.questions(3) == []
    assert review.machine_joins() == []
    assert review.status().groups == 1
    with pytest.raises(ValueError, match="vectors of no items"):
        Review(vectors[:0], np.empty((0, 1), int), np.empty((0, 1)))


def test_no_more_items_move_than_there_are_and_no_more_questions_are_told_of_than_are_left():
    """Of few photos that are all alike, each of which is likely to be any other."""
    vectors, _ = world(individuals=1, photos=20, noise=0.05)
    status = start(vectors).status()
    assert 0 < status.next_changes <= 20
    assert status.words().startswith(f"the next {min(100, status.questions_left)} questions would change about ")
    assert replace(status, questions_left=0).words() == "no likely question is left"


def test_flanks_of_which_vectors_tell_more_or_less_have_probabilities_of_their_own():
    vectors, truth = world(individuals=20, photos=10, noise=0.4)
    views = np.arange(len(truth)) % 2
    vectors[views == 1] += np.random.default_rng(3).normal(size=(100, 24)).astype(np.float32)  # a poor camera
    given = (vectors, *nearest(vectors, 12, views))
    review = Review(*given, views=views)
    assert review._odds.offsets.tolist() == [0, 0]
    while min(np.bincount([answer.view for answer in review._asked.values()], minlength=2)) < 60:
        for one in review.questions(4):
            review.add([answered(one, "same" if truth[one.a] == truth[one.b] else "different")])
    review._relearn()
    review._refresh()
    assert (review._odds.offsets != 0).all()
    again = Review(*given, views=views, decisions=review.groups.decisions)
    assert again._odds.offsets == pytest.approx(review._odds.offsets, abs=0.05)
    pairs = review.pairs
    right = truth[pairs.lesson.low[pairs.edge]] == truth[pairs.lesson.high[pairs.edge]]
    for view in (0, 1):
        of = (pairs.views == view) & (review._told == 0)
        assert review.probability[of].sum() == pytest.approx(right[of].sum(), rel=0.4)


def test_views_that_are_all_alike_change_nothing():
    vectors, truth = world()
    with_views, without = start(vectors, views=np.full(len(truth), 7)), start(vectors)
    for review in (with_views, without):
        work(review, truth, 60)
    assert with_views.groups.decisions == without.groups.decisions
    assert (with_views.probability == without.probability).all()


def test_to_ask_for_the_status_changes_nothing_and_tells_the_same_twice():
    vectors, truth = world(noise=0.45)
    watched, alone = start(vectors, seed=3), start(vectors, seed=3)
    asked = []
    for _ in range(60):
        status = watched.status()
        assert watched.status() == status
        questions = watched.questions(2)
        assert alone.questions(2) == questions
        asked += questions
        answers = [
            answered(question, "same" if truth[question.a] == truth[question.b] else "different", "r")
            for question in questions
        ]
        for review in (watched, alone):
            review.add(answers)
            review.add(review.machine_joins())
    assert "audit" in {question.reason for question in asked}  # which are drawn by chance
    assert alone.status() == watched.status()


def test_the_interval_of_another_seed_is_drawn_by_other_numbers():
    vectors, truth = world()
    worked = start(vectors)
    work(worked, truth, 80)
    again = [start(vectors, seed=seed, decisions=worked.groups.decisions).status() for seed in range(5)]
    assert len({(status.low, status.high) for status in again}) > 1


def test_an_item_is_likely_of_the_known_group_that_going_through_all_pairs_finds_and_that_decides_nothing():
    vectors, truth = world()
    review = start(vectors)
    work(review, truth, 70)
    label, decided = review.groups.label.copy(), list(review.groups.decisions)
    other, chance = review.likely()
    sizes = np.bincount(label)
    pairs = list(zip(review.pairs.left.tolist(), review.pairs.right.tolist(), review.probability, strict=True))
    expected = {}
    for group in np.unique(label).tolist():
        found = [(p, a + b - group) for a, b, p in pairs if group in (a, b)]
        larger = sorted(((p, mate) for p, mate in found if (sizes[mate], group) > (sizes[group], mate)), reverse=True)
        total = max(sum(p for p, _ in larger[:10]), 1)
        known = [(p / total, mate) for p, mate in larger[:10] if sizes[mate] > 1]
        if known and known[0][0] > 0.05:
            expected[group] = known[0]
    assert len(expected) > 10
    assert {int(one) for one in label[other >= 0]} == expected.keys()
    for item, group in enumerate(label.tolist()):
        p, mate = expected.get(group, (0.0, None))
        assert chance[item] == pytest.approx(p)
        assert other[item] == -1 if mate is None else label[other[item]] == mate
    assert (truth[other] == truth)[other >= 0].mean() > 0.5
    assert review.groups.decisions == decided and (review.groups.label == label).all()
