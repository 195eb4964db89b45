"""A start from the file of rows finds what one from the store finds, and no file is trusted that is not as it was."""

import os
import random
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import service.gallery.index
from reid.cli import UsageError
from service.engines import compressed, memory, snapshot
from service.engines.ivf import IvfEngine
from service.engines.memory import MemoryEngine
from service.fields import Filter
from service.gallery import kept_rows, space
from service.gallery.holdings import Holdings
from service.gallery.index import LocalIndex
from service.gallery.search import SearchOptions
from service.opening import local_engine, open_gallery
from service.records import Cause, Conflict, Details, Medium, NewItem, Upload
from service.settings import Backend, load
from service.storage.database import Database
from service.storage.identities import Identities
from service.storage.models import Models
from service.storage.store import Store
from service.upkeep.erase import erase
from tests.waiting import wait_until

SIZE = 16


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Blocks of few rows, kept from the first on and as soon as one more entry of the log is there."""
    for module, name, value in (
        (service.gallery.index, "ROWS_AT_ONCE", 10),
        (kept_rows, "FEWEST", 1),
        (kept_rows, "MOST_BEHIND", 0),
        (kept_rows, "SHARE_BEHIND", 0),
        (memory, "BLOCK_ROWS", 8),
        (snapshot, "BLOCK_ROWS", 8),
        (snapshot, "STRETCH_ROWS", 2),
        (snapshot, "PORTION_BLOCKS", 1),
        (snapshot, "SPARE_ROWS", 100),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture(params=["codes", "plain"])
def coded(request, monkeypatch):
    if request.param == "codes":
        pytest.importorskip("faiss")
        monkeypatch.setattr(memory, "COMPRESSED_ROWS", 5)


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "gallery") as database:
        Models(database).bind("m", SIZE, {})
        yield database


def photo(number, **details):
    drawn = np.random.default_rng(number).standard_normal(SIZE).astype(np.float32)
    return NewItem(Medium(f"{number:064d}", 640, 480, str(number)), drawn / np.linalg.norm(drawn), Details(**details))


def enrol(database, numbers, **details):
    return [one.item for one in Store(database).enrol([photo(number, **details) for number in numbers])]


def started(database, kind=MemoryEngine, model="m"):
    index = LocalIndex(database, kind(), model)
    index.follow()
    return index


def write(index):
    while index.tend():
        pass


def kept(database):
    return database.folder / "rows-appearance"


def answers(index):
    queries = np.array([photo(number).vector for number in (3, 700, 701)])
    filters = (Filter(), Filter(cameras={"n"}), Filter(labels={"ada"}), Filter(attributes={"coat": {"red"}}))
    return [[index.search(query[None], 7, chosen) for query in queries] for chosen in filters]


def from_store(database):
    index = LocalIndex(database, MemoryEngine(), "m")
    index._fill()
    return index


def require_used(caplog):
    assert "is not used" not in caplog.text


@pytest.mark.usefixtures("coded")
@pytest.mark.parametrize("kind", [MemoryEngine, IvfEngine, "disk"])
def test_whatever_happens_a_start_from_the_file_finds_what_is_in_the_store(database, kind, caplog, monkeypatch):
    if kind == "disk":
        kind = partial(MemoryEngine, folder=database.folder)
    rng, store, alive = random.Random(0), Store(database), []
    index, fills, fill = started(database, kind), [], LocalIndex._fill
    monkeypatch.setattr(LocalIndex, "_fill", lambda self: (fills.append(1), fill(self)))
    for step in range(40):
        act = rng.randrange(6)
        if act == 5:  # begun again, with a file that is written or read in part
            index.close()
            index = started(database, kind)
        elif act <= 1:
            details = {"camera": rng.choice("ns"), "attributes": {"coat": rng.choice(["red", "blue"])}}
            alive += enrol(database, range(9 * step, 9 * step + 9), **details)
        elif act == 2 and alive:
            rng.shuffle(alive)
            gone, alive = alive[:5], alive[5:]
            store.delete([item.item_id for item in gone])
        elif act == 3 and alive:
            item = store.edit(rng.choice(alive).item_id, {"label": rng.choice(["ada", "bob"]), "camera": "n"})
            with suppress(Conflict):
                Identities(database).rename(item.identity_id, rng.choice(["ada", "cyd"]))
        for _ in range(rng.randrange(6)):  # a portion of the file now and then, of which some is old by the next
            index.tend()
        index.follow()
    write(index)
    assert kept(database).exists()
    assert answers(started(database, kind)) == answers(from_store(database)) == answers(index)
    enrol(database, range(700, 704))
    store.delete([alive[0].item_id])
    fills.clear()
    again = started(database, kind)
    assert not fills
    require_used(caplog)
    index.follow()
    assert answers(again) == answers(index)
    assert not [path.name for path in database.folder.iterdir() if path.name.endswith(".tmp")]


def test_a_file_is_written_when_it_is_due_and_not_before(database, monkeypatch):
    monkeypatch.setattr(kept_rows, "MOST_BEHIND", 5)
    monkeypatch.setattr(kept_rows, "FEWEST", 20)
    enrol(database, range(19))
    index = started(database)
    write(index)
    assert not kept(database).exists()
    enrol(database, [19])
    index.follow()
    write(index)
    first = kept(database).read_bytes()
    enrol(database, range(20, 25))
    index.follow()
    write(index)
    assert kept(database).read_bytes() == first
    enrol(database, [25])
    assert not index.tend()  # what is not followed yet is none of its rows
    index.follow()
    write(index)
    assert kept(database).read_bytes() != first


def test_a_start_reads_codes_and_a_query_the_few_vectors_that_they_cannot_tell_apart(database, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(memory, "COMPRESSED_ROWS", 5)
    monkeypatch.setattr(compressed, "SPARE", 4)
    enrol(database, range(1000))
    write(started(database))
    expected, got, preadv = answers(from_store(database)), [], os.preadv
    monkeypatch.setattr(snapshot.os, "preadv", lambda *asked: got.append(preadv(*asked)) or got[-1])
    index = started(database)
    assert sum(got) == 1000 * SIZE
    query = photo(3).vector[None]
    assert [hit.number for hit in index.search(query, 1, Filter())[0].hits] == [4]
    assert 2 * 4 * SIZE <= sum(got) - 1000 * SIZE < 4 * 1000 * SIZE / 5
    assert answers(index) == expected  # also by filters that few pass
    portions = 0
    while index.tend():
        portions += 1
    assert 50 < portions <= 125
    assert sum(got) == 5 * 1000 * SIZE
    assert answers(index) == expected
    assert sum(got) == 5 * 1000 * SIZE


@pytest.mark.usefixtures("coded")
@pytest.mark.parametrize("when", ["at the first query", "between queries", "in the log's rows", "in a new file"])
@pytest.mark.parametrize("how", ["a bit", "cut short"])
def test_vectors_that_turn_out_to_be_damaged_come_from_the_database(database, caplog, when, how, monkeypatch):
    items = enrol(database, range(60), camera="n")
    write(started(database))
    whole, vector = kept(database).read_bytes(), photo(3).vector.tobytes()
    if how == "a bit":
        kept(database).write_bytes(whole.replace(vector, bytes([vector[0] ^ 1]) + vector[1:]))
    index = started(database)
    if how == "cut short":  # by another program, of a file that is open
        os.truncate(kept(database), whole.index(vector))
    require_used(caplog)
    if when == "between queries":
        while index.tend():
            pass
    elif when == "in the log's rows":
        Store(database).edit(items[3].item_id, {"label": "ada"})
        index.follow()
    elif when == "in a new file":
        kept(database).unlink()
        write(index)
    expected = answers(from_store(database))
    assert answers(index) == expected
    assert "rows 2 to" in caplog.text or "rows 0 to" in caplog.text
    assert "come from the database" in caplog.text
    write(index)
    caplog.clear()
    monkeypatch.setattr(LocalIndex, "_fill", lambda self: pytest.fail("read from the store"))
    again = started(database)
    write(again)
    assert answers(again) == expected
    require_used(caplog)


@pytest.mark.usefixtures("coded")
def test_whenever_a_process_ends_the_next_start_finds_what_is_in_the_store(database, monkeypatch):
    class Killed(BaseException):
        """What no cleanup follows."""

    enrol(database, range(40))
    expected, fdatasync, fsync, replace = answers(from_store(database)), os.fdatasync, os.fsync, Path.replace
    left = 0

    def until_then(work):
        def step(*asked):
            nonlocal left
            left -= 1
            if not left:
                raise Killed
            return work(*asked)

        return step

    monkeypatch.setattr(snapshot.os, "fdatasync", until_then(fdatasync))
    monkeypatch.setattr(snapshot.os, "fsync", until_then(fsync))
    monkeypatch.setattr(kept_rows.Path, "replace", until_then(replace))
    steps = 0
    while not kept(database).exists():
        steps, left = steps + 1, steps + 1
        index = started(database)
        with suppress(Killed):
            write(index)
        if index._kept._file is not None:
            index._kept._file.raw.close()  # what was not handed to the system is lost
        left = 0
        assert answers(started(database)) == expected
    assert steps > 5
    monkeypatch.setattr(kept_rows, "ABANDONED", -1)
    kept(database).unlink()
    write(started(database))
    assert [path.name for path in database.folder.glob(".rows*")] == []


@pytest.mark.usefixtures("coded")
def test_no_file_is_trusted_that_is_not_whole(database, caplog):
    enrol(database, range(30), camera="n")
    write(started(database))
    whole, expected = kept(database).read_bytes(), answers(from_store(database))
    rng = random.Random(0)
    spoilt = [whole[: rng.randrange(len(whole))] for _ in range(20)] + [b""]
    for _ in range(60):
        place = rng.randrange(len(whole))
        spoilt.append(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
    for content in spoilt:
        kept(database).write_bytes(content)
        assert answers(started(database)) == expected
    assert "is not used, and its rows come from the database" in caplog.text
    caplog.clear()
    kept(database).write_bytes(whole)
    assert answers(started(database)) == expected
    require_used(caplog)


def test_the_rows_of_another_model_gallery_or_history_are_not_taken(database, tmp_path, caplog):
    enrol(database, range(20))
    copy = tmp_path / "copy"
    with Database(tmp_path / "other") as other:
        Models(other).bind("m", SIZE, {})
        enrol(other, range(20))
        started(other)
        database.copy(tmp_path / "then.db", lambda *_: None)
        enrol(database, range(20, 30))
        write(started(database))
        shutil.copy(kept(database), kept(other))
        assert len(started(other)) == 20
        assert "its rows of is" in caplog.text
    copy.mkdir()
    shutil.copy(tmp_path / "then.db", copy / "gallery.db")  # an older state of the same gallery
    shutil.copy(kept(database), kept_rows_of(copy))
    for later in ((), range(40, 55)):  # fewer entries than the file knows, and others in their place
        caplog.clear()
        with Database(copy) as back:
            enrol(back, later)
            assert len(started(back)) == 20 + len(later)
        assert "another history" in caplog.text
    models = Models(database)
    models.prepare("n", 3, {})
    caplog.clear()
    assert len(started(database, model="n")) == 0
    assert "its rows of is" in caplog.text


def kept_rows_of(folder):
    return folder / "rows-appearance"


def test_a_full_disk_keeps_nobody_from_work(database, caplog, monkeypatch):
    enrol(database, range(20))
    index = started(database)
    monkeypatch.setattr(kept_rows.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 9, 9))
    write(index)
    assert "0 are free on the disk" in caplog.text
    assert not index.tend()
    assert not kept(database).exists()
    assert len(started(database)) == 20


def test_a_file_under_way_is_given_up_at_the_end_and_begun_again_where_too_many_rows_come(database):
    enrol(database, range(40))
    index = started(database)
    assert index.tend()
    enrol(database, range(100, 300))
    index.follow()
    write(index)
    write(index)
    assert len(started(database)) == 240
    enrol(database, [301])
    index.follow()
    assert index.tend()
    index.close()
    assert [path.name for path in database.folder.glob("*rows*")] + [
        path.name for path in database.folder.glob(".rows*")
    ] == ["rows-appearance"]


def test_an_erasure_leaves_no_row_in_a_file(database, tmp_path):
    items = enrol(database, range(20))
    index = started(database)
    write(index)
    vector = photo(19).vector.tobytes()
    assert vector in kept(database).read_bytes()
    enrol(database, [20])
    index.follow()
    for _ in range(3):
        index.tend()  # another file has the row by now
    erase(database, Holdings(database), [items[19].item_id], tmp_path / "none", Cause("test"))
    write(index)
    assert not kept(database).exists()
    index.follow()
    write(index)
    write(index)
    assert kept(database).exists()
    assert not any(vector in path.read_bytes() for path in database.folder.glob("*rows*"))


def test_what_rows_need_is_told_before_they_are_loaded(database, caplog, monkeypatch):
    enrol(database, range(20))
    monkeypatch.setattr(service.gallery.index, "free_memory", lambda: 5000)
    monkeypatch.setattr(LocalIndex, "_fill", lambda self: pytest.fail("loaded already"))
    with pytest.raises(pytest.fail.Exception, match="loaded already"):
        started(database)
    assert "20 rows of 16 values take about 0.0 GiB of memory, and 0.0 are free: see REID_ROWS=disk" in caplog.text


def test_memory_that_is_free_is_that_of_the_container(tmp_path, monkeypatch):
    machine = space.free_memory()
    assert 2**20 < machine < 2**45
    monkeypatch.setattr(space, "CGROUP", tmp_path)
    for name, content in (
        ("memory.max", "max"),
        ("memory.current", "700"),
        ("memory.stat", "anon 7\ninactive_file 90"),
    ):
        (tmp_path / name).write_text(content + "\n")
    assert space.free_memory() > 2**20
    (tmp_path / "memory.max").write_text("1000\n")
    assert space.free_memory() == 390


def test_rows_on_the_disk_are_refused_where_they_cannot_be(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="REID_ROWS disk with engine approximate: expected engine memory"):
        load(Backend, {"engine": "approximate", "rows": "disk"})
    for name in ("approximate", "faiss-ivf"):
        assert isinstance(local_engine(Backend(engine=name), "cpu", tmp_path), IvfEngine)
    monkeypatch.setattr("service.opening.choose_device", lambda device: torch.device("cuda"))
    with pytest.raises(ValueError, match="REID_ROWS disk with device cuda: expected --device cpu"):
        local_engine(Backend(rows="disk"), "cuda", tmp_path)


def test_a_gallery_keeps_its_rows_between_other_work_and_starts_from_them(checkpoint, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(LocalIndex, "pause", 0.01)
    folder, asked = tmp_path / "gallery", SearchOptions(top_k=3, chosen=Filter())
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        gallery.enrol([Upload(f"{n}.png", picture(n), Details()) for n in range(4)])
        wait_until((folder / "rows-appearance").exists)
        expected = gallery.query([picture(1)], asked).matches
    monkeypatch.setattr(LocalIndex, "_fill", lambda self: pytest.fail("read from the store"))
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        assert gallery.query([picture(1)], asked).matches == expected
    assert {path.stat().st_mode & 0o777 for path in folder.glob("rows-*")} == {0o600}
