import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from service.api.starting import Starting


def test_alive_but_not_ready_until_there_is_something_to_ask():
    starting = Starting()
    client = TestClient(starting)
    assert client.get("/health/live").json() == {"status": "live"}
    starting.tell("filling the index")
    for method, path in (
        ("GET", "/health/ready"),
        ("GET", "/"),
        ("POST", "/query"),
        ("POST", "/health/live"),
        ("DELETE", "/v1/items/x"),
        ("GET", "/metrics"),
    ):
        refused = client.request(method, path)
        assert refused.status_code == 503, path
        assert refused.headers["content-type"] == "application/problem+json"
        assert int(refused.headers["retry-after"]) > 0
        problem = refused.json()
        assert (problem["code"], problem["status"]) == ("starting", 503)
        assert problem["detail"] == "the service starts: filling the index; ask again"
        assert problem["request_id"] == refused.headers["x-request-id"]
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass
    starting.app = PlainTextResponse("here")
    assert client.get("/health/ready").text == "here"
