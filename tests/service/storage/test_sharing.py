"""Processes that share a gallery on PostgreSQL: one truth, one log in order, locks that die with their owner."""

import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from sqlalchemy import insert, select

from service.records import (
    Cause,
    Conflict,
    Details,
    Filter,
    KeyTaken,
    LoggedQuery,
    LogPart,
    Medium,
    NewItem,
    NewKey,
    NotFound,
)
from service.storage.database import Database
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.storage.models import Models
from service.storage.queries import Queries
from service.storage.replies import Replies
from service.storage.store import Store
from service.storage.tables import operations, vectors
from tests.service.forked import Child

SIZE = 8
SOON = 60  # seconds


def photo(number, **details):
    """Photo `number`, always the same."""
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    drawn = np.random.default_rng(number).standard_normal(SIZE).astype(np.float32)
    return NewItem(Medium(sha256, 640, 480, str(number)), drawn / np.linalg.norm(drawn), Details(**details))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "gallery"


@pytest.fixture
def places(folder, shared_url):
    """The gallery as two processes have it open, bound to model `m`."""
    with Database(folder, shared_url) as one, Database(folder, shared_url) as other:
        Models(one).bind("m", SIZE, {})
        yield one, other


def check(database, photos):
    """The gallery holds these photos, each once, and its log tells how they came to be."""
    page = Store(database).page(Filter(), limit=100_000)
    assert sorted(int(item.medium.source) for item in page) == sorted(photos)
    held = database.read(select(vectors.c.owner_number).order_by("owner_number"))
    assert held == [(item.number,) for item in page]
    told = {}
    for entry in Store(database).operations(LogPart(limit=1_000_000)):
        if entry.kind == "item.delete":
            del told[entry.target]
        elif entry.kind.startswith("item"):
            assert (entry.target in told) == (entry.kind == "item.edit")
            told[entry.target] = (entry.after["number"], entry.after["label"], entry.after["camera"])
    assert told == {item.item_id: (item.number, item.details.label, item.details.camera) for item in page}


def test_processes_that_start_at_once_make_one_gallery(folder, shared_url):
    with ExitStack() as opened, ThreadPoolExecutor(6) as threads:
        databases = list(threads.map(lambda _: opened.enter_context(Database(folder, shared_url)), range(6)))
        [gallery_id] = {database.gallery_id for database in databases}
        assert len(gallery_id) == 32
        assert all(database.shared for database in databases)
        assert (folder / "gallery.id").read_text() == gallery_id
        assert os.listdir(folder) == ["gallery.id"]


def test_what_one_does_the_other_sees(places):
    one, other = map(Store, places)
    item = one.enrol([photo(1, key="a", label="Åsa")])[0].item
    assert other.get(item.item_id) == item
    assert [enrolled.created for enrolled in other.enrol([photo(1), photo(2)])] == [False, True]
    assert type(other.enrol([photo(3, key="a")])[0]) is KeyTaken
    edited = other.edit(item.item_id, {"camera": "c"})
    assert one.get(item.item_id) == edited
    assert [min(change.numbers) for change in one.entries(0, 100) if change.kind == "item.edit"] == [item.number]
    assert one.last_entry() == other.last_entry() == one.entries(0, 100)[-1].seq
    other.delete([item.item_id])
    with pytest.raises(NotFound):
        one.get(item.item_id)


def test_the_same_photos_keys_and_edits_from_all_sides(places):
    """Each of 8 threads of two processes enrols the same 20 photos, by keys that all want, and edits and deletes."""

    def work(thread):
        store = Store(places[thread % 2])
        shared = list(range(20))
        random.Random(thread).shuffle(shared)
        created = []
        for n in shared:
            enrolled, contested = store.enrol([photo(n, key=str(n), label=f"L{n % 3}"), photo(100 + n, key=str(n))])
            assert type(contested) is KeyTaken
            created += [n] if enrolled.created else []
            store.edit(enrolled.item.item_id, {"attributes": {"by": thread}, "label": f"M{n % 2}"})
        own = [enrolled.item for enrolled in store.enrol([photo(1000 * (thread + 1) + n) for n in range(10)])]
        assert len(store.delete([item.item_id for item in own[::2]])) == 5
        return created

    with ThreadPoolExecutor(8) as threads:
        created = sorted(n for many in threads.map(work, range(8)) for n in many)
    assert created == list(range(20))
    kept = {1000 * (thread + 1) + n for thread in range(8) for n in range(1, 10, 2)} | set(range(20))
    check(places[0], kept)
    names = [name for name, _ in Store(places[0]).labels(Filter())]
    assert sorted(names) == ["M0", "M1"]
    made = [entry.after["name"] for entry in Store(places[0]).operations() if entry.kind == "identity.create"]
    assert sorted(made) == ["L0", "L1", "L2", "M0", "M1"]


def test_the_rest_holds_over_processes_too(places):
    """Jobs, models, keys, replies and queries, which look before they write."""

    def both(ask):
        def answer(n):
            try:
                return ask(places[n % 2], n)
            except (Conflict, ValueError) as error:
                return error

        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(answer, range(8)))

    made = [job for job in both(lambda database, _: Jobs(database).create("backup", {})) if type(job) is not Conflict]
    assert len(made) == 1
    claimed = [job for job in both(lambda database, _: Jobs(database).claim()) if job]
    assert [job.job_id for job in claimed] == [made[0].job_id]
    assert Jobs(places[1]).claim() is None  # opened anew, it leaves the lease to its owner
    key, _ = Keys(places[0]).add(NewKey("k", frozenset({"read"})))
    both(lambda database, _: Keys(database).revoke(key.key_id))
    assert [entry.kind for entry in Store(places[0]).operations()].count("key.revoke") == 1
    both(lambda database, n: Replies(database).keep("ada", "k", "0" * 64, n))
    assert Replies(places[0]).find("ada", "k", "0" * 64) in range(8)
    both(lambda database, _: Models(database).prepare("new", SIZE, {}))
    both(lambda database, n: Queries(database).append([LoggedQuery(Cause(), (), str(n), {}, 0, ())] * 3))
    logged = Queries(places[0]).page()
    assert [query.seq for query in logged] == sorted(query.seq for query in logged)
    assert sorted(query.asked.item_id for query in logged) == sorted("01234567" * 3)


def test_a_follower_of_the_log_never_misses_an_entry(places):
    """Transactions of all lengths overlap, and some are undone; a follower reads on from the last entry it saw."""
    ended = threading.Event()

    def follow(database):
        store, mine = Store(database), []
        while True:
            last = ended.is_set()
            while found := store.entries(mine[-1].seq if mine else 0, 3):
                mine += found
            if last:
                return mine

    def write(thread):
        draw, database = random.Random(thread), places[thread % 2]
        for n in range(15):
            try:
                with database.transaction() as connection:
                    for _ in range(draw.randint(1, 4)):
                        row = {"time": 0, "actor": "", "request_id": "", "batch_id": "", "kind": "test"}
                        connection.execute(insert(operations).values(target=f"{thread} {n}", **row))
                        time.sleep(draw.random() * 0.004)  # so that others would overtake it, if they could
                    if draw.random() < 0.3:
                        raise KeyError
            except KeyError:
                pass

    with ThreadPoolExecutor(10) as threads:
        followers = [threads.submit(follow, database) for database in places]
        list(threads.map(write, range(8)))
        ended.set()
        seen = [follower.result() for follower in followers]
    everything = Store(places[0]).entries(0, 100_000)
    assert len(everything) > 100
    assert seen == [everything, everything]


def test_a_lock_by_name_holds_over_processes(places):
    inside, most = [], []

    def work(n):
        with places[n % 2].exclusive("pictures"):
            inside.append(n)
            most.append(len(inside))
            time.sleep(0.001)
            inside.pop()

    with ThreadPoolExecutor(8) as threads, places[0].exclusive("another"):
        list(threads.map(work, range(40)))
        with pytest.raises(KeyError), places[0].exclusive("pictures"):
            raise KeyError
        work(1)
    assert most == [1] * 41


def test_waiting_has_an_end(places, folder, shared_url):
    one, other = places
    with one.exclusive("pictures"):
        for database, holder in [(one, "thread"), (other, "process")]:
            for wait in (0, 0.05):
                with (
                    pytest.raises(TimeoutError, match=f"waited {wait} s for pictures, which another {holder} holds"),
                    database.exclusive("pictures", wait),
                ):
                    pass
    with other.exclusive("pictures", 0.05), other.exclusive("another", 0.05):
        pass
    with Database(folder, f"{shared_url}%20-clock_timeout%3D50ms") as hasty:
        with one.transaction(), pytest.raises(OSError, match="lock timeout.; nothing was changed$"):
            Store(hasty).enrol([photo(1)])
        assert Store(hasty).enrol([photo(1)])[0].created


def hold(folder, url):
    """A child: hold a lock by name and stand in the middle of a transaction."""
    database = Database(folder, url)
    with database.exclusive("pictures"), database.transaction() as connection:
        row = {"time": 0, "actor": "", "request_id": "", "batch_id": "", "kind": "test", "target": "undone"}
        connection.execute(insert(operations).values(**row))
        sys.stdout.write("held\n")
        sys.stdout.flush()
        time.sleep(10 * SOON)


def test_a_killed_process_holds_nothing_back(places, folder, shared_url):
    with Child(hold, folder, shared_url) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
    with places[0].exclusive("pictures"):
        assert Store(places[0]).enrol([photo(1)])[0].created
    assert "test" not in [change.kind for change in Store(places[1]).entries(0, 100)]


def change_for_ever(folder, url, seed):
    """A child: enrol, edit and delete its own photos, saying before each change what it will be, and then that it is.

    What the server does not do now is asked for again, until it does.
    """
    draw, there, unused = random.Random(seed), [], seed * 10_000

    def again(ask):
        while True:
            try:
                return ask()
            except OSError as error:
                assert "\n" not in str(error) and "p%40ss" not in str(error)
                time.sleep(0.02)

    database = again(lambda: Database(folder, url))
    store = Store(database)
    while True:
        if draw.random() < 0.7 or len(there) < 4:
            new = [unused, unused + 1, unused + 2]
            unused += 3
            say("enrol", new)
            enrolled = again(lambda new=new: store.enrol([photo(n, key=str(n), label=str(n % 5)) for n in new]))
            there += [one.item for one in enrolled]
        else:
            draw.shuffle(there)
            gone = [there.pop(), there.pop()]
            say("delete", [int(item.medium.source) for item in gone])
            again(lambda gone=gone: store.delete([item.item_id for item in gone]))
        say("done", [])


def say(kind, photos):
    sys.stdout.write(json.dumps([kind, photos]) + "\n")
    sys.stdout.flush()


def acknowledged(lines):
    """What a child's photos must be, and those of its last change, which may have been made or not."""
    state, open_, last = set(), set(), ""
    for line in lines:
        if not line.endswith("\n"):
            break
        kind, photos = json.loads(line)
        if kind == "done":
            state = state | open_ if last == "enrol" else state - open_
            open_ = set()
        else:
            last, open_ = kind, set(photos)
    return state - open_, open_


def found_photos(folder, url):
    with Database(folder, url) as database:
        found = {int(item.medium.source) for item in Store(database).page(Filter(), limit=100_000)}
        check(database, found)
        return found


def kill_rounds(postgresql, folder, url, rounds, seed, most):
    """Kill a writer, or the server under two writers, again and again; nothing acknowledged is lost, nothing halved."""
    draw = random.Random(seed)
    with Database(folder, url) as database:
        Models(database).bind("m", SIZE, {})
    expected = set()
    for round_ in range(rounds):
        with (
            Child(change_for_ever, folder, url, 1000 * seed + 2 * round_) as one,
            Child(change_for_ever, folder, url, 1000 * seed + 2 * round_ + 1) as other,
        ):
            lines = {one: [], other: []}
            for process in (one, other):
                lines[process] += [process.stdout.readline() for _ in range(draw.randrange(4, most))]
            time.sleep(draw.random() * 0.004)  # only chooses the moment
            if round_ % 2:
                postgresql.kill()
                postgresql.start()
                # Both go on by themselves.
                for process in (one, other):
                    lines[process] += [process.stdout.readline() for _ in range(8)]
            for process in (one, other):
                process.send_signal(signal.SIGKILL)
                lines[process] += process.stdout.readlines()
        found = found_photos(folder, url)
        for process in (one, other):
            state, open_ = acknowledged(lines[process])
            expected |= state
            expected |= open_ & found
        assert found == expected, f"round {round_}"
    return expected


def test_kills_of_writers_and_server_lose_nothing(mortal_postgresql, folder):
    assert kill_rounds(mortal_postgresql, folder, mortal_postgresql.new(), 2, seed=1, most=10)


@pytest.mark.slow
def test_many_kills_of_writers_and_server_lose_nothing(mortal_postgresql, folder):
    assert kill_rounds(mortal_postgresql, folder, mortal_postgresql.new(), 40, seed=2, most=60)
