"""What goes over the wire about identities, questions and decisions; as `schemas`, without torch and fastapi."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from service.records import Decision as Decided
from service.wire.schemas import MAX_NUMBER, MAX_PAGE, Answer, Attributes, Conditions, Item, Name, Strict, Wanted

MAX_DECISIONS = 5000  # in one request
SHOWN = 5  # pictures of a group

Given = Literal["same", "different", "not_comparable", "unsure"]
BasisName = Literal["visual", "context", "import", "machine", "gold"]


class ReviewForm(Strict):
    """Which items to review, and how; what follows without asking can be switched off.

    `error` is the share of the machine's joins that may be wrong, `neighbours` how many candidates each item has,
    `gold` the share of questions whose answer is known, to learn how reliable reviewers are. `photos`: boxes of one
    photo that hardly overlap differ; `speed` in km/h: nobody is at places farther apart than this allows, 0 for never;
    `tracks`: one track is one; `burst`: what a camera took within so many seconds is one, 0 for never; `sides`: left
    and right cannot be compared; `names`: individuals of different names differ.
    """

    filter: Wanted | None = None
    error: float = Field(0.01, strict=True, ge=0, lt=1)
    neighbours: int = Field(20, strict=True, ge=1, le=200)
    gold: float = Field(0.02, strict=True, ge=0, le=0.5)
    photos: bool = Field(True, strict=True)
    speed: float = Field(100, strict=True, ge=0, le=100_000)
    tracks: bool = Field(True, strict=True)
    burst: float = Field(0, strict=True, ge=0, le=86_400)
    sides: bool = Field(True, strict=True)
    names: bool = Field(True, strict=True)


class Side(Answer, frozen=True):
    """One side of a question: an item, and the group that it stands for, of `size` items, with some pictures of it."""

    item: Item | None
    item_id: str
    identity_id: str | None
    label: str | None
    size: int
    pictures: list[str] = Field(description="public ids of items of the group, the asked one first")


class Question(Answer, frozen=True):
    """Do `a` and `b` show the same individual? `same` would join their groups.

    `reason` is why it is asked, in words in `why`; `probability` is that of `same`, `score` the cosine of the items.
    """

    question_id: str
    a: Side
    b: Side
    reason: str
    why: str
    probability: float
    score: float
    leased_until: datetime


class NextQuestion(Answer, frozen=True):
    """The question whose answer is worth most, leased to the caller; null where none is left for him."""

    question: Question | None


class GivenDecision(Strict):
    """An answer to a question, or about two items by their ids."""

    question_id: Name | None = None
    a: Name | None = None
    b: Name | None = None
    answer: Given

    @model_validator(mode="after")
    def _require_a_subject(self) -> Self:
        if (self.question_id is None) != (self.a is not None and self.b is not None):
            raise ValueError("expected question_id, or both a and b")
        return self


class DecisionsForm(Strict):
    """Answers, stored all in one step or none; with `dry_run` it is told what they would do."""

    decisions: Annotated[list[GivenDecision], Field(min_length=1, max_length=MAX_DECISIONS)]
    dry_run: bool = Field(False, strict=True)


class UndoForm(Strict):
    """The step to take back, by the `batch_id` of its answer."""

    batch_id: Name
    dry_run: bool = Field(False, strict=True)


class Moved(Answer, frozen=True):
    """Items that show another identity than before; null is nobody."""

    former: str | None
    identity_id: str | None
    items: int
    item_ids: list[str] = Field(description="the first of them")


class Pair(Answer, frozen=True):
    """Two items."""

    a: str
    b: str


class Step(Answer, frozen=True):
    """What one step did, or with `dry_run` would do; POST its `batch_id` to /v1/decisions/undo to take it back.

    `identity_id` is the identity that it was about or made. `conflicts` are items told apart within one identity, among
    those concerned. `similar` are identities whose name differs by Unicode form, case or spaces alone.
    """

    batch_id: str
    dry_run: bool
    identity_id: str | None
    decision_ids: list[str]
    moved: list[Moved]
    conflicts: list[Pair]
    similar: list[str]


class Decision(Answer, frozen=True):
    """An answer about two items, as it is kept for ever; `superseded` tells that it holds no more.

    `number` rises with time where the caller sees all items; for others it is a place in the list alone.
    """

    number: int
    decision_id: str
    question_id: str | None
    shown_at: datetime | None
    answered_at: datetime
    actor: str
    request_id: str
    batch_id: str
    a: str
    b: str
    answer: Given | Literal["withdrawn"]
    basis: BasisName
    model_id: str | None
    score: float | None
    probability: float | None
    superseded: bool

    @classmethod
    def of(cls, decision: Decided, number: int) -> Self:
        """The decision of a record, with its number as the caller may know it."""
        return cls.model_validate(decision, from_attributes=True).model_copy(update={"number": number})


class DecisionQuery(Strict):
    """A page of the decisions: those after `cursor`, the `number` of the last one already seen, of some basis."""

    basis: BasisName | None = None
    cursor: int = Field(0, ge=0, le=MAX_NUMBER)
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class DecisionPage(Answer, frozen=True):
    """Decisions, the newest last; `next_cursor` is null on the last page."""

    decisions: list[Decision]
    next_cursor: int | None


class Dispute(Answer, frozen=True):
    """Items `a` and `b` that were told apart and are joined by others: which is wrong, people must say.

    Where the joins of `weakest` were taken back, the identity would fall into the items of `part` and the rest.
    """

    a: str
    b: str
    identity_id: str
    part: list[str]
    weakest: list[Pair]


class Disputes(Answer, frozen=True):
    """All conflicts."""

    conflicts: list[Dispute]


class ReviewStatus(Answer, frozen=True):
    """Where a review stands, over the `items` that pass its `filter` and by the vectors of `model_id`.

    `identities` is the estimated number of individuals, from `low` to `high` by 95 %; `settled` the share of items that
    are not likely to change any more; `questions_left` about how many answers settle the rest; `next_changes` how many
    items the next 100 would move; `weak` warns that the vectors tell little. `words` says when to stop.
    """

    job_id: str
    model_id: str
    filter: Conditions
    items: int
    answers: int
    machine_joins: int
    groups: int
    identities: float
    low: int
    high: int
    settled: float
    questions_left: int
    next_changes: float
    conflicts: int
    weak: bool
    words: str


class IdentityQuery(Strict):
    """A page of the identities: `q` is in the name or an alias, `cursor` is `next_cursor` of the page before.

    By `name` is as people sort, N2 before N10. `empty` false leaves out those without photos, such as a name of which
    the last label was corrected.
    """

    q: str = Field("", max_length=200)
    empty: bool = True
    sort: Literal["name", "photos", "first_seen", "last_seen", "newest"] = "name"
    cursor: int = Field(0, ge=0, le=MAX_NUMBER)
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class Identity(Answer, frozen=True):
    """Whom items show. `name` is their label; one that was merged into another has none, and no photos.

    `photos` is how many items show it, `cover` one of them.
    """

    identity_id: str
    name: str | None
    aliases: list[str]
    notes: str
    attributes: dict[str, Any]
    merged_into: str | None
    photos: int
    cover: str | None
    cover_url: str | None
    first_seen: datetime | None
    last_seen: datetime | None
    cameras: list[str]
    sites: list[str]


class IdentityPage(Answer, frozen=True):
    """Identities in the order that was asked for, `total` in all; `next_cursor` is null on the last page."""

    identities: list[Identity]
    total: int
    next_cursor: int | None


class Merged(Answer, frozen=True):
    """An identity that was merged into another, and the name that it had."""

    identity_id: str
    name: str | None


class IdentityDetail(Identity, frozen=True):
    """An identity with its first 1,000 items, the decisions about them, its conflicts, and those merged into it."""

    merged: list[Merged]
    items: list[Item]
    decisions: list[Decision]
    conflicts: list[Dispute]
    similar: list[str]


class IdentityForm(Strict):
    """An identity to be made, of items that show nobody with a name."""

    name: Name | None = None
    item_ids: list[Name] = Field([], max_length=MAX_PAGE)
    dry_run: bool = Field(False, strict=True)

    @model_validator(mode="after")
    def _require_something(self) -> Self:
        if self.name is None and len(set(self.item_ids)) < 2:
            raise ValueError("expected a name, or at least two different item_ids")
        return self


class IdentityChanges(Strict):
    """New values for some fields of an identity."""

    name: Name | None = None
    aliases: list[Name] | None = Field(None, max_length=1000)
    notes: str | None = Field(None, max_length=100_000)
    attributes: Attributes | None = None

    def changes(self) -> dict[str, Any]:
        """The fields that were given."""
        told = self.model_dump(exclude_unset=True)
        if "aliases" in told:
            told["aliases"] = tuple(told["aliases"] or ())
        return told

    @model_validator(mode="after")
    def _require_values(self) -> Self:
        if missing := [name for name in self.model_fields_set if getattr(self, name) is None]:
            raise ValueError(f"{missing[0]} null: expected a value")
        return self


class CatalogueQuery(Wanted):
    """Which items of the catalogue, and how they are written; `species` is genus and epithet, which Wildbook needs.

    `likely` has the table tell the individual that each item may be found to be, beside whom it shows.
    """

    format: Literal["table", "wildbook"] = "table"
    species: Name | None = None
    likely: bool = False

    @model_validator(mode="after")
    def _require_species(self) -> Self:
        if self.format == "wildbook" and self.likely:
            raise ValueError("likely is of format table: Wildbook would take a suggestion for a name")
        if self.format == "wildbook" and len((self.species or "").split(" ", 1)) < 2:
            raise ValueError("format wildbook needs species, genus and epithet, as 'Tragelaphus angasii'")
        return self


class MergeForm(Strict):
    """The identity that gets all items and names."""

    into: Name
    dry_run: bool = Field(False, strict=True)


class SplitForm(Strict):
    """The items that leave an identity, and the name of the one that they show from then on."""

    item_ids: list[Name] = Field(min_length=1, max_length=MAX_PAGE)
    name: Name | None = None
    dry_run: bool = Field(False, strict=True)


class UnmergeForm(Strict):
    """Nothing but whether to tell alone what it would do."""

    dry_run: bool = Field(False, strict=True)


class NeighboursForm(Strict):
    """Up to 1,000 items, how many of the nearest of each are wanted, and among which."""

    item_ids: list[Name] = Field(min_length=1, max_length=MAX_PAGE)
    count: int = Field(10, strict=True, ge=1, le=100)
    filter: Wanted | None = None


class Neighbour(Answer, frozen=True):
    """An item near another: `score` is their cosine, `probability` that of one individual, by the calibration."""

    item_id: str
    score: float
    probability: float | None


class Nearest(Answer, frozen=True):
    """The nearest of an item, by falling score."""

    item_id: str
    neighbours: list[Neighbour]


class Neighbours(Answer, frozen=True):
    """What is nearest to each item, in the order of the request."""

    model_id: str
    nearest: list[Nearest]
