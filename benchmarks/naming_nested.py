"""The number of individuals by nested importance sampling (Perez, Sheldon, Van Horn and Maji, ECCV 2024), no groups.

The number is the sum over items of 1 / how many show the same individual. Items are drawn the likelier the fewer
others are like them, and for each of them others to ask about the likelier the more they are like it; answers are
weighted by the inverse of these chances. So an estimate and its 95 % interval come from few answers, and get closer
with more. As in the paper's code as many others are drawn for an item as items in all, itself always among them.

Written from the paper's abstract and its authors' code, with these deviations: a likeness is the probability that two
items are the same, fitted to the truth, which favours it: the paper has a softmax of cosines; answers are kept, so
that no pair is asked about twice. N items.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEAST = 1e-4  # likeness, so that nobody is never drawn


def count(
    likeness: Floats, ask: Callable[[int, int], bool], questions: int, random: np.random.Generator
) -> tuple[float, float, float]:
    """Estimate the number of individuals from at most so many answers, given likeness (N, N) in [0, 1].

    Returns the estimate and the ends of its 95 % interval.
    """
    likeness = np.maximum(likeness, LEAST)
    np.fill_diagonal(likeness, 1.0)
    chosen = 1 / likeness.sum(axis=1)
    chosen /= chosen.sum()
    chances = likeness / likeness.sum(axis=1, keepdims=True)
    answers: dict[tuple[int, int], bool] = {}
    others = max(2, round(questions**0.5))
    terms: list[float] = []
    while True:
        item = int(random.choice(len(chosen), p=chosen))
        drawn = [item, *random.choice(len(chosen), others - 1, p=chances[item]).tolist()]
        pairs = {(min(item, other), max(item, other)) for other in drawn if other != item}
        if len(answers) + len(pairs - answers.keys()) > questions:
            break
        answers |= {pair: ask(*pair) for pair in sorted(pairs - answers.keys())}
        same = [other == item or answers[min(item, other), max(item, other)] for other in drawn]
        size = np.mean(np.array(same) / chances[item, drawn])
        terms.append(float(1 / (size * chosen[item])))
    if not terms:
        return np.nan, -np.inf, np.inf
    estimate, off = float(np.mean(terms)), 1.96 * float(np.std(terms)) / len(terms) ** 0.5
    return estimate, estimate - off, estimate + off
