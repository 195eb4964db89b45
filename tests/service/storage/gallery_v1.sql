-- A gallery of version 1, as that version wrote it: never changed, so that later ones are tested on it.
PRAGMA application_id = 1382369604;
PRAGMA user_version = 1;
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
INSERT INTO "identities" VALUES(1,'6999fa3ae4454d0cba20e9e6403ae868','Åsa','[]','{}','active',NULL);
INSERT INTO "identities" VALUES(2,'881876d8accb46f28d9bdeec94a0efda','Robert''); DROP TABLE items;--','[]','{}','active',NULL);
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
INSERT INTO "items" VALUES(1,'dc4f3c1bceda42e3ab7f6938785f2dcc',1,'north/1',1,'import','north',1715927400123456,NULL,NULL,NULL,NULL,NULL,NULL,'{"sex": "female", "spots": [3, 4]}',NULL,NULL,NULL,NULL,1795374877362177);
INSERT INTO "items" VALUES(2,'84c46f8ac46543f09ec25b29467671a4',2,'it''s; DROP TABLE items',2,'human','日本 "2"',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"note": "left side"}',NULL,NULL,NULL,NULL,1795374877362177);
INSERT INTO "items" VALUES(4,'1f45b654b7c646e28d8a528e3076b6fe',4,NULL,NULL,NULL,'north',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}',NULL,NULL,NULL,NULL,1795374877365795);
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
INSERT INTO "media" VALUES(4,'0000000000000000000000000000000000000000000000000000000000000003','image',640,480,NULL,'photos/3.jpg',NULL);
CREATE TABLE models (
    model_id TEXT PRIMARY KEY,
    dimension INTEGER NOT NULL,
    description TEXT NOT NULL,  -- JSON
    active INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO "models" VALUES('vit-tiny-1',4,'{"features": "sa", "image_size": [256, 128]}',1,1795374877360013);
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
INSERT INTO "operations" VALUES(1,1795374877360013,'','','ffa9a1d1dc0942f6b3c5234047a4c280','model.bind','vit-tiny-1',NULL,'{"dimension": 4, "description": {"features": "sa", "image_size": [256, 128]}}');
INSERT INTO "operations" VALUES(2,1795374877362177,'key-1','request-1','ff8e8a8fba7e4c6c8cb20a69575da318','identity.create','6999fa3ae4454d0cba20e9e6403ae868',NULL,'{"name": "Åsa"}');
INSERT INTO "operations" VALUES(3,1795374877362177,'key-1','request-1','ff8e8a8fba7e4c6c8cb20a69575da318','item.enrol','dc4f3c1bceda42e3ab7f6938785f2dcc',NULL,'{"number": 1, "sha256": "0000000000000000000000000000000000000000000000000000000000000000", "source": "photos/0.jpg", "key": "north/1", "label": "Åsa", "identity_id": "6999fa3ae4454d0cba20e9e6403ae868", "camera": "north", "captured_at": "2024-05-17T06:30:00.123456+00:00", "attributes": {"sex": "female", "spots": [3, 4]}}');
INSERT INTO "operations" VALUES(4,1795374877362177,'key-1','request-1','ff8e8a8fba7e4c6c8cb20a69575da318','item.enrol','84c46f8ac46543f09ec25b29467671a4',NULL,'{"number": 2, "sha256": "0000000000000000000000000000000000000000000000000000000000000001", "source": "photos/1.jpg", "key": "it''s; DROP TABLE items", "label": "Åsa", "identity_id": "6999fa3ae4454d0cba20e9e6403ae868", "camera": "日本 \"2\"", "captured_at": null, "attributes": {}}');
INSERT INTO "operations" VALUES(5,1795374877362177,'key-1','request-1','ff8e8a8fba7e4c6c8cb20a69575da318','item.enrol','6ab6917cd5114cda96ade08bdb36ce64',NULL,'{"number": 3, "sha256": "0000000000000000000000000000000000000000000000000000000000000002", "source": "photos/2.jpg", "key": null, "label": null, "identity_id": null, "camera": null, "captured_at": null, "attributes": {}}');
INSERT INTO "operations" VALUES(6,1795374877363937,'key-2','request-2','b0f07312a93f4feb92637156d0972668','identity.create','881876d8accb46f28d9bdeec94a0efda',NULL,'{"name": "Robert''); DROP TABLE items;--"}');
INSERT INTO "operations" VALUES(7,1795374877363937,'key-2','request-2','b0f07312a93f4feb92637156d0972668','item.edit','84c46f8ac46543f09ec25b29467671a4','{"number": 2, "sha256": "0000000000000000000000000000000000000000000000000000000000000001", "source": "photos/1.jpg", "key": "it''s; DROP TABLE items", "label": "Åsa", "identity_id": "6999fa3ae4454d0cba20e9e6403ae868", "camera": "日本 \"2\"", "captured_at": null, "attributes": {}}','{"number": 2, "sha256": "0000000000000000000000000000000000000000000000000000000000000001", "source": "photos/1.jpg", "key": "it''s; DROP TABLE items", "label": "Robert''); DROP TABLE items;--", "identity_id": "881876d8accb46f28d9bdeec94a0efda", "camera": "日本 \"2\"", "captured_at": null, "attributes": {"note": "left side"}}');
INSERT INTO "operations" VALUES(8,1795374877364881,'key-2','request-3','9e69dadf063544c2bba7519faf4201c1','item.delete','6ab6917cd5114cda96ade08bdb36ce64','{"number": 3, "sha256": "0000000000000000000000000000000000000000000000000000000000000002", "source": "photos/2.jpg", "key": null, "label": null, "identity_id": null, "camera": null, "captured_at": null, "attributes": {}}',NULL);
INSERT INTO "operations" VALUES(9,1795374877365795,'key-1','request-4','ef2220ac1ef0481eb01ea08a085b3b09','item.enrol','1f45b654b7c646e28d8a528e3076b6fe',NULL,'{"number": 4, "sha256": "0000000000000000000000000000000000000000000000000000000000000003", "source": "photos/3.jpg", "key": null, "label": null, "identity_id": null, "camera": "north", "captured_at": null, "attributes": {}}');
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
CREATE UNIQUE INDEX one_active_model ON models (active) WHERE active;
CREATE INDEX items_by_medium ON items (media_number);
CREATE INDEX items_by_identity ON items (identity_number);
CREATE TRIGGER operations_are_not_changed BEFORE UPDATE ON operations
    BEGIN SELECT RAISE(ABORT, 'the operation log is append-only'); END;
CREATE TRIGGER operations_are_not_deleted BEFORE DELETE ON operations
    BEGIN SELECT RAISE(ABORT, 'the operation log is append-only'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('operations',9);
INSERT INTO "sqlite_sequence" VALUES('media',4);
INSERT INTO "sqlite_sequence" VALUES('identities',2);
INSERT INTO "sqlite_sequence" VALUES('items',4);
COMMIT;
