import json
import logging
import socket
import threading
import warnings
from datetime import UTC, datetime

import pytest
import uvicorn
from fastapi import FastAPI

from service.api import problems
from service.api.metrics import Observed
from service.logs import configure
from service.metrics import Metrics
from tests.waiting import DEADLINE

FORGED = 'a\n{"level": "error", "message": "forged"}\x1b[2J\u2028\udcff'


@pytest.fixture
def lines(capsys):
    """A function that gives the objects on the lines of standard error."""
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_of_json(lines):
    configure("json")
    logging.getLogger("reid").info("%d items", 3, extra={"request_id": "r", "ms": 1.5, "secret": "hidden"})
    (line,) = lines()
    assert abs((datetime.fromisoformat(line.pop("time")) - datetime.now(UTC)).total_seconds()) < 600
    assert line == {"level": "info", "logger": "reid", "message": "3 items", "request_id": "r", "ms": 1.5}


@pytest.mark.parametrize("name", ["reid", "uvicorn.error", "asyncio"])
def test_a_traceback_is_one_field(lines, name):
    configure("json")
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        logging.getLogger(name).exception("it failed")
    (line,) = lines()
    assert (line["logger"], line["level"], line["message"]) == (name, "error", "it failed")
    assert line["traceback"].startswith("Traceback") and line["traceback"].endswith("first\nsecond")


def test_a_warning_is_a_line_too(lines):
    warnings.simplefilter("always")
    configure("json")
    warnings.warn("worn out", stacklevel=1)
    (line,) = lines()
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "worn out" in line["message"]


def test_nothing_in_a_message_makes_another_line(capsys):
    configure("json")
    logging.getLogger("reid").info("file %s", FORGED, extra={"path": FORGED})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isascii() and line.isprintable()
    assert json.loads(line)["message"] == f"file {FORGED}"
    assert json.loads(line)["path"] == FORGED
    configure("text")
    logging.getLogger("reid").info("file %s", FORGED.removesuffix("\udcff"))
    shown = capsys.readouterr().err
    assert shown == 'file a\\n{"level": "error", "message": "forged"}\\x1b[2J\\u2028\n'


def test_a_terminal_gets_messages_alone(capsys):
    configure("text")
    logging.getLogger("reid").info("3 items of model %s", "Åsa", extra={"request_id": "r"})
    logging.getLogger("reid.access").info("GET / 200")
    logging.getLogger("uvicorn.error").info("started")
    assert capsys.readouterr().err == "3 items of model Åsa\n"


def test_configuring_again_doubles_nothing(capsys):
    configure("json")
    configure("json")
    configure("text")
    logging.getLogger("reid").info("once")
    assert capsys.readouterr().err == "once\n"


def test_a_server_writes_one_line_for_each_request(capsys):
    configure("json")
    app = FastAPI()
    problems.install(app)
    app.add_middleware(Observed, Metrics())

    @app.get("/files/{name}")
    def get(name: str) -> str:
        if name == "fails":
            raise RuntimeError("it failed")
        return name

    config = uvicorn.Config(app, log_config=None, access_log=False, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        forged = "%0a%7B%22level%22:%20%22error%22%7D%ff"
        for path in (f"/files/{forged}?key=hidden", "/files/fails"):
            head = (
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer hidden\r\nConnection: close\r\n\r\n"
            )
            with socket.create_connection(listening.getsockname(), timeout=DEADLINE) as connection:
                connection.sendall(head.encode())
                while connection.recv(4096):
                    pass
        server.should_exit = True
        thread.join(DEADLINE)
    written = capsys.readouterr().err
    assert "hidden" not in written
    lines = [json.loads(line) for line in written.splitlines()]
    answered, failed = (line for line in lines if line["logger"] == "reid.access")
    assert answered["path"] == '/files/\n{"level": "error"}\ufffd'
    assert (answered["status"], answered["message"]) == (200, "GET /files/{name} 200")
    assert (failed["status"], failed["code"]) == (500, "internal_error")
    (trace,) = (line["traceback"] for line in lines if "traceback" in line)
    assert trace.endswith("RuntimeError: it failed")
    assert any(failed["request_id"] in line["message"] for line in lines)
