"""The room that is kept back on a disk."""

import hashlib

import numpy as np
import pytest

from service.fields import Filter
from service.gallery.space import RESERVE
from service.records import Details, Medium, NewItem
from service.storage.database import Database
from service.storage.models import Models
from service.storage.store import Store


@pytest.mark.slow
def test_what_thousands_of_deletions_write_has_room_in_it(tmp_path):
    random = np.random.default_rng(0)
    vectors = random.standard_normal((9000, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Database(tmp_path) as database:
        Models(database).bind("model", 384, {})
        store = Store(database)
        for start in range(0, len(vectors), 1000):
            store.enrol(
                [
                    NewItem(
                        Medium(hashlib.sha256(bytes([i % 256, i // 256])).hexdigest(), 8, 8, f"{i}.jpg"),
                        vectors[i],
                        Details(),
                    )
                    for i in range(start, start + 1000)
                ]
            )
    with Database(tmp_path) as database:  # which begins with an empty log
        store, before = Store(database), (tmp_path / "gallery.db").stat().st_size
        for _ in range(8):
            store.delete(store.first_until(Filter(), 10**9, 1000))
        grown = (tmp_path / "gallery.db").stat().st_size - before + (tmp_path / "gallery.db-wal").stat().st_size
        assert store.count(Filter()) == 1000
    assert 8 * 2**20 < grown < RESERVE, "or it says nothing, or a full disk could not be emptied"
