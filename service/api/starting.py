"""What is answered while a service loads, before there is anything to ask."""

import logging
from http import HTTPStatus
from uuid import uuid4

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from service.api.problems import REQUEST_ID, problem
from service.api.proxies import own_path
from service.wire.schemas import Live

log = logging.getLogger("reid")

RETRY_AFTER = 2  # seconds


class Starting:
    """The application from the first moment on: alive, not ready, and 503 to all else, until `app` takes over.

    `doing` says what is under way, in words that may be shown to anyone.
    """

    def __init__(self) -> None:
        self.doing = "starting"
        self.app: ASGIApp | None = None

    def tell(self, doing: str) -> None:
        """Say from now on, and in the log, what is under way."""
        self.doing = doing
        log.info("%s", doing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self.app or self._answer(scope)
        await answer(scope, receive, send)

    def _answer(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http":
            return WebSocketClose()
        request_id = scope.setdefault("state", {})["request_id"] = uuid4().hex
        if own_path(scope) == "/health/live" and scope["method"] in ("GET", "HEAD"):
            return Response(Live().model_dump_json(), headers={REQUEST_ID: request_id}, media_type="application/json")
        detail = f"the service starts: {self.doing}; ask again"
        headers = {"Retry-After": str(RETRY_AFTER)}
        return problem(scope, HTTPStatus.SERVICE_UNAVAILABLE, "starting", detail, headers=headers)
