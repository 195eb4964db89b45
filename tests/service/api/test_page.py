import hashlib
import posixpath
import re
from importlib import resources
from pathlib import PurePath

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api import problems
from service.api.page import page


@pytest.fixture
def client():
    app = FastAPI(docs_url=None)
    problems.install(app)
    app.include_router(page())
    return TestClient(app)


def policy(response):
    """The directives of the content security policy of an answer, by name."""
    parts = [part.split() for part in response.headers["content-security-policy"].split(";")]
    return {name: sources for name, *sources in parts}


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/index.html", "text/html; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/main.js", "text/javascript; charset=utf-8"),
        ("/static/views/home.js", "text/javascript; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
        ("/docs", "text/html; charset=utf-8"),
    ],
)
def test_each_file_is_sent_as_what_it_is_with_every_protection(client, path, media_type):
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == media_type
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "same-origin"
    assert response.headers["cache-control"] == "no-cache"
    directives = policy(response)
    assert directives["default-src"] == ["'none'"]
    assert directives["frame-ancestors"] == ["'none'"]
    assert directives["base-uri"] == ["'none'"]
    for name in ("script-src", "connect-src"):
        assert directives[name] == ["'self'"]
    assert directives["style-src"] == ["'self'"] + (["'unsafe-inline'"] if path == "/docs" else [])


def test_a_file_that_the_browser_has_is_not_sent_again(client):
    etag = client.get("/").headers["etag"]
    for sent in (etag, f"W/{etag}"):
        again = client.get("/", headers={"If-None-Match": sent})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["__init__.py", "other.js", "..%2Fpage.py", "%2Fetc%2Fpasswd", "%00"])
def test_nothing_else_is_served(client, name):
    response = client.get(f"/static/{name}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("page", "module"), [("/", "main"), ("/docs", "docs")])
def test_the_page_names_only_files_that_are_there_and_holds_no_code(client, page, module):
    html = client.get(page).text
    named = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert f"static/{module}.js" in named  # from where the page is, which may be below a path
    for path in named:
        assert client.get(f"/{path}").status_code == 200
    assert "<style" not in html
    assert not re.search(r"<script(?!( type=\"module\")? src=)|\son\w+=|\sstyle=", html)


def test_every_module_imports_only_modules_that_are_there(client):
    seen, waiting = set(), ["main.js"]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        source = client.get(f"/static/{name}")
        assert source.status_code == 200, name
        named = re.findall(r'from "(\.\.?/[^"]+)"', source.text)
        waiting += {posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in named} - seen
    assert {"main.js", "api.js", "viewer.js", "views/imports.js", "vendor/preact.js"} <= seen


def test_vendored_files_are_those_that_were_published():
    folder = resources.files("service.web") / "vendor"
    said = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    vendored = [*folder.iterdir(), *(folder / "swagger-ui").iterdir()]
    assert {PurePath(name).name: sha256 for name, sha256 in said.items()} == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in vendored
        if file.name.endswith((".js", ".css"))
    }


def test_the_page_is_no_part_of_the_api():
    assert [route.include_in_schema for route in page().routes] == [False, False, False]
