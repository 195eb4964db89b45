"""The rows of a gallery on their way from one kind of database to the other."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Identity, Table, func, select, text
from sqlalchemy.dialects.postgresql import REGCLASS

from service.storage.tables import decisions, gallery, identities, metadata

ROWS_AT_ONCE = 1000

# All but the gallery's own id, each after those that it refers to.
TABLES = [table for table in metadata.sorted_tables if table is not gallery]

# Where rows refer to others of their table, those come first.
_ORDER = {identities.name: identities.c.merged_into.is_not(None), decisions.name: decisions.c.number}

# The columns whose numbers are never used again, by the names of their tables.
_NUMBERED = {
    table.name: column.name
    for table in TABLES
    for column in table.columns
    if isinstance(column.server_default, Identity)
}


def read_rows(source: Connection, progress: Callable[[int, int], None]) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    """All rows, in portions of one table, and table by table in the order of `TABLES`.

    `progress` is told how many rows of how many were taken.
    """
    counts = [source.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES]
    done = 0
    for table in TABLES:
        ordered = select(table).order_by(_ORDER[table.name]) if table.name in _ORDER else select(table)
        found = source.execute(ordered, execution_options={"yield_per": ROWS_AT_ONCE})
        for portion in found.mappings().partitions():
            yield table, [dict(row) for row in portion]
            done += len(portion)
            progress(done, sum(counts))


def last_numbers(connection: Connection) -> dict[str, int]:
    """The largest number that each table ever used, by its name, also of rows that are gone; 0 for none."""
    if connection.dialect.name == "sqlite":
        used = connection.execute(text("SELECT name, seq FROM sqlite_sequence"))
        return dict.fromkeys(_NUMBERED, 0) | {table: number for table, number in used}
    return {
        table: connection.execute(select(func.coalesce(func.pg_sequence_last_value(_sequence(table)), 0))).scalar_one()
        for table in _NUMBERED
    }


def set_last_numbers(connection: Connection, numbers: Mapping[str, int]) -> None:
    """Have the tables, by their names, not use numbers again up to these."""
    for table, number in numbers.items():
        if connection.dialect.name == "sqlite":
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table})
            connection.execute(
                text("INSERT INTO sqlite_sequence VALUES (:name, :number)"), {"name": table, "number": number}
            )
        elif number:  # a sequence of PostgreSQL that nothing was drawn from cannot be set to 0
            connection.execute(select(func.setval(_sequence(table), number)))


def _sequence(table: str) -> ColumnElement[Any]:
    return func.pg_get_serial_sequence(table, _NUMBERED[table]).cast(REGCLASS)
