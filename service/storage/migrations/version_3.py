"""Version 3: the id of a gallery, and the indexes on servers; the first on PostgreSQL, where it is made whole."""

SQLITE = """
CREATE TABLE gallery (gallery_id TEXT NOT NULL) STRICT;  -- one row
INSERT INTO gallery VALUES (lower(hex(randomblob(16))));

CREATE TABLE indexes (
    collection TEXT NOT NULL PRIMARY KEY,
    model_id TEXT NOT NULL,
    filled INTEGER,
    cursor INTEGER NOT NULL
) STRICT;
"""
