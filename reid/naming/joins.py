"""Which joins the machine may make: those as sure as questions that hardly anybody denied.

Sure is a group of few items beside the known group that it is likeliest of. Of the sure pairs a share is asked about
by chance, and the answers tell how far down the machine may go. P pairs of groups.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from reid.naming.pairs import Pairs, ranked
from reid.naming.probability import FEATURES, Answered, Odds

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

SURE = 0.9
LARGEST_JOIN = 3  # items of the smaller group
LEAST_KNOWN = 2  # items of the larger one
AUDITS = 0.1  # share of the questions about what the machine may soon do
ROUNDS = 20  # until slips are told from denials
LEAST_WINDOW = 160  # answers that count, or two thirds of all: the first ones knew little
LATEST_JOINS = 50  # answers `same` that tell how often somebody new turns up,
MOST_NEW = 0.15  # and the share above which the machine waits
BATCH = 0.08  # joins at a time, before more is learned, per answer


def sure(pairs: Pairs, probability: Floats) -> Booleans:
    """Which pairs (P,) are sure, given their probability (P,)."""
    smaller = np.where(pairs.sizes[pairs.left] <= pairs.sizes[pairs.right], pairs.left, pairs.right)
    order, rank = ranked(smaller, -probability)
    likeliest = np.zeros(len(order), bool)
    likeliest[order[rank == 0]] = True
    likeliest &= (pairs.small <= LARGEST_JOIN) & (pairs.large >= LEAST_KNOWN) & (probability > SURE)
    return likeliest


def level(answers: Sequence[Answered], odds: Odds, budget: float) -> tuple[float, float]:
    """The log odds from which joins are within the budget, inf for none, and how many times as often as told they err.

    Joins that are sure err less often, or more, than their probability tells. How many times as often is what the
    answers about pairs as sure show, those denials left out that are likelier slips of who answered; one more denial
    and one more that was to be expected are reckoned with beyond those. `answers` are oldest first.
    """
    latest = answers[-max(LEAST_WINDOW, len(answers) * 2 // 3) :]
    features = np.array([answer.evidence for answer in latest]).reshape(-1, len(FEATURES))
    same = np.array([answer.same for answer in latest], bool)
    slips = np.array([answer.error for answer in latest])
    known, few = (features[:, FEATURES.index(name)] for name in ("larger", "smaller"))
    new = (known[same] == 0)[-LATEST_JOINS:]
    if not budget or not len(new) or new.mean() > MOST_NEW:
        return np.inf, 1.0
    wrong = expit(-(features @ odds.weights))
    alike = (wrong < 1 - SURE) & (known >= np.log(LEAST_KNOWN - 0.5)) & (few <= np.log(LARGEST_JOIN + 0.5))
    denied, often = alike & ~same, 1.0
    for _ in range(ROUNDS):
        real = often * wrong[denied]
        often = (1 + (real / (real + slips[denied])).sum()) / (1 + wrong[alike].sum())
    return max(-logit(min(budget / often, 0.5)), logit(SURE)), often
