"""What follows without asking from where, when and how items were taken. Each answer has basis `context`."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import numpy as np

from service.review.scope import Integers, Known, Plan
from service.storage.decisions import NewDecision

OVERLAP = 0.3  # intersection over union from which two boxes of a photo may be one animal
CLOCKS = 60.0  # seconds by which the clocks of two cameras may differ
MOST_IN_PHOTO = 100  # regions of a photo of which each pair is told apart
EARTH = 6371.0  # km


def free_answers(plan: Plan, items: list[Known], rows: Integers) -> Iterator[NewDecision]:
    """The answers that a plan allows about N items, of whose candidates `rows` (N, K) has the places, -1 for none."""
    if plan.photos:
        yield from _answers(_apart_in_photo(items), "different", "photo")
    if plan.speed:
        yield from _answers(_too_far(items, rows, plan.speed), "different", "speed")
    if plan.tracks:
        yield from _answers(_chains(items, lambda one: one.track_id and (one.camera, one.track_id)), "same", "track")
    if plan.burst:
        yield from _answers(_bursts(items, plan.burst), "same", "burst")


def overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes x, y, w, h, in [0, 1]."""
    w = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    h = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(w, 0) * max(h, 0)
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def kilometres(one: Known, other: Known) -> float:
    """The distance of two items with places, along a great circle."""
    a, b, c, d = (
        math.radians(angle or 0.0) for angle in (one.latitude, one.longitude, other.latitude, other.longitude)
    )
    half = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
    return 2 * EARTH * math.asin(math.sqrt(min(half, 1.0)))


def _answers(pairs: Iterable[tuple[Known, Known]], answer: str, rule: str) -> Iterator[NewDecision]:
    for one, other in pairs:
        yield NewDecision(one.item_id, other.item_id, answer, "context", evidence={"rule": rule})  # type: ignore[arg-type]


def _apart_in_photo(items: list[Known]) -> Iterator[tuple[Known, Known]]:
    photos: dict[tuple[int, int | None], list[Known]] = defaultdict(list)
    for one in items:
        if one.box is not None:
            photos[one.medium, one.frame].append(one)
    for regions in photos.values():
        for place, one in enumerate(regions[:MOST_IN_PHOTO]):
            for other in regions[place + 1 : MOST_IN_PHOTO]:
                assert one.box is not None and other.box is not None
                same_track = one.track_id is not None and one.track_id == other.track_id
                if overlap(one.box, other.box) < OVERLAP and not same_track:
                    yield one, other


def _too_far(items: list[Known], rows: Integers, speed: float) -> Iterator[tuple[Known, Known]]:
    placed = np.array([None not in (one.captured_at, one.latitude, one.longitude) for one in items], bool)
    for place in np.nonzero(placed)[0]:
        for other in rows[place]:
            if other < 0 or not placed[other] or (other < place and place in rows[other]):
                continue
            one, two = items[place], items[other]
            seconds = abs((one.captured_at or 0) - (two.captured_at or 0)) / 1e6 + CLOCKS
            if one.medium != two.medium and kilometres(one, two) > speed * seconds / 3600:
                yield one, two


def _chains(items: list[Known], key: Callable[[Known], object]) -> Iterator[tuple[Known, Known]]:
    last: dict[object, Known] = {}
    for one in items:
        if not (named := key(one)):
            continue
        if named in last:
            yield last[named], one
        last[named] = one


def _bursts(items: list[Known], seconds: float) -> Iterator[tuple[Known, Known]]:
    """Whole photos that a camera took one after the other; boxes are told apart within a photo, not between."""
    cameras: dict[str, list[Known]] = defaultdict(list)
    photos: dict[int, int] = defaultdict(int)
    for one in items:
        photos[one.medium] += 1
    for one in items:
        if one.camera is not None and one.captured_at is not None and photos[one.medium] == 1:
            cameras[one.camera].append(one)
    for taken in cameras.values():
        taken.sort(key=lambda one: (one.captured_at or 0, one.number))
        for one, other in pairwise(taken):
            if (other.captured_at or 0) - (one.captured_at or 0) <= seconds * 1e6:
                yield one, other
