-- A gallery of version 3, as that version wrote it: never changed, so that later ones are tested on it.
PRAGMA application_id = 1382369604;
PRAGMA user_version = 3;
BEGIN TRANSACTION;
CREATE TABLE gallery (gallery_id TEXT NOT NULL) STRICT;
INSERT INTO "gallery" VALUES('f8a3bf95e0714ce146288caa71687240');
CREATE TABLE identities (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    identity_id TEXT NOT NULL UNIQUE,
    name TEXT UNIQUE,
    aliases TEXT NOT NULL,  -- JSON list
    attributes TEXT NOT NULL,  -- JSON
    state TEXT NOT NULL,
    merged_into INTEGER REFERENCES identities
) STRICT;
INSERT INTO "identities" VALUES(1,'adde08b8be5d4d759effcdb8ac690ace','Åsa','[]','{}','active',NULL);
INSERT INTO "identities" VALUES(2,'f612843bcb61482c8c36b270711c16e2','Robert''); DROP TABLE items;--','[]','{}','active',NULL);
INSERT INTO "identities" VALUES(3,'5e44086ba4a6480dbc847210754198f4','bob','[]','{}','active',NULL);
CREATE TABLE indexes (
    collection TEXT NOT NULL PRIMARY KEY,
    model_id TEXT NOT NULL,
    filled INTEGER,
    cursor INTEGER NOT NULL
) STRICT;
INSERT INTO "indexes" VALUES('reid_x_vit-tiny-1','vit-tiny-1',NULL,7);
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
INSERT INTO "items" VALUES(1,'9211cc5602d84c0e9a3b26c7cd5cc0f4',1,'north/1',1,'import','north',1715927400123456,NULL,NULL,NULL,NULL,NULL,NULL,'{"spots": [3, 4]}',NULL,NULL,NULL,NULL,1795927509010906);
INSERT INTO "items" VALUES(2,'d870f2e5de814b21b3414912237fd300',2,'it''s; DROP TABLE items',1,'human','日本 "2"',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}',NULL,NULL,NULL,NULL,1795927509010906);
INSERT INTO "items" VALUES(4,'f61e5d40f15e403b80262b42d638464c',4,NULL,NULL,NULL,'north',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}',NULL,NULL,NULL,NULL,1795927509010906);
INSERT INTO "items" VALUES(5,'634a40e7edea4b519f81b82c0fc58adb',5,NULL,3,'import',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}',NULL,NULL,NULL,NULL,1795927509074850);
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
INSERT INTO "jobs" VALUES(1,'901f6537b5cc4ea6830f2a65ea6e9b85','backup','{"target": "Åsa"}','queued',NULL,0,NULL,NULL,NULL,0,NULL,'key-1','r5',1795927509141164,NULL,NULL);
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
INSERT INTO "keys" VALUES(1,'0ebb5028cec7472e92281f9b6cfb00a2','gate','5f69af1248ced19356ecacbf2319c6d2637062d408584cbadc4e4093c691ef50','["read"]','["north"]',60,1795927509108251,NULL);
INSERT INTO "keys" VALUES(2,'c2962f4a3cd94877bc6566fb23eddba7','gone','f148340c3487bda55f8a41d2e6176e5fdc8db225cc62cd9c2ca8da22f868ce73','["admin", "read", "write"]',NULL,NULL,1795927509121983,1795927509127230);
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
INSERT INTO "media" VALUES(1,'5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9','image',640,480,NULL,'photos/0.jpg',NULL);
INSERT INTO "media" VALUES(2,'6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b','image',640,480,NULL,'photos/1.jpg',NULL);
INSERT INTO "media" VALUES(4,'4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce','image',640,480,NULL,'photos/3.jpg',NULL);
INSERT INTO "media" VALUES(5,'4b227777d4dd1fc61c6f884f48641d02b4d121d3fd328cb08b5531fcacdabf8a','image',640,480,NULL,'photos/4.jpg',NULL);
CREATE TABLE models (
    model_id TEXT PRIMARY KEY,
    dimension INTEGER NOT NULL,
    description TEXT NOT NULL,  -- JSON
    active INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO "models" VALUES('vit-tiny-1',4,'{"features": "sa", "image_size": [256, 128]}',1,1795927508978925);
INSERT INTO "models" VALUES('vit-tiny-2',3,'{"features": "glca"}',0,1795927509091234);
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
INSERT INTO "operations" VALUES(1,1795927508980389,'ada','r0','f9f15c85a3f3447499a786a9c236d2b3','model.bind','vit-tiny-1',NULL,'{"dimension": 4, "description": {"features": "sa", "image_size": [256, 128]}}');
INSERT INTO "operations" VALUES(2,1795927509010906,'key-1','r1','0c0e7f01cc53444b9ed5f6f2b96a1503','identity.create','adde08b8be5d4d759effcdb8ac690ace',NULL,'{"name": "Åsa"}');
INSERT INTO "operations" VALUES(3,1795927509010906,'key-1','r1','0c0e7f01cc53444b9ed5f6f2b96a1503','identity.create','f612843bcb61482c8c36b270711c16e2',NULL,'{"name": "Robert''); DROP TABLE items;--"}');
INSERT INTO "operations" VALUES(4,1795927509010906,'key-1','r1','0c0e7f01cc53444b9ed5f6f2b96a1503','item.enrol','9211cc5602d84c0e9a3b26c7cd5cc0f4',NULL,'{"number": 1, "sha256": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9", "source": "photos/0.jpg", "key": "north/1", "label": "Åsa", "identity_id": "adde08b8be5d4d759effcdb8ac690ace", "camera": "north", "captured_at": "2024-05-17T06:30:00.123456+00:00", "attributes": {"spots": [3, 4]}}');
INSERT INTO "operations" VALUES(5,1795927509010906,'key-1','r1','0c0e7f01cc53444b9ed5f6f2b96a1503','item.enrol','d870f2e5de814b21b3414912237fd300',NULL,'{"number": 2, "sha256": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b", "source": "photos/1.jpg", "key": "it''s; DROP TABLE items", "label": "Robert''); DROP TABLE items;--", "identity_id": "f612843bcb61482c8c36b270711c16e2", "camera": "日本 \"2\"", "captured_at": null, "attributes": {}}');
INSERT INTO "operations" VALUES(6,1795927509010906,'key-1','r1','0c0e7f01cc53444b9ed5f6f2b96a1503','item.enrol','802da67cd05f4396adb16762cb9994c7',NULL,'{"number": 3, "sha256": "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35", "source": "photos/2.jpg", "key": "gone", "label": "Åsa", "identity_id": "adde08b8be5d4d759effcdb8ac690ace", "camera": null, "captured_at": null, "attributes": {}}');
INSERT INTO "operations" VALUES(7,1795927509010906,'key-1','r1','0c0e7f01cc53444b9ed5f6f2b96a1503','item.enrol','f61e5d40f15e403b80262b42d638464c',NULL,'{"number": 4, "sha256": "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce", "source": "photos/3.jpg", "key": null, "label": null, "identity_id": null, "camera": "north", "captured_at": null, "attributes": {}}');
INSERT INTO "operations" VALUES(8,1795927509050079,'key-2','r2','eb739ca059ec45e58fc0343674d8f2d1','item.edit','d870f2e5de814b21b3414912237fd300','{"number": 2, "sha256": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b", "source": "photos/1.jpg", "key": "it''s; DROP TABLE items", "label": "Robert''); DROP TABLE items;--", "identity_id": "f612843bcb61482c8c36b270711c16e2", "camera": "日本 \"2\"", "captured_at": null, "attributes": {}}','{"number": 2, "sha256": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b", "source": "photos/1.jpg", "key": "it''s; DROP TABLE items", "label": "Åsa", "identity_id": "adde08b8be5d4d759effcdb8ac690ace", "camera": "日本 \"2\"", "captured_at": null, "attributes": {}}');
INSERT INTO "operations" VALUES(9,1795927509061934,'key-2','r3','72d9ed1566324044a3feb7fe2e6d9203','item.delete','802da67cd05f4396adb16762cb9994c7','{"number": 3, "sha256": "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35", "source": "photos/2.jpg", "key": "gone", "label": "Åsa", "identity_id": "adde08b8be5d4d759effcdb8ac690ace", "camera": null, "captured_at": null, "attributes": {}}',NULL);
INSERT INTO "operations" VALUES(10,1795927509074850,'key-1','r4','6e701e028b6748ffb700562b45c05c8a','identity.create','5e44086ba4a6480dbc847210754198f4',NULL,'{"name": "bob"}');
INSERT INTO "operations" VALUES(11,1795927509074850,'key-1','r4','6e701e028b6748ffb700562b45c05c8a','item.enrol','634a40e7edea4b519f81b82c0fc58adb',NULL,'{"number": 5, "sha256": "4b227777d4dd1fc61c6f884f48641d02b4d121d3fd328cb08b5531fcacdabf8a", "source": "photos/4.jpg", "key": null, "label": "bob", "identity_id": "5e44086ba4a6480dbc847210754198f4", "camera": null, "captured_at": null, "attributes": {}}');
INSERT INTO "operations" VALUES(12,1795927509114796,'','','101a91684b804446a02a09138fcaf055','key.create','0ebb5028cec7472e92281f9b6cfb00a2',NULL,'{"name": "gate", "scopes": ["read"], "cameras": ["north"], "requests_per_minute": 60}');
INSERT INTO "operations" VALUES(13,1795927509123002,'','','c301e885c159424c9b07cd8e874f8594','key.create','c2962f4a3cd94877bc6566fb23eddba7',NULL,'{"name": "gone", "scopes": ["admin", "read", "write"], "cameras": null, "requests_per_minute": null}');
INSERT INTO "operations" VALUES(14,1795927509128050,'','','12ea5f106eeb4cbeaac882fcd7b31e92','key.revoke','c2962f4a3cd94877bc6566fb23eddba7','{"name": "gone", "scopes": ["admin", "read", "write"], "cameras": null, "requests_per_minute": null}',NULL);
INSERT INTO "operations" VALUES(15,1795927509146655,'key-1','r5','dff23d47bc874c33b355edd3140573f3','job.create','901f6537b5cc4ea6830f2a65ea6e9b85',NULL,'{"kind": "backup", "parameters": {"target": "Åsa"}}');
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
INSERT INTO "queries" VALUES(1,1795927509149876,'key-1','r6','{"images": ["abababababababababababababababababababababababababababababababab"], "item_id": null}','{"top_k": 3}',4,'[["9211cc5602d84c0e9a3b26c7cd5cc0f4", 0.5]]');
CREATE TABLE replies (
    actor TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    reply TEXT NOT NULL,  -- JSON
    created_at INTEGER NOT NULL,
    PRIMARY KEY (actor, idempotency_key)
) STRICT;
INSERT INTO "replies" VALUES('key-1','again','0000000000000000000000000000000000000000000000000000000000000000','{"items": ["9211cc5602d84c0e9a3b26c7cd5cc0f4"]}',1795927509157873);
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
INSERT INTO "vectors" VALUES('item',4,'vit-tiny-1','appearance',X'0000000000000000000000000000803F');
INSERT INTO "vectors" VALUES('item',5,'vit-tiny-1','appearance',X'0000803F000000000000000000000000');
INSERT INTO "vectors" VALUES('item',1,'vit-tiny-2','appearance',X'000000009A99193FCDCC4C3F');
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
INSERT INTO "sqlite_sequence" VALUES('operations',15);
INSERT INTO "sqlite_sequence" VALUES('media',5);
INSERT INTO "sqlite_sequence" VALUES('identities',3);
INSERT INTO "sqlite_sequence" VALUES('items',5);
INSERT INTO "sqlite_sequence" VALUES('keys',2);
INSERT INTO "sqlite_sequence" VALUES('jobs',1);
INSERT INTO "sqlite_sequence" VALUES('queries',1);
COMMIT;
