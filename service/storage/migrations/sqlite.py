"""The tables of a gallery in a file, made or brought to the newest version."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from service.storage.folder import connect_to_read
from service.storage.inspection import DamagedDatabase
from service.storage.migrations.steps import LOG_UPGRADE, newest_version, steps_after, upgrade_entry

APPLICATION_ID = 0x52654944  # "ReID": marks the file as a gallery and nothing else


def migrate(connection: sqlite3.Connection, path: Path, complaints: Callable[[], list[str]] = lambda: []) -> None:
    """Bring the gallery in `path` to the newest version in one transaction; an empty database becomes a gallery.

    Raises ValueError for a database that is no gallery and for one of a newer version, and DamagedDatabase for an older
    one that has `complaints`, which are asked for only where something is to be done; all are left as they are.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (version or tables):
        raise ValueError(f"{path}: a database of another program, not a gallery")
    steps = steps_after(version, str(path))
    if not steps:
        return
    if version and (found := complaints()):
        damage = "; ".join(found)
        raise DamagedDatabase(f"{path}: damaged ({damage}), so that it is not upgraded", damage)
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {''.join(step.sqlite for step in steps)}")
        if version:
            connection.execute(LOG_UPGRADE, upgrade_entry(version))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {newest_version()}")
        connection.commit()
    finally:
        if connection.in_transaction:
            connection.rollback()


def require_newest(path: Path) -> None:
    """Raise ValueError for a gallery of another version than the newest."""
    with closing(connect_to_read(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if steps_after(version, str(path)):
        raise ValueError(
            f"{path}: a gallery of version {version}; a service that opens it brings it to version {newest_version()}"
        )
