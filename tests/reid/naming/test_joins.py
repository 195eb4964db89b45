import numpy as np
import pytest

from reid.naming.joins import LEAST_KNOWN, level
from reid.naming.probability import FEATURES, Answered, Odds

ODDS = Odds(np.eye(len(FEATURES))[FEATURES.index("evidence")], np.eye(len(FEATURES)))


def answer(odds, same, larger=8, smaller=1, error=0.001):
    features = dict.fromkeys(FEATURES, 0.0) | {
        "evidence": odds,
        "larger": float(np.log(larger)),
        "smaller": float(np.log(smaller)),
    }
    return Answered(tuple(features[name] for name in FEATURES), same, error)


def test_joins_go_down_to_where_answers_vouch_for_them():
    random = np.random.default_rng(0)
    odds = random.uniform(2.3, 6, 4000)
    wrong = 1 / (1 + np.exp(odds))
    for times in (0.2, 0.8):  # as often wrong as told
        answers = [answer(*one) for one in zip(odds, random.random(len(odds)) > times * wrong, strict=True)]
        found, often = level(answers, ODDS, 0.01)
        assert often == pytest.approx(times, abs=0.15)
        assert times / (1 + np.exp(found)) == pytest.approx(0.01, rel=0.4)
        assert found > level(answers, ODDS, 0.05)[0]  # who allows more mistakes gets more joins


def test_slips_of_who_answers_do_not_count_against_the_machine():
    answers = [answer(4, True, error=0.05)] * 190 + [answer(4, False, error=0.05)] * 10
    believed = [one._replace(error=0.001) for one in answers]
    assert level(answers, ODDS, 0.01)[1] < 1 < level(believed, ODDS, 0.01)[1]


def test_few_answers_vouch_for_none_but_the_surest():
    assert level([answer(4, True)] * 10, ODDS, 0.01)[0] > 4.2
    assert level([answer(4, True)] * 10 + [answer(4, False)], ODDS, 0.01)[0] > 5


@pytest.mark.parametrize(
    "answers",
    [
        [answer(4, True, larger=1)] * 150,  # somebody new with every answer
        [],
    ],
)
def test_without_such_answers_the_machine_joins_nothing(answers):
    assert level(answers, ODDS, 0.01)[0] == np.inf


@pytest.mark.parametrize("other", [{"larger": LEAST_KNOWN - 1}, {"smaller": 9}, {"odds": 1}])
def test_answers_about_pairs_that_were_not_sure_vouch_for_none(other):
    one = answer(**{"odds": 4, "same": True} | other)
    assert level([one] * 150, ODDS, 0.01) == level([one], ODDS, 0.01)
    assert level([one] * 150, ODDS, 0.01)[0] > 4


def test_without_a_budget_nothing_is_joined():
    assert level([answer(4, True)] * 150, ODDS, 0)[0] == np.inf
