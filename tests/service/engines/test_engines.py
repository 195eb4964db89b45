"""What every search engine must do: the same cases on each, against a slow oracle that reads `Filter` row by row."""

import logging
import math
import re
import sys
from datetime import UTC, datetime, timedelta, timezone
from functools import cache

import numpy as np
import pytest
import torch

from service.engines import compressed, ivf, memory
from service.engines.ivf import IvfEngine
from service.engines.memory import MemoryEngine
from service.engines.milvus import MilvusEngine
from service.fields import FIELDS, Filter
from service.records import Row

SIZE = 12
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
SECOND = 1_000_000  # microseconds
WORDS = ("gate", "Südtor 7", "o'brien\"; DROP TABLE items --", "門", "gate ", "Ada", "ada", "Ä\u0308", "")
ATTRIBUTES = ("coat", 'we"ird\\=', "門")
EVERYTHING = Filter()


class FakeFaiss:
    """FAISS's exact search on a GPU, with its limit, on the CPU; remembers the rows that it was given."""

    METRIC_INNER_PRODUCT = 0

    def __init__(self):
        self.given = []

    def StandardGpuResources(self):
        return self

    def knn_gpu(self, resources, queries, rows, k, metric, device):
        assert resources is self
        assert metric == self.METRIC_INNER_PRODUCT
        assert device == rows.get_device()
        assert 1 <= k <= min(2048, len(rows))
        assert rows.is_contiguous()
        assert queries.is_contiguous()
        self.given.append(rows.clone())
        best = (queries @ rows.T).topk(k, dim=1)
        return best.values, best.indices


@pytest.fixture
def faiss(monkeypatch):
    fake = FakeFaiss()
    monkeypatch.setattr(memory, "_gpu_faiss", lambda device: fake)
    return fake


PIECES = {"TILE_VALUES": 84, "KNN_VALUES": 84, "BLOCK_VALUES": 150, "PAIR_VALUES": 40, "KNN_SPARE": 1, "GROUP": 3}
ALL_LISTS = {"FIRST_ROWS": 10, "FIRST_PROBES": 1000, "WORTH": math.inf, "SPARE": 1, "RECALL": 0}


class OnServer:
    """A `MilvusEngine` with the dimension of the first rows or queries, emptied of what other tests left there."""

    def __init__(self, uri, index):
        self._uri, self._index, self._engine = uri, index, None

    def _of(self, size):
        if self._engine is None:
            key = self._uri, self._index, size
            if key not in OPENED:
                OPENED[key] = MilvusEngine(self._uri, f"contract_{self._index}_{size}", size, index=self._index)
                OPENED[key].create()
            self._engine = OPENED[key]
            self._engine.remove(self._engine.numbers())
        return self._engine

    def upsert(self, rows):
        if rows:
            self._of(rows[0].vector.size).upsert(rows)

    def search(self, vectors, count, chosen):
        return self._of(vectors.shape[-1]).search(vectors, count, chosen)

    def remove(self, numbers):
        if self._engine is not None:
            self._engine.remove(numbers)

    def numbers(self):
        return set() if self._engine is None else self._engine.numbers()

    def __len__(self):
        return 0 if self._engine is None else len(self._engine)


OPENED = {}
HERE = [
    "memory",
    "memory in pieces",
    "memory gathering",
    "memory compressed",
    "memory with FAISS",
    "memory with FAISS in pieces",
    "ivf",
    "ivf in all lists",
    pytest.param("cuda", marks=pytest.mark.gpu),
]
SERVERS = [
    pytest.param(kind, marks=pytest.mark.milvus) for kind in ("milvus", "milvus hnsw", "milvus ivf", "milvus-lite")
]


@pytest.fixture(params=[*HERE, *SERVERS])
def engine(request, monkeypatch):
    """An empty engine; with few rows, or where it looks into all lists, `IvfEngine` has to be exact."""
    if "milvus" in request.param:
        kind, _, index = request.param.partition(" ")  # with few rows, these have to be exact
        return OnServer(request.getfixturevalue("milvus_server")(kind).uri, index or "flat")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA GPU")
    if "FAISS" in request.param:
        request.getfixturevalue("faiss")
    changes = {memory: {}, ivf: {}, compressed: {}}
    if "compressed" in request.param:
        pytest.importorskip("faiss")
        changes[memory] = {name: 10**9 for name in ("COMPRESSED_QUERIES", "COMPRESSED_COUNT")} | {
            "COMPRESSED_ROWS": 1,
            "SPARSE": 0,
        }
        changes[compressed] = {"SPARE": 1, "MOST_CANDIDATES": 10**9, "PART_VALUES": 84, "ROWS_A_THREAD": 1}
    if "pieces" in request.param:
        changes[memory] = PIECES
    if "gathering" in request.param:
        changes[memory] = {"SPREAD": 0, "LONG_ROW": 1}
    if "lists" in request.param:
        changes[ivf] = ALL_LISTS
    for module, constants in changes.items():
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)
    if "ivf" in request.param:
        pytest.importorskip("faiss")
        return IvfEngine()
    return MemoryEngine("cuda" if request.param == "cuda" else "cpu")


def unit(values):
    values = np.asarray(values, np.float64)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def make_rows(count, seed=0, size=SIZE):
    """Rows with all kinds of names and times, a third of them equal to another one, with scattered numbers."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(count, size)))
    vectors[rng.permutation(count)[: count // 3]] = vectors[rng.integers(0, count, count // 3)]
    numbers = rng.permutation(10 * count)[:count].tolist()
    return [Row(number, vector, make_facts(rng)) for number, vector in zip(numbers, vectors, strict=True)]


def make_facts(rng):
    """Some value for every field of the table, or none."""
    known = {}
    for field in FIELDS:
        if field.kind == "time":
            known[field.name] = microseconds(NOON) + int(rng.integers(-5, 6)) * SECOND
        elif field.kind == "name":
            known[field.name] = WORDS[rng.integers(len(WORDS))]
        else:
            known[field.name] = {name: WORDS[rng.integers(len(WORDS))] for name in ATTRIBUTES if rng.random() < 0.7}
    return {name: fact for name, fact in known.items() if rng.random() < 0.8}


def make_queries(count, seed=1, size=SIZE):
    return unit(np.random.default_rng(seed).normal(size=(count, size)))


def microseconds(time):
    return round((time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * SECOND + time.microsecond


def row(number, vector, **facts):
    return Row(number, unit(vector), facts)


def passes(row, chosen):
    """By what `Filters` says of its keys, whose names tell the field."""
    for name, asked in chosen.asked.items():
        name, excluded = name.removeprefix("exclude_"), name.startswith("exclude_")
        if name in ("since", "until"):
            time = row.facts.get("captured_at")
            if time is None or (time < microseconds(asked) if name == "since" else time >= microseconds(asked)):
                return False
        elif name == "attributes":
            for attribute, texts in asked.items():
                if (row.facts.get("attributes", {}).get(attribute) in texts) == excluded:
                    return False
        elif (row.facts.get(name.removesuffix("s")) in asked) == excluded:
            return False
    return True


@cache
def score(query, vector):
    """The exactly rounded sum of products of two vectors, given as bytes: each pair is asked of many engines."""
    pair = (np.frombuffer(one, np.float32).astype(np.float64) for one in (query, vector))
    return max(-1.0, min(1.0, math.fsum(next(pair) * next(pair))))


def oracle(rows, queries, count, chosen):
    """For each query the (number, score) of the best, and how many rows pass."""
    allowed = [row for row in rows if passes(row, chosen)]
    answers = []
    for query in queries:
        scored = [(row.number, score(query.tobytes(), row.vector.tobytes())) for row in allowed]
        answers.append(sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:count])
    return answers, len(allowed)


def check(engine, rows, queries, counts, chosen=EVERYTHING):
    expected, candidates = oracle(rows, queries, max(counts), chosen)
    for count in counts:
        found = engine.search(queries, count, chosen)
        assert len(found) == len(queries)
        for answer, best in zip(found, expected, strict=True):
            assert answer.candidates == candidates
            assert [hit.number for hit in answer.hits] == [number for number, _ in best[:count]]
            assert [hit.score for hit in answer.hits] == pytest.approx([score for _, score in best[:count]], abs=1e-6)


def filters():
    """By what they ask, of every field of the table: alone, and all together."""
    several, odd = {"gate", "gate ", "門"}, {"Südtor 7", "o'brien\"; DROP TABLE items --", "門", "unheard of"}
    cases = {
        "nothing": {},
        "since": {"since": NOON},
        "until": {"until": NOON},
        "between": {"since": NOON - timedelta(seconds=2), "until": NOON + timedelta(seconds=1)},
        "a time that is none": {"since": NOON, "until": NOON},
    }
    every = {"since": NOON - timedelta(seconds=4), "until": NOON + timedelta(seconds=4)}
    for field in FIELDS:
        one, none = field.asked
        if field.kind == "attributes":
            cases |= {
                "an attribute": {one: {"coat": {"gate"}}},
                "odd attributes": {one: {'we"ird\\=': odd}},
                "two attributes": {one: {"coat": several, "門": odd | {"Ä\u0308"}}},
                "an attribute and not": {one: {"coat": several}, none: {"門": odd}},
                "not an attribute": {none: {"coat": {"門"}, "unheard of": {"gate"}}},
                "an attribute that is not there": {one: {"unheard of": {"gate"}}},
                "no text at all": {one: {"coat": set()}},
                "no text excluded": {none: {"coat": set()}},
            }
            every |= {none: {"coat": {"門"}}}
        elif field.kind == "name":
            cases |= {
                f"one {field.name}": {one: {"gate"}},
                f"odd {one}": {one: odd},
                f"the empty {field.name}": {one: {""}},
                f"a {field.name} and not": {one: several, none: {"門"}},
                f"all but a {field.name}": {none: {"gate", "unheard of"}},
                f"a {field.name} that is not there": {one: {"unheard of"}},
                f"a {field.name} composed otherwise": {one: {"\u00c4"}},
                f"no {field.name} at all": {one: set()},
            }
            every |= {none: {"gate "}}
    return {name: Filter(**asked) for name, asked in {**cases, "all together": every}.items()}


FILTERS = filters()


def test_finds_the_best_rows_that_pass(engine):
    rows, queries = make_rows(150), make_queries(2)
    engine.upsert(rows)
    assert len(engine) == 150
    assert engine.numbers() == {row.number for row in rows}
    for chosen in FILTERS.values():
        check(engine, rows, queries, [1, 5, 1000], chosen)


def test_every_field_is_asked_for_and_every_filter_told_apart():
    rows = make_rows(150)
    assert {name for chosen in FILTERS.values() for name in chosen.asked} == {
        name for field in FIELDS for name in field.asked
    }
    passing = {name: tuple(row.number for row in rows if passes(row, chosen)) for name, chosen in FILTERS.items()}
    nobody = [name for name, numbers in passing.items() if not numbers]
    words = ("that is not there", "composed otherwise", "at all", "a time that is none")
    assert nobody == [name for name in FILTERS if name.endswith(words)]
    everybody = [name for name, numbers in passing.items() if len(numbers) == 150]
    assert everybody == ["nothing", "no text excluded"]
    assert len(set(passing.values())) == len(FILTERS) - len(nobody) - len(everybody) + 2


def test_times_are_half_open_to_the_microsecond_in_any_zone(engine):
    early = microseconds(datetime(1969, 7, 20, tzinfo=UTC)) + 1
    times = {1: early - 1, 2: early, 3: early + 1}
    engine.upsert([row(4, [1, 0]), *(row(number, [1, 0], captured_at=time) for number, time in times.items())])
    here = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(1969, 7, 20, 5, 30, 0, 1, tzinfo=here)

    def numbers(**times):
        return [hit.number for hit in engine.search(unit([[1, 0]]), 9, Filter(**times))[0].hits]

    assert numbers(since=moment) == [2, 3]
    assert numbers(until=moment) == [1]
    assert numbers(since=moment, until=moment + timedelta(microseconds=1)) == [2]


def test_an_empty_engine_finds_nothing(engine):
    assert len(engine) == 0
    assert [(answer.hits, answer.candidates) for answer in engine.search(make_queries(2), 5, EVERYTHING)] == [
        ((), 0)
    ] * 2
    engine.remove([1, 2])
    engine.upsert([])
    assert len(engine) == 0


def test_no_query_has_no_answer(engine):
    engine.upsert(make_rows(5))
    assert engine.search(np.empty((0, SIZE), np.float32), 5, EVERYTHING) == []


def test_equal_rows_tie_by_number_wherever_they_lie(engine):
    rng = np.random.default_rng(0)
    few = make_queries(4, size=384)
    rows = [Row(int(number), few[number % 4]) for number in rng.permutation(100)]
    engine.upsert(rows)
    queries = make_queries(5, seed=2, size=384)
    check(engine, rows, queries, [1, 3, 20, 70, 100])
    for answer in engine.search(queries, 100, EVERYTHING):
        assert len({hit.score for hit in answer.hits}) == 4


def test_scores_that_single_precision_cannot_tell_apart_are_in_order(engine):
    rng = np.random.default_rng(0)
    base = make_queries(1, size=768)[0]
    rows = []
    for number in rng.permutation(200).tolist():
        vector = base.copy()
        changed = rng.integers(0, len(base), 100)
        vector[changed] = np.nextafter(vector[changed], rng.choice([-1, 1], 100).astype(np.float32))
        rows.append(Row(number, vector))
    queries = unit(base + make_queries(6, seed=2, size=768))
    scores = [score for _, score in oracle(rows, queries[:1], 200, EVERYTHING)[0][0]]
    assert len(set(scores)) > 190
    assert 1e-9 < scores[0] - scores[-1] < 1e-7, "a single step of float32 is 6e-8 here"
    engine.upsert(rows)
    check(engine, rows, queries, [1, 10, 40])


def test_answers_depend_on_neither_batch_nor_place(engine):
    rows, queries = make_rows(120, size=100), make_queries(8, size=100)
    engine.upsert(rows)
    together = engine.search(queries, 10, EVERYTHING)
    assert [engine.search(queries[i : i + 1], 10, EVERYTHING)[0] for i in range(8)] == together
    other = MemoryEngine()
    for one in sorted(rows, key=lambda row: row.number):
        other.upsert([one])
    assert other.search(queries, 10, EVERYTHING) == together


def test_scores_stay_between_minus_one_and_one(engine):
    vectors = make_queries(30, size=768)
    engine.upsert([Row(number, vector) for number, vector in enumerate(vectors)])
    sums = [math.fsum(vector.astype(np.float64) ** 2) for vector in vectors]
    assert max(sums) > 1, "a case of rounding above 1"
    for i, answer in enumerate(engine.search(vectors, 1, EVERYTHING)):
        assert answer.hits[0].number == i
        assert 0.999999 < answer.hits[0].score <= 1
    for answer in engine.search(-vectors, 30, EVERYTHING):
        assert -1 <= answer.hits[-1].score < -0.999999


def test_what_would_score_above_one_ties_by_number(engine):
    ways = [(number, sign * (1 + number / 20_000)) for number in range(1, 19) for sign in (-1, 1)]
    rows = [Row(int(sign * 100 + number), np.array([sign, 0], np.float32)) for number, sign in ways]
    engine.upsert(rows)
    check(engine, rows, unit([[1, 0], [-1, 0]]), [1, 30])


def test_a_score_of_nothing_is_positive_zero(engine):
    engine.upsert([row(2, [0.0, 1.0]), row(1, [-0.0, -1.0])])
    hits = engine.search(unit([[1.0, 0.0]]), 2, EVERYTHING)[0].hits
    assert [hit.number for hit in hits] == [1, 2]
    assert [math.copysign(1, hit.score) for hit in hits] == [1, 1]


def test_an_upsert_replaces_vector_and_facts(engine):
    ada = {"camera": "gate", "captured_at": 5, "label": "Ada", "attributes": {"coat": "red"}}
    eve = {"camera": "lost", "captured_at": 9, "label": "Eve", "attributes": {"coat": "blue", "hat": "red"}}
    new = {"camera": "yard", "captured_at": 7, "attributes": {"coat": "green"}}
    engine.upsert([row(1, [1, 0], **ada), row(2, [0, 1], **ada)])
    engine.upsert([row(1, [1, 1], **eve), row(3, [1, 0]), row(1, [0, 1], **new)])
    rows = [row(1, [0, 1], **new), row(2, [0, 1], **ada), row(3, [1, 0])]
    assert len(engine) == 3
    since = Filter(since=datetime(1970, 1, 1, 0, 0, 0, 6, tzinfo=UTC))
    named = [Filter(cameras={name}) for name in ("gate", "yard", "lost")]
    worn = [Filter(attributes={"coat": {colour}}) for colour in ("red", "blue", "green")]
    for chosen in (EVERYTHING, *named, *worn, Filter(labels={"Ada"}), since):
        check(engine, rows, unit([[0.2, 1]]), [5], chosen)


def test_a_removed_row_is_not_found_until_it_is_added_again(engine):
    rows = make_rows(40)
    engine.upsert(rows)
    engine.remove([rows[7].number, rows[7].number, -1, 10**9])
    assert len(engine) == 39
    queries = np.stack([rows[7].vector, rows[8].vector])
    check(engine, rows[:7] + rows[8:], queries, [40])
    engine.upsert([rows[7]])
    check(engine, rows, queries, [40])
    engine.remove([row.number for row in rows])
    assert len(engine) == 0
    check(engine, [], queries, [40])


def test_any_history_of_changes_leaves_what_was_kept(engine):
    rng = np.random.default_rng(0)
    kept, pool, queries = {}, make_rows(60), make_queries(3)
    for step in range(40):
        some = [pool[i] for i in rng.integers(0, len(pool), rng.integers(1, 25))]
        if step % 3 == 2:
            engine.remove({row.number for row in some})
            kept = {number: row for number, row in kept.items() if number not in {row.number for row in some}}
        else:
            some = [Row(row.number, pool[rng.integers(60)].vector, make_facts(rng)) for row in some]
            engine.upsert(some)
            kept |= {row.number: row for row in some}
        assert len(engine) == len(kept)
        assert engine.numbers() == kept.keys()
        check(engine, list(kept.values()), queries, [8], FILTERS["all but a camera" if step % 2 else "nothing"])


def test_the_callers_array_is_copied_and_may_be_read_only(engine):
    vector = unit([3, 4])
    stored = np.frombuffer(unit([4, 3]).tobytes(), np.float32)
    engine.upsert([Row(1, vector), Row(2, stored)])
    vector[:] = 0
    check(engine, [row(1, [3, 4]), row(2, [4, 3])], stored[None], [2])


@pytest.mark.parametrize(
    ("vector", "length"), [([np.nan, 1], "nan"), ([np.inf, 0], "inf"), ([0, 0], "0"), ([3, 4], "5"), ([1e30, 0], "1e")]
)
def test_a_vector_that_is_not_unit_is_refused_by_its_number(engine, vector, length):
    engine.upsert([row(1, [1, 0])])
    bad = Row(77, np.array(vector, np.float32), {"camera": "gate"})
    with pytest.raises(ValueError, match=f"item 77: the vector has length {length}.*; expected finite and 1$"):
        engine.upsert([row(1, [0, 1]), row(5, [0, 1]), bad])
    check(engine, [row(1, [1, 0])], unit([[1, 0]]), [9])
    with pytest.raises(ValueError, match=f"query 1: the vector has length {length}"):
        engine.search(np.stack([unit([1, 0]), bad.vector]), 9, EVERYTHING)


def test_another_dimension_is_refused(engine):
    with pytest.raises(ValueError, match=r"item 6: the vector has shape \(3,\); expected \(2,\)"):
        engine.upsert([row(5, [1, 0]), row(6, [1, 0, 0])])
    assert len(engine) == 0
    engine.upsert([row(5, [1, 0])])
    engine.remove([5])
    with pytest.raises(ValueError, match=r"item 7: the vector has shape \(3,\); expected \(2,\)"):
        engine.upsert([row(7, [1, 0, 0])])
    with pytest.raises(ValueError, match=r"the queries have shape \(1, 3\); expected \(n, 2\)"):
        engine.search(unit([[1, 0, 0]]), 1, EVERYTHING)
    with pytest.raises(ValueError, match=r"the queries have shape \(2,\); expected \(n, 2\)"):
        engine.search(unit([1, 0]), 1, EVERYTHING)


def test_a_count_below_one_is_refused(engine):
    with pytest.raises(ValueError, match="count is 0; expected at least 1"):
        engine.search(make_queries(1), 0, EVERYTHING)


@pytest.mark.parametrize("engine", HERE, indirect=True)
def test_products_of_fewer_bits_miss_nothing(engine, monkeypatch):
    """As in a process that has allowed torch to cut the factors of matrix products."""

    def multiply(matrix, places, queries):
        return matrix[places].bfloat16().float() @ queries.bfloat16().float().T

    on_gpu = engine._device.type == "cuda"  # which itself multiplies so
    if not on_gpu:
        monkeypatch.setattr(memory, "_multiply", multiply)
    backend = torch.backends.cuda if on_gpu else torch.backends.mkldnn
    before = backend.matmul.fp32_precision
    backend.matmul.fp32_precision = "tf32" if on_gpu else "bf16"
    try:
        vectors = unit(make_queries(1, size=100) + 0.02 * make_queries(400, seed=2, size=100))
        rows = [Row(number, vector) for number, vector in enumerate(vectors)]
        engine.upsert(rows)
        check(engine, rows, make_queries(4, seed=3, size=100), [5])
    finally:
        backend.matmul.fp32_precision = before


def test_faiss_is_given_the_rows_that_pass_alone(faiss):
    engine, rows = MemoryEngine(), make_rows(150)
    engine.upsert(rows)
    for name, chosen in FILTERS.items():
        faiss.given.clear()
        engine.search(make_queries(3), 5, chosen)
        given = sorted(tuple(vector) for rows in faiss.given for vector in rows.tolist())
        assert given == sorted(tuple(row.vector.tolist()) for row in rows if passes(row, chosen)), name


def test_faiss_is_not_trusted_where_ties_crowd_it_out(faiss):
    """The best rows by number are at the end of a crowd of equals, of which FAISS gives some."""
    engine = MemoryEngine()
    rows = [row(1000 - number, [1, 2, 3]) for number in range(300)] + [row(2000, [1, 2, 3.1])]
    engine.upsert(rows)
    check(engine, rows, unit([[1, 2, 4]]), [5])
    assert faiss.given


def test_more_than_faiss_can_give_is_found_without(faiss):
    engine = MemoryEngine()
    rows = [Row(number, vector) for number, vector in enumerate(make_queries(2100))]
    engine.upsert(rows)
    check(engine, rows, make_queries(1, seed=3), [2049])
    assert not faiss.given


def test_without_faiss_a_gpu_is_used_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)  # as if not installed
    assert memory._gpu_faiss(torch.device("cuda")) is None


def make_groups(count, seed=0):
    """Rows in 100 groups that look alike, seen by three cameras, of which the last saw 10."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(100, 32))
    vectors = unit(centres[rng.integers(0, 100, count)] + 0.3 * rng.normal(size=(count, 32)))
    cameras = ["gate", "yard"] * (count // 2 - 5) + ["lost"] * 10
    return [Row(i, vectors[i], {"camera": cameras[i]}) for i in range(count)]


@pytest.fixture
def ivf_engine(monkeypatch):
    """An engine that trains with 2,000 rows."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(ivf, "FIRST_ROWS", 2000)
    return IvfEngine()


def test_ivf_misses_few_rows_and_scores_the_others_as_the_exact_engine(ivf_engine, monkeypatch):
    rows, queries = make_groups(3000), np.stack([row.vector for row in make_groups(100, seed=1)])
    exact = MemoryEngine()
    for engine in (exact, ivf_engine):
        engine.upsert(rows)
    for chosen in (EVERYTHING, Filter(exclude_cameras=frozenset(["lost"]))):
        expected = exact.search(queries, 10, chosen)
        with monkeypatch.context() as patch:
            patch.setattr(MemoryEngine, "_products", None)  # not needed
            found = ivf_engine.search(queries, 10, chosen)
        assert [answer.candidates for answer in found] == [answer.candidates for answer in expected]
        assert {len(answer.hits) for answer in found} == {10}
        met = [set(one.hits) & set(other.hits) for one, other in zip(found, expected, strict=True)]
        assert sum(map(len, met)) / 1000 > 0.95
        scores = {row.number: row.vector.astype(np.float64) for row in rows}
        for query, answer in zip(queries, found, strict=True):
            assert list(answer.hits) == sorted(answer.hits, key=lambda hit: (-hit.score, hit.number))
            for hit in answer.hits:
                assert hit.score == pytest.approx(scores[hit.number] @ query, abs=1e-12)


def test_ivf_is_exact_where_few_rows_pass_or_many_are_wanted(ivf_engine):
    rows, queries = make_groups(2000), make_queries(5, size=32)
    ivf_engine.upsert(rows)
    assert ivf_engine.recall is not None
    check(ivf_engine, rows, queries, [10], Filter(cameras=frozenset(["lost"])))
    check(ivf_engine, rows, queries, [1999])
    ivf_engine.remove(range(100, 2000))
    check(ivf_engine, rows[:100], queries, [100])


def test_ivf_looks_on_where_its_lists_hold_too_few_rows(ivf_engine, monkeypatch):
    for name, value in {"FIRST_PROBES": 1, "RECALL": 0, "WORTH": math.inf}.items():
        monkeypatch.setattr(ivf, name, value)
    rows = make_groups(2000)
    ivf_engine.upsert(rows)
    assert ivf_engine.recall is not None
    check(ivf_engine, rows, make_queries(5, size=32), [1000])


def test_ivf_trains_with_enough_rows_and_when_they_have_multiplied(ivf_engine, caplog):
    caplog.set_level(logging.INFO, "reid")
    rows = make_groups(8000)
    recalls = []
    for start in range(0, 8000, 1000):
        ivf_engine.upsert(rows[start : start + 1000])
        recalls.append(ivf_engine.recall)
    assert recalls[0] is None
    assert all(0.995 <= recall <= 1 for recall in recalls[1:])
    assert re.fullmatch(r"approximately, in \d+ of \d+ lists or more", ivf_engine.how)
    first, second = [record.getMessage() for record in caplog.records if record.name == "reid"]
    assert first.startswith("searching 2000 rows in 44 lists with ")
    assert second.startswith("searching 6000 rows in 77 lists with ")
    assert second.endswith(f"recall@10 is {recalls[-1]:.3f} of their own neighbours")


def test_ivf_stays_exact_for_vectors_without_groups(ivf_engine, caplog):
    caplog.set_level(logging.INFO, "reid")
    rows = [Row(number, vector) for number, vector in enumerate(make_queries(2000, size=64))]
    ivf_engine.upsert(rows)
    assert ivf_engine.recall is None
    assert ivf_engine.how.startswith("exactly, by ")
    assert "searching 2000 rows exactly: 44 lists give no recall@10 of 0.995 sooner" in caplog.messages
    check(ivf_engine, rows, make_queries(3, seed=5, size=64), [10])


def test_ivf_without_faiss_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)  # as if not installed
    with pytest.raises(ValueError, match="the ivf engine needs FAISS, which is not installed: pip install faiss-cpu"):
        IvfEngine()


def test_pairs_that_may_be_among_the_best_are_those_of_the_table():
    random = torch.Generator().manual_seed(0)
    products = (torch.rand(5, 40, generator=random) * 20).round() / 20  # many ties
    places = torch.randint(1000, (5, 40), generator=random)
    for count, error in ((1, 0.0), (3, 0.0), (7, 0.05), (40, 0.0)):
        query = torch.arange(5).repeat_interleave(40)
        of_table = memory.nearest(products, places, count, error)
        of_pairs = memory.nearest_pairs(products.flatten(), query, places.flatten(), count, error)
        expected = set()
        for row in range(5):
            least = sorted(products[row].tolist())[-count] - 2 * error
            expected |= {(row, column) for column in range(40) if products[row, column] >= least}
        wanted = sorted((row, int(places[row, column])) for row, column in expected)
        for found in (of_table, of_pairs):
            assert found.query.tolist() == sorted(found.query.tolist())
            assert sorted(zip(found.query.tolist(), found.place.tolist(), strict=True)) == wanted
