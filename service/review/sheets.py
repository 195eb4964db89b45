"""The catalogue of a gallery as tables that other programs read, and names that come back from them."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from reid.data.cells import as_cells, from_cell
from service.fields import Filter
from service.records import Cause, Conflict, Item
from service.review.rows import Sighting, attributes_text, box_text
from service.storage.database import Database
from service.storage.identities import Identities
from service.storage.store import Store

TABLE = (
    *("item_id", "source", "sha256", "box", "key", "individual", "name", "identity_id", "decided_by", "basis"),
    *("decided_at", "certainty", "likely", "likely_probability", "camera", "site", "captured_at", "latitude"),
    *("longitude", "viewpoint", "attributes"),
)
WILDBOOK = (
    *("Encounter.mediaAsset0", "Encounter.genus", "Encounter.specificEpithet", "Encounter.year", "Encounter.month"),
    *("Encounter.day", "Encounter.hour", "Encounter.minutes", "Encounter.locationID", "Encounter.verbatimLocality"),
    *("Encounter.decimalLatitude", "Encounter.decimalLongitude", "MarkedIndividual.individualID"),
    *("Encounter.alternateID", "Encounter.researcherComments"),
)

SAID = ("key", "camera", "site", "latitude", "longitude", "viewpoint")


class Named(NamedTuple):
    """What became of a table that was read: rows whose item was named, was so already, and is not there."""

    named: int
    same: int
    missing: tuple[str, ...]


def write_table(file: TextIO, rows: Iterable[Sighting]) -> int:
    """Write a row for each item; returns how many. Empty cells are unknown."""
    writer = csv.DictWriter(file, TABLE)
    writer.writeheader()
    count = 0
    for row in rows:
        count += 1
        item, details = row.item, row.item.details
        told = {
            name: getattr(details, name) for name in ("key", "camera", "site", "latitude", "longitude", "viewpoint")
        }
        writer.writerow(
            as_cells(
                {
                    **told,
                    "item_id": item.item_id,
                    "source": item.medium.source,
                    "sha256": item.medium.sha256,
                    "box": box_text(item),
                    "individual": row.individual,
                    "name": details.label,
                    "identity_id": item.identity_id,
                    "decided_by": row.decided_by,
                    "basis": row.basis,
                    "decided_at": row.decided_at and row.decided_at.isoformat(),
                    "certainty": None if row.certainty is None else f"{row.certainty:.4f}",
                    "likely": row.likely,
                    "likely_probability": None if row.likely is None else f"{row.likely_probability:.4f}",
                    "captured_at": details.captured_at and details.captured_at.isoformat(),
                    "attributes": attributes_text(item),
                }
            )
        )
    return count


def write_wildbook(file: TextIO, rows: Iterable[Sighting], species: str) -> int:
    """Write the sheet of Wildbook's bulk import, a row an encounter; `species` is genus and epithet.

    Raises ValueError for another species.
    """
    genus, _, epithet = species.partition(" ")
    if not genus or not epithet:
        raise ValueError(f"species {species!r}: expected genus and epithet, such as 'Tragelaphus angasii'")
    writer = csv.DictWriter(file, WILDBOOK)
    writer.writeheader()
    count = 0
    for row in rows:
        count += 1
        item, details = row.item, row.item.details
        time = details.captured_at
        writer.writerow(
            as_cells(
                {
                    "Encounter.mediaAsset0": Path(item.medium.source).name or f"{item.medium.sha256}.jpg",
                    "Encounter.genus": genus,
                    "Encounter.specificEpithet": epithet,
                    "Encounter.year": time and time.year,
                    "Encounter.month": time and time.month,
                    "Encounter.day": time and time.day,
                    "Encounter.hour": time and time.hour,
                    "Encounter.minutes": time and time.minute,
                    "Encounter.locationID": details.site,
                    "Encounter.verbatimLocality": details.camera,
                    "Encounter.decimalLatitude": details.latitude,
                    "Encounter.decimalLongitude": details.longitude,
                    "MarkedIndividual.individualID": row.individual,
                    "Encounter.alternateID": item.item_id,
                    "Encounter.researcherComments": " ".join(
                        filter(None, ("sha256", item.medium.sha256, box_text(item)))
                    ),
                }
            )
        )
    return count


def read_names(database: Database, path: Path, cause: Cause) -> Named:
    """Give items the names of a table that `write_table` or `write_wildbook` wrote, here or from another gallery.

    Items are found by their ids, or by photo and box. Rows with the same individual and no name are one individual
    without a name. Raises ValueError, naming the row, for a table without the columns that it needs.
    """
    store, identities = Store(database), Identities(database)
    items: dict[tuple[str, str], Item] = {}
    ids: dict[str, Item] = {}
    after = 0
    while page := store.page(Filter(), after, 10_000):
        items |= {(item.medium.sha256, box_text(item)): item for item in page}
        ids |= {item.item_id: item for item in page}
        after = page[-1].number
    missing: list[str] = []
    groups: dict[tuple[str, bool], list[Item]] = defaultdict(list)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(_rows(path, file), 2):
            item_id, sha256, box, individual, named = row
            item = ids.get(item_id) or items.get((sha256, box))
            if item is None:
                missing.append(f"row {number}: {item_id or sha256}")
            elif individual:
                groups[individual, named].append(item)
    changed = same = 0
    for (individual, named), theirs in groups.items():
        if named:
            for item in theirs:
                if item.details.label == individual:
                    same += 1
                else:
                    store.edit(item.item_id, {"label": individual}, cause)
                    changed += 1
            continue
        known = {item.identity_id for item in theirs}
        if len(theirs) > 1 and (len(known) > 1 or None in known):
            try:
                identities.create(None, [item.item_id for item in theirs], cause)
            except Conflict as error:
                raise ValueError(f"{path}: individual {individual}: {error}") from error
            changed += len(theirs)
        else:
            same += len(theirs)
    return Named(changed, same, tuple(missing))


def _rows(path: Path, file: TextIO) -> Iterable[tuple[str, str, str, str, bool]]:
    """Of each row the item's id, photo and box, and the individual, and whether that is a name."""
    reader = csv.DictReader(file)
    columns = set(reader.fieldnames or ())
    if {"item_id", "individual", "name"} <= columns:
        for row in reader:
            cells: dict[str, Any] = {name: from_cell(value or "") for name, value in row.items() if name}
            told = cells.get("sha256", ""), cells.get("box", ""), cells["individual"], bool(cells["name"])
            yield cells["item_id"], *told
    elif {"Encounter.alternateID", "MarkedIndividual.individualID"} <= columns:
        for row in reader:
            cells = {name: from_cell(value or "") for name, value in row.items() if name}
            _, sha256, box = [*cells.get("Encounter.researcherComments", "").split(" "), "", "", ""][:3]
            individual = cells["MarkedIndividual.individualID"]
            unnamed = len(individual) == 32 and set(individual) <= set("0123456789abcdef")
            yield cells["Encounter.alternateID"], sha256, box, individual, not unnamed
    else:
        raise ValueError(
            f"{path}: expected the columns item_id, individual and name, or those of Wildbook's bulk import; "
            f"found {', '.join(sorted(columns)) or 'none'}"
        )
