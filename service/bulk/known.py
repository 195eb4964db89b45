"""What of the photos of an import is known already, and what else is said of it now."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from service.bulk.enrolling import said_otherwise
from service.bulk.sources import Photo
from service.fields import said_of
from service.records import Crop, Item, ItemEdit
from service.storage.store import Store

# Of items by their ids what they said, by name and as JSON has it, when somebody looked at what would change of them.
Shown = Mapping[str, Mapping[str, Any]]


class Known(NamedTuple):
    """Of some photos, how many are in the gallery and how many are another one once more.

    Of those that are in the gallery, something else is said now of `changed`; `changes` counts them by what that is.
    """

    there: int = 0
    twice: int = 0
    changed: int = 0
    changes: Mapping[str, int] = {}


def known_of(
    store: Store,
    photos: Sequence[Photo],
    sha256s: Callable[[Iterable[Path]], Mapping[Path, str]],
    sees: Callable[[str | None], bool],
) -> tuple[Known, Shown]:
    """Compare photos whose files are there with the items that somebody sees; also what those say that would change."""
    of_path = sha256s(dict.fromkeys(photo.path for photo in photos))
    first: dict[Crop, Photo] = {}
    read = 0
    for photo in photos:
        with suppress(ValueError):  # told when it is the photo's turn
            first.setdefault(Crop(of_path[photo.path], photo.region()), photo)
            read += 1
    there = {crop: item for crop, item in store.by_crop(first).items() if sees(item.details.camera)}
    changes: Counter[str] = Counter()
    shown: dict[str, dict[str, Any]] = {}
    for crop, item in there.items():
        with suppress(ValueError):
            if said := said_otherwise(item.details, first[crop].details()):
                changes.update(names_of(item, said))
                shown[item.item_id] = said_before(item, said)
    return Known(len(there), read - len(first), len(shown), dict(changes)), shown


def names_of(item: Item, changes: ItemEdit) -> list[str]:
    """What changes of an item, by name; an attribute by its own."""
    attributes = changes.get("attributes", {})
    before = item.details.attributes
    own = [name for name, value in attributes.items() if name not in before or before[name] != value]
    return [*(name for name in changes if name != "attributes"), *own]


def said_before(item: Item, changes: ItemEdit) -> dict[str, Any]:
    """What an item says in the place of changes, by their names, as JSON has it."""
    before = {**item.details.attributes, **_own(item)}
    return {name: before.get(name) for name in names_of(item, changes)}


def edited_since(shown: Mapping[str, Any], item: Item, changes: ItemEdit) -> list[str]:
    """The names of those changes in whose place an item says something else by now than was shown."""
    return [name for name, value in said_before(item, changes).items() if name not in shown or shown[name] != value]


def _own(item: Item) -> dict[str, Any]:
    details = item.details
    told = {name: getattr(details, name) for name in ("key", "latitude", "longitude")} | said_of(details)
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in told.items()}


def whole(changes: ItemEdit) -> ItemEdit:
    """Changes with what follows from them: a time that people say is no longer as precise as the camera's was."""
    return {**changes, "captured_precision": None} if "captured_at" in changes else changes
