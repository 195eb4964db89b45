"""Many rows by the driver's own way: SQLAlchemy takes as long for the values of a row as SQLite for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Table, insert


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that all name the same columns, each as the database keeps it; no rows are none."""
    if not rows:
        return
    statement = insert(table).compile(dialect=connection.dialect, column_keys=list(rows[0]))
    names = statement.positiontup  # None where the driver takes values by their names
    values: list[Any] = list(rows) if names is None else [tuple(map(row.__getitem__, names)) for row in rows]
    connection.exec_driver_sql(str(statement), values)


def fetch_rows(
    connection: Connection, statement: Executable, parameters: Mapping[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    """All rows of a query, each value as the database keeps it."""
    with connection.execute(statement, parameters) as found:
        assert found.cursor is not None
        return list(found.cursor.fetchall())
