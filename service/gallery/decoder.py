"""A process that renders photos of strangers, one after the other, and may be ended: `decoders` starts and watches it.

Once it is ready it can open no file and no connection. What it answers is numbers, bytes and text, never objects, so
that a photo that took it over could not take over the service, too.
"""

import io
import json
import math
import os
import resource
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pillow_heif
from PIL import AvifImagePlugin, Image

from reid.data.images import UnknownFormat, UnusableImage, decode, opened_picture
from reid.data.preprocessing import Decoding
from service.gallery.rendering import Made, Order, Rendered, render
from service.records import Region, UnusableBox

ASKS = 4_000_000  # pixels from which it asks before it goes on
MEGAPIXELS_AS_LONG = 15  # that may take as long again as the smallest photo; the slowest formats need a third of that
# Enrolment of HEIC takes 28 bytes a pixel until its copy is written.
SPARE_BYTES, BYTES_PER_PIXEL = 512 * 2**20, 40

_REFUSALS = {kind.__name__: kind for kind in (UnknownFormat, UnusableImage)}


def seconds_for(pixels: int, seconds: float) -> float:
    """Seconds of a processor that a photo of so many pixels may take, where the smallest may take `seconds`."""
    return seconds * (1 + pixels / 1e6 / MEGAPIXELS_AS_LONG)


def send_order(there: Connection, data: bytes, order: Order, seconds: float) -> None:
    """Have the process at the other end render a photo, the smallest within so many seconds of a processor."""
    said = {
        "wants": list(order.wants),
        "regions": [region and (region.x, region.y, region.w, region.h) for region in order.regions],
        "view": order.view,
        "profiles": order.how.profiles,
        "enough": order.how.enough,
        "copy": order.copy,
        "seconds": seconds,
    }
    there.send_bytes(json.dumps(said).encode())
    there.send_bytes(data)


def receive(there: Connection, said: dict[str, Any]) -> Rendered:
    """What the process at the other end made, of which it has `said` the sizes.

    Raises UnknownFormat and UnusableImage, and RuntimeError with a traceback for a fault in the process.
    """
    if "fault" in said:
        raise RuntimeError(f"a decoder failed: {said['fault']}")
    if "refused" in said:
        raise _REFUSALS[said["refused"]](said["detail"])
    parts = [
        UnusableBox(part) if isinstance(part, str) else [_received(there, size) for size in part]
        for part in said["parts"]
    ]
    return Rendered(int(said["width"]), int(said["height"]), parts, there.recv_bytes() if said["copy"] else None)


def _received(there: Connection, size: list[int] | None) -> Made:
    made = there.recv_bytes()
    return made if size is None else Image.frombytes("RGB", (size[0], size[1]), made)


def main() -> None:
    """Render what is asked for on standard input, a socket, until that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all, and it is meant for who started this
    with Connection(os.dup(0)) as there:
        occupied = _shut_in()
        with suppress(EOFError):
            while True:
                said, data = json.loads(there.recv_bytes()), there.recv_bytes()
                there.send_bytes(b"{}")  # from here on the photo is to blame for its end
                _answer(there, said, data, occupied)


def _answer(there: Connection, said: dict[str, Any], data: bytes, occupied: int) -> None:
    blobs: list[bytes] = []
    answer: dict[str, Any]
    try:
        rendered = _rendered(there, said, data, occupied)
        answer = {"width": rendered.width, "height": rendered.height, "copy": rendered.copy is not None, "parts": []}
        for part in rendered.parts:
            answer["parts"].append(str(part) if isinstance(part, UnusableBox) else [_size(made) for made in part])
            blobs += () if isinstance(part, UnusableBox) else map(_bytes, part)
        blobs += [] if rendered.copy is None else [rendered.copy]
    except (UnknownFormat, UnusableImage) as error:
        answer = {"refused": type(error).__name__, "detail": str(error)}
    except Exception:
        answer = {"fault": traceback.format_exc()}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    there.send_bytes(json.dumps(answer).encode())
    for blob in blobs:
        there.send_bytes(blob)


def _rendered(there: Connection, said: dict[str, Any], data: bytes, occupied: int) -> Rendered:
    with _within(said["seconds"], occupied, SPARE_BYTES), opened_picture(io.BytesIO(data)) as opened:
        pixels = math.prod(opened.size)
    if pixels >= ASKS:
        there.send_bytes(json.dumps({"pixels": pixels}).encode())
        there.recv_bytes()
    regions = [box and Region(*box) for box in said["regions"]]
    how = Decoding(said["profiles"], said["enough"] and tuple(said["enough"]))
    order = Order(said["wants"], regions, said["view"], how, said["copy"])
    with _within(seconds_for(pixels, said["seconds"]), occupied, SPARE_BYTES + BYTES_PER_PIXEL * pixels):
        return render(data, order)


@contextmanager
def _within(seconds: float, occupied: int, memory: int) -> Iterator[None]:
    """Bound what the block takes: the process ends after `seconds` of a processor; UnusableImage beyond the memory."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    if occupied:
        resource.setrlimit(resource.RLIMIT_AS, (occupied + memory, resource.RLIM_INFINITY))
    try:
        yield
    except (MemoryError, UnusableImage) as error:
        if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
            most = f"{memory // 2**20:,} MiB of memory"
            raise UnusableImage(f"the image takes more than {most}, all that its size allows") from None
        raise


def _size(made: Made) -> tuple[int, int] | None:
    return made.size if isinstance(made, Image.Image) else None


def _bytes(made: Made) -> bytes:
    return made.tobytes() if isinstance(made, Image.Image) else made


def _shut_in() -> int:
    """Give up what is not needed once all is loaded; returns the bytes of addresses that are taken by then."""
    Image.init()
    decode(b"P5 1 1 255\n\0")  # which loads the rest
    pillow_heif.options.DECODE_THREADS = AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there is one of this for each core
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux, and elsewhere the limit of memory would not hold
        pages = 0
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(limit, (0, 0))
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
