"""The page's way in: a key in a cookie."""

from http.cookies import SimpleCookie

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api import access, problems
from service.api.session import session
from service.records import NewKey
from service.storage.database import Database
from service.storage.keys import Keys

ADMIN_KEY = 'it has; "all", the\\characters = of a header'


@pytest.fixture
def keys(tmp_path):
    with Database(tmp_path / "gallery") as database:
        yield Keys(database, ADMIN_KEY)


@pytest.fixture
def serve(keys):
    """A function that gives a client of a service with sessions alone."""

    def make(require_keys=True, base_url="http://localhost"):
        app = FastAPI()
        access.install(app, keys.find, require_keys)
        problems.install(app)
        app.include_router(session(keys.find))
        return TestClient(app, base_url=base_url)

    return make


def cookie_of(response):
    return SimpleCookie(response.headers["set-cookie"])[access.COOKIE]


def test_a_key_is_shown_once_and_then_sent_by_the_browser(keys, serve):
    client = serve()
    assert client.get("/v1/session").json()["code"] == "unauthorized"
    key, secret = keys.add(NewKey("k", frozenset({"write"}), frozenset({"b", "a"})))
    told = {"actor": key.key_id, "scopes": ["read", "write"], "cameras": ["a", "b"]}
    begun = client.post("/v1/session", json={"key": secret})
    assert (begun.status_code, begun.json()) == (200, told)
    assert client.get("/v1/session").json() == told
    ended = client.delete("/v1/session")
    assert (ended.status_code, ended.content) == (204, b"")
    assert client.get("/v1/session").status_code == 401
    client.post("/v1/session", json={"key": secret})
    keys.revoke(key.key_id)
    assert client.get("/v1/session").status_code == 401


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_cookie_is_for_this_site_and_no_script(keys, serve, scheme):
    _, secret = keys.add(NewKey("k", frozenset({"read"})))
    client = serve(base_url=f"{scheme}://localhost")
    cookie = cookie_of(client.post("/v1/session", json={"key": secret}))
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert (cookie["secure"], cookie["domain"]) == (True if scheme == "https" else "", "")
    assert cookie["expires"] == cookie["max-age"] == ""  # it ends with the browser


def test_any_characters_of_a_key_survive_the_cookie(serve):
    client = serve()
    response = client.post("/v1/session", json={"key": ADMIN_KEY})
    header = response.headers["set-cookie"].partition("; HttpOnly")[0]
    client.cookies.clear()
    assert client.get("/v1/session", headers={"Cookie": header}).json()["actor"] == "admin"


def test_a_wrong_key_is_refused_and_sets_nothing(serve):
    client = serve()
    response = client.post("/v1/session", json={"key": "a wrong one"})
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert "set-cookie" not in response.headers
    assert "a wrong one" not in response.text


@pytest.mark.parametrize("body", ['{"key": "%s", "more": 1}', '{"key": ["%s"]}', '{"kay": "%s"}', '{"key": "%s'])
def test_a_body_that_cannot_be_read_is_refused_without_repeating_it(serve, body):
    secret = "reid_" + "s" * 43
    response = serve().post("/v1/session", content=body % secret, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert secret not in response.text


def test_a_large_body_is_not_kept_for_a_stranger(serve):
    response = serve().post("/v1/session", json={"key": "x" * 20_000})
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


def test_this_machine_has_a_session_without_a_key(serve):
    told = serve(require_keys=False).get("/v1/session").json()
    assert told == {"actor": "local", "scopes": ["admin", "read", "write"], "cameras": None}
