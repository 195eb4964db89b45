"""What was decided about two items, and how much each decision weighs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Answer = Literal["same", "different", "not_comparable", "unsure", "withdrawn"]
Basis = Literal["visual", "context", "import", "machine", "gold"]

USUAL_ERROR = 0.02  # of a reviewer of whom nothing is known
LEAST_ERROR = 0.001
# A machine's join gives way to any person's answer, and what follows from time and place to none.
MACHINE_WEIGHT = 1.0
CONTEXT_WEIGHT = 12.0


@dataclass(frozen=True)
class Decision:
    """One answer about items `a` and `b`, rows of the arrays; decisions are only ever appended.

    `supersedes` is the number of an earlier decision, counted from 0, that holds no more; where it is only taken back,
    the answer is `withdrawn`. `evidence` is what the question carried, the features of the pair at the time; empty
    where nothing was asked.
    """

    a: int
    b: int
    answer: Answer
    basis: Basis = "visual"
    reviewer: str = ""
    supersedes: int | None = None
    evidence: tuple[float, ...] = ()


def weight(decision: Decision, errors: Mapping[str, float]) -> float:
    """Log odds that a decision adds to `same`; 0 for one that says neither.

    `errors` has the share of wrong answers, in (0, 0.5), of the reviewers for whom it is known.
    """
    if decision.answer not in ("same", "different"):
        return 0.0
    if decision.basis == "machine":
        strength = MACHINE_WEIGHT
    elif decision.basis == "context":
        strength = CONTEXT_WEIGHT
    else:
        error = max(errors.get(decision.reviewer, USUAL_ERROR), LEAST_ERROR)
        strength = math.log((1 - error) / error)
    return strength if decision.answer == "same" else -strength
