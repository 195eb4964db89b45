"""An open-set split of a table that has none: some identities to train on, others to be found again."""

import csv
import os
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reid.data.cells import as_cell
from reid.data.tables import Cells, Reading, Table, known_name, open_table, written_time
from reid.data.times import Clock
from reid.names import counted

TRAIN_SHARE = 0.7  # of the identities
QUERY_SHARE = 1 / 3  # of the occasions of an identity that is held out
BURST = timedelta(minutes=1)  # photos of one animal, or person, no further apart are of one occasion


@dataclass(frozen=True)
class _Photo:
    row: int
    camera: str | None
    time: datetime | None


def split_table(source: Path, output: Path, reading: Reading, seed: int = 0) -> str:
    """Write the table `source` to `output` with a column `split`; returns in one line what was done.

    Identities are drawn to train on or to be held out, so that no one is in both. Of each that is held out, a third of
    its occasions are queries and the others gallery: the latest where there are times, drawn ones elsewhere. Photos of
    one camera within a minute of each other are one occasion and stay together, and no photo becomes a query that would
    have no match from another camera. Identities seen on one occasion, and photos of nobody known, are distractors in
    the gallery. The same seed gives the same split, whatever the order of the rows.

    Raises FileExistsError for an `output` that is there, and ValueError for a table without identities, with a split
    already, with too few identities, or without one that was seen twice.
    """
    if output.exists():
        raise FileExistsError(f"{output} is there already; choose another --output")
    table = open_table(source, reading.columns)
    if "identity" not in table.columns:
        raise ValueError(
            f"{source}: missing column 'identity'; found {table.found} (--columns identity=HEADING names it)"
        )
    if "split" in table.columns:
        raise ValueError(
            f"{source} has a split already, in column {table.headings['split']!r}; --columns split= makes another"
        )
    clock = table.clock(Reading(zone=reading.zone or UTC, dates=reading.dates))
    rows = list(table.rows())
    groups: dict[str, list[_Photo]] = defaultdict(list)
    unread = []
    for place in sorted(range(len(rows)), key=lambda place: (rows[place][1]["path"], *rows[place][1].values())):
        cells = rows[place][1]
        if name := known_name(cells["identity"]):
            camera, time = known_name(cells.get("camera", "")), _time(cells, clock)
            groups[name].append(_Photo(place, camera, time))
            if time is None and (text := known_name(written_time(cells))):
                unread.append(text)
    splits = dict.fromkeys(range(len(rows)), "gallery")
    drawn = random.Random(seed)
    occasions = {name: _occasions(photos) for name, photos in sorted(groups.items())}
    held_out = _hold_out(source, occasions, drawn)
    for name, photos in sorted(groups.items()):
        if name in held_out:
            splits |= dict.fromkeys(_queries(occasions[name], drawn), "query")
        else:
            splits |= {photo.row: "train" for photo in photos}
    _write(table, output, rows, [splits[place] for place in range(len(rows))])
    times = sum(photo.time is not None for photos in groups.values() for photo in photos)
    counts = {split: sum(found == split for found in splits.values()) for split in ("train", "query", "gallery")}
    problem = (
        f"; {counted(len(unread), 'time')} cannot be read, taken for none, such as {unread[0]!r}" if unread else ""
    )
    how = f"queries are the latest of {counted(times, 'photo')} with a time" if times else "drawn"
    return (
        f"{output}: {counted(counts['train'], 'photo')} of "
        f"{counted(len(groups) - len(held_out), 'identity', 'identities')} to train on; "
        f"{counted(counts['query'], 'query', 'queries')} and {counted(counts['gallery'], 'gallery photo')} of "
        f"{counted(len(held_out), 'other')}"
        f"{_nobody(rows)}; {how}, seed {seed}{problem}"
    )


def _nobody(rows: Sequence[tuple[int, Cells]]) -> str:
    count = sum(known_name(cells["identity"]) is None for _, cells in rows)
    return f" and of nobody known ({count:,})" if count else ""


def _time(cells: Cells, clock: Clock) -> datetime | None:
    try:
        return clock.read(written_time(cells))
    except ValueError:
        return None


def _occasions(photos: Sequence[_Photo]) -> list[list[_Photo]]:
    """The photos of an identity by occasion, in the order of time, those without a time first and each alone.

    Photos of the same time stay in the order given, which is not that of the rows.
    """
    ordered = sorted((photo.time, place, photo) for place, photo in enumerate(photos) if photo.time)
    occasions: list[list[_Photo]] = []
    last: dict[str | None, list[_Photo]] = {}
    for time, _, photo in ordered:
        before = last.get(photo.camera)
        if before and before[-1].time and time - before[-1].time <= BURST:
            before.append(photo)
        else:
            last[photo.camera] = [photo]
            occasions.append(last[photo.camera])
    return [[photo] for photo in photos if photo.time is None] + occasions


def _hold_out(source: Path, occasions: dict[str, list[list[_Photo]]], drawn: random.Random) -> set[str]:
    """Draw who is held out: the same share of those that can be queries and of those that cannot."""
    findable = [name for name, seen in occasions.items() if _query_count(seen)]
    if not findable or len(occasions) < 3:
        raise ValueError(
            f"{source}: {counted(len(occasions), 'identity', 'identities')}, of which {len(findable)} "
            "seen on two occasions, and by two "
            "cameras if cameras are known; a split needs 3, one of them seen twice"
        )
    held_out: set[str] = set()
    for names in (findable, sorted(occasions.keys() - set(findable))):
        drawn.shuffle(names)
        held_out |= set(names[: round((1 - TRAIN_SHARE) * len(names)) or (names is findable)])
    return held_out


def _query_count(seen: Sequence[Sequence[_Photo]]) -> int:
    return len(_queries(seen, None))


def _queries(seen: Sequence[Sequence[_Photo]], drawn: random.Random | None) -> list[int]:
    """The rows that become queries: of the latest occasions, or of drawn ones, where no photo has a time."""
    order = list(reversed(seen))
    if drawn is not None and not any(photo.time for occasion in seen for photo in occasion):
        drawn.shuffle(order)
    queries: list[_Photo] = []
    gallery = [photo for occasion in seen for photo in occasion]
    chosen = 0
    for occasion in order:
        left = [photo for photo in gallery if photo not in occasion]
        matched = all(
            any(query.camera is None or query.camera != photo.camera for photo in left)
            for query in (*queries, *occasion)
        )
        if matched and chosen < max(1, int(QUERY_SHARE * len(seen))):
            queries, gallery, chosen = [*queries, *occasion], left, chosen + 1
    return [photo.row for photo in queries]


def _write(table: Table, output: Path, rows: Sequence[tuple[int, Cells]], splits: Sequence[str]) -> None:
    columns = [name for name in table.columns if name]
    with output.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(table.headings[name] for name in columns), "split"])
        for (_, cells), split in zip(rows, splits, strict=True):
            path = os.path.relpath(table.path.parent / cells["path"], output.parent)
            writer.writerow([*(as_cell({**cells, "path": path}[name]) for name in columns), split])
