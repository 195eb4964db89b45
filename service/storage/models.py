"""The models of a gallery: the active one, whose vectors are searched, and others that it is re-indexed for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select, update

from service.records import NOBODY, Cause, Item, ModelMismatch, Vectors
from service.storage.changes import Batch
from service.storage.columns import APPEARANCE, ITEM, ITEMS, item_from, json_text, now, portions
from service.storage.database import Database
from service.storage.tables import items, models, vectors

UNIT_TOLERANCE = 5e-4  # below what a search engine allows, so that what was stored can be searched
NAMED = 5  # items in an error


@dataclass(frozen=True, slots=True)
class Model:
    """A model by its id, the embedding size E, and what else is known of it."""

    model_id: str
    dimension: int
    description: Mapping[str, Any]


class Models:
    """The models that a gallery knows; errors as those of a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def active(self) -> Model | None:
        """The model that the gallery belongs to, once one is bound."""
        return self._find(models.c.active)

    def bind(self, model_id: str, dimension: int, description: Mapping[str, Any], cause: Cause = NOBODY) -> None:
        """Give the gallery to a model of embedding size `dimension`; the first one keeps it.

        Raises ModelMismatch for every other one.
        """
        with self._database.transaction() as connection:
            if (active := self.active) is None:
                _insert(connection, Model(model_id, dimension, description), active=True)
                after = {"dimension": dimension, "description": dict(description)}
                Batch(connection, cause).log("model.bind", model_id, None, after)
            elif (active.model_id, active.dimension) != (model_id, dimension):
                raise ModelMismatch(
                    f"{self._database.name}: belongs to model {active.model_id} (E = {active.dimension}), "
                    f"not to model {model_id} (E = {dimension})"
                )

    def prepare(self, model_id: str, dimension: int, description: Mapping[str, Any]) -> None:
        """Make a model known, so that vectors of it can be added; one that is known stays as it is."""
        with self._database.transaction() as connection:
            if self._find(models.c.model_id == model_id) is None:
                _insert(connection, Model(model_id, dimension, description), active=False)

    def missing(self, model_id: str, after: int, limit: int) -> list[Item]:
        """The first `limit` items without a vector of a model and with a number above `after`, by rising number."""
        lacking = ITEMS.where(items.c.number > after, _lacks(model_id)).order_by(items.c.number).limit(limit)
        return [item_from(row) for row in self._database.read(lacking)]

    def count_missing(self, model_id: str) -> int:
        """How many items have no vector of a model."""
        lacking = select(func.count()).select_from(items).where(_lacks(model_id))
        return int(self._database.read(lacking)[0][0])

    def add(self, model_id: str, embedded: Mapping[int, Vectors]) -> None:
        """Add vectors (E,) of a known model, by the number of their item; those of items that are gone are dropped.

        Raises ValueError, and adds none, for a vector that is not (E,) float32 of unit length.
        """
        model = self._find(models.c.model_id == model_id)
        if model is None:
            raise ValueError(f"model {model_id} is not known to {self._database.name}")
        for number, vector in embedded.items():
            require_unit(vector, model.dimension, f"item number {number}")
        owner = {"owner_kind": ITEM, "model_id": model_id, "space": APPEARANCE}
        with self._database.transaction() as connection:
            for portion in portions(embedded):
                there = select(items.c.number).where(items.c.number.in_(portion))
                rows = [
                    {**owner, "owner_number": number, "vector": embedded[number].astype("<f4").tobytes()}
                    for number in connection.execute(there).scalars()
                ]
                connection.execute(delete(vectors).where(*_of(model_id), vectors.c.owner_number.in_(portion)))
                if rows:
                    connection.execute(insert(vectors), rows)

    def switch(self, model_id: str, cause: Cause = NOBODY) -> None:
        """Give the gallery to another known model, and drop the vectors of all others.

        Raises ValueError, which tells how many and names the first, and changes nothing while items have no vector of
        that model.
        """
        with self._database.transaction() as connection:
            if lacking := self.count_missing(model_id):
                first = ", ".join(item.item_id for item in self.missing(model_id, 0, NAMED))
                more = ", ..." if lacking > NAMED else ""
                raise ValueError(f"{lacking} items have no vector of model {model_id}: {first}{more}")
            before = self.active
            connection.execute(update(models).where(models.c.active).values(active=False))
            switched = update(models).where(models.c.model_id == model_id).values(active=True)
            if not connection.execute(switched).rowcount:
                raise ValueError(f"model {model_id} is not known to {self._database.name}")
            connection.execute(delete(vectors).where(vectors.c.model_id != model_id))
            was = None if before is None else {"model_id": before.model_id}
            Batch(connection, cause).log("model.switch", model_id, was, {"model_id": model_id})

    def _find(self, which: ColumnElement[bool]) -> Model | None:
        found = select(models.c.model_id, models.c.dimension, models.c.description).where(which)
        for model_id, dimension, description in self._database.read(found):
            return Model(model_id, dimension, json.loads(description))
        return None


def require_unit(vector: Vectors, dimension: int, name: str) -> None:
    """Raise ValueError, naming it, for a vector that is not (E,) float32 of unit length."""
    length = np.linalg.norm(vector)
    unit = abs(length - 1) <= UNIT_TOLERANCE  # false for a NaN too
    if vector.shape != (dimension,) or vector.dtype != np.float32 or not unit:
        raise ValueError(
            f"{name}: the vector is {vector.shape} {vector.dtype} of length {length:.6g}; expected ({dimension},) "
            "float32 of length 1"
        )


def _insert(connection: Connection, model: Model, *, active: bool) -> None:
    description = json_text(dict(model.description))
    values = {"model_id": model.model_id, "dimension": model.dimension, "description": description}
    connection.execute(insert(models).values(active=active, created_at=now(), **values))


def _lacks(model_id: str) -> ColumnElement[bool]:
    return ~exists().where(vectors.c.owner_number == items.c.number, *_of(model_id))


def _of(model_id: str) -> tuple[ColumnElement[bool], ...]:
    return vectors.c.owner_kind == ITEM, vectors.c.model_id == model_id, vectors.c.space == APPEARANCE
