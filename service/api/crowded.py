"""What is answered on a connection beyond those that there may be: that the service lives, and to come again."""

from http import HTTPStatus
from uuid import uuid4

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import problem
from service.api.proxies import own_path
from service.api.uploads import Drained

WHY = "crowded"  # in the state of a request on such a connection: the limit, in words that may be shown to anyone
RETRY_AFTER = 10  # seconds


class Crowded:
    """Asks an application nothing but `/health/live` on connections that are too many; all else gets 503 `busy`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._refused = Drained(_refuse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        crowded = WHY in scope.get("state", {}) and own_path(scope) != "/health/live"
        await (self._refused if crowded else self._app)(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["request_id"] = uuid4().hex
    detail = f"{scope['state'][WHY]}; try again in {RETRY_AFTER} s"
    headers = {"Retry-After": str(RETRY_AFTER)}
    await problem(scope, HTTPStatus.SERVICE_UNAVAILABLE, "busy", detail, headers=headers)(scope, receive, send)
