"""HEAD, bodies that are too large, and pages of other sites."""

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.records import Details, Upload
from service.settings import Settings

KEY = "k" * 32
ALLOWED = "https://app.example.org"


@pytest.fixture
def serve(gallery, runner):
    """A function that gives a client of the gallery with some settings."""

    def make(**options):
        told = Settings(checkpoint="unused", gallery="unused", require_keys=True, admin_key=KEY, **options)
        return TestClient(create_app(gallery, runner, told), headers={"X-API-Key": KEY})

    return make


def test_head_is_answered_as_get_is_without_a_body(serve, gallery, picture):
    item = gallery.enrol([Upload("a.png", picture(1), Details())])[0].item
    client = serve()
    paths = [
        "/",
        "/static/main.js",
        "/health/live",
        "/openapi.json",
        "/v1/items",
        f"/v1/items/{item.item_id}/thumbnail",
    ]
    for path in paths:
        got, asked = client.get(path), client.head(path)
        assert (asked.status_code, asked.content) == (200, b"")
        for name in ("content-type", "content-length", "etag"):
            assert asked.headers.get(name) == got.headers.get(name)
    etag = client.get(paths[-1]).headers["etag"]
    assert client.head(paths[-1], headers={"If-None-Match": etag}).status_code == 304
    assert client.head("/v1/items/nobody").status_code == 404
    assert client.head("/query").status_code == 405
    assert client.head("/v1/items", headers={"X-API-Key": "wrong"}).status_code == 401


def parts(size):
    for _ in range(size // 1000):
        yield b"x" * 1000


@pytest.mark.parametrize("sent", [bytes, parts], ids=["at once", "in parts"])
def test_a_body_that_is_too_large_is_told_how_large_it_may_be(serve, sent):
    client = serve(max_body_bytes=1_500_000)
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    for path, headers, size, limit in [
        ("/v1/items/delete", {"Content-Type": "application/json"}, 1_200_000, "1,048,576"),
        ("/v1/items", form, 1_600_000, "1,500,000"),
        ("/query", form, 1_600_000, "1,500,000"),
        ("/v1/session", {"Content-Type": "application/json"}, 20_000, "10,000"),
    ]:
        answer = client.post(path, content=sent(size), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large"), path
        assert limit in answer.json()["detail"]


def test_pages_of_other_sites_may_not_ask(serve):
    client = serve()
    asked = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}
    assert client.options("/query", headers={**asked, "X-API-Key": ""}).status_code == 401
    answer = client.get("/v1/items", headers={"Origin": ALLOWED})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_those_of_some_may_where_the_settings_say_so(serve):
    client = serve(cors_origins=f"{ALLOWED}/, http://localhost:3000")
    asked = {
        "Origin": ALLOWED,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "x-api-key, content-type, idempotency-key",
    }
    before = TestClient(client.app).options("/v1/items/x", headers=asked)
    assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, ALLOWED)
    assert "PATCH" in before.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in before.headers
    page = {"Origin": ALLOWED, "Sec-Fetch-Site": "cross-site"}
    assert client.post("/v1/items/delete", json={"item_ids": ["x"]}, headers=page).status_code == 200
    refused = client.post("/v1/items/delete", json={"item_ids": ["x"]}, headers={**page, "X-API-Key": "wrong"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ALLOWED)
    for origin in ("https://evil.example", "https://app.example.org.evil.example", "null"):
        answer = client.post("/v1/items/delete", json={"item_ids": ["x"]}, headers={**page, "Origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origins", ["*", "app.example.org", "https://a.example/path", "https://*.example.org"])
def test_what_is_no_origin_is_refused(serve, origins):
    with pytest.raises(ValueError, match="expected origins"):
        serve(cors_origins=origins)
