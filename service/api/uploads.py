"""Bodies of requests: how much they may bring, and how many requests are at work on theirs."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from http import HTTPStatus
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, move_on_after, to_thread
from fastapi import Request, UploadFile
from fastapi.exceptions import RequestValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import TooLarge, problem
from service.settings import Settings

SOURCE_LENGTH = 255
MAX_JSON = 2**20  # bytes of a body without files, which is read at once and may take 25 times the memory

# Read of a body after it was refused, so that its sender comes to see why.
MAX_DRAINED = 128 * 2**20
SECONDS_DRAINED = 30

# Requests of each kind at a time; others wait. Those that enrol have threads of their own, so that they never take all
# those of queries, of which there are more than photos in a batch, so that the model need not wait for the next.
QUERYING, ENROLLING = 128, 4

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def apart(threads: CapacityLimiter) -> Callable[[Callable[Given, Answer]], Callable[Given, Awaitable[Answer]]]:
    """Have a route work on some threads, as one must that waits for photos to be read.

    All others share 40, and once they were waiting, even who asks for the page or sends a query was not answered.
    """

    def decorate(route: Callable[Given, Answer]) -> Callable[Given, Awaitable[Answer]]:
        @wraps(route)
        async def on_threads(*given: Given.args, **named: Given.kwargs) -> Answer:
            return await to_thread.run_sync(partial(route, *given, **named), limiter=threads)

        return on_threads

    return decorate


def read(file: UploadFile, settings: Settings) -> bytes:
    """The bytes of an uploaded file; raises TooLarge."""
    if (file.size or 0) > settings.max_upload_bytes:
        raise TooLarge(f"{source(file)}: {file.size:,} bytes, expected at most {settings.max_upload_bytes:,}")
    return file.file.read()


def refuse_query(request: Request) -> None:
    """Refuse fields in the address of a request that has a form: a filter there would be ignored.

    Raises RequestValidationError.
    """
    if names := sorted(set(request.query_params)):
        wrong = {"type": "extra_forbidden", "msg": "expected in the form, not in the address"}
        raise RequestValidationError([{**wrong, "loc": ("query", name), "input": None} for name in names])


def source(file: UploadFile) -> str:
    """The end of the name that the sender gave the file."""
    return (file.filename or "")[-SOURCE_LENGTH:]


class Heads:
    """Answers HEAD where GET is answered: with the same head, and no body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        scope["method"] = "GET"  # of this scope, in which those outside look for the route
        try:
            await self._app(scope, receive, without_body)
        finally:
            scope["method"] = "HEAD"


class Drained:
    """Reads on where a request was refused before its body was read, and ends its answer then.

    Who sends a body, as proxies do, may look for an answer only after that; a connection that is closed before resets
    both, and people see a bad gateway instead of what was wrong.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "expect" in Headers(scope=scope):  # who asks first sends nothing after a refusal
            await self._app(scope, receive, send)
            return
        refused = False
        left = MAX_DRAINED

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left = left - len(message.get("body", b"")) if message.get("more_body") else 0
            return message

        async def ended(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = message["status"] >= HTTPStatus.BAD_REQUEST
            elif refused and not message.get("more_body") and left > 0:
                await send({**message, "more_body": True})
                with move_on_after(SECONDS_DRAINED):
                    while left > 0:
                        await counted()
                message = {"type": "http.response.body"}
            await send(message)

        await self._app(scope, counted, ended)


class Utf8Forms:
    """Refuses multipart forms that declare another charset than UTF-8, before their body is read.

    Python would decode their fields by any codec it has: punycode takes 12 s for 1 MB, and others make text that cannot
    be stored.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = Headers(scope=scope).get("content-type") if scope["type"] == "http" else None
        kind, options = parse_options_header(declared)
        charset = options.get(b"charset", b"utf-8").lower()
        if kind.startswith(b"multipart/") and charset not in (b"utf-8", b"utf8"):
            detail = f"charset {charset.decode('latin-1')!r}: expected a form in UTF-8"
            await problem(scope, 400, "bad_request", detail)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
