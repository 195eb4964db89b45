"""The file of a gallery: one process, whole transactions, and one readable line for whatever is wrong with it."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from time import sleep

import numpy as np
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from service.records import Medium, NewItem
from service.storage.database import Database
from service.storage.inspection import DamagedDatabase
from service.storage.migrations.sqlite import APPLICATION_ID
from service.storage.migrations.steps import STEPS
from service.storage.models import Models
from service.storage.store import Store
from service.storage.tables import operations

ROOT = Path(__file__).resolve().parents[3]
LOG = insert(operations).values(time=0, actor="", request_id="", batch_id="", kind="test")
TARGETS = select(operations.c.target).order_by(operations.c.seq)


def open_elsewhere(folder, before=""):
    """Open the gallery in another process, which runs `before` first; returns what it prints."""
    script = f"""
import os, sys
from pathlib import Path
from service.storage.database import Database
{before}
try:
    Database(Path({str(folder)!r})).close()
    print("opened")
except (OSError, ValueError) as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.removesuffix("\n")


def one_line(refused, named):
    message = str(refused.value)
    return str(named) in message and "\n" not in message


@pytest.fixture
def folder(tmp_path):
    """A gallery with one entry in its log."""
    folder = tmp_path / "gallery"
    with Database(folder) as database, database.transaction() as connection:
        connection.execute(LOG, {"target": "first"})
    return folder


def test_a_new_an_empty_and_an_existing_folder_open(tmp_path, folder):
    with Database(tmp_path / "some" / "new one") as database:
        assert database.read(TARGETS) == []
    (tmp_path / "empty" / "lost+found").mkdir(parents=True)
    Database(tmp_path / "empty").close()
    with Database(folder) as database:
        assert database.read(TARGETS) == [("first",)]
        assert database.read(text("PRAGMA journal_mode")) == [("wal",)]
        with database.transaction() as connection:
            assert connection.execute(text("PRAGMA synchronous")).fetchone() == (2,)  # FULL
            assert connection.execute(text("PRAGMA foreign_keys")).fetchone() == (1,)


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    with pytest.raises(ValueError, match=r"holds files but no gallery\.db") as refused:
        Database(tmp_path)
    assert one_line(refused, tmp_path)
    assert os.listdir(tmp_path) == ["photo.jpg"]
    with pytest.raises(OSError, match="not a folder") as refused:
        Database(tmp_path / "photo.jpg")
    assert one_line(refused, tmp_path / "photo.jpg")


def test_a_second_owner_is_refused_until_the_first_closes(folder):
    with Database(folder):
        expected = f"{folder}: another process has this gallery open"
        assert open_elsewhere(folder) == f"OSError {expected}"
        with pytest.raises(OSError) as refused:
            Database(folder)
        assert str(refused.value) == expected
    assert open_elsewhere(folder) == "opened"


def test_a_failed_opening_lets_go_of_the_folder(tmp_path):
    (tmp_path / "gallery.db").write_bytes(b"no database" * 100)
    for _ in range(2):
        with pytest.raises(DamagedDatabase, match="damaged, or not a gallery"):
            Database(tmp_path)


def test_a_transaction_is_whole_or_nothing_and_readers_see_the_last_whole_one(folder):
    with Database(folder) as database:
        with database.transaction() as connection:
            connection.execute(LOG, {"target": "second"})
            assert database.read(TARGETS) == [("first",)]
        assert database.read(TARGETS) == [("first",), ("second",)]
        with pytest.raises(KeyError), database.transaction() as connection:
            connection.execute(LOG, {"target": "third"})
            raise KeyError
        with pytest.raises(ValueError, match="'\\\\udcff' is not valid Unicode"), database.transaction() as connection:
            connection.execute(LOG, {"target": "fourth"})
            connection.execute(LOG, {"target": "\udcff"})
        assert database.read(TARGETS) == [("first",), ("second",)]


def test_reading_cannot_write(folder):
    with Database(folder) as database, pytest.raises(OSError, match="readonly"):
        database.read(text("DELETE FROM items"))


def test_a_name_is_held_by_one_thread_at_a_time(folder):
    inside, most = [], []

    def work(_):
        with database.exclusive("pictures"):
            inside.append(1)
            most.append(len(inside))
            sleep(0.001)
            inside.pop()

    with Database(folder) as database, ThreadPoolExecutor(8) as threads, database.exclusive("another"):
        list(threads.map(work, range(40)))
        with pytest.raises(KeyError), database.exclusive("pictures"):
            raise KeyError
        work(None)
    assert most == [1] * 41


@pytest.mark.parametrize("change", ["UPDATE operations SET actor = 'else'", "DELETE FROM operations"])
def test_the_operation_log_cannot_be_rewritten(folder, change):
    with Database(folder) as database:
        with pytest.raises(IntegrityError, match="append-only"), database.transaction() as connection:
            connection.execute(text(change))
        assert database.read(TARGETS) == [("first",)]


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "gallery.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE items (name)")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="another program") as refused:
        Database(tmp_path)
    assert one_line(refused, path)
    assert path.read_bytes() == before


def test_a_newer_version_is_refused_and_left_alone(folder):
    with closing(sqlite3.connect(folder / "gallery.db")) as connection:
        connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    before = (folder / "gallery.db").read_bytes()
    with pytest.raises(ValueError, match=f"version {len(STEPS) + 1}, .* up to {len(STEPS)} only") as refused:
        Database(folder)
    assert one_line(refused, folder / "gallery.db")
    assert (folder / "gallery.db").read_bytes() == before


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "text":
        data = bytearray(b"camera,label\n" * 1000)
    elif how == "cut":
        del data[len(data) // 2 :]
    elif how == "header":
        data[:100] = bytes(100)
    elif how == "inside":
        data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("how", ["text", "cut", "header", "inside"])
def test_a_damaged_file_is_named_and_left_alone(folder, how):
    path = folder / "gallery.db"
    damaged = damage(path, how)
    with pytest.raises(DamagedDatabase, match="damaged, or not a gallery") as refused, Database(folder) as database:
        database.read(TARGETS)
    assert one_line(refused, path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("lock_mode", [0o444, 0o666])
def test_a_read_only_folder_is_refused_in_one_line(folder, tmp_path, lock_mode):
    (folder / "gallery.lock").chmod(lock_mode)
    (folder / "gallery.db").chmod(0o444)
    folder.chmod(0o555)
    tmp_path.chmod(0o755)
    # The superuser may write anywhere: be somebody else, who reaches the folder from where he stands.
    nobody = f"os.chdir({str(tmp_path)!r})\nif os.getuid() == 0: os.setuid(65534)"
    before = (folder / "gallery.db").read_bytes()
    printed = open_elsewhere("gallery", nobody)
    folder.chmod(0o755)
    assert printed.startswith("OSError gallery")
    assert "Permission denied" in printed
    assert "\n" not in printed
    assert (folder / "gallery.db").read_bytes() == before


def test_an_opening_that_was_cut_short_is_done_again(tmp_path):
    (tmp_path / "gallery.lock").touch()
    (tmp_path / "gallery.db").touch()
    with Database(tmp_path) as database:
        assert database.read(text("PRAGMA application_id")) == [(APPLICATION_ID,)]
        assert database.read(text("PRAGMA user_version")) == [(len(STEPS),)]


def test_a_gallery_is_read_beside_the_process_that_holds_it(folder):
    with Database(folder) as database:
        with Database(folder, read_only=True) as beside:
            with database.transaction() as connection:
                connection.execute(LOG, {"target": "later"})
            assert beside.read(TARGETS) == [("first",), ("later",)]
            with pytest.raises(OSError, match="reading only"), beside.transaction():
                pass
        with pytest.raises(OSError, match="another process"):
            Database(folder)
    with Database(folder, read_only=True) as alone:
        assert alone.read(TARGETS) == [("first",), ("later",)]


def test_nothing_is_made_where_it_is_only_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no gallery"):
        Database(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("DELETE FROM items WHERE number = 1", "1 photos without an item; 1 vectors without their item"),
        ("DELETE FROM media WHERE number = 2", "1 items without their photo"),
        ("UPDATE items SET identity_number = 77", "2 items without their identity"),
    ],
)
def test_tables_that_contradict_each_other_are_told_and_nothing_is_written_any_more(folder, harm, told):
    with Database(folder) as database:
        assert database.inspect(Event()) is None
        Models(database).bind("m", 1, {})
        photos = [NewItem(Medium(digit * 64, 1, 1), np.ones(1, np.float32)) for digit in "ab"]
        Store(database).enrol(photos)
        assert database.inspect(Event()) is None
    with closing(sqlite3.connect(folder / "gallery.db")) as connection:
        connection.execute(harm)
        connection.commit()
    with Database(folder) as database:
        assert database.inspect(Event()) == told
        with pytest.raises(OSError, match="damaged .*put back a backup"):
            Store(database).delete(["x"])
        assert Store(database).last_entry()
