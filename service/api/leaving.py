"""Work for a client that may leave before it has its answer."""

import asyncio
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request

from service.gallery.decoders import LEFT

Answer = TypeVar("Answer")


async def while_there(request: Request, answer: Callable[[], Answer], threads: CapacityLimiter) -> Answer:
    """What a function says, on one of some threads; photos that it waits for are not read once the client has left.

    The body of the request must have been read. Raises as the function does, and Left.
    """
    left = Event()
    before = LEFT.set(left)  # a thread works in a copy of this context

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left.set()

    watching = asyncio.create_task(watch())
    try:
        return await to_thread.run_sync(answer, limiter=threads)
    finally:
        watching.cancel()
        LEFT.reset(before)
