"""Two boxes of one photo are two items, through whatever door they come, and stay so until each is deleted."""

import csv
import io
import json
import math
from concurrent.futures import Future
from threading import Event

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from reid.data.images import decode
from service.api.app import create_app
from service.embed import main as embed_main
from service.enrol import main as enrol_main
from service.fields import Filter
from service.gallery.batcher import Busy
from service.gallery.decoders import Decoders
from service.gallery.search import SearchOptions
from service.opening import open_gallery
from service.records import Details, Region, UnusableBox, Upload
from service.settings import Settings
from service.upkeep.reindex import reindex
from tests.waiting import wait_until

ADA, BOB = (2.0, 3.0, 8.0, 12.0), (9.5, 14.2, 9.1, 15.3)  # the latter is 9,14 to 19,30 in whole pixels
WHOLE = {ADA: Region(2, 3, 8, 12), BOB: Region(9, 14, 10, 16)}


@pytest.fixture
def photo(picture):
    """The bytes of a photo of 20 x 30 pixels."""
    return picture(7)


def crop_by_hand(photo, box):
    x, y, w, h = box
    pixels = np.asarray(Image.open(io.BytesIO(photo)))
    return Image.fromarray(pixels[math.floor(y) : math.ceil(y + h), math.floor(x) : math.ceil(x + w)])


def stored(gallery):
    """The vectors of all items, by their region."""
    items = gallery.store.page(Filter())
    rows = {row.number: row.vector for row in gallery.store.rows(gallery.model_id)}
    return {item.region: rows[item.number] for item in items}


def require_crops(gallery, photo, boxes=(ADA, BOB)):
    """The items are those boxes, with the vectors of what is cropped by hand."""
    found = stored(gallery)
    assert found.keys() == {WHOLE[box] for box in boxes}
    for box in boxes:
        (expected,) = gallery.embedder.embed([crop_by_hand(photo, box)])
        np.testing.assert_allclose(found[WHOLE[box]], expected, atol=1e-6)


def copies(gallery):
    return [path.name for path in (gallery.folder / "pictures").rglob("*.webp")]


def enrol(gallery, photo, *boxes, **said):
    return gallery.enrol([Upload("photo.png", photo, Details(**said), box=box) for box in boxes])


@pytest.fixture
def decoded(monkeypatch):
    """The bytes of the photos that were decoded, one after the other."""
    seen = []
    submit = Decoders.submit
    monkeypatch.setattr(
        Decoders, "submit", lambda self, share, data, *rest: seen.append(data) or submit(self, share, data, *rest)
    )
    return seen


def test_boxes_enrolled_from_python(gallery, photo, decoded):
    ada, bob, again = enrol(gallery, photo, ADA, BOB, (9.9, 14.9, 8.2, 14.6))
    assert decoded == [photo]
    assert (ada.created, bob.created, again.created) == (True, True, False)
    assert again.item == bob.item
    require_crops(gallery, photo)
    (whole,) = gallery.enrol([Upload("photo.png", photo, Details())])
    assert whole.created
    assert whole.item.region is None
    assert [one.created for one in enrol(gallery, photo, ADA, BOB, None)] == [False] * 3
    assert gallery.worker.size() == 3


def test_a_box_that_cannot_be_is_refused_alone(gallery, photo):
    wrong = [(15.0, 0.0, 6.0, 5.0), (0.0, 0.0, 0.0, 5.0), (math.nan, 0.0, 1.0, 1.0), (-0.5, 0.0, 5.0, 5.0)]
    wrong += [(1e308, 0.0, 1e308, 1.0), (0.0, 0.0, math.inf, 1.0), (0.0, 25.0, 5.0, 5.5)]
    good, *refused = enrol(gallery, photo, ADA, *wrong)
    assert good.created
    for box, error in zip(wrong, refused, strict=True):
        assert isinstance(error, UnusableBox), box
        assert str(error).startswith("box ")
    assert str(refused[0]) == "box 15,0,6,5 is not within the picture of 20x30 pixels"
    require_crops(gallery, photo, [ADA])
    (nothing,) = enrol(gallery, photo[:-20] + b"x" * 20, wrong[0])
    assert isinstance(nothing, Exception)
    assert len(copies(gallery)) == 1


def test_a_photo_of_which_no_box_is_taken_leaves_no_picture(gallery, photo):
    enrol(gallery, photo, (15.0, 0.0, 6.0, 5.0))
    assert copies(gallery) == []


def test_a_photo_stays_until_its_last_item_goes(gallery, photo):
    ada, bob = (one.item for one in enrol(gallery, photo, ADA, BOB))
    assert gallery.thumbnail(ada) != gallery.thumbnail(bob)
    assert gallery.delete([ada.item_id]) == [ada]
    assert len(copies(gallery)) == 1
    require_crops(gallery, photo, [BOB])
    assert enrol(gallery, photo, ADA)[0].created
    require_crops(gallery, photo)
    assert len(gallery.delete_matching(Filter(), 2)) == 2
    assert copies(gallery) == []


def test_each_box_is_found_by_the_other_and_not_by_itself(gallery, photo, picture):
    ada, bob = (one.item for one in enrol(gallery, photo, ADA, BOB))
    gallery.enrol([Upload("other.png", picture(1), Details())])
    by_item = gallery.query_item(ada.item_id, SearchOptions())
    assert {match.item.item_id for match in by_item.matches} > {bob.item_id}
    assert ada.item_id not in {match.item.item_id for match in by_item.matches}
    by_box = gallery.query([photo], SearchOptions(), boxes=[ADA])
    assert by_box.matches[0].item == ada
    assert by_box.matches[0].score == pytest.approx(1, abs=1e-5)
    assert [match.item for match in by_box.matches[1:]] == [match.item for match in by_item.matches]
    with pytest.raises(UnusableBox, match="box 15,0,6,5 is not within the picture of 20x30 pixels"):
        gallery.query([photo], SearchOptions(), boxes=[(15.0, 0.0, 6.0, 5.0)])


def test_a_reindex_sees_the_very_crops(checkpoint, another_checkpoint, photo, tmp_path, decoded):
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        enrol(gallery, photo, ADA, BOB)
    with open_gallery(tmp_path / "gallery", another_checkpoint, "cpu") as gallery:
        decoded.clear()
        reindex(gallery, lambda done, total: None)
        assert len(decoded) == 1
        require_crops(gallery, photo)


def test_attention_is_that_of_the_crop(gallery, photo):
    ada, bob = (one.item for one in enrol(gallery, photo, ADA, BOB))
    for item, box in ((ada, ADA), (bob, BOB)):
        shown = gallery.item_attention(item)
        assert shown.size == (item.region.w, item.region.h)
        assert shown.tobytes() == gallery.attention(photo, box).tobytes()
        written = io.BytesIO()
        crop_by_hand(photo, box).save(written, "PNG")
        assert shown.tobytes() == gallery.attention(written.getvalue()).tobytes()


def rows(path, *boxes, **cells):
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, ["path", "label", "x", "y", "w", "h"])
        table.writeheader()
        for box, label in zip(boxes, "ab", strict=True):
            table.writerow({"path": "photo.png", "label": label, **dict(zip("xywh", box, strict=True))})


def test_boxes_of_a_table_and_by_way_of_features(checkpoint, photo, tmp_path, capsys, decoded):
    """Both give the same items and decode the photo once; `reid-enrol` says of a second time that they are there."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "photo.png").write_bytes(photo)
    table = tmp_path / "photos" / "boxes.csv"
    rows(table, ADA, BOB)
    model = ["--checkpoint", str(checkpoint), "--device", "cpu"]
    features = tmp_path / "features"
    assert embed_main([*model, "--output", str(features), str(table)]) == 0
    assert decoded == [photo]
    found = []
    for name, given in {"direct": [*model, str(table)], "imported": ["--features", str(features)]}.items():
        folder = tmp_path / name
        decoded.clear()
        for counts in ("2 enrolled, 0 there before, 0 failed", "0 enrolled, 2 there before, 0 failed"):
            capsys.readouterr()
            assert enrol_main(["--gallery", str(folder), *given]) == 0
            assert counts in capsys.readouterr().out
            assert decoded == [photo]
        with open_gallery(folder, checkpoint, "cpu") as gallery:
            require_crops(gallery, photo)
            assert len(copies(gallery)) == 1
            items = gallery.store.page(Filter())
            found.append({(item.region, item.details.label, item.details.attributes == {}) for item in items})
    assert found[0] == found[1] == {(WHOLE[ADA], "a", True), (WHOLE[BOB], "b", True)}


def test_a_box_of_a_table_that_cannot_be_is_named_with_its_file(checkpoint, photo, tmp_path, capsys):
    (tmp_path / "photo.png").write_bytes(photo)
    rows(tmp_path / "boxes.csv", ADA, (15, 0, 6, 5))
    model = ["--checkpoint", str(checkpoint), "--device", "cpu"]
    line = "photo.png, box 15,0,6,5: box 15,0,6,5 is not within the picture of 20x30 pixels\n"
    assert embed_main([*model, "--output", str(tmp_path / "features"), str(tmp_path / "boxes.csv")]) == 0
    assert line in capsys.readouterr().err
    assert enrol_main(["--gallery", str(tmp_path / "gallery"), "--features", str(tmp_path / "features")]) == 1
    shown = capsys.readouterr()
    assert line in shown.err
    assert "1 enrolled, 0 there before, 1 failed" in shown.out


def test_a_model_that_is_busy_at_a_box_is_asked_for_none(gallery, photo, monkeypatch):
    queued = []

    def embed(image):
        if len(queued) == 2:
            raise Busy(2, 1)
        queued.append(Future())
        return queued[-1]

    monkeypatch.setattr(gallery.worker, "embed", embed)
    with pytest.raises(Busy):
        enrol(gallery, photo, ADA, BOB, (0.0, 0.0, 5.0, 5.0))
    assert [one.cancelled() for one in queued] == [True, True]


def test_a_model_that_is_busy_at_a_photo_is_not_asked_for_the_others(gallery, photo, picture, monkeypatch):
    later, queued, busy = Event(), [], gallery.embedder.prepare(decode(picture(1, 21)))

    def embed(image):
        if gallery.embedder.prepare(image).equal(busy):
            later.wait(1)
            raise Busy(1, 1)
        queued.append(Future())
        later.set()
        return queued[-1]

    monkeypatch.setattr(gallery.worker, "embed", embed)
    with pytest.raises(Busy):
        gallery.enrol([Upload(f"{n}.png", one, Details()) for n, one in enumerate((picture(1, 21), photo))])
    wait_until(lambda: all(one.cancelled() for one in queued))  # the last is decoded first, and was not waited for


@pytest.fixture
def http(gallery, runner, checkpoint):
    """The service of the gallery of the test."""
    settings = Settings(checkpoint=checkpoint, gallery=gallery.folder, allowed_hosts=["testserver"])
    return TestClient(create_app(gallery, runner, settings), raise_server_exceptions=False)


def post(http, photo, said, **headers):
    sent = [("images", ("photo.png", photo))]
    return http.post("/v1/items", files=sent, data={"metadata": json.dumps([said])}, headers=headers)


def test_boxes_over_http(http, gallery, photo):
    said = {"camera": "gate", "label": "ada", "attributes": {"coat": "red"}}
    boxes = [list(ADA), {"box": BOB, "label": "bob", "key": "b", "attributes": {"hat": "none"}}]
    answer = post(http, photo, {**said, "boxes": boxes})
    assert answer.status_code == 201
    ada, bob = answer.json()["results"]
    assert [(one["index"], one["filename"], tuple(one["box"]), one["result"]) for one in (ada, bob)] == [
        (0, "photo.png", ADA, "created"),
        (0, "photo.png", BOB, "created"),
    ]
    assert (ada["item"]["box"], bob["item"]["box"]) == ([2, 3, 8, 12], [9, 14, 10, 16])
    assert (ada["item"]["label"], bob["item"]["label"], bob["item"]["key"]) == ("ada", "bob", "b")
    assert ada["item"]["camera"] == bob["item"]["camera"] == "gate"
    assert bob["item"]["attributes"] == {"coat": "red", "hat": "none"}
    require_crops(gallery, photo)
    again = post(http, photo, {"boxes": [list(ADA)]}).json()["results"]
    assert [(one["result"], one["item"]) for one in again] == [("existing", ada["item"])]


def test_a_wrong_box_over_http_is_refused_alone_and_the_same_again(http, photo):
    said = {"boxes": [list(ADA), [15, 0, 6, 5], [math.nan, 0, 1, 1]]}
    headers = {"Idempotency-Key": "one"}
    answer = post(http, photo, said, **headers)
    assert answer.status_code == 207
    good, outside, infinite = answer.json()["results"]
    assert good["result"] == "created"
    assert (outside["filename"], outside["box"], outside["error"]["code"]) == (
        "photo.png",
        [15, 0, 6, 5],
        "unusable_box",
    )
    assert outside["error"]["detail"] == "box 15,0,6,5 is not within the picture of 20x30 pixels"
    assert infinite["error"]["detail"] == "box nan,0,1,1 is empty or not finite; expected x,y,w,h in pixels"
    assert post(http, photo, said, **headers).json() == answer.json()
    other = post(http, photo, {"boxes": [list(BOB)]}, **headers)
    assert other.status_code == 409


def test_what_are_no_boxes_is_told_of(http, gallery, photo, subtests):
    for said, problem in [
        ({"boxes": []}, "at least 1 item"),
        ({"boxes": [[1, 2, 3]]}, "boxes"),
        ({"boxes": [["1", 2, 3, 4]]}, "boxes"),
        ({"boxes": [{"box": [1, 2, 3, 4], "camera": "gate"}]}, "camera"),
        ({"boxes": [[1, 2, 3, 4]], "key": "a"}, "a key is of one item: expected it with its box, not beside boxes"),
        ({"boxes": [[1, 2, 3, 4]] * 101}, "at most 100 items"),
    ]:
        with subtests.test(problem):
            answer = post(http, photo, said)
            assert answer.status_code == 422
            assert problem in answer.json()["detail"]
            assert gallery.worker.size() == 0


def test_no_more_items_in_a_request_than_may_wait_for_the_model(http, photo):
    said = json.dumps([{"boxes": [[1, 2, 3, 4]] * 100}] * 3)
    answer = http.post("/v1/items", files=[("images", ("a.png", photo))] * 3, data={"metadata": said})
    assert answer.status_code == 422
    assert "300 boxes and whole photos, expected at most 256 in a request" in answer.json()["detail"]


def test_items_of_one_photo_are_listed_and_shown(http, gallery, photo, picture):
    ada, bob = (one.item for one in enrol(gallery, photo, ADA, BOB))
    gallery.enrol([Upload("other.png", picture(1), Details())])
    listed = http.get("/v1/items", params={"limit": 1, "media": ada.medium.sha256}).json()
    rest = http.get("/v1/items", params={"media": ada.medium.sha256, "cursor": listed["next_cursor"]}).json()
    shown = listed["items"] + rest["items"]
    assert [one["item_id"] for one in shown] == [ada.item_id, bob.item_id]
    assert [one["box"] for one in shown] == [[2, 3, 8, 12], [9, 14, 10, 16]]
    assert {one["media"] for one in shown} == {ada.medium.sha256}
    assert rest["next_cursor"] is None
    assert http.get("/v1/items", params={"media": "0" * 64}).json()["items"] == []
    assert http.get("/v1/items", params={"media": "photo"}).status_code == 422
    tags = set()
    for item, box in ((ada, ADA), (bob, BOB)):
        image = http.get(f"/v1/items/{item.item_id}/image")
        tags.add(image.headers["etag"])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(image.content))), np.asarray(crop_by_hand(photo, box)))
        whole = http.get(f"/v1/items/{item.item_id}/image", params={"whole": True})
        assert Image.open(io.BytesIO(whole.content)).size == (20, 30)
        small = http.get(f"/v1/items/{item.item_id}/thumbnail")
        assert Image.open(io.BytesIO(small.content)).size == (item.region.w, item.region.h)
        tags.add(small.headers["etag"])
        seen = http.get(f"/v1/items/{item.item_id}/attention")
        assert Image.open(io.BytesIO(seen.content)).size == (item.region.w, item.region.h)
        tags.add(seen.headers["etag"])
    assert len(tags) == 6


def test_a_box_is_asked_about_over_http(http, gallery, photo, picture):
    ada = enrol(gallery, photo, ADA, BOB)[0].item
    found = http.post("/query", files={"image": ("a.png", photo)}, data={"box": "2,3,8,12"}).json()["matches"]
    assert (found[0]["item_id"], found[0]["box"]) == (ada.item_id, [2, 3, 8, 12])
    assert found[0]["score"] == pytest.approx(1, abs=1e-5)
    two = [("image", ("a.png", photo)), ("image", ("b.png", picture(1)))]
    fused = http.post("/query", files=two, data={"box": ["2,3,8,12", ""]}).json()["matches"]
    expected = gallery.query([photo, picture(1)], SearchOptions(), boxes=[ADA, None]).matches
    assert [(one["item_id"], one["score"]) for one in fused] == [(one.item.item_id, one.score) for one in expected]
    (_, logged) = gallery.queries.page()[:2]
    assert logged.asked.conditions["box"] == ["2,3,8,12", ""]
    refused = http.post("/query", files={"image": ("a.png", photo)}, data={"box": "15,0,6,5"})
    assert (refused.status_code, refused.json()["code"]) == (422, "unusable_box")
    for wrong in ("1,2,3", "a,b,c,d", "1;2;3;4"):
        answer = http.post("/query", files={"image": ("a.png", photo)}, data={"box": wrong})
        assert answer.status_code == 422
        assert "expected a box as x,y,w,h in pixels of the upright picture, as 10,20,64,128" in answer.json()["detail"]
    answer = http.post("/query", files={"image": ("a.png", photo)}, data={"box": ["1,2,3,4", "1,2,3,4"]})
    assert "2 box fields for 1 images, expected one for each or none" in answer.json()["detail"]
    answer = http.post("/query", data={"item_id": ada.item_id, "box": ["1,2,3,4", "1,2,3,4"]})
    assert answer.status_code == 422
    seen = http.post("/v1/attention", files={"image": ("a.png", photo)}, data={"box": "2,3,8,12"})
    assert seen.content == http.get(f"/v1/items/{ada.item_id}/attention").content


def test_boxes_that_agree_within_one_in_a_hundred_are_one_item(gallery, picture):
    photo = picture(3, 300, 400)
    boxes = [(10, 10, 200, 300), (11, 12, 200, 300), (14, 10, 200, 300)]  # of the last an edge is 2 % of a side away
    first, second, third = gallery.enrol([Upload("a", photo, Details(), box=box) for box in boxes])
    assert (first.created, second.created, third.created) == (True, False, True)
    assert second.item.item_id == first.item.item_id
    again, whole = gallery.enrol([Upload("a", photo, Details(), box=(9, 9, 201, 301)), Upload("a", photo, Details())])
    assert (again.item.item_id, again.created, whole.created) == (first.item.item_id, False, True)
