"""An index follows the store: whatever happens to the server and to the process, all that is committed arrives."""

import math
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

import service.gallery.index
from service.engines.ivf import IvfEngine
from service.engines.memory import MemoryEngine
from service.gallery.index import LocalIndex, ServerIndex, alias, collection
from service.records import Conflict, Details, Filter, IndexUnavailable, Medium, NewItem, Row
from service.storage.database import Database
from service.storage.identities import Identities
from service.storage.indexes import Indexes
from service.storage.models import Models
from service.storage.store import Store
from tests.service.rows_server import Engine, Server

SIZE = 6
EVERYTHING = Filter()


def photo(number, **details):
    drawn = np.random.default_rng(number).standard_normal(SIZE).astype(np.float32)
    return NewItem(Medium(f"{number:064d}", 640, 480, str(number)), drawn / np.linalg.norm(drawn), Details(**details))


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch):
    monkeypatch.setattr(service.gallery.index, "ROWS_AT_ONCE", 10)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    url = request.getfixturevalue("shared_url") if request.param == "postgresql" else None
    with Database(tmp_path / "gallery", url) as database:
        Models(database).bind("m", SIZE, {})
        yield database


@pytest.fixture
def server():
    return Server()


def engine_of(database, server, model="m"):
    return Engine(server, collection(database.gallery_id, model))


def index_of(database, server, model="m"):
    """What a process that starts makes."""
    return ServerIndex(database, engine_of(database, server, model), model)


def settle(index):
    """Follow and tend to the end."""
    index.follow()
    while index.tend():
        pass


def enrol(database, *numbers, **details):
    return [one.item for one in Store(database).enrol([photo(number, **details) for number in numbers])]


def require_same(database, server, model="m"):
    """The server has the rows of the store, each as it is there."""
    kept = server.collections[collection(database.gallery_id, model)]
    rows = {row.number: row for row in Store(database).rows(model)}
    assert kept.keys() == rows.keys()
    for number, row in rows.items():
        np.testing.assert_array_equal(kept[number].vector, row.vector)
        assert replace(kept[number], vector=None) == replace(row, vector=None)


def found(index, number, count=3):
    (answer,) = index.search(photo(number).vector[None], count, EVERYTHING)
    return [hit.number for hit in answer.hits]


def test_items_enrolled_edited_and_deleted_arrive_in_the_order_of_the_log(database, server):
    index = index_of(database, server)
    settle(index)
    items = enrol(database, *range(5), camera="north")
    assert index.waiting == 5
    assert index.follow()
    assert (index.waiting, index.items, len(index)) == (0, 5, 5)
    Store(database).edit(items[1].item_id, {"camera": "south", "label": "ada"})
    Store(database).delete([items[0].item_id])
    assert index.follow()
    require_same(database, server)
    assert found(index, 1)[0] == items[1].number
    assert items[0].number not in found(index, 0)


def test_a_gallery_that_was_there_before_its_server_is_filled_in_portions(database, server):
    enrol(database, *range(35))
    index = index_of(database, server)
    assert not index.follow()
    with pytest.raises(IndexUnavailable, match="being filled: 25 items wait"):
        found(index, 1)
    assert index.items == 0
    settle(index)
    require_same(database, server)
    assert found(index, 1)[0] == 2
    assert server.aliases == {alias(database.gallery_id): collection(database.gallery_id, "m")}


def test_another_process_goes_on_where_one_ended(database, server):
    items = enrol(database, *range(35))
    index_of(database, server).follow()
    kept = server.collections[collection(database.gallery_id, "m")]
    assert len(kept) == 10
    Store(database).delete([items[0].item_id, items[30].item_id])
    Store(database).edit(items[5].item_id, {"camera": "north"})
    index = index_of(database, server)
    settle(index)
    assert server.collections[collection(database.gallery_id, "m")] is kept, "filled from the beginning"
    require_same(database, server)


def test_changes_wait_while_the_server_is_away_and_arrive_when_it_is_back(database, server, caplog):
    items = enrol(database, 0, 1, 2)
    index = index_of(database, server)
    settle(index)
    server.away = True
    with pytest.raises(IndexUnavailable, match="connection refused"):
        found(index, 1)
    enrol(database, 3)
    Store(database).delete([items[0].item_id])
    assert not index.follow()
    assert not index.tend()
    assert index.waiting == 2
    assert index.trouble is not None
    assert index.items == 0
    pauses = [index.pause for _ in range(10) if not index.tend()]
    assert pauses == sorted(pauses)
    assert pauses[-1] == service.gallery.index.LONGEST_PAUSE
    server.away = False
    with pytest.raises(IndexUnavailable, match="connection refused"):
        found(index, 1)  # only `tend` asks for a server that was away
    settle(index)
    assert found(index, 3)[0] == items[-1].number + 1
    assert index.pause == service.gallery.index.PAUSE
    require_same(database, server)
    told = [record.message for record in caplog.records]
    assert len(told) == 2, told
    assert "is away, changes wait: the server at nowhere: connection refused" in told[0]
    assert "is back" in told[1]


def test_nobody_waits_long_for_a_process_that_is_at_it(database, server, monkeypatch):
    monkeypatch.setattr(service.gallery.index, "LOCK_SECONDS", 0.1)
    index = index_of(database, server)
    settle(index)
    enrol(database, 0)
    with ThreadPoolExecutor(1) as elsewhere, database.exclusive(service.gallery.index.LOCK):
        assert elsewhere.submit(index.follow).result() is False
        assert elsewhere.submit(index.tend).result() is False
    assert index.trouble is None
    assert index.follow()
    assert found(index, 0) == [1]


def test_a_server_is_not_taken_for_back_because_nothing_is_left_to_be_done(database, server):
    enrol(database, 0)
    index = index_of(database, server)
    settle(index)
    server.away = True
    with pytest.raises(IndexUnavailable):
        len(index)
    assert not index.tend()
    assert index.trouble is not None
    server.away = False
    assert not index.tend()
    assert (index.trouble, len(index)) == (None, 1)


def test_a_server_that_is_away_at_the_start_is_filled_later(database, server):
    enrol(database, *range(12))
    server.away = True
    index = index_of(database, server)
    settle(index)
    assert (index.waiting, index.items) == (12, 0)
    enrol(database, 12)
    server.away = False
    settle(index)
    require_same(database, server)


def test_a_collection_that_was_dropped_is_filled_again(database, server):
    enrol(database, *range(25))
    index = index_of(database, server)
    settle(index)
    server.collections.clear()
    with pytest.raises(IndexUnavailable, match="filled again"):
        found(index, 1)
    settle(index)
    require_same(database, server)
    server.collections.clear()  # and by a process that wants to publish
    enrol(database, 25)
    assert not index.follow()
    settle(index)
    require_same(database, server)


def test_what_is_left_of_a_former_life_of_the_gallery_is_not_taken_over(database, server):
    """Say a backup was put back: its store has no place of the collection."""
    engine = engine_of(database, server)
    engine.create()
    engine.upsert([Row(99, photo(99).vector, {"camera": "north"})])
    enrol(database, 1)
    settle(index_of(database, server))
    require_same(database, server)


@pytest.mark.parametrize("loss", ["missing", "ghost", "wrong", "all"])
def test_rows_that_differ_are_found_by_their_number_and_mended(database, server, caplog, loss):
    """Say Milvus was put back from a backup of its own."""
    enrol(database, *range(25), camera="north")
    index = index_of(database, server)
    settle(index)
    kept = server.collections[collection(database.gallery_id, "m")]
    if loss == "missing":
        del kept[3], kept[25]
    elif loss == "ghost":
        kept |= {number: replace(kept[1], number=number) for number in (90, 91)}
    elif loss == "all":
        kept.clear()
    else:
        kept[3] = replace(kept[3], facts={"camera": "south"})
        kept[4] = replace(kept[4], vector=-kept[4].vector)
        del kept[9]
    settle(index)
    assert len(kept) != 25, "compared without a reason"
    settle(index_of(database, server))
    require_same(database, server)
    assert "comparing them all" in caplog.text


def test_a_comparison_tells_what_differs_and_can_leave_it(database, server):
    enrol(database, *range(25), camera="north")
    index = index_of(database, server)
    settle(index)
    kept = server.collections[collection(database.gallery_id, "m")]
    before = dict(kept)

    def compare(mend):
        total, after = np.zeros(4, int), 0
        while after is not None:
            differences, after = index.compare(after, mend=mend)
            total += differences
        return total.tolist()

    assert compare(False) == [25, 0, 0, 0]
    kept[40], kept[41] = (replace(kept[1], number=number) for number in (40, 41))
    kept[3] = replace(kept[3], facts={"label": "ada"})
    for number in (1, 10, 11, 25):
        del kept[number]
    assert compare(False) == [25, 4, 2, 1]
    assert compare(True) == [25, 4, 2, 1]
    assert compare(False) == [25, 0, 0, 0]
    require_same(database, server)
    assert kept.keys() == before.keys()


def test_a_former_model_s_collection_goes_when_the_gallery_does(database, server):
    items = enrol(database, *range(15))
    old = index_of(database, server)
    settle(old)
    models = Models(database)
    models.prepare("n", SIZE, {})
    models.add("n", {item.number: -photo(n).vector for n, item in enumerate(items)})
    new = index_of(database, server, "n")
    while not new.follow():
        pass
    assert server.aliases[alias(database.gallery_id)] == collection(database.gallery_id, "m")
    assert found(old, 3)[0] == items[3].number
    assert len(server.collections) == 2
    models.switch("n")
    settle(new)
    assert server.aliases[alias(database.gallery_id)] == collection(database.gallery_id, "n")
    assert list(server.collections) == [collection(database.gallery_id, "n")]
    assert Indexes(database).find(collection(database.gallery_id, "m")) is None
    require_same(database, server, "n")


def test_photos_enrolled_while_the_new_collection_was_filled_are_not_lost(database, server):
    items = enrol(database, *range(15))
    settle(index_of(database, server))
    models = Models(database)
    models.prepare("n", SIZE, {})
    models.add("n", {item.number: photo(n).vector for n, item in enumerate(items)})
    new = index_of(database, server, "n")
    while not new.follow():
        pass
    (late,) = enrol(database, 15)  # by a process with the former model
    assert new.follow()  # without a vector of the new one
    models.add("n", {late.number: photo(15).vector})
    models.switch("n")
    settle(new)
    require_same(database, server, "n")


def rename_or_merge(identities, rng, store):
    """Have a label become another, of which there may be items already."""
    ids = sorted({item.details.label: item.identity_id for item in store.page(EVERYTHING, limit=1000)}.items(), key=str)
    ids = [identity_id for label, identity_id in ids if label is not None]
    if len(ids) > 1 and rng.random() < 0.3:
        identities.merge(*rng.sample(ids, 2))
    elif ids and rng.random() < 0.3:
        with suppress(Conflict):
            identities.rename(rng.choice(ids), rng.choice(["ada", "bob", "cyd"]))


@pytest.mark.parametrize("kind", ["memory", "faiss-ivf", "server"])
def test_a_filter_by_label_knows_the_names_that_identities_have_by_now(database, server, kind):
    """However many items change their label, the log has one entry for it, and none for an item."""
    if kind == "server":
        index = index_of(database, server)
    else:
        index = LocalIndex(database, MemoryEngine() if kind == "memory" else IvfEngine(), "m")
    ada = enrol(database, *range(12), label="ada")
    bob = enrol(database, *range(12, 27), label="bob")
    cyd = enrol(database, 27, label="cyd")
    settle(index)
    identities, store = Identities(database), Store(database)

    def labelled(label):
        settle(index)
        (answer,) = index.search(photo(0).vector[None], 100, Filter(labels=frozenset({label})))
        assert {hit.number for hit in answer.hits} == {item.number for item in store.page(Filter(labels={label}))}
        return len(answer.hits)

    identities.rename(bob[0].identity_id, "bo")
    assert (labelled("bob"), labelled("bo")) == (0, 15)
    identities.merge(ada[0].identity_id, bob[0].identity_id)
    assert (labelled("ada"), labelled("bo")) == (0, 27)
    # Several at once, of which the second takes away what the first one gave.
    store.edit(ada[3].item_id, {"label": "dot"})
    identities.merge(bob[0].identity_id, cyd[0].identity_id)
    identities.rename(cyd[0].identity_id, "ada")
    store.delete([bob[4].item_id])
    assert (labelled("bo"), labelled("cyd"), labelled("ada"), labelled("dot")) == (0, 0, 26, 1)
    assert "item.edit" not in [entry.kind for entry in store.operations() if entry.target == ada[0].item_id]


def test_a_space_has_an_index_of_its_own_and_a_switch_of_another_leaves_it(database, server):
    items = enrol(database, *range(15))
    texts = Models(database, "text")
    texts.bind("words", 3, {})
    drawn = np.eye(3, dtype=np.float32)
    texts.add("words", {item.number: drawn[n % 3] for n, item in enumerate(items[:12])})
    name = collection(database.gallery_id, "words", "text")
    by_text = ServerIndex(database, Engine(server, name), "words", "text")
    here = LocalIndex(database, MemoryEngine(), "words", "text")
    by_look = index_of(database, server)
    for index in (by_text, here, by_look):
        settle(index)
    models = Models(database)
    models.prepare("n", SIZE, {})
    models.add("n", {item.number: -photo(n).vector for n, item in enumerate(items)})
    filled, here._fill = [], lambda: filled.append("again")
    models.switch("n")
    new = index_of(database, server, "n")
    for index in (new, by_text, here):
        settle(index)
    assert not filled
    assert server.collections.keys() == {name, collection(database.gallery_id, "n")}
    assert server.aliases == {
        alias(database.gallery_id): collection(database.gallery_id, "n"),
        alias(database.gallery_id, "text"): name,
    }
    assert (len(new), len(by_text), len(here), by_text.items) == (15, 12, 12, 12)
    for index in (by_text, here):
        (answer,) = index.search(drawn[1:2], 4, EVERYTHING)
        assert [hit.number for hit in answer.hits] == [items[n].number for n in (1, 4, 7, 10)]
    Store(database).delete([items[1].item_id])
    texts.prepare("other words", 3, {})
    settle(by_text)
    assert sorted(server.collections[name]) == [item.number for item in items[:12] if item != items[1]]


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_whatever_answers_are_lost_everything_arrives_once(database, server, seed):
    """Processes come and go at any time, and so does the server, after what it was asked for or before."""
    rng = random.Random(seed)
    store, index, alive = Store(database), index_of(database, server), {}
    for step in range(120):
        act = rng.randrange(8)
        if act <= 2:
            for item in enrol(database, *range(3 * step, 3 * step + rng.randrange(4)), camera=rng.choice("ns")):
                alive[item.item_id] = item
        elif act == 3 and alive:
            gone = rng.sample(sorted(alive), min(len(alive), 2))
            store.delete(gone)
            for item_id in gone:
                del alive[item_id]
        elif act == 4 and alive:
            store.edit(rng.choice(sorted(alive)), {"label": rng.choice(["ada", "bob", None])})
            rename_or_merge(Identities(database), rng, store)
        elif act == 5:
            server.away = rng.random() < 0.3
        elif act == 6:
            index = index_of(database, server)
        server.answers = rng.randrange(1, 6) if rng.random() < 0.3 else math.inf
        for _ in range(rng.randrange(3)):
            rng.choice([index.follow, index.tend])()
    server.away, server.answers = False, math.inf
    settle(index)
    require_same(database, server)
    assert index.waiting == 0
    assert len(index) == len(alive) > 0


def test_an_index_in_memory_follows_what_other_processes_do(database):
    index, shared = (LocalIndex(database, MemoryEngine(), "m") for _ in range(2))
    shared._shared = True
    index.follow()
    shared.follow()
    items = enrol(database, *range(25))
    Store(database).delete([items[4].item_id])
    assert found(shared, 3)[0] == items[3].number
    assert len(index) == 0
    assert index.follow()
    assert (len(index), index.items, index.waiting) == (24, 24, 0)
    assert found(index, 4) == found(shared, 4)
    assert items[4].number not in found(index, 4)


def test_an_index_in_memory_is_filled_again_when_the_gallery_comes_back_to_its_model(database):
    items = enrol(database, *range(12))
    index = LocalIndex(database, MemoryEngine(), "m")
    index.follow()
    models = Models(database)
    for model, known in (("n", items), ("m", None)):
        known = known or Store(database).page(EVERYTHING)
        models.prepare(model, SIZE, {})
        models.add(model, {item.number: photo(int(item.medium.source)).vector for item in known})
        models.switch(model)
        if model == "n":
            enrol(database, 12)
            Store(database).delete([items[0].item_id])
    index.follow()
    assert len(index) == 12
    assert found(index, 12)[0] == 13
    assert 1 not in found(index, 0)
