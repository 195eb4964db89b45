"""The models of a gallery: in each space an active one, whose vectors are searched, and others to re-index it for.

E is the embedding size.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select

from service.records import APPEARANCE, NOBODY, Cause, Item, ModelMismatch, Vectors
from service.storage.columns import ITEMS, item_from, json_text, now, portions
from service.storage.database import Database
from service.storage.tables import items, models, spaces, vectors
from service.storage.transaction import Transaction
from service.storage.vectors import add_vectors, of_items, require_unit

NAMED = 5  # items in an error


@dataclass(frozen=True, slots=True)
class Model:
    """A model by its id, the embedding size E, and what else is known of it."""

    model_id: str
    dimension: int
    description: Mapping[str, Any]


class Models:
    """The models that a gallery knows, and which of them its vectors in one space are of; errors as of a `Database`."""

    def __init__(self, database: Database, space: str = APPEARANCE) -> None:
        self._database = database
        self._space = space

    @property
    def active(self) -> Model | None:
        """The model that the space belongs to, once one is bound."""
        active = select(spaces.c.model_id).where(spaces.c.space == self._space)
        return self._find(models.c.model_id == active.scalar_subquery())

    def bind(self, model_id: str, dimension: int, description: Mapping[str, Any], cause: Cause = NOBODY) -> None:
        """Give the space to a model of embedding size `dimension`; the first one keeps it.

        Raises ModelMismatch for every other one.
        """
        with self._database.transaction() as connection:
            known = self._find(models.c.model_id == model_id)
            holder = self.active or known
            if holder is not None and (holder.model_id, holder.dimension) != (model_id, dimension):
                raise ModelMismatch(
                    f"{self._database.name}: belongs to model {holder.model_id} (E = {holder.dimension}), "
                    f"not to model {model_id} (E = {dimension})"
                )
            if known is None:
                _insert(connection, Model(model_id, dimension, description))
            if self.active is None:
                connection.execute(insert(spaces).values(space=self._space, model_id=model_id))
                after = {"space": self._space, "dimension": dimension, "description": dict(description)}
                Transaction(connection, cause).log("model.bind", model_id, None, after)

    def prepare(self, model_id: str, dimension: int, description: Mapping[str, Any]) -> None:
        """Make a model known, so that vectors of it can be added; one that is known stays as it is."""
        with self._database.transaction() as connection:
            if self._find(models.c.model_id == model_id) is None:
                _insert(connection, Model(model_id, dimension, description))

    def missing(self, model_id: str, after: int, limit: int) -> list[Item]:
        """The first `limit` items without a vector of a model and with a number above `after`, by rising number."""
        lacking = ITEMS.where(items.c.number > after, self._lacks(model_id)).order_by(items.c.number).limit(limit)
        return [item_from(row) for row in self._database.read(lacking)]

    def count_missing(self, model_id: str) -> int:
        """How many items have no vector of a model."""
        lacking = select(func.count()).select_from(items).where(self._lacks(model_id))
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
        with self._database.transaction() as connection:
            for portion in portions(embedded):
                there = connection.execute(select(items.c.number).where(items.c.number.in_(portion))).scalars().all()
                former = of_items(model_id, self._space), vectors.c.owner_number.in_(portion)
                connection.execute(delete(vectors).where(*former))
                add_vectors(connection, model_id, self._space, {number: embedded[number] for number in there})

    def switch(self, model_id: str, cause: Cause = NOBODY) -> None:
        """Give the space to another known model, and drop the vectors that all others have in it.

        Raises ValueError, which tells how many and names the first, and changes nothing while items have no vector of
        that model.
        """
        with self._database.transaction() as connection:
            if lacking := self.count_missing(model_id):
                first = ", ".join(item.item_id for item in self.missing(model_id, 0, NAMED))
                more = ", ..." if lacking > NAMED else ""
                raise ValueError(f"{lacking} items have no vector of model {model_id}: {first}{more}")
            if self._find(models.c.model_id == model_id) is None:
                raise ValueError(f"model {model_id} is not known to {self._database.name}")
            before = self.active
            connection.execute(delete(spaces).where(spaces.c.space == self._space))
            connection.execute(insert(spaces).values(space=self._space, model_id=model_id))
            connection.execute(delete(vectors).where(vectors.c.space == self._space, vectors.c.model_id != model_id))
            was = None if before is None else {"model_id": before.model_id}
            Transaction(connection, cause).log(
                "model.switch", model_id, was, {"model_id": model_id, "space": self._space}
            )

    def _find(self, which: ColumnElement[bool]) -> Model | None:
        found = select(models.c.model_id, models.c.dimension, models.c.description).where(which)
        for model_id, dimension, description in self._database.read(found):
            return Model(model_id, dimension, json.loads(description))
        return None

    def _lacks(self, model_id: str) -> ColumnElement[bool]:
        return ~exists().where(vectors.c.owner_number == items.c.number, of_items(model_id, self._space))


def _insert(connection: Connection, model: Model) -> None:
    description = json_text(dict(model.description))
    values = {"model_id": model.model_id, "dimension": model.dimension, "description": description}
    connection.execute(insert(models).values(created_at=now(), **values))
