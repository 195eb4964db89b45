"""The models of a gallery: the first keeps it until every item has a vector of another."""

import hashlib

import numpy as np
import pytest

from service.records import Cause, Filter, Medium, ModelMismatch, NewItem
from service.storage.models import Model, Models
from service.storage.store import Store

SIZE = 8


def vector(number, size=SIZE):
    drawn = np.random.default_rng(number).standard_normal(size).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


def photo(number):
    return NewItem(Medium(hashlib.sha256(str(number).encode()).hexdigest(), 640, 480, str(number)), vector(number))


@pytest.fixture
def models(database):
    """Those of a gallery that belongs to model `old`."""
    models = Models(database)
    models.bind("old", SIZE, {"features": "sa"})
    return models


@pytest.fixture
def store(database, models):
    return Store(database)


def enrol(store, count):
    return [enrolled.item for enrolled in store.enrol([photo(n) for n in range(count)])]


def test_the_first_model_keeps_the_gallery(reopen):
    with reopen() as database:
        models = Models(database)
        assert models.active is None
        models.bind("vit-a", SIZE, {"image_size": [256, 128]}, Cause("ada", "r1"))
        models.bind("vit-a", SIZE, {})
        for other in [("vit-b", SIZE), ("vit-a", SIZE + 1)]:
            with pytest.raises(
                ModelMismatch, match=rf"model vit-a \(E = 8\), not to model {other[0]} \(E = {other[1]}"
            ):
                models.bind(*other, {})
    with reopen() as database:
        assert Models(database).active == Model("vit-a", SIZE, {"image_size": [256, 128]})
        [bound] = Store(database).operations()
        assert (bound.kind, bound.target, bound.actor) == ("model.bind", "vit-a", "ada")


def test_a_prepared_model_is_known_and_not_active(store, models):
    models.prepare("new", 5, {"features": "glca"})
    models.prepare("new", 5, {"features": "other"})
    assert models.active.model_id == "old"
    models.switch("new")
    assert models.active == Model("new", 5, {"features": "glca"})


def test_missing_items_are_those_without_a_vector_of_the_model(store, models):
    items = enrol(store, 10)
    models.prepare("new", 5, {})
    assert models.missing("old", 0, 100) == []
    assert models.missing("new", 0, 100) == items
    models.add("new", {items[n].number: vector(n, 5) for n in (1, 4, 5)})
    left = [item for n, item in enumerate(items) if n not in (1, 4, 5)]
    assert models.missing("new", 0, 4) == left[:4]
    assert models.missing("new", left[3].number, 100) == left[4:]
    assert models.count_missing("new") == 7
    store.delete([left[0].item_id])
    assert models.count_missing("new") == 6
    assert models.missing("new", 0, 100) == left[1:]


def test_vectors_are_added_to_items_that_are_there(store, models):
    first, gone, third = enrol(store, 3)
    models.prepare("new", 5, {})
    store.delete([gone.item_id])
    models.add("new", {item.number: vector(n, 5) for n, item in enumerate([first, gone, third])})
    rows = list(store.rows("new"))
    assert [row.number for row in rows] == [first.number, third.number]
    np.testing.assert_array_equal([row.vector for row in rows], [vector(0, 5), vector(2, 5)])
    models.add("new", {first.number: vector(9, 5)})
    np.testing.assert_array_equal(next(store.rows("new")).vector, vector(9, 5))
    assert [row.vector.tolist() for row in store.rows("old")] == [vector(0).tolist(), vector(2).tolist()]


@pytest.mark.parametrize("wrong", [vector(0, 4), vector(0, 5) * 2, vector(0, 5).astype(np.float64)])
def test_a_vector_that_no_engine_takes_adds_nothing(store, models, wrong):
    first, second = enrol(store, 2)
    models.prepare("new", 5, {})
    with pytest.raises(ValueError, match=rf"^item number {second.number}: the vector is .*; expected \(5,\) float32"):
        models.add("new", {first.number: vector(0, 5), second.number: wrong})
    assert models.count_missing("new") == 2


def test_a_switch_waits_for_every_item_and_then_drops_the_old_vectors(database, store, models, monkeypatch):
    items = enrol(store, 8)
    models.prepare("new", 5, {})
    models.add("new", {item.number: vector(n, 5) for n, item in enumerate(items[:1])})
    before = store.operations()
    named = ", ".join(item.item_id for item in items[1:6])
    with pytest.raises(ValueError, match=f"^7 items have no vector of model new: {named}, ...$"):
        models.switch("new")
    models.add("new", {item.number: vector(n, 5) for n, item in enumerate(items[:7])})
    with pytest.raises(ValueError, match=f"^1 item has no vector of model new: {items[7].item_id}$"):
        models.switch("new")
    assert (models.active.model_id, store.operations()) == ("old", before)
    assert len(list(store.rows("old"))) == 8

    store.delete([items[7].item_id])
    models.switch("new", Cause("ada", "r7"))
    assert models.active.model_id == "new"
    monkeypatch.setattr("service.storage.models.FORMER_AT_ONCE", 3)
    held = []
    with monkeypatch.context() as patched:
        begin = database.transaction
        patched.setattr(database, "transaction", lambda: (held.append(len(list(store.rows("old")))), begin())[1])
        models.drop_former()
    assert held == [7, 4, 1]  # nobody waits for more than three at a time
    assert list(store.rows("old")) == []
    np.testing.assert_array_equal([row.vector for row in store.rows("new")], [vector(n, 5) for n in range(7)])
    switched = store.operations()[-1]
    assert (switched.kind, switched.target, switched.actor, switched.request_id) == ("model.switch", "new", "ada", "r7")
    assert (switched.before, switched.after) == (
        {"model_id": "old"},
        {"model_id": "new", "space": "appearance"},
    )
    store.enrol([NewItem(photo(20).medium, vector(20, 5))])
    assert store.count(Filter()) == len(list(store.rows("new"))) == 8


def test_a_model_that_nobody_prepared_is_refused(store, models):
    [item] = enrol(store, 1)
    with pytest.raises(ValueError, match="model other is not known"):
        models.add("other", {item.number: vector(0)})
    store.delete([item.item_id])
    with pytest.raises(ValueError, match="model other is not known"):
        models.switch("other")
    assert models.active.model_id == "old"


def test_each_space_has_a_model_and_vectors_of_its_own(reopen):
    with reopen() as database:
        looks, texts, store = Models(database), Models(database, "text"), Store(database)
        looks.bind("old", SIZE, {})
        assert texts.active is None
        items = enrol(store, 4)
        texts.bind("words", 3, {})
        drawn = np.eye(3, dtype=np.float32)
        texts.add("words", {items[0].number: drawn[0], items[3].number: drawn[1]})
        assert (looks.count_missing("old"), texts.count_missing("words")) == (0, 2)
        assert texts.missing("words", 0, 9) == looks.missing("words", 0, 9)[1:3] == items[1:3]

        looks.prepare("new", 5, {})
        looks.add("new", {item.number: vector(n, 5) for n, item in enumerate(items)})
        looks.switch("new")
        looks.drop_former()
        assert (looks.active.model_id, texts.active.model_id) == ("new", "words")
        assert store.numbers("words", "text") == {items[0].number, items[3].number}
        assert store.numbers("words") == store.numbers("new", "text") == set()

        texts.prepare("more words", 3, {})
        with pytest.raises(ValueError, match="^4 items have no vector of model more words"):
            texts.switch("more words")
        texts.add("more words", {item.number: drawn[2] for item in items})
        texts.switch("more words", Cause("ada", "r1"))
        texts.drop_former()
        assert store.numbers("words", "text") == set()
        assert store.operations()[-1].after == {"model_id": "more words", "space": "text"}
        assert [entry.space for entry in store.entries(0, 100) if entry.kind == "model.switch"] == [
            "appearance",
            "text",
        ]
    with reopen() as database:
        store = Store(database)
        assert (Models(database).active.model_id, Models(database, "text").active.model_id) == ("new", "more words")
        np.testing.assert_array_equal([row.vector for row in store.rows("new")], [vector(n, 5) for n in range(4)])
        texted = list(store.rows("more words", space="text"))
        np.testing.assert_array_equal([row.vector for row in texted], [drawn[2]] * 4)
        assert store.count_rows("more words", "text") == 4
        store.delete([items[0].item_id])
        assert [store.count_rows(*those) for those in (("new",), ("more words", "text"))] == [3, 3]


def test_a_model_has_one_size_in_all_spaces(database, models):
    with pytest.raises(ModelMismatch, match=r"model old \(E = 8\), not to model old \(E = 9\)"):
        Models(database, "text").bind("old", SIZE + 1, {})
    Models(database, "text").bind("old", SIZE, {})
    assert Models(database, "text").active == models.active
