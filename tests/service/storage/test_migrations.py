"""Galleries of every version that was ever written open, with all they hold."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from service.gallery.pictures import Pictures
from service.records import Crop, Details, Filter, LogPart, Region
from service.storage import tables
from service.storage.database import Database
from service.storage.decisions import Decisions
from service.storage.identities import Identities
from service.storage.inspection import DamagedDatabase
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.storage.migrations import steps
from service.storage.migrations.steps import STEPS, Step
from service.storage.models import Model, Models
from service.storage.queries import Queries
from service.storage.replies import Replies
from service.storage.store import Store

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SCHEMA = "SELECT type, name, sql FROM sqlite_master ORDER BY name"
FIRST_ON_POSTGRESQL = 3
WEIGHT = "ALTER TABLE items ADD COLUMN weight INTEGER;"
BROKEN = Step(f"{WEIGHT} DROP TABLE nonsense;", f"{WEIGHT} DROP TABLE nonsense;")


class Stored:
    """A gallery as a version wrote it, in a file or on a server."""

    def __init__(self, folder, version, postgresql=None):
        self.folder, self.version = folder, version
        folder.mkdir()
        if postgresql is None:
            self.url = None
            with closing(sqlite3.connect(folder / "gallery.db")) as connection:
                connection.executescript((HERE / f"gallery_v{version}.sql").read_text())
        else:
            self.url = postgresql.new()
            self._connect = lambda: connected(postgresql, schema_of(self.url))
            with self._connect() as connection:
                connection.execute((HERE / f"gallery_v{version}_postgresql.sql").read_text())
            ((gallery_id,),) = self.read("SELECT gallery_id FROM gallery")
            (folder / "gallery.id").write_text(gallery_id)

    def open(self):
        return Database(self.folder, self.url)

    def read(self, sql):
        """What a statement gives without us."""
        if self.url is None:
            with closing(sqlite3.connect(self.folder / "gallery.db")) as connection:
                return connection.execute(sql).fetchall()
        with self._connect() as connection:
            return connection.execute(sql).fetchall()

    @property
    def found_version(self):
        ((version,),) = self.read("PRAGMA user_version" if self.url is None else "SELECT version FROM gallery_version")
        return version

    def columns(self):
        """The columns of each table."""
        if self.url is None:
            named = self.read("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'sqlite_sequence'")
            return {name: [row[1] for row in self.read(f"PRAGMA table_info({name})")] for (name,) in named}
        named = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
        found = {}
        for table, column in self.read(f"{named} ORDER BY ordinal_position"):
            found.setdefault(table, []).append(column)
        return found

    def rows(self, columns):
        """All rows of these columns of tables."""
        return {
            table: sorted(self.read(f"SELECT {', '.join(those)} FROM {table}"), key=repr) for table, those in columns
        }


def schema_of(url):
    return url.rpartition("%3D")[2]


def connected(postgresql, schema):
    address = {"host": "127.0.0.1", "port": postgresql.port, "user": "reid", "password": postgresql.PASSWORD}
    return psycopg.connect(**address, dbname="postgres", options=f"-csearch_path={schema}", autocommit=True)


VERSIONS = [
    *(("sqlite", version) for version in range(1, len(STEPS))),
    *(("postgresql", version) for version in range(FIRST_ON_POSTGRESQL, len(STEPS))),
]


@pytest.fixture(params=VERSIONS, ids=lambda one: f"{one[0]}-{one[1]}")
def stored(request, tmp_path):
    """A gallery of an earlier version."""
    place, version = request.param
    return Stored(
        tmp_path / "stored", version, request.getfixturevalue("postgresql") if place == "postgresql" else None
    )


def test_all_rows_pictures_and_logs_are_as_they_were(stored):
    photos = [sha256 for (sha256,) in stored.read("SELECT sha256 FROM media")]
    pictures = Pictures(stored.folder / "pictures")
    pictures.save(dict.fromkeys(photos, b"picture"))
    former = stored.columns()
    spaced = "spaces" in former  # as of version 4
    if not spaced:
        former["models"].remove("active")
    former.pop("gallery_version", None)
    before = stored.rows(former.items())
    active = stored.read("SELECT model_id FROM spaces" if spaced else "SELECT model_id FROM models WHERE active")
    with stored.open() as database:
        assert Pictures(stored.folder / "pictures").sweep(Store(database).contents(), lambda asked: {}) == []
        [upgrade] = Store(database).operations(LogPart(max((row[0] for row in before["operations"]), default=0)))
        assert (upgrade.kind, upgrade.target) == ("gallery.upgrade", database.gallery_id)
        assert (upgrade.before, upgrade.after) == ({"version": stored.version}, {"version": len(STEPS)})
        assert abs((datetime.now(UTC) - upgrade.time).total_seconds()) < 600
        assert database.read(select(tables.spaces)) == [("appearance", *row) for row in active]
    after = stored.rows(former.items())
    after["operations"] = [row for row in after["operations"] if row[0] != upgrade.seq]
    assert after == before
    assert sum(map(len, before.values())) > 20
    with stored.open() as again:
        assert Store(again).last_entry() == upgrade.seq, "upgraded twice"
        assert again.gallery_id == database.gallery_id


@pytest.mark.parametrize("version", range(FIRST_ON_POSTGRESQL, len(STEPS)))
def test_processes_that_open_it_at_once_upgrade_it_once(tmp_path, postgresql, version):
    stored = Stored(tmp_path / "stored", version, postgresql)
    with ThreadPoolExecutor(4) as pool:
        for database in pool.map(lambda _: stored.open(), range(4)):
            database.close()
    assert stored.read("SELECT count(*) FROM operations WHERE kind = 'gallery.upgrade'") == [(1,)]


def built(stored, postgresql):
    """How a gallery's tables are made, in the words of another program."""
    if stored.url is None:
        return stored.read(SCHEMA), stored.found_version
    program = postgresql._programs / "pg_dump"
    address = ["-h", "127.0.0.1", "-p", str(postgresql.port), "-U", "reid", "-n", schema_of(stored.url), "-s"]
    done = subprocess.run(
        [program, *address, "postgres"], capture_output=True, text=True, env={"PGPASSWORD": postgresql.PASSWORD}
    )
    assert done.returncode == 0, done.stderr
    dumped = done.stdout.replace(f"{schema_of(stored.url)}", "gallery")
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", dumped), stored.found_version


def test_an_upgraded_gallery_is_built_like_a_new_one(request, stored, tmp_path):
    new = Stored.__new__(Stored)
    new.folder, new.url, server = tmp_path / "new", None, None
    if stored.url is not None:
        server = request.getfixturevalue("postgresql")
        new.url = server.new()
        new._connect = lambda: connected(server, schema_of(new.url))
    ids = set()
    for one in (stored, new):
        with one.open() as database:
            ids.add(database.gallery_id)
    assert built(stored, server) == built(new, server)
    assert len(ids) == 2


def test_numbers_of_rows_that_are_gone_are_not_used_again(stored):
    last = max(
        json.loads(row[0])["number"] for row in stored.read("SELECT after FROM operations WHERE kind = 'item.enrol'")
    )
    with stored.open() as database, database.transaction() as connection:
        medium = {"kind": "image", "width": 1, "height": 1, "source": ""}
        row = {"attributes": "{}", "created_at": 0}
        number = connection.execute(tables.media.insert().values(sha256="x", **medium)).inserted_primary_key[0]
        added = connection.execute(tables.items.insert().values(item_id="x", media_number=number, **row))
        assert added.inserted_primary_key[0] > last


def test_an_upgrade_that_fails_changes_nothing(stored, monkeypatch):
    former, before = stored.columns(), stored.rows(stored.columns().items())
    monkeypatch.setattr(steps, "STEPS", (*STEPS, BROKEN))
    with pytest.raises(Exception, match="nonsense"):
        stored.open()
    assert (stored.columns(), stored.found_version) == (former, stored.version)
    assert stored.rows(former.items()) == before
    monkeypatch.undo()
    stored.open().close()
    assert stored.found_version == len(STEPS)


KILLED = """
import os, signal, sys
from pathlib import Path
from service.storage.database import Database
from service.storage.migrations import {place}

def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)

{place}.upgrade_entry = killed  # when all is done but the last
Database(Path({folder!r}), {url!r})
"""


def test_an_upgrade_that_is_killed_leaves_the_old_version_and_is_done_again(stored):
    former, before = stored.columns(), stored.rows(stored.columns().items())
    script = KILLED.format(
        place="sqlite" if stored.url is None else "postgresql", folder=str(stored.folder), url=stored.url
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert stored.found_version == stored.version
    if stored.url is not None:  # to look into the file with another program would clear up after the kill
        assert stored.rows(former.items()) == before
    with stored.open() as database:
        assert Store(database).count(Filter()) == len(before["items"])
    assert stored.found_version == len(STEPS)


def test_each_version_is_one_step_from_the_last(stored, monkeypatch):
    height = "ALTER TABLE items ADD COLUMN height INTEGER;"
    monkeypatch.setattr(steps, "STEPS", (*STEPS, Step(WEIGHT, WEIGHT), Step(height, height)))
    numbers = stored.read("SELECT number, NULL, NULL FROM items ORDER BY number")
    with stored.open() as database:
        assert database.read(text("SELECT number, weight, height FROM items ORDER BY number")) == numbers
    assert stored.found_version == len(STEPS) + 2


def test_a_gallery_of_a_newer_version_is_refused_with_both(stored, monkeypatch):
    former = stored.columns()
    monkeypatch.setattr(steps, "STEPS", STEPS[: stored.version - 1])
    with pytest.raises(ValueError) as refused:
        stored.open()
    told = f"a gallery of version {stored.version}, but this program knows versions up to {stored.version - 1} only"
    assert told in str(refused.value)
    assert stored.columns() == former


@pytest.fixture
def of_version(tmp_path):
    """A function that gives a gallery in a file as a version wrote it."""
    return lambda version: Stored(tmp_path / "stored", version)


def test_what_version_1_wrote_is_read(of_version):
    with of_version(1).open() as database:
        store = Store(database)
        assert Models(database).active == Model("vit-tiny-1", 4, {"features": "sa", "image_size": [256, 128]})
        north, drop, bare = store.page(Filter())
        assert [item.number for item in (north, drop, bare)] == [1, 2, 4]
        when = datetime(2024, 5, 17, 6, 30, 0, 123456, tzinfo=UTC)
        assert north.details == Details(
            key="north/1",
            label="Åsa",
            camera="north",
            captured_at=when,
            attributes={"sex": "female", "spots": [3, 4]},
        )
        assert (north.medium.source, north.medium.width, north.medium.height) == ("photos/0.jpg", 640, 480)
        assert (north.region, north.crop) == (None, Crop(north.medium.sha256))
        assert drop.details.key == "it's; DROP TABLE items"
        assert drop.details.label == "Robert'); DROP TABLE items;--"
        assert bare.details == Details(camera="north")
        assert [(row.number, row.vector.tolist()) for row in store.rows("vit-tiny-1")] == [
            (1, [1, 0, 0, 0]),
            (2, [0, 1, 0, 0]),
            (4, [0, 0, 0, 1]),
        ]
        kinds = [operation.kind.split(".")[1] for operation in store.operations()]
        assert kinds == ["bind", "create", "enrol", "enrol", "enrol", "create", "edit", "delete", "enrol", "upgrade"]
        store.delete([bare.item_id])
        assert database.read(text("PRAGMA integrity_check")) == [("ok",)]
        assert database.read(text("PRAGMA foreign_key_check")) == []


def test_what_version_2_wrote_is_read(of_version):
    with of_version(2).open() as database:
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
        assert [min(change.numbers) for change in store.entries(0, 100) if change.kind.startswith("item.")] == numbers
        assert len(database.gallery_id) == 32
        # A label that was given before is the same with the first item of its identity.
        [decision] = Decisions(database).page()
        told = (decision.a, decision.b, decision.answer, decision.basis)
        assert told == (second.item_id, first.item_id, "same", "import")
        assert Identities(database).get(first.identity_id).anchor == first.item_id


def test_what_version_4_wrote_is_read(of_version):
    with of_version(4).open() as database:
        store = Store(database)
        whole, named, boxed, beside = store.page(Filter())
        assert (whole.details.captured_precision, whole.details.latitude) == ("subsecond", 59.3)
        assert (named.details.label, boxed.region, beside.region) == ("Bob", Region(0, 0, 100, 200), None)
        assert boxed.medium == beside.medium
        assert {row.number for row in store.rows("vit-tiny-1")} == {1, 2, 4, 6}
        for added in (tables.media.c.copy_sha256, tables.vectors.c.checksum):
            assert set(database.read(select(added))) == {(None,)}


@pytest.mark.parametrize("log", ["operations", "queries"])
def test_nothing_of_a_stored_log_can_be_changed_but_by_an_erasure(stored, log):
    with stored.open() as database:
        seqs = [seq for (seq,) in database.read(text(f"SELECT seq FROM {log}"))]
        if not seqs:  # version 1 had no log of queries
            return
        column = "before" if log == "operations" else "asked"
        for changed in ("actor = 'x'", "seq = seq + 1000", f"{column} = '{{}}'"):
            with pytest.raises(IntegrityError, match="append-only"), database.transaction() as connection:
                connection.execute(text(f"UPDATE {log} SET {changed}"))
        with database.transaction() as connection:
            connection.execute(text(f"""UPDATE {log} SET {column} = '{{"a": "erased"}}'"""))
        assert [seq for (seq,) in database.read(text(f"SELECT seq FROM {log} ORDER BY seq"))] == sorted(seqs)


def test_a_damaged_gallery_is_not_upgraded(of_version):
    stored = of_version(4)
    path = stored.folder / "gallery.db"
    ((page, size),) = stored.read(
        "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'items'"
    )
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(DamagedDatabase, match="damaged .*not upgraded; put back a backup"):
        stored.open()
    assert stored.found_version == 4
    assert path.read_bytes() == data
