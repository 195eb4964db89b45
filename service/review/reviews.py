"""The review of a gallery: started by a job, asked for questions and told answers, by several people at a time."""

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from threading import Lock, Thread
from typing import Any

from reid.naming.decisions import Answer
from reid.naming.review import Question, Status
from service.records import NOBODY, Caller, Cause, Conflict, Job, NotFound, ReviewLoading
from service.review.context import free_answers
from service.review.scope import Plan
from service.review.session import Session
from service.storage import questions
from service.storage.database import Database
from service.storage.decisions import Decisions, Held, NewDecision, held_about, holding, overruled, pair_of
from service.storage.identities import Change, Identities
from service.storage.jobs import Jobs
from service.storage.questions import Asked, NewQuestion
from service.storage.store import Store
from service.upkeep.jobs import Progress

log = logging.getLogger("reid")

ANSWERING = "answering"  # the lock of whoever looks what was answered, and answers
KIND = "suggest"  # of the job that starts a review
MACHINE = Cause("machine")
WAIT = 3.0  # seconds for a review that is being prepared
SPARE = 8  # questions looked at beside the one to be asked, since others may be asked one of them meanwhile
MOST_LOOKED_AT = 2000  # questions, for one that a key may see
_UNASKED = ("context", "machine")
GOLD_WEIGHT = 3.0  # log odds from which an answer counts as known


@dataclass(frozen=True)
class GivenAnswer:
    """An answer to a question by its id, or about two items."""

    answer: Answer
    question_id: str | None = None
    a: str | None = None
    b: str | None = None


class Reviews:
    """What a process knows of the review of its gallery; threads may share it."""

    def __init__(self, database: Database, changed: Callable[[], object] = lambda: None) -> None:
        """`changed` is called after each change of whom items show."""
        self._database, self._changed = database, changed
        self._store, self._identities, self._jobs = Store(database), Identities(database), Jobs(database, running=False)
        self._lock = Lock()  # guards the session
        self._session: Session | None = None
        self._job_id: str | None = None  # which the session is of
        self._loading: Thread | None = None
        self._failed: str | None = None  # why it could not be made ready
        self._random = random.Random()

    # Starting.

    def work(self, job: Job, progress: Progress) -> dict[str, Any]:
        """Do a job of the kind `suggest`."""
        plan = Plan.of(job.parameters)
        session = self.start(plan, progress, job.cause)
        with self._lock:
            self._session, self._job_id = session, job.job_id
            return told(session.review.status())

    def start(self, plan: Plan, progress: Progress, cause: Cause = NOBODY) -> Session:
        """Find likely groups: what follows without asking is decided, and what the machine may join is joined."""
        progress(0, 3)
        session = Session(self._database, plan)
        progress(1, 3)
        self._free(session, cause)
        session.follow()
        progress(2, 3)
        self._join(session)
        progress(3, 3)
        return session

    def _free(self, session: Session, cause: Cause) -> None:
        """Decide what follows without asking, and take back what followed by a rule that no longer holds."""
        wanted = {
            (pair_of(one.a, one.b), one.answer): one
            for one in free_answers(session.plan, session.scope.items, session.rows)
        }
        new: list[NewDecision] = []
        with self._database.transaction() as connection:
            known, wrong = holding(connection, "context"), overruled(connection, "context")
        wanted = {said: one for said, one in wanted.items() if said[0] not in wrong}
        for join in session.disagreeing([one for one in wanted.values() if one.answer == "same"]):
            del wanted[pair_of(join.a, join.b), join.answer]
        for one in known:
            if (one.pair, one.answer) in wanted:
                del wanted[one.pair, one.answer]
            elif one.a in session.place and one.b in session.place:
                new.append(NewDecision(one.a, one.b, "withdrawn", "context", one.number))
        new += wanted.values()
        if new:
            self._decide(new, cause)

    def _join(self, session: Session) -> None:
        """Have the machine join what it may, within its budget."""
        joins = session.review.machine_joins()
        if not joins:
            return
        new = [
            NewDecision(
                session.scope.items[one.a].item_id,
                session.scope.items[one.b].item_id,
                "same",
                "machine",
                model_id=session.model_id,
                score=session.score(one.a, one.b),
                probability=one.evidence[0] if one.evidence else None,
                evidence={"features": list(one.evidence)},
            )
            for one in joins
        ]
        self._decide(new, MACHINE)
        session.follow()

    def _decide(self, new: Sequence[NewDecision], cause: Cause) -> None:
        self._identities.decide(new, cause, source="machine")
        self._changed()

    # The session.

    def _current(self) -> Session:
        """The session of the review that was started last, as of now; the lock is held.

        Raises Conflict where none was started, and ReviewLoading while it is made ready: after a start of the service,
        or by another process.
        """
        job = _last_started(self._jobs)
        if self._session is None or self._job_id != job.job_id:
            if self._failed is None:
                self._load(job)
        elif self._session.stale:
            self._load(job)  # meanwhile the former one answers
        if self._session is None or self._job_id != job.job_id:
            if (failed := self._failed) is not None and self._loading is not None and not self._loading.is_alive():
                self._failed = None  # whoever asks next has it tried again
                raise Conflict(f"the review cannot go on: {failed}")
            raise ReviewLoading("the review is being made ready; ask again in a moment")
        self._session.follow()
        return self._session

    def _load(self, job: Job) -> None:
        if self._loading is not None and self._loading.is_alive():
            return

        former = self._session if self._job_id == job.job_id else None

        def load() -> None:
            try:
                session = Session(self._database, Plan.of(job.parameters), former)
            except (OSError, ValueError) as error:
                log.error("review: %s", error)
                self._failed = str(error)
                return
            with self._lock:
                self._session, self._job_id = session, job.job_id

        self._loading = Thread(target=load, name="review", daemon=True)
        self._loading.start()

    def wait(self) -> None:
        """Wait a little for a review that is being made ready."""
        if (loading := self._loading) is not None:
            loading.join(WAIT)

    def _with_session(self, work: Callable[[Session], Any]) -> Any:
        try:
            with self._lock:
                return work(self._current())
        except ReviewLoading:
            self.wait()
            with self._lock:
                return work(self._current())

    # Asking and answering.

    def next(self, caller: Caller) -> tuple[Asked, Question | None] | None:
        """Lease the question whose answer is worth most, of those about items that the caller sees; None for none."""

        def work(session: Session) -> tuple[Asked, Question | None] | None:
            self._join(session)
            if self._random.random() < session.plan.gold and (gold := self._gold(session, caller)):
                with self._database.transaction() as connection:
                    return questions.lease(connection, caller.actor, gold), None
            for count in (1 + SPARE, MOST_LOOKED_AT):
                with self._database.reading() as connection:
                    leased = questions.leased(connection)
                found = self._visible(session, caller, session.questions(count, leased))
                with self._database.transaction() as connection:
                    taken = {end for pair in questions.leased(connection) for end in pair}
                    for one in found:
                        a, b = (session.scope.items[end].item_id for end in (one.a, one.b))
                        if not {a, b} & taken:
                            return questions.lease(connection, caller.actor, _question(session, one)), one
            return None

        result: tuple[Asked, Question | None] | None = self._with_session(work)
        return result

    def groups(self, asked: Asked) -> tuple[list[str], list[str]]:
        """The items of the groups of both ends of a question."""

        def work(session: Session) -> tuple[list[str], list[str]]:
            ends = (asked.a, asked.b)
            one, other = (session.members(session.place[end]) if end in session.place else [end] for end in ends)
            return one, other

        result: tuple[list[str], list[str]] = self._with_session(work)
        return result

    def answer(
        self, given: Sequence[GivenAnswer], caller: Caller, cause: Cause, batch_id: str | None, dry_run: bool
    ) -> Change:
        """Store answers, all in one step; a step, or a question of it, that was answered before is not again.

        Raises NotFound for items and questions that are not there for the caller, and Conflict for answers that
        contradict each other.
        """
        with self._database.exclusive(ANSWERING):  # or one that comes twice at once would count twice
            done = self._answer(given, caller, cause, batch_id, dry_run)
        self._changed()
        return done

    def _answer(
        self, given: Sequence[GivenAnswer], caller: Caller, cause: Cause, batch_id: str | None, dry_run: bool
    ) -> Change:
        if batch_id is not None and (known := self._identities.step(batch_id)):
            return known
        with self._database.reading() as connection:
            asked = questions.find(connection, {one.question_id for one in given if one.question_id})
            answered = questions.answered(connection, asked)
        pairs = [self._pair(one, asked) for one in given]
        self._require_visible(pairs, asked, caller)
        _require_agreement(given, pairs)
        before = self._replaced(pairs, cause.actor)
        new: list[NewDecision] = []
        replaced_by_now: set[int] = set()
        for one, pair in _once(given, pairs):
            if one.question_id in answered:
                continue
            # A question may be asked again because an answer surprises, and then both count.
            replaced = [
                was
                for was in before[pair_of(*pair)]
                if (was.basis == "context" or one.question_id is None) and was.number not in replaced_by_now
            ]
            if any(was.answer == one.answer for was in replaced if was.basis == "visual"):
                continue
            question = asked.get(one.question_id or "")
            gone = [was.number for was in replaced if was.answer != one.answer]
            replaced_by_now.update(gone)
            new.append(_decision(one, pair, question, gone[0] if gone else None))
            new += [NewDecision(*pair, "withdrawn", supersedes=number) for number in gone[1:]]
        if not new:
            return Change(batch_id or "", None, tuple(answered.values()), {}, ())
        return self._identities.decide(new, cause, batch_id=batch_id, dry_run=dry_run)

    def status(self) -> dict[str, Any]:
        """Where the review stands, as `reid.naming` tells it, and of what it is."""

        def work(session: Session) -> dict[str, Any]:
            return {
                **told(session.review.status()),
                "job_id": self._job_id,
                "model_id": session.model_id,
                "filter": session.plan.chosen.spelled(),
                "items": len(session.scope.items),
            }

        result: dict[str, Any] = self._with_session(work)
        counts = Decisions(self._database).counts()
        result["answers"] = counts.get("visual", 0) + counts.get("gold", 0)
        result["machine_joins"] = counts.get("machine", 0)
        return result

    def likely(self) -> dict[str, tuple[str, float]]:
        """By item, an item of the individual that it may be found to be, and how likely that is."""
        found: dict[str, tuple[str, float]] = self._with_session(Session.likely)
        return found

    def _visible(self, session: Session, caller: Caller, asked: Sequence[Question]) -> list[Question]:
        """Questions about items that the caller sees and that are there: a session learns of deletions later."""
        known = session.scope.items
        seen = [one for one in asked if all(caller.sees(known[end].camera) for end in (one.a, one.b))]
        ends = {known[end].item_id for one in seen for end in (one.a, one.b)}
        there = {item.item_id for item in self._store.find(ends)}
        return [one for one in seen if {known[one.a].item_id, known[one.b].item_id} <= there]

    def _gold(self, session: Session, caller: Caller) -> NewQuestion | None:
        """A question that others have answered, and agree about."""
        review = session.review
        known = [pair for pair, total in review.groups.totals.items() if abs(total) > GOLD_WEIGHT]
        for a, b in self._random.sample(known, min(len(known), 20)):
            one, other = session.scope.items[a], session.scope.items[b]
            with self._database.reading() as connection:
                said = [
                    held
                    for held in held_about(connection, [one.item_id])
                    if held.pair == pair_of(one.item_id, other.item_id)
                ]
            if not said or any(held.basis not in ("visual", "gold") or held.actor == caller.actor for held in said):
                continue
            if caller.sees(one.camera) and caller.sees(other.camera):
                expected: Answer = "same" if review.groups.totals[a, b] > 0 else "different"
                evidence: dict[str, Any] = {}
                told = NewQuestion(
                    one.item_id, other.item_id, "gold", session.model_id, session.score(a, b), 0.5, evidence
                )
                return told._replace(expected=expected)
        return None

    def _pair(self, one: GivenAnswer, asked: Mapping[str, Asked]) -> tuple[str, str]:
        if one.question_id is not None:
            if (question := asked.get(one.question_id)) is None:
                raise NotFound(f"no question {one.question_id!r}")
            return question.a, question.b
        assert one.a is not None and one.b is not None
        return one.a, one.b

    def _require_visible(self, pairs: Collection[tuple[str, str]], asked: Mapping[str, Asked], caller: Caller) -> None:
        """Raise NotFound for an item that is not there for the caller; one deleted while it was asked about may be."""
        ends = {end for pair in pairs for end in pair}
        there = {item.item_id for item in self._store.find(ends) if caller.sees(item.details.camera)}
        of_questions = {end for one in asked.values() if one.actor == caller.actor for end in (one.a, one.b)}
        gone = of_questions - {item.item_id for item in self._store.find(of_questions)}
        if missing := sorted(ends - there - gone):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise NotFound(f"no item {missing[0]!r}{more}; nothing was decided")

    def _replaced(self, pairs: Iterable[tuple[str, str]], actor: str) -> dict[tuple[str, str], list[Held]]:
        """What an answer about a pair takes the place of: what its giver or the machine said, and time and place."""
        wanted = {pair_of(*pair) for pair in pairs}
        found: dict[tuple[str, str], list[Held]] = defaultdict(list)
        with self._database.reading() as connection:
            held = held_about(connection, {a for a, _ in wanted})
        for one in held:
            if one.pair in wanted and (one.basis in _UNASKED or (one.basis == "visual" and one.actor == actor)):
                found[one.pair].append(one)
        return found


def suggest(database: Database, plan: Plan, progress: Progress, cause: Cause) -> dict[str, Any]:
    """Start a review where no service runs, as a job of its own that the next one goes on with; tells how it stands.

    Raises Conflict where one is being started already.
    """
    jobs = Jobs(database)
    job = jobs.create(KIND, plan.as_json(), cause)
    try:
        if (claimed := jobs.claim()) is None or claimed.job_id != job.job_id:
            raise Conflict("other jobs are waiting: start the service, which does them first")
        result = Reviews(database).work(claimed, progress)
    except BaseException:
        jobs.end(job.job_id, "failed", error="not finished")
        raise
    jobs.end(job.job_id, "done", result)
    return result


def likely(database: Database) -> dict[str, tuple[str, float]]:
    """What `Reviews.likely` tells, where no service runs; raises Conflict where no review was started."""
    return Session(database, Plan.of(_last_started(Jobs(database, running=False)).parameters)).likely()


def _last_started(jobs: Jobs) -> Job:
    if (job := jobs.last_done(KIND)) is None:
        raise Conflict("no review was started: POST /v1/review/start, or reid-gallery suggest")
    return job


def told(status: Status) -> dict[str, Any]:
    """The status as the result of a job."""
    return {**asdict(status), "conflicts": len(status.conflicts), "words": status.words()}


def _question(session: Session, question: Question) -> NewQuestion:
    a, b = (session.scope.items[end].item_id for end in (question.a, question.b))
    evidence = {"features": list(question.evidence)}
    score = session.score(question.a, question.b)
    return NewQuestion(a, b, question.reason, session.model_id, score, question.probability, evidence)


def _decision(one: GivenAnswer, pair: tuple[str, str], question: Asked | None, supersedes: int | None) -> NewDecision:
    if question is None:
        return NewDecision(*pair, one.answer, supersedes=supersedes)
    return NewDecision(
        *pair,
        one.answer,
        "visual" if question.expected is None else "gold",
        question_id=question.question_id,
        shown_at=question.shown_at,
        expected=question.expected,
        model_id=question.model_id,
        score=question.score,
        probability=question.probability,
        evidence=question.evidence,
    )


def _once(
    given: Sequence[GivenAnswer], pairs: Sequence[tuple[str, str]]
) -> Iterable[tuple[GivenAnswer, tuple[str, str]]]:
    """Answers and their pairs, each question and each pair once, whatever comes twice in one request."""
    asked = {pair_of(*pair) for one, pair in zip(given, pairs, strict=True) if one.question_id is not None}
    kept: dict[object, tuple[GivenAnswer, tuple[str, str]]] = {}
    for one, pair in zip(given, pairs, strict=True):
        if one.question_id is not None or pair_of(*pair) not in asked:
            kept.setdefault(one.question_id or pair_of(*pair), (one, pair))
    return kept.values()


def _require_agreement(given: Sequence[GivenAnswer], pairs: Iterable[tuple[str, str]]) -> None:
    """Raise Conflict for an item with itself, and for two answers about one pair that differ."""
    said: dict[tuple[str, str], Answer] = {}
    for one, (a, b) in zip(given, pairs, strict=True):
        if a == b:
            raise Conflict(f"item {a} with itself: expected two items; nothing was decided")
        if said.setdefault(pair_of(a, b), one.answer) != one.answer:
            raise Conflict(f"items {a} and {b}: both {said[pair_of(a, b)]!r} and {one.answer!r}; nothing was decided")
