"""Version 4: several items a photo, each of another region of it, and an active model for each space."""

_REGIONS = """
-- A NULL differs from every other, so that a photo without box could be there twice.
CREATE UNIQUE INDEX one_item_of_a_region ON items (media_number, coalesce(box, ''), coalesce(frame, -1));
"""

_SPACES = """
INSERT INTO spaces SELECT 'appearance', model_id FROM models WHERE active;
DROP INDEX one_active_model;
ALTER TABLE models DROP COLUMN active;
"""

SQLITE = f"""
CREATE TABLE spaces (
    space TEXT NOT NULL PRIMARY KEY,
    model_id TEXT NOT NULL REFERENCES models  -- the active one
) STRICT;
{_SPACES}{_REGIONS}"""

POSTGRESQL = f"""
CREATE TABLE spaces (
    space TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    model_id TEXT COLLATE "C" NOT NULL REFERENCES models
);
{_SPACES}{_REGIONS}"""
