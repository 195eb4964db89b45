"""The tables of a gallery in SQLite, version by version.

Times are microseconds since 1970, UTC. A `number` is internal and never used again; an `..._id` is public and opaque.
"""

import sqlite3
from pathlib import Path

APPLICATION_ID = 0x52654944  # "ReID": marks the file as a gallery and nothing else

_VERSION_1 = """
CREATE TABLE models (
    model_id TEXT PRIMARY KEY,
    dimension INTEGER NOT NULL,
    description TEXT NOT NULL,  -- JSON
    active INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_active_model ON models (active) WHERE active;

CREATE TABLE media (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    captured_at INTEGER,
    source TEXT NOT NULL,
    retention_until INTEGER
) STRICT;

CREATE TABLE identities (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    identity_id TEXT NOT NULL UNIQUE,
    name TEXT UNIQUE,
    aliases TEXT NOT NULL,  -- JSON list
    attributes TEXT NOT NULL,  -- JSON
    state TEXT NOT NULL,
    merged_into INTEGER REFERENCES identities
) STRICT;

CREATE TABLE items (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    item_id TEXT NOT NULL UNIQUE,
    media_number INTEGER NOT NULL REFERENCES media,
    key TEXT UNIQUE,
    identity_number INTEGER REFERENCES identities,
    identity_source TEXT,  -- human, machine or import
    camera TEXT,
    captured_at INTEGER,
    captured_precision TEXT,
    viewpoint TEXT,
    site TEXT,
    latitude REAL,
    longitude REAL,
    quality REAL,
    attributes TEXT NOT NULL,  -- JSON
    box TEXT,  -- JSON, in pixels of the upright picture
    frame INTEGER,
    track_id TEXT,
    origin TEXT,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX items_by_medium ON items (media_number);
CREATE INDEX items_by_identity ON items (identity_number);

CREATE TABLE vectors (
    owner_kind TEXT NOT NULL,
    owner_number INTEGER NOT NULL,
    model_id TEXT NOT NULL REFERENCES models,
    space TEXT NOT NULL,
    vector BLOB NOT NULL,  -- float32, little endian
    PRIMARY KEY (owner_kind, owner_number, model_id, space)
) STRICT;

CREATE TABLE operations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    actor TEXT NOT NULL,
    request_id TEXT NOT NULL,
    batch_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    before TEXT,  -- JSON
    after TEXT  -- JSON
) STRICT;
CREATE TRIGGER operations_are_not_changed BEFORE UPDATE ON operations
    BEGIN SELECT RAISE(ABORT, 'the operation log is append-only'); END;
CREATE TRIGGER operations_are_not_deleted BEFORE DELETE ON operations
    BEGIN SELECT RAISE(ABORT, 'the operation log is append-only'); END;
"""

_VERSION_2 = """
CREATE TABLE keys (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL UNIQUE,  -- of the secret, which is kept nowhere
    scopes TEXT NOT NULL,  -- JSON list
    cameras TEXT,  -- JSON list; null: all
    requests_per_minute INTEGER,  -- null: no limit
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    parameters TEXT NOT NULL,  -- JSON
    state TEXT NOT NULL,  -- queued, running, done, failed or cancelled
    cursor TEXT,  -- JSON: where to go on after a kill
    done INTEGER NOT NULL DEFAULT 0,
    total INTEGER,
    result TEXT,  -- JSON
    error TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    leased_until INTEGER,
    actor TEXT NOT NULL,
    request_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER
) STRICT;
CREATE UNIQUE INDEX one_open_job_of_a_kind ON jobs (kind) WHERE state IN ('queued', 'running');

CREATE TABLE queries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    actor TEXT NOT NULL,
    request_id TEXT NOT NULL,
    asked TEXT NOT NULL,  -- JSON: the SHA-256 of the images, or the item
    conditions TEXT NOT NULL,  -- JSON
    candidates INTEGER NOT NULL,
    matches TEXT NOT NULL  -- JSON list of public ids and scores
) STRICT;
CREATE TRIGGER queries_are_not_changed BEFORE UPDATE ON queries
    BEGIN SELECT RAISE(ABORT, 'the query log is append-only'); END;
CREATE TRIGGER queries_are_not_deleted BEFORE DELETE ON queries
    BEGIN SELECT RAISE(ABORT, 'the query log is append-only'); END;

CREATE TABLE replies (
    actor TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    reply TEXT NOT NULL,  -- JSON
    created_at INTEGER NOT NULL,
    PRIMARY KEY (actor, idempotency_key)
) STRICT;

CREATE INDEX items_by_camera ON items (camera);
"""

_VERSION_3 = """
CREATE TABLE gallery (gallery_id TEXT NOT NULL) STRICT;  -- one row
INSERT INTO gallery VALUES (lower(hex(randomblob(16))));

CREATE TABLE indexes (
    collection TEXT NOT NULL PRIMARY KEY,
    model_id TEXT NOT NULL,
    filled INTEGER,
    cursor INTEGER NOT NULL
) STRICT;
"""

# The k-th brings a gallery from version k to k + 1; what has been released is never changed.
MIGRATIONS = (_VERSION_1, _VERSION_2, _VERSION_3)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the gallery in `path` to the newest version in one transaction; an empty database becomes a gallery.

    Raises ValueError for a database that is no gallery and for one of a newer version, and leaves both as they are.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != APPLICATION_ID and (version or tables):
        raise ValueError(f"{path}: a database of another program, not a gallery")
    if version > len(MIGRATIONS):
        raise ValueError(
            f"{path}: a gallery of version {version}, but this program knows versions up to {len(MIGRATIONS)} only"
        )
    if version == len(MIGRATIONS):
        return
    steps = "".join(MIGRATIONS[version:])
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {steps} PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {len(MIGRATIONS)}; COMMIT;"
        )
    finally:
        if connection.in_transaction:
            connection.rollback()
