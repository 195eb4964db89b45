"""An address that answers from the first moment on, while what it serves is loaded and afterwards."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import uvicorn

from service import logs
from service.api.connections import Connection
from service.api.starting import Starting
from service.settings import Settings

log = logging.getLogger("reid")

SECONDS_TO_STOP = 30  # for requests that are under way


class _Stopped(BaseException):
    """A signal ended the start; as KeyboardInterrupt, nothing but `serve` shall catch it."""


def serve(settings: Settings) -> None:
    """Serve a gallery, a classifier or both until SIGTERM or SIGINT, then finish the requests that are under way.

    It listens before anything is loaded, and says so; a signal meanwhile ends it at once. Jobs that are under way go on
    at the next start. Raises OSError for an address that cannot be had, and what `load_app` raises.
    """
    logs.configure(settings.log_format or ("text" if sys.stderr.isatty() else "json"))
    starting = Starting()
    with ExitStack() as opened, suppress(_Stopped):
        listening = opened.enter_context(_listen(settings.host, settings.port))
        host, port, *_ = listening.getsockname()
        log.info("listening on %s port %d", host, port)
        server = uvicorn.Server(
            uvicorn.Config(
                starting,
                log_config=None,
                access_log=False,
                log_level="warning",
                timeout_graceful_shutdown=SECONDS_TO_STOP,
                lifespan="off",
                http=Connection,
            )
        )
        opened.enter_context(_signals(starting, server))
        # Beside the main thread, which loads: signals and errors of loading come up there.
        beside = opened.enter_context(ThreadPoolExecutor(1, "answering"))
        opened.callback(setattr, server, "should_exit", True)
        answering = beside.submit(server.run, [listening])
        starting.tell("importing libraries")
        from service.loading import announce, load_app  # here, since it brings torch, which takes seconds

        with load_app(settings, starting.tell) as loaded:
            starting.app = loaded.app
            announce(loaded, settings, f"http://{f'[{host}]' if ':' in host else host}:{port}")
            answering.result()
    log.info("stopped")


@contextmanager
def _signals(starting: Starting, server: uvicorn.Server) -> Iterator[None]:
    """Have SIGTERM and SIGINT stop the server, and end the start if it is under way."""

    def stop(*_: object) -> None:
        early = starting.app is None and not server.should_exit
        server.should_exit = True
        if early:
            raise _Stopped

    # uvicorn's own would raise the signal again, which would end the process before the gallery closes.
    before = {sent: signal.signal(sent, stop) for sent in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for sent, handler in before.items():
            signal.signal(sent, handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}") from error
