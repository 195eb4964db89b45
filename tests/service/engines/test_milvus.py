"""The engine on a Milvus server, beyond what every engine must do: names, crowds, portions, trouble, several owners."""

import logging
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks import milvus as benchmark
from benchmarks.evaluate import make_sides
from service.engines import milvus
from service.engines.memory import MemoryEngine
from service.engines.milvus import MilvusEngine
from service.fields import FIELDS, MOST_ATTRIBUTES, Filter
from service.records import IndexLost, IndexUnavailable, Row
from tests.waiting import DEADLINE, wait_until

RELOAD_SECONDS = 90
EVERYTHING = Filter()
INJECTED = '"] or number > 0 or camera in ["'
NAMES = [
    "gate",
    "o'brien",
    'the "north" gate',
    "back\\slash",
    "\\",
    '\\"',
    INJECTED,
    "' or 1 == 1 --",
    "{camera}",
    "%",
    "like %",
    "%41",
    "A",
    "=",
    "",
    " ",
    "two\nlines",
    "tab\t",
    "nul\0",
    "\x7f",
    "Südtor 7",
    "Su\u0308dtor 7",
    "門",
    "📷👩‍🚀",
    "\ud800",
    "null",
    "None",
    "long" * 50,
]


def unit(values):
    values = np.asarray(values, np.float64)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def make_vectors(count, size=8, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(count, size)))


def make_rows(count, size=8, seed=0):
    """Rows of three cameras, or none, with rising times."""
    vectors = make_vectors(count, size, seed)
    known = [
        {"camera": (None, "a", "b", "c")[i % 4], "captured_at": None if i % 5 == 0 else i - 20} for i in range(count)
    ]
    return [
        Row(i, vectors[i], {name: fact for name, fact in known[i].items() if fact is not None}) for i in range(count)
    ]


def facts(rows):
    return [(row.number, row.vector.tolist(), row.facts) for row in rows]


def after_reloading(ask):
    """What an engine answers when its server has loaded its rows again; until then it may only say that it is away."""
    until = time.monotonic() + RELOAD_SECONDS
    while True:
        try:
            return ask()
        except IndexUnavailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@pytest.fixture(params=["milvus", "milvus-lite"])
def server(request, milvus_server):
    return milvus_server(request.param)


@pytest.fixture
def open_engine(server):
    """A function that opens an engine on the server; all collections are dropped in the end."""
    engines = []

    def open_engine(collection="gallery_1", dimension=8, create=True, **options):
        engine = MilvusEngine(server.uri, collection, dimension, **options)
        engines.append(engine)
        if create:
            wait_until(lambda: is_made(engine))
        return engine

    def is_made(engine):
        try:
            engine.create()
        except IndexUnavailable:  # a server may close a connection on which a busy machine was silent
            return False
        return True

    yield open_engine
    server.start()
    for engine in engines:
        engine.drop()
        engine.close()


# ---- without a server ----


def test_without_pymilvus_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)  # as if not installed
    with pytest.raises(ValueError, match="the milvus engine needs pymilvus, which is not installed: pip install"):
        MilvusEngine("http://localhost:19530", "gallery", 8)


@pytest.mark.parametrize("uri", ["", "localhost:19530", "gallery.db", "ftp://localhost", "http://", "http://a:b"])
def test_a_uri_of_another_form_is_refused(uri):
    with pytest.raises(ValueError, match=r"the Milvus URI is not of the form http\(s\)://host\[:port\]\[/database\]$"):
        MilvusEngine(uri, "gallery", 8)


@pytest.mark.parametrize("name", ["", "1st", "a-b", "ä", "a b", "a\n"])
def test_a_collection_of_another_name_is_refused(name):
    with pytest.raises(ValueError, match=r"the collection's name is .*; expected letters, digits and underscores"):
        MilvusEngine("http://localhost:19530", name, 8)


def every_call(engine):
    row = make_rows(1)[0]
    return {
        "upsert": lambda: engine.upsert([row]),
        "remove": lambda: engine.remove([1]),
        "search": lambda: engine.search(row.vector[None], 1, EVERYTHING),
        "numbers": engine.numbers,
        "len": lambda: len(engine),
        "rows": lambda: list(engine.rows()),
        "point": lambda: engine.point("live"),
    }


def test_a_server_that_is_away_is_named_without_secrets_and_at_once(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = MilvusEngine(f"http://ada:secret@127.0.0.1:{port}/people", "gallery", 8, token="hidden")
    calls = every_call(engine) | {name: getattr(engine, name) for name in ("create", "exists", "drop")}
    for name, call in {**calls, "drop_others": lambda: engine.drop_others("gallery")}.items():
        with pytest.raises(IndexUnavailable) as caught:
            call()
        message = str(caught.value)
        assert message.startswith(
            f"the Milvus server at http://127.0.0.1:{port}/people is not ready: failed to conn"
        ), name
        assert "\n" not in message
        assert not {"secret", "ada", "hidden"} & set(message.replace(":", " ").replace("@", " ").split())
    assert capfd.readouterr() == ("", "")


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(milvus, "CONNECT_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        engine = MilvusEngine(f"http://127.0.0.1:{silent.getsockname()[1]}", "gallery", 8)
        with pytest.raises(IndexUnavailable):
            len(engine)


def test_bad_rows_and_queries_are_refused_without_a_server():
    engine = MilvusEngine("http://127.0.0.1:9", "gallery", 8)
    vector = make_vectors(1)[0]
    with pytest.raises(ValueError, match="item 7: the label has 65536 bytes, encoded; expected at most 65535"):
        engine.upsert([Row(3, vector), Row(7, vector, {"label": "x" * 65_535})])
    with pytest.raises(ValueError, match="item 7: the camera has 65539 bytes, encoded; expected at most 65535"):
        engine.upsert([Row(7, vector, {"camera": "ä" * 10_923})])
    with pytest.raises(ValueError, match=r"the queries have shape \(1, 7\); expected \(n, 8\)"):
        engine.search(make_vectors(1, 7), 1, EVERYTHING)


def test_names_are_told_apart_and_nothing_of_them_ends_a_string():
    encoded = [milvus._encoded(name) for name in [None, *NAMES]]
    assert len(set(encoded)) == len(encoded)
    assert not set("".join(encoded)) & set("\"'\\ {}\n\0")
    assert "".join(encoded).isascii()
    assert [milvus._decoded(text) for text in encoded] == [None, *NAMES]


@pytest.mark.parametrize(("led_to", "fetched"), [(4, 0), (3, 1)])
def test_rows_are_fetched_only_where_an_index_led_to_too_few(monkeypatch, led_to, fetched):
    engine, exact, rows = MilvusEngine("http://127.0.0.1:9", "gallery", 8, index="hnsw"), MemoryEngine(), make_rows(4)
    exact.upsert(rows)
    queries = make_vectors(3, seed=1)
    right = exact.search(queries, 9, EVERYTHING)
    asked = []

    def pages(*options):
        asked.append(options)
        return [[{"number": row.number, "vector": row.vector} for row in rows]]

    monkeypatch.setattr(engine, "_made", ("HNSW", 0))
    monkeypatch.setattr(engine, "_count", lambda expression: 4)
    monkeypatch.setattr(engine, "_best", lambda *options: [right[0].hits[:led_to], *(one.hits for one in right[1:])])
    monkeypatch.setattr(engine, "_pages", pages)
    assert engine.search(queries, 9, EVERYTHING) == right
    assert len(asked) == fetched


# ---- on servers ----


def facts_of(name):
    """A name in every field that takes one, reversed in labels, and as an attribute's name and text."""
    known = {field.name: name for field in FIELDS if field.kind == "name"}
    return {**known, "label": name[::-1], "attributes": {name: name, f"not {name}": "a"}}


@pytest.mark.milvus
def test_odd_names_are_kept_and_each_finds_itself_alone(open_engine):
    engine = open_engine()
    names = [None, *NAMES]
    vectors = make_vectors(len(names))
    rows = [Row(i, vectors[i], {} if name is None else facts_of(name)) for i, name in enumerate(names)]
    engine.upsert(rows)
    assert facts(row for page in engine.rows() for row in page) == facts(rows)
    asked = vectors[:1]
    for row, name in zip(rows[1:], NAMES, strict=True):
        for field in FIELDS:
            if field.kind == "time":
                continue
            one, none = (
                Filter(**{key: {name: {name}} if field.kind == "attributes" else {row.facts[field.name]}})
                for key in field.asked
            )
            assert [hit.number for hit in engine.search(asked, 99, one)[0].hits] == [row.number], (field.name, name)
            others = engine.search(asked, 99, none)[0]
            assert {hit.number for hit in others.hits} == engine.numbers() - {row.number}
    assert engine.search(asked, 99, Filter(cameras=frozenset(NAMES)))[0].candidates == len(NAMES)
    assert engine.search(asked, 99, Filter(exclude_cameras=frozenset(NAMES)))[0].candidates == 1


@pytest.mark.milvus
def test_the_longest_name_and_thousands_of_names(open_engine):
    engine, vectors = open_engine(), make_vectors(2)
    longest = "x" * 65_534
    most = {f"{i} of {'門' * 190}": "門" * 200 for i in range(MOST_ATTRIBUTES)}
    engine.upsert(
        [
            Row(1, vectors[0], {"camera": longest, "label": longest}),
            Row(2, vectors[1], {"camera": "y", "attributes": most}),
        ]
    )
    kept = [row.facts for page in engine.rows() for row in page]
    assert [(facts["camera"], facts.get("attributes")) for facts in kept] == [(longest, None), ("y", most)]
    many = frozenset(f"camera {i} of 門" for i in range(5000))
    for cameras, number in ((many | {longest}, 1), (many | {"y"}, 2)):
        found = engine.search(vectors[:1], 9, Filter(cameras=cameras))[0]
        assert [hit.number for hit in found.hits] == [number]
    assert engine.search(vectors[:1], 9, Filter(exclude_cameras=many))[0].candidates == 2


@pytest.mark.milvus
def test_times_from_the_first_to_the_last(open_engine):
    engine, vector = open_engine(), make_vectors(1)[0]
    times = [None, -(2**63) + 1, -62_135_596_800_000_000, 0, 253_402_300_799_999_999, 2**63 - 1]
    rows = [Row(i, vector, {} if time is None else {"captured_at": time}) for i, time in enumerate(times)]
    engine.upsert(rows)
    assert facts(row for page in engine.rows() for row in page) == facts(rows)


@pytest.mark.milvus
def test_thousands_of_rows_in_several_segments_are_found_as_in_memory(open_engine, server, monkeypatch):
    """Neither an index for growing segments nor one of sealed segments may make the search approximate."""
    from pymilvus import MilvusClient

    monkeypatch.setattr(milvus, "READ_SECONDS", DEADLINE)  # a busy machine may take longer to hand segments over
    engine, exact = open_engine("gallery_1", 32), MemoryEngine()
    rows = make_rows(12_000, 32)
    client = MilvusClient(server.uri, dedicated=True)
    for start in range(0, 12_000, 4000):
        for filled in (engine, exact):
            filled.upsert(rows[start : start + 4000])
            filled.remove(range(start, start + 4000, 7))
        if start < 8000:
            client.flush("gallery_1", timeout=60)
    client.close()
    queries = make_vectors(20, 32, seed=1)
    for chosen in (EVERYTHING, Filter(cameras=frozenset("a")), Filter(exclude_cameras=frozenset("b"))):
        assert engine.search(queries, 10, chosen) == exact.search(queries, 10, chosen)
    assert len(engine) == len(exact)
    assert engine.numbers() == exact.numbers()


@pytest.mark.milvus
def test_a_crowd_hides_no_better_row(open_engine, monkeypatch):
    """Of rows as good as the last candidate those with the smallest numbers count, and the server gives any."""
    monkeypatch.setattr(milvus, "SPARE", 1)
    engine, exact = open_engine(), MemoryEngine()
    crowd, others = make_vectors(1)[0], make_vectors(50, seed=1)
    rows = [Row(1000 - i, crowd) for i in range(300)]
    rows += [Row(2000 + i, others[i], {"camera": "a"}) for i in range(50)]
    for filled in (engine, exact):
        filled.upsert(rows)
    queries = np.stack([crowd, others[0], -crowd])
    for limit in (16_384, 100):  # the second is less than the crowd, so all rows are looked at
        monkeypatch.setattr(milvus, "MOST_ROWS", limit)
        for count in (1, 5, 320):
            assert engine.search(queries, count, EVERYTHING) == exact.search(queries, count, EVERYTHING)
    chosen = Filter(cameras=frozenset("a"))
    assert engine.search(queries, 200, chosen) == exact.search(queries, 200, chosen)


@pytest.mark.milvus
def test_small_portions_make_the_same(open_engine, monkeypatch):
    monkeypatch.setattr(milvus, "MESSAGE_BYTES", 1500)
    monkeypatch.setattr(milvus, "MOST_QUERIES", 3)
    engine, exact, rows = open_engine(), MemoryEngine(), make_rows(200)
    for filled in (engine, exact):
        filled.upsert(rows)
        filled.remove(range(0, 200, 3))
    kept = [row for row in rows if row.number % 3]
    pages = list(engine.rows())
    assert facts(row for page in pages for row in page) == facts(kept)
    assert len(pages) > 2
    assert facts(row for page in engine.rows(after=100) for row in page) == facts(
        row for row in kept if row.number > 100
    )
    queries = make_vectors(7, seed=1)
    for chosen in (EVERYTHING, Filter(cameras=frozenset("a"))):
        assert engine.search(queries, 10, chosen) == exact.search(queries, 10, chosen)


@pytest.mark.milvus
@pytest.mark.parametrize("consistency", ["Session", "Bounded", "Eventually"])
def test_weaker_consistency_finds_the_rows_in_the_end(open_engine, consistency):
    engine, rows = open_engine(consistency=consistency), make_rows(10)
    engine.upsert(rows)
    wait_until(lambda: len(engine) == 10)
    assert [hit.number for hit in engine.search(rows[3].vector[None], 1, EVERYTHING)[0].hits] == [3]


@pytest.mark.milvus
def test_the_benchmark_finds_what_memory_finds(server, capsys):
    assert benchmark.main(["--uri", server.uri, "--rows", "300", "--dim", "8", "--rounds", "1"]) == 0
    assert "answers of flat, Strong: those of memory, all" in capsys.readouterr().out


@pytest.mark.milvus
def test_two_owners_see_each_others_changes(open_engine):
    one, other, rows = open_engine(), open_engine(), make_rows(10)
    one.upsert(rows)
    assert len(other) == 10
    other.remove([3])
    assert [hit.number for hit in one.search(rows[3].vector[None], 10, EVERYTHING)[0].hits].count(3) == 0
    one.upsert(rows[3:4])
    assert other.search(rows[3].vector[None], 1, EVERYTHING)[0].hits[0].number == 3


@pytest.mark.milvus
def test_candidates_agree_with_the_hits_when_rows_go_in_between(open_engine, monkeypatch):
    engine, rows = open_engine(), make_rows(5)
    engine.upsert(rows)
    query = rows[0].vector[None]
    for counted in (0, 99):
        monkeypatch.setattr(engine, "_count", lambda expression, counted=counted: counted)
        assert [engine.search(query, count, EVERYTHING)[0].candidates for count in (3, 9)] == [max(counted, 3), 5]


@pytest.mark.milvus
def test_a_collection_that_is_not_there_is_lost_and_not_made(open_engine):
    engine = open_engine()
    engine.upsert(make_rows(3))
    assert engine.exists()
    open_engine(create=False).drop()  # behind its back
    for name, call in every_call(engine).items():
        with pytest.raises(IndexLost, match="^the Milvus server at http://127.0.0.1:[0-9]+ has no gallery_1$"):
            call()
        assert not engine.exists(), name
    engine.drop()
    engine.create()
    assert len(engine) == 0
    engine.upsert(make_rows(3))
    assert len(engine) == 3


@pytest.mark.milvus
def test_create_keeps_what_is_there_and_refuses_another_size(open_engine):
    engine = open_engine()
    engine.upsert(make_rows(3))
    engine.create()
    assert len(engine) == 3
    with pytest.raises(ValueError, match=r"gallery_1 has vectors of size \[8\]; expected \[9\]"):
        open_engine(dimension=9)


@pytest.mark.milvus
def test_an_alias_moves_and_former_collections_go(open_engine, server):
    from pymilvus import MilvusClient

    old, new, foreign = (open_engine(name) for name in ("gallery_1", "gallery_2", "other_1"))
    client = MilvusClient(server.uri, dedicated=True)
    for engine in (old, new, new, old, new):
        engine.point("live")
        assert client.describe_alias("live")["collection_name"] == engine._collection
    old.point("before")
    client.close()
    assert new.drop_others("gallery_") == ["gallery_1"]
    assert [engine.exists() for engine in (old, new, foreign)] == [False, True, True]
    new.drop()
    foreign.point("live")  # which no collection has any more


@pytest.mark.milvus
def test_a_collection_that_is_not_loaded_is_loaded(open_engine, server):
    from pymilvus import MilvusClient

    engine, rows = open_engine(), make_rows(10)
    engine.upsert(rows)
    client = MilvusClient(server.uri, dedicated=True)
    client.release_collection("gallery_1")
    client.close()
    found = after_reloading(lambda: engine.search(rows[3].vector[None], 1, EVERYTHING)[0])
    assert found.hits[0].number == 3


def tasks_of(pid):
    """The files that tell the state of the threads of a process."""
    return Path(f"/proc/{pid}/task").glob("*/stat")


@pytest.mark.milvus
def test_a_server_that_hangs_is_not_waited_for_and_goes_on(open_engine, server, monkeypatch):
    engine = open_engine()
    engine.upsert(make_rows(10))
    assert len(engine) == 10
    for name in ("CONNECT_SECONDS", "READ_SECONDS", "WRITE_SECONDS"):
        monkeypatch.setattr(milvus, name, 0.3)  # a real server that is stopped for some seconds ends itself
    os.kill(server.pid, signal.SIGSTOP)
    try:
        # Its threads stop one after the other, and one that is not there yet may still answer.
        wait_until(lambda: {task.read_text().rpartition(")")[2].split()[0] for task in tasks_of(server.pid)} == {"T"})
        for name, call in every_call(engine).items():
            with pytest.raises(IndexUnavailable) as caught:
                call()
            assert "\n" not in str(caught.value), name
    finally:
        os.kill(server.pid, signal.SIGCONT)
    monkeypatch.undo()
    assert after_reloading(lambda: len(engine)) == 10


@pytest.mark.milvus
def test_a_killed_server_keeps_all_rows_and_is_found_again(open_engine, server):
    engine, exact, rows = open_engine(), MemoryEngine(), make_rows(500)
    queries = make_vectors(5, seed=1)
    for filled in (engine, exact):
        filled.upsert(rows[:400])
        filled.remove(range(0, 400, 3))
    server.kill()
    for call in every_call(engine).values():
        with pytest.raises(IndexUnavailable):
            call()
    server.start()
    assert after_reloading(lambda: engine.search(queries, 10, EVERYTHING)) == exact.search(queries, 10, EVERYTHING)
    assert engine.numbers() == exact.numbers()
    for filled in (engine, exact):
        filled.upsert(rows[300:])
        filled.remove(range(0, 500, 2))
    assert engine.search(queries, 10, EVERYTHING) == exact.search(queries, 10, EVERYTHING)
    assert len(engine) == len(exact)


# ---- indexes that miss some ----


@pytest.mark.milvus
@pytest.mark.parametrize(
    ("index", "expected", "made"), [("hnsw", 0, "HNSW"), ("ivf", 6000, "IVF_FLAT"), ("auto", 200_000, "HNSW")]
)
def test_an_approximate_index_finds_nearly_all_with_the_same_scores(milvus_server, index, expected, made):
    engine = MilvusEngine(milvus_server("milvus").uri, f"approximate_{index}", 32, index=index, expected=expected)
    engine.drop()
    engine.create()
    try:
        asked, gallery = make_sides(50, 6000, 32)  # as photos of individuals lie
        drawn = zip(make_rows(6000, 1), gallery.features.numpy(), strict=True)
        rows, memory = [replace(row, vector=vector) for row, vector in drawn], MemoryEngine()
        for kept in (engine, memory):
            kept.upsert(rows)
        client = engine._connected()
        client.flush(engine._collection)  # only rows of closed segments are in the index
        wait_until(lambda: client.describe_index(engine._collection, "vector")["pending_index_rows"] == 0)
        client.refresh_load(engine._collection)
        gone = range(0, 6000, 7)
        for kept in (engine, memory):
            kept.remove(gone)
        assert engine._kind()[0] == made
        queries = asked.features.numpy()
        for chosen in (EVERYTHING, Filter(cameras={"a"}), Filter(cameras={"a"}, since=at(1000), until=at(1100))):
            found, exact = engine.search(queries, 10, chosen), memory.search(queries, 10, chosen)
            assert [one.candidates for one in found] == [one.candidates for one in exact]
            met = [len({*one.hits} & {*other.hits}) for one, other in zip(found, exact, strict=True)]
            assert sum(met) >= 0.95 * 500
            assert not {hit.number for one in found for hit in one.hits} & {*gone}
        assert 0.95 <= engine.recall(np.array([row.vector for row in rows[1:300:7]])) <= 1
    finally:
        engine.drop()
        engine.close()


def at(microseconds):
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def test_a_flat_collection_has_no_recall_to_measure():
    assert MilvusEngine("http://localhost:1", "gallery", 8).recall(make_vectors(3)) is None
