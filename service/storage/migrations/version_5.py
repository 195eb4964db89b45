"""Version 5: checksums, what was deleted, logs that an erasure may blot out, who is who, and shortlists."""

_ERASED = """'%"erased"%'"""  # the JSON of which an erasure has taken something

# That nothing of an entry is another than before, or only what was erased. Where a NULL is compared, that is no NULL.
_SAME_OPERATION = f"""
    NEW.seq = OLD.seq AND NEW.time = OLD.time AND NEW.actor = OLD.actor AND NEW.request_id = OLD.request_id
    AND NEW.batch_id = OLD.batch_id AND NEW.kind = OLD.kind AND NEW.target IN (OLD.target, 'erased')
    AND (coalesce(NEW.before, '') = coalesce(OLD.before, '') OR coalesce(NEW.before, '') LIKE {_ERASED})
    AND (coalesce(NEW.after, '') = coalesce(OLD.after, '') OR coalesce(NEW.after, '') LIKE {_ERASED})
"""
_SAME_QUERY = f"""
    NEW.seq = OLD.seq AND NEW.time = OLD.time AND NEW.actor = OLD.actor AND NEW.request_id = OLD.request_id
    AND NEW.candidates = OLD.candidates
    AND (NEW.asked = OLD.asked OR NEW.asked LIKE {_ERASED})
    AND (NEW.conditions = OLD.conditions OR NEW.conditions LIKE {_ERASED})
    AND (NEW.matches = OLD.matches OR NEW.matches LIKE {_ERASED})
"""


# A label that was given before is `same` with the anchor of its identity, which is its first item.
_IMPORT_LABELS = """
UPDATE identities SET anchor = (
    SELECT item_id FROM items WHERE identity_number = identities.number ORDER BY items.number LIMIT 1
);
INSERT INTO decisions (decision_id, answered_at, actor, request_id, batch_id, a, b, answer, basis)
SELECT {unique_id}, items.created_at, '', '', 'version 5', items.item_id, identities.anchor, 'same', 'import'
FROM items JOIN identities ON identities.number = items.identity_number
WHERE items.item_id <> identities.anchor ORDER BY items.number;
"""

_INDEXES = """
CREATE INDEX ix_identities_anchor ON identities (anchor);
CREATE INDEX ix_decisions_a ON decisions (a);
CREATE INDEX ix_decisions_b ON decisions (b);
CREATE INDEX ix_decisions_batch_id ON decisions (batch_id);
CREATE INDEX ix_decisions_question_id ON decisions (question_id);
CREATE INDEX ix_questions_leased_until ON questions (leased_until);
"""

# All of a decision but its items, to which an erasure gives other ids.
_SAID = (
    "decision_id, question_id, shown_at, answered_at, actor, request_id, batch_id, answer, basis, expected, model_id, "
    "score, probability, evidence, supersedes"
)

SQLITE = f"""
ALTER TABLE media ADD COLUMN copy_sha256 TEXT;
ALTER TABLE vectors ADD COLUMN checksum INTEGER;

CREATE TABLE secrets (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE tombstones (
    crop TEXT NOT NULL PRIMARY KEY,
    photo TEXT NOT NULL,
    box TEXT,  -- JSON, as of items, so that a box that agrees is found
    frame INTEGER,
    deleted_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tombstones_by_photo ON tombstones (photo);

DROP TRIGGER operations_are_not_changed;
CREATE TRIGGER operations_are_not_changed BEFORE UPDATE ON operations WHEN NOT ({_SAME_OPERATION})
    BEGIN SELECT RAISE(ABORT, 'the operation log is append-only'); END;
DROP TRIGGER queries_are_not_changed;
CREATE TRIGGER queries_are_not_changed BEFORE UPDATE ON queries WHEN NOT ({_SAME_QUERY})
    BEGIN SELECT RAISE(ABORT, 'the query log is append-only'); END;
DROP TRIGGER queries_are_not_deleted;  -- the oldest go after a while

ALTER TABLE identities ADD COLUMN notes TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN anchor TEXT;

CREATE TABLE decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    decision_id TEXT NOT NULL UNIQUE,
    question_id TEXT,
    shown_at INTEGER,
    answered_at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    request_id TEXT NOT NULL,
    batch_id TEXT NOT NULL,
    a TEXT NOT NULL,  -- the public ids of items, which may be gone
    b TEXT NOT NULL,
    answer TEXT NOT NULL,
    basis TEXT NOT NULL,
    expected TEXT,
    model_id TEXT,
    score REAL,
    probability REAL,
    evidence TEXT,  -- JSON
    supersedes INTEGER UNIQUE REFERENCES decisions
) STRICT;
CREATE TABLE questions (
    question_id TEXT NOT NULL PRIMARY KEY,
    a TEXT NOT NULL,
    b TEXT NOT NULL,
    actor TEXT NOT NULL,
    shown_at INTEGER NOT NULL,
    leased_until INTEGER NOT NULL,
    reason TEXT NOT NULL,
    expected TEXT,
    model_id TEXT NOT NULL,
    score REAL,
    probability REAL,
    evidence TEXT NOT NULL  -- JSON
) STRICT;
CREATE TABLE shortlists (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    shortlist_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    notes TEXT NOT NULL,
    cameras TEXT,  -- JSON list
    entries TEXT NOT NULL,  -- JSON list
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;
{_INDEXES}
{_IMPORT_LABELS.format(unique_id="lower(hex(randomblob(16)))")}
CREATE TRIGGER decisions_are_not_changed BEFORE UPDATE OF {_SAID} ON decisions
    BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END;
"""

POSTGRESQL_LOGS = f"""
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON operations
    FOR EACH STATEMENT EXECUTE FUNCTION log_is_append_only('operations: append-only');
CREATE TRIGGER append_only BEFORE TRUNCATE ON queries
    FOR EACH STATEMENT EXECUTE FUNCTION log_is_append_only('queries: append-only');
CREATE TRIGGER append_only BEFORE UPDATE OF {_SAID} OR TRUNCATE ON decisions
    FOR EACH STATEMENT EXECUTE FUNCTION log_is_append_only('decisions: append-only');
CREATE TRIGGER only_erased BEFORE UPDATE ON operations
    FOR EACH ROW WHEN (NOT ({_SAME_OPERATION})) EXECUTE FUNCTION log_is_append_only('operations: append-only');
CREATE TRIGGER only_erased BEFORE UPDATE ON queries
    FOR EACH ROW WHEN (NOT ({_SAME_QUERY})) EXECUTE FUNCTION log_is_append_only('queries: append-only');
"""

POSTGRESQL = f"""
ALTER TABLE media ADD COLUMN copy_sha256 TEXT COLLATE "C";
ALTER TABLE vectors ADD COLUMN checksum BIGINT;

CREATE TABLE secrets (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

CREATE TABLE tombstones (
    crop TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    photo TEXT COLLATE "C" NOT NULL,
    box TEXT COLLATE "C",
    frame BIGINT,
    deleted_at BIGINT NOT NULL
);
CREATE INDEX ix_tombstones_photo ON tombstones (photo);

ALTER TABLE identities ADD COLUMN notes TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN anchor TEXT COLLATE "C";

CREATE TABLE decisions (
    number BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    decision_id TEXT COLLATE "C" NOT NULL UNIQUE,
    question_id TEXT COLLATE "C",
    shown_at BIGINT,
    answered_at BIGINT NOT NULL,
    actor TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    batch_id TEXT COLLATE "C" NOT NULL,
    a TEXT COLLATE "C" NOT NULL,
    b TEXT COLLATE "C" NOT NULL,
    answer TEXT COLLATE "C" NOT NULL,
    basis TEXT COLLATE "C" NOT NULL,
    expected TEXT COLLATE "C",
    model_id TEXT COLLATE "C",
    score DOUBLE PRECISION,
    probability DOUBLE PRECISION,
    evidence TEXT COLLATE "C",
    supersedes BIGINT UNIQUE REFERENCES decisions
);
CREATE TABLE questions (
    question_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    a TEXT COLLATE "C" NOT NULL,
    b TEXT COLLATE "C" NOT NULL,
    actor TEXT COLLATE "C" NOT NULL,
    shown_at BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    expected TEXT COLLATE "C",
    model_id TEXT COLLATE "C" NOT NULL,
    score DOUBLE PRECISION,
    probability DOUBLE PRECISION,
    evidence TEXT COLLATE "C" NOT NULL
);
CREATE TABLE shortlists (
    number BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    shortlist_id TEXT COLLATE "C" NOT NULL UNIQUE,
    name TEXT COLLATE "C" NOT NULL,
    notes TEXT COLLATE "C" NOT NULL,
    cameras TEXT COLLATE "C",
    entries TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);
{_INDEXES}
{_IMPORT_LABELS.format(unique_id="replace(gen_random_uuid()::text, '-', '')")}
DROP TRIGGER append_only ON operations;
DROP TRIGGER append_only ON queries;
{POSTGRESQL_LOGS}"""
