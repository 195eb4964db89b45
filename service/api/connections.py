"""One connection to the service: how much of it is read before it says something, and how long that may take.

The server reads the head of a request to its end before anybody sees it, and has no limit for that.
"""

import asyncio
import logging
import time
from ipaddress import ip_address
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger("reid")

MAX_HEAD = 64 * 2**10  # bytes of request line and headers
MAX_CONNECTIONS = 800  # below the 1,024 files that a process may commonly have open
MAX_OF_ONE_ADDRESS = 200  # other than this machine
HEAD_SECONDS = 10.0  # from the first byte, or the connection, to the end of a head
BODY_SECONDS = 60.0  # in which nothing of a body comes; more than a stop waits, which has an answer for it
SECONDS_BETWEEN_LINES = 10.0

_TOO_LARGE = b"431 Request Header Fields Too Large"
_TOO_MANY = b"503 Service Unavailable"


class Connection(HttpToolsProtocol):
    """A connection that ends where a head is too large or does not come, a body does not move, or there are too many.

    A slow body goes on for as long as something of it comes. Each refusal is told in the log, a few times a minute.
    """

    _told = -SECONDS_BETWEEN_LINES

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._unread = 0  # bytes since something was complete: a head, a piece of a body, a request
        self._in_body = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(_TOO_MANY, f"{MAX_CONNECTIONS} connections are open, which is all that may")
        elif self._of_this_address() > MAX_OF_ONE_ADDRESS:
            self._refuse(
                _TOO_MANY, f"{MAX_OF_ONE_ADDRESS} connections are open, which is all that one address may have"
            )
        else:
            self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read no more than `MAX_HEAD` at once, and go on as long as something of it is complete."""
        if self._in_body or self._deadline is None:
            self._expect(BODY_SECONDS if self._in_body else HEAD_SECONDS)
        while data and not self.transport.is_closing():
            room = MAX_HEAD - self._unread
            piece, data = data[:room], data[room:]
            self._unread += len(piece)
            super().data_received(piece)
            if self._unread >= MAX_HEAD and not self.transport.is_closing():
                self._refuse(_TOO_LARGE, f"a head of more than {MAX_HEAD // 2**10} KiB")

    def on_headers_complete(self) -> None:
        """A head has come to its end."""
        self._unread, self._in_body = 0, True
        self._expect(BODY_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body has come."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        self._unread, self._in_body = 0, False
        self._forget()
        super().on_message_complete()

    def _of_this_address(self) -> int:
        if self.client is None or ip_address(self.client[0].partition("%")[0]).is_loopback:
            return 0
        others = (one.client for one in self.connections if isinstance(one, Connection))
        return sum(client is not None and client[0] == self.client[0] for client in others)

    def _expect(self, seconds: float) -> None:
        """Have something come within some seconds."""
        self._forget()
        self._deadline = self.loop.call_later(seconds, self._late, seconds)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self, seconds: float) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        # It may be here that reading waits, for room or for the answer to the request before.
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.flow.read_paused or (answering and not self._in_body):
            self._expect(seconds)
            return
        if self._unread or self.cycle is not None:  # a browser opens some ahead, and then has nothing to say
            self._tell(f"nothing of a {'body' if self._in_body else 'request'} for {seconds:g} s")
        self.transport.close()

    def _refuse(self, status: bytes, why: str) -> None:
        self._tell(why)
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()

    def _tell(self, why: str) -> None:
        now = time.monotonic()
        if now - Connection._told >= SECONDS_BETWEEN_LINES:
            Connection._told = now
            log.warning("warning: closed a connection of %s: %s", self.client[0] if self.client else "nobody", why)
