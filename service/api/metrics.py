"""What is told of every request: numbers for Prometheus, and a line in the log."""

import logging
from time import perf_counter

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.access import asker_of
from service.api.problems import Forbidden
from service.metrics import Metrics

log = logging.getLogger("reid.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
# Asked for again and again, so that their lines would bury the others.
QUIET = frozenset(
    {
        "/health/live",
        "/health/ready",
        "/metrics",
        "/static/{name:path}",
        "/v1/items/{item_id}/image",
        "/v1/items/{item_id}/thumbnail",
    }
)


def metrics(measured: Metrics) -> APIRouter:
    """The route that Prometheus reads."""
    router = APIRouter(tags=["health"])

    # One format for all: that of `choose_encoder` depends on Accept, and a version such as `abc` there makes it raise.
    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def read(request: Request) -> Response:
        """Measurements of the service, in the text format of Prometheus."""
        asker = asker_of(request)
        if asker is not None and asker.cameras is not None:
            raise Forbidden(f"measurements count all items, and this key sees those of {sorted(asker.cameras)}")
        return Response(generate_latest(measured.registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    return router


class Observed:
    """Counts, times and logs each request once its answer is sent.

    It stands outside of all that may refuse a request. From `scope["state"]` it takes the `request_id`, the `caller`
    and the `code` of the problem, so far as they are there.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what the server answers when the application raises

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begun = perf_counter()
        try:
            await self._app(scope, receive, watched)
        finally:
            self._tell(scope, status, perf_counter() - begun)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", OTHER)
        method = scope["method"] if scope["method"] in METHODS else OTHER
        self._metrics.requests.labels(route, method, status).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        state = scope.get("state", {})
        code = state.get("code") or ("internal_error" if status == 500 else None)
        if code:
            self._metrics.refused.labels(code).inc()
        told = {
            "request_id": state.get("request_id"),
            "actor": getattr(state.get("caller"), "actor", None),
            "method": method,
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 3),
            "code": code,
        }
        level = logging.DEBUG if route in QUIET and status < 400 else logging.INFO
        log.log(level, "%s %s %d", method, route, status, extra=told)
