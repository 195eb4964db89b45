"""The web page: files of the package, served so that a browser runs these and nothing else, and keeps them."""

import hashlib
import posixpath
import re
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


# What no other content will ever have the address of.
_FOR_GOOD = {"Cache-Control": "public, max-age=31536000, immutable"}
_IMPORT = re.compile(r'^(?:import|export)(?:\s[\s\w$*,{}]*?\bfrom)?\s*"(\.\.?/[^"]+)"', re.MULTILINE)
_MODULE = '<script type="module"'


def page() -> APIRouter:
    """The routes of the page: `/`, `/docs`, and files under `/static/`; none of them is part of the API.

    `/` names its files below a folder that is called by the content of them all, so that a browser asks for each once
    and those of two versions never meet, and names every module, so that none waits for the one that imports it.
    """
    router = APIRouter(include_in_schema=False)
    files = dict(_files(resources.files("service.web")))
    version = hashlib.sha256(b"".join(hashlib.sha256(files[name]).digest() for name in sorted(files))).hexdigest()[:16]
    named = _naming_modules(files).replace('"static/', f'"static/{version}/').encode()

    @router.get("/")
    async def index(request: Request) -> Response:
        return _answer(request, "index.html", named)

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        return _answer(request, "docs.html", files["docs.html"], _OF_DOCS)

    @router.get("/static/{name:path}")
    async def static(request: Request, name: str) -> Response:
        own = name.removeprefix(f"{version}/")
        if own not in files:
            raise NotFound(f"no file {name!r} of the page")
        return _answer(request, own, files[own], _HEADERS if own == name else _HEADERS | _FOR_GOOD)

    return router


def modules(files: Mapping[str, bytes], name: str) -> list[str]:
    """The names of a module and of all that it imports, those that are reached first before the others."""
    found = [name]
    for one in found:
        imported = _IMPORT.findall(files[one].decode())
        reached = (posixpath.normpath(posixpath.join(posixpath.dirname(one), path)) for path in imported)
        found += [other for other in dict.fromkeys(reached) if other not in found]
    return found


def _naming_modules(files: Mapping[str, bytes]) -> str:
    """The page with a link to each module that its own one imports."""
    imported = modules(files, "main.js")[1:]
    links = "".join(f'<link rel="modulepreload" href="static/{name}">\n' for name in imported)
    return files["index.html"].decode().replace(_MODULE, links + _MODULE)


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
