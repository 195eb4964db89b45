"""Command `reid-demo`: the main job on the toy data, from pictures to a table and a query that the service answers."""

import argparse
import logging
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from reid import cli
from reid.data.samples import ReidDataset
from reid.progress import duration

log = logging.getLogger("reid")

HOST = "127.0.0.1"
SECONDS_TO_START = 300
SECONDS_TO_STOP = 60
SHOWN = 3  # vehicles
LEARNED = (
    "A probability weighs all photos of a vehicle, by odds learned from those of the gallery. It is for a photo that\n"
    "shows one of these vehicles as likely as not: others get a share of what is left."
)
TOO_FEW = "Probabilities take a gallery of 40 photos of 10 vehicles with several photos each, to learn from."


def search(dataset: ReidDataset, checkpoint: Path, gallery: Path, device: str = "auto") -> str:
    """Enrol the toy gallery, ask a service which vehicle the first query photo shows, and tell what it found.

    Photos that are enrolled already stay. Raises what opening a gallery raises, and ChildProcessError for a service
    that does not start, answer or stop well.
    """
    from service.bulk.enrolling import enrol  # here, since these bring torch, which takes seconds
    from service.bulk.sources import dataset_photos
    from service.opening import open_gallery

    with open_gallery(gallery, checkpoint, device) as opened:
        counts = enrol(opened, dataset_photos("toy", dataset.root, ["gallery"]))
    log.info("\n--- search: %d photos enrolled, %d there before in %s", counts["created"], counts["existing"], gallery)
    query = dataset.query[0]
    with _service(checkpoint, gallery, device) as address:
        matches = _ask(address, query.path)
    right = "the right vehicle" if matches[0]["label"] == str(query.identity) else "another one"
    chances = [match["identity_probability"] for match in matches]
    known = None not in chances
    return "\n".join(
        [
            f"Vehicle {query.identity}, asked for with {shlex.join(_curl(query.path, address))}",
            f"{'vehicle':<16}{'probability':>11}{'score':>10}",
            *(_row(match) for match in matches),
            *([f"{'others, or none':<16}{_percent(1 - sum(chances)):>11}"] if known else []),
            f"The first is {right}. {LEARNED if known else TOO_FEW}",
        ]
    )


@contextmanager
def _service(checkpoint: Path, gallery: Path, device: str) -> Iterator[str]:
    """A service of one's own at the address that is yielded, stopped as a supervisor would stop it."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    options = {"checkpoint": checkpoint, "gallery": gallery, "host": HOST, "port": port, "device": device}
    command = [sys.executable, "-m", "service.serve"]
    process = subprocess.Popen([*command, *(f"--{name}={value}" for name, value in options.items())])
    try:
        address = f"http://{HOST}:{port}"
        _wait_until_ready(process, address)
        yield address
        process.send_signal(signal.SIGTERM)
        if code := process.wait(SECONDS_TO_STOP):
            raise ChildProcessError(f"reid-serve ended with exit code {code}, expected 0")
    except subprocess.TimeoutExpired:
        raise ChildProcessError(f"reid-serve did not stop within {SECONDS_TO_STOP} s of SIGTERM") from None
    finally:
        process.kill()  # nothing where it has ended
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ChildProcessError(f"reid-serve ended with exit code {process.returncode} before it was ready")
        try:
            if httpx2.get(f"{address}/health/ready").is_success:
                return
        except httpx2.TransportError:  # it does not listen yet
            pass
        time.sleep(0.1)
    raise ChildProcessError(f"reid-serve was not ready within {SECONDS_TO_START} s")


def _ask(address: str, photo: Path) -> list[dict[str, Any]]:
    with photo.open("rb") as file:
        wanted = {"group_by": "identity", "top_k": SHOWN}
        answer = httpx2.post(f"{address}/query", files={"image": file}, data=wanted, timeout=60)
    if not answer.is_success:
        raise ChildProcessError(f"reid-serve answered {answer.status_code}: {answer.text}")
    matches: list[dict[str, Any]] = answer.json()["matches"]
    return matches


def _curl(photo: Path, address: str) -> list[str]:
    return ["curl", "-F", f"image=@{photo}", "-F", "group_by=identity", f"{address}/query"]


def _row(match: dict[str, Any]) -> str:
    return f"{match['label'] or 'no name':<16}{_percent(match['identity_probability']):>11}{match['score']:10.6f}"


def _percent(probability: float | None) -> str:
    return "-" if probability is None else f"{100 * probability:.0f} %"


def _command(arguments: argparse.Namespace) -> None:
    from reid.demo import demo, table, verdict  # here, since it brings torch, which takes seconds

    begun = time.monotonic()
    found = demo(arguments.output, arguments.device)
    dataset, checkpoint, gallery = found["dcal"].dataset, arguments.output / "dcal", arguments.output / "gallery"
    assert dataset is not None
    answer = search(dataset, checkpoint, gallery, arguments.device)
    print(f"\n{table(found)}\n{verdict(found)}\n\n{answer}\n")
    print(f"Done in {duration(time.monotonic() - begun)}. Runs: {arguments.output}")
    print("Next:")
    print(f"  {shlex.join(['reid-serve', '--checkpoint', str(checkpoint), '--gallery', str(gallery)])}")
    print(f"  {shlex.join(_curl(dataset.query[0].path, 'http://localhost:8000'))}")
    print("  reid-train --dataset csv --data-root PHOTOS.csv")


def main(argv: list[str] | None = None) -> int:
    """Run `reid-demo`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-demo",
        description="Generate the toy vehicles, train the baseline and DCAL on them, evaluate both, write a report, "
        "enrol the gallery and have the search service answer a query. Takes a few minutes on two cores; given again, "
        "it continues or shows what is there.",
    )
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("runs/demo"))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    return cli.run(_command, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
