"""What goes over the wire: forms and bodies that come in, answers that go out."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, cast

from fastapi import UploadFile
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import from_json

from reid.retrieval.calibration import Verdict
from service.changes import Changes
from service.gallery import Match as Found
from service.records import Details, Filter
from service.records import Item as Enrolled

MAX_TOP_K = 1000
MAX_PAGE = 1000
MAX_NUMBER = 2**63 - 1


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies outside the years 1 to 9999 in UTC") from None


def _storable(attributes: dict[str, Any]) -> dict[str, Any]:
    # Raises for NaN and half a surrogate pair, and for more levels than can be read again.
    try:
        from_json(json.dumps(attributes, allow_nan=False, ensure_ascii=False).encode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return attributes


def _from_one_field(values: list[str]) -> Any:
    """The JSON value of a form field, which arrives in a list because a list is what comes out."""
    if len(values) != 1:
        raise ValueError(f"expected one field with a JSON list, found {len(values)}")
    return from_json(values[0], allow_inf_nan=False)


Name = Annotated[str, Field(min_length=1, max_length=200)]
Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Attributes = Annotated[dict[str, Any], AfterValidator(_storable)]


class _Strict(BaseModel):
    """Unknown fields are refused, for a filter that is misspelt must not be ignored."""

    model_config = ConfigDict(extra="forbid")


class Conditions(_Strict):
    """Which items may be found: all conditions must hold. Times are half open, `from` <= captured_at < `to`."""

    cameras: list[Name] | None = None
    exclude_cameras: list[Name] | None = None
    since: Time | None = Field(None, alias="from")
    until: Time | None = Field(None, alias="to")
    labels: list[Name] | None = None

    def conditions(self) -> "Conditions":
        """The conditions alone."""
        return Conditions(**self.model_dump(include=set(Conditions.model_fields), by_alias=True))

    def chosen(self) -> Filter:
        """The conditions as the store and the engines take them."""
        return Filter(
            cameras=None if self.cameras is None else frozenset(self.cameras),
            exclude_cameras=frozenset(self.exclude_cameras or ()),
            since=self.since,
            until=self.until,
            labels=None if self.labels is None else frozenset(self.labels),
        )


class QueryForm(Conditions):
    """A query: one or several image files of one subject, or an enrolled item, and which items may be found."""

    image: list[UploadFile] = []
    item_id: Name | None = None
    top_k: int = Field(10, ge=1, le=MAX_TOP_K)
    min_score: float = Field(-1, ge=-1, le=1)

    @model_validator(mode="after")
    def _require_one_subject(self) -> Self:
        if bool(self.image) == bool(self.item_id):
            raise ValueError("expected image files in the field image, or item_id, and not both")
        return self


class PageQuery(Conditions):
    """A page of the gallery: `cursor` is `next_cursor` of the page before."""

    cursor: int = Field(0, ge=0, le=MAX_NUMBER)
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class Metadata(_Strict):
    """What is said of a photo."""

    key: Name | None = None
    label: Name | None = None
    camera: Name | None = None
    captured_at: Time | None = None
    attributes: Attributes = {}

    def details(self) -> Details:
        """The same as a record."""
        return Details(self.key, self.label, self.camera, self.captured_at, self.attributes)


class EnrolForm(_Strict):
    """Image files, and optionally what is said of them: a JSON list with an object for each, in their order."""

    images: list[UploadFile] = Field(min_length=1)
    metadata: (
        Annotated[
            list[Metadata],
            BeforeValidator(_from_one_field),
            WithJsonSchema({"type": "string", "contentMediaType": "application/json"}),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _require_as_many(self) -> Self:
        if self.metadata is not None and len(self.metadata) != len(self.images):
            raise ValueError(f"metadata has {len(self.metadata)} objects for {len(self.images)} images")
        return self

    def details(self) -> list[Details]:
        """What is said of each image."""
        return [said.details() for said in self.metadata or [Metadata()] * len(self.images)]


class ItemChanges(Metadata):
    """New values for some fields of an item; null takes one away."""

    def changes(self) -> Changes:
        """The fields that were given."""
        return cast(Changes, self.model_dump(exclude_unset=True))


class Item(BaseModel):
    """An enrolled photo."""

    item_id: str
    key: str | None
    label: str | None
    identity_id: str | None
    camera: str | None
    captured_at: datetime | None
    attributes: dict[str, Any]
    source: str
    width: int
    height: int
    created_at: datetime
    image_url: str
    thumbnail_url: str

    @classmethod
    def of(cls, item: Enrolled) -> Self:
        """The item of a record."""
        medium, details = item.medium, item.details
        return cls(
            item_id=item.item_id,
            key=details.key,
            label=details.label,
            identity_id=item.identity_id,
            camera=details.camera,
            captured_at=details.captured_at,
            attributes=dict(details.attributes),
            source=medium.source,
            width=medium.width,
            height=medium.height,
            created_at=item.created_at,
            image_url=f"/v1/items/{item.item_id}/image",
            thumbnail_url=f"/v1/items/{item.item_id}/thumbnail",
        )


class ItemPage(BaseModel):
    """Items by rising age of enrolment; `next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: int | None


class Match(BaseModel):
    """An item found. `score` is the cosine similarity; `probability` needs a calibration of the model."""

    rank: int
    item_id: str
    key: str | None
    score: float
    probability: float | None
    label: str | None
    identity_id: str | None
    camera: str | None
    captured_at: datetime | None
    thumbnail_url: str

    @classmethod
    def of(cls, rank: int, match: Found, probability: float | None) -> Self:
        """The match of a record."""
        item = match.item
        return cls(
            rank=rank,
            item_id=item.item_id,
            key=item.details.key,
            score=match.score,
            probability=probability,
            label=item.details.label,
            identity_id=item.identity_id,
            camera=item.details.camera,
            captured_at=item.details.captured_at,
            thumbnail_url=f"/v1/items/{item.item_id}/thumbnail",
        )


class QueryAnswer(BaseModel):
    """Matches by falling score, ties by age. `candidates` items passed the filter.

    `verdict` says whether the subject is among them, judged by the best of them; it needs a calibration of the model.
    """

    model_id: str
    took_ms: float
    filter: Conditions
    candidates: int
    verdict: Verdict | None
    matches: list[Match]


class FileError(BaseModel):
    """Why a file was not enrolled; the fields are those of a problem."""

    status: int
    code: str
    detail: str


class FileResult(BaseModel):
    """What became of one file, by its place in the request."""

    index: int
    filename: str
    result: Literal["created", "existing", "error"]
    item: Item | None = None
    error: FileError | None = None


class EnrolAnswer(BaseModel):
    """A result for each file, in their order."""

    model_id: str
    results: list[FileResult]


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """The model and the engine answer, with this many items."""

    status: Literal["ready"] = "ready"
    model_id: str
    items: int
