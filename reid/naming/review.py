"""A review: which groups there are, which items a machine may join, what to ask next, and how far along it is.

N items of E values with K candidates each; U groups now; P pairs of groups that candidates connect. All is linear in
N x K, and an answer recomputes only what concerns the groups it changed.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from reid.naming import estimates, joins
from reid.naming import names as naming
from reid.naming.decisions import CONTEXT_WEIGHT, LEAST_ERROR, USUAL_ERROR, Decision, weight
from reid.naming.estimates import Status
from reid.naming.groups import Conflict, Groups, Pair
from reid.naming.learning import Material, learn
from reid.naming.pairs import Pairs
from reid.naming.probability import FEATURES, Answered, fit_odds
from reid.naming.questions import Question, Reason, answered, worth

__all__ = ["Question", "Review", "Status", "answered"]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

REFIT_AFTER = 12  # answers, or this share of those there are
REFIT_SHARE = 0.04
RECENT = 400  # answers that teach the probability; the pairs left change as the easy ones are done
RISK = 0.02  # expected items in a wrong group above which an answer is asked for again
MOST_ANSWERS = 7  # about one pair
OPEN = 0.05  # chance to join another group from which an item is not settled
TOLD_AFTER = 40  # answers before the vectors are called weak
WEAK = 2.5  # questions in all for every group there was at first


class Review:
    """Names the items of a gallery together with people.

    `vectors` (N, E), and for every item its K nearest others: `rows` (N, K), -1 for none, and cosines `scores` (N, K).
    `views` (N,) tells which items can be compared: those of one value; all where it is None. `names` (N,) are numbers
    of the names that people gave items, -1 for none: groups of different names are told apart as by `context`.
    `budget` is the share of the machine's joins that may be wrong, `errors` the known share of wrong answers by
    reviewer.
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.floating],
        rows: Integers,
        scores: npt.NDArray[np.floating],
        *,
        views: Integers | None = None,
        names: Integers | None = None,
        decisions: Iterable[Decision] = (),
        budget: float = 0.01,
        errors: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        """Raise ValueError for no vectors, arrays of different lengths, and a budget outside [0, 1)."""
        count = len(vectors)
        if not count:
            raise ValueError("vectors of no items; expected at least one")
        lengths = {"rows": len(rows), "scores": len(scores)}
        lengths |= {name: len(told) for name, told in (("views", views), ("names", names)) if told is not None}
        for name, length in lengths.items():
            if length != count:
                raise ValueError(f"{name} of {length} items beside vectors of {count}; expected as many")
        if not 0 <= budget < 1:
            raise ValueError(f"error budget {budget}: expected a share from 0 to below 1")
        self.count, self.budget, self.errors = count, budget, dict(errors or {})
        self.groups = Groups(count, errors)
        self._names = np.full(count, -1) if names is None else names
        self._seed, self._random = seed, np.random.default_rng(seed)  # the generator draws audits alone
        self._material = Material(vectors, rows, scores, views)
        self._near: Integers | None = None
        # Of the decisions that hold, by number:
        self._asked: dict[int, Answered] = {}
        self._closed: dict[int, Pair] = {}  # of which nobody can tell
        self._again: dict[Pair, tuple[float, ...]] = {}
        self._odds = fit_odds(np.empty((0, len(FEATURES))), np.empty(0), view_count=self._material.view_count)
        self._unlearned = 0  # answers given or taken back since the weights were learned
        self._stale = True
        self._joined = False  # the machine, since it learned
        given = list(decisions)
        self.groups.check(given)
        for decision in given:
            self._append(decision)
        self._groups_at_first = len(np.unique(self.groups.label))
        self._relearn()

    def add(self, decisions: Iterable[Decision]) -> None:
        """Append decisions, all or none; raises ValueError as `Groups.add` does."""
        given = list(decisions)
        self.groups.check(given)
        for decision in given:
            self._append(decision)
        self._stale = True
        if self._unlearned >= max(REFIT_AFTER, REFIT_SHARE * len(self._asked)):
            self._relearn()

    def call(self, names: Integers) -> None:
        """Take other names (N,), as the constructor does; raises ValueError for another number of them."""
        if len(names) != self.count:
            raise ValueError(f"names of {len(names)} items beside vectors of {self.count}; expected as many")
        self._names, self._stale = names, True

    def _append(self, decision: Decision) -> None:
        if decision.supersedes is not None:
            self._forget(decision.supersedes)
        self.groups.add(decision)
        self._note(len(self.groups.decisions) - 1, decision)

    def _forget(self, number: int) -> None:
        decision = self.groups.decisions[number]
        self._unlearned += self._asked.pop(number, None) is not None
        self._closed.pop(number, None)
        self._again.pop(_pair(decision), None)

    def _note(self, number: int, decision: Decision) -> None:
        pair = _pair(decision)
        if decision.basis == "machine":
            return
        told = weight(decision, self.errors)
        if decision.answer in ("not_comparable", "unsure"):
            self._closed[number] = pair
        if not decision.evidence or not told:
            self._again.pop(pair, None)
            return
        error = max(self.errors.get(decision.reviewer, USUAL_ERROR), LEAST_ERROR)
        self._asked[number] = Answered(decision.evidence, told > 0, error, int(self._material.views[decision.a]))
        self._unlearned += 1
        # A surprising `same` is asked for again before groups hang on it, by what it would cost.
        total = self.groups.totals[pair]
        belief = float(_updated(self._chance(pair, decision.evidence), total)[0])
        cost = (1 - belief) * float(np.exp(decision.evidence[FEATURES.index("smaller")]))
        if total > 0 and cost > RISK and self.groups.answers[pair] < MOST_ANSWERS:
            self._again[pair] = decision.evidence
        else:
            self._again.pop(pair, None)

    # The pairs of groups and what is known of them.

    def widen(self, rows: Integers, scores: npt.NDArray[np.floating]) -> None:
        """Take other candidates, as the constructor does, such as more of them when no question is left."""
        self._material.widen(rows, scores)
        self._relearn()

    def _relearn(self) -> None:
        """Learn the space and the weights anew from what is known by now."""
        lesson = learn(self._material, self.groups.label, self._near)
        self._near = lesson.near
        self.pairs = Pairs(self._material, lesson)
        self.pairs.update(self.groups.label)
        self.groups.changed.clear()
        asked = list(self._asked.values())[-RECENT:]
        features = np.array([answer.evidence for answer in asked]).reshape(-1, len(FEATURES))
        same = np.array([float(answer.same) for answer in asked])
        views = np.array([answer.view for answer in asked], np.int64)
        self._odds = fit_odds(features, same, self._odds, views, self._material.view_count)
        self._unlearned, self._joined, self._stale = 0, False, True

    def _refresh(self) -> None:
        """Bring pairs of groups, their features and probabilities up to date."""
        if not self._stale:
            return
        self.pairs.update(self.groups.label, sorted(self.groups.changed))
        self.groups.changed.clear()
        self._told = self._told_apart()
        self.pairs.rank(self._odds, self._told)
        self.probability = _updated(self._odds.probability(self.pairs.features, self.pairs.views), self._told)
        self._stale = False

    def _told_apart(self) -> Floats:
        """What answers `different` and names weigh against each pair of groups, at most 0; pairs closed as names do."""
        told = np.zeros(len(self.pairs.left))
        closed = set(self._closed.values())
        answered_pairs = [*self.groups.apart, *closed]
        if answered_pairs and len(told):
            weights = [self.groups.totals[pair] for pair in self.groups.apart] + [-CONTEXT_WEIGHT] * len(closed)
            place, found = self.pairs.place(self.groups.label[np.array(answered_pairs, np.int64)])
            np.add.at(told, place[found], np.array(weights)[found])
        told[naming.apart(self._names, self.groups.label, self.pairs.left, self.pairs.right)] -= CONTEXT_WEIGHT
        return told

    # What comes of it.

    def machine_joins(self) -> list[Decision]:
        """Joins that the machine may make within its budget now, to be added as decisions; none twice for one group.

        Two groups with names are never joined so, also where the names may be one: people are asked. Their evidence is
        the chance that they are right. After a batch it makes none until it has learned from more answers.
        """
        self._refresh()
        answers = [self._odds.without_view(answer) for answer in self._asked.values()]
        level, often = joins.level(answers, self._odds, self.budget)
        odds = self._odds.logits(self.pairs.features, self.pairs.views)
        fit = np.nonzero(joins.sure(self.pairs, self.probability) & (self._told == 0) & (odds >= level))[0]
        best = self._once_named(fit[np.argsort(-odds[fit], kind="stable")])
        if self._joined or not len(best):
            return []
        self._joined = True
        best = best[: max(1, int(joins.BATCH * len(self._asked)))]
        right = 1 - np.minimum(often * expit(-odds[best]), 1.0)
        return [
            Decision(*self._ends(place), "same", "machine", evidence=(chance,))
            for place, chance in zip(best, right.tolist(), strict=True)
        ]

    def _once_named(self, places: Integers) -> Integers:
        """Of pairs (m,), best first, those that can be joined one after the other without joining two named groups."""
        named, kept = naming.bearing(self._names, self.groups.label), []
        for place in places.tolist():
            ends = [self.pairs.left[place], self.pairs.right[place]]
            if not named[ends].all():
                named[ends] = named[ends].any()
                kept.append(place)
        return np.array(kept, np.int64)

    def _ends(self, place: int) -> Pair:
        edge = self.pairs.edge[place]
        return int(self.pairs.lesson.low[edge]), int(self.pairs.lesson.high[edge])

    def questions(self, count: int, leased: Iterable[Pair] = ()) -> list[Question]:
        """The next questions, those worth most first, none about a group that `leased` pairs or another one concern."""
        self._refresh()
        label, pairs = self.groups.label, self.pairs
        used = {int(label[item]) for pair in leased for item in pair}
        asked: list[Question] = []
        for pair, why in self._pressing():
            if len(asked) < count and not used & {int(label[item]) for item in pair}:
                used |= {int(label[item]) for item in pair}
                asked.append(self._repeat(pair, why))
        if len(asked) == count or not len(pairs.left):
            return asked
        open_ = self._told > -CONTEXT_WEIGHT / 2
        sure = joins.sure(pairs, self.probability) if self.budget else np.zeros(len(open_), bool)
        # What the machine may do soon is left to it, but for some by chance.
        value = np.where(open_, worth(pairs, self.probability), 0.0) / np.where(sure, 10, 1)
        audits = np.nonzero(sure & open_)[0]
        for _ in range(count - len(asked)):
            if len(audits) and self._random.random() < joins.AUDITS:
                value[self._random.choice(audits)] = np.inf
        many = min(len(value), 20 * (count + len(used)) + 40)
        best = np.argpartition(-value, many - 1)[:many]
        for place in best[np.argsort(-value[best], kind="stable")]:
            ends = {int(pairs.left[place]), int(pairs.right[place])}
            if value[place] <= 0 or len(asked) == count:
                break
            if not used & ends:
                used |= ends
                reason: Reason = "audit" if sure[place] else "again" if self._told[place] < 0 else "likely"
                asked.append(self._question(int(place), reason))
        return asked

    def _pressing(self) -> list[tuple[Pair, Reason]]:
        """Questions to repeat: of every conflict the less certain end, then answers that surprised."""
        found: list[tuple[Pair, Reason]] = []
        for pair in self.groups.conflicts():
            doubtful = [pair, *self.conflict(*pair).weakest[:1]]
            doubtful = [other for other in doubtful if self.groups.answers[other] < MOST_ANSWERS]
            if doubtful:
                found.append((min(doubtful, key=lambda other: abs(self.groups.totals[other])), "conflict"))
        return found + [(pair, "again") for pair in self._again]

    def conflict(self, a: int, b: int) -> Conflict:
        """How a group could be split that holds two items told apart; raises ValueError as `Groups.split` does."""
        return self.groups.split(a, b)

    def _repeat(self, pair: Pair, reason: Reason) -> Question:
        evidence = self._again.get(pair, ())
        total = self.groups.totals.get(pair, 0.0)
        chance = self._chance(pair, evidence) if evidence else np.array([0.5])
        belief = float(_updated(chance, total)[0])
        sizes = [int(self.pairs.sizes[self.groups.label[item]]) for item in pair]
        return Question(*pair, belief, reason, (sizes[0], sizes[1]), evidence)

    def _chance(self, pair: Pair, evidence: tuple[float, ...]) -> Floats:
        return self._odds.probability(np.array([evidence]), self._material.views[[pair[0]]])

    def _question(self, place: int, reason: Reason) -> Question:
        a, b = self._ends(place)
        sizes = int(self.pairs.sizes[self.groups.label[a]]), int(self.pairs.sizes[self.groups.label[b]])
        if sizes[0] > sizes[1]:
            a, b, sizes = b, a, sizes[::-1]
        evidence = tuple(self.pairs.features[place].tolist())
        return Question(a, b, float(self.probability[place]), reason, sizes, evidence)

    def status(self) -> Status:
        """Where the review stands; the same for as long as nothing is decided, called otherwise or widened."""
        self._refresh()
        pairs, probability = self.pairs, self.probability
        stay = estimates.staying(pairs, probability)
        told = self._told + self._odds.offsets[pairs.views]
        # Seeded by where the review stands: asked twice it tells the same, and asking changes no later question.
        random = np.random.default_rng((self._seed, len(self.groups.decisions)))
        low, high = estimates.interval(pairs, probability, self._odds, told, random)
        left = estimates.questions_left(pairs, probability)
        least = naming.at_least(self._names, self.groups.label)
        return Status(
            groups=int(np.count_nonzero(pairs.sizes)),
            identities=max(float(stay[pairs.sizes > 0].sum()), least),
            low=max(low, least),
            high=max(high, least),
            settled=1 - float(self.open_items().mean()),
            questions_left=left,
            next_changes=estimates.next_changes(pairs, probability),
            conflicts=tuple(self.groups.conflicts()),
            weak=len(self._asked) >= TOLD_AFTER and len(self._asked) + left > WEAK * self._groups_at_first,
        )

    def open_items(self) -> Booleans:
        """Items (N,) whose group is likely enough to join a larger one that they do not count as settled."""
        self._refresh()
        return (1 - estimates.staying(self.pairs, self.probability) > OPEN)[self.groups.label]

    def likely(self) -> tuple[Integers, Floats]:
        """Of the known group that each item (N,) may be found to be of: its nearest item, -1 for none, and how likely.

        Groups of two items are known, and those with a name. Decided is nothing by that.
        """
        self._refresh()
        label = self.groups.label
        best, chance = estimates.likeliest(self.pairs, self.probability, naming.bearing(self._names, label))
        chance[(best < 0) | (chance <= OPEN)] = 0
        nearest = np.full(self.count, -1)
        for group in np.nonzero(chance)[0]:
            one, other = self._ends(best[group])
            nearest[group] = other if label[one] == group else one
        return nearest[label], chance[label]


def _pair(decision: Decision) -> Pair:
    return min(decision.a, decision.b), max(decision.a, decision.b)


def _updated(chances: Floats, told: Floats | float) -> Floats:
    """Probabilities (m,) after answers whose log odds are `told`."""
    updated: Floats = expit(logit(np.clip(chances, 1e-9, 1 - 1e-9)) + told)
    return updated
