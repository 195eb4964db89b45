"""Shortlists: items put together, for those who see what their maker sees."""

import base64
import csv
import io
import re

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.records import Cause, Details, NewKey, Upload
from service.settings import Settings
from service.storage.keys import Keys
from service.upkeep.erase import erase

ADMIN = "k" * 32


@pytest.fixture
def ask(gallery, runner):
    """A function that sends a request with the key of an admin, or of a writer of all cameras, or of one."""
    keys = Keys(gallery.database)
    made = {"all": None, "north": frozenset({"north"}), "south": frozenset({"south"})}
    secrets = {name: keys.add(NewKey(name, frozenset({"write"}), cameras))[1] for name, cameras in made.items()}
    settings = Settings(checkpoint="unused", gallery="unused", require_keys=True, admin_key=ADMIN)
    with TestClient(create_app(gallery, runner, settings)) as client:

        def send(method, path, key="all", status=200, **sent):
            secret = {**secrets, "admin": ADMIN}[key]
            answer = client.request(method, f"/v1/shortlists{path}", headers={"X-API-Key": secret}, **sent)
            assert answer.status_code == status, answer.text
            return answer

        yield send


@pytest.fixture
def items(gallery, picture):
    """The ids of four items, of north and south by turns; the name of the second is hostile."""
    labels = ["ada", "<script>=1+1", None, "eve"]
    told = [Details(camera=("north", "south")[number % 2], label=label) for number, label in enumerate(labels)]
    uploads = [Upload(f"{number}.png", picture(number), one) for number, one in enumerate(told)]
    return [one.item.item_id for one in gallery.enrol(uploads)]


def ids(answer):
    return [entry["item"]["item_id"] for entry in answer.json()["entries"]]


def test_items_are_put_together_in_an_order_with_notes(ask, items, gallery):
    made = ask("POST", "", status=201, json={"name": "For Monday", "item_ids": items[:2]}).json()
    path = f"/{made['shortlist_id']}"
    assert ids(ask("POST", f"{path}/items", json={"item_ids": [items[0], items[3]]})) == [items[0], items[1], items[3]]
    entries = [{"item_id": items[3], "note": "left ear torn"}, {"item_id": items[1]}]
    changed = ask("PATCH", path, json={"entries": entries, "notes": "Ada?"}).json()
    assert [(one["item"]["item_id"], one["note"]) for one in changed["entries"]] == [
        (items[3], "left ear torn"),
        (items[1], ""),
    ]
    assert ask("GET", path).json() == changed and changed["name"] == "For Monday"
    gallery.delete([items[3]])
    assert ids(ask("GET", path)) == [items[1]]
    [head] = ask("GET", "").json()["shortlists"]
    assert (head["name"], head["notes"], head["items"]) == ("For Monday", "Ada?", 1)
    kinds = [operation.kind for operation in gallery.store.operations() if operation.kind.startswith("shortlist")]
    assert kinds == ["shortlist.create", "shortlist.edit", "shortlist.edit"]
    ask("DELETE", path, status=204)
    ask("GET", path, status=404)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"item_ids": ["gone"]}),
        (422, {"name": " "}),
        (422, {"name": "a", "color": "red"}),
        (422, {"name": "x" * 201}),
    ],
)
def test_what_cannot_be_listed_is_refused(ask, items, status, body):
    ask("POST", "", status=status, json={"name": "a", **body})
    path = f"/{ask('POST', '', status=201, json={'name': 'a'}).json()['shortlist_id']}"
    ask("PATCH", path, status=422, json={"entries": 2 * [{"item_id": items[0]}]})
    ask("PATCH", path, status=404, json={"entries": [{"item_id": "gone"}]})


def test_it_is_there_for_those_who_see_all_that_its_maker_sees(ask, items):
    everything = ask("POST", "", status=201, json={"name": "a", "item_ids": items}).json()["shortlist_id"]
    north = ask("POST", "", "north", 201, json={"name": "n", "item_ids": items[::2]}).json()["shortlist_id"]
    ask("POST", "", "north", 404, json={"name": "n", "item_ids": items[1:2]})
    for method, path, sent in [
        ("GET", "", {}),
        ("GET", "/table", {}),
        ("GET", "/report", {}),
        ("PATCH", "", {"json": {"name": "b"}}),
        ("POST", "/items", {"json": {"item_ids": items[:1]}}),
        ("DELETE", "", {}),
    ]:
        ask(method, f"/{everything}{path}", "north", 404, **sent)
        ask(method, f"/{north}{path}", "south", 404, **sent)
    assert [head["name"] for head in ask("GET", "", "north").json()["shortlists"]] == ["n"]
    assert {head["name"] for head in ask("GET", "").json()["shortlists"]} == {"a", "n"}
    # Somebody who sees more puts another camera's item into it: its maker neither sees that nor takes it out unseen.
    assert len(ids(ask("POST", f"/{north}/items", json={"item_ids": items[1:2]}))) == 3
    assert ids(ask("GET", f"/{north}", "north")) == items[::2]
    ask("PATCH", f"/{north}", "north", 403, json={"entries": []})
    ask("PATCH", f"/{north}", "north", json={"notes": "mine"})


def test_it_is_a_table_and_a_page_of_its_own(ask, items, gallery):
    made = ask("POST", "", status=201, json={"name": "<b>Monday</b>", "item_ids": items}).json()
    path = f"/{made['shortlist_id']}"
    notes = ("=1+1", 'é, "x"', "-5", "\uff1d2")
    entries = [{"item_id": item_id, "note": note} for item_id, note in zip(items, notes, strict=True)]
    ask("PATCH", path, json={"entries": entries})
    table = ask("GET", f"{path}/table")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert table.content.startswith(b"\xef\xbb\xbf")  # by which Excel knows its letters
    rows = list(csv.DictReader(io.StringIO(table.content.decode("utf-8-sig"), newline="")))
    assert [(row["item_id"], row["camera"], row["note"]) for row in rows] == [
        (items[0], "north", "'=1+1"),
        (items[1], "south", 'é, "x"'),
        (items[2], "north", "-5"),  # a number stays one
        (items[3], "south", "'\uff1d2"),
    ]
    report = ask("GET", f"{path}/report").text
    assert "<script" not in report and "<b>Monday" not in report and "&lt;script&gt;" in report
    assert re.findall(r'(?:src|href)=(?!"data:)', report) == [], "something from elsewhere"
    pictures = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]*)", report)]
    assert pictures == [gallery.thumbnail(gallery.store.get(item_id)) for item_id in items]


def test_an_erasure_reaches_it(ask, items, gallery, tmp_path):
    made = ask("POST", "", status=201, json={"name": "a", "item_ids": items}).json()
    entries = [{"item_id": item_id, "note": f"note of {item_id}"} for item_id in items]
    ask("PATCH", f"/{made['shortlist_id']}", json={"entries": entries})
    receipt = erase(gallery.database, gallery.holdings, items[:1], tmp_path / "backups", Cause("admin"))
    assert receipt["gallery"]["shortlists"] == 1
    assert ids(ask("GET", f"/{made['shortlist_id']}")) == items[1:]
    assert items[0].encode() not in (gallery.folder / "gallery.db").read_bytes()
