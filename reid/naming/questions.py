"""Questions, and what an answer to each is worth."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid.naming.decisions import Answer, Decision
from reid.naming.pairs import Pairs

Floats = npt.NDArray[np.float64]
Reason = Literal["likely", "again", "conflict", "audit"]

CURIOSITY = 0.3  # how much rather an open question is asked than a sure one
GAIN = 0.3  # how much rather groups are joined than single items


@dataclass(frozen=True)
class Question:
    """Are items `a` and `b` the same? `a` stands for the smaller group, of `sizes[0]` items, `b` for the larger.

    `evidence` goes into the decision that answers it, `reason` says why it is asked: `likely` the same, `again`
    because an answer surprises, a `conflict`, or an `audit` of what the machine would join.
    """

    a: int
    b: int
    probability: float
    reason: Reason
    sizes: tuple[int, int]
    evidence: tuple[float, ...]


def answered(question: Question, answer: Answer, reviewer: str = "") -> Decision:
    """The decision that answers a question."""
    return Decision(question.a, question.b, answer, reviewer=reviewer, evidence=question.evidence)


def worth(pairs: Pairs, probability: Floats) -> Floats:
    """What an answer about each pair (P,) is worth.

    Two single items are worth the less, the likelier one of them belongs to a known group: so that groups grow
    instead of new ones of the same individual beginning everywhere.
    """
    belongs = np.zeros(len(pairs.sizes))
    for one, other in ((pairs.left, pairs.right), (pairs.right, pairs.left)):
        known = pairs.sizes[other] > 1
        np.maximum.at(belongs, one[known], probability[known])
    fresh = np.where(pairs.large == 1, (1 - belongs[pairs.left]) * (1 - belongs[pairs.right]), 1.0)
    worths: Floats = probability * (1.03 - probability) ** CURIOSITY * pairs.small**GAIN * fresh
    return worths
