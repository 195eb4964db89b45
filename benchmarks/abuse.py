"""What a service goes on to answer while somebody does their worst: the waits of others, and memory.

    python -m benchmarks.abuse [--attacks scans half-sent] [--source OTHER_CHECKOUT]

`reid-serve` runs in a process of its own, with a key for the attacker and one for somebody honest. While each attack
runs, `/health/live` is asked ten times a second, and the honest one sends a photo twice a second, each over a
connection of its own; the worst wait of each is told, beside that of a quiet time of the same length. Memory is that of
all processes of the service (PSS), before the attack, at its peak, and `--rest` seconds after. `--source` serves the
code of another checkout, such as that of an earlier version. ViT-Tiny with random weights.
"""

import argparse
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from PIL import Image

from benchmarks.service import make_checkpoint, make_photos

ADMIN = "the admin key of the benchmark".ljust(32, "-")
SIDE = 7000  # pixels; 49 megapixels
Attack = Callable[["Target"], Counter[str]]


class Target:
    """The service: its address, what it has of memory, and what it answers whom."""

    def __init__(self, address: str, pid: int, seconds: float) -> None:
        self.address, self.pid, self.seconds = address, pid, seconds
        self.items: list[str] = []
        self.secrets = {"honest": ADMIN, "attacker": ADMIN}

    def client(self, who: str) -> httpx2.Client:
        """Somebody who asks with a key of their own; the attacker waits no longer than the attack."""
        patience = self.seconds if who == "attacker" else 300
        return httpx2.Client(base_url=self.address, headers={"X-API-Key": self.secrets[who]}, timeout=patience)

    def connect(self) -> socket.socket:
        """A connection on which nothing is said yet."""
        where = urlsplit(self.address)
        return socket.create_connection((where.hostname, where.port), 30)

    def memory(self) -> float:
        """MiB of all its processes, of what they share each its part."""
        found, total = [self.pid], 0.0
        for pid in found:
            with suppress(OSError, StopIteration):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (task / "children").read_text().split())
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
        return total


def picture(form: str, side: int, **save: object) -> bytes:
    """A file of one colour."""
    written = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 60)).save(written, form, **save)
    return written.getvalue()


def scans() -> bytes:
    """A progressive JPEG whose last scan comes six hundred times."""
    data = picture("JPEG", 4000, progressive=True)
    end = data.rindex(b"\xff\xd9")
    return data[:end] + data[data.rindex(b"\xff\xda") : end] * 600 + data[end:]


def run_lengths() -> bytes:
    """A BMP of which each row has one pixel, and leaves the others to the reader."""
    side = 4000
    body = b"\1\0\0\0" * side + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    offset = 14 + len(header) + 1024
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + bytes(1024) + body


def endless_head(target: Target) -> Counter[str]:
    """One connection whose first header does not end, 40 MB of it."""
    with target.connect() as connection, suppress(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
        for _ in range(40):
            connection.sendall(b"a" * 1_000_000)
        return Counter({"taken": 1})
    return Counter({"closed": 1})


def half_sent(target: Target) -> Counter[str]:
    """1,100 connections that begin a request and leave it at that."""
    held: list[socket.socket] = []
    told = Counter[str]()
    try:
        for _ in range(1100):
            try:
                held.append(target.connect())
                held[-1].sendall(b"GET / HT")
                told["opened"] += 1
            except OSError as error:
                told[type(error).__name__] += 1
        time.sleep(target.seconds)
    finally:
        for one in held:
            one.close()
    return told


def deep_json(target: Target) -> Counter[str]:
    """Bodies of a million brackets."""
    headers = {"Content-Type": "application/json"}
    return _repeat(target, lambda client: client.post("/v1/items/delete", content=b"[" * 900_000, headers=headers))


def queries_of(data: bytes, times: int | None = None) -> Attack:
    """Queries by one file, from eight clients at a time."""

    def attack(target: Target) -> Counter[str]:
        return _repeat(target, lambda client: client.post("/query", files={"image": ("a", data)}), times)

    return attack


def thumbnails(target: Target) -> Counter[str]:
    """Sixty thumbnails of photos of 49 megapixels, as a gallery of an earlier version has them: none is made yet."""
    waiting = iter(target.items * 60)
    return _repeat(target, lambda client: client.get(f"/v1/items/{next(waiting)}/thumbnail"), 60)


def _repeat(target: Target, ask: Callable[[httpx2.Client], httpx2.Response], times: int | None = None) -> Counter[str]:
    """What is answered to eight clients, for some seconds or so many requests in all."""
    told, left, changing = Counter[str](), iter(range(times or 10**9)), threading.Lock()
    end = time.monotonic() + (600 if times else target.seconds)

    def client(_: int) -> None:
        with target.client("attacker") as asking:
            while time.monotonic() < end:
                with changing:
                    if next(left, None) is None:
                        return
                try:
                    answer = ask(asking)
                    said = f"{answer.status_code}"
                except httpx2.HTTPError as error:
                    said = type(error).__name__
                with changing:
                    told[said] += 1

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(client, range(8)))
    return told


def quiet(target: Target) -> Counter[str]:
    """Nobody but the honest."""
    time.sleep(target.seconds)
    return Counter()


ATTACKS: dict[str, Attack] = {
    "quiet": quiet,
    "endless-head": endless_head,
    "half-sent": half_sent,
    "deep-json": deep_json,
    "scans": queries_of(scans()),
    "run-lengths": queries_of(run_lengths()),
    "queries-49-mp": queries_of(picture("PNG", SIDE, compress_level=9), 72),
    "thumbnails-49-mp": thumbnails,
}


@contextmanager
def watched(ask: Callable[[], object], pause: float) -> Iterator[list[float]]:
    """The seconds that each answer took while the block ran; what was not answered took until it failed."""
    waits: list[float] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            begun = time.monotonic()
            try:
                ask()
            except Exception as error:  # refused, closed, too late: as bad as a wait of a minute
                waits.append(60.0)
                print(f"  not answered: {error!r:.200}", file=sys.stderr)
            else:
                waits.append(time.monotonic() - begun)
            over.wait(pause)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield waits
    finally:
        over.set()
        thread.join()


def measure(name: str, target: Target, photo: bytes, rest: float) -> dict[str, object]:
    """One attack: who waited how long, and what it took."""

    def live() -> None:
        httpx2.get(f"{target.address}/health/live", timeout=60).raise_for_status()

    def honest() -> None:
        with target.client("honest") as client:
            client.post("/query", files={"image": ("photo.jpg", photo)}).raise_for_status()

    before = target.memory()
    peaks = [before]
    with (
        watched(live, 0.1) as lives,
        watched(honest, 0.5) as queries,
        watched(lambda: peaks.append(target.memory()), 0.2),
    ):
        told = ATTACKS[name](target)
    time.sleep(rest)
    return {
        "attack": name,
        "live": max(lives),
        "query": max(queries),
        "before": before,
        "peak": max(peaks),
        "after": target.memory(),
        "answers": dict(told),
    }


@contextmanager
def serving(folder: Path, source: Path, seconds: float) -> Iterator[Target]:
    """The service on a gallery of six photos of 49 megapixels, whose thumbnails are not made yet."""
    run = make_checkpoint(folder, "vit_tiny")
    environment = {**os.environ, "PYTHONPATH": str(source), "REID_ADMIN_KEY": ADMIN, "REID_REQUIRE_KEYS": "true"}
    given = ["--checkpoint", str(run), "--gallery", str(folder / "gallery"), "--device", "cpu"]
    photos = folder / "photos"
    photos.mkdir()
    for number in range(6):
        (photos / f"{number}.png").write_bytes(picture("PNG", SIDE - number, compress_level=9))
    enrol = [sys.executable, "-m", "service.enrol", *given, str(photos)]
    subprocess.run(enrol, env=environment, cwd=source, check=True, capture_output=True)
    for made in (folder / "gallery" / "thumbnails").glob("*/*"):
        made.unlink()
    log = folder / "log"
    with log.open("w") as stderr:
        command = [sys.executable, "-m", "service.serve", *given, "--port", "0"]
        process = subprocess.Popen(command, env=environment, cwd=source, stderr=stderr)
    try:
        while "http://" not in (said := log.read_text()):
            if process.poll() is not None:
                raise RuntimeError(f"the service did not start: {said}")
            time.sleep(0.1)
        address = "http://" + said.partition("http://")[2].split(",")[0].split('"')[0].strip()
        target = Target(address, process.pid, seconds)
        with target.client("honest") as client:
            for who in ("honest", "attacker"):
                made = client.post("/v1/admin/keys", json={"name": who, "scopes": ["read", "write"]})
                target.secrets[who] = made.raise_for_status().json()["secret"]
            target.items = [item["item_id"] for item in client.get("/v1/items").json()["items"]]
        yield target
    finally:
        begun = time.monotonic()
        process.terminate()
        process.wait()
        print(f"stopped {time.monotonic() - begun:.1f} s after SIGTERM")


def main() -> None:
    """Run all attacks, or some, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--seconds", type=float, default=20, help="of each attack that has no number of its own")
    parser.add_argument("--rest", type=float, default=60, help="seconds before memory is looked at again")
    parser.add_argument("--source", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = []
    print(f"{'attack':18}{'live s':>8}{'query s':>9}{'MiB before':>12}{'peak':>7}{'after':>7}  answers")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), options.source, options.seconds) as target:
        (photo,) = make_photos(0, 1)
        with target.client("honest") as client:
            client.post("/query", files={"image": ("photo.jpg", photo)}).raise_for_status()
        for name in options.attacks:
            row = measure(name, target, photo, options.rest)
            found.append(row)
            print(
                "{attack:18}{live:8.2f}{query:9.2f}{before:12.0f}{peak:7.0f}{after:7.0f}  {answers}".format(**row),
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
