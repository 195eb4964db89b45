"""Capture histories of individuals, as the R packages secr and marked read them."""

import csv
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from reid.data.cells import as_cell
from reid.files import write_text
from service.review.deployments import Deployment, Occasion
from service.review.rows import Sighting

METRES = 111_195.0  # a degree of latitude


class Histories(NamedTuple):
    """Who was seen when and where: individual, occasion and number of the deployment, from 0, each once.

    Left out are sightings without individual, time, or a camera that stood then, and those between the occasions.
    """

    captures: tuple[tuple[str, int, int], ...]
    occasions: int
    left_out: int


def histories(rows: Iterable[Sighting], deployments: Sequence[Deployment], occasions: Sequence[Occasion]) -> Histories:
    """The captures of individuals in occasions, which are in the order of their times and do not overlap."""
    starts = [one.start for one in occasions]
    by_camera: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(deployments):
        by_camera[one.camera].append(place)
    captures, left_out = set(), 0
    for row in rows:
        time, camera = row.item.details.captured_at, row.item.details.camera
        there = [] if time is None or camera is None else by_camera[camera]
        stood = [place for place in there if time and deployments[place].start <= time <= deployments[place].end]
        when = bisect_right(starts, time) - 1 if stood and time else -1
        if row.individual is None or time is None or when < 0 or not _within(time, when, occasions):
            left_out += 1
        else:
            captures.add((row.individual, when, stood[0]))
    return Histories(tuple(sorted(captures)), len(occasions), left_out)


def _within(time: datetime, place: int, occasions: Sequence[Occasion]) -> bool:
    """Whether a time is of an occasion; the very end of the last one is, as it is of its deployments."""
    end = occasions[place].end
    return time < end or (time == end and place == len(occasions) - 1)


def write_secr(
    folder: Path, found: Histories, deployments: Sequence[Deployment], occasions: Sequence[Occasion]
) -> None:
    """Write `captures.txt` and `traps.txt` for `secr::read.capthist`, detector type `proximity`.

    Places are in metres east and north of the south-western corner; the usage of a trap is 1 in the occasions in which
    it stood for some time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    south, west = min(one.latitude for one in deployments), min(one.longitude for one in deployments)
    lines = ["# Session ID Occasion Detector"]
    lines += [f"1 {_word(who)} {when + 1} {where + 1}" for who, when, where in found.captures]
    write_text(folder / "captures.txt", "\n".join(lines) + "\n")
    lines = ["# Detector X Y / usage"]
    for number, one in enumerate(deployments, 1):
        x = (one.longitude - west) * METRES * math.cos(math.radians(south))
        y = (one.latitude - south) * METRES
        used = ["1" if one.start < when.end and one.end > when.start else "0" for when in occasions]
        lines.append(f"{number} {x:.1f} {y:.1f} / {' '.join(used)}")
    write_text(folder / "traps.txt", "\n".join(lines) + "\n")


def write_marked(path: Path, found: Histories) -> None:
    """Write a table for the package marked: `id`, and `ch`, a 1 or 0 for each occasion."""
    seen: dict[str, set[int]] = defaultdict(set)
    for who, when, _ in found.captures:
        seen[who].add(when)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "ch"])
        for who in sorted(seen):
            writer.writerow(
                [as_cell(who), "".join("1" if when in seen[who] else "0" for when in range(found.occasions))]
            )


def _word(name: str) -> str:
    """A name without blanks, which secr takes for the end of it."""
    return "_".join(name.split())
