"""What a key for some cameras may know of the items of others: nothing."""

import re
from itertools import pairwise

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.api.cursors import Cursors
from service.records import Caller, Details, ModelMismatch, NewKey, Upload
from service.settings import Settings
from service.storage.keys import Keys

ADMIN = "k" * 32
EVERYTHING = Caller("admin", frozenset({"admin"}))
NORTH = Caller("n", frozenset({"read"}), frozenset({"north"}))


@pytest.fixture
def ask(gallery, runner):
    """A function that sends a request with the key for camera north, or as somebody else."""
    _, secret = Keys(gallery.database).add(NewKey("n", frozenset({"write"}), frozenset({"north"})))
    settings = Settings(checkpoint="unused", gallery="unused", require_keys=True, admin_key=ADMIN)
    with TestClient(create_app(gallery, runner, settings)) as client:

        def send(method, path, key=secret, **sent):
            headers = {**({"X-API-Key": key} if key else {}), **sent.pop("headers", {})}
            return client.request(method, path, headers=headers, **sent)

        yield send


@pytest.fixture
def south(gallery, picture):
    """An item of another camera, whose key and photo somebody else may try."""
    uploaded = Upload("secret-place/s.png", picture(1), Details(camera="south", key="visit", label="ada"))
    return gallery.enrol([uploaded])[0].item


def form(data, *said):
    return {"files": [("images", ("a.png", data))], "data": {"metadata": f"[{', '.join(said)}]"}}


def says_nothing_of(south, text):
    # As words, for ids in hexadecimal may have the letters of a name.
    return not any(re.search(rf"\b{secret}\b", text) for secret in (south.item_id, "south", "secret-place", "ada"))


def test_a_photo_of_another_camera_is_refused_without_a_word_of_it(ask, south, picture):
    answer = ask("POST", "/v1/items", **form(picture(1), '{"camera": "north"}'))
    result = answer.json()["results"][0]
    assert (answer.status_code, result["result"], result["item"]) == (207, "error", None)
    assert (result["error"]["status"], result["error"]["code"]) == (409, "conflict")
    assert says_nothing_of(south, answer.text)


def test_so_is_its_key(ask, south, picture):
    answer = ask("POST", "/v1/items", **form(picture(2), '{"camera": "north", "key": "visit"}'))
    assert answer.json()["results"][0]["error"]["code"] == "conflict"
    assert says_nothing_of(south, answer.text)
    mine = ask("POST", "/v1/items", **form(picture(2), '{"camera": "north"}')).json()["results"][0]["item"]
    changed = ask("PATCH", f"/v1/items/{mine['item_id']}", json={"key": "visit"})
    assert (changed.status_code, changed.json()["code"]) == (409, "conflict")
    assert says_nothing_of(south, changed.text)
    # Who sees the other is told which it is.
    told = ask("PATCH", f"/v1/items/{mine['item_id']}", ADMIN, json={"key": "visit"})
    assert south.item_id in told.json()["detail"]


def test_measurements_count_everything(ask):
    refused = ask("GET", "/metrics")
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert ask("GET", "/metrics", ADMIN).status_code == 200


def test_readiness_is_told_to_everybody_and_counts_to_those_who_see_them(ask, gallery, south, picture):
    gallery.enrol([Upload("n.png", picture(2), Details(camera="north"))])
    unknown = ("model_id", "items", "trained_on", "runtime", "classifier")
    nothing = {"status": "ready", "reasons": []} | dict.fromkeys(unknown)
    for key in (None, "wrong" * 8):
        assert ask("GET", "/health/ready", key).json() == nothing
    assert ask("GET", "/health/ready").json()["items"] == 1
    told = ask("GET", "/health/ready", ADMIN).json()
    assert (told["items"], told["model_id"]) == (2, gallery.model_id)


def test_why_it_is_not_ready_is_told_to_those_with_a_key(ask, gallery, monkeypatch):
    def refuse(worker):
        raise ModelMismatch("the gallery is of model-7")

    monkeypatch.setattr(type(gallery.worker), "require_model", refuse)
    unknown = ask("GET", "/health/ready", None)
    assert (unknown.status_code, unknown.json()["code"]) == (503, "model_mismatch")
    assert "model-7" not in unknown.text
    assert "model-7" in ask("GET", "/health/ready").text


def test_pages_can_be_turned_and_say_nothing_of_what_lies_between(ask, gallery, picture):
    cameras = ["north", "south", "south", "north", "north", "south", "north"]
    uploads = [Upload(f"{n}.png", picture(n), Details(camera=camera, key=str(n))) for n, camera in enumerate(cameras)]
    numbers = {one.item.details.key: one.item.number for one in gallery.enrol(uploads)}
    seen, cursors, cursor = [], [], 0
    while cursor is not None:
        page = ask("GET", f"/v1/items?limit=1&cursor={cursor}").json()
        seen += [item["key"] for item in page["items"]]
        cursor = page["next_cursor"]
        cursors.append(cursor)
    assert seen == ["0", "3", "4", "6"]
    assert not set(cursors) & set(numbers.values())
    assert ask("GET", "/v1/items?limit=1", ADMIN).json()["next_cursor"] == numbers["0"]


def test_the_name_of_a_photo_that_others_have_too_is_not_told(ask, south, picture):
    answer = ask("POST", "/v1/items", **form(picture(1), '{"camera": "north", "boxes": [[0, 0, 8, 8]]}'))
    item = answer.json()["results"][0]["item"]
    path = f"/v1/items/{item['item_id']}"
    answers = [answer, ask("GET", path), ask("PATCH", path, json={"label": "mine"}), ask("GET", "/v1/items")]
    answers.append(ask("POST", "/query", data={"item_id": item["item_id"]}))
    answers.append(ask("POST", "/query", files=[("image", picture(1))]))
    identity = ask("GET", path).json()["identity_id"]
    answers.append(ask("GET", f"/v1/identities/{identity}"))
    assert [one.status_code for one in answers] == [201] + [200] * 6
    assert [one.text for one in answers if "secret-place" in one.text] == []
    assert answers[1].json()["source"] == ""
    assert ask("GET", path, ADMIN).json()["source"] == "secret-place/s.png"
    assert ask("DELETE", f"/v1/items/{south.item_id}", ADMIN).status_code == 204
    mine = ask("POST", "/v1/items", **form(picture(2), '{"camera": "north"}')).json()["results"][0]["item"]
    assert mine["source"] == "a.png"


def test_the_decisions_of_others_are_neither_told_nor_counted(ask, gallery, picture):
    cameras = ["north", "south"] * 4
    items = [
        one.item
        for one in gallery.enrol([Upload("", picture(n), Details(camera=camera)) for n, camera in enumerate(cameras)])
    ]
    north, south = items[::2], items[1::2]
    for pair in [south[:2], south[1:3], north[:2], south[2:], north[1:3], north[2:]]:
        a, b = (item.item_id for item in pair)
        assert ask("POST", "/v1/decisions", ADMIN, json={"decisions": [{"a": a, "b": b, "answer": "same"}]}).is_success
    pages, cursor = [], 0
    while cursor is not None:
        pages.append(ask("GET", f"/v1/decisions?limit=1&cursor={cursor}").json())
        cursor = pages[-1]["next_cursor"]
    shown = [one for page in pages for one in page["decisions"]]
    assert [(one["a"], one["b"]) for one in shown] == [tuple(item.item_id for item in pair) for pair in pairwise(north)]
    assert [len(page["decisions"]) for page in pages] == [1, 1, 1]
    assert {one["number"] for one in shown}.isdisjoint(range(10))
    identity = ask("GET", f"/v1/items/{north[0].item_id}").json()["identity_id"]
    detail = ask("GET", f"/v1/identities/{identity}").json()
    assert [one["number"] for one in detail["decisions"]] == [one["number"] for one in shown]
    everything = ask("GET", "/v1/decisions?limit=4", ADMIN).json()
    assert ([one["number"] for one in everything["decisions"]], everything["next_cursor"]) == ([1, 2, 3, 4], 4)


def test_a_cursor_is_a_permutation_that_only_the_gallery_knows():
    one, other = Cursors("a"), Cursors("b")
    numbers = [*range(1, 2000), 2**40, 2**52 - 1]
    written = [one.written(number, NORTH) for number in numbers]
    assert [one.read(cursor, NORTH) for cursor in written] == numbers
    assert len(set(written)) == len(numbers) and all(0 < cursor < 2**52 for cursor in written)
    assert sum(a == b for a, b in zip(written, (other.written(n, NORTH) for n in numbers), strict=True)) == 0
    differences = {later - earlier for earlier, later in pairwise(written)}
    assert len(differences) == len(numbers) - 1
    assert [one.written(5, EVERYTHING), one.read(5, EVERYTHING)] == [5, 5]
    assert [one.read(cursor, NORTH) for cursor in (0, 2**52, 2**63 - 1)] == [0, 2**52, 2**63 - 1]


def test_a_repetition_tells_how_its_items_are_now(ask, gallery, picture):
    sent = form(picture(1), '{"camera": "north", "label": "ada"}')
    sent["headers"] = {"Idempotency-Key": "once"}
    first = ask("POST", "/v1/items", **sent).json()["results"][0]["item"]
    path = f"/v1/items/{first['item_id']}"

    def again():
        return ask("POST", "/v1/items", **sent).json()["results"][0]

    assert again()["item"] == first
    ask("PATCH", path, json={"label": "bob"})
    assert (again()["result"], again()["item"]["label"]) == ("created", "bob")
    ask("PATCH", path, ADMIN, json={"camera": "south"})
    assert again()["item"] is None
    ask("PATCH", path, ADMIN, json={"camera": "north"})
    assert ask("DELETE", path).status_code == 204
    assert (again()["result"], again()["item"]) == ("created", None)
    assert re.fullmatch("[0-9a-f]{32}", first["item_id"])
