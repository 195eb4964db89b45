"""The page in a real browser, against a real server; every test also fails on console errors and foreign requests."""

import json
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
import uvicorn

from service.api.app import create_app
from service.api.proxies import Proxied
from service.settings import Settings
from tests.waiting import DEADLINE

CHROMIUM = "/usr/bin/chromium"
TOOLS = Path(__file__).with_name("tools")


@pytest.fixture(scope="session")
def tools(tmp_path_factory):
    """The folder of packages that `tools/package.json` names, as its lock has them."""
    folder = tmp_path_factory.mktemp("tools")
    shutil.copytree(TOOLS, folder, dirs_exist_ok=True)
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    command = ["npm", "ci", "--no-audit", "--no-fund", "--silent"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm ci: {done.stderr.strip()[-300:]}")
    return folder / "node_modules"


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser at {CHROMIUM}: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


class Running:
    """An application at an address, which can be stopped and started there again."""

    def __init__(self, app):
        self.app = app
        self.port = 0
        self.start()

    def start(self):
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="error", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, args=([listening],))
        self.thread.start()
        self.listening = listening

    def stop(self):
        self.server.should_exit = True
        self.thread.join()
        self.listening.close()


@pytest.fixture
def running():
    """What `serve` started, by the address of its client."""
    return {}


@pytest.fixture
def serve(gallery, runner, reviews, checkpoint, tmp_path, running):
    """A function that serves the gallery with some settings, and gives a client of that address."""
    clients = []

    def run(calibration=None, classification=None, **options):
        settings = Settings(checkpoint=checkpoint, gallery=tmp_path / "gallery", **options)
        app = create_app(gallery, runner, settings, calibration, classification, reviews)
        started = Running(Proxied(app, settings))
        client = httpx2.Client(base_url=f"http://127.0.0.1:{started.port}{settings.root}", timeout=DEADLINE)
        clients.append(client)
        running[str(client.base_url)] = started
        return client

    yield run
    for client in clients:
        client.close()
    for started in running.values():
        started.stop()


@pytest.fixture
def outage(running):
    """A function of a client whose server is stopped while its block lasts."""

    @contextmanager
    def away(client):
        served = running[str(client.base_url)]
        served.stop()
        try:
            yield
        finally:
            served.start()

    return away


@pytest.fixture
def client(serve):
    return serve()


@pytest.fixture
def refused():
    """The statuses of refusals that a test expects; a browser logs each of them as an error."""
    return set()


@pytest.fixture
def open_page(chromium, refused):
    """A function that opens the page of a client in a new browser profile."""
    contexts, problems, statuses, unstarted, deleted = [], [], set(), set(), []

    def log(message):
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            problems.append(message.text)

    def note(answer):
        if answer.status == 409 and answer.url.endswith(("/v1/review/status", "/preview")):
            unstarted.add(answer.status)  # how Home learns that there is no review yet, and a look that all has begun
        elif answer.status == 404 and answer.url.startswith(tuple(deleted)):
            return  # a picture on its way when its item was deleted
        elif answer.status >= 400:
            statuses.add(answer.status)

    def run(client, path="/", clock=False, **options):
        usual = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB", "timezone_id": "Africa/Johannesburg"}
        context = chromium.new_context(**{**usual, **options})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(1000 * DEADLINE)
        tab.on("filechooser", lambda chooser: None)  # from now on, for a later listener may come after the key
        tab.on("console", log)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("response", note)
        home = str(client.base_url).rstrip("/")
        tab.on("request", lambda asked: None if asked.url.startswith((home, "blob:")) else problems.append(asked.url))
        tab.on("request", lambda asked: deleted.append(asked.url) if asked.method == "DELETE" else None)
        if clock:
            tab.clock.install()
        tab.goto(home + path)
        return tab

    yield run
    for context in contexts:
        context.close()
    assert problems == []
    assert refused - unstarted <= statuses <= refused


@pytest.fixture
def enrol(client, picture):
    """A function that enrols pictures 0, 1, 2, ... with what is said of each, and gives their items."""

    def run(said):
        files = [("images", (f"{number}.png", picture(number))) for number in range(len(said))]
        response = client.post("/v1/items", files=files, data={"metadata": json.dumps(said)})
        assert response.status_code == 201, response.text
        return [result["item"] for result in response.json()["results"]]

    return run


@pytest.fixture
def herd(enrol):
    """Six items: cameras north and south by turns, three labels of two items, a day between their times."""
    noon = datetime(2024, 5, 12, 12, tzinfo=UTC)
    return enrol(
        [
            {
                "camera": ("north", "south")[number % 2],
                "label": f"nyala {number // 2}",
                "captured_at": (noon + timedelta(days=number)).isoformat(),
            }
            for number in range(6)
        ]
    )
