"""Boxes in photos that are enrolled already: another animal in one of them, and searching for it."""

import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service.api.app import create_app
from service.gallery.decoders import Decoders
from service.records import Details, NewKey, Upload
from service.settings import Settings
from service.storage.keys import Keys

BOX, OTHER = [2.0, 3.0, 8.0, 12.0], [9.5, 14.2, 9.1, 15.3]
SAID = {
    "camera": "north",
    "captured_at": "2026-05-03T06:41:09+02:00",
    "site": "river",
    "origin": "2026",
    "latitude": -28.0,
    "longitude": 32.1,
}


@pytest.fixture
def ask(gallery, runner):
    """A function that sends a request with a key: of an admin, of a reader, or of who writes what the north has."""
    keys = Keys(gallery.database)
    made = {
        "read": NewKey("read", frozenset({"read"})),
        "north": NewKey("north", frozenset({"write"}), frozenset({"north"})),
    }
    secrets = {name: keys.add(key)[1] for name, key in made.items()} | {"admin": "k" * 32}
    settings = Settings(checkpoint="unused", gallery="unused", require_keys=True, admin_key="k" * 32)
    with TestClient(create_app(gallery, runner, settings)) as client:

        def send(method, path, key="admin", **sent):
            return client.request(method, path, headers={"X-API-Key": secrets[key]}, **sent)

        yield send


def enrolled(ask, photo, said):
    item = ask("POST", "/v1/items", files=[("images", ("7.png", photo))]).json()["results"][0]["item"]
    changes = {"label": "ada", "viewpoint": "left", "key": "visit", "attributes": {"device": "CAM 7", "sex": "f"}}
    return ask("PATCH", f"/v1/items/{item['item_id']}", json={**said, **changes}).json()


def test_boxes_of_an_enrolled_photo_are_as_if_sent_with_it(ask, gallery, picture):
    item = enrolled(ask, picture(7), SAID)
    wanted = {"boxes": [BOX, {"box": OTHER, "label": "bob"}]}
    answer = ask("POST", f"/v1/items/{item['item_id']}/boxes", "north", json=wanted)
    assert answer.status_code == 201, answer.text
    one, other = answer.json()["results"]
    assert [one["result"], other["result"]] == ["created", "created"]
    for result, label, box in ((one, None, [2, 3, 8, 12]), (other, "bob", [9, 14, 10, 16])):
        made = result["item"]
        assert {name: made[name] for name in SAID} == {name: item[name] for name in SAID}
        assert (made["label"], made["box"], made["media"], made["source"]) == (label, box, item["media"], "7.png")
        assert (made["viewpoint"], made["key"], made["attributes"]) == (None, None, {"device": "CAM 7"})
    # The same pixels as of a file that is sent with its boxes.
    sent = ask("POST", "/v1/query", files=[("image", ("7.png", picture(7)))], data={"box": "2,3,8,12"}).json()
    assert sent["matches"][0]["item_id"] == one["item"]["item_id"]
    assert sent["matches"][0]["score"] == pytest.approx(1, abs=1e-6)
    # What is there is left as it is, and so is one that cannot be.
    again = ask("POST", f"/v1/items/{one['item']['item_id']}/boxes", json={"boxes": [BOX, [15.0, 0.0, 6.0, 5.0]]})
    assert again.status_code == 207
    assert [result["result"] for result in again.json()["results"]] == ["existing", "error"]
    assert again.json()["results"][1]["error"]["code"] == "unusable_box"
    assert len(list((gallery.folder / "pictures").rglob("*.webp"))) == 1


def test_they_are_taken_from_a_photo_as_it_lies(ask, gallery):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying
    written = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (30, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(written, "JPEG", exif=exif)
    photo = written.getvalue()
    item = ask("POST", "/v1/items", files=[("images", ("a.jpg", photo))]).json()["results"][0]["item"]
    assert (item["width"], item["height"]) == (30, 48)
    box = [1.0, 2.0, 25.0, 40.0]  # which the picture that lies has no room for
    made = ask("POST", f"/v1/items/{item['item_id']}/boxes", json={"boxes": [box]}).json()["results"][0]["item"]
    sent = gallery.enrol([Upload("a.jpg", photo, Details(), box=tuple(box))])[0]
    assert (sent.created, sent.item.item_id) == (False, made["item_id"])
    told = ask("POST", "/v1/query", files=[("image", ("a.jpg", photo))], data={"box": ",".join(map(str, box))})
    best = told.json()["matches"][0]
    assert (best["item_id"], best["score"]) == (made["item_id"], pytest.approx(1, abs=1e-6))


def test_a_box_in_an_enrolled_photo_is_searched_for(ask, picture):
    for number in range(5):
        ask("POST", "/v1/items", files=[("images", (f"{number}.png", picture(number)))])
    item = enrolled(ask, picture(7), SAID)
    sent = ask("POST", "/v1/query", files=[("image", ("7.png", picture(7)))], data={"box": "2,3,8,12"}).json()
    asked = ask("POST", "/v1/query", data={"item_id": item["item_id"], "box": "2,3,8,12"}).json()
    scores = [[(match["item_id"], round(match["score"], 5)) for match in one["matches"]] for one in (sent, asked)]
    assert scores[0] == scores[1]
    assert item["item_id"] in [match["item_id"] for match in asked["matches"]]  # another part of it
    whole = ask("POST", "/v1/query", data={"item_id": item["item_id"], "box": ""}).json()
    assert item["item_id"] not in [match["item_id"] for match in whole["matches"]]
    two = ask("POST", "/v1/query", data={"item_id": item["item_id"], "box": ["2,3,8,12", ""]})
    assert (two.status_code, two.json()["detail"]) == (
        422,
        "body: 2 box fields for 1 images, expected one for each or none",
    )


def test_who_may_not_write_or_does_not_see_all_of_a_photo_is_refused(ask, picture):
    item = enrolled(ask, picture(7), SAID)
    path = f"/v1/items/{item['item_id']}/boxes"
    assert ask("POST", path, "read", json={"boxes": [BOX]}).status_code == 403
    assert ask("POST", "/v1/items/none/boxes", json={"boxes": [BOX]}).status_code == 404
    assert ask("POST", path, json={"boxes": []}).status_code == 422
    other = ask("POST", path, json={"boxes": [OTHER]}).json()["results"][0]["item"]
    ask("PATCH", f"/v1/items/{other['item_id']}", json={"camera": "south"})
    hidden = ask("POST", path, "north", json={"boxes": [BOX]})
    assert (hidden.status_code, "south" in hidden.text) == (404, False)
    asked = {"item_id": item["item_id"], "box": "2,3,8,12"}
    assert ask("POST", "/v1/query", "north", data=asked).status_code == 404
    assert ask("POST", "/v1/query", "north", data={"item_id": item["item_id"]}).status_code == 200


def test_the_photo_is_decoded_once_and_not_at_all_for_what_is_there(gallery, picture, monkeypatch):
    [whole] = gallery.enrol([Upload("7.png", picture(7), Details(camera="north"))])
    decoded = []
    submit = Decoders.submit
    monkeypatch.setattr(
        Decoders, "submit", lambda self, share, data, *rest: decoded.append(data) or submit(self, share, data, *rest)
    )
    boxes = [(Details(), tuple(BOX)), (Details(), tuple(OTHER))]
    assert [one.created for one in gallery.enrol_boxes(whole.item, boxes)] == [True, True]
    assert [one.created for one in gallery.enrol_boxes(whole.item, boxes)] == [False, False]
    assert len(decoded) == 1
    assert gallery.worker.size() == 3
