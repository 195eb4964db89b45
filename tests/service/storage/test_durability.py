"""The store keeps what it acknowledged, once and whole, through many threads, kills and full disks."""

import hashlib
import json
import os
import random
import resource
import signal
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from service.records import Details, Filter, Medium, NewItem
from service.storage.database import Database
from service.storage.models import Models
from service.storage.store import Store
from tests.service.forked import Child

NAMES = ["plain", "Åsa", "日本", "x'; DROP TABLE items;--"]
SIZE = 8


def vector(number):
    drawn = np.random.default_rng(number).standard_normal(SIZE).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


def photo(number, **details):
    """Photo `number`, always the same."""
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    return NewItem(Medium(sha256, 640, 480, str(number)), vector(number), Details(**details))


def test_threads_share_a_store(tmp_path):
    """Each of 8 threads enrols the same 30 photos in its own order, and 20 of its own, and deletes half of those."""
    database = Database(tmp_path)
    Models(database).bind("m", SIZE, {})
    store = Store(database)

    def work(thread):
        shared = list(range(30))
        random.Random(thread).shuffle(shared)
        created = 0
        for n in shared:
            [enrolled] = store.enrol([photo(n, key=str(n), label=f"L{n % 3}")])
            created += enrolled.created
            store.edit(enrolled.item.item_id, {"camera": f"c{thread}"})
        own = [enrolled.item for enrolled in store.enrol([photo(1000 * (thread + 1) + n) for n in range(20)])]
        assert len(store.delete([item.item_id for item in own[::2]])) == 10
        for item in own:
            assert (item.number in store.get_many([item.number])) == (item in own[1::2])
        return created

    def look(_):
        for _ in range(50):
            page = store.page(Filter(), limit=1000)
            assert len({item.medium.sha256 for item in page}) == len(page)
            assert all(item.identity_id for item in page if item.details.label)

    with ThreadPoolExecutor(10) as pool:
        looks = pool.map(look, range(2))
        created = sum(pool.map(work, range(8)))
        list(looks)
    assert created == 30
    kept = {1000 * (thread + 1) + n for thread in range(8) for n in range(1, 20, 2)}
    assert {int(item.medium.source) for item in store.page(Filter(), limit=1000)} == kept | set(range(30))
    database.close()
    check_file(tmp_path, kept | set(range(30)))


def check_file(folder, photos):
    """The closed gallery holds these photos and nothing of others, and its log tells how they came to be."""
    with closing(sqlite3.connect(folder / "gallery.db")) as connection:

        def ask(sql):
            return connection.execute(sql).fetchall()

        assert ask("PRAGMA integrity_check") == [("ok",)]
        assert ask("PRAGMA foreign_key_check") == []
        assert sorted(int(source) for (source,) in ask("SELECT source FROM media")) == sorted(photos)
        assert ask("SELECT count(*), count(DISTINCT media_number) FROM items") == [(len(photos), len(photos))]
        assert ask("SELECT owner_number FROM vectors ORDER BY 1") == ask("SELECT number FROM items ORDER BY 1")
        told = {}
        for kind, target, after in ask("SELECT kind, target, after FROM operations ORDER BY seq"):
            if kind == "item.delete":
                del told[target]
            elif kind.startswith("item"):
                assert (target in told) == (kind == "item.edit")
                state = json.loads(after)
                told[target] = (state["number"], state["label"], state["camera"])
        kept = ask(
            "SELECT item_id, i.number, name, camera FROM items i LEFT JOIN identities d ON d.number = identity_number"
        )
        assert {item_id: tuple(state) for item_id, *state in kept} == told


def say(**words):
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def change_for_ever(folder, seed):
    """A child: change the gallery at random, saying before each change what it will be, and after it what it gave."""
    draw = random.Random(seed)
    say(opens=True)
    database = Database(folder)
    Models(database).bind("m", SIZE, {})
    store = Store(database)
    there = {int(item.medium.source): item for item in store.page(Filter(), limit=100_000)}
    unused = seed * 10_000
    while True:
        kind = draw.choice(["enrol", "enrol", "edit", "delete"]) if there else "enrol"
        some = draw.sample(sorted(there), min(len(there), draw.randint(1, 4)))
        words = {"label": draw.choice(NAMES), "camera": draw.choice([None, *NAMES])}
        if kind == "enrol":
            new = range(unused, unused := unused + draw.randint(1, 8))
            say(kind=kind, photos=[*some[:1], *new], **words)
            for enrolled in store.enrol([photo(n, key=str(n), **words) for n in (*some[:1], *new)]):
                there[int(enrolled.item.medium.source)] = enrolled.item
            say(numbers=[there[n].number for n in new])
        elif kind == "edit":
            say(kind=kind, photos=some[:1], **words)
            store.edit(there[some[0]].item_id, words)
            say(numbers=[])
        else:
            say(kind=kind, photos=some)
            store.delete([there.pop(n).item_id for n in some])
            say(numbers=[])


def changed(state, kind, photos, label=None, camera=None):
    """What the photos of a gallery, {photo: (label, camera)}, are after a change."""
    if kind == "delete":
        return {n: words for n, words in state.items() if n not in photos}
    if kind == "enrol":
        photos = [n for n in photos if n not in state]
    return {**state, **dict.fromkeys(photos, (label, camera))}


def kill_rounds(folder, rounds, seed):
    """Kill a process that changes the gallery, again and again, and compare with what it had acknowledged each time."""
    draw = random.Random(seed)
    state, numbers, highest = {}, {}, 0
    for round_ in range(rounds):
        with Child(change_for_ever, folder, seed * 1000 + round_) as process:
            lines = [process.stdout.readline() for _ in range(draw.choice([1, draw.randrange(2, 150)]))]
            time.sleep(draw.random() * 0.004)  # only chooses the moment
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        said = [json.loads(line) for line in lines[1:] if line.endswith("\n")]
        for intent, done in zip(said[::2], said[1::2], strict=False):
            if intent["kind"] == "enrol":
                new = [n for n in intent["photos"] if n not in state]
                numbers.update(zip(new, done["numbers"], strict=True))
                assert all(number > highest for number in done["numbers"])
                highest = max(numbers.values())
            state = changed(state, **intent)
        possible = [state, changed(state, **said[-1])] if len(said) % 2 else [state]
        with Database(folder) as database:
            store = Store(database)
            page = store.page(Filter(), limit=100_000)
            found = {int(item.medium.source): (item.details.label, item.details.camera) for item in page}
            assert found in possible, f"round {round_}"
            state = found
            for item in page:
                assert numbers.setdefault(int(item.medium.source), item.number) == item.number
            highest = max(numbers.values(), default=0)
            assert [row.number for row in store.rows("m")] == [item.number for item in page]
            for row, item in zip(store.rows("m"), page, strict=True):
                np.testing.assert_array_equal(row.vector, vector(int(item.medium.source)))
        check_file(folder, state)
    return state


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path):
    assert kill_rounds(tmp_path, rounds=2, seed=1)


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path):
    assert kill_rounds(tmp_path, rounds=100, seed=2)


def fill_the_disk(folder, limit):
    """A child: enrol until the file may not grow, then again when it may."""
    database = Database(folder)
    Models(database).bind("m", SIZE, {})
    store = Store(database)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    count = 0
    try:
        while True:
            store.enrol([photo(n, label="Åsa") for n in range(count, count + 10)])
            count += 10
    except OSError as error:
        say(count=count, error=str(error), still=store.count(Filter()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    store.enrol([photo(n) for n in range(count, count + 10)])
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("limit", [1_000_000, 5_000_000])  # the log of changes meets it first, and the gallery itself
def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path, limit):
    with Child(fill_the_disk, tmp_path, limit) as process:
        said = json.loads(process.stdout.read())
    assert process.returncode == -signal.SIGKILL
    count = said["count"]
    assert count > 50
    assert said["still"] == count
    assert str(tmp_path / "gallery.db") in said["error"]
    assert said["error"].endswith("nothing was changed")
    assert "\n" not in said["error"]
    with Database(tmp_path) as database:
        store = Store(database)
        found = [int(item.medium.source) for item in store.page(Filter(), limit=100_000)]
    assert found == list(range(count + 10))
    check_file(tmp_path, found)
