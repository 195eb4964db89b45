"""The tables of a gallery on a server, made or brought to the newest version."""

from uuid import uuid4

from sqlalchemy import Column, Connection, Integer, MetaData, Table, insert, inspect, select, text, update

from service.storage.migrations import version_5
from service.storage.migrations.steps import LOG_UPGRADE, newest_version, steps_after, upgrade_entry
from service.storage.tables import gallery, metadata

_version = Table("gallery_version", MetaData(), Column("version", Integer, nullable=False))  # one row

# What is no table; as old as PostgreSQL galleries are, so that a change of it is a step of `STEPS` too.
_MORE_SCHEMA = (
    """
ALTER TABLE vectors ALTER COLUMN vector SET STORAGE EXTERNAL;  -- it does not get smaller by compression
CREATE FUNCTION log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = TG_ARGV[0];
END
$$;
"""
    + version_5.POSTGRESQL_LOGS
)


def is_newest(connection: Connection, name: str) -> bool:
    """Whether `migrate` has nothing to do; raises as that does."""
    version = _found_version(connection, name)
    return version is not None and not steps_after(version, name)


def migrate(connection: Connection, name: str) -> None:
    """Bring the gallery of a name to the newest version; an empty database becomes a gallery.

    Raises ValueError for a database that is no gallery and for one of a newer version, and leaves both as they are.
    """
    version = _found_version(connection, name)
    if version is None:
        metadata.create_all(connection, checkfirst=False)
        _version.create(connection)
        connection.execute(insert(_version).values(version=newest_version()))
        connection.execute(insert(gallery).values(gallery_id=uuid4().hex))
        connection.execute(text(_MORE_SCHEMA))
    elif steps := steps_after(version, name):
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # an index over millions of rows takes its time
        for step in steps:
            connection.execute(text(step.postgresql))
        connection.execute(update(_version).values(version=newest_version()))
        connection.execute(text(LOG_UPGRADE), upgrade_entry(version))


def _found_version(connection: Connection, name: str) -> int | None:
    """The version of a gallery, and None in an empty database; raises ValueError for another program's."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if _version.name not in tables:
        raise ValueError(f"{name}: a database of another program, not a gallery; expected an empty one")
    version: int = connection.execute(select(_version.c.version)).scalar_one()
    return version
