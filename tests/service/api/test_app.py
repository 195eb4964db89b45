import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from threading import Event

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from reid.data.images import UnusableImage
from reid.evaluate import evaluate
from reid.retrieval.calibration import Calibration
from service.api.app import create_app
from service.fields import FIELDS
from service.gallery.batcher import Busy
from service.opening import open_gallery
from service.records import NewKey
from service.settings import Settings
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.storage.replies import Replies
from service.upkeep.jobs import JobRunner
from service.wire import schemas
from tests.waiting import DEADLINE, wait_until

LIMITS = {"max_body_bytes": 40_000, "max_upload_bytes": 10_000, "max_images": 4, "allowed_hosts": ["testserver"]}


@pytest.fixture
def settings(checkpoint, tmp_path):
    return Settings(checkpoint=checkpoint, gallery=tmp_path / "gallery", **LIMITS)


@pytest.fixture
def client(gallery, runner, settings):
    return TestClient(create_app(gallery, runner, settings), raise_server_exceptions=False)


def files(field, *images):
    return [(field, (f"{i}.png", data)) for i, data in enumerate(images)]


def enrol(client, *images, said=None):
    data = {} if said is None else {"metadata": json.dumps(said)}
    response = client.post("/v1/items", files=files("images", *images), data=data)
    assert response.status_code == 201, response.text
    return [result["item"] for result in response.json()["results"]]


def ask(client, image, **fields):
    response = client.post("/query", files=files("image", image), data=fields)
    assert response.status_code == 200, response.text
    return response.json()


def require_problem(response, status, code):
    """Every refusal has the one shape, and its id is that of the header."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem.keys() == {"type", "title", "status", "detail", "code", "request_id", "errors"}
    assert (problem["type"], problem["status"], problem["code"]) == ("about:blank", status, code)
    assert problem["title"] and problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


def test_one_image_and_nothing_else_is_a_query(client, gallery, picture):
    said = [
        {"key": f"k{i}", "camera": "c", "label": "ada", "captured_at": "2024-05-01T12:00:00+02:00"} for i in range(3)
    ]
    items = enrol(client, *(picture(i) for i in range(3)), said=said)
    answer = ask(client, picture(1))
    told = {"model_id", "took_ms", "filter", "candidates", "verdict", "identity_id", "identity_probability", "matches"}
    assert answer.keys() == told
    assert (answer["model_id"], answer["candidates"], answer["verdict"]) == (gallery.model_id, 3, None)
    assert answer["filter"] == dict.fromkeys(
        name for field in FIELDS if field.kind != "attributes" for name in field.spelled
    )
    assert [match["rank"] for match in answer["matches"]] == [1, 2, 3]
    best = answer["matches"][0]
    assert best.pop("score") == pytest.approx(1, abs=1e-5)
    assert best == {
        "rank": 1,
        "item_id": items[1]["item_id"],
        "key": "k1",
        "probability": None,
        "label": "ada",
        "identity_id": items[1]["identity_id"],
        "identity_probability": None,
        "camera": "c",
        "captured_at": "2024-05-01T12:00:00+02:00",
        "viewpoint": None,
        "site": None,
        "origin": None,
        "latitude": None,
        "longitude": None,
        "box": None,
        "thumbnail_url": f"/v1/items/{items[1]['item_id']}/thumbnail",
    }
    same = client.post("/v1/query", files=files("image", picture(1))).json()
    assert same["matches"][1:] == answer["matches"][1:]


FILTERS = [
    ({}, {0, 1, 2, 3}),
    ({"cameras": "north"}, {0, 1}),
    ({"cameras": ["north", "south"]}, {0, 1, 2}),
    ({"exclude_cameras": "north"}, {2, 3}),
    ({"labels": "ada"}, {0, 2}),
    ({"from": "2024-05-02T00:00:00Z"}, {1, 2}),
    ({"to": "2024-05-02T00:00:00Z"}, {0}),
    ({"from": "2024-05-02T01:00:00+01:00", "to": "2024-05-03T00:00:00Z"}, {1}),
    ({"cameras": "nowhere"}, set()),
    ({"exclude_labels": "ada"}, {1, 3}),
    ({"sites": ["shore", "hill"], "viewpoints": "left"}, {0, 1}),
    ({"exclude_sites": "shore", "exclude_origins": ["trap", "drone"]}, {3}),
    ({"origins": "trap"}, {1, 2}),
    ({"attributes.coat": "red"}, {0, 2}),
    ({"attributes.coat": ["red", "blue"], "attributes.a.b ": "ö=&"}, {1}),
    ({"attributes.age": "3"}, set()),
    ({"exclude_attributes.coat": "red"}, {1, 3}),
]


def test_filters_hold_for_queries_and_for_lists(client, picture, subtests):
    """The photo asked for is that of item 0, which a filter that is ignored would return."""
    said = [
        {
            "camera": "north",
            "label": "ada",
            "captured_at": "2024-05-01T00:00:00Z",
            "site": "shore",
            "viewpoint": "left",
        },
        {"camera": "north", "label": "bob", "captured_at": "2024-05-02T00:00:00Z", "site": "hill", "viewpoint": "left"},
        {"camera": "south", "label": "ada", "captured_at": "2024-05-03T00:00:00Z", "origin": "trap"},
        {},
    ]
    said[0]["attributes"] = {"coat": "red", "age": 3}
    said[1] |= {"origin": "trap", "attributes": {"coat": "blue", "a.b ": "ö=&"}}
    said[2]["attributes"] = {"coat": "red"}
    ids = [item["item_id"] for item in enrol(client, *(picture(i) for i in range(4)), said=said)]
    for fields, expected in FILTERS:
        with subtests.test(fields=fields):
            require_filtered(client, picture, said, ids, fields, expected)


def require_filtered(client, picture, said, ids, fields, expected):
    answer = ask(client, picture(0), **fields)
    assert {ids.index(match["item_id"]) for match in answer["matches"]} == expected
    assert answer["candidates"] == len(expected)
    listed = client.get("/v1/items", params=fields).json()["items"]
    assert {ids.index(item["item_id"]) for item in listed} == expected
    for name, value in fields.items():
        if name not in ("from", "to"):
            assert answer["filter"][name] == ([value] if isinstance(value, str) else sorted(value))
    by_filter = {
        name: [value] if isinstance(value, str) and name not in ("from", "to") else value
        for name, value in fields.items()
    }
    assert client.post("/v1/items/delete", json={"filter": by_filter}).json()["items"] == len(expected)
    for item in answer["matches"]:
        told = said[ids.index(item["item_id"])]
        assert [item[name] for name in ("site", "viewpoint", "origin")] == [
            told.get(name) for name in ("site", "viewpoint", "origin")
        ]


def test_top_k_min_score_several_images_and_items(client, picture):
    items = enrol(client, *(picture(i) for i in range(4)))
    every = ask(client, picture(0))["matches"]
    assert ask(client, picture(0), top_k=2)["matches"] == every[:2]
    assert ask(client, picture(0), min_score=every[1]["score"])["matches"] == every[:2]
    fused = client.post("/query", files=files("image", picture(0), picture(1))).json()["matches"]
    assert {match["item_id"] for match in fused[:2]} == {item["item_id"] for item in items[:2]}
    by_item = client.post("/query", data={"item_id": items[0]["item_id"]}).json()["matches"]
    assert [match["item_id"] for match in by_item] == [match["item_id"] for match in every[1:]]


def test_a_calibration_gives_probabilities_and_a_verdict(gallery, runner, settings, picture):
    levels = np.array([-1.0, 1.0]), np.array([0.1, 0.9])
    calibration = Calibration(*levels, 0.999, 0.5, 0.01, 10, 10, 10, 10, 0.1, 0.1, ())
    client = TestClient(create_app(gallery, runner, settings, calibration))
    assert ask(client, picture(0))["verdict"] is None
    enrol(client, picture(0), picture(1))
    answer = ask(client, picture(0), min_score=1)
    assert answer["verdict"] == "known"
    for match in ask(client, picture(0))["matches"]:
        assert match["probability"] == pytest.approx(0.5 + 0.4 * match["score"])


def test_enrolment_tells_what_became_of_each_file(client, picture):
    enrol(client, picture(0), said=[{"key": "a"}])
    sent = files("images", picture(0), b"no image", picture(1)[:-200], picture(2))
    said = [{}, {}, {}, {"key": "a"}]
    response = client.post("/v1/items", files=sent, data={"metadata": json.dumps(said)})
    assert response.status_code == 207
    results = response.json()["results"]
    assert [result["result"] for result in results] == ["existing", "error", "error", "error"]
    assert [result["index"] for result in results] == [0, 1, 2, 3]
    errors = [result["error"] and (result["error"]["status"], result["error"]["code"]) for result in results]
    assert errors == [None, (415, "unknown_format"), (422, "unusable_image"), (409, "conflict")]
    assert "'a' belongs to item" in results[3]["error"]["detail"]
    assert client.get("/health/ready").json()["items"] == 1


def test_items_are_listed_in_pages_read_edited_and_deleted(client, picture):
    ids = [item["item_id"] for item in enrol(client, *(picture(i) for i in range(4)))]
    seen, cursor = [], 0
    while cursor is not None:
        page = client.get("/v1/items", params={"cursor": cursor, "limit": 3}).json()
        seen += [item["item_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ids
    url = f"/v1/items/{ids[0]}"
    assert client.get(url).json()["source"] == "0.png"
    assert client.get(url).json()["width"] == 20
    edited = client.patch(url, json={"label": "ada", "camera": "n", "attributes": {"age": 3, "n": "é"}}).json()
    assert (edited["label"], edited["camera"], edited["attributes"]) == ("ada", "n", {"age": 3, "n": "é"})
    edited = client.patch(url, json={"label": None}).json()
    assert (edited["label"], edited["camera"]) == (None, "n")
    assert client.get(url).json() == edited
    assert client.delete(url).status_code == 204
    for response in (client.get(url), client.delete(url), client.patch(url, json={}), client.get(f"{url}/image")):
        require_problem(response, 404, "not_found")
    assert ids[0] not in {match["item_id"] for match in ask(client, picture(0))["matches"]}
    client.patch(f"/v1/items/{ids[1]}", json={"key": "k"})
    require_problem(client.patch(f"/v1/items/{ids[2]}", json={"key": "k"}), 409, "conflict")


@pytest.mark.parametrize("name", ["image", "thumbnail", "attention"])
def test_pictures_that_wait_to_be_made_keep_nothing_else_from_being_answered(
    gallery, runner, settings, picture, monkeypatch, name
):
    waiting, free = [], Event()

    def render(*_):
        waiting.append(name)
        assert free.wait(DEADLINE)
        raise UnusableImage("so that it ends")

    with TestClient(create_app(gallery, runner, settings)) as client, ThreadPoolExecutor(50) as pool:
        (item,) = enrol(client, picture(1), said=[{"boxes": [[0, 0, 9, 9]]}])
        monkeypatch.setattr(gallery.holdings.thumbnails, "read", lambda _: None)
        monkeypatch.setattr(gallery.decoders, "render", render)
        asked = [pool.submit(client.get, f"/v1/items/{item['item_id']}/{name}") for _ in range(45)]
        try:
            wait_until(lambda: len(waiting) >= 40)  # as many as there are threads for all routes together
            others = [pool.submit(client.get, path) for path in ("/health/live", "/v1/items", "/")]
            assert [other.result(DEADLINE / 2).status_code for other in others] == [200] * 3
        finally:
            free.set()
        assert {one.result().status_code for one in asked} == {422}


@pytest.mark.parametrize(
    ("name", "media_type", "size"),
    [("image", "png", (400, 600)), ("thumbnail", "jpeg", (171, 256)), ("thumbnail?small=true", "jpeg", (107, 160))],
)
def test_pictures_are_kept_by_browsers_until_they_change(client, name, media_type, size):
    written = io.BytesIO()
    Image.new("RGB", (400, 600), "red").save(written, "PNG")
    (item,) = enrol(client, written.getvalue())
    url = f"/v1/items/{item['item_id']}/{name}"
    response = client.get(url)
    assert Image.open(io.BytesIO(response.content)).size == size
    assert response.headers["content-type"] == f"image/{media_type}"
    assert response.headers["x-content-type-options"] == "nosniff"
    tag = response.headers["etag"]
    for known in (tag, f'"x", W/{tag}', "*"):
        again = client.get(url, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200


def test_limits_of_body_file_and_count(client, picture):
    def endless():
        for _ in range(100):
            yield b"x" * 1000

    form = {"content-type": "multipart/form-data; boundary=b"}
    require_problem(client.post("/query", files=files("image", b"x" * 50_000)), 413, "too_large")
    require_problem(client.post("/query", content=endless(), headers=form), 413, "too_large")
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    chunked = client.post("/query", content=(part for part in [head, *endless()]), headers=form)
    require_problem(chunked, 413, "too_large")
    require_problem(client.post("/query", files=files("image", b"x" * 10_001)), 413, "too_large")
    both = client.post("/v1/items", files=files("images", b"x" * 10_001, picture(3)))
    large, small = both.json()["results"]
    assert (both.status_code, large["error"]["status"], large["error"]["code"]) == (207, 413, "too_large")
    assert small["result"] == "created"
    require_problem(client.post("/query", files=files("image", *[picture(0)] * 5)), 400, "bad_request")
    require_problem(client.patch("/v1/items/x", content=b"[" * (2**20 + 1)), 413, "too_large")
    assert client.post("/query", files=files("image", *[picture(0)] * 4)).status_code == 200


WRONG_QUERIES = [
    ({"camera": "north"}, ["image"], "body.camera"),
    ({"since": "2024-05-01T00:00:00Z"}, ["image"], "body.since"),
    ({"top_k": "0"}, ["image"], "body.top_k"),
    ({"min_score": "nan"}, ["image"], "body.min_score"),
    ({"from": "2024-05-01T00:00:00"}, ["image"], "body.from"),
    ({"from": "20240501"}, ["image"], "body.from"),
    ({"from": "0001-01-01T00:00:00+14:00"}, ["image"], "body.from"),
    ({"cameras": "x" * 201}, ["image"], "body.cameras.0"),
    ({"item_id": "x"}, ["image"], "body"),
    ({}, [], "body"),
    ({"image": "text"}, [], "body.image.0"),
]


def test_a_query_that_is_wrong_names_the_field(client, picture, subtests):
    for data, names, field in WRONG_QUERIES:
        with subtests.test(data=data):
            sent = [(name, ("a.png", picture(0))) for name in names]
            problem = require_problem(client.post("/query", files=sent or None, data=data), 422, "invalid_request")
            assert field in {error["field"] for error in problem["errors"]}


def test_metadata_that_is_wrong_is_refused_before_anything_is_enrolled(client, picture, subtests):
    wrong = ["no json", "{}", "[]", '[{"colour": "red"}]', '[{"attributes": {"a": NaN}}]', '[{"camera": "\\ud800"}]']
    for metadata in wrong:
        with subtests.test(metadata=metadata):
            response = client.post("/v1/items", files=files("images", picture(0)), data={"metadata": metadata})
            require_problem(response, 422, "invalid_request")
            assert client.get("/v1/items").json() == {"items": [], "next_cursor": None}


def test_a_filter_in_the_address_of_a_form_is_refused_and_not_ignored(client, picture):
    for path, field in (("/query", "image"), ("/v1/query", "image"), ("/v1/items", "images")):
        response = client.post(f"{path}?cameras=north", files=files(field, picture(0)))
        problem = require_problem(response, 422, "invalid_request")
        assert problem["detail"] == "query.cameras: expected in the form, not in the address"
    assert client.get("/v1/items").json()["items"] == []


def test_every_other_refusal_has_the_same_shape(client, gallery, runner, picture, monkeypatch):
    require_problem(client.get("/nowhere"), 404, "not_found")
    assert require_problem(client.get("/query"), 405, "method_not_allowed") and client.get("/query").headers["allow"]
    require_problem(client.post("/query", data={"item_id": "nobody"}), 404, "not_found")
    require_problem(client.post("/query", files=files("image", b"text")), 415, "unknown_format")
    several = files("image", picture(0), picture(0)[:-200])
    told = require_problem(client.post("/query", files=several), 422, "unusable_image")
    assert told["detail"].startswith("1.png: the image is damaged or cut short")
    told = require_problem(client.post("/query", files=several[:1], data={"box": "0,0,9999,9"}), 422, "unusable_box")
    assert told["detail"].startswith("0.png: box ")
    require_problem(client.post("/query", headers={"content-type": "multipart/form-data"}), 400, "bad_request")
    require_problem(
        client.patch("/v1/items/x", content=b"{", headers={"content-type": "application/json"}), 422, "invalid_request"
    )
    require_problem(
        client.patch("/v1/items/x", content=b'{"attributes": {"\\ud800": 1}, "\\ud800": 1}'), 422, "invalid_request"
    )
    require_problem(client.get("/v1/items", params={"page": 3}), 422, "invalid_request")

    def fails_with(error):
        def query(*_):
            raise error

        monkeypatch.setattr(gallery, "query", query)
        return client.post("/query", files=files("image", picture(0)))

    busy = fails_with(Busy(256, 7))
    require_problem(busy, 503, "busy")
    assert busy.headers["retry-after"] == "7"
    secret = "/home/ann/secret"
    for error, status, code in [
        (OSError(secret), 503, "storage_failed"),
        (RuntimeError(secret), 500, "internal_error"),
    ]:
        assert secret not in require_problem(fails_with(error), status, code)["detail"]
    runner.close()
    gallery.close()
    require_problem(client.get("/health/ready"), 503, "stopping")
    assert client.get("/health/live").json() == {"status": "live"}


def test_every_answer_carries_the_id_of_its_request_and_the_log_of_changes_too(client, gallery, picture):
    response = client.post("/v1/items", files=files("images", picture(0)))
    request_id = response.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert gallery.store.operations()[-1].request_id == request_id
    assert client.get("/health/live").headers["x-request-id"] != request_id


def test_no_page_fetches_from_elsewhere(client):
    assert client.get("/redoc").status_code == 404
    for path in ("/", "/docs"):
        page = client.get(path).raise_for_status().text
        fetched = re.findall(r"""(?:src|href)=["']?([^"' >]+)""", page)
        assert fetched and not [one for one in fetched if re.match(r"(\w+:)?//", one)], path


def test_the_description_names_every_field_and_every_problem(client):
    description = client.get("/openapi.json").json()
    query = description["paths"]["/query"]["post"]
    assert set(query["responses"]) == {"200", "400", "401", "403", "404", "413", "415", "422", "429", "503"}
    for status in ("400", "422"):
        ((media_type, content),) = query["responses"][status]["content"].items()
        assert media_type == "application/problem+json"
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
    form = description["components"]["schemas"]["QueryForm"]
    assert {"image", "item_id", "top_k", "cameras", "from", "to"} <= form["properties"].keys()
    assert form["additionalProperties"] is False
    assert "HTTPValidationError" not in json.dumps(description)
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(description)):
        assert name in description["components"]["schemas"]


def test_a_deletion_takes_no_value_of_another_type_for_what_it_may_mean(client, picture, subtests):
    enrol(client, picture(0))
    others = {"expected": [True, "1", 1.0], "dry_run": [0, "no", None]}
    for field, value in ((field, value) for field, values in others.items() for value in values):
        with subtests.test(field=field, value=value):
            wanted = {"filter": {}, "dry_run": False, "expected": 1, field: value}
            problem = require_problem(client.post("/v1/items/delete", json=wanted), 422, "invalid_request")
            assert [error["field"] for error in problem["errors"]] == [f"body.{field}"]
            assert len(client.get("/v1/items").json()["items"]) == 1


def test_a_time_is_written_out_and_no_number(client, picture, subtests):
    """Numbers would be seconds since 1970, so that 20240501 became a day in August 1970."""
    (item,) = enrol(client, picture(0))
    for time in ["20240501", "2024", 20240501, 1714521600.5, True, "2024-05-01", "today", "2:3"]:
        with subtests.test(time=time):
            change = client.patch(f"/v1/items/{item['item_id']}", json={"captured_at": time})
            problem = require_problem(change, 422, "invalid_request")
            assert "body.captured_at: " in problem["detail"] and "as 2025-03-01T09:30:00Z" in problem["detail"]
            said = json.dumps([{"captured_at": time}])
            response = client.post("/v1/items", files=files("images", picture(1)), data={"metadata": said})
            require_problem(response, 422, "invalid_request")
            wrong = client.post("/v1/items/delete", json={"filter": {"from": time}})
            require_problem(wrong, 422, "invalid_request")
            assert [one["captured_at"] for one in client.get("/v1/items").json()["items"]] == [None]


def test_items_are_deleted_by_filter_after_a_dry_run(client, picture):
    said = [{"camera": "north" if i % 2 else "south", "label": "ada"} for i in range(4)]
    items = enrol(client, *(picture(i) for i in range(4)), said=said)
    north = {"filter": {"cameras": ["north"]}}

    def delete(**wanted):
        return client.post("/v1/items/delete", json=wanted)

    assert delete(**north).json() == {"dry_run": True, "items": 2}
    require_problem(delete(**north, dry_run=False), 422, "invalid_request")
    require_problem(delete(**north, dry_run=False, expected=3), 409, "conflict")
    require_problem(delete(), 422, "invalid_request")
    require_problem(delete(**north, item_ids=["x"]), 422, "invalid_request")
    assert len(client.get("/v1/items").json()["items"]) == 4
    assert delete(**north, dry_run=False, expected=2).json() == {"dry_run": False, "items": 2}
    assert {match["camera"] for match in ask(client, picture(1))["matches"]} == {"south"}
    ids = [items[0]["item_id"], items[1]["item_id"], "nobody"]
    assert delete(item_ids=ids).json() == {"dry_run": True, "items": 1}
    assert delete(item_ids=ids, dry_run=False).json() == {"dry_run": False, "items": 1}
    assert delete(filter={}).json() == {"dry_run": True, "items": 1}
    assert delete(filter={}, dry_run=False, expected=1).json() == {"dry_run": False, "items": 1}
    assert client.get("/v1/items").json()["items"] == []


def test_cameras_and_labels_are_counted(client, picture):
    said = [{"camera": "a", "label": "x"}, {"camera": "b"}, {"camera": "b", "label": "y"}, {}]
    enrol(client, *(picture(i) for i in range(4)), said=said)
    assert client.get("/v1/cameras").json() == {"cameras": [{"name": "b", "items": 2}, {"name": "a", "items": 1}]}
    labels = client.get("/v1/labels", params={"cameras": "b"}).json()
    assert labels == {"labels": [{"name": "y", "items": 1}]}


def test_a_group_is_answered_by_its_best_item(client, picture):
    said = [{"label": "ada"}, {"label": "ada"}, {"label": "bob"}, {}]
    enrol(client, *(picture(i) for i in range(4)), said=said)
    every = ask(client, picture(1))["matches"]
    best = [match for match in every if match["label"] != "ada" or match["rank"] == 1]
    grouped = ask(client, picture(1), group_by="label")
    assert [match["item_id"] for match in grouped["matches"]] == [match["item_id"] for match in best]
    assert [match["rank"] for match in grouped["matches"]] == [1, 2, 3]
    assert grouped["candidates"] == 4


def test_an_identity_is_answered_by_all_its_photos(client, picture, monkeypatch):
    monkeypatch.setattr("service.gallery.identifying.REST", 0)
    said = [{"label": f"p{i // 4}"} for i in range(44)] + [{}]
    for start in range(0, 45, 3):
        enrol(client, *(picture(i) for i in range(start, start + 3)), said=said[start : start + 3])
        if start == 0:  # of one identity nothing can be learned, and what is learned follows the gallery
            assert ask(client, picture(1), group_by="identity")["matches"][0]["identity_probability"] is None
    answer = ask(client, picture(1), group_by="identity", top_k=12)
    assert len(answer["matches"]) == len({match["identity_id"] for match in answer["matches"]}) == 12
    chances = [match["identity_probability"] for match in answer["matches"]]
    assert chances[:10] == sorted(chances[:10], reverse=True)
    assert chances[10:] == [None, None], "the ten best are in question"
    assert 0 < sum(chances[:10]) < 1
    first = answer["matches"][0]
    assert (answer["identity_id"], answer["identity_probability"]) == (first["identity_id"], chances[0])
    plain = ask(client, picture(1), top_k=12)
    assert (plain["identity_probability"], plain["matches"][0]["identity_probability"]) == (None, None)


def test_attention_of_an_item_and_of_a_photo(client, picture):
    (item,) = enrol(client, picture(1))
    of_item = client.get(f"/v1/items/{item['item_id']}/attention")
    of_photo = client.post("/v1/attention", files=files("image", picture(1)))
    assert of_item.headers["content-type"] == of_photo.headers["content-type"] == "image/png"
    assert of_item.content == of_photo.content
    assert Image.open(io.BytesIO(of_item.content)).size == (20, 30)
    tag = of_item.headers["etag"]
    assert client.get(f"/v1/items/{item['item_id']}/attention", headers={"If-None-Match": tag}).status_code == 304
    require_problem(client.post("/v1/attention", files=files("image", b"text")), 415, "unknown_format")


def test_a_repeated_enrolment_is_answered_as_the_first_time(client, picture):
    def send(key, *images, who=None):
        return client.post("/v1/items", files=files("images", *images), headers={"Idempotency-Key": key})

    first = send("a", picture(1), b"text")
    again = send("a", picture(1), b"text")
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert first.json()["results"][0]["result"] == "created"
    require_problem(send("a", picture(2)), 409, "conflict")
    assert send("b", picture(1), b"text").json()["results"][0]["result"] == "existing"
    require_problem(send("x" * 201, picture(1)), 422, "invalid_request")


def test_a_repeated_enrolment_is_answered_as_before_an_upgrade(client, gallery, picture):
    said = {"key": "a", "label": None, "camera": "gate", "captured_at": None, "attributes": {"coat": "red"}}
    parts = [["a.png", sha256(picture(1)).hexdigest()]]
    asked = sha256(json.dumps([parts, [said]]).encode()).hexdigest()  # as it was when items had no other fields
    Replies(gallery.database).keep("local", "one", asked, {"model_id": "former", "results": []})

    def send(**more):
        given = {"metadata": json.dumps([{"camera": "gate", "key": "a", "attributes": {"coat": "red"}, **more}])}
        sent = [("images", ("a.png", picture(1)))]
        return client.post("/v1/items", files=sent, data=given, headers={"Idempotency-Key": "one"})

    assert send().json() == {"model_id": "former", "results": []}
    require_problem(send(site="dunes"), 409, "conflict")


def test_refusals_are_counted_by_their_code_and_answers_by_their_route(client, picture):
    enrol(client, picture(0))
    ask(client, picture(1))
    client.post("/query", files=files("image", b"text"))
    client.get("/v1/items/nobody")
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'reid_requests_total{method="POST",route="/query",status="200"} 1.0',
        'reid_requests_total{method="GET",route="/v1/items/{item_id}",status="404"} 1.0',
        'reid_refused_total{code="unknown_format"} 1.0',
        'reid_refused_total{code="not_found"} 1.0',
        'reid_stage_seconds_count{stage="model"} 2.0',
        'reid_stage_seconds_count{stage="search"} 1.0',
        "reid_items 1.0",
        "reid_ready 1.0",
        'reid_queue_depth{kind="urgent"} 0.0',
    ):
        assert line in lines


@pytest.fixture
def limited(gallery, runner, settings):
    """A client whose key shows the items of camera north alone, and may write."""
    keys = Keys(gallery.database)
    _, secret = keys.add(NewKey("gate", frozenset({"write"}), frozenset({"north"})))
    app = create_app(gallery, runner, settings.model_copy(update={"require_keys": True}))
    return TestClient(app, headers={"X-API-Key": secret}, raise_server_exceptions=False)


def test_a_key_for_some_cameras_shows_and_changes_their_items_alone(client, limited, picture):
    said = [{"camera": "north"}, {"camera": "south", "label": "ada"}, {}]
    north, south, nowhere = enrol(client, *(picture(i) for i in range(3)), said=said)
    hidden = (south["item_id"], nowhere["item_id"])
    answer = ask(limited, picture(1))
    assert [match["item_id"] for match in answer["matches"]] == [north["item_id"]]
    assert (answer["candidates"], answer["filter"]["cameras"]) == (1, ["north"])
    assert ask(limited, picture(1), cameras="south")["matches"] == []
    assert [item["item_id"] for item in limited.get("/v1/items").json()["items"]] == [north["item_id"]]
    assert limited.get("/v1/cameras").json() == {"cameras": [{"name": "north", "items": 1}]}
    assert limited.get("/v1/labels").json() == {"labels": []}
    for item_id in hidden:
        url = f"/v1/items/{item_id}"
        for path in ("", "/image", "/thumbnail", "/attention"):
            require_problem(limited.get(url + path), 404, "not_found")
        require_problem(limited.patch(url, json={"label": "x"}), 404, "not_found")
        require_problem(limited.delete(url), 404, "not_found")
        require_problem(limited.post("/query", data={"item_id": item_id}), 404, "not_found")
    assert limited.post("/v1/items/delete", json={"item_ids": list(hidden)}).json()["items"] == 0
    assert limited.post("/v1/items/delete", json={"filter": {}}).json()["items"] == 1
    require_problem(limited.patch(f"/v1/items/{north['item_id']}", json={"camera": "south"}), 403, "forbidden")
    require_problem(limited.post("/v1/items", files=files("images", picture(5))), 403, "forbidden")
    (there,) = limited.post(
        "/v1/items", files=files("images", picture(1)), data={"metadata": '[{"camera": "north"}]'}
    ).json()["results"]
    assert (there["result"], there["item"], there["error"]["code"]) == ("error", None, "conflict")
    (new,) = enrol(limited, picture(7), said=[{"camera": "north"}])
    assert limited.delete(f"/v1/items/{new['item_id']}").status_code == 204
    assert len(client.get("/v1/items").json()["items"]) == 3


def test_a_key_for_some_cameras_shows_no_photo_with_items_of_others(client, limited, picture):
    north, south = enrol(client, picture(1), said=[{"camera": "north", "boxes": [[1, 1, 5, 5], [6, 6, 9, 9]]}])
    url = f"/v1/items/{north['item_id']}/image"
    assert limited.get(url, params={"whole": True}).content == client.get(url, params={"whole": True}).content
    client.patch(f"/v1/items/{south['item_id']}", json={"camera": "south"})
    require_problem(limited.get(url, params={"whole": True}), 404, "not_found")
    assert Image.open(io.BytesIO(limited.get(url).content)).size == (5, 5)
    assert client.get(url, params={"whole": True}).status_code == 200


def test_a_copy_that_is_damaged_is_not_shown(client, gallery, picture):
    """Its bytes may still be a picture, and not the one that was enrolled."""
    (whole,) = enrol(client, picture(1))
    (box,) = enrol(client, picture(1), said=[{"boxes": [[1, 1, 5, 5]]}])
    gallery.pictures.path(gallery.store.get(whole["item_id"]).medium.sha256).write_bytes(picture(2))
    for item in (whole, box):
        for wanted in ({}, {"whole": True}):
            answer = client.get(f"/v1/items/{item['item_id']}/image", params=wanted)
            assert "the copy of it is damaged" in require_problem(answer, 404, "not_found")["detail"]


def test_the_cameras_of_a_key_are_not_counted_with_the_names_of_a_request(limited, picture, monkeypatch):
    monkeypatch.setattr(schemas, "MOST_NAMES", 3)
    assert ask(limited, picture(1), labels=["a", "b", "c"])["filter"]["cameras"] == ["north"]
    answer = limited.post("/query", files=files("image", picture(1)), data={"labels": ["a", "b", "c", "d"]})
    assert "4 names and texts in all, expected at most 3" in require_problem(answer, 422, "invalid_request")["detail"]
    assert limited.get("/v1/cameras", params={"labels": ["a", "b", "c", "d"]}).status_code == 422
    assert limited.post("/v1/items/delete", json={"filter": {"labels": ["a", "b", "c", "d"]}}).status_code == 422


def test_served_is_what_was_measured(checkpoint, photos, tmp_path):
    """The gallery of an evaluation, enrolled, ranks its queries as the evaluation does."""
    evaluated = evaluate(checkpoint, {"data.root": str(photos)}, device="cpu")
    features, dataset = evaluated.features, evaluated.dataset
    with (
        open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery,
        JobRunner(Jobs(gallery.database), {}) as runner,
    ):
        settings = Settings(checkpoint=checkpoint, gallery=tmp_path, allowed_hosts=["testserver"])
        client = TestClient(create_app(gallery, runner, settings))
        paths = [sample.path.read_bytes() for sample in dataset.gallery]
        ids = [item["item_id"] for item in enrol(client, *paths)]
        stored = np.stack([row.vector for row in gallery.store.rows(gallery.model_id)])
        assert (np.sum(stored * features.gallery, axis=1) > 0.9999).all()
        for sample, vector in zip(dataset.query, features.query, strict=True):
            matches = ask(client, sample.path.read_bytes())["matches"]
            scores = features.gallery @ vector
            assert [ids.index(match["item_id"]) for match in matches] == np.argsort(-scores).tolist()
            np.testing.assert_allclose([match["score"] for match in matches], -np.sort(-scores), atol=1e-5)
