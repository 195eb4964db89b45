"""Edits of many items in a file and on a server."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
from sqlalchemy import func, select

from service.fields import Filter
from service.records import Cause, Details, Medium, NewItem
from service.storage.bulk_edits import BulkEdits
from service.storage.models import Models
from service.storage.store import Store
from service.storage.tables import decisions

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_edits_of_many_are_counted_kept_and_taken_back(database):
    Models(database).bind("m", 2, {})
    store, edits = Store(database), BulkEdits(database)
    times = [None, datetime(1969, 12, 31, 23, tzinfo=UTC), *(NOON + timedelta(hours=hour) for hour in range(20))]
    photos = [
        NewItem(Medium(f"{number:064x}", 9, 9), np.array([1, 0], "f4"), Details(camera="gate", captured_at=time))
        for number, time in enumerate(times)
    ]
    store.enrol(photos)
    before = store.page(Filter())
    assert store.days(Filter()) == [(date(1969, 12, 31), 1), (date(2024, 5, 1), 12), (date(2024, 5, 2), 8)]
    chosen, changes, day = Filter(cameras=["gate"]), {"label": "ada", "camera": None}, timedelta(days=1)
    dry = edits.edit(chosen, changes, day, Cause(), named=False, dry_run=True)
    assert ((dry.chosen, dry.changed), store.page(Filter())) == ((22, 22), before)
    done = edits.edit(chosen, changes, day, Cause(), named=False, expected=22)
    assert {(one.details.label, one.details.camera) for one in store.page(Filter())} == {("ada", None)}
    assert store.days(Filter(), named=True)[0] == (date(1970, 1, 1), 1)
    assert store.count(Filter(), named=False) == 0
    edits.undo(done.batch_id, lambda camera: True, Cause())
    assert [one.details for one in store.page(Filter(), newest_first=True)] == [one.details for one in before[::-1]]


def test_a_new_name_for_an_individual_takes_a_few_decisions_for_each_photo(database):
    """Its first photo held all others; had it left first, the next would have had to hold them, and so on."""
    Models(database).bind("m", 2, {})
    store, edits = Store(database), BulkEdits(database)
    vector, said = np.array([1, 0], "f4"), Details(label="ada")
    store.enrol([NewItem(Medium(f"{number:064x}", 9, 9), vector, said) for number in range(30)])

    def decided(step):
        before = database.read(select(func.count()).select_from(decisions))[0][0]
        done = step()
        return done, database.read(select(func.count()).select_from(decisions))[0][0] - before

    def shown():
        return {(one.details.label, one.identity_id) for one in store.page(Filter())}

    former = shown()
    done, count = decided(lambda: edits.edit(Filter(), {"label": "eve"}, timedelta(), Cause()))
    assert count <= 3 * 30
    assert [label for label, _ in shown()] == ["eve"]
    _, count = decided(lambda: edits.undo(done.batch_id, lambda camera: True, Cause()))
    assert count <= 3 * 30
    assert shown() == former
