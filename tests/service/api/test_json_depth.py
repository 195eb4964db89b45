"""JSON that is nested as deeply as its length allows, wherever JSON comes in."""

import json
import random

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from service.api import problems
from service.api.json_depth import MAX_DEPTH, ShallowJson, depth

DEEP = b"[" * 900_000


def slow_depth(data):
    """Character by character."""
    deepest = inside = 0
    text = escaped = False
    for sign in data.decode("latin-1"):
        if text:
            text, escaped = escaped or sign != '"', sign == "\\" and not escaped
        elif sign == '"':
            text = True
        else:
            inside += (sign in "[{") - (sign in "]}")
            deepest = max(deepest, inside)
    return deepest


def test_the_depth_is_that_of_a_slow_count():
    draw = random.Random(0)
    for _ in range(2000):
        data = "".join(draw.choices('[]{}"\\a,:', weights=[3, 1, 3, 1, 2, 2, 1, 1, 1], k=draw.randrange(30))).encode()
        assert depth(data) == slow_depth(data), data
    for value in ([], {}, 1, "[[[[", {"a": [{"b": "]}"}]}, [["\\", '"['], ["[" * 9]]):
        assert depth(json.dumps(value).encode()) == slow_depth(json.dumps(value).encode())


@pytest.mark.parametrize(
    "data", [DEEP, b'{"a":' * 180_000, b'"' + b'\\"' * 450_000, b'"' + b'\\"' * 450_000 + b"\\", b'"[' * 450_000]
)
def test_a_million_characters_are_looked_at_once(data):
    """Were one looked at again for each before it, this would take hours."""
    assert depth(data) == slow_depth(data)


@pytest.fixture
def client():
    app = FastAPI()

    @app.post("/said")
    async def said(request: Request):
        return len(await request.body())

    app.add_middleware(ShallowJson, max_size=2**20)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=2**20)
    problems.install(app)
    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.x+json", "text/plain", None])
def test_deep_json_is_refused_before_it_is_parsed(client, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    refused = client.post("/said", content=DEEP, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
    assert refused.json()["detail"] == "the JSON is nested 900,000 deep, expected at most 32"
    allowed = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert client.post("/said", content=iter([allowed[:5], allowed[5:]]), headers=headers).json() == 2 * MAX_DEPTH
    assert client.post("/said", content=b"[" + allowed + b"]", headers=headers).status_code == 400
    assert client.post("/said", content=b"", headers=headers).json() == 0


def test_forms_and_what_is_too_long_are_for_others(client):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/said", content=DEEP, headers=form).json() == len(DEEP)
    assert client.post("/said", content=DEEP * 2).status_code == 413
