"""What the store is told and what it answers."""

import hashlib
import random
import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError

from service.fields import FIELDS, Filter
from service.records import (
    Cause,
    Conflict,
    Crop,
    Details,
    Enrolled,
    KeyTaken,
    LogPart,
    Medium,
    NewItem,
    NotFound,
    Region,
    UnusableText,
)
from service.storage import tables
from service.storage.models import Models
from service.storage.store import LogEntry, Store

NAMES = ["plain", "Åsa", "日本", "it's", 'say "x"', "x'; DROP TABLE items;--", "a,b%_?:", "🦓"]
TEXTS = [*NAMES, "a,b\n%_?:", "nul\0nul", "", "\u202e"]  # of attributes, which may be what no name is
SIZE = 8


def vector(number):
    drawn = np.random.default_rng(number).standard_normal(SIZE).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


def photo(number, **details):
    """Photo `number`, always the same."""
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    return NewItem(Medium(sha256, 640, 480, str(number)), vector(number), Details(**details))


def cut(number, *box, **details):
    """A region of photo `number`."""
    x, y, w, h, *frame = box
    return replace(photo(number, **details), region=Region(x, y, w, h, *frame), vector=vector(sum(box)))


def enrol(store, *photos, **who):
    return [enrolled.item for enrolled in store.enrol(photos, **who)]


@pytest.fixture
def store(database):
    """An empty gallery that belongs to model `m`."""
    Models(database).bind("m", SIZE, {"features": "sa"})
    return Store(database)


def test_a_gallery_without_model_takes_no_photos(database):
    with pytest.raises(ValueError, match="no model yet"):
        Store(database).enrol([photo(0)])


def test_what_was_enrolled_is_there_after_reopening(reopen, database, store):
    when = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-7)))
    named = [
        {field.name: text for field in FIELDS if field.kind == "name"} | {"key": f"key {text}"} if text in NAMES else {}
        for text in TEXTS
    ]
    sent = [
        photo(n, **said, captured_at=when, attributes={text: [1.5, {"é": text}], "text": text})
        for n, (text, said) in enumerate(zip(TEXTS, named, strict=True))
    ]
    sent.append(photo(len(TEXTS)))
    before = datetime.now(UTC)
    items = enrol(store, *sent)
    database.close()
    with reopen() as database:
        store = Store(database)
        assert store.page(Filter()) == items
        for new, item in zip(sent, items, strict=True):
            assert (item.medium, item.details) == (new.medium, new.details)
            assert before <= item.created_at <= datetime.now(UTC)
            assert store.get(item.item_id) == item
        assert items[0].details.captured_at.utcoffset() == timedelta(hours=-7)
        numbers = [item.number for item in items]
        assert store.get_many([*numbers, 99]) == dict(zip(numbers, items, strict=True))
        assert store.get_many([]) == {}
        chosen = Filter(labels=frozenset(NAMES[:2]))
        assert store.get_many(numbers, chosen) == dict(zip(numbers[:2], items[:2], strict=True))
        assert len({item.item_id for item in items}) == len(items)
        rows = list(store.rows("m"))
        assert [row.number for row in rows] == sorted(numbers)
        for row, new in zip(rows, sent, strict=True):
            assert row.vector.dtype == np.float32
            np.testing.assert_array_equal(row.vector, new.vector)
        exact = (datetime(2024, 3, 1, 6, 59, 59, 999999) - datetime(1970, 1, 1)) // timedelta(microseconds=1)
        assert [row.facts for row in rows] == [
            *(
                {**{name: one for name, one in said.items() if name != "key"}, "captured_at": exact}
                | {"attributes": {"text": text}}
                for text, said in zip(TEXTS, named, strict=True)
            ),
            {},
        ]
        assert list(store.rows("another")) == []


def test_rows_come_in_portions_and_by_number(store, monkeypatch):
    monkeypatch.setattr("service.storage.store.ROWS_AT_ONCE", 3)
    numbers = [item.number for item in enrol(store, *map(photo, range(10)))]
    assert [row.number for row in store.rows("m")] == numbers
    chosen = [numbers[7], numbers[0], 99, numbers[5], numbers[6], numbers[9]]
    assert [row.number for row in store.rows("m", chosen)] == sorted(set(chosen) & set(numbers))
    assert list(store.rows("m", [])) == []
    # A reader that takes its time does not keep anybody from writing.
    rows = store.rows("m")
    next(rows)
    store.delete([store.get_many([numbers[8]])[numbers[8]].item_id])
    assert [row.number for row in rows] == [n for n in numbers[1:] if n != numbers[8]]


def test_a_photo_is_enrolled_once(store):
    [first] = enrol(store, photo(1, key="a", label="Åsa"))
    again = store.enrol([photo(1), photo(2), photo(2, key="b"), photo(1, key="c", label="other")])
    assert [enrolled.created for enrolled in again] == [False, True, False, False]
    assert again[0].item == again[3].item == first
    assert again[1].item == again[2].item
    assert store.count(Filter()) == 2
    assert len(list(store.rows("m"))) == 2


def test_each_region_of_a_photo_is_an_item_once(reopen, database, store):
    sent = [photo(1), cut(1, 0, 0, 5, 5), cut(1, 0, 0, 5, 6), cut(1, 0, 0, 5, 5, 7), cut(2, 0, 0, 640, 480)]
    items = enrol(store, *sent, cut(1, 0, 0, 5, 5, label="again"))
    assert len({item.item_id for item in items}) == 5
    assert items[5] == items[1]
    later = store.enrol([*reversed(sent), cut(1, 1, 0, 5, 5)])
    assert [enrolled.created for enrolled in later] == [False] * 5 + [True]
    assert [enrolled.item for enrolled in later[:5]] == [*reversed(items[:5])]
    database.close()
    with reopen() as database:
        store = Store(database)
        assert [item.region for item in store.page(Filter())] == [
            *(new.region for new in sent),
            Region(1, 0, 5, 5),
        ]
        assert store.of_photo(sent[0].medium.sha256) == [*items[:4], later[5].item]
        assert store.of_photo(sent[0].medium.sha256, Filter(cameras=frozenset({"c"}))) == []
        wanted = [new.crop for new in sent] + [Crop(sent[4].medium.sha256), Crop("stranger")]
        assert store.by_crop(wanted) == {item.crop: item for item in items[:5]}
        assert database.read(select(func.count()).select_from(tables.media)) == [(2,)]
        logged = [entry.after for entry in store.operations() if entry.kind == "item.enrol"]
        assert [(entry["box"], entry["frame"]) for entry in logged[:4]] == [
            (None, None),
            ([0, 0, 5, 5], None),
            ([0, 0, 5, 6], None),
            ([0, 0, 5, 5], 7),
        ]


def test_a_photo_is_there_until_its_last_item_is_gone(store):
    sha256 = photo(1).medium.sha256
    whole, left, right, other = enrol(store, photo(1), cut(1, 0, 0, 5, 5), cut(1, 5, 0, 5, 5), photo(2))
    assert store.delete([whole.item_id, right.item_id]) == [whole, right]
    assert store.contents() == {sha256, other.medium.sha256}
    assert store.of_photo(sha256) == [left]
    [again] = enrol(store, cut(1, 5, 0, 5, 5))
    assert again.number > other.number
    store.delete([left.item_id, again.item_id])
    assert store.contents() == store.contents([sha256, other.medium.sha256]) == {other.medium.sha256}


@pytest.mark.parametrize("region", [(None, None), ("[0, 0, 5, 5]", None), ("[0, 0, 5, 5]", 7)])
def test_the_database_itself_keeps_a_region_from_being_there_twice(database, store, region):
    enrol(store, photo(1), cut(1, 0, 0, 5, 5), cut(1, 0, 0, 5, 5, 7))
    twice = {"item_id": "x", "media_number": 1, "attributes": "{}", "created_at": 0}
    with pytest.raises(IntegrityError), database.transaction() as connection:
        connection.execute(insert(tables.items).values(box=region[0], frame=region[1], **twice))
    with database.transaction() as connection:
        connection.execute(insert(tables.items).values(box=region[0], frame=8, **twice))


@pytest.mark.parametrize(
    "box", [(-1, 0, 5, 5), (0, -1, 5, 5), (636, 0, 5, 5), (0, 476, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0)]
)
def test_a_box_that_is_not_within_its_photo_enrols_nothing(store, box):
    named = ",".join(map(str, box))
    with pytest.raises(ValueError, match=f"^1: box {named} is not within the picture of 640x480 pixels$"):
        store.enrol([photo(0), cut(1, *box)])
    assert store.count(Filter()) == 0


def test_a_key_belongs_to_one_region(store):
    [first] = enrol(store, cut(1, 0, 0, 5, 5, key="a"))
    again, other = store.enrol([cut(1, 0, 0, 5, 5, key="a"), cut(1, 0, 0, 5, 6, key="a")])
    assert again.item == first
    assert str(other) == f"key 'a' belongs to item {first.item_id}, so 1, box 0,0,5,6 cannot have it"


def test_a_key_of_another_photo_is_refused_and_the_rest_enrolled(store):
    [first] = enrol(store, photo(1, key="a"))
    results = store.enrol([photo(2, key="b"), photo(3, key="a", label="new"), photo(4, key="b"), photo(5)])
    assert [type(result) for result in results] == [Enrolled, KeyTaken, KeyTaken, Enrolled]
    assert str(results[1]) == f"key 'a' belongs to item {first.item_id}, so 3 cannot have it"
    assert results[0].item.item_id in str(results[2])
    assert [item.medium.source for item in store.page(Filter())] == ["1", "2", "5"]
    assert "identity.create" not in [operation.kind for operation in store.operations()]


@pytest.mark.parametrize(
    "wrong",
    [
        vector(0)[:-1],
        vector(0)[None],
        vector(0).astype(np.float64),
        vector(0) * np.float32(1.01),
        np.zeros(SIZE, np.float32),
        np.full(SIZE, np.nan, np.float32),
        np.full(SIZE, np.inf, np.float32),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_vector_that_no_engine_takes_enrols_nothing(store, wrong):
    with pytest.raises(ValueError, match=r"^1: the vector is .*; expected \(8,\) float32 of length 1$"):
        store.enrol([photo(0), replace(photo(1), vector=wrong)])
    assert store.count(Filter()) == 0


@pytest.mark.parametrize(
    ("details", "message"),
    [
        ({"captured_at": datetime(2024, 1, 1)}, "2024-01-01T00:00:00 has no time zone"),
        ({"attributes": {"weight": float("nan")}}, "'weight': nan} is not JSON"),
        ({"camera": "file \udcff"}, "'file .udcff' is not valid Unicode"),
        ({"attributes": {"note": "\udcff"}}, "is not valid Unicode"),
    ],
)
def test_details_that_cannot_be_kept_change_nothing(store, details, message):
    [item] = enrol(store, photo(0, label="Åsa"))
    operations = store.operations()
    with pytest.raises(ValueError, match=message):
        store.enrol([photo(1, label="new"), photo(2, **details)])
    with pytest.raises(ValueError, match=message):
        store.edit(item.item_id, {"label": "new", **details})
    assert store.page(Filter()) == [item]
    assert store.operations() == operations


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("nul\0nul", r"'nul.x00nul' holds U\+0000, which a list cannot show as it is"),
        ("a\nb", r"'a.nb' holds U\+000A, which a list cannot show as it is"),
        ("a\u202eb", r"'a.u202eb' holds U\+202E, which a list cannot show as it is"),
        ("", "'' has nothing to be seen; expected a name, or none"),
        (" \u200b", "' .u200b' has nothing to be seen; expected a name, or none"),
    ],
)
@pytest.mark.parametrize("what", ["key", *(field.name for field in FIELDS if field.kind == "name")])
def test_a_name_that_cannot_be_shown_is_refused_and_the_rest_enrolled(store, what, wrong, why):
    results = store.enrol([photo(0), photo(1, **{"label": "new", what: wrong}), photo(2, key="a")])
    assert [type(result) for result in results] == [Enrolled, UnusableText, Enrolled]
    assert re.fullmatch(f"{what} {why}", str(results[1]))
    kept, operations = [results[0].item, results[2].item], store.operations()
    assert "identity.create" not in [operation.kind for operation in operations]
    with pytest.raises(UnusableText, match=f"^{what} {why}$"):
        store.edit(kept[0].item_id, {"label": "new", what: wrong})
    assert store.page(Filter()) == kept
    assert store.operations() == operations


def test_text_that_postgresql_cannot_keep_is_named(database, store):
    [item] = enrol(store, photo(0, key="nul"))
    wrong = "nul\0nul"
    asked = [
        lambda: store.enrol([photo(1, label="new"), replace(photo(2), medium=Medium("0" * 64, 640, 480, wrong))]),
        lambda: store.get(wrong),
        lambda: store.find([item.item_id, wrong]),
        lambda: store.delete([wrong]),
        lambda: store.page(Filter(cameras=frozenset({"c", wrong}))),
    ]
    operations = store.operations()
    for ask in asked:
        if database.shared:
            with pytest.raises(UnusableText, match=r"^'nul.x00nul': PostgreSQL cannot keep text with a NUL"):
                ask()
        else:
            with suppress(NotFound):
                ask()
    assert (store.operations() == operations) == database.shared
    assert store.get(item.item_id).details.key == "nul"


def test_lists_are_longer_than_a_statement_takes_values(store):
    items = enrol(store, *map(photo, range(30)))
    numbers = [item.number for item in items]
    many = [*range(numbers[-1] + 1, 66_000), *numbers]  # PostgreSQL takes 65,535, SQLite half of that
    assert list(store.get_many(many).values()) == items
    assert [row.number for row in store.rows("m", many)] == numbers
    strangers = [f"stranger {n}" for n in range(66_000)]
    assert store.find([items[3].item_id, *strangers, items[1].item_id]) == [items[1], items[3]]
    assert store.by_crop([*map(Crop, strangers), items[2].crop]) == {items[2].crop: items[2]}
    assert store.contents([*strangers, items[2].medium.sha256]) == {items[2].medium.sha256}
    assert store.delete([items[4].item_id, *strangers, items[0].item_id]) == [items[4], items[0]]
    assert store.page(Filter()) == [items[n] for n in range(30) if n not in (0, 4)]


def test_names_are_sorted_by_code_points(store):
    enrol(store, *(photo(n, camera=name, label=name) for n, name in enumerate(["b", "a", "B", "é", "z", "_", *NAMES])))
    expected = [(name, 1) for name in sorted(["b", "a", "B", "é", "z", "_", *NAMES])]
    assert store.cameras(Filter()) == store.labels(Filter()) == expected


def test_counts_join_identities_only_where_they_are_asked_for(database, store, monkeypatch):
    noon = datetime(2024, 5, 12, 12, tzinfo=UTC)
    said = [{"label": "a", "camera": "north"}, {"label": "b", "camera": "north"}, {"camera": "south"}, {}]
    enrol(store, *(photo(number, captured_at=noon, **one) for number, one in enumerate(said)))
    asked, read = [], database.read
    monkeypatch.setattr(database, "read", lambda statement: asked.append(str(statement)) or read(statement))
    of_a = Filter(labels=("a",))
    for count, expected, joined in [
        (lambda: store.cameras(Filter()), [("north", 2), ("south", 1)], False),
        (lambda: store.cameras(of_a), [("north", 1)], True),
        (lambda: store.labels(Filter()), [("a", 1), ("b", 1)], True),
        (lambda: store.days(Filter()), [(noon.date(), 4)], False),
        (lambda: store.days(Filter(), named=False), [(noon.date(), 2)], True),
        (lambda: store.count(Filter()), 4, False),
        (lambda: store.count(Filter(cameras=("north",))), 2, False),
        (lambda: store.count(of_a), 1, True),
        (lambda: store.count(Filter(), named=True), 2, True),
    ]:
        assert count() == expected
        assert ("JOIN identities" in asked.pop()) == joined


def test_an_edit_changes_what_it_names_and_nothing_else(store):
    when = datetime(2024, 1, 1, tzinfo=UTC)
    item, other = enrol(store, photo(1, key="a", camera="c1", label="Åsa", attributes={"x": 1}), photo(2, label="Åsa"))
    assert item.identity_id == other.identity_id is not None
    edited = store.edit(item.item_id, {"label": "new", "captured_at": when})
    assert edited.details == replace(item.details, label="new", captured_at=when)
    assert edited.identity_id not in (None, item.identity_id)
    assert store.get(item.item_id) == edited
    assert replace(edited, details=item.details, identity_id=item.identity_id) == item
    assert store.get(other.item_id) == other
    assert store.edit(item.item_id, {"label": "Åsa"}).identity_id == other.identity_id
    cleared = store.edit(
        item.item_id, {"key": None, "camera": None, "label": None, "captured_at": None, "attributes": {}}
    )
    assert (cleared.details, cleared.identity_id) == (Details(), None)
    [row] = store.rows("m", [item.number])
    assert row.facts == {}
    assert store.edit(other.item_id, {"key": "a"}).details.key == "a"


def test_an_edit_of_nothing_is_no_operation(store):
    [item] = enrol(store, photo(1, key="a", label="Åsa", attributes={"x": [1]}))
    operations = store.operations()
    for changes in [{}, {"key": "a"}, {"label": "Åsa", "camera": None, "attributes": {"x": [1]}}]:
        assert store.edit(item.item_id, changes) == item
    assert store.operations() == operations


def test_an_edit_that_contradicts_is_refused(store):
    first, second = enrol(store, photo(1, key="a"), photo(2, key="b"))
    with pytest.raises(Conflict) as refused:
        store.edit(second.item_id, {"key": "a", "label": "new"})
    assert str(refused.value) == f"key 'a' belongs to item {first.item_id}, so item {second.item_id} cannot have it"
    assert store.get(second.item_id) == second


def test_what_is_not_there_is_named(store):
    for ask in (store.get, lambda item_id: store.edit(item_id, {"label": "x"})):
        with pytest.raises(NotFound, match='no item "it\'s"'):
            ask("it's")


def test_a_deleted_item_is_gone_for_good(reopen, database, store):
    items = enrol(store, *(photo(n, key=str(n), label="Åsa") for n in range(4)))
    last = items[3]
    assert store.delete([last.item_id, items[1].item_id, "never there", last.item_id]) == [last, items[1]]
    assert store.delete([last.item_id]) == []
    with pytest.raises(NotFound):
        store.get(last.item_id)
    assert [row.number for row in store.rows("m")] == [items[0].number, items[2].number]
    database.close()
    with reopen() as database:
        store = Store(database)
        [again] = enrol(store, photo(3, key="3", label="Åsa"))
        assert again.number > last.number
        assert again.item_id != last.item_id
        assert again.identity_id == last.identity_id
        assert store.operations()[-2].before["key"] in ("1", "3")
        left = [items[0].number, items[2].number, again.number]
        for table in (tables.items, tables.media, tables.vectors):
            assert database.read(select(func.count()).select_from(table)) == [(len(left),)]
        assert database.read(select(tables.vectors.c.owner_number).order_by("owner_number")) == [(n,) for n in left]


def test_operations_tell_who_did_what_and_what_was_before(store):
    start = datetime.now(UTC)
    a, b = enrol(store, photo(1, key="a", label="Åsa"), photo(2), cause=Cause("key-1", "r1"))
    store.edit(b.item_id, {"label": "Åsa", "attributes": {"note": "é"}}, Cause("key-2", "r2"))
    store.delete([a.item_id, b.item_id], Cause("key-2", "r3"))
    log = store.operations()
    assert [operation.seq for operation in log] == sorted({operation.seq for operation in log})
    assert all(start <= operation.time <= datetime.now(UTC) for operation in log[1:])
    changed = [(operation.kind, operation.target, operation.actor, operation.request_id) for operation in log[1:]]
    assert changed == [
        ("identity.create", a.identity_id, "key-1", "r1"),
        ("item.enrol", a.item_id, "key-1", "r1"),
        ("item.enrol", b.item_id, "key-1", "r1"),
        ("item.edit", b.item_id, "key-2", "r2"),
        ("item.delete", a.item_id, "key-2", "r3"),
        ("item.delete", b.item_id, "key-2", "r3"),
    ]
    create, enrol_a, enrol_b, edit, delete_a, delete_b = log[1:]
    batches = [operation.batch_id for operation in log[1:]]
    assert batches == [create.batch_id] * 3 + [edit.batch_id] + [delete_a.batch_id] * 2
    assert len(set(batches)) == 3
    assert create.after == {"name": "Åsa"}
    assert enrol_a.before is enrol_b.before is delete_a.after is None
    assert enrol_a.after == delete_a.before
    assert enrol_a.after["sha256"] == a.medium.sha256
    assert edit.before == enrol_b.after
    assert edit.after == delete_b.before
    assert edit.after == {**edit.before, "label": "Åsa", "identity_id": a.identity_id, "attributes": {"note": "é"}}
    assert [operation.seq for operation in store.operations(LogPart(edit.seq, 1))] == [delete_a.seq]


def test_entries_of_the_log_name_the_items_that_changed(database, store):
    assert Store(database).last_entry() == 1  # the model
    a, b = enrol(store, photo(1, label="Åsa"), photo(2))
    store.edit(b.item_id, {"label": "Åsa", "attributes": {"key": "nul\0nul"}})
    store.delete([a.item_id])
    kinds = ["model.bind", "identity.create", "item.enrol", "item.enrol", "item.edit", "item.delete"]
    numbers = [None, None, a.number, b.number, b.number, a.number]
    log = store.operations()
    assert store.entries(0, 100) == [
        LogEntry(entry.seq, kind, frozenset(set() if number is None else {number}))
        for entry, kind, number in zip(log, kinds, numbers, strict=True)
    ]
    assert store.entries(log[1].seq, 2) == store.entries(0, 100)[2:4]
    assert store.entries(store.last_entry(), 10) == []
    assert store.last_entry() == log[-1].seq


def passes(details, chosen):
    """A filter, word by word, by the names of its conditions."""
    for name, asked in chosen.asked.items():
        name, excluded = name.removeprefix("exclude_"), name.startswith("exclude_")
        if name in ("since", "until"):
            time = details.captured_at
            if time is None or (time < asked if name == "since" else time >= asked):
                return False
        elif name == "attributes":
            for attribute, texts in asked.items():
                text = details.attributes.get(attribute)
                if (isinstance(text, str) and text in texts) == excluded:
                    return False
        elif (getattr(details, name.removesuffix("s")) in asked) == excluded:
            return False
    return True


def test_an_attribute_with_a_backslash_before_u0000_is_compared_as_any_other(store):
    """It looks like the escape of a NUL, and is none."""
    said = [{"file": r"D:\u0000123\a.jpg"}, {"file": "D:\\\0"}, {r"\\u0000": r"\\u0000"}, {"file": "plain"}]
    items = enrol(store, *(photo(n, attributes=one) for n, one in enumerate(said)))
    for item, attributes in zip(items, said, strict=True):
        ((name, text),) = attributes.items()
        assert store.page(Filter(attributes={name: [text]})) == [item]
        assert store.count(Filter(exclude_attributes={name: [text]})) == 3


@pytest.mark.parametrize("filters", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_pages_hold_what_passes_the_filter(store, filters):
    draw = random.Random(0)
    zones = [UTC, timezone(timedelta(hours=9, minutes=30))]
    hours = [datetime(2024, 1, 1, hour, tzinfo=zone) for hour in range(6) for zone in zones]

    def some(pool, least=0):
        return frozenset(draw.sample(pool, draw.randint(least, 4)))

    def drawn(field):
        """Something said, and something asked, about a field of the table."""
        if field.kind == "time":
            return draw.choice([None, *hours]), [draw.choice([None, None, *hours]) for _ in field.asked]
        if field.kind == "name":
            return draw.choice([None, *NAMES]), draw.choice([[None, None], [some(NAMES, 1), None], [None, some(NAMES)]])
        odd = ["coat", 'we"ird\\.$', "門", "nul\0"]
        said = {name: draw.choice([*TEXTS, 3, None, True, [TEXTS[0]]]) for name in some(odd)}
        asked = {draw.choice(odd): some([*TEXTS, "3", "true"], 1)}
        return said, draw.choice([[None, None], [asked, None], [None, asked]])

    def detailed():
        return {field.name: drawn(field)[0] for field in FIELDS}

    items = enrol(store, *(photo(n, **detailed()) for n in range(150)))
    sizes = set()
    for _ in range(filters):
        asking = draw.sample(FIELDS, 3)
        asked = {name: one for field in asking for name, one in zip(field.asked, drawn(field)[1], strict=True)}
        chosen = Filter(**asked)
        expected = [item for item in items if passes(item.details, chosen)]
        assert store.count(chosen) == len(expected)
        assert store.page(chosen, limit=1000) == expected
        paged, after = [], 0
        while page := store.page(chosen, after, limit=7):
            assert len(page) <= 7
            paged += page
            after = page[-1].number
        assert paged == expected
        sizes.add(len(expected))
    assert {0, 1} < sizes
    with pytest.raises(ValueError, match="has no time zone"):
        store.count(Filter(since=datetime(2024, 1, 1)))
