"""The web page: files of the package, served so that a browser runs these and nothing else."""

import hashlib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
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
# The description of the API is drawn by Swagger UI, which styles elements by attributes and brings icons as data; its
# scripts are files, as ours are.
_OF_DOCS = {
    **_HEADERS,
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
}


def page() -> APIRouter:
    """The routes of the page: `/`, `/docs`, and files under `/static/`; none of them is part of the API."""
    router = APIRouter(include_in_schema=False)
    files = dict(_files(resources.files("service.web")))

    @router.get("/")
    async def index(request: Request) -> Response:
        return _answer(request, "index.html", files["index.html"])

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        return _answer(request, "docs.html", files["docs.html"], _OF_DOCS)

    @router.get("/static/{name:path}")
    async def static(request: Request, name: str) -> Response:
        if name not in files:
            raise NotFound(f"no file {name!r} of the page")
        return _answer(request, name, files[name])

    return router


def _files(folder: Traversable, within: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{within}{entry.name}/")
        elif PurePath(entry.name).suffix in _MEDIA_TYPES:
            yield within + entry.name, entry.read_bytes()


def _answer(request: Request, name: str, content: bytes, always: Mapping[str, str] = _HEADERS) -> Response:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**always, "ETag": etag}
    if request.headers.get("if-none-match", "").removeprefix("W/") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_MEDIA_TYPES[PurePath(name).suffix])
