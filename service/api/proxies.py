"""What stands in front of the service, and by which address people know it there."""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.settings import ROOT_PATH, Network, Settings


def is_trusted(address: str | None, proxies: Sequence[Network]) -> bool:
    """Whether the address of a peer is in one of the networks of proxies."""
    try:
        peer = ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
        peer = peer.ipv4_mapped
    return any(peer in network for network in proxies)


def root_of(request: HTTPConnection) -> str:
    """The path below which the asker sees the service, without a slash at its end; empty at the root of a host."""
    root: str = request.scope.get("root_path", "")
    return root


def own_path(scope: Scope) -> str:
    """The path of a request as routes name it, without that below which the service is seen."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Proxied:
    """Puts an application below the path, and under the host and scheme, by which people reach it.

    The path is that of the settings, whether or not the proxy takes it away. Proxies that are trusted may say another
    (X-Forwarded-Prefix), the host (X-Forwarded-Host) and the scheme (X-Forwarded-Proto).
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._root = settings.root
        self._proxies = settings.trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = dict(scope)
            root, (peer, _) = self._root, scope.get("client") or (None, 0)
            if is_trusted(peer, self._proxies):
                root = _believe(scope, root)
            if root and scope["path"] == root:
                # The page names its files from here on. Only a path, for a host may be any that somebody asked by.
                await Response(status_code=308, headers={"Location": f"{root}/"})(scope, receive, send)
                return
            if not scope["path"].startswith(f"{root}/"):
                scope["path"] = root + scope["path"]
            scope["root_path"] = root
        await self._app(scope, receive, send)


def _believe(scope: Scope, root: str) -> str:
    """Take over what a proxy says of host and scheme, and return the path, which is `root` where it says none."""
    said = Headers(scope=scope)
    if (scheme := _first(said.get("x-forwarded-proto"))) in ("http", "https"):
        scope["scheme"] = scheme
    if host := _first(said.get("x-forwarded-host")):
        scope["headers"] = list(scope["headers"])
        MutableHeaders(scope=scope)["host"] = host
    prefix = _first(said.get("x-forwarded-prefix")).rstrip("/")
    return prefix if re.fullmatch(ROOT_PATH, prefix) else root


def _first(value: str | None) -> str:
    """What the proxy nearest to the asker said."""
    return (value or "").partition(",")[0].strip()
