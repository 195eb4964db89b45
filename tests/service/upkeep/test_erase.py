"""After an erasure no byte of a photo, or of what was said of it, is found in a gallery's folder or its backups."""

import hashlib
import json
from collections import Counter
from uuid import uuid4

import pytest
from sqlalchemy import select

from service.fields import Filter
from service.gallery.search import SearchOptions
from service.manage import main
from service.opening import open_gallery
from service.records import Cause, Details, LoggedQuery, LogPart, Upload
from service.storage.decisions import NewDecision
from service.storage.identities import Identities
from service.storage.queries import Queries
from service.storage.replies import Replies
from service.storage.tables import replies
from service.upkeep import erase as erase_module
from service.upkeep.backup import back_up
from service.upkeep.erase import _Words, erase

CAUSE = Cause("ada", "r1")
BEHIND = b"of the camera"  # which the copies that are kept leave out
NAME = 'Berta "Bertha" Secret\\'  # which JSON writes in another way


def nothing(done, total):
    pass


def holding(folder, words):
    """The words that any file below a folder, or its name, holds."""
    held = set()
    for path in folder.rglob("*"):
        content = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        held |= {word for word in words if word in content}
    return held


@pytest.fixture
def traced(checkpoint, picture, tmp_path):
    """A gallery with a person of two photos and others, with backups, and all words that lead to that person."""
    folder = tmp_path / "gallery"
    photos = [picture(n) + BEHIND for n in range(2)]
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        said = {"label": NAME, "camera": "gate", "attributes": {"note": "limps-secretly"}}
        uploads = [Upload(f"secret-{n}.png", photos[n], Details(key=f"secret-key-{n}", **said)) for n in range(2)]
        uploads += [Upload(f"{n}.png", picture(n), Details(label="ada", camera="gate")) for n in range(2, 6)]
        items = [one.item for one in gallery.enrol(uploads)]
        gallery.edit(items[0].item_id, {"label": "Berta Hidden"})
        gallery.query([photos[0]], SearchOptions(), CAUSE)
        gallery.query_item(items[1].item_id, SearchOptions(), CAUSE)
        gallery.query_item(items[1].item_id, SearchOptions(), CAUSE, (1.0, 2.0, 9.0, 9.0))
        conditions = {"labels": [NAME], "top_k": 3}
        Queries(gallery.database).append([LoggedQuery(CAUSE, (), None, conditions, 2, ())])
        Replies(gallery.database).keep("ada", "k", "0" * 64, {"items": [items[0].item_id]})
        words = {b"secret-", b"Berta", b"limps-secretly"}
        for item in items[:2]:
            words |= {item.item_id.encode(), item.medium.sha256.encode()}
            copy = gallery.pictures.read(item.medium.sha256)
            words |= {copy[100:160], hashlib.sha256(copy).hexdigest().encode()}
        for row in gallery.store.rows(gallery.model_id, [item.number for item in items[:2]]):
            words.add(row.vector.tobytes()[:64])
        back_up(gallery.database, gallery.pictures, folder / "backups" / "one", nothing)
        gallery.delete([items[0].item_id])  # before anybody asked for more
        back_up(gallery.database, gallery.pictures, folder / "backups" / "two", nothing)
    assert holding(folder, words) == words
    return folder, [item.item_id for item in items], words


def test_no_byte_is_left_in_the_folder_or_its_backups(traced, checkpoint, picture, capsys):
    folder, ids, words = traced
    assert main(["erase", "--gallery", str(folder), *ids[:2]]) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert holding(folder, words) == set()
    assert not list(folder.glob("backups/*/reserve")), "a backup keeps room for deletion"
    assert receipt["gallery"]["items"] == 1 and receipt["gallery"]["replies"] == 1
    assert receipt["gallery"]["labels"] >= 1 and receipt["gallery"]["queries"] == 4
    assert {name: one["items"] for name, one in receipt["backups"].items()} == {"one": 2, "two": 1}
    assert receipt["not_reached"][-1] == "features of reid-embed"
    with open_gallery(folder, checkpoint, "cpu") as gallery:
        assert [item.item_id for item in gallery.store.page(Filter())] == ids[2:]
        assert gallery.query([picture(2)], SearchOptions(top_k=9)).matches[0].item.item_id == ids[2]
        assert gallery.store.operations(LogPart(limit=100))[-1].kind == "gallery.erase"
        [left_out] = gallery.enrol([Upload("0.png", picture(0) + BEHIND, Details())], again=False)
        assert "deleted on" in str(left_out), "it comes back by itself"
        assert main(["check", "--gallery", str(folder)]) == 0


def test_others_of_the_same_photo_and_label_stay(gallery, picture, tmp_path):
    upload = Upload("a.png", picture(0), Details(label="ada"))
    [whole, box] = gallery.enrol([upload, Upload("a.png", picture(0), Details(label="ada"), box=(0, 0, 5, 5))])
    receipt = erase(gallery.database, gallery.holdings, [box.item.item_id], tmp_path / "none", CAUSE)
    assert (receipt["gallery"]["items"], receipt["gallery"]["pictures"], receipt["gallery"]["labels"]) == (1, 0, 0)
    [kept] = gallery.store.page(Filter())
    assert kept == whole.item and gallery.pictures.read(kept.medium.sha256, kept.medium.copy_sha256)
    logged = [change for change in gallery.store.operations() if change.kind.startswith("item.")]
    assert [change.target for change in logged] == [whole.item.item_id, "erased", "erased"]
    assert logged[1].after == {"said": "erased", "number": box.item.number}
    assert hashlib.sha256(picture(0)).hexdigest() == logged[0].after["sha256"]


def test_a_backup_that_cannot_be_opened_is_told_and_keeps_nothing_from_the_others(traced, capsys):
    folder, ids, words = traced
    damaged = folder / "backups" / "a"
    damaged.mkdir()
    (damaged / "gallery.db").write_bytes(b"no database at all")
    assert main(["erase", "--gallery", str(folder), *ids[:2]]) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert holding(folder, words) == set()
    assert list(receipt["backups"]) == ["one", "two"]
    assert receipt["not_reached"][-1].startswith(f"backup a: {damaged / 'gallery.db'}: damaged, or not a gallery")


def test_those_of_whom_nobody_knows_the_name_are_erased(gallery, picture, tmp_path):
    items = [one.item for one in gallery.enrol([Upload(f"{n}.png", picture(n), Details()) for n in range(2)])]
    first, second = (item.item_id for item in items)
    identities = Identities(gallery.database)
    identities.decide([NewDecision(first, second, "same")], CAUSE)
    assert identities.get(gallery.store.get(first).identity_id).name is None
    gallery.edit(first, {"camera": "gate"})  # whose entry in the log tells of the identity
    gallery.query([picture(0)], SearchOptions(), CAUSE)
    receipt = erase(gallery.database, gallery.holdings, [first, second], tmp_path / "none", CAUSE)
    assert (receipt["gallery"]["items"], receipt["gallery"]["labels"]) == (2, 0)


def test_an_item_that_never_was_is_named(gallery, picture, tmp_path):
    [there] = gallery.enrol([Upload("a.png", picture(0), Details())])
    receipt = erase(gallery.database, gallery.holdings, ["typo", there.item.item_id], tmp_path / "none", CAUSE)
    assert receipt["not_reached"][-1] == "item typo: there is none, nor was there before"
    assert receipt["gallery"]["items"] == 1 and there.item.item_id not in str(receipt)


def test_what_is_said_is_read_once_however_many_are_erased(gallery, tmp_path, monkeypatch):
    many = [uuid4().hex for _ in range(1000)]
    said = {"mine": many[999], "in a sentence": f"as item{many[998]}.jpg", "other": {"nothing": uuid4().hex}}
    for key, reply in said.items():
        Replies(gallery.database).keep("ada", key, "0" * 64, {"items": [reply]})
    reads = Counter()

    def count(*given):
        reads[given[1].name] += 1
        return rows(*given)

    rows = erase_module._rows
    monkeypatch.setattr(erase_module, "_rows", count)
    assert erase(gallery.database, gallery.holdings, many, tmp_path / "none", CAUSE)["gallery"]["replies"] == 2
    assert [row[0] for row in gallery.database.read(select(replies.c.idempotency_key))] == ["other"]
    assert reads == {"operations": 1, "queries": 1, "jobs": 1, "replies": 1}


@pytest.mark.parametrize("beside", [0, 100])
def test_few_and_many_words_are_found_alike(beside):
    sought, other = uuid4().hex, uuid4().hex
    words = _Words({sought, *(uuid4().hex for _ in range(beside))}, ["Ann", *(f"n{n}" for n in range(beside)), 'a "b"'])
    found = [sought, f"as {sought}.jpg", f"ab{sought}", "Ann", 'a "b"']
    assert all(words.within(json.dumps({"said": [text]})) for text in found)
    assert not any(words.within(json.dumps({"said": [text]})) for text in (other, "Anna", "n", 'a "c"'))


def test_an_id_in_what_is_said_of_others_goes_too(gallery, picture, tmp_path):
    gone, other = (one.item for one in gallery.enrol([Upload(f"{n}.png", picture(n), Details()) for n in range(2)]))
    gallery.edit(other.item_id, {"attributes": {"note": f"sister of {gone.item_id}", gone.item_id: "twin"}})
    gallery.edit(other.item_id, {"attributes": {"note": "alone"}})
    erase(gallery.database, gallery.holdings, [gone.item_id], tmp_path / "none", CAUSE)
    log = [change for change in gallery.store.operations() if change.target == other.item_id]
    assert gone.item_id not in str(log)
    assert "erased" in str(log[1].after)
    assert log[2].after["attributes"] == {"note": "alone"}
