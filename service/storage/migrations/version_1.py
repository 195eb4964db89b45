"""Version 1: models, photos as items with vectors, identities and the log of changes."""

SQLITE = """
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
