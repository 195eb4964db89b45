-- A gallery of version 2, as that version wrote it: never changed, so that later ones are tested on it.
PRAGMA application_id = 1382369604;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE identities (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    identity_id TEXT NOT NULL UNIQUE,
    name TEXT UNIQUE,
    aliases TEXT NOT NULL,  -- JSON list
    attributes TEXT NOT NULL,  -- JSON
    state TEXT NOT NULL,
    merged_into INTEGER REFERENCES identities
) STRICT;
INSERT INTO "identities" VALUES(1,'119b6ac77e3d4e8eb5c46b383cb10dd2','Åsa','[]','{}','active',NULL);
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
INSERT INTO "items" VALUES(1,'ea583877ac684c189072a1fd4de57bd9',1,'north/1',1,'import','north',1715927400123456,NULL,NULL,NULL,NULL,NULL,NULL,'{"spots": [3, 4]}',NULL,NULL,NULL,NULL,1795650252593224);
INSERT INTO "items" VALUES(2,'b06de397973f4b0fb2d9263e67cbdb8b',2,'it''s',1,'import','日本 "2"',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}',NULL,NULL,NULL,NULL,1795650252593224);
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
INSERT INTO "jobs" VALUES(1,'ac14234eae14472aa4cdbf6a003b8237','backup','{"target": "Åsa"}','running',NULL,3,10,NULL,NULL,0,1795650552601103,'ada','r3',1795650252599160,1795650252600165,NULL);
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
INSERT INTO "keys" VALUES(1,'fc0e3bfc3a304ce7949aa7bb7966efb3','gate','e31cc9b6292b34311bf7250275603709057f9a8135b94fd51c514bd79e61c2c6','["read", "write"]','["north"]',60,1795650252595979,NULL);
INSERT INTO "keys" VALUES(2,'5faf867881e54eee9c18c75d8de92efd','gone','4ffdee6facbf9e5d0e828277cf0cf941892c683b2fa8eeccd875e92d63fc0c6d','["read"]',NULL,NULL,1795650252597075,1795650252598177);
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
INSERT INTO "media" VALUES(1,'0000000000000000000000000000000000000000000000000000000000000000','image',640,480,NULL,'photos/0.jpg',NULL);
INSERT INTO "media" VALUES(2,'0000000000000000000000000000000000000000000000000000000000000001','image',640,480,NULL,'photos/1.jpg',NULL);
CREATE TABLE models (
    model_id TEXT PRIMARY KEY,
    dimension INTEGER NOT NULL,
    description TEXT NOT NULL,  -- JSON
    active INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO "models" VALUES('vit-tiny-1',4,'{"features": "sa"}',1,1795650252590509);
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
INSERT INTO "operations" VALUES(1,1795650252590552,'','','7eafc601f265408b80cd3c8d73356288','model.bind','vit-tiny-1',NULL,'{"dimension": 4, "description": {"features": "sa"}}');
INSERT INTO "operations" VALUES(2,1795650252593224,'key-1','r1','f51a8bba34b84846acbdf2f228556b82','identity.create','119b6ac77e3d4e8eb5c46b383cb10dd2',NULL,'{"name": "Åsa"}');
INSERT INTO "operations" VALUES(3,1795650252593224,'key-1','r1','f51a8bba34b84846acbdf2f228556b82','item.enrol','ea583877ac684c189072a1fd4de57bd9',NULL,'{"number": 1, "sha256": "0000000000000000000000000000000000000000000000000000000000000000", "source": "photos/0.jpg", "key": "north/1", "label": "Åsa", "identity_id": "119b6ac77e3d4e8eb5c46b383cb10dd2", "camera": "north", "captured_at": "2024-05-17T06:30:00.123456+00:00", "attributes": {"spots": [3, 4]}}');
INSERT INTO "operations" VALUES(4,1795650252593224,'key-1','r1','f51a8bba34b84846acbdf2f228556b82','item.enrol','b06de397973f4b0fb2d9263e67cbdb8b',NULL,'{"number": 2, "sha256": "0000000000000000000000000000000000000000000000000000000000000001", "source": "photos/1.jpg", "key": "it''s", "label": "Åsa", "identity_id": "119b6ac77e3d4e8eb5c46b383cb10dd2", "camera": "日本 \"2\"", "captured_at": null, "attributes": {}}');
INSERT INTO "operations" VALUES(5,1795650252593224,'key-1','r1','f51a8bba34b84846acbdf2f228556b82','item.enrol','643bfb5bc2a040d6a71660de461d3dde',NULL,'{"number": 3, "sha256": "0000000000000000000000000000000000000000000000000000000000000002", "source": "photos/2.jpg", "key": null, "label": null, "identity_id": null, "camera": null, "captured_at": null, "attributes": {}}');
INSERT INTO "operations" VALUES(6,1795650252594861,'key-2','r2','f4e95e7157554df7a01fb4f2df0529d3','item.delete','643bfb5bc2a040d6a71660de461d3dde','{"number": 3, "sha256": "0000000000000000000000000000000000000000000000000000000000000002", "source": "photos/2.jpg", "key": null, "label": null, "identity_id": null, "camera": null, "captured_at": null, "attributes": {}}',NULL);
INSERT INTO "operations" VALUES(7,1795650252596111,'','','21b98393d1b54bf9afcb9d78d7ea29d8','key.create','fc0e3bfc3a304ce7949aa7bb7966efb3',NULL,'{"name": "gate", "scopes": ["read", "write"], "cameras": ["north"], "requests_per_minute": 60}');
INSERT INTO "operations" VALUES(8,1795650252597117,'','','e6fb751e9c33494587bb50a292c7a2aa','key.create','5faf867881e54eee9c18c75d8de92efd',NULL,'{"name": "gone", "scopes": ["read"], "cameras": null, "requests_per_minute": null}');
INSERT INTO "operations" VALUES(9,1795650252598210,'','','ee229aaf7e684a34a0312550b1eae0d3','key.revoke','5faf867881e54eee9c18c75d8de92efd','{"name": "gone", "scopes": ["read"], "cameras": null, "requests_per_minute": null}',NULL);
INSERT INTO "operations" VALUES(10,1795650252599194,'ada','r3','b687f0836e644f4cbc45db8e50bb19e0','job.create','ac14234eae14472aa4cdbf6a003b8237',NULL,'{"kind": "backup", "parameters": {"target": "Åsa"}}');
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
INSERT INTO "queries" VALUES(1,1795650252601713,'key-1','r4','{"images": ["abababababababababababababababababababababababababababababababab"], "item_id": null}','{"cameras": ["north"]}',2,'[["ea583877ac684c189072a1fd4de57bd9", 0.5]]');
CREATE TABLE replies (
    actor TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    reply TEXT NOT NULL,  -- JSON
    created_at INTEGER NOT NULL,
    PRIMARY KEY (actor, idempotency_key)
) STRICT;
INSERT INTO "replies" VALUES('key-1','again','0000000000000000000000000000000000000000000000000000000000000000','{"items": ["ea583877ac684c189072a1fd4de57bd9"]}',1795650252602350);
CREATE TABLE vectors (
    owner_kind TEXT NOT NULL,
    owner_number INTEGER NOT NULL,
    model_id TEXT NOT NULL REFERENCES models,
    space TEXT NOT NULL,
    vector BLOB NOT NULL,  -- float32, little endian
    PRIMARY KEY (owner_kind, owner_number, model_id, space)
) STRICT;
INSERT INTO "vectors" VALUES('item',1,'vit-tiny-1','appearance',X'0000803F000000000000000000000000');
INSERT INTO "vectors" VALUES('item',2,'vit-tiny-1','appearance',X'000000000000803F0000000000000000');
CREATE UNIQUE INDEX one_active_model ON models (active) WHERE active;
CREATE INDEX items_by_medium ON items (media_number);
CREATE INDEX items_by_identity ON items (identity_number);
CREATE TRIGGER operations_are_not_changed BEFORE UPDATE ON operations
    BEGIN SELECT RAISE(ABORT, 'the operation log is append-only'); END;
CREATE TRIGGER operations_are_not_deleted BEFORE DELETE ON operations
    BEGIN SELECT RAISE(ABORT, 'the operation log is append-only'); END;
CREATE UNIQUE INDEX one_open_job_of_a_kind ON jobs (kind) WHERE state IN ('queued', 'running');
CREATE TRIGGER queries_are_not_changed BEFORE UPDATE ON queries
    BEGIN SELECT RAISE(ABORT, 'the query log is append-only'); END;
CREATE TRIGGER queries_are_not_deleted BEFORE DELETE ON queries
    BEGIN SELECT RAISE(ABORT, 'the query log is append-only'); END;
CREATE INDEX items_by_camera ON items (camera);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('operations',10);
INSERT INTO "sqlite_sequence" VALUES('media',3);
INSERT INTO "sqlite_sequence" VALUES('identities',1);
INSERT INTO "sqlite_sequence" VALUES('items',3);
INSERT INTO "sqlite_sequence" VALUES('keys',2);
INSERT INTO "sqlite_sequence" VALUES('jobs',1);
INSERT INTO "sqlite_sequence" VALUES('queries',1);
COMMIT;
