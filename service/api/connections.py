"""One connection to the service: how much of it is read before it says something, and how long all of it may take.

The server reads the head of a request to its end before anybody sees it, and has no limit for that; nor for how long a
body takes to come, and an answer to be taken.
"""

import asyncio
import logging
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from ipaddress import ip_address
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.crowded import RETRY_AFTER, WHY
from service.api.problems import problem
from service.api.proxies import is_trusted
from service.metrics import CLOSED_CONNECTIONS, ClosedFor
from service.settings import Network

log = logging.getLogger("reid")

MAX_HEAD = 64 * 2**10  # bytes of request line and headers
RESERVE = 64  # connections beyond the limits, for those who look whether the service lives, and to tell others
HEAD_SECONDS = 10.0  # from the first byte, or the connection, to the end of a head
BODY_SECONDS = 60.0  # in which so little of a body comes; more than a stop waits, which has an answer for it
ANSWER_SECONDS = 60.0  # in which so little of an answer is taken
LEAST = 60_000  # bytes, of a body or an answer; 1 kB/s, and the poorest lines have more
SECONDS_BETWEEN_LINES = 10.0

_ACKNOWLEDGED = 120  # where in Linux's tcp_info that number lies


class Limits(NamedTuple):
    """How many connections there may be in all, and of one address other than this machine and proxies."""

    in_all: int
    of_one_address: int
    proxies: Sequence[Network] = ()


class Connection(HttpToolsProtocol):
    """A connection that ends where a head is too large or does not come, nothing moves, or there are too many.

    Slow bodies and slow readers go on, as long as `LEAST` bytes move a minute. Some connections beyond the limits have
    a single request, whose state tells the application so. Each refusal is counted, and told in the log, a few times a
    minute.
    """

    _told = -SECONDS_BETWEEN_LINES

    def __init__(self, limits: Limits, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._limits = limits
        self._crowded: str | None = None  # why this is one too many
        self._unread = 0  # bytes since something was complete: a head, a piece of a body, a request
        self._in_body = False
        self._come = 0  # bytes of a body since its deadline was set
        self._held = False  # whether it was not read for a while since then, since nobody wanted more
        self._deadline: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None  # of an answer that is not taken at once
        self._unanswered = deque[RequestResponseCycle]()  # the first of which is at work
        self._since = time.monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        in_all, of_one_address, _ = self._limits
        if len(self.connections) > in_all and len(self._within_limits()) > in_all and not self._displace():
            self._crowd("all", f"{in_all} connections are open, which is all that may (REID_MAX_CONNECTIONS)")
        elif self._of_this_address() > of_one_address:
            why = f"{of_one_address} connections are open, which is all that one address may have"
            self._crowd("address", f"{why} (REID_MAX_CONNECTIONS_OF_ADDRESS)")
        if not transport.is_closing():
            self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._forget()
        if self._watch is not None:
            self._watch.cancel()
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read no more than `MAX_HEAD` at once, and go on as long as something of it is complete."""
        if self._deadline is None:
            self._expect(HEAD_SECONDS)
        while data and not self.transport.is_closing():
            room = MAX_HEAD - self._unread
            piece, data = data[:room], data[room:]
            self._unread += len(piece)
            super().data_received(piece)
            if self._unread >= MAX_HEAD and not self.transport.is_closing():
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self._refuse(status, "head_too_large", "head", f"a head of more than {MAX_HEAD // 2**10} KiB")
        self._held |= self.flow.read_paused

    def on_headers_complete(self) -> None:
        """A head has come to its end."""
        self._unread, self._in_body = 0, True
        self._expect(BODY_SECONDS)
        if self._crowded is not None:
            self.scope["state"][WHY] = self._crowded
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:  # an upgrade, say, is no request
            self._unanswered.append(self.cycle)
        if self._crowded is not None and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of a body has come."""
        self._unread = 0
        self._come += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        self._unread, self._in_body = 0, False
        self._forget()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """More of an answer waits to be taken than should."""
        super().pause_writing()
        self._watch_answer()

    def on_response_complete(self) -> None:
        """All of an answer is written, and some of it may wait to be taken."""
        self._unanswered.popleft()
        super().on_response_complete()
        self._watch_answer()

    def shutdown(self) -> None:
        """Close it with the answer under way, or at once where all that is left is a body that nobody wants."""
        super().shutdown()
        if self._in_body and self.cycle is not None and self.cycle.response_started:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request."""
        self._end(HTTPStatus.BAD_REQUEST, "bad_request", msg)

    def _within_limits(self) -> list["Connection"]:
        """All that are not beyond the limits, nor about to close."""
        ours = (one for one in self.connections if isinstance(one, Connection))
        return [one for one in ours if one._crowded is None and not one.transport.is_closing()]

    def _displace(self) -> bool:
        """Close the oldest connection on which nothing was ever asked; whoever wants to ask does so at once."""
        others = (one for one in self._within_limits() if one is not self)
        silent = [one for one in others if one.cycle is None]
        if silent:
            oldest = min(silent, key=attrgetter("_since"))
            oldest._tell("displaced", f"{self._limits.in_all} connections are open, and on this one nothing was asked")
            oldest.transport.abort()
        return bool(silent)

    def _crowd(self, reason: ClosedFor, why: str) -> None:
        """Answer a single request, or none where others beyond the limits wait for theirs already."""
        crowded = sum(isinstance(one, Connection) and one._crowded is not None for one in self.connections)
        if crowded >= RESERVE:
            told = f"{why}; try again in {RETRY_AFTER} s"
            self._tell(reason, why)
            self._end(HTTPStatus.SERVICE_UNAVAILABLE, "busy", told, {"Retry-After": str(RETRY_AFTER)})
        else:
            self._crowded = why
            self._tell(reason, why)

    def _of_this_address(self) -> int:
        if self.client is None or ip_address(self.client[0].partition("%")[0]).is_loopback:
            return 0
        if is_trusted(self.client[0], self._limits.proxies):
            return 0
        others = (one.client for one in self.connections if isinstance(one, Connection))
        return sum(client is not None and client[0] == self.client[0] for client in others)

    def _expect(self, seconds: float) -> None:
        """Have something come within some seconds."""
        self._forget()
        self._come, self._held = 0, self.flow.read_paused
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
        if self._held or (self._come >= LEAST if self._in_body else answering):
            self._expect(seconds)
        elif self._in_body:
            why = f"{self._come:,} bytes of a body came in {seconds:g} s, expected {LEAST:,}"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "too_slow", "slow", why)
        elif self._unread:
            why = f"a request was begun, and not its head within {seconds:g} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "too_slow", "silent", why)
        else:  # a browser opens some ahead, and then has nothing to say
            self.transport.close()

    def _watch_answer(self) -> None:
        """Have what waits of an answer be taken, or `LEAST` of it, within `ANSWER_SECONDS`, and so on."""
        waiting = self.transport.get_write_buffer_size()
        if self._watch is None and waiting and (acknowledged := self._acknowledged()) is not None:
            expected = acknowledged + min(waiting, LEAST)
            self._watch = self.loop.call_later(ANSWER_SECONDS, self._look, expected, ANSWER_SECONDS)

    def _look(self, expected: int, seconds: float) -> None:
        """Go on watching an answer of which enough was taken, and close the connection of another."""
        self._watch = None
        acknowledged = self._acknowledged()
        if acknowledged is not None and acknowledged < expected:
            self._tell("unread", f"nobody took {expected - acknowledged:,} bytes of an answer within {seconds:g} s")
            self._leave()
            self.transport.abort()
        else:
            self._watch_answer()

    def _acknowledged(self) -> int | None:
        """How many bytes the other side has taken in all, which is known on Linux.

        What is written is no measure: the buffer of the kernel takes megabytes, and then nothing until much of it is
        taken.
        """
        connected = self.transport.get_extra_info("socket")
        if sys.platform != "linux" or connected is None or connected.fileno() < 0:
            return None
        info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED + 8)
        return int(struct.unpack_from("=Q", info, _ACKNOWLEDGED)[0])

    def _leave(self) -> None:
        """Tell whoever is at work on a request that nobody is there, so that they neither wait nor write any more."""
        for one in self._unanswered:
            one.disconnected = True
            one.message_event.set()

    def _refuse(self, status: HTTPStatus, code: str, reason: ClosedFor, why: str) -> None:
        self._tell(reason, why)
        self._end(status, code, why)

    def _end(self, status: HTTPStatus, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Close the connection, with a problem as its last answer unless another is under way."""
        unasked = self.cycle is None or self.cycle.response_complete
        if not unasked and self._in_body and not self.cycle.response_started and not self.pipeline:
            self._leave()
            unasked = True
        if unasked:
            answer = problem({"state": {"request_id": uuid4().hex}}, status, code, detail, headers=headers)
            lines = [(b"connection", b"close"), *answer.raw_headers]
            head = b"".join(b"%b: %b\r\n" % line for line in lines)
            self.transport.write(STATUS_LINE[status] + head + b"\r\n" + bytes(answer.body))
        self.transport.close()
        self._watch_answer()

    def _tell(self, reason: ClosedFor, why: str) -> None:
        CLOSED_CONNECTIONS.labels(reason).inc()
        now = time.monotonic()
        if now - Connection._told >= SECONDS_BETWEEN_LINES:
            Connection._told = now
            log.warning("warning: closed a connection of %s: %s", self.client[0] if self.client else "nobody", why)
