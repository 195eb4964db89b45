"""Who may do what, decided in one place before anything of a request is read but its head."""

import re
import time
from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection
from starlette.websockets import WebSocketClose

from service.api.problems import documented, problem
from service.records import ALL_SCOPES, Caller, Cause, Key, Scope

COOKIE = "reid_key"
BEARER = {"WWW-Authenticate": "Bearer"}
LOCAL = Caller("local", ALL_SCOPES)
FindKey = Callable[[str], Key | None]  # by its secret

_SAFE = {"GET", "HEAD", "OPTIONS"}
_ASKING = {"/query", "/v1/query", "/v1/classify", "/v1/attention"}
_OPEN = re.compile(r"/|/openapi\.json|/static/.*|/health/.*", re.DOTALL)
_ADMIN = re.compile(r"/v1/(admin|jobs)(/.*)?", re.DOTALL)
_PICTURE = re.compile(r"/v1/items/[^/]+/(image|thumbnail)")
_ROUNDING = 1e-6  # seconds; sums of floating-point numbers are not exact
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d*)?")


def needed_scope(method: str, path: str) -> Scope | None:
    """The scope that a request needs, or None where it needs no key; a path that is not known is protected."""
    if path == "/v1/session" and method in {"POST", "DELETE"}:
        return None
    if _ADMIN.fullmatch(path):
        return "admin"
    if method == "POST" and path in _ASKING:
        return "read"
    if method not in {"GET", "HEAD"}:
        return "write"
    return None if _OPEN.fullmatch(path) else "read"


def caller_of(request: Request) -> Caller:
    """Who sent a request to a route that needs a scope."""
    caller: Caller = request.state.caller
    return caller


def cause_of(request: Request) -> Cause:
    """What the logs keep of a request to a route that needs a scope."""
    return Cause(caller_of(request).actor, request.state.request_id)


def install(
    app: FastAPI,
    find_key: FindKey,
    require_keys: bool,
    allowed_hosts: Collection[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Have `app` answer only requests whose key allows them, and its description say which key each operation needs.

    Where keys are not required, a request without one comes from this machine and may do everything; `allowed_hosts`
    are names of this machine beside `localhost`, without port. A key that is sent must be a valid one all the same.
    `clock` counts seconds. It comes before `problems.install`, whose request ids it uses.
    """
    app.add_middleware(_Access, find_key=find_key, require_keys=require_keys, allowed_hosts=allowed_hosts, clock=clock)
    describe = app.openapi

    def with_access() -> dict[str, Any]:
        description = describe()
        description.setdefault("components", {})["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, operations in description["paths"].items():
            for method, operation in operations.items():
                _describe(operation, method.upper(), path, require_keys)
        return description

    app.openapi = with_access  # type: ignore[method-assign]


class _Access:
    """Lets a request pass if its key allows it, and answers it with a problem otherwise."""

    def __init__(
        self,
        app: ASGIApp,
        find_key: FindKey,
        require_keys: bool,
        allowed_hosts: Collection[str],
        clock: Callable[[], float],
    ) -> None:
        self._app = app
        self._find_key = find_key
        self._require_keys = require_keys
        self._hosts = {"localhost", *(host.lower() for host in allowed_hosts)}
        self._rates = _Rates(clock)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocketClose(1008, "there are no websockets here")(scope, receive, send)
        elif scope["type"] == "http" and (refusal := self._refusal(scope)):
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Connection) -> Response | None:
        """Why a request is refused; None for one that may pass, and then its caller is known."""
        request, method, path = HTTPConnection(scope), scope["method"], scope["path"]
        host = request.headers.get("host", "")
        # A name of another site may lead to this machine: then a page of that site could read what it gets from here.
        if not self._require_keys and not self._is_ours(host):
            detail = f"host {host!r} is not this machine; expected localhost, or a name in REID_ALLOWED_HOSTS"
            return problem(scope, 403, "foreign_host", detail)
        if method not in _SAFE and _is_foreign(request.headers):
            return problem(scope, 403, "foreign_origin", "a page of another site may not ask for this")
        needed = needed_scope(method, path)
        if needed is None:
            return None
        secret = _secret(request)
        if secret is None and not self._require_keys:
            scope["state"]["caller"] = LOCAL
            return None
        key = None if secret is None else self._find_key(secret)
        if key is None:
            sent = "no key was sent" if secret is None else "the key is unknown or revoked"
            detail = f"{sent}; expected one with scope '{needed}' as Authorization: Bearer KEY, or as X-API-Key: KEY"
            return problem(scope, 401, "unauthorized", detail, headers=BEARER)
        if needed not in key.scopes:
            detail = f"this needs a key with scope '{needed}'; the one that was sent has {sorted(key.scopes)}"
            return problem(scope, 403, "forbidden", detail)
        if not _is_free(method, path) and (wait := self._rates.wait(key)):
            detail = f"the key allows {key.requests_per_minute} requests a minute; try again in {wait} s"
            return problem(scope, 429, "too_many_requests", detail, headers={"Retry-After": str(wait)})
        scope["state"]["caller"] = key.caller()
        return None

    def _is_ours(self, host: str) -> bool:
        if not (parts := _HOST.fullmatch(host.lower())):
            return False
        name = parts[1] or parts[2]
        try:
            return name in self._hosts or ip_address(name).is_loopback
        except ValueError:
            return False


class _Rates:
    """A bucket of tokens for each key with a limit: it holds those of a minute, and fills at the rate of the limit.

    Of a bucket it keeps the time when that is full again; the event loop alone calls it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._full: dict[str, float] = {}

    def wait(self, key: Key) -> int:
        """Take a token and return 0, or return the seconds until there is one."""
        if key.requests_per_minute is None:
            return 0
        now = self._clock()
        full = max(now, self._full.get(key.key_id, now)) + 60 / key.requests_per_minute
        wait = max(0, ceil(full - now - 60 - _ROUNDING))
        if not wait:
            self._full[key.key_id] = full
        return wait


def _is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a page of another origin had the browser send a request; programs send neither of the two headers."""
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return True
    return headers.get("sec-fetch-site") in {"cross-site", "same-site"}


def _secret(request: HTTPConnection) -> str | None:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":  # another scheme is that of a proxy, and says nothing of keys
        return secret.strip()
    return request.headers.get("x-api-key", request.cookies.get(COOKIE))


def _is_free(method: str, path: str) -> bool:
    """Whether a request does not count: a page of matches asks for dozens of pictures."""
    return method in {"GET", "HEAD"} and _PICTURE.fullmatch(path) is not None


def _describe(operation: dict[str, Any], method: str, path: str, require_keys: bool) -> None:
    """Add to the description of an operation the scope that it needs, and the statuses of its refusals."""
    needed, statuses = needed_scope(method, path), [403]
    if needed is not None:
        operation["security"] = [{"bearer": [needed]}, {"header": [needed]}]
        if not require_keys:
            operation["security"].append({})
        statuses += [401] if _is_free(method, path) else [401, 429]
    for status, answer in documented(*statuses).items():
        operation["responses"].setdefault(str(status), answer)
