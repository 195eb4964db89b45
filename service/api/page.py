"""The web page: files of the package, served so that a browser runs these and nothing else."""

import hashlib
from importlib import resources
from pathlib import PurePath

from fastapi import APIRouter, Request, Response

from service.records import NotFound

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Scripts, styles and requests of this origin alone; trusted types make it an error to read any text as HTML.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def page() -> APIRouter:
    """The routes of the page: `/`, and its other files under `/static/`; none of them is part of the API."""
    router = APIRouter(include_in_schema=False)
    files = {
        file.name: file.read_bytes()
        for file in resources.files("service.web").iterdir()
        if PurePath(file.name).suffix in _MEDIA_TYPES
    }

    @router.get("/")
    async def index(request: Request) -> Response:
        return _answer(request, "index.html", files["index.html"])

    @router.get("/static/{name}")
    async def static(request: Request, name: str) -> Response:
        if name not in files:
            raise NotFound(f"no file {name!r} of the page")
        return _answer(request, name, files[name])

    return router


def _answer(request: Request, name: str, content: bytes) -> Response:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": etag}
    if request.headers.get("if-none-match", "").removeprefix("W/") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_MEDIA_TYPES[PurePath(name).suffix])
