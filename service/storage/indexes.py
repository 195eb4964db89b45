"""How far the search engines on servers have followed the operation log."""

from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from service.storage.database import Database
from service.storage.tables import indexes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a collection stands: it holds the items up to number `filled`, or all for None, as of a log entry."""

    filled: int | None
    followed: int


class Indexes:
    """The collections that were made for a gallery, by their names; errors as those of a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, collection: str) -> Place | None:
        """Where a collection stands; None for one that is to be made."""
        wanted = select(indexes.c.filled, indexes.c.cursor).where(indexes.c.collection == collection)
        for row in self._database.read(wanted):
            return Place(*row)
        return None

    def keep(self, collection: str, model_id: str, place: Place) -> None:
        """Remember where the collection of a model stands."""
        with self._database.transaction() as connection:
            connection.execute(delete(indexes).where(indexes.c.collection == collection))
            connection.execute(
                insert(indexes).values(
                    collection=collection, model_id=model_id, filled=place.filled, cursor=place.followed
                )
            )

    def forget(self, collection: str) -> None:
        """Take a collection for gone."""
        with self._database.transaction() as connection:
            connection.execute(delete(indexes).where(indexes.c.collection == collection))
