"""What a review is about: which items, with what is known of them, and how it was asked for."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from service.fields import FIELDS, Filter, filter_as_json, filter_from_json
from service.records import APPEARANCE
from service.storage.columns import LABELLED_ITEMS, condition
from service.storage.database import Database
from service.storage.identities import plain_name
from service.storage.store import Store
from service.storage.tables import identities, items, media

Integers = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_CONDITIONS = {name for known in FIELDS for name in known.spelled}
SIDES = ("left", "right")  # viewpoints of which no picture of one can be compared with one of the other


@dataclass(frozen=True)
class Plan:
    """How a review was asked for.

    `error` is the share of the machine's joins that may be wrong, `neighbours` how many candidates each item has, and
    `gold` the share of questions whose answer is known. What follows without asking: `photos`, that regions of one
    photo that hardly overlap differ; `speed`, in km/h, that nobody is at once at places that are farther apart than
    this allows, 0 for never; `tracks`, that one track is one; `burst`, that what one camera took within so many seconds
    is one, 0 for never; `sides`, that left and right flanks cannot be compared; `names`, that individuals of different
    names differ.
    """

    error: float = 0.01
    neighbours: int = 20
    gold: float = 0.02
    photos: bool = True
    speed: float = 100.0
    tracks: bool = True
    burst: float = 0.0
    sides: bool = True
    names: bool = True
    chosen: Filter = field(default_factory=Filter)

    def __post_init__(self) -> None:
        """Raise ValueError for a number out of its range."""
        for name, value, low, high in (
            ("error", self.error, 0, 0.99),
            ("neighbours", self.neighbours, 1, 200),
            ("gold", self.gold, 0, 0.5),
            ("speed", self.speed, 0, 100_000),
            ("burst", self.burst, 0, 86_400),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} {value:g}: expected a number from {low:g} to {high:g}")

    def as_json(self) -> dict[str, Any]:
        """The same as the parameters of a job."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "chosen"}
        return {**told, "filter": filter_as_json(self.chosen)}

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """The plan of a job."""
        told = dict(parameters)
        return cls(
            **{name: value for name, value in told.items() if name != "filter"}, chosen=filter_from_json(told["filter"])
        )


class Known(NamedTuple):
    """What is known of an item; a time is in microseconds since 1970, UTC."""

    number: int
    item_id: str
    medium: int
    box: tuple[int, int, int, int] | None
    frame: int | None
    track_id: str | None
    camera: str | None
    captured_at: int | None
    viewpoint: str | None
    latitude: float | None
    longitude: float | None


class Scope(NamedTuple):
    """N items by rising number, and their vectors (N, E) of a model."""

    model_id: str
    items: list[Known]
    vectors: Vectors


def read_scope(database: Database, model_id: str, chosen: Filter) -> Scope:
    """The items that pass a filter and have a vector of a model."""
    columns = (
        items.c.number,
        items.c.item_id,
        items.c.media_number,
        items.c.box,
        items.c.frame,
        items.c.track_id,
        items.c.camera,
        items.c.captured_at,
        items.c.viewpoint,
        items.c.latitude,
        items.c.longitude,
    )
    told = select(*columns).select_from(LABELLED_ITEMS.join(media, media.c.number == items.c.media_number))
    rows = database.read(told.where(condition(chosen)).order_by(items.c.number))
    known = {}
    for number, item_id, medium, box, *more in rows:
        known[number] = Known(number, item_id, medium, None if box is None else tuple(json.loads(box)), *more)
    everything = chosen == Filter()
    found = Store(database).rows(model_id, None if everything else list(known), space=APPEARANCE)
    vectors = {row.number: row.vector for row in found if row.number in known}
    there = [one for number, one in known.items() if number in vectors]
    stacked = np.stack([vectors[one.number] for one in there]) if there else np.zeros((0, 1), np.float32)
    return Scope(model_id, there, stacked)


def read_names(database: Database, place: Mapping[str, int]) -> Integers:
    """Numbers of the names that the items (N,) at these places have, -1 for none; names spelt alike have one number."""
    named = select(items.c.item_id, identities.c.name).join_from(items, identities)
    named = named.where(identities.c.name.is_not(None)).order_by(items.c.number)
    found = np.full(len(place), -1)
    plain: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for item_id, name in database.read(named):
        if item_id in place:
            spelt = plain.get(name) or plain.setdefault(name, plain_name(name))
            found[place[item_id]] = numbers.setdefault(spelt, len(numbers))
    return found


def views(scope: Scope) -> Integers | None:
    """The flank that each item (N,) shows; None where all can be compared, or of some the flank is unknown."""
    sides = [one.viewpoint if one.viewpoint in SIDES else None for one in scope.items]
    if None in sides or len(set(sides)) < 2:
        return None
    return np.array([SIDES.index(side) for side in sides if side is not None])


def read_conditions(told: Sequence[str]) -> Filter:
    """The filter of conditions such as `cameras=gate`; raises ValueError for one that there is not."""
    spelled: dict[str, Any] = defaultdict(list)
    for one in told:
        name, _, value = one.partition("=")
        if not value or name.partition(".")[0] not in _CONDITIONS:
            raise ValueError(f"{one!r}: expected FIELD=VALUE with one of {', '.join(sorted(_CONDITIONS))}")
        spelled[name].append(value)
    for name in {"from", "to"} & spelled.keys():
        spelled[name] = spelled[name][-1]
    chosen = filter_from_json(spelled)
    list(chosen.conditions())
    return chosen
