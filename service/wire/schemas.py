"""What goes over the wire: bodies that come in, answers that go out.

A client imports this, so that neither torch nor fastapi is imported here.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, tzinfo
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import InitErrorDetails, from_json

from reid.data.times import read_zone
from service.fields import FIELDS, LONGEST, Filter, NewlySaid, Said, read_filter, said_of
from service.records import Details, ItemEdit
from service.records import Item as Enrolled

MAX_TOP_K = 1000
MAX_PAGE = 1000
MAX_NUMBER = 2**63 - 1
MAX_BOXES = 100  # of a photo
MAX_NAMES = 10_000  # in each list
MAX_SHIFT = 100 * 366 * 86_400  # seconds
MOST_NAMES = 30_000  # in all of a filter; SQLite takes 32,766 values at once


def _with_zone(written: Any, read: ValidatorFunctionWrapHandler) -> datetime:
    # By itself pydantic takes a number, and text such as 2024 or 20240506, for seconds since 1970.
    if isinstance(written, datetime) or (isinstance(written, str) and ":" in written):
        with suppress(ValidationError):
            time: datetime = read(written)
            try:
                time.astimezone(UTC)
                return time
            except OverflowError:
                raise ValueError("the time lies outside the years 1 to 9999 in UTC") from None
    raise ValueError("expected a time with its zone, as 2025-03-01T09:30:00Z")


def _known_zone(text: str) -> str:
    read_zone(text)
    return text


def _storable(attributes: dict[str, Any]) -> dict[str, Any]:
    # Raises for NaN and half a surrogate pair, and for more levels than can be read again.
    try:
        from_json(json.dumps(attributes, allow_nan=False, ensure_ascii=False).encode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return attributes


Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Name], Field(max_length=MAX_NAMES)]
Time = Annotated[AwareDatetime, WrapValidator(_with_zone)]
Zone = Annotated[Name, AfterValidator(_known_zone)]
Attributes = Annotated[dict[str, Any], AfterValidator(_storable)]


class Answer(BaseModel, frozen=True, json_schema_serialization_defaults_required=True):
    """What goes out: every field is there, as null where nothing is known."""


Pixels = Annotated[float, Field(strict=True)]


def _four(kind: str) -> WithJsonSchema:
    about = "x, y, width and height in pixels of the upright picture"
    return WithJsonSchema(
        {"type": "array", "items": {"type": kind}, "minItems": 4, "maxItems": 4, "description": about}
    )


Box = Annotated[tuple[Pixels, Pixels, Pixels, Pixels], _four("number")]
WholeBox = Annotated[tuple[int, int, int, int], _four("integer")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Unknown fields are refused, for a filter that is misspelt must not be ignored."""

    model_config = ConfigDict(extra="forbid")


_PREFIXES = tuple(f"{spelled}." for field in FIELDS if field.kind == "attributes" for spelled in field.spelled)
_TEXT: JsonDict = {"type": "string", "minLength": 1, "maxLength": LONGEST}
_TEXTS: JsonDict = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": MAX_NAMES}]}


class _Filtering(BaseModel):
    """Takes `attributes.NAME` beside its fields, for any attribute, and nothing else that is unknown."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "additionalProperties": False,
            "patternProperties": {f"^{re.escape(prefix)}[\\s\\S]{{1,{LONGEST}}}$": _TEXTS for prefix in _PREFIXES},
        },
    )
    __pydantic_extra__: dict[str, Names]

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, told: Any) -> Any:
        if not isinstance(told, dict):
            return told
        known = {field.alias or name for name, field in cls.model_fields.items()}
        unknown = [name for name in told if name not in known and not _names_attribute(name)]
        if unknown:
            errors = [InitErrorDetails(type="extra_forbidden", loc=(name,), input=told[name]) for name in unknown]
            raise ValidationError.from_exception_data(cls.__name__, errors)
        # A form or a query string gives one value alone.
        return {
            name: [value] if _names_attribute(name) and isinstance(value, str) else value
            for name, value in told.items()
        }

    def chosen(self) -> Filter:
        """The conditions as the store and the engines take them."""
        return read_filter(self.model_dump(by_alias=True))


def _names_attribute(name: str) -> bool:
    return name.startswith(_PREFIXES) and 0 < len(name.partition(".")[2]) <= LONGEST


_asked: dict[str, Any] = {
    name: (Time | None if field.kind == "time" else Names | None, Field(None, alias=spelled))
    for field in FIELDS
    if field.kind != "attributes"
    for name, spelled in zip(field.asked, field.spelled, strict=True)
}


class Conditions(create_model("_Asked", __base__=_Filtering, **_asked)):  # type: ignore[misc]
    """Which items may be found: all conditions must hold. Times are half open, `from` <= captured_at < `to`.

    `attributes.NAME` is that the attribute NAME of an item is one of some texts, `exclude_attributes.NAME` that it is
    none of them, for any NAME.
    """

    @classmethod
    def of(cls, chosen: Filter) -> "Conditions":
        """The conditions of a filter."""
        return Conditions(**chosen.spelled())


class Wanted(Conditions):
    """The conditions of a request, which are counted; those of a key come to them in what is answered."""

    @model_validator(mode="after")
    def _require_few(self) -> Self:
        names = sum(len(value) for value in self.chosen().spelled().values() if isinstance(value, list))
        if names > MOST_NAMES:
            raise ValueError(f"{names} names and texts in all, expected at most {MOST_NAMES}")
        return self


class PageQuery(Wanted):
    """A page of the gallery: `cursor` is `next_cursor` of the page before, `media` leaves the items of one photo."""

    media: Sha256 | None = None
    named: bool | None = Field(None, description="true leaves items with a label, false those without")
    order: Literal["oldest", "newest"] = Field("oldest", description="by enrolment")
    cursor: int = Field(0, ge=0, le=MAX_NUMBER)
    limit: int = Field(100, ge=1, le=MAX_PAGE)


_said: dict[str, Any] = {
    field.name: (Time | None if field.kind == "time" else Name | None, None)
    for field in FIELDS
    if field.kind != "attributes"
}


class ItemMetadata(create_model("_Told", __base__=Strict, **_said)):  # type: ignore[misc]
    """What is said of an item. Times keep the offset that they are written with."""

    key: Name | None = None
    latitude: float | None = Field(None, ge=-90, le=90, allow_inf_nan=False, description="degrees, beside longitude")
    longitude: float | None = Field(None, ge=-180, le=180, allow_inf_nan=False, description="degrees, beside latitude")
    timezone: Zone | None = Field(
        None,
        description="where the camera's clock was, if it does not tell its zone: as Africa/Johannesburg or +02:00",
    )
    attributes: Attributes = Field({})

    @model_validator(mode="after")
    def _require_all_of_place_and_time(self) -> Self:
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError("expected latitude and longitude together, or neither")
        if self.timezone is not None and self.captured_at is not None:
            raise ValueError("timezone is for the camera's clock; captured_at says its zone itself")
        return self

    @property
    def zone(self) -> tzinfo | None:
        """The `timezone`."""
        return None if self.timezone is None else read_zone(self.timezone)

    def details(self) -> Details:
        """The same as a record."""
        return Details(**{name: value for name, value in self if name not in ("boxes", "timezone")})


class BoxMetadata(Strict):
    """A box in a photo, and what is said of it beyond what is said of the photo."""

    box: Box
    key: Name | None = None
    label: Name | None = None
    attributes: Attributes = {}

    def add_to(self, said: Details) -> Details:
        """The same with what is said of the photo."""
        attributes = {**said.attributes, **self.attributes}
        return replace(said, key=self.key, label=self.label or said.label, attributes=attributes)


class Metadata(ItemMetadata):
    """What is said of a photo, and of each of the `boxes` in it, if they are to be enrolled instead of the whole."""

    boxes: Annotated[list[Box | BoxMetadata], Field(min_length=1, max_length=MAX_BOXES)] | None = None

    @model_validator(mode="after")
    def _require_a_key_for_each(self) -> Self:
        if self.boxes is not None and self.key is not None:
            raise ValueError("a key is of one item: expected it with its box, not beside boxes")
        return self

    def parts(self) -> list[tuple[Details, Box | None]]:
        """What is to be enrolled, with what is said of it: each box, or the whole photo."""
        said = self.details()
        if self.boxes is None:
            return [(said, None)]
        return [(one.add_to(said), one.box) if isinstance(one, BoxMetadata) else (said, one) for one in self.boxes]


class BoxesForm(Strict):
    """Boxes in the photo of an item, each to be an item of its own; of the photo is said what is said there."""

    boxes: Annotated[list[Box | BoxMetadata], Field(min_length=1, max_length=MAX_BOXES)]

    def parts(self, said: Details) -> list[tuple[Details, tuple[float, float, float, float]]]:
        """Each box, with what is said of it and of its photo."""
        return [(one.add_to(said), one.box) if isinstance(one, BoxMetadata) else (said, one) for one in self.boxes]


class ItemChanges(ItemMetadata):
    """New values for some fields of an item; null takes one away. Latitude and longitude are changed together.

    `timezone` moves a time whose zone is unknown to where the clock showed it.
    """

    @model_validator(mode="after")
    def _require_both_of_a_place_and_one_time(self) -> Self:
        if len(self.model_fields_set & {"latitude", "longitude"}) == 1:
            raise ValueError("expected latitude and longitude together, or neither")
        if self.timezone is not None and "captured_at" in self.model_fields_set:  # null takes the time away
            raise ValueError("timezone moves the time that captured_at takes the place of; expected one of them")
        return self

    def changes(self) -> ItemEdit:
        """The fields that were given, but for `timezone`."""
        return cast(ItemEdit, self.model_dump(exclude_unset=True, exclude={"timezone"}))


class Changes(NewlySaid, total=False):
    """What `ItemChanges` takes, for those who write Python."""

    key: str | None
    latitude: float | None
    longitude: float | None
    timezone: str
    attributes: Mapping[str, Any]


class Chosen(Strict):
    """Items that something is done to: `item_ids`, or all that pass `filter`; all items pass an empty one."""

    item_ids: list[Name] | None = Field(None, min_length=1, max_length=MAX_PAGE)
    filter: Wanted | None = None
    dry_run: bool = Field(True, strict=True)
    expected: int | None = Field(
        None, strict=True, ge=0, le=MAX_NUMBER, description="the number of a dry run, where a filter chooses"
    )

    @model_validator(mode="after")
    def _require_one_choice(self) -> Self:
        if (self.item_ids is None) == (self.filter is None):
            raise ValueError("expected item_ids or filter, and not both")
        if self.filter is not None and not self.dry_run and self.expected is None:
            raise ValueError("expected is missing: send a dry run first, and then its number of items as expected")
        return self


class Deletion(Chosen):
    """What to delete: `item_ids`, or all that pass `filter`; an empty filter is passed by all items."""


class DeletionAnswer(BaseModel):
    """How many items were deleted or would be, or will be by a job, which deletes more than 10,000."""

    dry_run: bool
    items: int
    job_id: str | None = Field(None, description="of the job that deletes them")


_names: dict[str, Any] = {field.name: (Name | None, None) for field in FIELDS if field.kind == "name"}


class SharedChanges(create_model("_Shared", __base__=Strict, **_names)):  # type: ignore[misc]
    """What many items can have in common; null takes it away, and what is not there stays as it is."""


class ItemsEdit(Chosen):
    """What to change of `item_ids`, or of all that pass `filter`, which `named` narrows to those with or without label.

    `shift_seconds` are added to the times of those that have one, for a clock that was wrong.
    """

    named: bool | None = Field(None, strict=True)
    changes: SharedChanges = Field(default_factory=SharedChanges)
    shift_seconds: int = Field(0, strict=True, ge=-MAX_SHIFT, le=MAX_SHIFT)

    @model_validator(mode="after")
    def _require_a_change(self) -> Self:
        if not self.changes.model_fields_set and not self.shift_seconds:
            raise ValueError("nothing to change: expected changes or shift_seconds")
        return self


class EditUndo(Strict):
    """Which step of edits to take back."""

    batch_id: Name
    dry_run: bool = Field(False, strict=True)


class EditAnswer(Answer, frozen=True):
    """How many items were meant, and how many are others now, or would be; `batch_id` takes it back."""

    dry_run: bool
    items: int
    changed: int
    batch_id: str | None


class DaysQuery(Wanted):
    """Which items are counted."""

    named: bool | None = Field(None, description="true leaves items with a label, false those without")


class Day(BaseModel):
    """A day, in UTC, and how many items were captured on it."""

    day: date
    items: int


class Days(BaseModel):
    """The days on which items were captured, the first one first."""

    days: list[Day]


class Counted(BaseModel):
    """A name, and how many items have it."""

    name: str
    items: int


class Cameras(BaseModel):
    """Cameras by falling number of items."""

    cameras: list[Counted]


class Labels(BaseModel):
    """Labels by falling number of items."""

    labels: list[Counted]


class Item(Answer, Said, frozen=True):
    """An enrolled photo, or with a `box` that part of one, in whole pixels. `media` is the SHA-256 of the photo."""

    item_id: str
    key: str | None
    identity_id: str | None
    captured_precision: str | None = Field(
        None, description="second or subsecond, of a time that the camera said, and whether its zone is unknown"
    )
    latitude: float | None = None
    longitude: float | None = None
    attributes: dict[str, Any]
    source: str
    media: str = ""  # from here on, answers of earlier versions, which are kept for a day, have neither
    box: WholeBox | None = None
    width: int
    height: int
    created_at: datetime
    image_url: str
    thumbnail_url: str

    @classmethod
    def of(cls, item: Enrolled, root: str = "") -> Self:
        """The item of a record; `root` is the path below which the asker sees the service."""
        medium, details = item.medium, item.details
        return cls(
            item_id=item.item_id,
            key=details.key,
            identity_id=item.identity_id,
            **said_of(details),
            captured_precision=details.captured_precision,
            latitude=details.latitude,
            longitude=details.longitude,
            attributes=dict(details.attributes),
            source=medium.source,
            media=medium.sha256,
            box=_box(item),
            width=medium.width,
            height=medium.height,
            created_at=item.created_at,
            image_url=f"{root}/v1/items/{item.item_id}/image",
            thumbnail_url=f"{root}/v1/items/{item.item_id}/thumbnail",
        )


def _box(item: Enrolled) -> WholeBox | None:
    region = item.region
    return None if region is None else (region.x, region.y, region.w, region.h)


class ItemPage(BaseModel):
    """Items by rising age of enrolment; `next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: int | None


class Match(Answer, Said, frozen=True):
    """An item found. `score` is the cosine similarity; `probability` needs a calibration of the model.

    `identity_probability` is that of its identity by all its photos, where the query asks by identity and enough
    identities are known.
    """

    rank: int
    item_id: str
    key: str | None
    score: float
    probability: float | None
    identity_id: str | None
    identity_probability: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    box: WholeBox | None = None
    thumbnail_url: str

    @classmethod
    def of(
        cls,
        rank: int,
        item: Enrolled,
        score: float,
        probability: float | None,
        root: str = "",
        identity_probability: float | None = None,
    ) -> Self:
        """The match of an item; `root` is the path below which the asker sees the service."""
        return cls(
            rank=rank,
            item_id=item.item_id,
            key=item.details.key,
            score=score,
            probability=probability,
            identity_id=item.identity_id,
            identity_probability=identity_probability,
            **said_of(item.details),
            latitude=item.details.latitude,
            longitude=item.details.longitude,
            box=_box(item),
            thumbnail_url=f"{root}/v1/items/{item.item_id}/thumbnail",
        )


class QueryAnswer(BaseModel):
    """Matches by falling score, ties by age. `candidates` items passed the filter.

    `verdict` says whether the subject is among them, judged by the best of them; it needs a calibration of the model.
    A query by identity has the likeliest identities first, and tells of the first one `identity_id`, which is null for
    an item of nobody known, and `identity_probability`, which is null where too few identities are known.
    """

    model_id: str
    took_ms: float
    filter: Conditions
    candidates: int
    verdict: Literal["known", "unknown", "ambiguous"] | None
    identity_id: str | None = None
    identity_probability: float | None = None
    matches: list[Match]


class FileError(BaseModel):
    """Why a file could not be used; the fields are those of a problem."""

    status: int
    code: str
    detail: str


class FileResult(BaseModel):
    """What became of one file, by its place in the request, or of one `box` in it, as it was sent.

    `item` is null for an error, and for an item that was deleted before the request was repeated. A photo that is
    `pending` is kept for good, and will be found once the search index is back.
    """

    index: int
    filename: str
    box: Box | None = None
    result: Literal["created", "existing", "error"]
    item: Item | None = None
    error: FileError | None = None
    pending: bool = False


class EnrolAnswer(BaseModel):
    """A result for each file, in their order; for a file with boxes one for each of these."""

    model_id: str
    results: list[FileResult]


class Prediction(BaseModel):
    """A class, and the probability that the classifier gives it; those of all classes sum to 1."""

    rank: int
    class_name: str = Field(alias="class")
    probability: float


class Classified(BaseModel):
    """The best classes of one file, by its place in the request; none, but an `error`, for one that cannot be used."""

    index: int
    filename: str
    predictions: list[Prediction] = []
    error: FileError | None = None


class ClassifyAnswer(BaseModel):
    """A result for each file, in their order."""

    model_id: str
    took_ms: float
    results: list[Classified]


class Classes(BaseModel):
    """The names of all classes, in the order of their labels."""

    model_id: str
    classes: list[str]


class FieldError(BaseModel):
    """One thing wrong with a request: where, such as `body.top_k`, and what."""

    field: str
    detail: str


class Problem(BaseModel):
    """Problem details; `code` is for programs and stays, `detail` is for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldError] = []


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"] = "live"


class ServedClassifier(BaseModel):
    """A classifier, and the number of its classes."""

    model_id: str
    classes: int


class Ready(BaseModel):
    """All that is served answers: a gallery's model, with this many items, and a classifier; null is not served.

    `trained_on` is the dataset of the gallery's model; that of dataset `toy` knows drawn vehicles alone. `runtime` is
    what runs that model, torch or ONNX Runtime. `degraded` is ready, for `reasons` that somebody should look after. All
    but `status` is null or empty where a key is needed and none was sent; `items` are those that the key shows.
    """

    status: Literal["ready", "degraded"] = "ready"
    reasons: list[str] = []
    model_id: str | None
    items: int | None
    trained_on: str | None
    runtime: Literal["torch", "onnx"] | None = None
    classifier: ServedClassifier | None
