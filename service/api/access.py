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
from service.api.proxies import own_path
from service.records import ALL_SCOPES, Caller, Cause, Key, Scope

COOKIE = "reid_key"
BEARER = {"WWW-Authenticate": "Bearer"}
FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto")
LOCAL = Caller("local", ALL_SCOPES)
FindKey = Callable[[str], Key | None]  # by its secret

_SAFE = {"GET", "HEAD", "OPTIONS"}
_ASKING = {"/v1/neighbours", "/query", "/v1/query", "/v1/classify", "/v1/attention", "/v1/subjects"}
_OPEN = re.compile(r"/|/docs|/openapi\.json|/static/.*|/health/.*", re.DOTALL)
_ADMIN = re.compile(r"/v1/(admin|jobs)(/.*)?", re.DOTALL)
_JOB = re.compile(r"/v1/jobs/[^/]+")
_PICTURE = re.compile(r"/v1/(items/[^/]+/(image|thumbnail)|subjects/[^/]+/photos/[^/]+)")
PICTURES = 50  # for each request that a key may send
_ROUNDING = 1e-6  # seconds; sums of floating-point numbers are not exact
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d*)?")


def needed_scope(method: str, path: str) -> Scope | None:
    """The scope that a request needs, or None where it needs no key; a path that is not known is protected."""
    if path == "/v1/session" and method in {"POST", "DELETE"}:
        return None
    if method in {"GET", "HEAD"} and _JOB.fullmatch(path):  # which shows others than admins their own
        return "write"
    if _ADMIN.fullmatch(path):
        return "admin"
    if path == "/v1/review/next":  # which leases a question
        return "write"
    if method == "POST" and path in _ASKING:
        return "read"
    if method not in {"GET", "HEAD"}:
        return "write"
    return None if _OPEN.fullmatch(path) else "read"


def caller_of(request: Request) -> Caller:
    """Who sent a request to a route that needs a scope."""
    caller: Caller = request.state.caller
    return caller


def asker_of(request: Request) -> Caller | None:
    """Who sent a request, if it is known, also where no key was needed."""
    caller: Caller | None = getattr(request.state, "caller", None)
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
    origins: Collection[str] = (),
    behind_proxy: bool = False,
) -> None:
    """Have `app` answer only requests whose key allows them, and its description say which key each operation needs.

    Where keys are not required, a request without one comes from this machine and may do everything; `allowed_hosts`
    are names of this machine beside `localhost`, without port. A key that is sent must be a valid one all the same.
    Pages may ask from `origins` beside the host that is asked. What a proxy forwarded is not from this machine, unless
    the service is known to be `behind_proxy`. `clock` counts seconds. It comes before `problems.install`, whose request
    ids it uses.
    """
    hosts = {"localhost", *(host.lower() for host in allowed_hosts)}
    app.add_middleware(
        _Access,
        find_key=find_key,
        require_keys=require_keys,
        hosts=hosts,
        clock=clock,
        origins=frozenset(origins),
        behind_proxy=behind_proxy,
    )
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
        hosts: Collection[str],
        clock: Callable[[], float],
        origins: Collection[str],
        behind_proxy: bool,
    ) -> None:
        self._app = app
        self._find_key = find_key
        self._require_keys = require_keys
        self._hosts = hosts
        self._origins = origins
        self._behind_proxy = behind_proxy
        self._rates, self._picture_rates = _Rates(clock, "requests"), _Rates(clock, "pictures", PICTURES)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await WebSocketClose(1008, "there are no websockets here")(scope, receive, send)
        elif scope["type"] == "http" and (refusal := self._refusal(scope)):
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Connection) -> Response | None:
        """Why a request is refused; None for one that may pass, and then its caller is known."""
        request, method, path = HTTPConnection(scope), scope["method"], own_path(scope)
        host = request.headers.get("host", "")
        # A name of another site may lead to this machine: then a page of that site could read what it gets from here.
        if not self._require_keys and not self._is_ours(host):
            detail = f"host {host!r} is not this machine; expected localhost, or a name in REID_ALLOWED_HOSTS"
            return problem(scope, 403, "foreign_host", detail)
        if method not in _SAFE and _is_foreign(request.headers, self._origins):
            return problem(scope, 403, "foreign_origin", "a page of another site may not ask for this")
        needed, secret = needed_scope(method, path), _secret(request)
        if needed is None:  # some say more to those with a key
            if path == "/health/ready" and (known := self._known(secret)):
                scope["state"]["caller"] = known
            return None
        if secret is None and not self._require_keys:
            if (header := _forwarded(request.headers)) and not self._behind_proxy:
                detail = (
                    f"a proxy forwarded this ({header}), so that it may be from anywhere and needs a key: set "
                    "REID_REQUIRE_KEYS=true, or REID_PUBLIC_URL to the address that the proxy has for people"
                )
                return problem(scope, 403, "forwarded", detail)
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
        rates = self._picture_rates if _is_picture(method, path) else self._rates
        if wait := rates.wait(key):
            detail = f"the key allows {rates.limit(key)} a minute; try again in {wait} s"
            return problem(scope, 429, "too_many_requests", detail, headers={"Retry-After": str(wait)})
        scope["state"]["caller"] = key.caller()
        return None

    def _known(self, secret: str | None) -> Caller | None:
        """Who asks for what needs no key, as far as is known."""
        if secret is None:
            return None if self._require_keys else LOCAL
        key = self._find_key(secret)
        return None if key is None else key.caller()

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

    def __init__(self, clock: Callable[[], float], what: str, factor: int = 1) -> None:
        """`factor` is how many times the limit of a key may be had of these in a minute."""
        self._clock = clock
        self._what = what
        self._factor = factor
        self._full: dict[str, float] = {}

    def limit(self, key: Key) -> str:
        """What a key with a limit allows in a minute, in words."""
        return f"{self._factor * (key.requests_per_minute or 0)} {self._what}"

    def wait(self, key: Key) -> int:
        """Take a token and return 0, or return the seconds until there is one."""
        if key.requests_per_minute is None:
            return 0
        now = self._clock()
        full = max(now, self._full.get(key.key_id, now)) + 60 / key.requests_per_minute / self._factor
        wait = max(0, ceil(full - now - 60 - _ROUNDING))
        if not wait:
            self._full[key.key_id] = full
        return wait


def _forwarded(headers: Mapping[str, str]) -> str | None:
    """The header by which a proxy tells that it is one, if there is any."""
    return next((name for name in FORWARDED if name in headers), None)


def _is_foreign(headers: Mapping[str, str], origins: Collection[str]) -> bool:
    """Whether a page of another origin had the browser send a request; programs send neither of the two headers."""
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and origin.lower() in origins:
        return False
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return True
    return headers.get("sec-fetch-site") in {"cross-site", "same-site"}


def _secret(request: HTTPConnection) -> str | None:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":  # another scheme is that of a proxy, and says nothing of keys
        return secret.strip()
    return request.headers.get("x-api-key", request.cookies.get(COOKIE))


def _is_picture(method: str, path: str) -> bool:
    """Whether a request counts among those for pictures, of which a page of matches asks for dozens."""
    return method in {"GET", "HEAD"} and _PICTURE.fullmatch(path) is not None


def _describe(operation: dict[str, Any], method: str, path: str, require_keys: bool) -> None:
    """Add to the description of an operation the scope that it needs, and the statuses of its refusals."""
    needed, statuses = needed_scope(method, path), [403]
    if needed is not None:
        operation["security"] = [{"bearer": [needed]}, {"header": [needed]}]
        if not require_keys:
            operation["security"].append({})
        statuses += [401, 429]
    for status, answer in documented(*statuses).items():
        operation["responses"].setdefault(str(status), answer)
