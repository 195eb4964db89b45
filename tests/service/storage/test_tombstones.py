"""What was deleted is known again, by nobody but who has the photo."""

from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy import insert, select, text

from service.records import Crop, Medium, NewItem, Region
from service.storage import tables
from service.storage.models import Models
from service.storage.store import Store
from service.storage.tombstones import Tombstones

BOX = Region(1, 2, 3, 4)
CROPS = [Crop("a" * 64), Crop("a" * 64, BOX), Crop("a" * 64, Region(1, 2, 3, 4, 5)), Crop("b" * 64)]


def new(crop):
    return NewItem(Medium(crop.sha256, 900, 900), np.eye(4, dtype=np.float32)[0], region=crop.region)


@pytest.fixture
def store(database):
    Models(database).bind("m", 4, {})
    return Store(database)


def test_what_is_deleted_is_known_by_content_box_and_frame_until_it_is_enrolled_again(database, store):
    tombstones = Tombstones(database)
    assert tombstones.of_crops(CROPS) == {}
    ids = [enrolled.item.item_id for enrolled in store.enrol([new(crop) for crop in CROPS])]
    before = datetime.now(UTC)
    store.delete([ids[1], ids[3]])
    found = tombstones.of_crops([*CROPS, Crop("c" * 64)])
    assert found.keys() == {CROPS[1], CROPS[3]}
    assert all(before <= when <= datetime.now(UTC) for when in found.values())
    assert tombstones.of_photos(["a" * 64, "b" * 64, "c" * 64]).keys() == {"a" * 64, "b" * 64}
    store.enrol([new(CROPS[1])])
    assert tombstones.of_crops(CROPS).keys() == {CROPS[3]}
    assert tombstones.of_photos(["a" * 64, "b" * 64]).keys() == {"b" * 64}


def test_a_box_that_agrees_is_known_and_enrolled_again_in_its_place(database, store):
    """Boxes of a detector move by a pixel where they are written to a table with fewer digits."""
    box, nearly, other = Region(100, 100, 200, 400), Region(101, 102, 200, 400), Region(103, 100, 200, 400)
    crops = [Crop("a" * 64, region) for region in (box, nearly, other, Region(100, 100, 200, 400, 7), None)]
    tombstones = Tombstones(database)
    [enrolled] = store.enrol([new(crops[0])])
    store.delete([enrolled.item.item_id])
    assert tombstones.of_crops(crops).keys() == set(crops[:2])
    store.enrol([new(crops[2])])
    assert tombstones.of_crops(crops).keys() == set(crops[:2])
    store.enrol([new(crops[1])])
    assert tombstones.of_crops(crops) == {}


def test_nobody_learns_from_them_what_was_there(database, store):
    [enrolled] = store.enrol([new(CROPS[0])])
    store.delete([enrolled.item.item_id])
    kept = repr(database.read(select(tables.tombstones)))
    assert "a" * 64 not in kept
    with database.transaction() as connection:
        connection.execute(text("UPDATE secrets SET value = :other"), {"other": "0" * 64})
    assert Tombstones(database).of_crops(CROPS) == {}, "found without the key"


def test_one_unknown_picture_does_not_have_the_log_read(database, store, monkeypatch):
    [enrolled] = store.enrol([new(CROPS[0])])
    store.delete([enrolled.item.item_id])
    asked, read = [], database.read
    monkeypatch.setattr(database, "read", lambda statement: (asked.append(str(statement)), read(statement))[1])
    assert Tombstones(database).of_photos(["a" * 64])
    assert asked and not any("operations" in statement for statement in asked)


def test_what_an_earlier_version_deleted_is_known_from_its_log(database, store):
    item = '{{"number": {}, "sha256": "{}"{}}}'
    rows = [  # version 3 had no boxes
        ("item.enrol", None, item.format(1, "a" * 64, "")),
        ("item.delete", item.format(1, "a" * 64, ""), None),
        ("item.enrol", None, item.format(2, "a" * 64, ', "box": null, "frame": null')),
        ("item.delete", item.format(3, "a" * 64, ', "box": [1, 2, 3, 4], "frame": null'), None),
        ("item.delete", item.format(4, "b" * 64, ', "box": null, "frame": null'), None),
    ]
    shared = {"time": 5, "actor": "", "request_id": "", "batch_id": "", "target": "x"}
    with database.transaction() as connection:
        for kind, before, after in rows:
            connection.execute(insert(tables.operations).values(kind=kind, before=before, after=after, **shared))
    assert Tombstones(database).of_crops(CROPS).keys() == {CROPS[1], CROPS[3]}
