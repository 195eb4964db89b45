"""Identities are renamed and merged in one step each, and their items with them."""

import hashlib

import numpy as np
import pytest
from sqlalchemy import select

from service.records import Cause, Conflict, Details, Filter, Medium, NewItem, NotFound
from service.storage import tables
from service.storage.identities import Identities
from service.storage.models import Models
from service.storage.store import Store

LABELS = ("Åsa", "Åsa", "bob", "bob", "bob", "cyd", None)


def photo(number, label):
    vector = np.zeros(4, np.float32)
    vector[number % 4] = 1
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    return NewItem(Medium(sha256, 640, 480, str(number)), vector, Details(label=label))


@pytest.fixture
def store(database):
    Models(database).bind("m", 4, {})
    return Store(database)


@pytest.fixture
def identities(database):
    return Identities(database)


@pytest.fixture
def items(store):
    return [one.item for one in store.enrol([photo(number, label) for number, label in enumerate(LABELS)])]


def labels(store):
    return [item.details.label for item in store.page(Filter())]


def test_a_renamed_identity_takes_its_items_along(store, identities, items):
    before = identities.get(items[0].identity_id)
    assert (before.name, before.aliases, before.merged_into) == ("Åsa", (), None)
    renamed = identities.rename(before.identity_id, "Anna", Cause("ada", "r1"))
    assert (renamed.name, renamed.aliases) == ("Anna", ("Åsa",))
    assert identities.get(before.identity_id) == renamed
    assert labels(store) == ["Anna", "Anna", *LABELS[2:]]
    assert store.get(items[0].item_id).identity_id == before.identity_id
    assert [row.facts.get("label") for row in store.rows("m", [items[0].number])] == ["Anna"]
    entry = store.operations()[-1]
    assert (entry.kind, entry.target, entry.actor, entry.request_id) == (
        "identity.rename",
        before.identity_id,
        "ada",
        "r1",
    )
    assert (entry.before, entry.after) == ({"name": "Åsa", "aliases": []}, {"name": "Anna", "aliases": ["Åsa"]})
    assert identities.rename(before.identity_id, "Anna") == renamed
    assert store.last_entry() == entry.seq, "a rename to the same name is none"
    back = identities.rename(before.identity_id, "Åsa")
    assert (back.name, back.aliases) == ("Åsa", ("Anna",))
    # A former name is free for another.
    other = store.edit(items[6].item_id, {"label": "Anna"})
    assert other.identity_id not in (None, before.identity_id)


def test_a_merged_identity_gives_its_items_to_the_other(database, store, identities, items):
    asa, bob, cyd = (items[n].identity_id for n in (0, 2, 5))
    identities.rename(bob, "bo")
    kept = identities.merge(bob, asa, Cause("ada", "r1"))
    assert (kept.identity_id, kept.name, kept.aliases) == (asa, "Åsa", ("bo", "bob"))
    assert labels(store) == ["Åsa"] * 5 + ["cyd", None]
    assert {item.identity_id for item in store.page(Filter(labels=frozenset({"Åsa"})))} == {asa}
    assert store.labels(Filter()) == [("Åsa", 5), ("cyd", 1)]
    assert store.count_groups(Filter()) == 3
    gone = identities.get(bob)
    assert (gone.name, gone.merged_into) == (None, asa)
    entry = store.operations()[-1]
    assert (entry.kind, entry.target, entry.actor, entry.request_id) == ("identity.merge", bob, "ada", "r1")
    assert entry.before == {"name": "bo", "aliases": ["bob"], "items": [item.number for item in items[2:5]]}
    assert entry.after == {"merged_into": asa}
    assert store.touched(store.entries(entry.seq - 1, 1)) == {item.number for item in items[:5]}
    identities.merge(asa, cyd)
    assert labels(store) == ["cyd"] * 6 + [None]
    assert identities.get(cyd).aliases == ("Åsa", "bo", "bob")
    assert identities.get(asa).merged_into == identities.get(bob).merged_into == cyd
    assert store.edit(items[0].item_id, {"label": "bob"}).identity_id not in (asa, bob, cyd)
    sources = select(tables.items.c.identity_source).where(tables.items.c.number == items[2].number)
    assert database.read(sources) == [("import",)]


def test_what_cannot_be_renamed_or_merged_is_told(store, identities, items):
    asa, bob = items[0].identity_id, items[2].identity_id
    with pytest.raises(NotFound, match="^no identity 'nobody'$"):
        identities.rename("nobody", "x")
    with pytest.raises(NotFound, match="^no identity 'nobody'$"):
        identities.merge(asa, "nobody")
    with pytest.raises(Conflict, match=f"^name 'bob' belongs to identity {bob}: merge {asa} into that instead$"):
        identities.rename(asa, "bob")
    with pytest.raises(Conflict, match=f"^identity {asa} cannot be merged into itself$"):
        identities.merge(asa, asa)
    before = store.last_entry()
    identities.merge(asa, bob)
    for ask in (lambda: identities.rename(asa, "x"), lambda: identities.merge(bob, asa)):
        with pytest.raises(Conflict, match=f"^identity {asa} was merged into {bob}$"):
            ask()
    assert store.last_entry() == before + 1
