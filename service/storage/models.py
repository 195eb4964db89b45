"""The models of a gallery: in each space an active one, whose vectors are searched, and others to re-index it for.

E is the embedding size.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select

from reid.names import counted
from service.records import APPEARANCE, NOBODY, Cause, Item, ModelMismatch, Vectors
from service.storage.columns import ITEMS, VALUES_AT_ONCE, item_from, json_text, now, portions
from service.storage.database import Database
from service.storage.tables import items, models, spaces, vectors
from service.storage.transaction import Transaction
from service.storage.vectors import add_vectors, delete_former, differs, of_items, require_unit

FORMER_AT_ONCE = 1000  # items, so that nobody who writes waits for long
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

    def forget_damaged(self, model_id: str, cause: Cause = NOBODY) -> list[int]:
        """Drop vectors of a model that are not what was written, so that they lack; the numbers of their items."""
        kept = select(vectors.c.owner_number, vectors.c.vector, vectors.c.checksum).order_by(vectors.c.owner_number)
        damaged: list[int] = []
        after = -1
        while rows := self._database.read(
            kept.where(of_items(model_id, self._space), vectors.c.owner_number > after).limit(VALUES_AT_ONCE)
        ):
            damaged += [number for number, *written in rows if differs(*written)]
            after = rows[-1][0]
        if damaged:
            with self._database.transaction() as connection:
                for portion in portions(damaged):
                    which = of_items(model_id, self._space), vectors.c.owner_number.in_(portion)
                    connection.execute(delete(vectors).where(*which))
                for number in damaged:
                    Transaction(connection, cause).log("item.mend", str(number), {"number": number}, None)
        return damaged

    def add(self, model_id: str, embedded: Mapping[int, Vectors], mended: Cause | None = None) -> None:
        """Add vectors (E,) of a known model, by the number of their item; those of items that are gone are dropped.

        Where items are `mended` by whom it says, those who follow the log are told. Raises ValueError, and adds none,
        for a vector that is not (E,) float32 of unit length.
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
                for number in there if mended is not None else ():
                    Transaction(connection, mended or NOBODY).log("item.mend", str(number), None, {"number": number})

    def switch(self, model_id: str, cause: Cause = NOBODY, left_out: Collection[int] = ()) -> None:
        """Give the space to another known model; `drop_former` may follow.

        Items of these numbers may be `left_out`: they have no vector of that model, and cannot be found. Raises
        ValueError, which tells how many and names the first, and changes nothing while others have none.
        """
        with self._database.transaction() as connection:
            missing = self.missing(model_id, 0, len(left_out) + NAMED + 1)
            if lacking := [item.item_id for item in missing if item.number not in left_out]:
                first, more = ", ".join(lacking[:NAMED]), ", ..." if len(lacking) > NAMED else ""
                count = self.count_missing(model_id)
                raise ValueError(
                    f"{counted(count, 'item has', 'items have')} no vector of model {model_id}: {first}{more}"
                )
            if self._find(models.c.model_id == model_id) is None:
                raise ValueError(f"model {model_id} is not known to {self._database.name}")
            before = self.active
            connection.execute(delete(spaces).where(spaces.c.space == self._space))
            connection.execute(insert(spaces).values(space=self._space, model_id=model_id))
            was = None if before is None else {"model_id": before.model_id}
            Transaction(connection, cause).log(
                "model.switch", model_id, was, {"model_id": model_id, "space": self._space}
            )

    def drop_former(self) -> None:
        """Drop the vectors of other models than the space's, but for items that have none of that; some at a time."""
        after, active = 0, self.active
        while active is not None:
            with self._database.transaction() as connection:
                dropped = delete_former(connection, self._space, active.model_id, after, FORMER_AT_ONCE)
            if len(dropped) < FORMER_AT_ONCE:
                return
            after = dropped[-1]

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
