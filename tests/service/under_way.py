"""Requests that a service has begun to answer and cannot finish yet."""

from http.client import HTTPConnection

import httpx2

from tests.waiting import DEADLINE


def begin(address, path, files):
    """Send half a request, so that it is under way; returns the connection and the other half."""
    request = httpx2.Request("POST", address + path, files=files)
    body = request.read()
    connection = HTTPConnection(address.removeprefix("http://"), timeout=DEADLINE)
    connection.putrequest("POST", path)
    for name in ("Content-Type", "Content-Length"):
        connection.putheader(name, request.headers[name])
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    told = b""
    while not told.endswith(b"\r\n\r\n"):  # the service says so when it begins to read the body
        received = connection.sock.recv(1000)
        assert received
        told += received
    assert told.startswith(b"HTTP/1.1 100")
    connection.send(body[: len(body) // 2])
    return connection, body[len(body) // 2 :]
