import numpy as np
import pytest

from service.engines import compressed, memory
from service.engines.compressed import Compressed, products_of_one
from service.engines.memory import MemoryEngine
from service.fields import Filter
from service.records import Row

faiss = pytest.importorskip("faiss")


@pytest.fixture(autouse=True)
def three_shards(monkeypatch):
    """Whatever the machine has."""
    monkeypatch.setattr(compressed, "ROWS_A_THREAD", 1)
    monkeypatch.setattr(compressed.os, "cpu_count", lambda: 3)


def unit(values):
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def drawn(rows, seed=0, size=48, spread=1.0):
    """Unit rows about one direction, the closer the smaller `spread` is; some of their values are much larger."""
    random = np.random.default_rng(seed)
    scale = np.where(np.arange(size) % 13 == 0, 6.0, 1.0)
    return unit(random.normal(size=size) + spread * random.normal(size=(rows, size)) * scale)


def scores(vectors, query):
    return vectors.astype(np.float64) @ query.astype(np.float64)


def require_best(found, vectors, query, count, passing=None):
    """None of the best rows of those passing is missing, whichever of equal ones are taken."""
    exact = scores(vectors, query)
    if passing is not None:
        exact = np.where(passing, exact, -np.inf)
        assert passing[found].all()
    assert (np.diff(found) > 0).all()
    worst = np.sort(exact)[-count]
    assert set(np.flatnonzero(exact >= worst)) <= set(found.tolist())


@pytest.mark.parametrize("places", [[7], [0, 2999], range(3000), range(1, 3000, 7)])
def test_rows_are_multiplied_where_they_lie(places):
    vectors, query = drawn(3000), drawn(1, seed=2)
    found = products_of_one(vectors, np.array(places), query)
    np.testing.assert_allclose(found, scores(vectors[places], query[0]), atol=1e-6)


@pytest.mark.parametrize("size", [48, 41, 3])  # FAISS multiplies multiples of 16 another way
@pytest.mark.parametrize("spread", [1.0, 0.05, 0.001])
def test_the_best_are_always_among_those_found(monkeypatch, spread, size):
    monkeypatch.setattr(compressed, "MOST_CANDIDATES", 10**9)
    vectors = drawn(3000, size=size, spread=spread)
    rows = Compressed(vectors)
    passing = np.random.default_rng(1).random(3000) < 0.3
    for query in drawn(12, seed=2, size=size, spread=spread):
        for count in (1, 10, 300):
            require_best(rows.candidates(query, count, None), vectors, query, count)
            require_best(rows.candidates(query, count, passing), vectors, query, count, passing)
    few = [len(rows.candidates(query, 10, None)) for query in drawn(12, seed=2, size=size, spread=spread)]
    if spread == 1.0 and size > 3:
        assert max(few) < 300  # and what is found is worth it


def test_rows_are_replaced_added_moved_and_forgotten():
    """Against a plain matrix, over a random history."""
    random = np.random.default_rng(5)
    vectors = drawn(500)
    rows = Compressed(vectors)
    for step in range(40):
        if step % 3:
            places = np.append(random.permutation(len(vectors))[:5], np.arange(len(vectors), len(vectors) + 7))
            new = drawn(len(places), seed=step)
            vectors = np.concatenate([vectors, np.empty((7, 48), np.float32)])
            vectors[places] = new
            order = random.permutation(len(places))
            rows.write(places[order], new[order])
        else:
            kept = len(vectors) - 20
            targets = np.sort(random.permutation(kept)[:9])
            sources = kept + random.permutation(20)[:9]
            vectors[targets] = vectors[sources]
            vectors = vectors[:kept]
            rows.move(sources, targets, kept)
        query = drawn(1, seed=100 + step)[0]
        require_best(rows.candidates(query, 20, None), vectors, query, 20)


def test_rows_that_do_not_fit_are_always_looked_at():
    vectors = drawn(2000)
    rows = Compressed(vectors)
    odd = unit(np.eye(48))[:30]  # values far beyond those that the codes were made for
    rows.write(np.arange(2000, 2030), odd)
    assert rows.fits
    both = np.concatenate([vectors, odd])
    for query in odd[:3]:
        require_best(rows.candidates(query, 1, None), both, query, 1)
        passing = np.arange(2030) != 2000
        require_best(rows.candidates(query, 1, passing), both, query, 1, passing)
    rows.write(np.arange(2030, 2130), unit(np.eye(48)[np.arange(100) % 48]))
    assert not rows.fits


def test_where_rows_crowd_nothing_is_told(monkeypatch):
    monkeypatch.setattr(compressed, "MOST_CANDIDATES", 100)
    rows = Compressed(drawn(3000, spread=1e-4))
    assert rows.candidates(drawn(1, seed=2, spread=1e-4)[0], 10, None) is None


@pytest.fixture
def eager(monkeypatch):
    """An engine that asks compressed rows, of few rows already, and what it asked them."""
    monkeypatch.setattr(memory, "COMPRESSED_ROWS", 50)
    monkeypatch.setattr(memory, "SPARSE", 10)
    asked = []
    candidates = Compressed.candidates

    def told(self, query, count, passing):
        asked.append(count)
        return candidates(self, query, count, passing)

    monkeypatch.setattr(Compressed, "candidates", told)
    return MemoryEngine(), asked


def test_the_engine_asks_them_where_that_is_faster(eager):
    engine, asked = eager
    vectors = drawn(300)
    facts = [{"camera": str(number % 3), "site": str(number % 5)} for number in range(300)]
    engine.upsert([Row(number, vector, facts[number]) for number, vector in enumerate(vectors)])
    queries = drawn(5, seed=3)
    for count, few, chosen in ((3, 1, Filter()), (3, 4, Filter(cameras={"1"})), (300, 1, Filter())):
        for answer, query in zip(engine.search(queries[:few], count, chosen), queries, strict=False):
            among = [n for n in range(300) if chosen == Filter() or n % 3 == 1]
            expected = sorted(among, key=lambda n: -scores(vectors[[n]], query)[0])[:count]
            assert [hit.number for hit in answer.hits] == expected
    assert asked == [3, 3, 3, 3, 3, 300]
    engine.search(queries, 3, Filter())  # five at once are multiplied
    engine.search(queries[:1], 3, Filter(sites={"1"}))  # so are a few of those that there are
    engine.remove(range(260))
    engine.search(queries[:1], 3, Filter())  # so are few rows
    assert len(asked) == 6


def test_the_engine_asks_less_often_where_rows_crowd(eager, monkeypatch):
    monkeypatch.setattr(compressed, "MOST_CANDIDATES", 20)
    engine, asked = eager
    vectors = drawn(300, spread=1e-4)
    engine.upsert([Row(number, vector, {}) for number, vector in enumerate(vectors)])
    query = drawn(1, seed=3, spread=1e-4)
    answers = {tuple(hit.number for hit in engine.search(query, 3, Filter())[0].hits) for _ in range(12)}
    assert answers == {tuple(np.argsort(-scores(vectors, query[0]), kind="stable")[:3].tolist())}
    assert len(asked) == 3  # at once, after one search more, and after three
