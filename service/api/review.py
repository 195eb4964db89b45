"""Routes of a review: it is started, asks, is answered, and tells how far along it is."""

import hashlib
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from service.api.access import caller_of, cause_of
from service.api.cursors import Cursors
from service.api.problems import Forbidden, documented
from service.api.proxies import root_of
from service.api.seen import as_seen
from service.fields import Filter, time_from
from service.gallery.gallery import Gallery
from service.records import Caller, Decision, Item
from service.review.catalogue import Catalogue
from service.review.catalogue import Dispute as Found
from service.review.reviews import KIND, GivenAnswer, Reviews
from service.review.scope import Plan
from service.storage.decisions import Decisions
from service.storage.identities import Change, Identities
from service.upkeep.jobs import JobRunner
from service.wire import review_schemas as wire
from service.wire.admin_schemas import Job
from service.wire.schemas import Item as Shown

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]
PORTION = 1000  # decisions among which those that a caller sees are looked for at once
MOST_NAMED = 100  # items in the account of a step

_WHY = {
    "likely": "they are likely to be the same, and the answer joins two groups or keeps them apart",
    "again": "an earlier answer was surprising",
    "conflict": "answers contradict each other within one group",
    "audit": "the machine would join them by itself",
    "gold": "the answer is known: it tells how reliable answers are",
}


def review(gallery: Gallery, runner: JobRunner, reviews: Reviews) -> APIRouter:
    """`/v1/review/...` and `/v1/decisions`."""
    router = APIRouter(tags=["review"])
    database = gallery.database
    catalogue, stored, identities = Catalogue(database), Decisions(database), Identities(database)
    cursors = cursors_of_decisions(gallery)

    @router.post("/v1/review/start", status_code=202, responses=documented(400, 403, 409, 413, 422, 503))
    def start(wanted: wire.ReviewForm, request: Request, response: Response) -> Job:
        """Find likely groups among all items, or those that pass a filter, and ask about the rest.

        What is certain is joined within the error budget. The answer is a job; a review that was started before goes on
        meanwhile, and its decisions are kept.
        """
        _require_all(caller_of(request), "start a review")
        chosen = Filter() if wanted.filter is None else wanted.filter.chosen()
        plan = Plan(**wanted.model_dump(exclude={"filter"}), chosen=chosen)
        job = runner.start(KIND, plan.as_json(), cause_of(request))
        response.headers["Location"] = f"/v1/jobs/{job.job_id}"
        return Job.of(job)

    @router.get("/v1/review/next", responses=documented(409, 503))
    def ask(request: Request) -> wire.NextQuestion:
        """Lease the question whose answer is worth most; nobody else is asked it for ten minutes."""
        caller = caller_of(request)
        if (found := reviews.next(caller)) is None:
            return wire.NextQuestion(question=None)
        asked, _ = found
        one, other = (
            _side(gallery, caller, item_id, group, root_of(request))
            for item_id, group in zip((asked.a, asked.b), reviews.groups(asked), strict=True)
        )
        question = wire.Question(
            question_id=asked.question_id,
            a=one,
            b=other,
            reason="likely" if asked.expected else asked.reason,  # who knows that an answer is known looks closer
            why=_WHY["likely" if asked.expected else asked.reason],
            probability=asked.probability,
            score=asked.score,
            leased_until=time_from(asked.leased_until),
        )
        return wire.NextQuestion(question=question)

    @router.get("/v1/review/status", responses=documented(403, 409, 503))
    def status(request: Request) -> wire.ReviewStatus:
        """How far along the review is: how many individuals there are, what is settled, and when to stop."""
        _require_all(caller_of(request), "ask how the review stands")
        found = reviews.status()
        return wire.ReviewStatus.model_validate(found)

    @router.get("/v1/review/conflicts", responses=documented(503))
    def conflicts(request: Request) -> wire.Disputes:
        """List the items that were told apart and are joined by other answers, and where each group is weakest."""
        seen = _visible(gallery, caller_of(request))
        return wire.Disputes(
            conflicts=[dispute(one) for one in catalogue.disputes() if seen([one.a, one.b, *one.part])]
        )

    @router.get("/v1/decisions", responses=documented(422, 503))
    def page(wanted: Annotated[wire.DecisionQuery, Query()], request: Request) -> wire.DecisionPage:
        """List the decisions in the order in which they were made; `basis=machine` lists what the machine joined."""
        caller, found = caller_of(request), list[Decision]()
        after = cursors.read(wanted.cursor, caller)
        many = wanted.limit + 1 if caller.cameras is None else PORTION
        while len(found) <= wanted.limit and (portion := stored.page(after, many, wanted.basis)):
            seen = set(_seen(gallery, caller, [end for one in portion for end in (one.a, one.b)]))
            found += [one for one in portion if {one.a, one.b} <= seen]
            after = portion[-1].number
        shown = found[: wanted.limit]
        last = shown[-1].number if len(found) > wanted.limit else None
        return wire.DecisionPage(
            decisions=[wire.Decision.of(one, cursors.written(one.number, caller)) for one in shown],
            next_cursor=None if last is None else cursors.written(last, caller),
        )

    @router.post("/v1/decisions", status_code=201, responses=documented(400, 404, 409, 413, 422, 503))
    def decide(wanted: wire.DecisionsForm, request: Request, idempotency_key: IdempotencyKey = None) -> wire.Step:
        """Answer questions, or say of any two items whether they are the same: all in one step or none.

        What was acknowledged is on the disk. A request with an `Idempotency-Key` that was answered before, and a
        question that was, are answered alike and counted once. Somebody's second answer about two items takes the place
        of the first.
        """
        caller, cause = caller_of(request), cause_of(request)
        given = [GivenAnswer(one.answer, one.question_id, one.a, one.b) for one in wanted.decisions]
        batch_id = None
        if idempotency_key is not None:
            batch_id = hashlib.sha256(f"{caller.actor}\0{idempotency_key}".encode()).hexdigest()[:32]
        return step(gallery, caller, reviews.answer(given, caller, cause, batch_id, wanted.dry_run), wanted.dry_run)

    @router.post("/v1/decisions/undo", status_code=201, responses=documented(400, 403, 404, 409, 413, 422, 503))
    def undo(wanted: wire.UndoForm, request: Request) -> wire.Step:
        """Take back a step: answers, a merge, a split, or the undoing of one."""
        seen = _visible(gallery, caller_of(request))
        about = [end for one in stored.of_batch(wanted.batch_id) for end in (one.a, one.b)]
        if not seen(about):
            raise Forbidden("this key may not take back what concerns items of other cameras")
        done = identities.undo(wanted.batch_id, cause_of(request), wanted.dry_run)
        gallery.worker.publish()
        return step(gallery, caller_of(request), done, wanted.dry_run)

    return router


def cursors_of_decisions(gallery: Gallery) -> Cursors:
    """Turns the numbers of decisions into what a caller may know of them."""
    return Cursors(f"{gallery.database.gallery_id} decisions")


def step(gallery: Gallery, caller: Caller, change: Change, dry_run: bool, similar: Sequence[str] = ()) -> wire.Step:
    """The account of a step, as far as the caller sees the items that it is about."""
    moved = {ends: _seen(gallery, caller, item_ids) for ends, item_ids in change.moved.items()}
    seen = _visible(gallery, caller)
    return wire.Step(
        batch_id=change.batch_id,
        dry_run=dry_run,
        identity_id=change.identity_id,
        decision_ids=[] if dry_run else list(change.decision_ids),
        moved=[
            wire.Moved(former=former, identity_id=later, items=len(ids), item_ids=list(ids[:MOST_NAMED]))
            for (former, later), ids in moved.items()
            if ids
        ],
        conflicts=[wire.Pair(a=a, b=b) for a, b in change.conflicts if seen([a, b])],
        similar=list(similar) if caller.cameras is None else [],
    )


def dispute(found: Found) -> wire.Dispute:
    """A conflict as it goes out."""
    return wire.Dispute(
        a=found.a,
        b=found.b,
        identity_id=found.identity_id,
        part=list(found.part),
        weakest=[wire.Pair(a=a, b=b) for a, b in found.weakest],
    )


def _require_all(caller: Caller, what: str) -> None:
    if caller.cameras is not None:
        raise Forbidden(f"this key may not {what}, which concerns the items of all cameras")


def _visible(gallery: Gallery, caller: Caller):  # type: ignore[no-untyped-def]
    """Tells whether a caller sees all of some items; those that are gone are seen by who sees all cameras."""

    def seen(item_ids: Sequence[str]) -> bool:
        return len(_seen(gallery, caller, item_ids)) == len(item_ids)

    return seen


def _seen(gallery: Gallery, caller: Caller, item_ids: Sequence[str]) -> Sequence[str]:
    """Those of some items that a caller sees; who sees all cameras also sees those that are gone."""
    if caller.cameras is None:
        return item_ids
    there = {item.item_id for item in gallery.store.find(item_ids) if caller.sees(item.details.camera)}
    return [one for one in item_ids if one in there]


def _side(gallery: Gallery, caller: Caller, item_id: str, group: Sequence[str], root: str) -> wire.Side:
    order = [item_id, *(one for one in group if one != item_id)][: 4 * wire.SHOWN]
    there: dict[str, Item] = {
        item.item_id: item for item in gallery.store.find(order) if caller.sees(item.details.camera)
    }
    item = there.get(item_id)
    shown = [] if item is None else as_seen(gallery.store, [item], caller)
    return wire.Side(
        item=Shown.of(shown[0], root) if shown else None,
        item_id=item_id,
        identity_id=None if item is None else item.identity_id,
        label=None if item is None else item.details.label,
        size=len(_seen(gallery, caller, group)),
        pictures=[one for one in order if one in there][: wire.SHOWN],
    )
