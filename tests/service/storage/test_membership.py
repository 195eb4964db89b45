"""Whom items show follows from the decisions alone, however they came about."""

import random

import numpy as np
import pytest
from sqlalchemy import select

from reid.naming.decisions import Decision
from reid.naming.groups import group_items
from service.records import Conflict, Details, Filter, Medium, NewItem, NotFound
from service.storage import tables
from service.storage.decisions import Decisions, NewDecision
from service.storage.identities import Identities
from service.storage.models import Models
from service.storage.store import Store


def photo(number, label=None):
    vector = np.zeros(4, np.float32)
    vector[number % 4] = 1
    return NewItem(Medium(f"{number:064x}", 640, 480, str(number)), vector, Details(label=label))


@pytest.fixture
def store(database):
    Models(database).bind("m", 4, {})
    return Store(database)


@pytest.fixture
def identities(database):
    return Identities(database)


def enrol(store, labels, start=0):
    return [one.item for one in store.enrol([photo(start + n, label) for n, label in enumerate(labels)])]


def same(*pairs):
    return [NewDecision(a, b, "same") for a, b in pairs]


def shown(store):
    """The items of each identity, as the store shows them; those of nobody each for itself."""
    groups = {}
    for item in store.page(Filter(), limit=1000):
        groups.setdefault(item.identity_id or item.item_id, set()).add(item.item_id)
    return sorted(map(sorted, groups.values()))


def from_scratch(database, store):
    """The same by the function of `reid.naming` over all decisions ever made."""
    everything = Decisions(database).page(limit=100_000)
    nodes = {item.item_id for item in store.page(Filter(), limit=1000)}
    live = set(nodes)
    nodes |= {end for one in everything for end in (one.a, one.b)}
    rows = {item_id: row for row, item_id in enumerate(sorted(nodes))}
    numbers = {one.number: place for place, one in enumerate(everything)}
    given = [
        Decision(rows[one.a], rows[one.b], one.answer, one.basis, one.actor, numbers.get(one.supersedes))
        for one in everything
    ]
    groups = {}
    for item_id, label in zip(sorted(nodes), group_items(len(rows), given), strict=True):
        if item_id in live:
            groups.setdefault(label, set()).add(item_id)
    return sorted(map(sorted, groups.values()))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_shown_equals_what_all_decisions_say_from_scratch(database, store, identities, seed):
    rng = random.Random(seed)
    enrol(store, [rng.choice(["ada", "bob", None, None]) for _ in range(14)])
    batches = []
    for step in range(30):
        act = rng.randrange(10)
        items = store.page(Filter(), limit=1000)
        ids = [item.item_id for item in items]
        named = sorted({item.identity_id for item in items if item.identity_id})
        try:
            if act < 4:
                pairs = [rng.sample(ids, 2) for _ in range(rng.randrange(1, 4))]
                answers = [rng.choice(["same", "same", "different", "unsure"]) for _ in pairs]
                new = [NewDecision(a, b, answer) for (a, b), answer in zip(pairs, answers, strict=True)]
                batches.append(identities.decide(new).batch_id)
            elif act == 4:
                store.edit(rng.choice(ids), {"label": rng.choice(["ada", "bob", "cyd", None])})
            elif act == 5 and len(ids) > 6:
                store.delete([rng.choice(ids)])
            elif act == 6 and len(named) > 1:
                batches.append(identities.merge_step(*rng.sample(named, 2)).batch_id)
            elif act == 7 and named:
                one = rng.choice(named)
                theirs = [item.item_id for item in items if item.identity_id == one]
                some = rng.sample(theirs, rng.randrange(1, len(theirs) + 1))
                batches.append(identities.split(one, some, rng.choice([None, f"new {step}"])).batch_id)
            elif act == 8 and batches:
                batches.append(identities.undo(batches.pop(rng.randrange(len(batches)))).batch_id)
            elif act == 9:
                enrol(store, [rng.choice(["ada", "bob", "dot", None])], start=1000 * seed + 100 + step)
        except (Conflict, NotFound):
            pass
        assert shown(store) == from_scratch(database, store), (step, act)
    names = database.read(select(tables.identities.c.name).where(tables.identities.c.merged_into.is_not(None)))
    assert {name for (name,) in names} <= {None}


def test_answers_make_an_identity_and_their_undoing_unmakes_it(store, identities):
    a, b, c = (item.item_id for item in enrol(store, [None, None, None]))
    first = identities.decide(same((a, b)))
    assert store.get(a).identity_id == store.get(b).identity_id != store.get(c).identity_id is None
    second = identities.decide(same((b, c)))
    assert {store.get(one).identity_id for one in (a, b, c)} == {store.get(a).identity_id}
    assert second.moved == {(None, store.get(a).identity_id): [c]}
    identities.undo(second.batch_id)
    assert store.get(c).identity_id is None
    identities.undo(first.batch_id)
    assert store.get(a).identity_id is store.get(b).identity_id is None
    with pytest.raises(Conflict, match="taken back already"):
        identities.undo(first.batch_id)


def test_an_item_that_is_gone_keeps_others_together(store, identities):
    a, b, c = (item.item_id for item in enrol(store, [None, None, None]))
    identities.decide(same((a, b), (b, c)))
    store.delete([b])
    assert store.get(a).identity_id == store.get(c).identity_id is not None
    store.edit(a, {"label": "ada"})
    assert store.get(c).details.label == "ada"


def test_who_was_told_apart_within_a_group_is_a_conflict(store, identities):
    a, b, c = (item.item_id for item in enrol(store, [None, None, None]))
    identities.decide(same((a, b), (b, c)))
    told = identities.decide([NewDecision(a, c, "different")])
    assert told.conflicts == [tuple(sorted((a, c)))]
    assert store.get(a).identity_id == store.get(c).identity_id, "it is settled by nobody but people"


def test_a_merge_and_a_split_are_previewed_and_undone_as_one_step(store, identities):
    ada, also, bob, more = (item.item_id for item in enrol(store, ["ada", "ada", "bob", "bob"]))
    one, other = store.get(ada).identity_id, store.get(bob).identity_id
    before, last = shown(store), store.last_entry()
    preview = identities.merge_step(other, one, dry_run=True)
    assert preview.moved == {(other, one): [bob, more]}
    assert (shown(store), store.last_entry()) == (before, last)
    merged = identities.merge_step(other, one)
    assert merged.moved == preview.moved
    assert identities.get(one).aliases == ("bob",)
    assert shown(store) == [sorted([ada, also, bob, more])]
    identities.undo(merged.batch_id)
    assert shown(store) == before
    assert [store.get(item).details.label for item in (ada, bob)] == ["ada", "bob"]
    assert (identities.get(one).aliases, identities.get(other).merged_into) == ((), None)
    identities.merge_step(other, one)
    assert identities.unmerge(other).moved == {(one, other): [bob, more]}
    assert store.get(more).details.label == "bob"
    parted = identities.split(one, [ada], "eva")
    assert [store.get(item).details.label for item in (ada, also)] == ["eva", "ada"]
    assert store.get(also).identity_id == one
    identities.undo(parted.batch_id)
    assert shown(store) == before
    with pytest.raises(Conflict, match="all 2 items"):
        identities.split(one, [ada, also])
    with pytest.raises(NotFound, match=f"no item '{bob}' of identity {one}"):
        identities.split(one, [bob])


def test_a_label_outweighs_what_was_answered_before(store, identities):
    ada, other = (item.item_id for item in enrol(store, ["ada", None]))
    identities.decide([NewDecision(ada, other, "different"), NewDecision(other, ada, "different", actor="bob")])
    assert store.edit(other, {"label": "ada"}).identity_id == store.get(ada).identity_id
    assert store.edit(other, {"label": None}).identity_id is None
    assert store.get(ada).details.label == "ada"


def test_an_item_that_leaves_takes_nobody_along(store, identities):
    a, b, c, d = (item.item_id for item in enrol(store, ["ada", None, None, None]))
    identities.decide(same((a, b), (b, c), (b, d)))
    assert {store.get(one).details.label for one in (a, b, c, d)} == {"ada"}
    store.edit(b, {"label": "bob"})
    assert [store.get(one).details.label for one in (a, b, c, d)] == ["ada", "bob", "ada", "ada"]
    store.edit(a, {"label": None})  # the anchor
    assert [store.get(one).details.label for one in (a, b, c, d)] == [None, "bob", "ada", "ada"]


def test_names_that_differ_by_spelling_alone_are_found(store, identities):
    enrol(store, ["Åsa", "bob"])
    assert [name for _, name in identities.similar("A\u030asa")] == ["Åsa"]
    assert [name for _, name in identities.similar("BOB ")] == ["bob"]
    assert identities.similar("bob") == []
