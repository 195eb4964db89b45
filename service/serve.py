"""Command `reid-serve`: answer queries about a gallery over HTTP."""

import argparse
import logging
import os
import signal
import socket
from pathlib import Path

import uvicorn
from pydantic import ValidationError

from reid import cli
from reid.calibrate import load_calibration
from reid.retrieval.calibration import Calibration
from service.app import create_app
from service.gallery import Gallery, open_gallery
from service.settings import Settings

log = logging.getLogger("reid")

SECONDS_TO_STOP = 30  # for requests that are under way


def serve(settings: Settings) -> None:
    """Serve a gallery until SIGTERM or SIGINT, then finish the requests that are under way.

    Raises what opening a gallery and reading a calibration raise, and OSError for an address that cannot be had.
    """
    with open_gallery(settings.gallery, settings.checkpoint, settings.device) as gallery:
        app = create_app(gallery, settings, _calibration(settings.checkpoint, gallery))
        with _listen(settings.host, settings.port) as listening:
            host, port, *_ = listening.getsockname()
            log.info(
                "%d items of model %s on http://%s:%d, which this machine alone can reach",
                gallery.size(),
                gallery.model_id,
                f"[{host}]" if ":" in host else host,
                port,
            )
            server = uvicorn.Server(
                uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=SECONDS_TO_STOP, lifespan="off")
            )

            def stop(*_: object) -> None:
                server.should_exit = True

            # uvicorn stops at a signal and then raises it again, which would end the process before the gallery closes.
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)
            server.run(sockets=[listening])
    log.info("stopped")


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}") from error


def _calibration(checkpoint: Path, gallery: Gallery) -> Calibration | None:
    """The calibration beside the checkpoint, if it was made for the embeddings of the gallery."""
    kept = load_calibration(checkpoint)
    if kept is None:
        return None
    for name in ("features", "flip_test"):
        served = getattr(gallery.embedder, name)
        if kept.protocol.get(name) != served:
            log.warning(
                "warning: no probabilities: the calibration was made with %s %s, the gallery with %s",
                name,
                kept.protocol.get(name),
                served,
            )
            return None
    return kept.calibration


def _command(arguments: argparse.Namespace) -> None:
    names = ("checkpoint", "gallery", "host", "port", "device")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise cli.UsageError("; ".join(_complaint(str(one["loc"][0]), one["msg"]) for one in error.errors())) from None
    serve(settings)


def _complaint(name: str, message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{name} (--{name.replace('_', '-')} or REID_{name.upper()}): {message[0].lower()}{message[1:]}"


def main(argv: list[str] | None = None) -> int:
    """Run `reid-serve`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-serve",
        description="Answer queries about a gallery over HTTP, to this machine alone. Every option can also be set by "
        "an environment variable: REID_CHECKPOINT, REID_GALLERY, and so on. Try: "
        "curl -F image=@photo.jpg http://127.0.0.1:8000/query",
    )
    parser.add_argument("--checkpoint", metavar="RUN", help="a run folder of reid-train, or its model.safetensors")
    parser.add_argument("--gallery", metavar="DIR", help="the folder of the gallery; made where it is not there")
    parser.add_argument("--host", help="127.0.0.1 (default), ::1 or localhost")
    parser.add_argument("--port", help="8000 by default; 0 is any free port")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    return cli.run(_command, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
