"""Strangers who say too much, or nothing, over real connections."""

import socket
import threading
from contextlib import ExitStack

import httpx2
import pytest
import uvicorn

from service.api import connections as connections_module
from service.api.connections import MAX_HEAD, Connection
from tests.waiting import DEADLINE, wait_until


async def app(scope, receive, send):
    """Answers with the length of what it was sent."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    body = str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def server():
    """A server of connections of ours."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", http=Connection))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield server
    server.should_exit = True
    thread.join()


@pytest.fixture
def connect(server):
    """A function that opens a connection."""
    port = server.servers[0].sockets[0].getsockname()[1]
    with ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE))


def read(connection):
    """All that comes until the other side closes."""
    said = b""
    try:
        while more := connection.recv(2**16):
            said += more
    except ConnectionResetError:  # it closed while something was on its way there
        pass
    return said


def send_all(connection, *pieces):
    """Send as much as the other side takes, and tell how much that was."""
    sent = 0
    try:
        for piece in pieces:
            connection.sendall(piece)
            sent += len(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nhost: a\r\nx: ",  # one header without an end
        b"GET /",
        b"GET / HTTP/1.1\r\nhost: a\r\n",  # many headers
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ",  # after a body
    ],
)
def test_a_head_without_an_end_is_bounded(server, connect, start):
    connection = connect()
    more = b"y: z\r\n" if start.endswith(b"a\r\n") else b"abcd"
    sent = send_all(connection, start, *[more * 1024] * 4096)
    assert sent < 4096 * len(more) * 1024
    said = read(connection)
    assert not said or said.startswith(b"HTTP/1.1 431 ")
    wait_until(lambda: not server.server_state.connections)


def test_a_head_up_to_the_limit_and_any_body_are_taken(connect):
    for size in (10, MAX_HEAD - 200):
        connection = connect()
        body = b"x" * (300_000)
        head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: %d\r\nx: %b\r\n\r\n"
        connection.sendall(head % (len(body), b"a" * size) + body)
        assert read(connection).endswith(b"300000")
    host, port = connection.getpeername()
    with httpx2.Client(base_url=f"http://{host}:{port}") as client:
        for _ in range(3):  # over one connection
            assert client.post("/", content=iter([b"a" * 100_000] * 5), timeout=DEADLINE).text == "500000"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HT",
        b"\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",  # and no other
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET",
    ],
)
def test_a_connection_that_stops_speaking_is_closed(server, connect, monkeypatch, said):
    monkeypatch.setattr(connections_module, "HEAD_SECONDS", 0.05)
    monkeypatch.setattr(connections_module, "BODY_SECONDS", 0.05)
    connection = connect()
    send_all(connection, said)
    read(connection)
    wait_until(lambda: not server.server_state.connections)


@pytest.mark.parametrize("said", [b"", b"GET / HT"])
def test_a_connection_that_never_spoke_is_closed_without_a_warning(server, connect, monkeypatch, caplog, said):
    monkeypatch.setattr(Connection, "_told", -1e9)
    monkeypatch.setattr(connections_module, "HEAD_SECONDS", 0.05)
    connection = connect()
    send_all(connection, said)
    assert read(connection) == b""
    wait_until(lambda: not server.server_state.connections)
    assert ("warning: closed a connection" in caplog.text) == bool(said)


def test_a_body_that_comes_slowly_goes_on(connect, monkeypatch):
    """Its pieces come closer together than a body may pause, and all together take longer."""
    late = []
    monkeypatch.setattr(Connection, "_late", lambda *given: late.append(given))
    connection = connect()
    connection.sendall(b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 9\r\n\r\n")
    for _ in range(9):
        connection.sendall(b"a")
    assert read(connection).endswith(b"9")
    assert late == []


def test_connections_are_limited_in_all_and_for_each_address(server, connect, monkeypatch, caplog):
    monkeypatch.setattr(connections_module, "MAX_CONNECTIONS", 5)
    monkeypatch.setattr(Connection, "_told", -1e9)
    kept = [connect() for _ in range(5)]
    wait_until(lambda: len(server.server_state.connections) == 5)
    assert read(connect()).startswith(b"HTTP/1.1 503 ")
    assert "warning: closed a connection of 127.0.0.1: 5 connections are open, which is all that may" in caplog.text
    kept.pop().close()
    wait_until(lambda: len(server.server_state.connections) == 4)
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert read(connection).startswith(b"HTTP/1.1 200 ")
    monkeypatch.setattr(connections_module, "MAX_OF_ONE_ADDRESS", 4)
    wait_until(lambda: len(server.server_state.connections) == 4)
    fifth = connect()  # this machine may have them all
    fifth.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert read(fifth).startswith(b"HTTP/1.1 200 ")
    monkeypatch.setattr(connections_module, "ip_address", lambda _: type("Elsewhere", (), {"is_loopback": False}))
    wait_until(lambda: len(server.server_state.connections) == 4)
    assert read(connect()).startswith(b"HTTP/1.1 503 ")
