"""Command `reid-serve`: answer queries about a gallery, and classify photos, over HTTP."""

import argparse
import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

import uvicorn
from fastapi import FastAPI

from reid import cli
from reid.evaluation.calibrate import load_calibration
from reid.inference.classifier import Classifier
from reid.retrieval.calibration import Calibration
from service import logs
from service.api.app import create_app, create_classifier_app
from service.classification import Classification
from service.gallery.gallery import Gallery
from service.gallery.index import ServerIndex
from service.opening import load_classifier, open_gallery
from service.records import EngineName, Filter, ModelMismatch
from service.settings import Settings, load
from service.storage.jobs import Jobs
from service.storage.keys import Keys
from service.upkeep.backup import backup_work
from service.upkeep.jobs import JobRunner
from service.upkeep.reconcile import reconcile_work
from service.upkeep.reindex import reindex_work

log = logging.getLogger("reid")

SECONDS_TO_STOP = 30  # for requests that are under way
OPTIONS = ("checkpoint", "gallery", "classifier", "host", "port", "device", "engine")
BACKUPS_FOLDER = "backups"
LARGE = 200_000  # items from which exact search on a CPU is felt


def serve(settings: Settings) -> None:
    """Serve a gallery, a classifier or both until SIGTERM or SIGINT, then finish the requests that are under way.

    Jobs that are under way then go on at the next start. Raises what loading models, opening a gallery and reading a
    calibration raise, OSError for an address that cannot be had, and ValueError where keys are required and there is
    none.
    """
    logs.configure(settings.log_format or ("text" if sys.stderr.isatty() else "json"))
    loaded = None if settings.classifier is None else load_classifier(settings.classifier, settings.device)
    if settings.checkpoint is None or settings.gallery is None:
        assert loaded is not None  # settings have one or the other
        with Classification(*loaded) as classification:
            _require_some_key(settings, None)
            with _listen(settings.host, settings.port) as listening:
                app = create_classifier_app(classification, settings)
                _announce(listening, None, classification, settings)
                _run(app, listening)
    else:
        _serve_gallery(settings, settings.checkpoint, settings.gallery, loaded)
    log.info("stopped")


def _serve_gallery(settings: Settings, checkpoint: Path, folder: Path, loaded: tuple[Classifier, str] | None) -> None:
    """Serve a gallery, and a classifier if one is loaded."""
    with ExitStack() as opened:
        gallery = opened.enter_context(open_gallery(folder, checkpoint, settings.device, settings))
        _require_some_key(settings, gallery)
        kinds = {
            "backup": backup_work(gallery.database, gallery.pictures, settings.backups or folder / BACKUPS_FOLDER),
            "reindex": reindex_work(gallery),
        }
        if isinstance(gallery.index, ServerIndex):
            kinds["reconcile"] = reconcile_work(gallery, gallery.index)
        calibration = _calibration(checkpoint, gallery)
        classification = loaded and opened.enter_context(Classification(*loaded, gallery))
        listening = opened.enter_context(_listen(settings.host, settings.port))
        runner = opened.enter_context(JobRunner(Jobs(gallery.database), kinds))
        app = create_app(gallery, runner, settings, calibration, classification)
        _announce(listening, gallery, classification, settings)
        _run(app, listening)


def _run(app: FastAPI, listening: socket.socket) -> None:
    """Answer requests until a signal comes."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=SECONDS_TO_STOP,
        lifespan="off",
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn stops at a signal and then raises it again, which would end the process before the gallery closes.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.run(sockets=[listening])


def _require_some_key(settings: Settings, gallery: Gallery | None) -> None:
    if not settings.keys_required or settings.admin_key is not None:
        return
    why = f"{settings.host} is not this machine alone, so that keys are required"
    if gallery is None:
        raise ValueError(f"{why}, and only a gallery can keep keys; set REID_ADMIN_KEY to serve a classifier alone")
    if all(key.revoked_at is not None for key in Keys(gallery.database).list()):
        raise ValueError(
            f"{why}, but the gallery has none; make one "
            f"with: reid-gallery keys add --gallery {settings.gallery} --scope admin NAME, or set REID_ADMIN_KEY"
        )


def _announce(
    listening: socket.socket, gallery: Gallery | None, classification: Classification | None, settings: Settings
) -> None:
    host, port, *_ = listening.getsockname()
    who = "with a key" if settings.keys_required else "from this machine, without a key"
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    served = []
    if gallery is not None:
        served.append(f"{gallery.store.count(Filter())} items of model {gallery.model_id}")
    if classification is not None:
        served.append(f"{len(classification.classes)} classes of classifier {classification.model_id}")
    log.info("%s on %s, %s", " and ".join(served), address, who)
    if gallery is None:
        return
    if gallery.trained_on == "toy":
        log.warning(
            "warning: this is the toy model: it was trained on drawn vehicles and knows nothing of photos; "
            "serve a model of your own with REID_CHECKPOINT or --checkpoint"
        )
    try:
        gallery.worker.require_model()
    except ModelMismatch as mismatch:
        log.warning("warning: %s: POST /v1/admin/reindex; until then queries are refused", mismatch)
    if gallery.index.items > LARGE and settings.engine == "memory" and gallery.embedder.device.type == "cpu":
        log.warning("warning: beyond %d items on a CPU, REID_ENGINE=faiss-ivf answers faster, nearly exactly", LARGE)


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
    for name in sorted(os.environ):
        if name.startswith("REID_") and name.removeprefix("REID_").lower() not in Settings.model_fields:
            near = get_close_matches(name, [f"REID_{field.upper()}" for field in Settings.model_fields])
            raise cli.UsageError(f"{name}: there is no such setting{f'; near: {near[0]}' if near else ''}")
    serve(load(Settings, {name: getattr(arguments, name) for name in OPTIONS}))


def main(argv: list[str] | None = None) -> int:
    """Run `reid-serve`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-serve",
        description="Answer queries about a gallery over HTTP, and serve a page for people at the same address; "
        "classify photos, beside that or alone. "
        "Every option can also be set by an environment variable: REID_CHECKPOINT, REID_GALLERY, and so on; some only "
        "there: REID_ADMIN_KEY, REID_ALLOWED_HOSTS, REID_BACKUPS, REID_DATABASE, REID_LOG_FORMAT, REID_MILVUS_URI, "
        "REID_REQUIRE_KEYS. Try: "
        "curl -F image=@photo.jpg http://127.0.0.1:8000/query",
    )
    parser.add_argument("--checkpoint", metavar="RUN", help="a run folder of reid-train, its model file or its export")
    parser.add_argument("--gallery", metavar="DIR", help="the folder of the gallery; made where it is not there")
    parser.add_argument(
        "--classifier", metavar="RUN", help="a run folder of fgvc-train, or its model.safetensors, for /v1/classify"
    )
    parser.add_argument("--host", help="127.0.0.1 by default; elsewhere a key is needed to ask")
    parser.add_argument("--port", help="8000 by default; 0 is any free port")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--engine",
        choices=get_args(EngineName),
        help="exact in memory (default); faster beyond 200,000 items on a CPU; on the server at REID_MILVUS_URI",
    )
    return cli.run(_command, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
