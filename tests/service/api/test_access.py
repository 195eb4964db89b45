"""Who may do what: every route with every scope, and requests that a stranger had somebody's browser send."""

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from service.api import access, problems
from service.api.access import caller_of, cause_of
from service.records import NewKey
from service.storage.database import Database
from service.storage.keys import Keys

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
NOTHING = [
    ("GET", "/"),
    ("HEAD", "/"),
    ("GET", "/static/main.js"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/openapi.json"),
    ("POST", "/v1/session"),
    ("DELETE", "/v1/session"),
]
READ = [
    ("POST", "/query"),
    ("POST", "/v1/query"),
    ("POST", "/v1/attention"),
    ("POST", "/v1/classify"),
    ("GET", "/v1/classes"),
    ("GET", "/v1/session"),
    ("GET", "/v1/items"),
    ("GET", "/v1/items/x"),
    ("GET", "/v1/items/x/image"),
    ("GET", "/v1/items/x/thumbnail"),
    ("GET", "/v1/items/x/attention"),
    ("GET", "/v1/cameras"),
    ("GET", "/v1/labels"),
    ("GET", "/metrics"),
    ("GET", "/a/route/of/tomorrow"),
    ("HEAD", "/v1/items"),
]
WRITE = [
    ("GET", "/v1/jobs/x"),  # which somebody started
    ("POST", "/v1/items"),
    ("POST", "/v1/items/delete"),
    ("PATCH", "/v1/items/x"),
    ("DELETE", "/v1/items/x"),
    ("PUT", "/query"),
    ("POST", "/"),
    ("DELETE", "/health/live"),
    ("OPTIONS", "/v1/items"),
    ("POST", "/a/route/of/tomorrow"),
]
ADMIN = [
    ("POST", "/v1/admin/keys"),
    ("GET", "/v1/admin/keys"),
    ("DELETE", "/v1/admin/keys/x"),
    ("POST", "/v1/admin/backup"),
    ("POST", "/v1/admin/reindex"),
    ("GET", "/v1/admin"),
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs/x/cancel"),
    ("DELETE", "/v1/jobs/x"),
    # Other ways to write a path; what decides and the router see the same.
    ("GET", "/v1/%61dmin/keys"),
    ("GET", "/v1/admin%2Fkeys"),
    ("GET", "/v1/admin/%2e%2e/items"),
]
NEEDED = {
    **dict.fromkeys(NOTHING, None),
    **dict.fromkeys(READ, "read"),
    **dict.fromkeys(WRITE, "write"),
    **dict.fromkeys(ADMIN, "admin"),
}
INCLUDES = {"read": {"read"}, "write": {"read", "write"}, "admin": {"read", "write", "admin"}}


class Clock:
    """Stands still until told."""

    def __init__(self):
        self.seconds = 1e6

    def __call__(self):
        return self.seconds


@pytest.fixture
def keys(tmp_path):
    with Database(tmp_path / "gallery") as database:
        yield Keys(database, admin_key="the admin of the settings".ljust(32, "."))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def serve(keys, clock):
    """A function that gives a client of a service whose every route tells who asked."""

    def make(require_keys=True, allowed_hosts=(), base_url="http://localhost:8000", behind_proxy=False):
        app = FastAPI(openapi_url=None)
        access.install(app, keys.find, require_keys, allowed_hosts, clock, behind_proxy=behind_proxy)
        problems.install(app)

        @app.api_route("/{path:path}", methods=METHODS, include_in_schema=False)
        async def tell(request: Request):
            if not hasattr(request.state, "caller"):
                return {"actor": None}
            assert cause_of(request) == (caller_of(request).actor, request.state.request_id)
            return {"actor": caller_of(request).actor, "cameras": caller_of(request).cameras}

        @app.websocket("/socket")
        async def socket(websocket):
            await websocket.accept()

        return TestClient(app, base_url=base_url)

    return make


@pytest.fixture
def client(serve):
    return serve()


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def add(keys, scope="read", **limits):
    return keys.add(NewKey(f"a {scope} key", frozenset({scope}), **limits))


def require_problem(response, status, code, *words):
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    if response.request.method != "HEAD":
        told = response.json()
        assert (told["status"], told["code"]) == (status, code)
        assert told["request_id"] == response.headers["x-request-id"]
        assert all(word in told["detail"] for word in words), told["detail"]


@pytest.mark.parametrize("has", INCLUDES)
def test_each_scope_opens_its_routes_and_no_other(keys, client, has):
    key, secret = add(keys, has)
    for (method, path), needed in NEEDED.items():
        response = client.request(method, path, headers=bearer(secret))
        if needed is None:
            assert response.status_code == 200, (method, path)
        elif needed in INCLUDES[has]:
            assert response.status_code == 200, (method, path)
            assert method == "HEAD" or response.json()["actor"] == key.key_id
        else:
            require_problem(response, 403, "forbidden", f"scope '{needed}'")


def test_without_a_key_only_what_needs_none_is_answered(client):
    for (method, path), needed in NEEDED.items():
        response = client.request(method, path)
        if needed is None:
            assert response.status_code == 200, (method, path)
        else:
            require_problem(response, 401, "unauthorized", f"scope '{needed}'", "no key was sent")
            assert response.headers["www-authenticate"] == "Bearer"


def test_this_machine_needs_no_key_where_none_is_required(serve):
    client = serve(require_keys=False)
    for (method, path), needed in NEEDED.items():
        response = client.request(method, path)
        assert response.status_code == 200, (method, path)
        known = needed is not None or path == "/health/ready"  # which says more to those who may know
        assert method == "HEAD" or response.json()["actor"] == ("local" if known else None)


@pytest.mark.parametrize("require_keys", [True, False])
def test_a_key_that_is_sent_must_be_valid(keys, serve, require_keys):
    client = serve(require_keys)
    revoked, bad = add(keys)
    keys.revoke(revoked.key_id)
    for wrong in (bad, "", "reid_" + "x" * 43, revoked.key_id, "\xff", "' OR 1=1 --"):
        for headers in (bearer(wrong), {"X-API-Key": wrong}):
            coded = {name: value.encode("latin-1") for name, value in headers.items()}
            require_problem(client.get("/v1/items", headers=coded), 401, "unauthorized", "unknown or revoked")
    client.cookies.set(access.COOKIE, bad)
    require_problem(client.get("/v1/items"), 401, "unauthorized", "unknown or revoked")
    assert client.get("/").status_code == 200  # where the page asks for another one


def test_a_key_can_be_sent_in_three_ways(keys, client):
    key, secret = add(keys)
    other, its = add(keys)
    for headers in (bearer(secret), {"Authorization": f"bearer   {secret} "}, {"X-API-Key": secret}):
        assert client.get("/v1/items", headers=headers).json()["actor"] == key.key_id
    # A proxy in front may have its own words in this header.
    beside = {"Authorization": "Basic YTpi", "X-API-Key": secret}
    assert client.get("/v1/items", headers=beside).json()["actor"] == key.key_id
    require_problem(client.get("/v1/items", headers={"Authorization": f"Basic {secret}"}), 401, "unauthorized")
    client.cookies.set(access.COOKIE, secret)
    assert client.get("/v1/items").json()["actor"] == key.key_id
    assert client.get("/v1/items", headers=bearer(its)).json()["actor"] == other.key_id
    client.cookies.clear()
    require_problem(client.get(f"/v1/items?key={secret}&api_key={secret}"), 401, "unauthorized")


def test_the_cameras_of_a_key_reach_the_route(keys, client):
    _, secret = add(keys, cameras=frozenset({"north"}))
    assert client.get("/v1/items", headers=bearer(secret)).json()["cameras"] == ["north"]


def test_the_admin_key_of_the_settings_is_a_key(client):
    headers = {"X-API-Key": "the admin of the settings".ljust(32, ".")}
    assert client.get("/v1/admin/keys", headers=headers).json()["actor"] == "admin"


def test_nothing_of_the_body_is_read_before_the_decision(keys, client):
    read = []

    def body():
        read.append(1)
        yield b"x"

    # The client of the tests reads what it sends only when the application asks for it.
    require_problem(client.post("/v1/items", content=body()), 401, "unauthorized")
    _, secret = add(keys)
    require_problem(client.post("/v1/items", content=body(), headers=bearer(secret)), 403, "forbidden")
    assert not read


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:8000", "box", "BOX:80"],
)
def test_names_of_this_machine_are_answered(serve, host):
    client = serve(require_keys=False, allowed_hosts=["Box"])
    assert client.get("/v1/items", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "box.evil", ""),
        *("192.168.1.5", "0.0.0.0", "[::2]", "[::1]evil.example", "evil@localhost", "localhost:80@evil", "[::1", "::1"),
    ],
)
def test_a_foreign_name_is_refused_where_no_key_is_required(keys, serve, host):
    client = serve(require_keys=False, allowed_hosts=["box"])
    _, secret = add(keys)
    for path in ("/", "/v1/items", "/health/live", "/openapi.json"):
        require_problem(client.get(path, headers={"Host": host}), 403, "foreign_host")
    require_problem(client.get("/v1/items", headers={"Host": host, **bearer(secret)}), 403, "foreign_host")
    if host:
        keyed = serve(require_keys=True)
        assert keyed.get("/v1/items", headers={"Host": host, **bearer(secret)}).status_code == 200


@pytest.mark.parametrize("require_keys", [True, False])
@pytest.mark.parametrize(
    ("host", "headers", "foreign"),
    [
        ("localhost:8000", {}, False),
        ("localhost:8000", {"Origin": "http://localhost:8000"}, False),
        ("localhost", {"Origin": "https://LocalHost", "Sec-Fetch-Site": "same-origin"}, False),
        ("[::1]:8000", {"Origin": "http://[::1]:8000"}, False),
        ("localhost:8000", {"Sec-Fetch-Site": "none"}, False),
        ("localhost:8000", {"Origin": "http://localhost:3000"}, True),
        ("localhost:8000", {"Origin": "http://localhost"}, True),
        ("localhost:8000", {"Origin": "http://127.0.0.1:8000"}, True),
        ("localhost:8000", {"Origin": "https://evil.example"}, True),
        ("localhost:8000", {"Origin": "http://localhost:8000.evil.example"}, True),
        ("localhost:8000", {"Origin": "null"}, True),
        ("localhost:8000", {"Origin": "["}, True),
        ("localhost:8000", {"Sec-Fetch-Site": "cross-site"}, True),
        ("localhost:8000", {"Sec-Fetch-Site": "same-site"}, True),
    ],
)
def test_other_sites_cannot_have_a_browser_change_anything(keys, serve, require_keys, host, headers, foreign):
    client = serve(require_keys)
    _, secret = add(keys, "admin")
    sent = {"Host": host, "Cookie": f"{access.COOKIE}={secret}", **headers}
    for method, path in (("POST", "/v1/items"), ("DELETE", "/v1/items/x"), ("POST", "/query"), ("POST", "/v1/session")):
        response = client.request(method, path, headers=sent)
        if foreign:
            require_problem(response, 403, "foreign_origin")
        else:
            assert response.status_code == 200
    assert client.get("/v1/items", headers=sent).status_code == 200  # the browser lets no other site read this


def test_a_key_may_ask_at_its_rate(keys, client, clock):
    _, secret = add(keys, requests_per_minute=3)
    for _ in range(3):
        assert client.get("/v1/items", headers=bearer(secret)).status_code == 200
    refused = client.post("/query", headers=bearer(secret))
    require_problem(refused, 429, "too_many_requests", "3 requests a minute")
    assert refused.headers["retry-after"] == "20"
    clock.seconds += 19
    assert client.get("/v1/items", headers=bearer(secret)).headers["retry-after"] == "1"
    clock.seconds += 1
    assert client.get("/v1/items", headers=bearer(secret)).status_code == 200
    require_problem(client.get("/v1/items", headers=bearer(secret)), 429, "too_many_requests")
    clock.seconds += 3600  # an hour's rest is worth no more than a minute's
    codes = [client.get("/v1/items", headers=bearer(secret)).status_code for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]


def test_the_rate_of_one_key_is_its_own_and_pictures_have_another(keys, client):
    _, slow = add(keys, requests_per_minute=1)
    _, other = add(keys, requests_per_minute=1)
    _, unlimited = add(keys)
    assert client.get("/v1/items", headers=bearer(slow)).status_code == 200
    for path in ("/v1/items/x/image", "/v1/items/x/thumbnail", "/", "/health/live"):
        assert client.get(path, headers=bearer(slow)).status_code == 200
    require_problem(client.get("/v1/items/x/image/y", headers=bearer(slow)), 429, "too_many_requests")
    codes = [client.get("/v1/items/x/thumbnail", headers=bearer(slow)).status_code for _ in range(49)]
    assert codes == [200] * 48 + [429]  # after one of each above, of fifty a minute
    assert "the key allows 50 pictures a minute" in client.get("/v1/items/x/image", headers=bearer(slow)).text
    require_problem(client.post("/v1/attention", headers=bearer(slow)), 429, "too_many_requests")
    assert client.get("/v1/items", headers=bearer(other)).status_code == 200
    assert all(client.get("/v1/items", headers=bearer(unlimited)).status_code == 200 for _ in range(20))


def test_what_is_forbidden_does_not_count(keys, client):
    _, secret = add(keys, requests_per_minute=1)
    require_problem(client.post("/v1/items", headers=bearer(secret)), 403, "forbidden")
    assert client.get("/v1/items", headers=bearer(secret)).status_code == 200


def test_over_any_minute_no_more_than_the_bucket_and_its_refill(keys, client, clock):
    """Against a count of what passed: at most the limit at once, and the limit a minute from then on."""
    _, secret = add(keys, requests_per_minute=6)
    passed = []
    for _ in range(200):
        if client.get("/v1/items", headers=bearer(secret)).status_code == 200:
            passed.append(clock.seconds)
        clock.seconds += 1.7
    assert len(passed) == 6 + int(199 * 1.7 / 10)


def test_websockets_are_refused(keys, client):
    _, secret = add(keys, "admin")
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/socket", headers=bearer(secret)):
        pass
    assert refused.value.code == 1008


def test_secrets_are_not_in_what_a_refusal_says(keys, client, caplog):
    _, secret = add(keys)
    for response in (
        client.get("/v1/admin/keys", headers=bearer(secret)),
        client.get("/v1/items", headers=bearer(secret + "x")),
    ):
        assert response.status_code in (401, 403)
        assert secret not in response.text + str(response.headers)
    assert secret not in caplog.text


@pytest.mark.parametrize("require_keys", [True, False])
def test_the_description_says_of_every_operation_who_may_and_what_is_refused(keys, require_keys):
    app = FastAPI()
    access.install(app, keys.find, require_keys)
    problems.install(app)

    def answer() -> problems.FieldError: ...

    wanted = {
        ("get", "/health/live"): (None, {"403"}),
        ("get", "/v1/items/{item_id}"): ("read", {"401", "403", "429"}),
        ("get", "/v1/items/{item_id}/image"): ("read", {"401", "403", "429"}),
        ("post", "/v1/query"): ("read", {"401", "403", "429"}),
        ("post", "/of/tomorrow"): ("write", {"401", "403", "429"}),
        ("delete", "/v1/jobs/{job_id}"): ("admin", {"401", "403", "429"}),
    }
    for method, path in wanted:
        app.add_api_route(path, answer, methods=[method])
    for _ in range(2):  # it is the same when asked again
        description = app.openapi()
        for (method, path), (scope, statuses) in wanted.items():
            operation = description["paths"][path][method]
            assert operation["responses"].keys() == {"200"} | statuses
            for status in statuses:
                schema = operation["responses"][status]["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}
            ways = [] if scope is None else [{"bearer": [scope]}, {"header": [scope]}]
            assert operation.get("security", []) == ways + ([{}] if scope and not require_keys else [])
    schemes = description["components"]["securitySchemes"]
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}
    assert schemes["header"] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto"]
)
def test_what_a_proxy_forwarded_is_not_from_this_machine(serve, header):
    """A proxy that was forgotten would make everybody this machine, who may do everything."""
    forwarded = {header: "203.0.113.9"}
    client = serve(require_keys=False)
    refused = client.get("/v1/items", headers=forwarded)
    assert (refused.status_code, refused.json()["code"]) == (403, "forwarded")
    assert header in refused.json()["detail"] and "REID_REQUIRE_KEYS=true" in refused.json()["detail"]
    assert client.get("/v1/items").json()["actor"] == "local"
    assert client.get("/health/live", headers=forwarded).status_code == 200
    with_key = client.get("/v1/items", headers=forwarded | bearer("the admin of the settings".ljust(32, ".")))
    assert with_key.json()["actor"] not in (None, "local")
    told = serve(require_keys=False, behind_proxy=True)  # one that asks for a password itself
    assert told.get("/v1/items", headers=forwarded).json()["actor"] == "local"
    assert serve().get("/v1/items", headers=forwarded).status_code == 401
