"""A backup is the gallery of one moment, whole, and can be served in its place."""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import insert, select

from service.gallery.copies import lossless
from service.gallery.pictures import Pictures
from service.gallery.search import SearchOptions
from service.opening import open_gallery
from service.records import Details, Filter, ItemEdit, LogPart, Medium, NewItem, NewKey, Region, Upload
from service.storage.copying import TABLES
from service.storage.database import Database
from service.storage.identities import Identities
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.storage.models import Models
from service.storage.store import Store
from service.storage.tables import indexes, jobs
from service.storage.tombstones import Tombstones
from service.upkeep.backup import back_up, backup_work, restore
from service.upkeep.jobs import JobRunner
from tests.waiting import DEADLINE, wait_until

SIZE = 8
process = multiprocessing.get_context("fork")  # a child that need not import anything anew


def nothing(done, total):
    pass


def photo(number):
    """Photo `number`, whose picture is of one colour that tells the number."""
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    drawn = np.random.default_rng(number).standard_normal(SIZE).astype(np.float32)
    return NewItem(Medium(sha256, 4, 4, str(number)), drawn / np.linalg.norm(drawn), Details(camera=f"c{number % 3}"))


def colour(number):
    return (number % 256, number // 256 % 256, 7)


class Small:
    """A gallery without a model, which enrols and deletes in the order in which a `Gallery` does."""

    def __init__(self, folder, url=None):
        self.folder = folder
        self.database = Database(folder, url)
        Models(self.database).bind("m", SIZE, {})
        self.store = Store(self.database)
        self.pictures = Pictures(folder / "pictures")
        self.pictures.sweep(self.store.contents(), Tombstones(self.database).of_photos)

    def enrol(self, numbers):
        for number in numbers:
            self.pictures.save({photo(number).medium.sha256: lossless(Image.new("RGB", (4, 4), colour(number)))})
        return [enrolled.item for enrolled in self.store.enrol([photo(number) for number in numbers])]

    def delete(self, items):
        for item in self.store.delete([item.item_id for item in items]):
            self.pictures.delete(item.medium.sha256)

    def delete_and_edit(self, numbers):
        """Enrol photos, delete the first three and the last, name two of the rest, and return the rest."""
        first, second, third, *rest, last = self.enrol(numbers)
        self.delete([first, second, third, last])
        return [self.store.edit(item.item_id, ItemEdit(label="ada")) for item in rest[:2]] + rest[2:]

    def change(self, first, stop, step=1000):
        """Enrol and delete until told to stop: photos `first`, `first + step` and so on."""
        draw, there, number = random.Random(first), [], first
        while not stop.is_set():
            there += self.enrol([number, number + step])
            number += 2 * step
            draw.shuffle(there)
            self.delete([there.pop() for _ in range(draw.randrange(min(4, len(there))))])


@contextmanager
def opened(folder, url=None):
    small = Small(folder, url)
    with closing(small.database):
        yield small


@pytest.fixture
def small(tmp_path):
    with opened(tmp_path / "gallery") as small:
        yield small


def check(folder):
    """The numbers of the photos in a backup, whose tables, log and pictures agree."""
    with closing(sqlite3.connect(f"file:{folder}/gallery.db?immutable=1", uri=True)) as connection:

        def ask(sql):
            return connection.execute(sql).fetchall()

        assert ask("PRAGMA integrity_check") == [("ok",)]
        assert ask("PRAGMA foreign_key_check") == []
        assert ask("SELECT owner_number FROM vectors ORDER BY 1") == ask("SELECT number FROM items ORDER BY 1")
        assert ask("SELECT * FROM jobs WHERE state IN ('queued', 'running')") == []
        told = {}
        for kind, target, after in ask("SELECT kind, target, after FROM operations ORDER BY seq"):
            if kind == "item.enrol":
                told[target] = json.loads(after)["source"]
            elif kind == "item.delete":
                del told[target]
        held = dict(ask("SELECT item_id, source FROM items JOIN media ON media.number = media_number"))
    assert held == told
    numbers = sorted(int(number) for number in held.values())
    pictures = Pictures(folder / "pictures")
    for number in numbers:
        with Image.open(pictures.path(photo(number).medium.sha256)) as image:
            assert image.getpixel((0, 0)) == colour(number)
    return numbers


def test_a_backup_holds_everything_and_tells_its_size(small, tmp_path):
    small.delete(small.enrol(range(40))[:5])
    with small.database.transaction() as connection:
        connection.execute(insert(indexes).values(collection="c", model_id="m", cursor=0))
    steps = []
    target = tmp_path / "some" / "backup"
    result = back_up(small.database, small.pictures, target, lambda done, total: steps.append((done, total)))
    assert check(target) == list(range(5, 40))
    files = [path for path in target.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    assert result == {"folder": "backup", "items": 35, "bytes": size, "missing": []}
    with Database(target) as copy:  # the two must not share the index of a search engine
        assert copy.gallery_id != small.database.gallery_id
        assert copy.read(select(indexes)) == []
    assert {path.name for path in target.iterdir()} == {"gallery.db", "gallery.lock", "pictures"}
    assert [path.name for path in target.parent.iterdir()] == ["backup"]
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]


def test_a_backup_of_a_gallery_on_a_server_is_one_in_a_file(shared_url, tmp_path):
    """It holds the same rows, is another gallery, and goes on with numbers that were never used."""
    with opened(tmp_path / "gallery", shared_url) as small:
        database = small.database
        items = small.enrol(range(1300))
        small.delete(items[1200:])
        key, secret = Keys(database).add(NewKey("k", frozenset({"read"})))
        Jobs(database).create("backup", {})
        steps = []
        result = back_up(database, small.pictures, tmp_path / "backup", lambda *step: steps.append(step))
        assert check(tmp_path / "backup") == list(range(1200))
        assert result["items"] == 1200
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert steps[-1][0] == steps[-1][1]
        with Database(tmp_path / "backup") as copy:
            assert copy.gallery_id != database.gallery_id
            assert Store(copy).page(Filter(), limit=3000) == small.store.page(Filter(), limit=3000)
            assert Store(copy).operations(LogPart(limit=10_000)) == small.store.operations(LogPart(limit=10_000))
            assert Keys(copy).find(secret) == key
            item = Store(copy).enrol([photo(3000)])[0].item
            assert item.number > items[-1].number


@pytest.fixture(params=["file", "postgresql"])
def restored(request, tmp_path):
    """Where a backup is brought to: the folder of a gallery that is not there yet, and the address of its database."""
    return tmp_path / "restored", request.getfixturevalue("shared_url") if request.param == "postgresql" else None


def all_rows(database):
    return {table.name: sorted(database.read(select(table)), key=str) for table in TABLES}


def test_a_gallery_in_a_file_is_brought_to_an_empty_one(small, restored, tmp_path):
    item, *_ = small.delete_and_edit(range(40))
    Jobs(small.database).create("backup", {})
    Keys(small.database).add(NewKey("gate", frozenset({"read"}), frozenset({"north"}), 3))
    with small.database.transaction() as connection:
        connection.execute(insert(indexes).values(collection="c", model_id="m", cursor=0))
    rows = all_rows(small.database)
    small.database.close()
    steps = []
    with Database(small.folder) as source, Database(*restored) as target:
        assert restore(source, target, lambda done, total: steps.append((done, total))) == 36
        assert source.gallery_id != target.gallery_id
        assert all_rows(source) == rows
        found = all_rows(target)
        assert found.pop("indexes") == []
        ((kind, state),) = target.read(select(jobs.c.kind, jobs.c.state))
        assert (kind, state) == ("backup", "cancelled")
        assert {name: found[name] for name in found.keys() - {"jobs"}} == {
            name: rows[name] for name in rows.keys() - {"jobs", "indexes"}
        }
        assert steps == sorted(steps)
        assert steps[-1] == (36 + sum(map(len, rows.values())),) * 2
    with opened(*restored) as again:
        assert sorted(path.name for path in again.folder.glob("pictures/*/*")) == sorted(
            path.name for path in small.folder.glob("pictures/*/*")
        )
        assert again.store.get(item.item_id) == item
        # Numbers of what was deleted are not used again: an index on a server may still have them.
        assert again.enrol([99])[0].number == 41
        assert len(again.store.operations()) == len(rows["operations"]) + 1


def test_every_copy_has_all_regions_spaces_and_merged_identities(small, restored, tmp_path):
    small.enrol(range(6))
    cut = [replace(photo(0), region=Region(x, x, 2, 2, frame)) for x, frame in ((0, None), (1, None), (1, 7))]
    named = [replace(one, details=Details(label=name)) for one, name in zip(cut, "abc", strict=True)]
    regions = [enrolled.item for enrolled in small.store.enrol(named)]
    first, second, third = (item.identity_id for item in regions)
    identities = Identities(small.database)
    identities.merge(first, second)  # each into one that was made after it
    identities.merge(second, third)
    texts = Models(small.database, "text")
    texts.bind("words", 2, {})
    texts.add("words", {regions[1].number: np.array([0, 1], np.float32)})
    rows = all_rows(small.database)
    assert back_up(small.database, small.pictures, tmp_path / "backup", nothing)["items"] == 9
    with Database(tmp_path / "backup") as source, Database(*restored) as target:
        assert restore(source, target, nothing) == 9
        again = back_up(target, Pictures(target.folder / "pictures"), tmp_path / "again", nothing)
        assert again["items"] == 9
        with Database(tmp_path / "again") as last:
            for copy in (source, target, last):
                assert all_rows(copy) == rows
                assert Store(copy).of_photo(photo(0).medium.sha256) == small.store.of_photo(photo(0).medium.sha256)
                assert len(list(copy.folder.glob("pictures/??/*.webp"))) == 6


def test_a_gallery_that_has_anything_is_left_alone(small, restored, tmp_path):
    small.enrol(range(3))
    small.database.close()
    with Database(*restored) as target:
        Models(target).bind("another", SIZE, {})
        before = all_rows(target)
        with Database(small.folder) as source, pytest.raises(ValueError, match="has models already; expected a new or"):
            restore(source, target, nothing)
        assert all_rows(target) == before
        assert not list(target.folder.glob("pictures/*/*"))


def test_a_restoration_that_was_cut_short_goes_on(small, restored, tmp_path, monkeypatch):
    small.enrol(range(2500))
    small.database.close()
    killed = RuntimeError("killed")

    def fail(done, total):
        if done > 2500 + 2000:  # within the rows
            raise killed

    with Database(*restored) as target, Database(small.folder) as source:
        with pytest.raises(RuntimeError) as caught:
            restore(source, target, fail)
        assert caught.value is killed
        assert not any(all_rows(target).values())
        restore(source, target, nothing)
        assert all_rows(target) == all_rows(source)


def test_a_restoration_copies_where_no_link_can_be_and_leaves_no_half_picture(small, tmp_path, monkeypatch):
    small.enrol(range(3))
    small.database.close()

    def refuse(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def break_off(source, target):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    with Database(small.folder) as source, Database(tmp_path / "restored") as target:
        with monkeypatch.context() as full:
            full.setattr(shutil, "copyfile", break_off)
            with pytest.raises(OSError, match="No space left"):
                restore(source, target, nothing)
        assert not list(target.folder.glob("pictures/*/*"))
        assert restore(source, target, nothing) == 3
    assert check(tmp_path / "restored") == [0, 1, 2]


def test_a_source_without_a_picture_is_restored_without_it_and_says_so(small, tmp_path, caplog):
    first, *_ = small.enrol(range(3))
    small.pictures.delete(first.medium.sha256)
    small.database.close()
    with Database(small.folder) as source, Database(tmp_path / "restored") as target:
        assert restore(source, target, nothing) == 3
    assert caplog.messages == [f"warning: no pictures of 1 item: {first.item_id}"]


def test_pictures_are_linked_and_stay_when_the_gallery_deletes_them(small, tmp_path):
    items = small.enrol(range(3))
    back_up(small.database, small.pictures, tmp_path / "backup", nothing)
    copies = Pictures(tmp_path / "backup" / "pictures")
    for item in items:
        assert copies.path(item.medium.sha256).samefile(small.pictures.path(item.medium.sha256))
    small.delete(items)
    assert check(tmp_path / "backup") == [0, 1, 2]


def test_pictures_are_copied_where_no_link_can_be(small, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EXDEV, "another disk", str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    items = small.enrol(range(3))
    back_up(small.database, small.pictures, tmp_path / "backup", nothing)
    copies = Pictures(tmp_path / "backup" / "pictures")
    assert not copies.path(items[0].medium.sha256).samefile(small.pictures.path(items[0].medium.sha256))
    assert check(tmp_path / "backup") == [0, 1, 2]


def test_a_folder_that_is_there_is_left_alone(small, tmp_path):
    (tmp_path / "backup").mkdir()
    with pytest.raises(FileExistsError, match="backup: is there already"):
        back_up(small.database, small.pictures, tmp_path / "backup", nothing)


def test_an_error_leaves_nothing(small, tmp_path, monkeypatch):
    small.enrol(range(3))
    target = tmp_path / "backup"

    def refuse(source, destination):
        raise OSError(errno.ENOSPC, "No space left on device", str(destination))

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refuse)
        with pytest.raises(OSError, match="No space left"):
            back_up(small.database, small.pictures, target, nothing)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(small.database, small.pictures, target, stop)
    assert os.listdir(tmp_path) == ["gallery"]


def test_pictures_that_are_lost_or_damaged_are_named_and_left_out(small, tmp_path):
    items = small.enrol(range(9))
    small.store.keep_checksums({item.medium.sha256: sha256_of(small, item) for item in items})
    for item in items[:2]:
        small.pictures.path(item.medium.sha256).unlink()
    small.pictures.path(items[2].medium.sha256).write_bytes(b"RIFF")
    lacking = [item.item_id for item in items[:3]]
    result = back_up(small.database, small.pictures, tmp_path / "backup", nothing)
    assert (result["items"], result["missing"]) == (9, lacking)
    assert (tmp_path / "backup" / "INCOMPLETE").read_text().splitlines()[1:] == lacking
    copies = Pictures(tmp_path / "backup" / "pictures")
    assert [copies.holds(item.medium.sha256) for item in items] == [False] * 3 + [True] * 6


def sha256_of(small, item):
    return hashlib.sha256(small.pictures.read(item.medium.sha256)).hexdigest()


def test_a_damaged_gallery_is_not_backed_up_as_a_sound_one(tmp_path):
    folder = tmp_path / "gallery"
    with opened(folder) as small:
        small.enrol(range(30))
    with closing(sqlite3.connect(folder / "gallery.db")) as connection:
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'items_by_camera'")
    data = bytearray((folder / "gallery.db").read_bytes())
    assert data[page * 4096 - 2 : page * 4096] == b"c0"  # the camera of the first item
    data[page * 4096 - 1] = ord("9")
    (folder / "gallery.db").write_bytes(data)
    with opened(folder) as small, pytest.raises(ValueError, match="damaged"):
        back_up(small.database, small.pictures, tmp_path / "backup", nothing)
    assert os.listdir(tmp_path) == ["gallery"]


def test_backups_are_consistent_while_others_enrol_and_delete(small, tmp_path):
    stop = threading.Event()
    small.enrol(range(100, 140))
    changers = [threading.Thread(target=small.change, args=(first, stop)) for first in range(3)]
    for changer in changers:
        changer.start()
    try:
        for n in range(4):
            back_up(small.database, small.pictures, tmp_path / str(n), nothing)
    finally:
        stop.set()
        for changer in changers:
            changer.join()
    held = [check(tmp_path / str(n)) for n in range(4)]
    assert len({tuple(numbers) for numbers in held}) > 1
    pictures = {path.stem for path in small.pictures.path("a" * 64).parents[1].rglob("*.webp")}
    assert pictures == small.store.contents()


def test_what_is_deleted_while_a_backup_is_made_is_whole_in_it(small, tmp_path):
    """The tables are those of a moment before, and so must the pictures be."""
    there = small.enrol(range(3))

    def delete(done, total):
        if (tmp_path / "copy.partial" / "pictures").exists():
            small.delete([there.pop() for _ in there[:1]])

    assert back_up(small.database, small.pictures, tmp_path / "copy", delete)["missing"] == []
    assert len(there) < 3
    assert check(tmp_path / "copy") == [0, 1, 2]
    assert not small.pictures.path(photo(2).medium.sha256).exists()


def ended(jobs, job_id):
    wait_until(lambda: jobs.get(job_id).state not in ("queued", "running"))
    return jobs.get(job_id)


def test_a_job_writes_a_folder_named_by_time_and_the_copy_does_not_run_it_again(small, tmp_path):
    small.enrol(range(5))
    work = backup_work(small.database, small.pictures, tmp_path / "backups")
    with JobRunner(Jobs(small.database), {"backup": work}) as runner:
        job = ended(runner.jobs, runner.start("backup", {}).job_id)
    name = f"{job.created_at:%Y%m%dT%H%M%SZ}-{job.job_id}"
    assert (job.state, job.result["folder"], job.result["items"]) == ("done", name, 5)
    folder = tmp_path / "backups" / name
    with Database(folder) as copy:
        assert [(job.job_id, job.state) for job in Jobs(copy).page(None, 10)] == [(job.job_id, "cancelled")]

    inode = (folder / "gallery.db").stat().st_ino
    small.enrol([77])
    assert work(job, nothing) == job.result  # as after a kill between the rename and the end of the job
    assert (folder / "gallery.db").stat().st_ino == inode


def back_up_for_ever(folder, seed, ready):
    """A child: change the gallery in two threads and back it up in a third one, until it is killed."""
    small = Small(folder)
    small.enrol(range(seed, seed + 10))
    never = threading.Event()
    for first in (seed + 100, seed + 200):
        threading.Thread(target=small.change, args=(first, never), daemon=True).start()
    runner = JobRunner(
        Jobs(small.database), {"backup": backup_work(small.database, small.pictures, folder / "backups")}
    )
    for job in runner.jobs.page(None, 1):
        ended(runner.jobs, job.job_id)
    ready.set()
    while True:
        assert ended(runner.jobs, runner.start("backup", {}).job_id).state == "done"


def kill_rounds(folder, rounds, seed):
    """Kill a process that backs up, again and again; returns how many of its backups the next start finished."""
    draw = random.Random(seed)
    finished = 0
    for round_ in range(rounds):
        ready = process.Event()
        child = process.Process(target=back_up_for_ever, args=(folder, 10_000 * (round_ + 1), ready))
        child.start()
        assert ready.wait(DEADLINE)
        time.sleep(draw.random() * 0.4)  # only chooses the moment
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        with opened(folder) as small:
            small.enrol([round_])
            work = backup_work(small.database, small.pictures, folder / "backups")
            with JobRunner(Jobs(small.database), {"backup": work}) as runner:
                for job in runner.jobs.page(None, 1):
                    finished += job.state == "running"
                    assert ended(runner.jobs, job.job_id).state == "done"
        for backup in (folder / "backups").glob("*"):  # none where the kill came before the first
            assert not backup.name.endswith(".partial")
            check(backup)
            shutil.rmtree(backup)
    return finished


@pytest.fixture
def hasty(monkeypatch):
    """Do not wait for the disk: what a process has written survives its kill."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.mark.usefixtures("hasty")
def test_a_kill_leaves_whole_backups_and_the_next_start_finishes_the_last(tmp_path):
    kill_rounds(tmp_path / "gallery", rounds=2, seed=1)


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
def test_a_hundred_kills_leave_whole_backups(tmp_path):
    assert kill_rounds(tmp_path / "gallery", rounds=100, seed=2)


def back_up_to_a_full_disk(folder, target, told):
    """A child: the file of the gallery may not be copied in whole."""
    small = Small(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    try:
        back_up(small.database, small.pictures, target, nothing)
    except OSError as error:
        told.send((str(error), os.listdir(target.parent)))


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path):
    with opened(tmp_path / "gallery") as small:
        [item] = small.enrol([0])
        small.store.edit(item.item_id, {"attributes": {"note": "x" * 3_000_000}})
    told, tell = process.Pipe(duplex=False)
    target = tmp_path / "backups" / "new"
    child = process.Process(target=back_up_to_a_full_disk, args=(tmp_path / "gallery", target, tell))
    child.start()
    assert told.poll(DEADLINE)
    message, left = told.recv()
    child.join()
    assert str(tmp_path / "backups" / "new.partial" / "gallery.db") in message
    assert "\n" not in message
    assert left == []
    with opened(tmp_path / "gallery") as small:
        back_up(small.database, small.pictures, target, nothing)
    assert check(target) == [0]


def test_a_backup_is_served_in_place_of_the_gallery(gallery, checkpoint, picture, tmp_path):
    photos = [picture(n) for n in range(6)]
    gallery.enrol([Upload(f"{n}.png", data, Details(label=f"L{n}")) for n, data in enumerate(photos)])
    _, secret = Keys(gallery.database).add(NewKey("ada", frozenset({"read"})))
    expected = gallery.query([photos[2]], SearchOptions(top_k=6))
    back_up(gallery.database, gallery.pictures, tmp_path / "backup", nothing)
    gallery.delete([match.item.item_id for match in expected.matches])
    with open_gallery(tmp_path / "backup", checkpoint, "cpu") as restored:
        assert restored.query([photos[2]], SearchOptions(top_k=6)) == expected
        assert restored.pictures.read(expected.matches[0].item.medium.sha256).startswith(b"\x89PNG")
        assert Keys(restored.database).find(secret).name == "ada"
        restored.delete([expected.matches[0].item.item_id])
        [created] = restored.enrol([Upload("new.png", picture(9), Details())])
        assert created.created
