"""What a gallery knows of each item, row by row: what it shows, whom, who decided that and how sure it is."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from service.fields import Filter
from service.records import Item
from service.storage.database import Database
from service.storage.decisions import Decisions, Held, reviewer_errors, totals
from service.storage.store import Store

AT_ONCE = 10_000
EVERYTHING = Filter()


class Sighting(NamedTuple):
    """An item and the individual that it shows.

    `individual` is its name, or the id of an identity without one; `decided_by`, `basis` and `decided_at` are of the
    weightiest decision that joins the item to others, and `certainty`, in [0, 1], is what all about that pair say.
    `likely` is the individual that it may be found to be, and `likely_probability` how likely that is: a suggestion, by
    which it shows nobody yet.
    """

    item: Item
    individual: str | None
    decided_by: str | None = None
    basis: str | None = None
    decided_at: datetime | None = None
    certainty: float | None = None
    likely: str | None = None
    likely_probability: float | None = None


def sightings(
    database: Database,
    chosen: Filter,
    seen: Filter = EVERYTHING,
    likely: Mapping[str, tuple[str, float]] = MappingProxyType({}),
) -> Iterator[Sighting]:
    """All items that pass a filter, in the order of their enrolment.

    Nothing is told of decisions about items that do not pass `seen`, which are those that somebody may know of.
    `likely` has, by item, another one of the individual that it may be found to be, and how likely that is.
    """
    store, after = Store(database), 0
    known = None if seen == EVERYTHING else _ids(store, seen)
    joined, suggested = _joins(database, known), _individuals(store, known, likely)
    while page := store.page(chosen, after, AT_ONCE):
        for item in page:
            individual = _individual(item)
            best = None if individual is None else joined.get(item.item_id)
            row = Sighting(item, individual, *(best or ()))
            other, probability = suggested.get(item.item_id, (None, None))
            # One that was joined to it meanwhile needs no suggestion.
            yield row if other in (None, individual) else row._replace(likely=other, likely_probability=probability)
        after = page[-1].number


def _individual(item: Item) -> str | None:
    return item.details.label or item.identity_id


def _individuals(
    store: Store, known: set[str] | None, likely: Mapping[str, tuple[str, float]]
) -> dict[str, tuple[str, float]]:
    """By item, the individual of that item of those known which is given for it."""
    wanted = {other for other, _ in likely.values() if known is None or other in known}
    shown = {item.item_id: individual for item in store.find(wanted) if (individual := _individual(item)) is not None}
    return {one: (shown[other], probability) for one, (other, probability) in likely.items() if other in shown}


def _ids(store: Store, chosen: Filter) -> set[str]:
    found, after = set(), 0
    while page := store.page(chosen, after, AT_ONCE):
        found |= {item.item_id for item in page}
        after = page[-1].number
    return found


def _joins(database: Database, known: set[str] | None) -> dict[str, tuple[str, str, datetime, float]]:
    """By item, who joined it to others of those that are known, on what basis, when, and how sure that is."""
    with database.reading() as connection:
        errors = reviewer_errors(connection)
    decisions = Decisions(database)
    pairs: dict[tuple[str, str], list[Held]] = defaultdict(list)
    told, after = {}, 0
    while page := decisions.page(after, AT_ONCE):
        for one in page:
            there = known is None or {one.a, one.b} <= known
            if there and not one.superseded and one.answer in ("same", "different"):
                held = Held(one.number, one.a, one.b, one.answer, one.basis, one.actor)
                pairs[held.pair].append(held)
                told[one.number] = one
        after = page[-1].number
    best: dict[str, tuple[float, Held]] = {}
    for pair, held_all in pairs.items():
        total = totals(held_all, errors)[pair]
        same = [one for one in held_all if one.answer == "same"]
        if total > 0 and same:
            for end in pair:
                if end not in best or total > best[end][0]:
                    best[end] = total, same[-1]
    return {
        item_id: (one.actor, one.basis, told[one.number].answered_at, 1 / (1 + math.exp(-total)))
        for item_id, (total, one) in best.items()
    }


def box_text(item: Item) -> str:
    """The box of an item as `x,y,w,h`, empty for a whole photo."""
    region = item.region
    return "" if region is None else ",".join(map(str, (region.x, region.y, region.w, region.h)))


def attributes_text(item: Item) -> str:
    """The attributes of an item as JSON, empty for none."""
    return json.dumps(dict(item.details.attributes), ensure_ascii=False) if item.details.attributes else ""
