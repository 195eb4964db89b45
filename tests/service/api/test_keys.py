"""Keys made and revoked over HTTP."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api import access, problems
from service.api.description import EXAMPLES
from service.api.keys import keys_router
from service.records import NewKey
from service.storage.database import Database
from service.storage.keys import Keys
from service.storage.store import Store


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "gallery") as opened:
        yield opened


@pytest.fixture
def keys(database):
    return Keys(database)


@pytest.fixture
def boss(keys):
    """The admin who asks, and their secret."""
    return keys.add(NewKey("boss", frozenset({"admin"})))


@pytest.fixture
def client(keys, boss):
    app = FastAPI()
    access.install(app, keys.find, require_keys=True)
    problems.install(app)
    app.include_router(keys_router(keys))
    return TestClient(app, base_url="http://localhost", headers={"X-API-Key": boss[1]})


def test_a_key_is_made_listed_and_revoked(keys, client, boss):
    form = {"name": "gate 3", "scopes": ["write"], "cameras": ["north", "it's"], "requests_per_minute": 90}
    made = client.post("/v1/admin/keys", json=form)
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    told = made.json()
    secret = told.pop("secret")
    key = keys.find(secret)
    assert key.caller().cameras == {"north", "it's"}
    assert told.pop("created_at").replace("Z", "+00:00") == key.created_at.isoformat()
    assert told == {
        **{"key_id": key.key_id, "name": "gate 3", "scopes": ["read", "write"], "cameras": ["it's", "north"]},
        **{"requests_per_minute": 90, "revoked_at": None},
    }
    listed = client.get("/v1/admin/keys")
    assert [one["key_id"] for one in listed.json()["keys"]] == [boss[0].key_id, key.key_id]
    assert secret not in listed.text and "sha256" not in listed.text
    assert client.get("/v1/admin/keys", headers={"X-API-Key": secret}).status_code == 403
    gone = client.delete(f"/v1/admin/keys/{key.key_id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get("/v1/admin/keys", headers={"X-API-Key": secret}).status_code == 401
    assert client.get("/v1/admin/keys").json()["keys"][1]["revoked_at"] is not None


def test_the_log_names_the_key_that_made_another(client, boss, database):
    made = client.post("/v1/admin/keys", json={"name": "k", "scopes": ["read"]})
    entry = Store(database).operations()[-1]
    assert (entry.kind, entry.target) == ("key.create", made.json()["key_id"])
    assert (entry.actor, entry.request_id) == (boss[0].key_id, made.headers["x-request-id"])


def test_a_key_that_is_not_there_cannot_be_revoked(client):
    for key_id in ("nothing", "' OR 1=1 --", "%2e%2e"):
        response = client.delete(f"/v1/admin/keys/{key_id}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert client.get("/v1/admin/keys").status_code == 200


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": ""}, "body.name"),
        ({"name": "x" * 201}, "body.name"),
        ({"name": "two\nlines"}, "printable"),
        ({"scopes": []}, "body.scopes"),
        ({"scopes": ["root"]}, "body.scopes.0"),
        ({"cameras": []}, "body.cameras"),
        ({"cameras": ["north"], "scopes": ["admin"]}, "cannot be limited to cameras"),
        ({"requests_per_minute": 0}, "body.requests_per_minute"),
        ({"requests_per_minute": 2**70}, "body.requests_per_minute"),
        ({"requests_per_minute": True}, "body.requests_per_minute"),
        ({"camera": ["north"]}, "body.camera"),  # misspelt, it would show them all
    ],
)
def test_a_key_that_makes_no_sense_is_refused(client, keys, change, named):
    before = keys.list()
    response = client.post("/v1/admin/keys", json={"name": "k", "scopes": ["read"], **change})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert named in response.json()["detail"]
    assert keys.list() == before


def test_no_secret_is_in_the_description(client, keys, boss):
    described = client.get("/openapi.json").text
    assert boss[1] not in described and "reid_" not in described
    assert client.post("/v1/admin/keys", json=EXAMPLES["KeyForm"]).status_code == 201
