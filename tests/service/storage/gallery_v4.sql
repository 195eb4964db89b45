-- A gallery of version 4, as that version wrote it: never changed, so that later ones are tested on it.
PRAGMA application_id = 1382369604;
PRAGMA user_version = 4;
BEGIN TRANSACTION;
CREATE TABLE gallery (gallery_id TEXT NOT NULL) STRICT;
INSERT INTO "gallery" VALUES('203a5a53839dcf860468f0e6c54ed66f');
CREATE TABLE identities (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    identity_id TEXT NOT NULL UNIQUE,
    name TEXT UNIQUE,
    aliases TEXT NOT NULL,  -- JSON list
    attributes TEXT NOT NULL,  -- JSON
    state TEXT NOT NULL,
    merged_into INTEGER REFERENCES identities
) STRICT;
INSERT INTO "identities" VALUES(1,'d2f70431f69e4dfc93ab06361501bec6','Åsa','[]','{}','active',NULL);
INSERT INTO "identities" VALUES(2,'626b092ffe1a45b6a60dda2d18f99f00','Robert''); DROP TABLE items;--','[]','{}','active',NULL);
INSERT INTO "identities" VALUES(3,'f3bfd2523c824939bd8adfdfdb3d2927','gone','[]','{}','active',NULL);
INSERT INTO "identities" VALUES(4,'2f4655fba19240df92e9a5fd1a31d9b2','Bob','["bob"]','{}','active',NULL);
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
INSERT INTO "items" VALUES(1,'60a406b092074d9790d313a2087b14e9',1,'north/1',1,'import','north',1715920200123456,'subsecond +0200',NULL,NULL,59.3,18.1,NULL,'{"sex": "female", "spots": [3, 4]}',NULL,NULL,NULL,NULL,1795954601762218);
INSERT INTO "items" VALUES(2,'84798ded2f6d4922b4bbde5cd71435cf',2,'it''s; DROP TABLE items',4,'human','日本 "2"',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}',NULL,NULL,NULL,NULL,1795954601762218);
INSERT INTO "items" VALUES(4,'7866dbb4acf54629912bd7a12bad02a2',4,NULL,NULL,NULL,'north',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}','[0, 0, 100, 200]',NULL,NULL,NULL,1795954601762218);
INSERT INTO "items" VALUES(6,'041d3b6bade641fb8f80edf15861986f',4,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}',NULL,NULL,NULL,NULL,1795954601762218);
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
INSERT INTO "jobs" VALUES(1,'df12d11cd91947c6a71b5262ff124e50','backup','{"target": "Åsa"}','queued',NULL,0,NULL,NULL,NULL,0,NULL,'key-1','r5',1795954601847170,NULL,NULL);
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
INSERT INTO "keys" VALUES(1,'68d2370df968427f816d8ec697af1ef7','gate','c3796d65e17e1ee6f7268c4b04f2c6c53e10b171c235206440bf2cc42a5ee915','["read"]','["north"]',60,1795954601826919,NULL);
INSERT INTO "keys" VALUES(2,'49fcc5f4f01844f596d9ad782147af21','gone','337f8200113d62c18264ab8fa5be3c18a1793c62dee1ea3fff7d2ea4f9d20864','["admin", "read", "write"]',NULL,NULL,1795954601833228,1795954601842007);
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
CREATE TABLE models (
    model_id TEXT PRIMARY KEY,
    dimension INTEGER NOT NULL,
    description TEXT NOT NULL,  -- JSON
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO "models" VALUES('vit-tiny-1',4,'{"features": "sa", "image_size": [256, 128]}',1795954601738664);
INSERT INTO "models" VALUES('vit-tiny-2',3,'{"features": "glca"}',1795954601859752);
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
INSERT INTO "operations" VALUES(1,1795954601740300,'ada','r0','a7fc9587f6fe4172986ee9a1a2c84781','model.bind','vit-tiny-1',NULL,'{"space": "appearance", "dimension": 4, "description": {"features": "sa", "image_size": [256, 128]}}');
INSERT INTO "operations" VALUES(2,1795954601762218,'key-1','r1','7318e195fb2540708535982632025d0b','identity.create','d2f70431f69e4dfc93ab06361501bec6',NULL,'{"name": "Åsa"}');
INSERT INTO "operations" VALUES(3,1795954601762218,'key-1','r1','7318e195fb2540708535982632025d0b','identity.create','626b092ffe1a45b6a60dda2d18f99f00',NULL,'{"name": "Robert''); DROP TABLE items;--"}');
INSERT INTO "operations" VALUES(4,1795954601762218,'key-1','r1','7318e195fb2540708535982632025d0b','identity.create','f3bfd2523c824939bd8adfdfdb3d2927',NULL,'{"name": "gone"}');
INSERT INTO "operations" VALUES(5,1795954601762218,'key-1','r1','7318e195fb2540708535982632025d0b','item.enrol','60a406b092074d9790d313a2087b14e9',NULL,'{"number": 1, "sha256": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9", "source": "photos/0.jpg", "box": null, "frame": null, "key": "north/1", "identity_id": "d2f70431f69e4dfc93ab06361501bec6", "label": "Åsa", "camera": "north", "captured_at": "2024-05-17T06:30:00.123456+02:00", "viewpoint": null, "site": null, "origin": null, "attributes": {"sex": "female", "spots": [3, 4]}, "captured_precision": "subsecond", "latitude": 59.3, "longitude": 18.1}');
INSERT INTO "operations" VALUES(6,1795954601762218,'key-1','r1','7318e195fb2540708535982632025d0b','item.enrol','84798ded2f6d4922b4bbde5cd71435cf',NULL,'{"number": 2, "sha256": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b", "source": "photos/1.jpg", "box": null, "frame": null, "key": "it''s; DROP TABLE items", "identity_id": "626b092ffe1a45b6a60dda2d18f99f00", "label": "Robert''); DROP TABLE items;--", "camera": "日本 \"2\"", "captured_at": null, "viewpoint": null, "site": null, "origin": null, "attributes": {}}');
INSERT INTO "operations" VALUES(7,1795954601762218,'key-1','r1','7318e195fb2540708535982632025d0b','item.enrol','bf9cb4a38023493c906c3a35114ac6b2',NULL,'{"number": 3, "sha256": "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35", "source": "photos/2.jpg", "box": null, "frame": null, "key": null, "identity_id": "f3bfd2523c824939bd8adfdfdb3d2927", "label": "gone", "camera": null, "captured_at": null, "viewpoint": null, "site": null, "origin": null, "attributes": {}}');
INSERT INTO "operations" VALUES(8,1795954601762218,'key-1','r1','7318e195fb2540708535982632025d0b','item.enrol','7866dbb4acf54629912bd7a12bad02a2',NULL,'{"number": 4, "sha256": "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce", "source": "photos/3.jpg", "box": [0, 0, 100, 200], "frame": null, "key": null, "identity_id": null, "label": null, "camera": "north", "captured_at": null, "viewpoint": null, "site": null, "origin": null, "attributes": {}}');
INSERT INTO "operations" VALUES(9,1795954601762218,'key-1','r1','7318e195fb2540708535982632025d0b','item.enrol','3b7e5d21876c472c9a0d823e62b1e608',NULL,'{"number": 5, "sha256": "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce", "source": "photos/3.jpg", "box": [100, 0, 50, 60], "frame": 7, "key": null, "identity_id": "d2f70431f69e4dfc93ab06361501bec6", "label": "Åsa", "camera": "north", "captured_at": null, "viewpoint": null, "site": null, "origin": null, "attributes": {}}');
INSERT INTO "operations" VALUES(10,1795954601762218,'key-1','r1','7318e195fb2540708535982632025d0b','item.enrol','041d3b6bade641fb8f80edf15861986f',NULL,'{"number": 6, "sha256": "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce", "source": "photos/3.jpg", "box": null, "frame": null, "key": null, "identity_id": null, "label": null, "camera": null, "captured_at": null, "viewpoint": null, "site": null, "origin": null, "attributes": {}}');
INSERT INTO "operations" VALUES(11,1795954601797080,'key-2','r2','bed2eae9edfb4fca84966c9d9a1ad766','identity.create','2f4655fba19240df92e9a5fd1a31d9b2',NULL,'{"name": "bob"}');
INSERT INTO "operations" VALUES(12,1795954601797080,'key-2','r2','bed2eae9edfb4fca84966c9d9a1ad766','item.edit','84798ded2f6d4922b4bbde5cd71435cf','{"number": 2, "sha256": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b", "source": "photos/1.jpg", "box": null, "frame": null, "key": "it''s; DROP TABLE items", "identity_id": "626b092ffe1a45b6a60dda2d18f99f00", "label": "Robert''); DROP TABLE items;--", "camera": "日本 \"2\"", "captured_at": null, "viewpoint": null, "site": null, "origin": null, "attributes": {}}','{"number": 2, "sha256": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b", "source": "photos/1.jpg", "box": null, "frame": null, "key": "it''s; DROP TABLE items", "identity_id": "2f4655fba19240df92e9a5fd1a31d9b2", "label": "bob", "camera": "日本 \"2\"", "captured_at": null, "viewpoint": null, "site": null, "origin": null, "attributes": {}}');
INSERT INTO "operations" VALUES(13,1795954601805180,'key-2','r3','94f63f4430d244c2af89452e674db9d9','item.delete','bf9cb4a38023493c906c3a35114ac6b2','{"number": 3, "sha256": "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35", "source": "photos/2.jpg", "box": null, "frame": null, "key": null, "identity_id": "f3bfd2523c824939bd8adfdfdb3d2927", "label": "gone", "camera": null, "captured_at": null, "viewpoint": null, "site": null, "origin": null, "attributes": {}}',NULL);
INSERT INTO "operations" VALUES(14,1795954601805180,'key-2','r3','94f63f4430d244c2af89452e674db9d9','item.delete','3b7e5d21876c472c9a0d823e62b1e608','{"number": 5, "sha256": "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce", "source": "photos/3.jpg", "box": [100, 0, 50, 60], "frame": 7, "key": null, "identity_id": "d2f70431f69e4dfc93ab06361501bec6", "label": "Åsa", "camera": "north", "captured_at": null, "viewpoint": null, "site": null, "origin": null, "attributes": {}}',NULL);
INSERT INTO "operations" VALUES(15,1795954601825253,'key-1','r4','39d36a523b494cebbc266cdf5a492f7c','identity.rename','2f4655fba19240df92e9a5fd1a31d9b2','{"name": "bob", "aliases": []}','{"name": "Bob", "aliases": ["bob"]}');
INSERT INTO "operations" VALUES(16,1795954601827856,'','','4c21e522f8ef49a7b176aee4526f6ab1','key.create','68d2370df968427f816d8ec697af1ef7',NULL,'{"name": "gate", "scopes": ["read"], "cameras": ["north"], "requests_per_minute": 60}');
INSERT INTO "operations" VALUES(17,1795954601833815,'','','b0e5617d5d1946bf8d5816ebaaeac0d3','key.create','49fcc5f4f01844f596d9ad782147af21',NULL,'{"name": "gone", "scopes": ["admin", "read", "write"], "cameras": null, "requests_per_minute": null}');
INSERT INTO "operations" VALUES(18,1795954601842484,'','','f9f606064f774ef8b123e4cb98e9f858','key.revoke','49fcc5f4f01844f596d9ad782147af21','{"name": "gone", "scopes": ["admin", "read", "write"], "cameras": null, "requests_per_minute": null}',NULL);
INSERT INTO "operations" VALUES(19,1795954601847883,'key-1','r5','54633332b6a243f9a4beea01046637e4','job.create','df12d11cd91947c6a71b5262ff124e50',NULL,'{"kind": "backup", "parameters": {"target": "Åsa"}}');
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
INSERT INTO "queries" VALUES(1,1795954601855876,'key-1','r6','{"images": ["abababababababababababababababababababababababababababababababab"], "item_id": null}','{"top_k": 3}',4,'[["60a406b092074d9790d313a2087b14e9", 0.5]]');
INSERT INTO "queries" VALUES(2,1795954601855876,'key-1','r7','{"images": [], "item_id": "bf9cb4a38023493c906c3a35114ac6b2"}','{"top_k": 3}',4,'[["84798ded2f6d4922b4bbde5cd71435cf", 0.25]]');
CREATE TABLE replies (
    actor TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    reply TEXT NOT NULL,  -- JSON
    created_at INTEGER NOT NULL,
    PRIMARY KEY (actor, idempotency_key)
) STRICT;
INSERT INTO "replies" VALUES('key-1','again','0000000000000000000000000000000000000000000000000000000000000000','{"items": ["60a406b092074d9790d313a2087b14e9"]}',1795954601857353);
CREATE TABLE spaces (
    space TEXT NOT NULL PRIMARY KEY,
    model_id TEXT NOT NULL REFERENCES models  -- the active one
) STRICT;
INSERT INTO "spaces" VALUES('appearance','vit-tiny-1');
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
INSERT INTO "vectors" VALUES('item',6,'vit-tiny-1','appearance',X'000000000000803F0000000000000000');
INSERT INTO "vectors" VALUES('item',1,'vit-tiny-2','appearance',X'000000009A99193FCDCC4C3F');
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
CREATE UNIQUE INDEX one_item_of_a_region ON items (media_number, coalesce(box, ''), coalesce(frame, -1));
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('operations',19);
INSERT INTO "sqlite_sequence" VALUES('media',4);
INSERT INTO "sqlite_sequence" VALUES('identities',4);
INSERT INTO "sqlite_sequence" VALUES('items',6);
INSERT INTO "sqlite_sequence" VALUES('keys',2);
INSERT INTO "sqlite_sequence" VALUES('jobs',1);
INSERT INTO "sqlite_sequence" VALUES('queries',2);
COMMIT;
