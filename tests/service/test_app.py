import io
import json
import re

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import ValidationError

from reid.evaluate import evaluate
from reid.retrieval.calibration import Calibration
from service.app import create_app
from service.batcher import Busy
from service.gallery import open_gallery
from service.settings import Settings

LIMITS = {"max_body_bytes": 40_000, "max_upload_bytes": 10_000, "max_images": 4}


@pytest.fixture
def settings(checkpoint, tmp_path):
    return Settings(checkpoint=checkpoint, gallery=tmp_path / "gallery", **LIMITS)


@pytest.fixture
def client(gallery, settings):
    return TestClient(create_app(gallery, settings), raise_server_exceptions=False)


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
    assert answer.keys() == {"model_id", "took_ms", "filter", "candidates", "verdict", "matches"}
    assert (answer["model_id"], answer["candidates"], answer["verdict"]) == (gallery.model_id, 3, None)
    assert answer["filter"] == dict.fromkeys(["cameras", "exclude_cameras", "from", "to", "labels"])
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
        "camera": "c",
        "captured_at": "2024-05-01T10:00:00Z",
        "thumbnail_url": f"/v1/items/{items[1]['item_id']}/thumbnail",
    }
    same = client.post("/v1/query", files=files("image", picture(1))).json()
    assert same["matches"][1:] == answer["matches"][1:]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {0, 1, 2, 3}),
        ({"cameras": "north"}, {0, 1}),
        ({"cameras": ["north", "south"]}, {0, 1, 2}),
        ({"exclude_cameras": "north"}, {2, 3}),
        ({"labels": "ada"}, {0, 2}),
        ({"from": "2024-05-02T00:00:00Z"}, {1, 2}),
        ({"to": "2024-05-02T00:00:00Z"}, {0}),
        ({"from": "2024-05-02T01:00:00+01:00", "to": "2024-05-03T00:00:00Z"}, {1}),
        ({"cameras": "nowhere"}, set()),
    ],
)
def test_filters_hold_for_queries_and_for_lists(client, picture, fields, expected):
    """The photo asked for is that of item 0, which a filter that is ignored would return."""
    said = [
        {"camera": "north", "label": "ada", "captured_at": "2024-05-01T00:00:00Z"},
        {"camera": "north", "label": "bob", "captured_at": "2024-05-02T00:00:00Z"},
        {"camera": "south", "label": "ada", "captured_at": "2024-05-03T00:00:00Z"},
        {},
    ]
    ids = [item["item_id"] for item in enrol(client, *(picture(i) for i in range(4)), said=said)]
    answer = ask(client, picture(0), **fields)
    assert {ids.index(match["item_id"]) for match in answer["matches"]} == expected
    assert answer["candidates"] == len(expected)
    listed = client.get("/v1/items", params=fields).json()["items"]
    assert {ids.index(item["item_id"]) for item in listed} == expected
    for name, value in fields.items():
        if name not in ("from", "to"):
            assert answer["filter"][name] == ([value] if isinstance(value, str) else value)


def test_top_k_min_score_several_images_and_items(client, picture):
    items = enrol(client, *(picture(i) for i in range(4)))
    every = ask(client, picture(0))["matches"]
    assert ask(client, picture(0), top_k=2)["matches"] == every[:2]
    assert ask(client, picture(0), min_score=every[1]["score"])["matches"] == every[:2]
    fused = client.post("/query", files=files("image", picture(0), picture(1))).json()["matches"]
    assert {match["item_id"] for match in fused[:2]} == {item["item_id"] for item in items[:2]}
    by_item = client.post("/query", data={"item_id": items[0]["item_id"]}).json()["matches"]
    assert [match["item_id"] for match in by_item] == [match["item_id"] for match in every[1:]]


def test_a_calibration_gives_probabilities_and_a_verdict(gallery, settings, picture):
    levels = np.array([-1.0, 1.0]), np.array([0.1, 0.9])
    calibration = Calibration(*levels, 0.999, 0.5, 0.01, 10, 10, 10, 10, 0.1, 0.1, ())
    client = TestClient(create_app(gallery, settings, calibration))
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


@pytest.mark.parametrize(
    ("name", "media_type", "size"), [("image", "webp", (400, 600)), ("thumbnail", "jpeg", (171, 256))]
)
def test_pictures_are_kept_by_browsers_until_they_change(client, name, media_type, size):
    written = io.BytesIO()
    Image.new("RGB", (400, 600), "red").save(written, "PNG")
    (item,) = enrol(client, written.getvalue())
    response = client.get(item[f"{name}_url"])
    assert Image.open(io.BytesIO(response.content)).size == size
    assert response.headers["content-type"] == f"image/{media_type}"
    assert response.headers["x-content-type-options"] == "nosniff"
    tag = response.headers["etag"]
    for known in (tag, f'"x", W/{tag}', "*"):
        again = client.get(item[f"{name}_url"], headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(item[f"{name}_url"], headers={"If-None-Match": '"x"'}).status_code == 200


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
    require_problem(client.post("/v1/items", files=files("images", b"x" * 10_001)), 413, "too_large")
    require_problem(client.post("/query", files=files("image", *[picture(0)] * 5)), 400, "bad_request")
    require_problem(client.patch("/v1/items/x", content=b"[" * 50_000), 413, "too_large")
    assert client.post("/query", files=files("image", *[picture(0)] * 4)).status_code == 200


@pytest.mark.parametrize(
    ("data", "names", "field"),
    [
        ({"camera": "north"}, ["image"], "body.camera"),
        ({"since": "2024-05-01T00:00:00Z"}, ["image"], "body.since"),
        ({"top_k": "0"}, ["image"], "body.top_k"),
        ({"min_score": "nan"}, ["image"], "body.min_score"),
        ({"from": "2024-05-01T00:00:00"}, ["image"], "body.from"),
        ({"from": "0001-01-01T00:00:00+14:00"}, ["image"], "body.from"),
        ({"cameras": "x" * 201}, ["image"], "body.cameras.0"),
        ({"item_id": "x"}, ["image"], "body"),
        ({}, [], "body"),
        ({"image": "text"}, [], "body.image.0"),
    ],
)
def test_a_query_that_is_wrong_names_the_field(client, picture, data, names, field):
    sent = [(name, ("a.png", picture(0))) for name in names]
    problem = require_problem(client.post("/query", files=sent or None, data=data), 422, "invalid_request")
    assert field in {error["field"] for error in problem["errors"]}


@pytest.mark.parametrize(
    "metadata",
    ["no json", "{}", "[]", '[{"colour": "red"}]', '[{"attributes": {"a": NaN}}]', '[{"camera": "\\ud800"}]'],
)
def test_metadata_that_is_wrong_is_refused_before_anything_is_enrolled(client, picture, metadata):
    response = client.post("/v1/items", files=files("images", picture(0)), data={"metadata": metadata})
    require_problem(response, 422, "invalid_request")
    assert client.get("/v1/items").json() == {"items": [], "next_cursor": None}


def test_every_other_refusal_has_the_same_shape(client, gallery, picture, monkeypatch):
    require_problem(client.get("/nowhere"), 404, "not_found")
    assert require_problem(client.get("/query"), 405, "method_not_allowed") and client.get("/query").headers["allow"]
    require_problem(client.post("/query", data={"item_id": "nobody"}), 404, "not_found")
    require_problem(client.post("/query", files=files("image", b"text")), 415, "unknown_format")
    require_problem(client.post("/query", files=files("image", picture(0)[:-200])), 422, "unusable_image")
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
    gallery.close()
    require_problem(client.get("/health/ready"), 503, "stopping")
    assert client.get("/health/live").json() == {"status": "live"}


def test_every_answer_carries_the_id_of_its_request_and_the_log_of_changes_too(client, gallery, picture):
    response = client.post("/v1/items", files=files("images", picture(0)))
    request_id = response.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert gallery._store.operations()[-1].request_id == request_id
    assert client.get("/health/live").headers["x-request-id"] != request_id


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_no_page_fetches_from_elsewhere(client, path):
    assert client.get(path).status_code == 404


def test_the_description_names_every_field_and_every_problem(client):
    description = client.get("/openapi.json").json()
    query = description["paths"]["/query"]["post"]
    assert set(query["responses"]) == {"200", "400", "404", "413", "415", "422", "503"}
    for status in ("400", "422"):
        (content,) = query["responses"][status]["content"].items()
        assert content == ("application/problem+json", {"schema": {"$ref": "#/components/schemas/Problem"}})
    form = description["components"]["schemas"]["QueryForm"]
    assert {"image", "item_id", "top_k", "cameras", "from", "to"} <= form["properties"].keys()
    assert form["additionalProperties"] is False
    assert "HTTPValidationError" not in json.dumps(description)
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(description)):
        assert name in description["components"]["schemas"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", ""])
def test_no_host_but_loopback(settings, host):
    with pytest.raises(ValidationError, match="no authentication yet"):
        Settings(**{**settings.model_dump(), "host": host})


def test_served_is_what_was_measured(checkpoint, photos, tmp_path):
    """The gallery of an evaluation, enrolled, ranks its queries as the evaluation does."""
    evaluated = evaluate(checkpoint, {"data.root": str(photos)}, device="cpu")
    features, dataset = evaluated.features, evaluated.dataset
    with open_gallery(tmp_path / "gallery", checkpoint, "cpu") as gallery:
        client = TestClient(create_app(gallery, Settings(checkpoint=checkpoint, gallery=tmp_path)))
        paths = [sample.path.read_bytes() for sample in dataset.gallery]
        ids = [item["item_id"] for item in enrol(client, *paths)]
        stored = np.stack([row.vector for row in gallery._store.rows(gallery.model_id)])
        assert (np.sum(stored * features.gallery, axis=1) > 0.9999).all()
        for sample, vector in zip(dataset.query, features.query, strict=True):
            matches = ask(client, sample.path.read_bytes())["matches"]
            scores = features.gallery @ vector
            assert [ids.index(match["item_id"]) for match in matches] == np.argsort(-scores).tolist()
            np.testing.assert_allclose([match["score"] for match in matches], -np.sort(-scores), atol=1e-5)
