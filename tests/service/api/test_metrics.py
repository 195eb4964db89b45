import logging

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service.api import problems
from service.api.metrics import Observed, metrics
from service.metrics import Metrics
from service.records import Caller


@pytest.fixture
def client():
    """A service with an answer, a refusal and a failure."""
    measured = Metrics()
    app = FastAPI()
    problems.install(app)
    app.add_middleware(Observed, measured)
    app.include_router(metrics(measured))

    @app.get("/v1/items/{item_id}")
    def get(item_id: str, request: Request) -> str:
        request.state.caller = Caller("key-1", frozenset({"read"}))
        return item_id

    @app.get("/v1/items/{item_id}/image")
    def image(item_id: str, request: Request) -> Response:
        if item_id == "gone":
            request.state.code = "not_found"
            return Response(status_code=404, media_type=problems.MEDIA_TYPE)
        return Response(b"")

    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError("it failed")

    return TestClient(app, raise_server_exceptions=False)


def counted(client, name):
    """The values of a metric by the values of its labels, in the order of their names."""
    response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name == name
    }


def test_requests_are_counted_by_route_method_and_status(client):
    for item in ("a", "b", "c%0ad"):
        assert client.get(f"/v1/items/{item}").status_code == 200
    assert client.delete("/v1/items/a").status_code == 405
    assert client.get("/fails").status_code == 500
    assert counted(client, "reid_requests_total") == {
        ("GET", "/v1/items/{item_id}", "200"): 3,
        ("DELETE", "/v1/items/{item_id}", "405"): 1,
        ("GET", "/fails", "500"): 1,
    }
    seconds = counted(client, "reid_request_seconds_count")
    assert seconds == {("/v1/items/{item_id}",): 4, ("/fails",): 1, ("/metrics",): 1}


def test_what_clients_make_up_adds_one_series_and_no_more(client):
    for number in range(50):
        client.request(f"METHOD{number}", f"/path/{number}")
        client.request(f"METHOD{number}", "/v1/items/a")
    assert counted(client, "reid_requests_total") == {
        ("other", "other", "404"): 50,
        ("other", "/v1/items/{item_id}", "405"): 50,
    }


def test_refusals_are_counted_by_code(client):
    client.get("/v1/items/a")
    client.get("/v1/items/gone/image")
    client.get("/fails")
    assert counted(client, "reid_refused_total") == {("not_found",): 1, ("internal_error",): 1}


@pytest.mark.parametrize("accept", ["text/plain; version=abc", "application/openmetrics-text; version=9.x", ""])
def test_the_format_is_the_same_whatever_a_client_accepts(client, accept):
    response = client.get("/metrics", headers={"Accept": accept})
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_a_request_is_one_record_without_its_secrets(client, caplog):
    caplog.set_level(logging.INFO, "reid.access")
    headers = {"Authorization": "Bearer hidden-1", "X-API-Key": "hidden-2", "Cookie": "reid_key=hidden-3"}
    response = client.get("/v1/items/a?key=hidden-4", headers=headers)
    client.get("/fails")
    answered, failed = (record for record in caplog.records if record.name == "reid.access")
    assert answered.getMessage() == "GET /v1/items/{item_id} 200"
    assert (answered.request_id, answered.actor) == (response.headers["x-request-id"], "key-1")
    assert (answered.method, answered.path, answered.status, answered.code) == ("GET", "/v1/items/a", 200, None)
    assert 0 < answered.ms < 60_000
    assert (failed.status, failed.code, failed.actor) == (500, "internal_error", None)
    assert len(failed.request_id) == 32
    assert "hidden" not in str([vars(record) for record in caplog.records])


def test_pictures_and_health_are_quiet_unless_they_are_refused(client, caplog):
    caplog.set_level(logging.DEBUG, "reid.access")
    for path in ("/v1/items/a/image", "/metrics", "/v1/items/gone/image", "/v1/items/a"):
        client.get(path)
    levels = [record.levelname for record in caplog.records if record.name == "reid.access"]
    assert levels == ["DEBUG", "DEBUG", "INFO", "INFO"]
