"""A review: which groups there are, which items a machine may join, what to ask next, and how far along it is.

N items of E values with K candidates each; U groups now; P pairs of groups that candidates connect. All is linear in
N x K, and an answer recomputes only what concerns the groups it changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from reid.naming.decisions import CONTEXT_WEIGHT, Answer, Decision, weight
from reid.naming.evidence import guess_scatter, learn_space, principal
from reid.naming.groups import Conflict, Groups, Pair
from reid.naming.probability import FEATURES, MOST_EVIDENCE, fit_odds

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Reason = Literal["likely", "again", "conflict", "audit"]

REFIT_AFTER = 12  # answers, or this share of those there are
REFIT_SHARE = 0.03
RIVALS = 4
CURIOSITY = 0.3  # how much rather an open question is asked than a sure one
GAIN = 0.3  # how much rather groups are joined than single items
SURE = 0.9  # what the machine may do soon is asked about only in audits
AUDITS = 0.1
FIRST_JOINS = 80  # answers before the machine joins anything,
FIRST_DIFFERENT = 15  # so many of them `different`; later it makes no more joins than there are answers
DOUBT = 1.2  # standard deviations that a machine's join must bear
LARGEST_JOIN = 3  # items of the smaller group that a machine joins
SAFETY = 0.6  # share of the error budget that is spent
RISK = 0.02  # expected items in a wrong group above which an answer is asked for again
MOST_ANSWERS = 7  # about one pair
OPEN = 0.05  # chance to join another group from which an item is not settled
DRAWS = 200
WIDENED = 1.5  # times the interval of the draws, whose joins are wrong together rather than each for itself
HOPE = 0.02  # probability below which a pair is not worth a question
CHANCES = 10  # that a group has to join another
TOLD_AFTER = 40  # answers before the vectors are called weak
WEAK = 2.5  # questions in all for every group there was at first


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
        changes = f"the next 100 questions would change about {self.next_changes:.0f} items"
        if not self.weak:
            return changes
        return (
            f"{changes}; the vectors tell little: about {self.questions_left:,} questions are left for "
            f"{self.groups:,} groups"
        )


class Review:
    """Names the items of a gallery together with people.

    `vectors` (N, E), and for every item its K nearest others: `rows` (N, K), -1 for none, and cosines `scores` (N, K).
    `views` (N,) tells which items can be compared: those of one value; all where it is None. `budget` is the share of
    the machine's joins that may be wrong, `errors` the known share of wrong answers by reviewer.
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.floating],
        rows: Integers,
        scores: npt.NDArray[np.floating],
        *,
        views: Integers | None = None,
        decisions: Iterable[Decision] = (),
        budget: float = 0.01,
        errors: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        """Raise ValueError for no vectors, arrays of different lengths, and a budget outside [0, 1)."""
        count = len(vectors)
        if not count:
            raise ValueError("vectors of no items; expected at least one")
        lengths = {"rows": len(rows), "scores": len(scores), "views": count if views is None else len(views)}
        for name, length in lengths.items():
            if length != count:
                raise ValueError(f"{name} of {length} items beside vectors of {count}; expected as many")
        if not 0 <= budget < 1:
            raise ValueError(f"error budget {budget}: expected a share from 0 to below 1")
        self.count, self.budget, self.errors = count, budget, dict(errors or {})
        self.groups = Groups(count, errors)
        self._random = np.random.default_rng(seed)
        self._vectors = principal(vectors)
        self._scatter = guess_scatter(self._vectors, rows)
        self._views: Integers = (
            np.zeros(count, np.int64) if views is None else np.unique(views, return_inverse=True)[1].astype(np.int64)
        )
        self._view_count = int(self._views.max(initial=0)) + 1
        self.widen(rows, scores)
        # Of the decisions that hold, by number:
        self._asked: dict[int, tuple[tuple[float, ...], float]] = {}
        self._risk: dict[int, float] = {}  # of the machine's joins
        self._closed: dict[int, Pair] = {}  # of which nobody can tell
        self._again: dict[Pair, tuple[float, ...]] = {}
        self._odds = fit_odds(np.empty((0, len(FEATURES))), np.empty(0))
        self._unlearned = 0  # answers given or taken back since the weights were learned
        self._stale = True
        self.add(decisions)
        self._groups_at_first = len(np.unique(self.groups.label))
        self._relearn()

    def add(self, decisions: Iterable[Decision]) -> None:
        """Append decisions, all or none; raises ValueError as `Groups.add` does."""
        given = list(decisions)
        self.groups.check(given)
        for decision in given:
            if decision.supersedes is not None:
                self._forget(decision.supersedes)
            self.groups.add(decision)
            self._note(len(self.groups.decisions) - 1, decision)
        self._stale = True
        if self._unlearned >= max(REFIT_AFTER, REFIT_SHARE * len(self._asked)):
            self._relearn()

    def _forget(self, number: int) -> None:
        decision = self.groups.decisions[number]
        self._unlearned += self._asked.pop(number, None) is not None
        self._risk.pop(number, None)
        self._closed.pop(number, None)
        self._again.pop(_pair(decision), None)

    def _note(self, number: int, decision: Decision) -> None:
        pair = _pair(decision)
        if decision.basis == "machine":
            self._risk[number] = 1 - decision.evidence[0] if decision.evidence else self.budget
            return
        told = weight(decision, self.errors)
        if decision.answer in ("not_comparable", "unsure"):
            self._closed[number] = pair
        if not decision.evidence or not told:
            self._again.pop(pair, None)
            return
        self._asked[number] = (decision.evidence, float(told > 0))
        self._unlearned += 1
        # A surprising `same` is asked for again before groups hang on it, by what it would cost.
        total = self.groups.totals[pair]
        features = np.array([decision.evidence])
        belief = float(_updated(self._odds.probability(features), total)[0])
        cost = (1 - belief) * float(np.exp(decision.evidence[FEATURES.index("smaller")]))
        if total > 0 and cost > RISK and self.groups.answers[pair] < MOST_ANSWERS:
            self._again[pair] = decision.evidence
        else:
            self._again.pop(pair, None)

    # The pairs of groups and what is known of them.

    def widen(self, rows: Integers, scores: npt.NDArray[np.floating]) -> None:
        """Take other candidates, as the constructor does, such as more of them when no question is left."""
        first = np.repeat(np.arange(self.count), rows.shape[1])
        second, score = rows.ravel(), scores.ravel().astype(np.float64)
        known = second >= 0
        known[known] &= self._views[first[known]] == self._views[second[known]]
        first, second, score = first[known], second[known], score[known]
        low, high = np.minimum(first, second), np.maximum(first, second)
        _, chosen = np.unique(low * self.count + high, return_index=True)
        self._low, self._high = low[chosen], high[chosen]
        score = score[chosen]
        # Closeness is similarity against that of each item's neighbourhood, so that hubs are not near to everybody.
        near = np.where(rows[:, :10] >= 0, scores[:, :10], np.nan)
        filled = np.where(np.isnan(near).all(axis=1, keepdims=True), 0.0, near)
        level = np.nanmean(filled, axis=1)
        closeness = 2 * score - level[self._low] - level[self._high]
        self._cosine, self._close = (_standard(values) for values in (score, closeness))
        self._key: Integers = np.empty(0, np.int64)
        self._ratio: Floats = np.empty(0)
        self._stale = True

    def _relearn(self) -> None:
        """Learn the space and the weights anew from what is known by now."""
        self._unlearned = 0
        self._space = learn_space(self._vectors, self._scatter, self.groups.label)
        slots = self.count * self._view_count
        self._sums = np.zeros((slots, self._space.vectors.shape[1]), np.float32)
        self._counts = np.zeros(slots)
        self._key = np.empty(0, np.int64)
        self._sum_groups(self.groups.label, np.arange(self.count))
        self.groups.changed.clear()
        features = np.array([evidence for evidence, _ in self._asked.values()]).reshape(-1, len(FEATURES))
        self._odds = fit_odds(features, np.array([same for _, same in self._asked.values()]), self._odds)
        self._stale = True

    def _sum_groups(self, labels: Integers, items: Integers) -> None:
        slots = labels * self._view_count + self._views[items]
        np.add.at(self._sums, slots, self._space.vectors[items])
        np.add.at(self._counts, slots, 1)

    def _refresh(self) -> None:
        """Bring pairs of groups, their features and probabilities up to date."""
        if not self._stale:
            return
        dirty = np.zeros(self.count, bool)
        changed = sorted(self.groups.changed)
        self.groups.changed.clear()
        dirty[changed] = True
        for gone in changed:
            span = slice(gone * self._view_count, (gone + 1) * self._view_count)
            self._sums[span], self._counts[span] = 0, 0
        label = self.groups.label
        for first in changed:
            if label[first] == first:
                items = np.array(self.groups.members(first))
                self._sum_groups(np.full(len(items), first), items)
        between = np.nonzero(label[self._low] != label[self._high])[0]
        one, two = label[self._low[between]], label[self._high[between]]
        keys = np.minimum(one, two) * self.count + np.maximum(one, two)
        order = np.lexsort((-self._cosine[between], keys))
        between, keys = between[order], keys[order]
        starts = np.nonzero(np.diff(keys, prepend=-1))[0]
        key = keys[starts]
        self.left, self.right = key // self.count, key % self.count
        self._edge = between[starts]  # the most similar items of each pair of groups
        self.sizes = np.bincount(label, minlength=self.count)
        ratio = np.zeros(len(key))
        place = np.minimum(np.searchsorted(self._key, key), max(len(self._key) - 1, 0))
        kept = self._key[place] == key if len(self._key) else np.zeros(len(key), bool)
        kept &= ~dirty[self.left] & ~dirty[self.right]
        ratio[kept] = self._ratio[place[kept]]
        fresh = np.nonzero(~kept)[0]
        for view in range(self._view_count):
            slots = [side[fresh] * self._view_count + view for side in (self.left, self.right)]
            sums, counts = [self._sums[slot] for slot in slots], [self._counts[slot] for slot in slots]
            ratio[fresh] += self._space.log_ratios((sums[0], sums[1]), (counts[0], counts[1]))
        self._key, self._ratio = key, ratio
        self._features(starts, len(keys), between)
        self._stale = False

    def _features(self, starts: Integers, edges: int, between: Integers) -> None:
        small = np.minimum(self.sizes[self.left], self.sizes[self.right])
        large = np.maximum(self.sizes[self.left], self.sizes[self.right])
        votes = np.log(np.diff(starts, append=edges) / small)
        close = np.maximum.reduceat(self._close[between], starts) if len(starts) else np.empty(0)
        evidence = np.clip(self._ratio, -MOST_EVIDENCE, MOST_EVIDENCE)
        columns = [np.ones(len(small)), evidence, self._cosine[self._edge], np.zeros(len(small))]
        self.features = np.stack([*columns, np.log(small), np.log(large), close, votes], axis=1)
        self._told = self._told_apart()
        plain = self.features @ self._odds.weights + self._told
        self.features[:, FEATURES.index("rivals")] = self._rivals(plain)
        self.probability = _updated(self._odds.probability(self.features), self._told)

    def _told_apart(self) -> Floats:
        """What answers `different` weigh against each pair of groups, at most 0, and more than any for pairs closed."""
        told = np.zeros(len(self._key))
        closed = set(self._closed.values())
        pairs = [*self.groups.apart, *closed]
        if not pairs or not len(told):
            return told
        weights = [self.groups.totals[pair] for pair in self.groups.apart] + [-CONTEXT_WEIGHT] * len(closed)
        ends = self.groups.label[np.array(pairs, np.int64)]
        key = ends.min(axis=1) * self.count + ends.max(axis=1)
        place = np.minimum(np.searchsorted(self._key, key), len(self._key) - 1)
        found = self._key[place] == key
        np.add.at(told, place[found], np.array(weights)[found])
        return told

    def _rivals(self, logits: Floats) -> Floats:
        """How strongly other groups claim the smaller of a pair, those left out that may be one with the larger."""
        source = np.concatenate([self.left, self.right])
        target = np.concatenate([self.right, self.left])
        claims = np.concatenate([logits, logits])
        order = np.lexsort((-claims, source))
        ranked = source[order]
        rank = np.arange(len(order)) - np.searchsorted(ranked, ranked)
        top = rank < RIVALS + 1
        best = np.full((self.count, RIVALS + 1), -1)
        claim = np.full((self.count, RIVALS + 1), -np.inf)
        best[ranked[top], rank[top]] = target[order[top]]
        claim[ranked[top], rank[top]] = claims[order[top]]
        one = expit(logits)
        total = np.zeros(len(source))
        for number in range(RIVALS + 1):
            rival = best[source, number]
            key = np.minimum(rival, target) * self.count + np.maximum(rival, target)
            place = np.minimum(np.searchsorted(self._key, key), max(len(self._key) - 1, 0))
            alike = np.where(self._key[place] == key, one[place], 0.0) if len(self._key) else np.zeros(len(source))
            strength = np.exp(np.clip(claim[source, number], -30, 8)) * (1 - alike)
            total += np.where((rival < 0) | (rival == target), 0.0, strength)
        from_left, from_right = np.split(np.log1p(total), 2)
        left, right = self.sizes[self.left], self.sizes[self.right]
        return np.where(left < right, from_left, np.where(left > right, from_right, np.minimum(from_left, from_right)))

    # What comes of it.

    def machine_joins(self) -> list[Decision]:
        """Joins that the machine may make within its budget now, to be added as decisions; none twice for one group.

        A join counts with the chance of error that its cautious probability leaves.
        """
        self._refresh()
        different = sum(not same for _, same in self._asked.values())
        if len(self._asked) < FIRST_JOINS or different < FIRST_DIFFERENT or not len(self.left):
            return []
        small = np.minimum(self.sizes[self.left], self.sizes[self.right])
        chances = self._odds.cautious(self.features, DOUBT)
        fit = np.nonzero((small <= LARGEST_JOIN) & (self._told == 0) & (chances > SURE))[0]
        joins: list[Decision] = []
        used: set[int] = set()
        for place in fit[np.argsort(-chances[fit], kind="stable")]:
            ends = {int(self.left[place]), int(self.right[place])}
            if not used & ends:
                used |= ends
                edge = self._edge[place]
                pair = int(self._low[edge]), int(self._high[edge])
                joins.append(Decision(*pair, "same", "machine", evidence=(float(chances[place]),)))
        expected = sum(self._risk.values()) + np.cumsum([1 - join.evidence[0] for join in joins])
        made = len(self._risk) + 1 + np.arange(len(joins))
        within = (expected <= SAFETY * self.budget * made) & (made <= len(self._asked))
        return joins[: int(np.nonzero(within)[0].max(initial=-1)) + 1]

    def questions(self, count: int, leased: Iterable[Pair] = ()) -> list[Question]:
        """The next questions, those worth most first, none about a group that `leased` pairs or another one concern."""
        self._refresh()
        label = self.groups.label
        used = {int(label[item]) for pair in leased for item in pair}
        asked: list[Question] = []
        for pair, why in self._pressing():
            if len(asked) < count and not used & {int(label[item]) for item in pair}:
                used |= {int(label[item]) for item in pair}
                asked.append(self._repeat(pair, why))
        if len(asked) == count or not len(self.left):
            return asked
        chance = self.probability
        small = np.minimum(self.sizes[self.left], self.sizes[self.right])
        worth = chance * (1.03 - chance) ** CURIOSITY * small**GAIN
        sure = np.zeros(len(chance), bool)
        if len(self._asked) >= FIRST_JOINS and self.budget:
            sure = chance > SURE
            worth = np.where(sure, worth / 10, worth)
        open_ = self._told > -CONTEXT_WEIGHT / 2
        worth = np.where(open_, worth, 0.0)
        audits = np.nonzero(sure & open_)[0]
        if len(audits) and self._random.random() < AUDITS * (count - len(asked)):
            worth[self._random.choice(audits)] = np.inf
        many = min(len(worth), 20 * (count + len(used)) + 40)
        best = np.argpartition(-worth, many - 1)[:many]
        for place in best[np.argsort(-worth[best], kind="stable")]:
            ends = {int(self.left[place]), int(self.right[place])}
            if worth[place] <= 0 or len(asked) == count:
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
        chance = self._odds.probability(np.array([evidence])) if evidence else np.array([0.5])
        belief = float(_updated(chance, total)[0])
        sizes = [int(self.sizes[self.groups.label[item]]) for item in pair]
        return Question(*pair, belief, reason, (sizes[0], sizes[1]), evidence)

    def _question(self, place: int, reason: Reason) -> Question:
        edge = self._edge[place]
        a, b = int(self._low[edge]), int(self._high[edge])
        sizes = self.sizes[self.groups.label[a]], self.sizes[self.groups.label[b]]
        if sizes[0] > sizes[1]:
            a, b, sizes = b, a, sizes[::-1]
        evidence = tuple(self.features[place].tolist())
        return Question(a, b, float(self.probability[place]), reason, (int(sizes[0]), int(sizes[1])), evidence)

    def status(self) -> Status:
        """Where the review stands; the interval draws the weights of the probability, and joins by them."""
        self._refresh()
        units = np.unique(self.groups.label)
        chances, pairs = self._open_joins()
        stay = np.ones(self.count)
        np.multiply.at(stay, pairs[0], 1 - chances)
        numbers = self._draw_numbers(units, pairs)
        middle = np.median(numbers)
        low, high = middle + WIDENED * (np.quantile(numbers, [0.025, 0.975]) - middle)
        left = self._questions_left()
        small = np.minimum(self.sizes[self.left], self.sizes[self.right])
        worth = np.sort(self.probability * small)[::-1][:100]
        return Status(
            groups=len(units),
            identities=float(stay[units].sum()),
            low=max(int(np.floor(low)), 1),
            high=min(int(np.ceil(high)), len(units)),
            settled=1 - float(self.open_items().mean()),
            questions_left=left,
            next_changes=float(worth.sum()),
            conflicts=tuple(self.groups.conflicts()),
            weak=len(self._asked) >= TOLD_AFTER and len(self._asked) + left > WEAK * self._groups_at_first,
        )

    def open_items(self) -> Booleans:
        """Items (N,) whose group is likely enough to join a larger one that they do not count as settled."""
        self._refresh()
        chances, pairs = self._open_joins()
        stay = np.ones(self.count)
        np.multiply.at(stay, pairs[0], 1 - chances)
        return (1 - stay > OPEN)[self.groups.label]

    def _open_joins(self) -> tuple[Floats, tuple[Integers, Integers, Integers]]:
        """Every group's few likeliest larger groups: the chances, and of each the group, the larger one, the pair."""
        ahead = (self.sizes[self.left] > self.sizes[self.right]) | (
            (self.sizes[self.left] == self.sizes[self.right]) & (self.left < self.right)
        )
        source = np.where(ahead, self.right, self.left)
        target = np.where(ahead, self.left, self.right)
        order = np.lexsort((-self.probability, source))
        ranked = source[order]
        rank = np.arange(len(order)) - np.searchsorted(ranked, ranked)
        top = order[rank < CHANCES]
        return self.probability[top], (source[top], target[top], top)

    def _draw_numbers(self, units: Integers, pairs: tuple[Integers, Integers, Integers]) -> Floats:
        weights = self._random.multivariate_normal(self._odds.weights, self._odds.covariance, DRAWS)
        features, told = self.features[pairs[2]], self._told[pairs[2]]
        numbers = np.empty(DRAWS)
        for draw, drawn in enumerate(weights):
            chances = expit(features @ drawn + told)
            joined = np.zeros(self.count, bool)
            np.logical_or.at(joined, pairs[0], self._random.random(len(chances)) < chances)
            numbers[draw] = len(units) - joined[units].sum()
        return numbers

    def _questions_left(self) -> int:
        """How many questions it takes until nothing likely is open: each group asks its likeliest ones in turn."""
        source = np.where(self.sizes[self.left] <= self.sizes[self.right], self.left, self.right)
        order = np.lexsort((-self.probability, source))
        ranked, chance = source[order], self.probability[order]
        rank = np.arange(len(order)) - np.searchsorted(ranked, ranked)
        table = np.zeros((self.count, CHANCES))
        top = rank < CHANCES
        table[ranked[top], rank[top]] = chance[top]
        table[table < HOPE] = 0
        reached = np.cumprod(np.concatenate([np.ones((self.count, 1)), 1 - table[:, :-1]], axis=1), axis=1)
        return int(np.ceil((reached * (table > 0)).sum()))


def _pair(decision: Decision) -> Pair:
    return min(decision.a, decision.b), max(decision.a, decision.b)


def _updated(chances: Floats, told: Floats | float) -> Floats:
    """Probabilities (m,) after answers whose log odds are `told`."""
    updated: Floats = expit(logit(np.clip(chances, 1e-9, 1 - 1e-9)) + told)
    return updated


def _standard(values: Floats) -> Floats:
    spread = values.std() if len(values) else 0.0
    return (values - values.mean()) / spread if spread else np.zeros(len(values))


def answered(question: Question, answer: Answer, reviewer: str = "") -> Decision:
    """The decision that answers a question."""
    return Decision(question.a, question.b, answer, reviewer=reviewer, evidence=question.evidence)
