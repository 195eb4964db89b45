"""The vectors of items, each of a model and in a space."""

import math
import zlib
from collections.abc import Collection, Mapping

import numpy as np
from sqlalchemy import ColumnElement, Connection, delete, exists, select

from service.records import Vectors
from service.storage.driver import insert_rows
from service.storage.tables import vectors

UNIT_TOLERANCE = 5e-4  # below what a search engine allows, so that what was stored can be searched

_ITEM = "item"  # the kind of owner


def of_items(model_id: str, space: str) -> ColumnElement[bool]:
    """Which vectors are those of items by a model in a space."""
    return (vectors.c.owner_kind == _ITEM) & (vectors.c.model_id == model_id) & (vectors.c.space == space)


def add_vectors(connection: Connection, model_id: str, space: str, embedded: Mapping[int, Vectors]) -> None:
    """Write vectors by the number of their item, which has none of the model in the space."""
    owner = {"owner_kind": _ITEM, "model_id": model_id, "space": space}
    written = {number: vector.astype("<f4").tobytes() for number, vector in embedded.items()}
    rows = [
        {**owner, "owner_number": number, "vector": vector, "checksum": zlib.crc32(vector)}
        for number, vector in written.items()
    ]
    insert_rows(connection, vectors, rows)


def delete_vectors(connection: Connection, numbers: Collection[int]) -> None:
    """Remove all vectors of the items of these numbers, which are few enough for a statement."""
    connection.execute(delete(vectors).where(vectors.c.owner_kind == _ITEM, vectors.c.owner_number.in_(numbers)))


def delete_former(connection: Connection, space: str, model_id: str, after: int, limit: int) -> list[int]:
    """Remove what other models have in a space of items that have a vector of this one, and return their numbers.

    These are `limit` items with a number above `after` at most, by rising number.
    """
    now = vectors.alias()
    has = exists().where(now.c.owner_number == vectors.c.owner_number, now.c.owner_kind == _ITEM)
    has = has.where(now.c.model_id == model_id, now.c.space == space)
    former = (vectors.c.owner_kind == _ITEM) & (vectors.c.space == space) & (vectors.c.model_id != model_id)
    owners = select(vectors.c.owner_number).where(former, vectors.c.owner_number > after, has).distinct()
    numbers = connection.execute(owners.order_by(vectors.c.owner_number).limit(limit)).scalars().all()
    connection.execute(delete(vectors).where(former, vectors.c.owner_number.in_(numbers)))
    return list(numbers)


def differs(vector: bytes, checksum: int | None) -> bool:
    """Whether a vector is not what was written, so far as that is known."""
    return checksum is not None and zlib.crc32(vector) != checksum


def require_unit(vector: Vectors, dimension: int, name: str) -> None:
    """Raise ValueError, naming it, for a vector that is not (E,) float32 of unit length."""
    length = math.sqrt(np.vdot(vector, vector))
    unit = abs(length - 1) <= UNIT_TOLERANCE  # false for a NaN too
    if vector.shape != (dimension,) or vector.dtype != np.float32 or not unit:
        raise ValueError(
            f"{name}: the vector is {vector.shape} {vector.dtype} of length {length:.6g}; expected ({dimension},) "
            "float32 of length 1"
        )
