"""Power fails while a gallery is changed: what was acknowledged is there, and what is there is whole.

A library that is preloaded (`power_loss.c`, built where there is a compiler) writes down every change below the
gallery's folder and every fsync. From that record the disk is put together as it may be after a power cut at any
moment: what was not synced is lost, wholly or in parts, data and names alike, as POSIX allows and ext4 mostly does not.
Run as a program, this file is the process whose power fails.
"""

import hashlib
import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.gallery.holdings import Holdings
from service.records import NOBODY, Medium, NewItem
from service.storage.database import Database
from service.storage.models import Models
from service.storage.store import EVERYTHING

HERE = Path(__file__).resolve()
SIZE = 8
HEAD = struct.Struct("<cQQII")
pytestmark = pytest.mark.slow


def photo(number):
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    vector = np.random.default_rng(number).standard_normal(SIZE).astype(np.float32)
    return NewItem(Medium(sha256, 4, 4, str(number)), vector / np.linalg.norm(vector))


def copy(number):
    return np.random.default_rng(number).bytes(3000)


def change(folder, record):
    """Enrol and delete, and say after each change what was acknowledged, and how long the record was by then."""
    with Database(Path(folder)) as database:
        holdings, there, draw = Holdings(database), {}, random.Random(1)
        for start in range(0, 60, 3):
            numbers = range(start, start + 3)
            photos = [photo(number) for number in numbers]
            copies = {one.medium.sha256: copy(number) for number, one in zip(numbers, photos, strict=True)}
            with holdings.saved(copies):
                added = holdings.add(photos, copies, NOBODY, "m")
            there |= {number: one.item.item_id for number, one in zip(numbers, added, strict=True)}
            say(record, enrolled=list(numbers))
            if start % 2:
                number = draw.choice(sorted(there))
                say(record, doomed=number)
                holdings.delete([there.pop(number)], NOBODY)
                say(record, deleted=number)


def say(record, **words):
    print(json.dumps({"at": os.path.getsize(record), **words}), flush=True)  # noqa: T201


class Disk:
    """Files and folders as they are, and as they would be after a power cut."""

    def __init__(self, folder):
        self.folders = {str(path) for path in [folder, *folder.rglob("*")] if path.is_dir()}
        self.kept_folders = set(self.folders)
        self.files = {}  # inodes: what is synced, and the changes since
        self.names = {}
        for path in folder.rglob("*"):
            if path.is_file():
                self.names[str(path)] = len(self.files)
                self.files[len(self.files)] = [path.read_bytes(), []]
        self.kept_names = dict(self.names)
        self.changes = []  # of names, since their folders were synced
        self._numbers = {path.stat().st_ino: self.names[str(path)] for path in map(Path, self.names)}

    def apply(self, kind, inode, offset, one, two):
        if kind == b"C":
            path = one.decode()
            if path not in self.names:
                self._numbers[inode] = self.names[path] = len(self.files)
                self.files[len(self.files)] = [b"", []]
                self.changes.append((path, self.names[path]))
            elif offset:
                self.files[self.names[path]][1].append((None, 0))
        elif kind in b"WT" and inode in self._numbers:
            self.files[self._numbers[inode]][1].append((one, offset) if kind == b"W" else (None, offset))
        elif kind == b"S":
            self._sync(inode, one.decode())
        elif kind == b"R":
            source, target = one.decode(), two.decode()
            number = self.names.pop(source)
            self.names[target] = number
            self.changes += [(target, number), (source, None)]
        elif kind == b"U":
            self.names.pop(one.decode(), None)
            self.changes.append((one.decode(), None))
        elif kind == b"M":
            self.folders.add(one.decode())

    def _sync(self, inode, path):
        if path not in self.folders:
            if inode in self._numbers:
                file = self.files[self._numbers[inode]]
                file[:] = [written(*file), []]
            return
        self.kept_folders |= {folder for folder in self.folders if os.path.dirname(folder) == path}
        for name, number in self.changes:
            if os.path.dirname(name) == path:
                self._keep(self.kept_names, name, number)
        self.changes = [change for change in self.changes if os.path.dirname(change[0]) != path]

    def _keep(self, names, name, number):
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number

    def cut(self, folder, target, draw):
        """Write what is left after a power cut; without `draw` all that was not synced is lost, else some of it."""
        names = dict(self.kept_names)
        for name, number in self.changes:
            if draw is not None and draw.random() < 0.5:
                self._keep(names, name, number)
        for kept in sorted(self.kept_folders):
            (target / Path(kept).relative_to(folder)).mkdir(parents=True, exist_ok=True)
        for name, number in names.items():
            synced, since = self.files[number]
            since = [one for one in since if draw is not None and draw.random() < 0.5]
            place = target / Path(name).relative_to(folder)
            if place.parent.is_dir():
                place.write_bytes(written(synced, since))


def written(data, changes):
    data = bytearray(data)
    for one, offset in changes:
        if one is None:
            data = data[:offset].ljust(offset, b"\0")
        else:
            data[len(data) :] = bytes(max(0, offset - len(data)))
            data[offset : offset + len(one)] = one
    return bytes(data)


def records(path):
    """The record, each entry with the place in it where it ends."""
    data, place = path.read_bytes(), 0
    while place < len(data):
        kind, inode, offset, one, two = HEAD.unpack_from(data, place)
        start = place + HEAD.size
        place = start + one + two
        yield place, (kind, inode, offset, data[start : start + one], data[start + one : place])


def check(folder, said, now):
    """What was acknowledged before `now` holds in a folder that is left."""
    there, doomed, open_ = set(), set(), set()
    for word in said:
        if word["at"] <= now:
            there |= set(word.get("enrolled", ()))
            doomed |= {word[name] for name in ("doomed", "deleted") if name in word}
            open_ = {word["doomed"]} if "doomed" in word else open_ - {word.get("deleted")}
    with closing(sqlite3.connect(folder / "gallery.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    with Database(folder) as database:
        holdings = Holdings(database)
        found = {int(item.medium.source): item for item in holdings.store.page(EVERYTHING, limit=1000)}
        assert there - doomed <= found.keys(), "acknowledged, and lost"
        assert not (doomed - open_) & found.keys(), "deleted, and there"
        for number, item in found.items():
            kept = holdings.pictures.read(item.medium.sha256, item.medium.copy_sha256)
            assert kept == copy(number), "an item with another picture"
        rows = {row.number: row.vector for row in holdings.store.rows("m")}
        assert all(np.array_equal(rows[item.number], photo(number).vector) for number, item in found.items())


@pytest.fixture
def recorded(tmp_path):
    """A gallery that was changed, the folder as it was before, the record of its changes, and what was said."""
    if (compiler := shutil.which("gcc") or shutil.which("cc")) is None:
        pytest.skip("no compiler for what is preloaded")
    library, folder, record = tmp_path / "power_loss.so", tmp_path / "gallery", tmp_path / "record"
    built = [compiler, "-shared", "-fPIC", "-o", library, HERE.with_name("power_loss.c"), "-ldl"]
    done = subprocess.run(built, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Database(folder) as database:
        Models(database).bind("m", SIZE, {})
        Holdings(database)
    record.touch()
    before = Disk(folder)
    preloaded = {"LD_PRELOAD": library, "FORGET_ROOT": folder, "FORGET_LOG": record, "PYTHONPATH": HERE.parents[2]}
    environment = {**os.environ, **{name: str(value) for name, value in preloaded.items()}}
    done = subprocess.run(
        [sys.executable, HERE, folder, record], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder, before, list(records(record)), [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("some", [False, True], ids=["all that was not synced is lost", "some of it"])
def test_a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged(recorded, tmp_path, some):
    folder, disk, entries, said = recorded
    kinds = {entry[0] for _, entry in entries}
    assert kinds >= {b"C", b"W", b"S", b"R", b"M", b"U"}, "the record misses something"
    draw = random.Random(2)
    cuts = set(draw.sample(range(len(entries)), 40)) | {len(entries) - 1}
    for place, (now, entry) in enumerate(entries):
        disk.apply(*entry)
        if place in cuts:
            left = tmp_path / f"cut at {place}"
            disk.cut(folder, left, random.Random(place) if some else None)
            check(left, said, now)
            shutil.rmtree(left)


def test_the_harness_finds_what_is_not_synced(recorded, tmp_path):
    """Without the syncs, what was acknowledged is lost: so they are seen, and needed."""
    folder, disk, entries, said = recorded
    for _, entry in entries:
        if entry[0] != b"S":
            disk.apply(*entry)
    disk.cut(folder, tmp_path / "left", None)
    with pytest.raises(AssertionError, match="acknowledged, and lost"):
        check(tmp_path / "left", said, entries[-1][0])


if __name__ == "__main__":
    change(*sys.argv[1:])
