from datetime import datetime

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api import problems
from service.api.audit import audit
from service.records import Cause, LoggedQuery
from service.storage.database import Database
from service.storage.queries import Queries
from service.storage.store import Store
from service.storage.transaction import Transaction


@pytest.fixture
def database(tmp_path):
    with Database(tmp_path / "gallery") as database:
        yield database


@pytest.fixture
def client(database):
    app = FastAPI()
    problems.install(app)
    app.include_router(audit(Store(database), Queries(database)))
    return TestClient(app, raise_server_exceptions=False)


def every_page(client, path, name):
    """All entries, two at a time, each page asked for with the cursor of the one before."""
    entries, cursor = [], 0
    while cursor is not None:
        address = httpx2.URL(path).copy_merge_params({"cursor": cursor, "limit": 2})
        page = client.get(address).raise_for_status().json()
        assert page.keys() == {name, "next_cursor"}
        assert len(page[name]) <= 2
        entries += page[name]
        cursor = page["next_cursor"]
    return entries


def test_operations(client, database):
    for number in range(5):
        with database.transaction() as connection:
            transaction = Transaction(connection, Cause("key-1", f"request-{number}"))
            transaction.log("item.edit", f"item-{number}", {"label": None}, {"label": "<b>Åsa\n"})
    newest = every_page(client, "/v1/admin/operations", "operations")
    entries = every_page(client, "/v1/admin/operations?order=oldest", "operations")
    assert [entry["request_id"] for entry in entries] == [f"request-{number}" for number in range(5)]
    assert newest == entries[::-1]
    last = entries[-1]
    assert datetime.fromisoformat(last.pop("time")).utcoffset().total_seconds() == 0
    assert len(last.pop("batch_id")) == 32
    assert last == {
        "seq": 5,
        "actor": "key-1",
        "request_id": "request-4",
        "kind": "item.edit",
        "target": "item-4",
        "before": {"label": None},
        "after": {"label": "<b>Åsa\n"},
    }


def test_queries(client, database):
    for number in range(4):
        asked = LoggedQuery(
            Cause("key-1", f"request-{number}"), ("ab" * 32,), None, {"top_k": 3}, 9, (("item-1", 0.25),)
        )
        Queries(database).append([asked])
    newest = every_page(client, "/v1/admin/queries", "queries")
    entries = every_page(client, "/v1/admin/queries?order=oldest", "queries")
    assert [entry["request_id"] for entry in entries] == [f"request-{number}" for number in range(4)]
    assert newest == entries[::-1]
    last = entries[-1]
    assert datetime.fromisoformat(last.pop("time")).utcoffset().total_seconds() == 0
    assert last == {
        "seq": 4,
        "actor": "key-1",
        "request_id": "request-3",
        "images": ["ab" * 32],
        "item_id": None,
        "conditions": {"top_k": 3},
        "candidates": 9,
        "matches": [{"item_id": "item-1", "score": 0.25}],
    }


@pytest.mark.parametrize("path", ["/v1/admin/operations", "/v1/admin/queries"])
@pytest.mark.parametrize("query", ["cursor=-1", f"cursor={2**63}", "limit=0", "limit=1001", "limits=2"])
def test_a_page_that_cannot_be(client, path, query):
    response = client.get(f"{path}?{query}")
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert query.partition("=")[0] in response.json()["detail"]


def test_an_empty_log_has_one_empty_page(client):
    assert client.get("/v1/admin/queries").json() == {"queries": [], "next_cursor": None}
    assert client.get("/v1/admin/operations").json() == {"operations": [], "next_cursor": None}


def test_logs_are_filtered_by_who_what_and_when(client, database):
    kinds = ["item.edit", "item.delete", "item.edit", "key.create"]
    for number, kind in enumerate(kinds):
        with database.transaction() as connection:
            Transaction(connection, Cause(f"key-{number % 2}", "r")).log(kind, "x", None, {})
        Queries(database).append([LoggedQuery(Cause(f"key-{number % 2}", "r"), (), "item", {}, 0, ())])
    written = client.get("/v1/admin/operations?order=oldest").json()["operations"]
    times = [datetime.fromisoformat(entry["time"]) for entry in written]

    def found(path, **wanted):
        (entries, _) = client.get(f"/v1/admin/{path}", params=wanted).raise_for_status().json().values()
        return [entry["seq"] for entry in entries]

    assert found("operations", kind="item.edit") == [3, 1]
    assert found("operations", actor="key-1", kind="item.delete") == [2]
    assert found("operations", actor="nobody") == []
    whose, since = [1, 3], times[2]
    expected = [entry["seq"] for entry, time in zip(written, times, strict=True) if time >= since][::-1]
    assert found("operations", **{"from": since.isoformat()}) == expected
    assert found("operations", to=since.isoformat(), order="oldest") == [n for n in (1, 2, 3, 4) if n not in expected]
    assert found("queries", actor="key-0", order="oldest") == whose
    assert client.get("/v1/admin/queries?kind=item.edit").status_code == 422
