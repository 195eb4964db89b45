"""An address that answers from the first moment on, while what it serves is loaded and afterwards."""

import asyncio
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from threading import Timer

import uvicorn

from service import logs
from service.api.connections import RESERVE, Connection, Limits
from service.api.crowded import Crowded
from service.api.proxies import Proxied
from service.api.starting import Starting
from service.settings import Settings
from service.settling import settle

log = logging.getLogger("reid")

FILES_BESIDE = 150  # connections that the process has open: of its database, its decoders, what it saves
SECONDS_BETWEEN_LOOKS = 1.0
ARENAS = 2  # of malloc; one for each of hundreds of threads keeps what any of them once needed
# After a signal, and in this order; supervisors that wait for less than the last end it as hard.
SECONDS_TO_ANSWER = 20.0  # requests that are under way, before photos that still wait are answered that it stops
SECONDS_TO_FINISH = 25  # them, before those are cancelled that still send, say
SECONDS_TO_STOP = 40.0  # all, before the process ends, whatever is under way


class _Server(uvicorn.Server):
    """Finishes the requests that are under way when it stops, but does not wait for them for ever."""

    give_up: Callable[[], None] | None = None  # on which whoever waits for a photo to be read or embedded waits no more

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ending = Timer(SECONDS_TO_STOP, _end)
        self.ending.daemon = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing more, and answer what was asked before."""
        if self.ending.ident is None:  # no signal has started it
            self.ending.start()
        giving_up = asyncio.create_task(self._give_up())
        try:
            await super().shutdown(sockets)
        finally:
            giving_up.cancel()

    async def _give_up(self) -> None:
        await asyncio.sleep(SECONDS_TO_ANSWER)
        if self.give_up is not None:
            await asyncio.to_thread(self.give_up)


class _Stopped(BaseException):
    """A signal ended the start; as KeyboardInterrupt, nothing but `serve` shall catch it."""


def serve(settings: Settings) -> None:
    """Serve a gallery, a classifier or both until SIGTERM or SIGINT, then finish the requests that are under way.

    It listens before anything is loaded, and says so; a signal meanwhile ends it at once. Jobs that are under way go on
    at the next start. What takes longer than `SECONDS_TO_STOP` ends with the process, as by a kill. Raises OSError for
    an address that cannot be had, and what `load_app` raises.
    """
    _bound_arenas()
    logs.configure(settings.log_format or ("text" if sys.stderr.isatty() else "json"))
    _allow_files(settings.max_connections)
    limits = Limits(settings.max_connections, settings.max_connections_of_address, settings.trusted_proxies)
    starting = Starting()
    with ExitStack() as opened, suppress(_Stopped):
        listening = opened.enter_context(_listen(settings.host, settings.port))
        host, port, *_ = listening.getsockname()
        log.info("listening on %s port %d", host, port)
        server = _Server(
            uvicorn.Config(
                Proxied(Crowded(starting), settings),
                log_config=None,
                access_log=False,
                proxy_headers=False,  # which it would believe from this machine
                log_level="warning",
                timeout_graceful_shutdown=SECONDS_TO_FINISH,
                lifespan="off",
                http=partial(Connection, limits),  # type: ignore[arg-type]  # any function that gives one will do
            )
        )
        opened.callback(server.ending.cancel)
        opened.enter_context(_signals(starting, server))
        # Beside the main thread, which loads: signals and errors of loading come up there.
        beside = opened.enter_context(ThreadPoolExecutor(1, "answering"))
        opened.callback(setattr, server, "should_exit", True)
        answering = beside.submit(server.run, [listening])
        starting.tell("importing libraries")
        from service.loading import announce, load_app  # here, since it brings torch, which takes seconds

        with load_app(settings, starting.tell) as loaded:
            settle()
            starting.app, server.give_up = loaded.app, loaded.give_up
            announce(loaded, settings, f"http://{f'[{host}]' if ':' in host else host}:{port}")
            # In turns, for a signal that comes just before the wait for good would not be seen until the next one.
            while not wait([answering], SECONDS_BETWEEN_LOOKS).done:
                pass
            answering.result()
    log.info("stopped")


def _end() -> None:
    log.error("ended %g s after the signal, whatever was under way; what was answered is kept", SECONDS_TO_STOP)
    os._exit(1)


def _bound_arenas() -> None:
    """Have threads share the memory that they give back, with the C library of GNU; others do so by themselves."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-8, ARENAS)  # M_ARENA_MAX


def _allow_files(connections: int) -> None:
    """Have the process open as many files as connections may need, as far as it may, and warn where it may not."""
    needed = connections + RESERVE + FILES_BESIDE
    most, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= needed:
        return
    if limit == resource.RLIM_INFINITY or limit > most:
        most = needed if limit == resource.RLIM_INFINITY else min(needed, limit)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limit))
    if most < needed:
        log.warning(
            "warning: %d connections (REID_MAX_CONNECTIONS) take up to %d open files, and this process may have %d",
            connections,
            needed,
            most,
        )


@contextmanager
def _signals(starting: Starting, server: _Server) -> Iterator[None]:
    """Have SIGTERM and SIGINT stop the server, and end the start if it is under way."""

    def stop(*_: object) -> None:
        early = starting.app is None and not server.should_exit
        if not server.should_exit:
            server.ending.start()  # here, for the loop may be what hangs
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
