import hashlib
import posixpath
import re
from importlib import resources
from pathlib import PurePath

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.api import problems
from service.api.page import _files, modules, page


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
    # Relative, for the page may be below a path.
    assert any(re.fullmatch(rf"static/(\w+/)?{module}\.js", path) for path in named)
    for path in named:
        assert client.get(f"/{path}").status_code == 200
    assert "<style" not in html
    assert not re.search(r"<script(?!( type=\"module\")? src=)|\son\w+=|\sstyle=", html)


def imported(client):
    """The names of the modules of the page, each with what it holds, as a browser finds them one by one."""
    seen, waiting = {}, ["main.js"]
    while waiting:
        name = waiting.pop()
        source = client.get(f"/static/{name}")
        assert source.status_code == 200, name
        seen[name] = source.text
        named = re.findall(r'from "(\.\.?/[^"]+)"', source.text)
        waiting += {posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in named} - set(seen)
    return seen


def test_every_module_imports_only_modules_that_are_there(client):
    assert {"main.js", "api.js", "viewer.js", "views/imports.js", "vendor/preact.js"} <= set(imported(client))


def test_the_page_names_every_module_once_and_no_other(client):
    (script,) = re.findall(r'<script type="module" src="(static/\w+/)main\.js">', client.get("/").text)
    named = re.findall(r'<link rel="modulepreload" href="([^"]+)">', client.get("/").text)
    assert sorted([f"{script}main.js", *named]) == sorted(script + name for name in imported(client))


def test_no_module_depends_on_its_own_address(client):
    """Which has the version in it: what the API is asked by is where the page is."""
    assert [name for name, source in imported(client).items() if "import.meta" in source] == []


def test_files_of_a_version_are_kept_for_good(client):
    (folder,) = set(re.findall(r'"(static/\w+/)', client.get("/").text))
    for name in ("main.js", "views/home.js", "style.css", "icon.svg"):
        kept, plain = client.get(f"/{folder}{name}"), client.get(f"/static/{name}")
        assert (kept.status_code, kept.content, kept.headers["etag"]) == (200, plain.content, plain.headers["etag"])
        assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert policy(kept) == policy(plain)
        assert (plain.headers["cache-control"], kept.headers["content-type"]) == (
            "no-cache",
            plain.headers["content-type"],
        )
    for path in (folder, f"{folder}other.js", f"{folder}{folder}main.js", "static/0123456789abcdef/main.js"):
        assert client.get(f"/{path}").status_code == 404


def test_a_version_is_that_of_what_the_files_hold(client, monkeypatch):
    def folder(page):
        return re.findall(r'src="(static/\w+/)main', page.get("/").text)

    def serving(files):
        monkeypatch.setattr("service.api.page._files", lambda _: iter(files.items()))
        app = FastAPI(docs_url=None)
        app.include_router(page())
        return TestClient(app)

    web = resources.files("service.web")
    files = dict(_files(web))
    assert folder(serving(files)) == folder(client)
    assert folder(serving(dict(reversed(files.items())))) == folder(client)
    for name in ("style.css", "views/home.js"):
        assert folder(serving(files | {name: files[name] + b" "})) != folder(client)


@pytest.mark.parametrize(
    "written",
    [
        'import { a, b } from "./other.js";',
        'import {\n  a,\n  b,\n} from "./other.js";',
        'import * as all from "./other.js";',
        'import "./other.js";',
        'export { a } from "./other.js";',
        'export * from "./other.js";',
    ],
)
def test_modules_are_found_however_they_are_imported(written):
    files = {"a/one.js": f"{written}\nconst text = 1;".encode(), "a/other.js": b'import "../two.js";', "two.js": b""}
    assert modules(files, "a/one.js") == ["a/one.js", "a/other.js", "two.js"]


def test_words_within_a_module_are_no_imports():
    lines = [
        '/** @type {import("./a.js").A} */',
        '// from "./b.js"',
        'const c = "./c.js";',
        'export const d = "./d.js";',
    ]
    assert modules({"one.js": "\n".join(lines).encode()}, "one.js") == ["one.js"]


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
