"""Strangers who say too much, or nothing, over real connections."""

import asyncio
import json
import socket
import threading
from contextlib import ExitStack, suppress
from functools import partial

import httpx2
import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from service.api import connections as connections_module
from service.api import uploads as uploads_module
from service.api.connections import MAX_HEAD, Connection, Limits
from service.api.crowded import Crowded
from service.api.uploads import Drained
from service.metrics import CLOSED_CONNECTIONS
from tests.waiting import DEADLINE, wait_until

BIG = 30_000_000  # bytes, more than the buffers of both sides take


async def app(scope, receive, send):
    """Answers with the length of what it was sent, and with something big where that is asked for."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    body = bytes(BIG) if scope["path"] == "/big" else str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body[:-1], "more_body": True})
    await send({"type": "http.response.body", "body": body[-1:]})


@pytest.fixture
def limits():
    """Those of the server."""
    return Limits(800, 200)


@pytest.fixture
def server(limits):
    """A server of connections of ours."""
    http = partial(Connection, limits)
    server = uvicorn.Server(uvicorn.Config(Crowded(app), port=0, log_config=None, lifespan="off", http=http))
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


def closed(reason):
    """How many connections were closed for a reason, in this process."""
    return CLOSED_CONNECTIONS.labels(reason)._value.get()


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


def call(connection, function, *given):
    """Have the loop of a connection of the server call a function, and wait until it has."""
    done = threading.Event()
    connection.loop.call_soon_threadsafe(lambda: (function(*given), done.set()))
    assert done.wait(DEADLINE)


def problem_of(answer):
    """What a refusal that no application wrote says: its status and its problem."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    assert {b"connection: close", b"content-type: application/problem+json"} <= set(lines)
    assert b"content-length: %d" % len(body) in lines
    told = json.loads(body)
    assert b"x-request-id: " + told["request_id"].encode() in lines
    assert status == f"HTTP/1.1 {told['status']} {told['title']}".encode()
    return told["status"], told["code"], told["detail"]


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
    assert not said or problem_of(said) == (431, "head_too_large", "a head of more than 64 KiB")
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
    monkeypatch.setattr(server.config, "timeout_keep_alive", 0.05)
    connection = connect()
    send_all(connection, said)
    read(connection)
    wait_until(lambda: not server.server_state.connections)


@pytest.mark.parametrize("said", [b"", b"GET / HT"])
def test_a_connection_that_never_spoke_is_closed_without_a_word(server, connect, monkeypatch, caplog, said):
    monkeypatch.setattr(Connection, "_told", -1e9)
    connection = connect()
    send_all(connection, said)
    (one,) = wait_until(lambda: [one for one in server.server_state.connections if one._unread == len(said)])
    call(one, one._late, 10)  # time is up when the test says so
    answer = read(connection)
    if said:
        why = "a request was begun, and not its head within 10 s"
        assert problem_of(answer) == (408, "too_slow", why)
        assert f"warning: closed a connection of 127.0.0.1: {why}" in caplog.text
    else:
        assert answer == b"" == caplog.text.encode()
    wait_until(lambda: not server.server_state.connections)


def test_what_is_no_request_is_refused_as_a_problem(server, connect):
    connection = connect()
    connection.sendall(b"nonsense\r\n\r\n")
    assert problem_of(read(connection)) == (400, "bad_request", "Invalid HTTP request received.")
    wait_until(lambda: not server.server_state.connections)


def test_a_body_moves_or_is_refused(server, connect, monkeypatch, caplog):
    """It may be slow, but not so slow that a connection is held for nothing; time is up when the test says so."""
    monkeypatch.setattr(connections_module, "LEAST", 3)
    monkeypatch.setattr(Connection, "_told", -1e9)
    before = closed("slow")
    connection = connect()
    connection.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n")
    (one,) = wait_until(lambda: [one for one in server.server_state.connections if one.cycle])
    for _ in range(2):
        connection.sendall(b"abc")
        wait_until(lambda: one._come == 3)
        call(one, one._late, 60)
        assert not one.transport.is_closing()
    connection.sendall(b"ab")
    wait_until(lambda: one._come == 2)
    call(one, one._late, 60)
    why = "2 bytes of a body came in 60 s, expected 3"
    assert problem_of(read(connection)) == (408, "too_slow", why)
    assert f"warning: closed a connection of 127.0.0.1: {why}" in caplog.text
    assert closed("slow") == before + 1
    wait_until(lambda: not server.server_state.connections and not server.server_state.tasks)


def test_a_body_that_trickles_is_not_waited_for(server, connect, monkeypatch):
    monkeypatch.setattr(connections_module, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(connections_module, "LEAST", 10**9)  # a fast machine sends much of it by single bytes
    before = closed("slow")
    connection = connect()
    head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n"
    connection.sendall(head)
    with suppress(BrokenPipeError, ConnectionResetError):
        while closed("slow") == before:
            connection.sendall(b"a")
    assert closed("slow") == before + 1
    wait_until(lambda: not server.server_state.connections)


def test_a_body_that_the_application_does_not_read_is_waited_for(server, connect, monkeypatch):
    """Its sender would go on, were it let to."""
    read_on = threading.Event()

    async def slow(scope, receive, send):
        while not read_on.is_set():
            await asyncio.sleep(0.01)
        await app(scope, receive, send)

    monkeypatch.setattr(server.config, "loaded_app", slow)  # before connecting: a connection keeps the one it finds
    connection = connect()
    size = connections_module.LEAST * 200
    connection.sendall(b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size)
    sending = threading.Thread(target=send_all, args=(connection, bytes(size)))
    sending.start()
    (one,) = wait_until(lambda: [one for one in server.server_state.connections if one.flow.read_paused])
    for _ in range(3):
        call(one, one._late, 60)
        assert one._come == 0
    read_on.set()
    assert read(connection).endswith(b"%d" % size)
    sending.join()


@pytest.mark.parametrize(
    "asked",
    [
        b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /big HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n" * 3,
    ],
)
def test_an_answer_that_nobody_takes_is_not_kept(server, connect, monkeypatch, caplog, asked):
    monkeypatch.setattr(connections_module, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(Connection, "_told", -1e9)
    before = closed("unread")
    connection = connect()
    connection.sendall(asked)
    wait_until(lambda: closed("unread") == before + 1)
    wait_until(lambda: not server.server_state.connections and not server.server_state.tasks)
    assert "bytes of an answer within 0.05 s" in caplog.text
    assert "Exception" not in caplog.text
    assert len(read(connection)) < BIG


def test_an_answer_that_is_taken_slowly_is_told_to_its_end(server, connect):
    """What the reader takes is what counts; time is up when the test says so."""
    connection = connect()
    connection.sendall(b"GET /big HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    (one,) = wait_until(lambda: [one for one in server.server_state.connections if one._watch])
    taken = one._acknowledged()
    said = b""
    while len(said) < BIG // 2:
        said += connection.recv(2**20)
    wait_until(lambda: one._acknowledged() >= taken + connections_module.LEAST)
    call(one, one._look, taken + connections_module.LEAST, 60)
    assert one._watch is not None and one in server.server_state.connections
    assert len((said + read(connection)).partition(b"\r\n\r\n")[2]) == BIG


@pytest.mark.parametrize("limits", [Limits(5, 4)])
def test_connections_are_limited_in_all_and_for_each_address(server, connect, monkeypatch, caplog):
    monkeypatch.setattr(connections_module, "RESERVE", 2)
    monkeypatch.setattr(Connection, "_told", -1e9)
    before = {reason: closed(reason) for reason in ("all", "address")}
    connections = server.server_state.connections
    kept = [connect() for _ in range(5)]
    wait_until(lambda: len(connections) == 5)  # this machine may have them all
    for one in kept:
        one.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n")
    wait_until(lambda: all(one.cycle for one in connections))
    said = "5 connections are open, which is all that may (REID_MAX_CONNECTIONS)"

    crowded = [connect(), connect()]
    wait_until(lambda: len(connections) == 7)
    for one in crowded:
        one.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" + bytes(99_999))
    wait_until(lambda: all(one.cycle for one in connections))
    assert problem_of(read(connect())) == (503, "busy", f"{said}; try again in 10 s")  # beyond the reserve
    for one in crowded:
        one.sendall(b"\0")
        head, _, body = read(one).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert {b"retry-after: 10", b"connection: close", b"content-type: application/problem+json"} <= set(
            head.split(b"\r\n")
        )
        assert json.loads(body)["code"] == "busy"
        assert json.loads(body)["detail"] == f"{said}; try again in 10 s"
    assert f"warning: closed a connection of 127.0.0.1: {said}" in caplog.text

    wait_until(lambda: len(connections) == 5)
    alive = connect()
    alive.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
    assert read(alive).startswith(b"HTTP/1.1 200 ")  # and is closed
    assert closed("all") == before["all"] + 4

    kept.pop().close()
    wait_until(lambda: len(connections) == 4)
    monkeypatch.setattr(connections_module, "ip_address", lambda _: type("Elsewhere", (), {"is_loopback": False}))
    fifth = connect()
    fifth.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert b"4 connections are open, which is all that one address may have (REID_MAX_CONNECTIONS_OF_" in read(fifth)
    assert closed("address") == before["address"] + 1

    wait_until(lambda: len(connections) == 4)
    monkeypatch.setattr(connections_module, "is_trusted", lambda *_: True)
    of_proxy = connect()
    of_proxy.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert read(of_proxy).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("limits", [Limits(5, 200)])
def test_who_says_nothing_makes_room_for_who_does(server, connect, monkeypatch, caplog):
    """More half-sent requests than there may be connections shut nobody out, and who is served stays."""
    monkeypatch.setattr(Connection, "_told", -1e9)
    served = connect()
    served.sendall(b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\n")
    wait_until(lambda: [one.cycle for one in server.server_state.connections if one.cycle])
    silent = []
    for place in range(8):
        silent.append(connect())
        silent[-1].sendall(b"GET / HT")
        wait_until(lambda place=place: len(server.server_state.connections) == min(place + 2, 5))
    asking = connect()
    asking.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert read(asking).startswith(b"HTTP/1.1 200 ")
    assert "5 connections are open, and on this one nothing was asked" in caplog.text
    served.sendall(b"abc")
    assert read(served).endswith(b"3")


def test_a_stop_waits_for_no_body_that_is_read_only_to_be_dropped(server, connect, monkeypatch):
    """Of a request that was refused, and whose sender does not send the rest."""
    monkeypatch.setattr(uploads_module, "SECONDS_DRAINED", 1e6)

    async def refuse(scope, receive, send):
        await PlainTextResponse("refused", 400)(scope, receive, send)

    monkeypatch.setattr(server.config, "loaded_app", Drained(refuse))
    connection = connect()
    connection.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc")
    said = b""
    while not said.endswith(b"refused"):
        said += connection.recv(1000)
    server.should_exit = True
    assert read(connection) == b""
    wait_until(lambda: not server.server_state.connections and not server.server_state.tasks)
