"""The fields by which items are found, each declared once: whatever filters, stores or shows them reads `FIELDS`.

The store takes its columns and conditions from there, a search engine what it keeps of an item and what it compares,
the API and its clients the names of the filters. For the checker of types a field stands in the three records, too.
"""

import json
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, cast

LONGEST = 200  # characters of an attribute's name and text that are searched
MOST_ATTRIBUTES = 4096  # of an item that are searched, which is what Milvus keeps

Fact = str | int | Mapping[str, str]  # a name, microseconds since 1970, or texts by the names of attributes


@dataclass(frozen=True)
class Said:
    """What people say of an item, by which it can be found; a time has a zone, `label` is the name of its identity."""

    label: str | None = None
    camera: str | None = None
    captured_at: datetime | None = None
    viewpoint: str | None = None
    site: str | None = None
    origin: str | None = None


class NewlySaid(TypedDict, total=False):
    """New values for some of what is said of an item; None takes one away."""

    label: str | None
    camera: str | None
    captured_at: datetime | None
    viewpoint: str | None
    site: str | None
    origin: str | None


class Filters(TypedDict, total=False):
    """Which items may be found: all must hold but None; since <= captured_at < until, with zones.

    Of several names one has to be the item's. Attributes are by their names, and only those that are text are compared.
    """

    labels: Collection[str] | None
    exclude_labels: Collection[str] | None
    cameras: Collection[str] | None
    exclude_cameras: Collection[str] | None
    since: datetime | None
    until: datetime | None
    viewpoints: Collection[str] | None
    exclude_viewpoints: Collection[str] | None
    sites: Collection[str] | None
    exclude_sites: Collection[str] | None
    origins: Collection[str] | None
    exclude_origins: Collection[str] | None
    attributes: Mapping[str, Collection[str]] | None
    exclude_attributes: Mapping[str, Collection[str]] | None


class Field(NamedTuple):
    """What items are filtered by: a name, a time, or all attributes that are text.

    `column` is that of the store, as TABLE.COLUMN. `asked` are the two keys of `Filters`: items that have one of some
    values and those that have none of them, or from a time on and before one. `spelled` is how the API writes them.
    """

    name: str
    kind: Literal["name", "time", "attributes"]
    column: str
    asked: tuple[str, str]
    spelled: tuple[str, str]


def _name(name: str, column: str) -> Field:
    asked = (f"{name}s", f"exclude_{name}s")
    return Field(name, "name", column, asked, asked)


FIELDS = (
    _name("label", "identities.name"),
    _name("camera", "items.camera"),
    Field("captured_at", "time", "items.captured_at", ("since", "until"), ("from", "to")),
    _name("viewpoint", "items.viewpoint"),
    _name("site", "items.site"),
    _name("origin", "items.origin"),
    Field("attributes", "attributes", "items.attributes", *2 * [("attributes", "exclude_attributes")]),
)
ITEM_FIELDS = tuple(field for field in FIELDS if field.column.startswith("items."))
SAID = tuple(field.name for field in FIELDS if field.kind != "attributes")

_ASKED = {name: (field, spelled) for field in FIELDS for name, spelled in zip(field.asked, field.spelled, strict=True)}


class Among(NamedTuple):
    """An item's name, or its text of one attribute, is one of these; or, where they are excluded, none of them.

    What is unknown is none of them.
    """

    field: Field
    attribute: str  # empty for a name
    texts: frozenset[str]
    excluded: bool


class During(NamedTuple):
    """An item's time is known and since <= time < until, in microseconds since 1970, UTC; None is no bound."""

    field: Field
    since: int | None
    until: int | None


class Filter:
    """Which items may be found: all conditions must hold, and an empty list of names is held by no item.

    An item of which a field is unknown fails a condition that asks for it, and passes one that excludes some names.
    Raises TypeError for a condition that there is not.
    """

    __slots__ = ("asked",)

    def __init__(self, **asked: Unpack[Filters]) -> None:
        if unknown := asked.keys() - _ASKED.keys():
            raise TypeError(f"no filter is called {', '.join(sorted(unknown))}; expected some of {', '.join(_ASKED)}")
        self.asked = cast(Filters, {name: _fixed(value) for name, value in asked.items() if value is not None})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.asked == other.asked

    def __hash__(self) -> int:
        return hash(frozenset(self.asked))

    def __repr__(self) -> str:
        return f"Filter({', '.join(f'{name}={value!r}' for name, value in self.asked.items())})"

    def narrowed_to(self, cameras: frozenset[str]) -> "Filter":
        """The same filter over the items of some cameras."""
        wanted = self.asked.get("cameras")
        narrowed: Filters = {**self.asked, "cameras": cameras if wanted is None else cameras & frozenset(wanted)}
        return Filter(**narrowed)

    def conditions(self) -> Iterator[Among | During]:
        """What must hold, for those who look for items.

        Raises ValueError for a time without zone, and for an attribute longer than those that are searched.
        """
        asked = cast(dict[str, Any], self.asked)
        for field in FIELDS:
            one, other = map(asked.get, field.asked)
            if field.kind == "time":
                if one is not None or other is not None:
                    yield During(field, *(None if time is None else microseconds(time) for time in (one, other)))
                continue
            for wanted, excluded in ((one, False), (other, True)):
                named = wanted or {} if field.kind == "attributes" else {} if wanted is None else {"": wanted}
                for attribute, texts in named.items():
                    if attribute and (longer := [text for text in (attribute, *texts) if len(text) > LONGEST]):
                        raise ValueError(f"attribute {reprlib.repr(longer[0])}: expected at most {LONGEST} characters")
                    if texts or not excluded:
                        yield Among(field, attribute, texts, excluded)

    def spelled(self) -> dict[str, Any]:
        """The conditions as the API writes them: sorted names, `from`, and `attributes.NAME` for each attribute."""
        told: dict[str, Any] = {}
        for name, value in self.asked.items():
            field, spelled = _ASKED[name]
            if field.kind == "attributes":
                told |= {
                    f"{spelled}.{attribute}": sorted(texts) for attribute, texts in cast(dict[str, Any], value).items()
                }
            else:
                told[spelled] = value if field.kind == "time" else sorted(cast(frozenset[str], value))
        return told


def read_filter(told: Mapping[str, Any]) -> Filter:
    """The filter that `spelled` writes so; None and what is no condition is left out."""
    asked: dict[str, Any] = {}
    for name, (field, spelled) in _ASKED.items():
        if field.kind == "attributes":
            prefix = f"{spelled}."
            texts = {key.removeprefix(prefix): value for key, value in told.items() if key.startswith(prefix)}
            if texts:
                asked[name] = texts
        elif told.get(spelled) is not None:
            asked[name] = told[spelled]
    return Filter(**cast(Filters, asked))


def filter_as_json(chosen: Filter) -> dict[str, Any]:
    """A filter as the parameter of a job."""
    told: dict[str, Any] = json.loads(json.dumps(chosen.spelled(), default=str))
    return told


def filter_from_json(told: Mapping[str, Any]) -> Filter:
    """The filter that `filter_as_json` writes so."""
    times = {spelled for field in FIELDS if field.kind == "time" for spelled in field.spelled}
    return read_filter(
        {name: datetime.fromisoformat(value) if name in times else value for name, value in told.items()}
    )


def said_of(item: Said) -> dict[str, Any]:
    """What is said of an item, by the names of its fields."""
    return {name: getattr(item, name) for name in SAID}


def facts(columns: Collection[Any]) -> dict[str, Fact]:
    """What an engine keeps of an item, from its columns in the order of `FIELDS`: what is known, by field."""
    known = {field.name: value for field, value in zip(FIELDS, columns, strict=True) if value is not None}
    written = known.pop("attributes", "{}")
    # Most items have none, and reading a million of them takes seconds.
    if written != "{}" and (texts := dict(islice(_texts(json.loads(written)), MOST_ATTRIBUTES))):
        known["attributes"] = texts
    return known


def _texts(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The attributes that are searched."""
    return (
        (name, text)
        for name, text in attributes.items()
        if isinstance(text, str) and max(len(name), len(text)) <= LONGEST
    )


def time_from(microseconds: int) -> datetime:
    """The time, in UTC."""
    return _EPOCH + microseconds * _MICROSECOND


def microseconds(time: datetime) -> int:
    """A time in microseconds since 1970, UTC; raises ValueError for one without zone."""
    if time.tzinfo is None:
        raise ValueError(f"time {time.isoformat()} has no time zone; expected one such as {time.isoformat()}Z")
    return (time - _EPOCH) // _MICROSECOND


def _fixed(value: Any) -> Any:
    """Names as a set, where one name alone stands for itself."""
    if isinstance(value, Mapping):
        return {attribute: _fixed(texts) for attribute, texts in value.items()}
    if isinstance(value, datetime):
        return value
    return frozenset([value] if isinstance(value, str) else value)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
