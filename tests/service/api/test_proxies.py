"""The service behind a proxy: below a path, under another name, and whose word counts."""

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from service.api import access, problems
from service.api.app import create_app
from service.api.proxies import Proxied, is_trusted, root_of
from service.records import Key
from service.settings import Settings

KEY = "k" * 32
PUBLIC = "https://photos.example.org"


def settings(**options):
    return Settings(classifier="unused", admin_key=KEY, **options)


def echo(proxied, peer="127.0.0.1", base="http://127.0.0.1:8000"):
    """A client of an application that says what it sees of each request."""
    app = FastAPI(redirect_slashes=False)

    @app.get("/v1/seen")
    @app.get("/")
    def seen(request: Request) -> dict[str, str]:
        return {"url": str(request.url), "root": root_of(request)}

    return TestClient(Proxied(app, proxied), base, client=(peer, 50000), follow_redirects=False)


@pytest.mark.parametrize("sent", ["/reid/v1/seen", "/v1/seen"])
@pytest.mark.parametrize("said", [{"root_path": "/reid/"}, {"public_url": f"{PUBLIC}/reid/"}])
def test_a_path_is_known_whether_or_not_the_proxy_takes_it_away(sent, said):
    answer = echo(settings(**said)).get(sent)
    assert answer.json() == {"url": "http://127.0.0.1:8000/reid/v1/seen", "root": "/reid"}


def test_only_a_path_of_its_own_is_taken_away():
    client = echo(settings(root_path="/reid"))
    assert client.get("/reidentify/v1/seen").status_code == 404
    assert client.get("/reid/reid/v1/seen").status_code == 404
    assert echo(settings()).get("/reid/v1/seen").status_code == 404


def test_the_page_is_below_a_slash_and_no_host_is_repeated():
    answer = echo(settings(root_path="/reid")).get("/reid", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers["location"]) == (308, "/reid/")
    assert echo(settings(root_path="/reid")).get("/reid/").json()["root"] == "/reid"


FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "photos.example.org, inner",
    "X-Forwarded-Prefix": "/a/b/",
}


def test_what_a_trusted_proxy_forwards_goes_before_settings():
    told = settings(root_path="/reid", trusted_proxies="127.0.0.1, 10.0.0.0/8")
    for peer in ("127.0.0.1", "10.1.2.3", "::ffff:10.1.2.3"):
        answer = echo(told, peer).get("/v1/seen", headers=FORWARDED)
        assert answer.json() == {"url": f"{PUBLIC}/a/b/v1/seen", "root": "/a/b"}


@pytest.mark.parametrize("peer", ["192.168.1.5", "testclient", "::1"])
def test_what_anybody_else_forwards_is_not_believed(peer):
    answer = echo(settings(trusted_proxies="127.0.0.1,10.0.0.0/8"), peer).get("/v1/seen", headers=FORWARDED)
    assert answer.json() == {"url": "http://127.0.0.1:8000/v1/seen", "root": ""}


@pytest.mark.parametrize("prefix", ["reid", "/a b", "/a;Path=/", "/../x", '/"', "/a//b", "/é"])
def test_a_forwarded_path_that_would_have_to_be_quoted_is_not_believed(prefix):
    told = settings(root_path="/reid", trusted_proxies="127.0.0.1")
    answer = echo(told).get("/v1/seen", headers={"X-Forwarded-Prefix": prefix.encode()})
    assert answer.json()["root"] == "/reid"


@pytest.mark.parametrize("proto", ["ftp", "javascript", ""])
def test_other_schemes_are_not_believed(proto):
    told = settings(trusted_proxies="127.0.0.1")
    assert echo(told).get("/v1/seen", headers={"X-Forwarded-Proto": proto}).json()["url"].startswith("http://")


def test_networks_are_compared_as_addresses():
    networks = settings(trusted_proxies="10.0.0.7/8,fe80::/10").trusted_proxies
    trusted = ["10.255.0.1", "fe80::1%eth0", "::ffff:10.0.0.1"]
    assert [is_trusted(address, networks) for address in trusted] == [True] * 3
    assert not any(is_trusted(address, networks) for address in [None, "", "11.0.0.1", "localhost", "::1"])


@pytest.fixture
def guarded():
    """A function that gives a client of routes that need keys, behind a proxy that takes no path away."""

    def make(**options):
        told = settings(**options)
        app = FastAPI(redirect_slashes=False)
        keys = {KEY: Key("1", "reader", frozenset({"read"}), None, None, None, None)}
        access.install(app, keys.get, True, origins=[told.public_origin or ""])
        problems.install(app)

        @app.get("/v1/admin/keys")
        @app.get("/v1/items")
        @app.post("/v1/query")
        def route() -> str:
            return "seen"

        return TestClient(Proxied(app, told), "http://127.0.0.1:8000", client=("127.0.0.1", 50000))

    return make


@pytest.mark.parametrize(
    "path", ["/v1/admin/keys", "/reid/v1/admin/keys", "/reid/reid/v1/admin/keys", "/reid//v1/admin/keys"]
)
@pytest.mark.parametrize("prefix", [None, "/v1", "/reid", "/reid/reid", "/v1/admin"])
def test_no_spelling_of_a_path_gets_around_the_scopes(guarded, path, prefix):
    client = guarded(root_path="/reid", trusted_proxies="127.0.0.1")
    headers = {"X-API-Key": KEY} | ({"X-Forwarded-Prefix": prefix} if prefix else {})
    assert client.get(path, headers=headers).status_code in (403, 404)


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({"public_url": f"{PUBLIC}/reid"}, {}),
        ({"public_url": "https://Photos.Example.org:443"}, {}),
        ({"trusted_proxies": "127.0.0.1"}, {"X-Forwarded-Host": "photos.example.org", "X-Forwarded-Proto": "https"}),
    ],
)
def test_a_page_may_ask_from_the_address_that_people_use(guarded, options, headers):
    sent = {"X-API-Key": KEY, "Origin": PUBLIC, "Sec-Fetch-Site": "same-origin", **headers}
    assert guarded(**options).post("/v1/query", headers=sent).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://photos.example.org", "https://photos.example.org.evil.org", "https://evil.org", "null"]
)
def test_a_page_of_another_site_may_not(guarded, origin):
    sent = {"X-API-Key": KEY, "Origin": origin, "X-Forwarded-Host": "evil.org"}
    answer = guarded(public_url=PUBLIC).post("/v1/query", headers=sent)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")


@pytest.fixture
def below(gallery, runner):
    """A client of a gallery that is seen below /reid, through a proxy that keeps everything but the host."""
    told = Settings(checkpoint="unused", gallery="unused", admin_key=KEY, public_url=f"{PUBLIC}/reid")
    assert told.keys_required
    app = Proxied(create_app(gallery, runner, told), told)
    with TestClient(app, f"{PUBLIC}/reid", headers={"Host": "127.0.0.1:8000"}) as client:
        yield client


def test_pictures_are_where_answers_say(below, picture):
    photo = {"images": ("a.png", picture(1))}
    headers = {"X-API-Key": KEY}
    enrolled = below.post("/v1/items", files=photo, headers=headers).json()["results"][0]["item"]
    listed = below.get("/v1/items", headers=headers).json()["items"][0]
    changed = below.patch(f"/v1/items/{enrolled['item_id']}", json={"label": "ada"}, headers=headers).json()
    match = below.post("/query", files={"image": ("a.png", picture(2))}, headers=headers).json()["matches"][0]
    for told in (enrolled, listed, changed, match):
        assert told["thumbnail_url"] == f"/reid/v1/items/{enrolled['item_id']}/thumbnail"
        assert below.get(f"{PUBLIC}{told['thumbnail_url']}", headers=headers).status_code == 200


def test_a_key_is_kept_in_a_cookie_of_the_path_that_only_https_carries(below):
    page = {"Origin": PUBLIC, "Sec-Fetch-Site": "same-origin"}
    begun = below.post("/v1/session", json={"key": KEY}, headers=page)
    assert begun.status_code == 200
    said = begun.headers["set-cookie"].lower()
    assert "path=/reid" in said.split("; ") and "secure" in said.split("; ") and "httponly" in said
    assert below.get("/v1/session").status_code == 200
    ended = below.delete("/v1/session", headers=page)
    assert "path=/reid" in ended.headers["set-cookie"].lower().split("; ")
    assert below.get("/v1/session").status_code == 401


def test_the_description_says_where_the_routes_are(below):
    assert below.get("/openapi.json").json()["servers"] == [{"url": "/reid"}]


def test_no_redirect_repeats_the_host_that_was_asked(below):
    for path in ("/v1/items/", "/query/", "/v1/session/"):
        answer = below.get(path, headers={"Host": "evil.example", "X-API-Key": KEY}, follow_redirects=False)
        assert answer.status_code in (404, 405)
        assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"root_path": "reid"}, "expected a path"),
        ({"root_path": "/re id"}, "expected a path"),
        ({"root_path": "/a/../b"}, "expected a path"),
        ({"public_url": "photos.example.org"}, "expected https://HOST"),
        ({"public_url": "https://user@photos.example.org"}, "expected https://HOST"),
        ({"public_url": "https://photos.example.org/a?b"}, "expected https://HOST"),
        ({"public_url": f"{PUBLIC}/a", "root_path": "/b"}, "the same path in both"),
        ({"trusted_proxies": "nginx"}, "addresses or networks"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        settings(**options)


def test_whoever_is_behind_a_proxy_needs_a_key_unless_somebody_says_otherwise():
    assert not settings().keys_required
    for options in ({"root_path": "/reid"}, {"public_url": PUBLIC}, {"trusted_proxies": "127.0.0.1"}):
        assert settings(**options).keys_required
        assert not settings(**options, require_keys=False).keys_required
