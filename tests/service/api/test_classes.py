"""A classifier over HTTP: alone, and beside a gallery."""

import io
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from reid.models.dcal import DCAL
from service.api.app import create_app, create_classifier_app
from service.classification import Classification
from service.opening import load_classifier
from service.records import NewKey
from service.settings import Settings
from service.storage.keys import Keys

LIMITS = {"max_body_bytes": 40_000, "max_upload_bytes": 10_000, "max_images": 4}
HERE = "http://localhost"
ADMIN_KEY = "a" * 40


@pytest.fixture
def alone(classification, classifier):
    """A client of a service that has a classifier and no gallery."""
    app = create_classifier_app(classification, Settings(classifier=classifier, **LIMITS))
    return TestClient(app, HERE, raise_server_exceptions=False)


@pytest.fixture
def both(gallery, runner, checkpoint, classifier):
    """A client of a service that has both."""
    settings = Settings(checkpoint=checkpoint, gallery=gallery.folder, classifier=classifier, **LIMITS)
    with Classification(*load_classifier(classifier, "cpu"), gallery) as classification:
        app = create_app(gallery, runner, settings, classification=classification)
        yield TestClient(app, HERE, raise_server_exceptions=False)


@pytest.fixture(params=["alone", "both"])
def client(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def without(gallery, runner, checkpoint):
    """A client of a service that has a gallery and no classifier."""
    app = create_app(gallery, runner, Settings(checkpoint=checkpoint, gallery=gallery.folder))
    return TestClient(app, HERE, raise_server_exceptions=False)


def files(*images):
    return [("image", (f"{place}.png", data)) for place, data in enumerate(images)]


def require_problem(response, status, code):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem["detail"]


def test_the_best_classes_of_a_photo_with_their_probabilities(client, classification, picture):
    response = client.post("/v1/classify", files=files(picture(1)))
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer.keys() == {"model_id", "took_ms", "results"}
    assert (answer["model_id"], answer["took_ms"] > 0) == (classification.model_id, True)
    (result,) = answer["results"]
    assert (result["index"], result["filename"], result["error"]) == (0, "0.png", None)
    (row,) = classification.classify([picture(1)])
    order = np.argsort(-row)[:5]
    assert [one["class"] for one in result["predictions"]] == [classification.classes[label] for label in order]
    assert [one["rank"] for one in result["predictions"]] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose([one["probability"] for one in result["predictions"]], row[order], atol=1e-6)


@pytest.mark.parametrize(("top_k", "shown"), [(1, 1), (6, 6), (1000, 6)])
def test_as_many_classes_as_are_asked_for_and_there_are(alone, picture, top_k, shown):
    response = alone.post("/v1/classify", files=files(picture(1)), data={"top_k": top_k})
    predictions = response.json()["results"][0]["predictions"]
    assert len(predictions) == shown
    if shown == 6:
        assert sum(one["probability"] for one in predictions) == pytest.approx(1, abs=1e-5)


def test_each_file_has_its_own_answer(client, picture):
    good = picture(1)
    sent = files(good, b"text", good[: len(good) // 2], b"x" * 10_001)
    response = client.post("/v1/classify", files=sent, data={"top_k": 1})
    assert response.status_code == 207
    first, text, cut, large = response.json()["results"]
    assert (first["error"], len(first["predictions"])) == (None, 1)
    for result, status, code in [
        (text, 415, "unknown_format"),
        (cut, 422, "unusable_image"),
        (large, 413, "too_large"),
    ]:
        assert (result["error"]["status"], result["error"]["code"], result["predictions"]) == (status, code, [])
    assert [result["index"] for result in response.json()["results"]] == [0, 1, 2, 3]
    assert "3.png: 10,001 bytes" in large["error"]["detail"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"top_k": 0}, "body.top_k: Input should be greater than or equal to 1"),
        ({"top_k": 1001}, "body.top_k: Input should be less than or equal to 1000"),
        ({"top_k": "many"}, "body.top_k: Input should be a valid integer"),
        ({"topk": 3}, "body.topk: Extra inputs are not permitted"),
        ({"cameras": "north"}, "body.cameras: Extra inputs are not permitted"),
    ],
)
def test_fields_that_cannot_be_used_are_named(client, picture, data, message):
    assert message in require_problem(
        client.post("/v1/classify", files=files(picture(1)), data=data), 422, "invalid_request"
    )


def test_a_request_without_an_image_or_with_too_many_is_refused(client, picture):
    assert "body.image" in require_problem(client.post("/v1/classify", data={"top_k": 1}), 422, "invalid_request")
    assert "body.image" in require_problem(client.post("/v1/classify"), 422, "invalid_request")
    text = require_problem(client.post("/v1/classify", data={"image": "photo.jpg"}), 422, "invalid_request")
    assert "expected a file" in text
    require_problem(client.post("/v1/classify", files=files(*[picture(1)] * 5)), 400, "bad_request")
    require_problem(client.post("/v1/classify", files=files(b"x" * 50_000)), 413, "too_large")
    address = client.post("/v1/classify?top_k=3", files=files(picture(1)))
    assert "expected in the form, not in the address" in require_problem(address, 422, "invalid_request")


def test_the_classes_are_listed_in_the_order_of_their_labels(client, classification):
    answer = client.get("/v1/classes").json()
    assert answer == {"model_id": classification.model_id, "classes": list(classification.classes)}
    assert answer["classes"][1] == "boat-tailed grackle"


def test_a_classifier_alone_shows_where_it_looks(alone, classification, picture):
    answer = alone.post("/v1/attention", files=files(picture(1)))
    assert answer.headers["content-type"] == "image/png"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(shown, np.asarray(classification.attention(picture(1))))
    require_problem(alone.post("/v1/attention", files=files(b"text")), 415, "unknown_format")


def test_a_model_that_cannot_show_where_it_looks_says_so(client, picture, monkeypatch):
    monkeypatch.setattr(DCAL, "rolls_out", property(lambda model: False))
    assert "no class token" in require_problem(client.post("/v1/attention", files=files(picture(1))), 404, "not_served")


def test_what_is_not_served_says_so_and_is_not_described(alone, without, picture):
    for method, path in [
        ("POST", "/query"),
        ("POST", "/v1/query"),
        ("GET", "/v1/items"),
        ("POST", "/v1/items/delete"),
        ("DELETE", "/v1/items/x"),
        ("GET", "/v1/items/x/thumbnail"),
        ("GET", "/v1/labels"),
        ("POST", "/v1/admin/backup"),
        ("GET", "/v1/jobs/x"),
        ("GET", "/"),
    ]:
        assert "this service has no gallery" in require_problem(alone.request(method, path), 404, "not_served")
    for method, path in [("POST", "/v1/classify"), ("GET", "/v1/classes")]:
        assert "this service has no classifier" in require_problem(without.request(method, path), 404, "not_served")
    require_problem(alone.get("/v1/classify"), 405, "method_not_allowed")
    require_problem(alone.get("/v1/clases"), 404, "not_found")
    assert alone.get("/openapi.json").json()["paths"].keys() == {
        "/v1/classify",
        "/v1/classes",
        "/v1/attention",
        "/v1/session",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
    assert not {"/v1/classify", "/v1/classes"} & without.get("/openapi.json").json()["paths"].keys()


def test_ready_tells_what_is_served(alone, both, without, classification, gallery):
    one = {"model_id": classification.model_id, "classes": 6}
    nothing = {"status": "ready", "reasons": [], "model_id": None, "items": None, "trained_on": None}
    nothing["runtime"] = None
    assert alone.get("/health/ready").json() == {**nothing, "classifier": one}
    held = {**nothing, "model_id": gallery.model_id, "items": 0, "runtime": "torch"}
    assert both.get("/health/ready").json() == {**held, "classifier": one}
    assert without.get("/health/ready").json() == {**held, "classifier": None}


def test_a_gallery_and_a_classifier_answer_side_by_side(both, picture):
    enrolled = both.post("/v1/items", files=[("images", ("a.png", picture(1)))])
    assert enrolled.status_code == 201
    classified = both.post("/v1/classify", files=files(picture(1))).json()
    (match,) = both.post("/query", files=files(picture(1))).json()["matches"]
    assert match["score"] == pytest.approx(1, abs=1e-5)
    assert len(classified["results"][0]["predictions"]) == 5


def test_the_work_is_measured(client, picture):
    client.post("/v1/classify", files=files(picture(1), picture(2), b"text"))
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'reid_requests_total{method="POST",route="/v1/classify",status="207"} 1.0',
        'reid_stage_seconds_count{stage="decode"} 3.0',
        'reid_stage_seconds_count{stage="wait"} 2.0',
        "reid_classify_batch_size_sum 2.0",
        'reid_queue_depth{kind="classify"} 0.0',
        "reid_ready 1.0",
    ):
        assert line in lines
    assert any(line.startswith("reid_classifier_info{") and 'classes="6"' in line for line in lines)


def test_a_service_without_gallery_knows_the_admin_key_alone(classification, classifier, picture):
    settings = Settings(classifier=classifier, admin_key=ADMIN_KEY, require_keys=True)
    client = TestClient(create_classifier_app(classification, settings), HERE, raise_server_exceptions=False)
    for key in (None, "b" * 40):
        headers = {} if key is None else {"X-API-Key": key}
        require_problem(client.post("/v1/classify", files=files(picture(1)), headers=headers), 401, "unauthorized")
        require_problem(client.get("/v1/classes", headers=headers), 401, "unauthorized")
    sent = {"Authorization": f"Bearer {ADMIN_KEY}"}
    assert client.post("/v1/classify", files=files(picture(1)), headers=sent).status_code == 200
    assert client.get("/v1/session", headers=sent).json()["actor"] == "admin"
    assert client.get("/health/ready").status_code == 200


def test_keys_of_the_gallery_hold_for_its_classifier_too(gallery, runner, checkpoint, classifier, picture):
    """Reading is enough, whatever items a key shows, and a limit of requests counts these."""
    _, secret = Keys(gallery.database).add(NewKey("gate", frozenset({"read"}), frozenset({"north"}), 2))
    settings = Settings(checkpoint=checkpoint, gallery=gallery.folder, classifier=classifier, require_keys=True)
    with Classification(*load_classifier(classifier, "cpu"), gallery) as classification:
        app = create_app(gallery, runner, settings, classification=classification)
        client = TestClient(app, HERE, headers={"X-API-Key": secret})
        statuses = [client.post("/v1/classify", files=files(picture(1))).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


def test_a_gallery_of_another_model_does_not_keep_photos_from_being_classified(both, gallery, picture, monkeypatch):
    monkeypatch.setattr(gallery.worker, "model_id", "another")
    require_problem(both.get("/health/ready"), 503, "model_mismatch")
    require_problem(both.post("/query", files=files(picture(1))), 503, "model_mismatch")
    assert both.post("/v1/classify", files=files(picture(1))).status_code == 200


def test_an_answer_is_plain_json(alone, picture):
    text = alone.post("/v1/classify", files=files(picture(1)), data={"top_k": 1}).text
    (result,) = json.loads(text)["results"]
    assert result["predictions"][0].keys() == {"rank", "class", "probability"}
