"""Galleries of every version that was ever written open, with all they hold."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

import service.storage.migrations
from service.records import Details, Filter
from service.storage.database import Database
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.storage.migrations import MIGRATIONS, migrate
from service.storage.models import Model, Models
from service.storage.queries import Queries
from service.storage.replies import Replies
from service.storage.store import Store

VERSION_1 = Path(__file__).with_name("gallery_v1.sql")
VERSION_2 = Path(__file__).with_name("gallery_v2.sql")
SCHEMA = "SELECT type, name, sql FROM sqlite_master ORDER BY name"


@pytest.fixture
def stored(tmp_path):
    """A gallery of version 1 as it was stored."""
    with closing(sqlite3.connect(tmp_path / "gallery.db")) as connection:
        connection.executescript(VERSION_1.read_text())
    return tmp_path


@pytest.fixture
def stored_2(tmp_path):
    """A gallery of version 2 as it was stored."""
    (tmp_path / "2").mkdir()
    with closing(sqlite3.connect(tmp_path / "2" / "gallery.db")) as connection:
        connection.executescript(VERSION_2.read_text())
    return tmp_path / "2"


def schema(folder):
    with closing(sqlite3.connect(folder / "gallery.db")) as connection:
        return connection.execute(SCHEMA).fetchall(), connection.execute("PRAGMA user_version").fetchone()


def test_a_gallery_of_version_1_opens_with_all_it_holds(stored):
    with Database(stored) as database:
        store = Store(database)
        assert Models(database).active == Model("vit-tiny-1", 4, {"features": "sa", "image_size": [256, 128]})
        north, drop, bare = store.page(Filter())
        assert [item.number for item in (north, drop, bare)] == [1, 2, 4]
        when = datetime(2024, 5, 17, 6, 30, 0, 123456, tzinfo=UTC)
        assert north.details == Details("north/1", "Åsa", "north", when, {"sex": "female", "spots": [3, 4]})
        assert (north.medium.source, north.medium.width, north.medium.height) == ("photos/0.jpg", 640, 480)
        assert drop.details.key == "it's; DROP TABLE items"
        assert drop.details.label == "Robert'); DROP TABLE items;--"
        assert bare.details == Details(camera="north")
        assert [(row.number, row.vector.tolist()) for row in store.rows("vit-tiny-1")] == [
            (1, [1, 0, 0, 0]),
            (2, [0, 1, 0, 0]),
            (4, [0, 0, 0, 1]),
        ]
        kinds = [operation.kind.split(".")[1] for operation in store.operations()]
        assert kinds == ["bind", "create", "enrol", "enrol", "enrol", "create", "edit", "delete", "enrol"]
        store.delete([bare.item_id])
    with closing(sqlite3.connect(stored / "gallery.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_a_gallery_of_version_2_opens_with_all_it_holds(stored_2):
    with Database(stored_2) as database:
        store = Store(database)
        first, second = store.page(Filter())
        assert [item.details.label for item in (first, second)] == ["Åsa", "Åsa"]
        assert first.details.attributes == {"spots": [3, 4]}
        gate, gone = Keys(database).list()
        assert (gate.name, gate.cameras, gate.requests_per_minute, gate.revoked_at) == ("gate", {"north"}, 60, None)
        assert gone.revoked_at
        job = Jobs(database).claim()
        assert (job.kind, job.parameters, job.done, job.total) == ("backup", {"target": "Åsa"}, 3, 10)
        [query] = Queries(database).page()
        assert query.asked.matches == ((first.item_id, 0.5),)
        assert Replies(database).find("key-1", "again", "0" * 64) == {"items": [first.item_id]}
        numbers = [1, 2, 3, 3]
        assert [change.number for change in store.changes(0, 100) if change.kind.startswith("item.")] == numbers
        assert len(database.gallery_id) == 32
    with Database(stored_2) as again:
        assert again.gallery_id == database.gallery_id


@pytest.mark.parametrize("version", ["stored", "stored_2"])
def test_a_migrated_gallery_is_built_like_a_new_one(request, version, tmp_path):
    stored = request.getfixturevalue(version)
    ids = set()
    for folder in (stored, tmp_path / "new"):
        with Database(folder) as database:
            ids.add(database.gallery_id)
    assert schema(stored) == schema(tmp_path / "new")
    assert len(ids) == 2


def test_a_migration_that_fails_changes_nothing(stored, monkeypatch):
    before = schema(stored)
    steps = (*MIGRATIONS, "ALTER TABLE items ADD COLUMN weight REAL; DROP TABLE nonsense;")
    monkeypatch.setattr(service.storage.migrations, "MIGRATIONS", steps)
    with closing(sqlite3.connect(stored / "gallery.db")) as connection:
        with pytest.raises(sqlite3.OperationalError, match="nonsense"):
            migrate(connection, stored)
        assert not connection.in_transaction
    assert schema(stored) == before


def test_each_version_is_one_step_from_the_last(stored, monkeypatch):
    steps = (*MIGRATIONS, "ALTER TABLE items ADD COLUMN weight REAL;", "ALTER TABLE items ADD COLUMN height REAL;")
    monkeypatch.setattr(service.storage.migrations, "MIGRATIONS", steps)
    with closing(sqlite3.connect(stored / "gallery.db")) as connection:
        migrate(connection, stored)
        assert connection.execute("SELECT number, weight, height FROM items").fetchall() == [
            (1, None, None),
            (2, None, None),
            (4, None, None),
        ]
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 2,)
