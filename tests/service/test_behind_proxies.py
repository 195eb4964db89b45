"""nginx and Caddy in front of the service, as docs/operating.md sets them up."""

import os
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import httpx2
import pytest

from service.client import Client
from tests.waiting import DEADLINE, wait_until

pytestmark = pytest.mark.slow

NAME = "photos.example.org"
KEY = "a-secret-of-the-test-for-everything-0123"
PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
# What is told of the machine, not of the service; the snippet itself stays as it stands on the page.
NGINX = """
user root;
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    {snippet}
}}
"""
CADDY = """
{{
    admin off
    local_certs
    skip_install_trust
    http_port {http}
    https_port {https}
}}
{snippet}
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def snippet(language, replaced):
    """The block of the page in some language, with other ports and files than a test may have."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert found, f"{PAGE} has no block for {language}"
    text = found[1]
    for there, here in replaced.items():
        assert text.count(there) == 1, there
        text = text.replace(there, str(here))
    return text


def nginx(folder, port, behind):
    """The command that runs nginx, and the file with the certificate that it shows."""
    certificate, secret = folder / "a.crt", folder / "a.key"
    named = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *named]
    subprocess.run([*made, "-keyout", secret, "-out", certificate], check=True, capture_output=True)
    replaced = {
        "443": port,
        "127.0.0.1:8000": f"127.0.0.1:{behind}",
        f"/etc/ssl/{NAME}.crt": certificate,
        f"/etc/ssl/{NAME}.key": secret,
    }
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, snippet=snippet("nginx", replaced)))
    return ["nginx", "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"], certificate


def caddy(folder, port, behind):
    """The command that runs Caddy, and the file with the certificate of its own authority."""
    text = snippet("caddy", {"127.0.0.1:8000": f"127.0.0.1:{behind}"})
    (folder / "Caddyfile").write_text(CADDY.format(http=free_port(), https=port, snippet=text))
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"]
    return command, folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def address(request, serve, tmp_path, monkeypatch):
    """The address at which a proxy shows the service, by a name that leads here and a certificate that is trusted."""
    program = request.param.__name__
    for needed in (program, "openssl"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    port = free_port()
    address = f"https://{NAME}:{port}/reid"
    monkeypatch.setenv("REID_ADMIN_KEY", KEY)
    monkeypatch.setenv("REID_PUBLIC_URL", address)
    _, behind = serve()
    folder = tmp_path / program
    folder.mkdir()
    command, certificate = request.param(folder, port, behind.rpartition(":")[2])
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **named: look_up("127.0.0.1" if host == NAME else host, *rest, **named),
    )
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=environment) as proxy:

        def answers():
            assert proxy.poll() is None, (folder / "log").read_text()
            try:
                monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
                return httpx2.get(f"{address}/health/ready", verify=ssl.create_default_context(cafile=certificate))
            except (httpx2.TransportError, OSError):
                return None

        try:
            wait_until(lambda: (answer := answers()) is not None and answer.is_success)
            yield address
        finally:
            proxy.terminate()


@pytest.fixture
def http(address):
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    with httpx2.Client(base_url=address, verify=context, timeout=DEADLINE) as client:
        yield client


def test_all_that_people_and_programs_do(address, http, picture):
    # The page, with all its files.
    moved = http.get(address)
    assert moved.is_redirect and moved.headers["location"].removeprefix(address[: -len("/reid")]) == "/reid/"
    page = http.get("/")
    assert page.status_code == 200
    for name in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        assert http.get(f"{address}/{name}").status_code == 200
    # Signing in there, as a browser does.
    origin = address.removesuffix("/reid")
    said = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert http.get("/v1/items").status_code == 401
    assert (
        http.post("/v1/session", json={"key": KEY}, headers={**said, "Origin": "https://evil.example"}).status_code
        == 403
    )
    begun = http.post("/v1/session", json={"key": KEY}, headers=said)
    assert begun.status_code == 200
    assert {"secure", "path=/reid"} <= set(begun.headers["set-cookie"].lower().split("; "))
    assert http.get("/v1/items").json()["items"] == []
    # From Python, with the address that people use.
    with Client(address, key=KEY) as client:
        item = client.enrol([picture(1)])[0].item
        match = client.query(picture(1)).matches[0]
        assert match.item_id == item.item_id
        assert client.thumbnail(item.item_id)
    assert match.thumbnail_url == f"/reid/v1/items/{item.item_id}/thumbnail"
    shown = http.get(f"{origin}{match.thumbnail_url}")
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
    assert http.get("/openapi.json").json()["servers"] == [{"url": "/reid"}]


def test_a_request_may_bring_what_the_service_takes(http):
    def send(size):
        files = [("images", (f"{name}.jpg", b"\0" * (size // 4))) for name in range(4)]
        return http.post("/v1/items", files=files, headers={"X-API-Key": KEY})

    assert send(64 * 2**20 - 10_000).status_code == 207  # read as a whole, and found to be no pictures
    refused = send(64 * 2**20 + 10_000)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
