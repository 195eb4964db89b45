"""Services over one gallery behind a proxy; each can be killed and started again."""

import os
import socket
import socketserver
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import httpx2

from tests.service.starting import Command

READY_SECONDS = 120


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Service:
    """`reid-serve` at an address that it keeps; not running at first."""

    def __init__(self, folder: Path, log: Path, **settings: str) -> None:
        self._log, self.port = log, free_port()
        self._settings = {"REID_GALLERY": str(folder), "REID_PORT": str(self.port), "REID_DEVICE": "cpu", **settings}
        self._started: Command | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, checkpoint: Path) -> None:
        """Start it with a model; `wait` tells when it answers."""
        environment = {**os.environ, **self._settings, "REID_CHECKPOINT": str(checkpoint)}
        self._started = Command("service.serve", [], environment, self._log)

    def kill(self) -> None:
        """End it as `kill -9` does, if it runs."""
        if self._started is not None:
            self._started.kill()
            self._started.wait()
            self._started = None

    def wait(self, path: str = "/health/ready") -> None:
        """Return when it answers there with success."""
        until = time.monotonic() + READY_SECONDS
        while True:
            told = "no answer"
            with suppress(httpx2.TransportError):
                answer = httpx2.get(f"{self.address}{path}", timeout=10)
                if answer.is_success:
                    return
                told = answer.text
            ended = self._started is not None and self._started.poll() is not None
            if ended or time.monotonic() > until:
                raise RuntimeError(f"{'ended' if ended else told}: {self._log.read_text()[-4000:]}")
            time.sleep(0.1)


class Proxy:
    """Hands each connection to the next of some ports that takes it, as a load balancer does."""

    def __init__(self, ports: Sequence[int]) -> None:
        turns = cycle(range(len(ports)))
        taking = threading.Lock()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with taking:
                    first = next(turns)
                for port in [*ports[first:], *ports[:first]]:
                    with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as behind:
                        copier = threading.Thread(target=copy, args=(behind, self.request))
                        copier.start()
                        copy(self.request, behind)
                        copier.join()
                        return

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
