"""What of others an item would tell a caller who sees some cameras alone."""

from collections.abc import Iterable
from dataclasses import replace

from service.records import Caller, Item
from service.storage.store import Store


def as_seen(store: Store, items: Iterable[Item], caller: Caller) -> list[Item]:
    """Items without the name of their photo where that may be from an item of another camera, which is of it, too."""
    items = list(items)
    if caller.cameras is None:
        return items
    shared = store.beyond({item.medium.sha256 for item in items}, caller.cameras)
    nameless = (replace(item, medium=replace(item.medium, source="")) for item in items)
    return [other if item.medium.sha256 in shared else item for item, other in zip(items, nameless, strict=True)]
