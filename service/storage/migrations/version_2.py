"""Version 2: keys, jobs, the log of queries, and replies that are repeated."""

SQLITE = """
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
