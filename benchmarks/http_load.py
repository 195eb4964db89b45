"""Clients of a service, each of which sends a request, reads the answer and sends the next, over one connection.

Requests are made beforehand, and of an answer the status alone is looked at, so that clients cost the machine little.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

BOUNDARY = "b7d3f1a95c2e48f6"
ANSWER_BYTES = 2**20  # the longest head of an answer


@dataclass
class Load:
    """What clients saw: seconds of each answer, what came instead of good ones, and seconds from first to last.

    `processor` are the seconds of a processor that they took themselves.
    """

    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    processor: float = 0.0


def multipart(address: str, path: str, name: str, files: Sequence[bytes]) -> bytes:
    """A POST request, head and body, that brings JPEG files in one field of a form."""
    parts = []
    for place, file in enumerate(files):
        head = f'Content-Disposition: form-data; name="{name}"; filename="{place}.jpg"\r\nContent-Type: image/jpeg'
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + file + b"\r\n")
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def drive(address: str, requests: Iterator[bytes], clients: int, *, status: int = 200) -> Load:
    """Have clients send requests until there are no more; whatever is not answered with `status` is an error."""
    load = Load()

    async def crowd() -> None:
        await asyncio.gather(*(_client(address, requests, status, load) for _ in range(clients)))

    begun, spent = time.perf_counter(), time.process_time()
    asyncio.run(crowd())
    load.seconds, load.processor = time.perf_counter() - begun, time.process_time() - spent
    return load


async def _client(address: str, requests: Iterator[bytes], status: int, load: Load) -> None:
    where = urlsplit(address)
    try:
        reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=ANSWER_BYTES)
        for request in requests:
            begun = time.perf_counter()
            writer.write(request)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            await reader.readexactly(int(head.partition("\r\ncontent-length:")[2].partition("\r\n")[0]))
            if head.split()[1] == str(status):
                load.latencies.append(time.perf_counter() - begun)
            else:
                load.errors[f"status {head.split()[1]}"] += 1
        writer.close()
        await writer.wait_closed()
    except (OSError, EOFError) as error:
        load.errors[type(error).__name__] += 1
