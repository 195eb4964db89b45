"""How far along a review is: how many individuals there are, what is settled, and how many questions are left.

N items, P pairs of groups; the larger of two groups is the one that a smaller may join.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from reid.naming.groups import Pair
from reid.naming.pairs import Pairs, ranked
from reid.naming.probability import Odds

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

DRAWS = 200
WIDENED = 2.5  # times the interval of the draws, whose joins are wrong together rather than each for itself
HOPE = 0.02  # probability below which a pair is not worth a question
CHANCES = 10  # that a group has to join another
AHEAD = 100  # questions whose effect is told


@dataclass(frozen=True)
class Status:
    """Where a review stands.

    `identities` is the estimated number of individuals, with 95 % interval `low` to `high`; `settled` the share of
    items whose group is not likely to change any more; `questions_left` about how many answers it takes to settle the
    rest, and `next_changes` the items that the next 100 would move. `weak` warns that there will be several
    questions for every group there was at first.
    """

    groups: int
    identities: float
    low: int
    high: int
    settled: float
    questions_left: int
    next_changes: float
    conflicts: tuple[Pair, ...]
    weak: bool

    def words(self) -> str:
        """The stop rule and the warning, for people."""
        if not self.questions_left:
            return "no likely question is left"
        ahead = min(AHEAD, self.questions_left)
        changes = f"the next {ahead} questions would change about {self.next_changes:.0f} items"
        if not self.weak:
            return changes
        return (
            f"{changes}; the vectors tell little: about {self.questions_left:,} questions are left for "
            f"{self.groups:,} groups"
        )


def open_joins(pairs: Pairs, probability: Floats) -> tuple[Integers, Integers]:
    """Every group's few likeliest larger groups: of each (m,) the group, and the pair."""
    left, right = pairs.sizes[pairs.left], pairs.sizes[pairs.right]
    ahead = (left > right) | ((left == right) & (pairs.left < pairs.right))
    source = np.where(ahead, pairs.right, pairs.left)
    order, rank = ranked(source, -probability)
    top = order[rank < CHANCES]
    return source[top], top


def staying(pairs: Pairs, probability: Floats) -> Floats:
    """The chance (N,) that each group, by its label, joins no larger one, of which only one can be right."""
    source, pair = open_joins(pairs, probability)
    joins = np.bincount(source, probability[pair], len(pairs.sizes))
    stay: Floats = np.maximum(1 - joins, 0.0)
    return stay


def likeliest(pairs: Pairs, probability: Floats, named: Booleans) -> tuple[Integers, Floats]:
    """The known group that each group, by its label (N,), is likeliest of: their pair, -1 for none, and the chance.

    Known is a group of two items or with a name; `named` (N,) has the labels of the latter. Those without a name are of
    those with one, and otherwise smaller ones of larger ones.
    """
    size = pairs.sizes + np.where(named, pairs.sizes.sum(), 0)
    left, right = size[pairs.left], size[pairs.right]
    ahead = (left > right) | ((left == right) & (pairs.left < pairs.right))
    source, target = np.where(ahead, [pairs.right, pairs.left], [pairs.left, pairs.right])
    order, rank = ranked(source, -probability)
    top = order[rank < CHANCES]
    total = np.bincount(source[top], probability[top], len(size))  # above 1 where several are likely: one can be right
    known = top[size[target[top]] > 1]
    best, chance = np.full(len(size), -1), np.zeros(len(size))
    first = known[::-1]  # by falling probability, so that the likeliest of each is written last
    best[source[first]] = first
    chance[source[first]] = probability[first] / np.maximum(total[source[first]], 1.0)
    return best, chance


def interval(
    pairs: Pairs, probability: Floats, odds: Odds, told: Floats, random: np.random.Generator
) -> tuple[int, int]:
    """95 % interval of the number of individuals: the weights of the probability are drawn, and joins by them."""
    source, pair = open_joins(pairs, probability)
    groups = int(np.count_nonzero(pairs.sizes))
    features, told = pairs.features[pair], told[pair]
    numbers = np.empty(DRAWS)
    for draw, weights in enumerate(random.multivariate_normal(odds.weights, odds.covariance, DRAWS)):
        joins = np.bincount(source, expit(features @ weights + told), len(pairs.sizes))
        numbers[draw] = groups - np.count_nonzero(random.random(len(joins)) < joins)
    middle = np.median(numbers)
    low, high = middle + WIDENED * (np.quantile(numbers, [0.025, 0.975]) - middle)
    return max(int(np.floor(low)), 1), min(int(np.ceil(high)), groups)


def questions_left(pairs: Pairs, probability: Floats) -> int:
    """How many questions it takes until nothing likely is open: each group asks its likeliest ones in turn."""
    source = np.where(pairs.sizes[pairs.left] <= pairs.sizes[pairs.right], pairs.left, pairs.right)
    order, rank = ranked(source, -probability)
    top = rank < CHANCES
    table = np.zeros((len(pairs.sizes), CHANCES))
    table[source[order[top]], rank[top]] = probability[order[top]]
    table[table < HOPE] = 0
    reached = np.cumprod(np.concatenate([np.ones((len(table), 1)), 1 - table[:, :-1]], axis=1), axis=1)
    return int(np.ceil((reached * (table > 0)).sum()))


def next_changes(pairs: Pairs, probability: Floats) -> float:
    """How many items the next 100 answers would move: those of the smaller group, which joins but one other."""
    gain = probability * pairs.small
    top = np.argsort(-gain, kind="stable")[:AHEAD]
    source = np.where(pairs.sizes[pairs.left] <= pairs.sizes[pairs.right], pairs.left, pairs.right)[top]
    return float(np.minimum(np.bincount(source, gain[top], len(pairs.sizes)), pairs.sizes).sum())
