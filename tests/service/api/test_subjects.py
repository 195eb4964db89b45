"""Subjects: the photos of a search, kept for a while, for those who see what their sender sees."""

import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from service.api.app import create_app
from service.gallery import subjects as subjects_module
from service.records import Cause, Details, NewKey, Upload
from service.settings import Settings
from service.storage.keys import Keys
from service.upkeep.erase import erase

ADMIN = "k" * 32


@pytest.fixture
def ask(gallery, runner):
    """A function that sends a request with a key: of an admin, or of a reader of all cameras, of one, or of two."""
    made = {"all": None, "north": {"north"}, "both": {"north", "south"}, "south": {"south"}}
    keys = Keys(gallery.database)
    secrets = {
        name: keys.add(NewKey(name, frozenset({"read"}), cameras and frozenset(cameras)))[1]
        for name, cameras in made.items()
    }
    settings = Settings(checkpoint="unused", gallery="unused", require_keys=True, admin_key=ADMIN, subject_mb=0.01)
    with TestClient(create_app(gallery, runner, settings)) as client:

        def send(method, path, key="admin", **sent):
            return client.request(method, path, headers={"X-API-Key": {**secrets, "admin": ADMIN}[key]}, **sent)

        yield send


def files(*photos):
    return [("image", (f"{place}.png", photo)) for place, photo in enumerate(photos)]


def kept(ask, *photos, key="admin", **form):
    answer = ask("POST", "/v1/subjects", key, files=files(*photos), data=form)
    assert answer.status_code == 201, answer.text
    return answer.json()


def scores(answer):
    assert answer.status_code == 200, answer.text
    return [(one["item_id"], pytest.approx(one["score"], abs=1e-6)) for one in answer.json()["matches"]]


def test_a_kept_subject_is_searched_for_as_its_photos_are(ask, gallery, picture):
    gallery.enrol([Upload(f"{number}.png", picture(number), Details()) for number in range(9)])
    photos, boxes = [picture(1), picture(2)], ["", "2,3,10,20"]
    sent = scores(ask("POST", "/v1/query", files=files(*photos), data={"box": boxes}))
    subject = kept(ask, *photos, box=boxes)
    asked = {"subject_id": subject["subject_id"]}
    assert scores(ask("POST", "/v1/query", "all", data=asked)) == sent
    assert [photo["box"] for photo in subject["photos"]] == [None, [2, 3, 10, 20]]
    assert ask("GET", f"/v1/subjects/{subject['subject_id']}", "all").json() == subject
    # Another box may be drawn on it later, one for each photo.
    whole = scores(ask("POST", "/v1/query", files=files(*photos)))
    assert scores(ask("POST", "/v1/query", data={**asked, "box": ["", ""]})) == whole != sent
    few = ask("POST", "/v1/query", data={**asked, "box": ["1,1,5,5"]})
    assert (few.status_code, few.json()["code"]) == (422, "unusable_box")
    assert ask("POST", "/v1/query", data={**asked, "item_id": "x"}).status_code == 422


def test_its_photo_has_the_pixels_and_no_metadata(ask):
    exif = Image.Exif()
    exif[0x9286] = "a secret"
    written = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(written, "PNG", exif=exif)
    subject = kept(ask, written.getvalue())
    answer = ask("GET", subject["photos"][0]["image_url"], "all")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")), pixels)
    assert b"secret" not in answer.content
    assert "immutable" in answer.headers["cache-control"] and "private" in answer.headers["cache-control"]
    assert ask("GET", subject["photos"][0]["image_url"][:-1] + "1").status_code == 404


def test_what_cannot_be_used_is_named_and_the_rest_is_kept(ask, picture):
    photos = [("image", ("a.png", picture(1))), ("image", ("notes.txt", b"no")), ("image", ("b.png", picture(2)))]
    answer = ask("POST", "/v1/subjects", files=photos)
    assert answer.status_code == 207
    assert [photo["filename"] for photo in answer.json()["photos"]] == ["a.png", "b.png"]
    [refused] = answer.json()["refused"]
    assert (refused["index"], refused["filename"], refused["error"]["code"]) == (1, "notes.txt", "unknown_format")
    nothing = ask("POST", "/v1/subjects", files=photos[1:2])
    assert (nothing.status_code, nothing.json()["detail"][:10]) == (415, "notes.txt:")
    outside = ask("POST", "/v1/subjects", files=photos[:1], data={"box": ["0,0,99,99"]})
    assert (outside.status_code, outside.json()["code"]) == (422, "unusable_box")


def test_it_is_there_for_those_who_see_all_that_its_sender_sees(ask, picture):
    seen_by = {"all": {"all", "admin"}, "both": {"all", "admin", "both"}, "north": {"all", "admin", "both", "north"}}
    for sender, seers in seen_by.items():
        subject_id = kept(ask, picture(1), key=sender)["subject_id"]
        for key in ("all", "admin", "both", "north", "south"):
            there = 200 if key in seers else 404
            assert ask("GET", f"/v1/subjects/{subject_id}", key).status_code == there
            assert ask("GET", f"/v1/subjects/{subject_id}/photos/0", key).status_code == there
            assert ask("POST", "/v1/query", key, data={"subject_id": subject_id}).status_code == there
            assert ask("DELETE", f"/v1/subjects/{subject_id}", key).status_code == (204 if key == "admin" else 403)
            if key == "admin":
                subject_id = kept(ask, picture(1), key=sender)["subject_id"]


def test_it_is_enrolled_without_being_sent_again(ask, gallery, picture):
    subject = kept(ask, picture(1), picture(2), box=["", "2,3,10,20"])
    path, said = f"/v1/subjects/{subject['subject_id']}/items", {"label": "ada", "camera": "gate"}
    assert ask("POST", path, "all", json=said).status_code == 403
    answer = ask("POST", path, json=said)
    assert answer.status_code == 201, answer.text
    items = [result["item"] for result in answer.json()["results"]]
    assert [(item["label"], item["camera"], item["box"]) for item in items] == [
        ("ada", "gate", None),
        ("ada", "gate", [2, 3, 10, 20]),
    ]
    again = ask("POST", path, json={**said, "boxes": [None, None]}).json()["results"]
    assert [result["result"] for result in again] == ["existing", "created"]
    assert gallery.store.find([items[0]["item_id"]])[0].medium.source == "0.png"


def test_it_goes_when_its_time_is_over_for_want_of_room_and_on_wish(ask, gallery, picture, monkeypatch):
    folder = gallery.folder / "subjects"
    first, second = (kept(ask, picture(number))["subject_id"] for number in (1, 2))
    assert ask("DELETE", f"/v1/subjects/{first}").status_code == 204
    assert [path.name for path in folder.iterdir()] == [second]
    assert {operation.kind for operation in gallery.store.operations()} >= {"subject.create", "subject.delete"}
    for number in range(8):  # of some 2 KB each, where the settings above leave 10
        last = kept(ask, picture(number))["subject_id"]
    assert not (folder / second).exists() and (folder / last).exists()
    assert sum(path.stat().st_size for path in folder.glob("*/*")) < 0.01 * 2**20

    class Later(datetime):
        @classmethod
        def now(cls, zone):
            return datetime.now(zone) + timedelta(days=7, seconds=1)

    monkeypatch.setattr(subjects_module, "datetime", Later)
    assert ask("GET", f"/v1/subjects/{last}").status_code == 404
    (folder / ".unfinished.tmp").mkdir()  # of a kill, and by now old
    assert gallery.subjects.prune(10**9) > 1
    assert list(folder.iterdir()) == []


def test_an_erasure_reaches_it(ask, gallery, picture, tmp_path):
    item = gallery.enrol([Upload("a.png", picture(1), Details())])[0].item
    gone, stays = (kept(ask, picture(number))["subject_id"] for number in (1, 2))
    receipt = erase(gallery.database, gallery.holdings, [item.item_id], tmp_path / "backups", Cause("admin"))
    assert receipt["gallery"]["subjects"] == 1
    assert ask("GET", f"/v1/subjects/{gone}").status_code == 404
    assert ask("GET", f"/v1/subjects/{stays}").status_code == 200
    assert datetime.fromisoformat(ask("GET", f"/v1/subjects/{stays}").json()["expires_at"]) > datetime.now(UTC)
