"""How deep JSON may be nested, seen before it is parsed: what is parsed deeply holds everybody else up for seconds."""

import re

import numpy as np
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem

MAX_DEPTH = 32  # lists and objects in each other; what is said of an item has at most five, unless people nest more

# Also one without its end, or each quote in it would be looked at as the beginning of another.
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_OTHERS = (b"multipart/form-data", b"application/x-www-form-urlencoded", b"application/octet-stream")


def depth(data: bytes) -> int:
    """How many lists and objects of some JSON lie in each other, also where it is none; in one pass."""
    signs = np.frombuffer(_TEXT.sub(b"", data), np.uint8)
    opening, closing = ((signs == ord(one)) | (signs == ord(other)) for one, other in ("[{", "]}"))
    inside = opening.cumsum(dtype=np.int32) - closing.cumsum(dtype=np.int32)
    return int(inside.max(initial=0))


class ShallowJson:
    """Refuses bodies whose JSON is nested deeper than `MAX_DEPTH`; how long they may be is for others to say."""

    def __init__(self, app: ASGIApp, max_size: int) -> None:
        """A body of more than `max_size` bytes, which would be kept here until its end, passes unseen."""
        self._app = app
        self._max_size = max_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or _is_no_json(scope):
            await self._app(scope, receive, send)
            return
        kept, size, more = list[Message](), 0, True
        while more and size <= self._max_size:
            message = await receive()
            kept.append(message)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(message.get("body", b"") for message in kept)
        if size <= self._max_size and (deep := depth(body)) > MAX_DEPTH:
            detail = f"the JSON is nested {deep:,} deep, expected at most {MAX_DEPTH}"
            await problem(scope, 400, "bad_request", detail)(scope, receive, send)
            return
        waiting = iter(kept)

        async def again() -> Message:
            message = next(waiting, None)
            return await receive() if message is None else message

        await self._app(scope, again, send)


def _is_no_json(scope: Scope) -> bool:
    kind, _ = parse_options_header(Headers(scope=scope).get("content-type"))
    return kind in _OTHERS
