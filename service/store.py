"""The truth of a gallery: its photos, their vectors, and who changed what when. E is the embedding size."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from service.changes import Batch, Changes, Enrolled, Model
from service.columns import APPEARANCE, ITEM, ITEMS, condition, item_from, time_from
from service.database import Database
from service.records import Conflict, Filter, Item, NewItem, NotFound, Row

ROWS_AT_ONCE = 10_000
UNIT_TOLERANCE = 5e-4  # below what a search engine allows, so that what was stored can be searched


class ModelMismatch(ValueError):
    """The gallery belongs to another model; the message names both."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One change: `target` is the public id of what changed, and the changes of one transaction share `batch_id`."""

    seq: int
    time: datetime
    actor: str
    request_id: str
    batch_id: str
    kind: str
    target: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


class Store:
    """A gallery on the disk, which threads may share: what a method did is there to stay, what raised changed nothing.

    Every method raises OSError when the file cannot be read or written, and ValueError when it is damaged. `actor` and
    `request_id` tell the operation log who asked for a change.
    """

    def __init__(self, folder: Path) -> None:
        """Open the gallery of `folder`, or start one where the folder is new or empty.

        Raises OSError when the folder cannot be written or another process holds it, and ValueError when it is no
        gallery, one of a newer version, or damaged.
        """
        self._database = Database(folder)

    def close(self) -> None:
        """Let go of the gallery; another process may then open it."""
        self._database.close()

    @property
    def model(self) -> Model | None:
        """The model that the gallery belongs to, once one is bound."""
        for model_id, dimension, description in self._database.read(
            "SELECT model_id, dimension, description FROM models WHERE active"
        ):
            return Model(model_id, dimension, json.loads(description))
        return None

    def bind(
        self, model_id: str, dimension: int, description: Mapping[str, Any], *, actor: str = "", request_id: str = ""
    ) -> None:
        """Give the gallery to a model of embedding size `dimension`; the first one keeps it.

        Raises ModelMismatch for every other one.
        """
        with self._batch(actor, request_id) as batch:
            if (model := self.model) is None:
                batch.bind(Model(model_id, dimension, description))
            elif (model.model_id, model.dimension) != (model_id, dimension):
                raise ModelMismatch(
                    f"{self._database.path}: belongs to model {model.model_id} (E = {model.dimension}), "
                    f"not to model {model_id} (E = {dimension})"
                )

    def enrol(self, photos: Sequence[NewItem], *, actor: str = "", request_id: str = "") -> list[Enrolled | Conflict]:
        """Add photos in one transaction and tell, in their order, what became of each.

        A photo whose SHA-256 is there already is left as it is. One whose key belongs to another photo is not added: in
        its place stands the Conflict, and the others are enrolled all the same. Raises ValueError, and adds none, for a
        vector that is not (E,) float32 of unit length, a time without zone, and a gallery without model.
        """
        if (model := self.model) is None:
            raise ValueError(f"{self._database.path}: has no model yet; bind one before enrolling")
        for photo in photos:
            _require_unit(photo, model.dimension)
        with self._batch(actor, request_id) as batch:
            return [batch.enrol(photo, model.model_id) for photo in photos]

    def edit(self, item_id: str, changes: Changes, *, actor: str = "", request_id: str = "") -> Item:
        """Change some details of an item; a label that is new becomes an identity.

        Raises NotFound, Conflict for a key that belongs to another photo, and ValueError for a time without zone.
        """
        with self._batch(actor, request_id) as batch:
            return batch.edit(item_id, changes)

    def delete(self, item_ids: Collection[str], *, actor: str = "", request_id: str = "") -> list[Item]:
        """Remove items, their vectors and their photos, and return them as they were; ids that are not there are none.

        The operation log keeps what was said of them, and their numbers are never used again.
        """
        with self._batch(actor, request_id) as batch:
            return [item for item_id in item_ids if (item := batch.delete(item_id))]

    def get(self, item_id: str) -> Item:
        """The item of a public id; raises NotFound."""
        for row in self._database.read(f"{ITEMS} WHERE item_id = ?", (item_id,)):
            return item_from(row)
        raise NotFound(f"no item {item_id!r}")

    def get_many(self, numbers: Collection[int]) -> dict[int, Item]:
        """Items by number; those that are not there are left out."""
        sql = f"{ITEMS} WHERE items.number IN (SELECT value FROM json_each(?))"
        return {row[0]: item_from(row) for row in self._database.read(sql, (json.dumps(list(numbers)),))}

    def page(self, chosen: Filter, after: int = 0, limit: int = 100) -> list[Item]:
        """The first `limit` items that pass the filter and have a number above `after`, by rising number."""
        passes, values = condition(chosen)
        sql = f"{ITEMS} WHERE items.number > ? AND {passes} ORDER BY items.number LIMIT ?"
        return [item_from(row) for row in self._database.read(sql, (after, *values, limit))]

    def count(self, chosen: Filter) -> int:
        """How many items pass the filter."""
        passes, values = condition(chosen)
        sql = "SELECT count(*) FROM items LEFT JOIN identities ON identities.number = identity_number WHERE "
        return int(self._database.read(sql + passes, values)[0][0])

    def rows(self, model_id: str, numbers: Collection[int] | None = None) -> Iterator[Row]:
        """What a search engine keeps, by rising number: of all items, or of those with these numbers.

        It is read in portions, so that changes made meanwhile may show or not.
        """
        some = "" if numbers is None else "AND items.number IN (SELECT value FROM json_each(:numbers))"
        sql = f"""
            SELECT items.number, vector, camera, captured_at, name
            FROM items CROSS JOIN vectors
                ON owner_kind = :kind AND owner_number = items.number AND model_id = :model AND space = :space
            LEFT JOIN identities ON identities.number = identity_number
            WHERE items.number > :after {some} ORDER BY items.number LIMIT :limit
        """
        values = {"kind": ITEM, "space": APPEARANCE, "model": model_id, "after": 0, "limit": ROWS_AT_ONCE}
        if numbers is not None:
            values["numbers"] = json.dumps(list(numbers))
        while portion := self._database.read(sql, values):
            for number, vector, *rest in portion:
                yield Row(number, np.frombuffer(vector, "<f4"), *rest)
            values["after"] = number

    def operations(self, after: int = 0, limit: int = 1000) -> list[Operation]:
        """The first `limit` changes with a `seq` above `after`, in the order in which they were made."""
        sql = """
            SELECT seq, time, actor, request_id, batch_id, kind, target, before, after
            FROM operations WHERE seq > ? ORDER BY seq LIMIT ?
        """
        return [_operation(row) for row in self._database.read(sql, (after, limit))]

    @contextmanager
    def _batch(self, actor: str, request_id: str) -> Iterator[Batch]:
        with self._database.transaction() as connection:
            yield Batch(connection, actor, request_id)


def _operation(row: tuple[Any, ...]) -> Operation:
    seq, time, *words, before, after = row
    states = [None if state is None else json.loads(state) for state in (before, after)]
    return Operation(seq, time_from(time), *words, *states)


def _require_unit(photo: NewItem, dimension: int) -> None:
    vector, length = photo.vector, np.linalg.norm(photo.vector)
    unit = abs(length - 1) <= UNIT_TOLERANCE  # false for a NaN too
    if vector.shape != (dimension,) or vector.dtype != np.float32 or not unit:
        raise ValueError(
            f"{photo.medium.source or photo.medium.sha256}: the vector is {vector.shape} {vector.dtype} of length "
            f"{length:.6g}; expected ({dimension},) float32 of length 1"
        )
