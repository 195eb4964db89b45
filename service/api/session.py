"""Routes by which the web page shows a key once; the browser keeps it in a cookie that no script can read."""

from fastapi import APIRouter, HTTPException, Request, Response

from service.api.access import BEARER, COOKIE, FindKey, caller_of
from service.api.problems import documented
from service.api.proxies import root_of
from service.wire.admin_schemas import Credentials, Session

MAX_BODY = 10_000  # nobody has shown a key yet


def session(find_key: FindKey) -> APIRouter:
    """`/v1/session`."""
    router = APIRouter(prefix="/v1/session", tags=["session"])

    @router.get("")
    def get(request: Request) -> Session:
        """Who is asking, and what they may do."""
        return Session.of(caller_of(request))

    @router.post("", responses=documented(400, 401, 413, 422), max_body_size=MAX_BODY)
    def begin(credentials: Credentials, request: Request, response: Response) -> Session:
        """Have the browser send a key with all that follows."""
        secret = credentials.key.get_secret_value()
        key = find_key(secret)
        if key is None:
            raise HTTPException(401, "the key is unknown or revoked", BEARER)
        # A proxy may not say that it is asked by https, but the browser says where the page came from.
        secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
        path = root_of(request) or "/"
        response.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=secure, path=path)
        return Session.of(key.caller())

    @router.delete("", status_code=204)
    def end(request: Request, response: Response) -> None:
        """Have the browser forget the key."""
        response.delete_cookie(COOKIE, path=root_of(request) or "/")

    return router
