"""The parts of the client that are about who is who: `client.review` and `client.identities`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack
from urllib.parse import quote
from uuid import uuid4

from service.fields import Filters
from service.wire.admin_schemas import Job
from service.wire.review_schemas import (
    MAX_DECISIONS,
    BasisName,
    Decision,
    DecisionPage,
    Dispute,
    Disputes,
    Given,
    Identity,
    IdentityDetail,
    IdentityPage,
    Neighbour,
    Neighbours,
    NextQuestion,
    Question,
    ReviewStatus,
    Step,
)

Answered = tuple[str, Given] | tuple[str, str, Given]  # to a question by its id, or about two items


class ReviewClient:
    """The review of a gallery: it is started, asks, and is answered; errors are those of the `Client`."""

    def __init__(self, get: Callable[..., Any], pages: Callable[..., Any], conditions: Callable[..., Any]) -> None:
        self._get, self._pages, self._conditions = get, pages, conditions

    def start(self, plan: dict[str, Any] | None = None, **filters: Unpack[Filters]) -> Job:
        """Start a review of the items that pass; `plan` is as the fields of `ReviewForm`, such as {"error": 0.01}."""
        wanted = {**(plan or {}), "filter": self._conditions(filters)}
        job: Job = self._get(Job, "POST", "/v1/review/start", json=wanted, once=True)
        return job

    def next(self) -> Question | None:
        """The question whose answer is worth most, leased to this client; None where there is none."""
        found: NextQuestion = self._get(NextQuestion, "GET", "/v1/review/next")
        return found.question

    def decide(self, answers: Sequence[Answered], dry_run: bool = False) -> list[Step]:
        """Answer questions, as (question_id, "same"), or say of two items whether they are the same, as (a, b, "same").

        They go out in portions, each of which is one step; those before an error stay.
        """
        steps = []
        for start in range(0, len(answers), MAX_DECISIONS):
            portion = [_told(one) for one in answers[start : start + MAX_DECISIONS]]
            sent = {"decisions": portion, "dry_run": dry_run}
            headers = {"Idempotency-Key": uuid4().hex}
            steps.append(self._get(Step, "POST", "/v1/decisions", json=sent, headers=headers))
        return steps

    def undo(self, batch_id: str, dry_run: bool = False) -> Step:
        """Take back a step of any kind, by its `batch_id`."""
        wanted = {"batch_id": batch_id, "dry_run": dry_run}
        step: Step = self._get(Step, "POST", "/v1/decisions/undo", json=wanted, once=True)
        return step

    def status(self) -> ReviewStatus:
        """How far along the review is."""
        status: ReviewStatus = self._get(ReviewStatus, "GET", "/v1/review/status")
        return status

    def neighbours(
        self, item_ids: Sequence[str], count: int = 10, **filters: Unpack[Filters]
    ) -> dict[str, list[Neighbour]]:
        """The nearest items of each of some items, up to 1,000."""
        wanted = {"item_ids": [*item_ids], "count": count, "filter": self._conditions(filters)}
        found: Neighbours = self._get(Neighbours, "POST", "/v1/neighbours", json=wanted)
        return {one.item_id: one.neighbours for one in found.nearest}

    def conflicts(self) -> list[Dispute]:
        """Items told apart that other answers join."""
        found: Disputes = self._get(Disputes, "GET", "/v1/review/conflicts")
        return found.conflicts

    def decisions(self, basis: BasisName | None = None) -> Iterator[Decision]:
        """All decisions, the newest last; of basis `machine` those that nobody was asked about."""
        for page in self._pages(DecisionPage, "/v1/decisions", {} if basis is None else {"basis": basis}):
            yield from page.decisions


class IdentityClient:
    """The identities of a gallery; errors are those of the `Client`."""

    def __init__(self, get: Callable[..., Any], pages: Callable[..., Any]) -> None:
        self._get, self._pages = get, pages

    def list(self, q: str = "", sort: str = "name", empty: bool = True) -> Iterator[Identity]:
        """The identities whose name or alias has `q` in it, by name, photos, first_seen, last_seen or newest.

        `empty` tells whether those are meant that no item shows.
        """
        for page in self._pages(IdentityPage, "/v1/identities", {"q": q, "sort": sort, "empty": empty}):
            yield from page.identities

    def get(self, identity_id: str) -> IdentityDetail:
        """One identity with its items, decisions and conflicts."""
        found: IdentityDetail = self._get(IdentityDetail, "GET", _path(identity_id))
        return found

    def create(self, name: str | None = None, item_ids: Sequence[str] = (), dry_run: bool = False) -> Step:
        """Make an identity of some items, or of none."""
        return self._step("", name=name, item_ids=[*item_ids], dry_run=dry_run)

    def edit(self, identity_id: str, **changes: Any) -> Identity:
        """Change the `name`, `aliases`, `notes` or `attributes` of an identity."""
        found: Identity = self._get(Identity, "PATCH", _path(identity_id), json=changes)
        return found

    def merge(self, identity_id: str, into: str, dry_run: bool = False) -> Step:
        """Give all items of an identity to another."""
        return self._step(identity_id, "merge", into=into, dry_run=dry_run)

    def unmerge(self, identity_id: str, dry_run: bool = False) -> Step:
        """Give an identity that was merged its items back."""
        return self._step(identity_id, "unmerge", dry_run=dry_run)

    def split(self, identity_id: str, item_ids: Sequence[str], name: str | None = None, dry_run: bool = False) -> Step:
        """Take items out of an identity, together."""
        return self._step(identity_id, "split", item_ids=[*item_ids], name=name, dry_run=dry_run)

    def _step(self, *path: str, **wanted: Any) -> Step:
        step: Step = self._get(Step, "POST", _path(*path), json=wanted, once=True)
        return step


def _path(*parts: str) -> str:
    return "/".join(["/v1/identities", *(quote(part, safe="") for part in parts if part)])


def _told(one: Answered) -> dict[str, Any]:
    if len(one) == 2:
        return {"question_id": one[0], "answer": one[1]}
    return {"a": one[0], "b": one[1], "answer": one[2]}
