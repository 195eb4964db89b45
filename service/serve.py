"""Command `reid-serve`: answer queries about a gallery, and classify photos, over HTTP."""

import argparse
import os
import sys
from difflib import get_close_matches
from typing import get_args

from reid import cli
from reid.inference.pretrained import Pretrained, add_arguments, add_runtime, require_model
from service.records import EngineName
from service.settings import Settings, load
from service.storage.folder import require_free

OPTIONS = (
    "checkpoint",
    *Pretrained.model_fields,
    "gallery",
    "classifier",
    "host",
    "port",
    "device",
    "runtime",
    "engine",
    "watch",
)


def _command(arguments: argparse.Namespace) -> None:
    for name in sorted(os.environ):
        if name.startswith("REID_") and name.removeprefix("REID_").lower() not in Settings.model_fields:
            near = get_close_matches(name, [f"REID_{field.upper()}" for field in Settings.model_fields])
            raise cli.UsageError(f"{name}: there is no such setting{f'; near: {near[0]}' if near else ''}")
    settings = load(Settings, {name: getattr(arguments, name) for name in OPTIONS})
    for model in (settings.model, settings.classifier):
        if model is not None:
            require_model(model)
    if settings.gallery is not None and settings.database is None:
        require_free(settings.gallery)
    from service.serving import serve  # here, since it takes a while, and torch comes with it

    serve(settings)


def main(argv: list[str] | None = None) -> int:
    """Run `reid-serve`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-serve",
        description="Answer queries about a gallery over HTTP, and serve a page for people at the same address; "
        "classify photos, beside that or alone. "
        "Every option can also be set by an environment variable: REID_CHECKPOINT, REID_GALLERY, and so on; some only "
        "there: REID_ADMIN_KEY, REID_ALLOWED_HOSTS, REID_BACKUPS, REID_CORS_ORIGINS, REID_DATABASE, REID_KEEP_DAYS, "
        "REID_LOG_FORMAT, REID_MAX_CONNECTIONS, REID_MILVUS_URI, REID_PUBLIC_URL, REID_REQUIRE_KEYS, REID_ROOT_PATH, "
        "REID_TRUSTED_PROXIES. Try: "
        "curl -F image=@photo.jpg http://127.0.0.1:8000/query",
    )
    add_arguments(parser)
    parser.add_argument("--gallery", metavar="DIR", help="the folder of the gallery; made where it is not there")
    parser.add_argument(
        "--classifier", metavar="RUN", help="a run folder of fgvc-train, or its model.safetensors, for /v1/classify"
    )
    parser.add_argument("--watch", metavar="DIR", help="a folder: photos that come to be written there are enrolled")
    parser.add_argument("--host", help="127.0.0.1 by default; elsewhere a key is needed to ask")
    parser.add_argument("--port", help="8000 by default; 0 is any free port")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    add_runtime(parser)
    parser.add_argument(
        "--engine",
        choices=get_args(EngineName),
        help="exact in memory (default); faster beyond 200,000 items on a CPU; on the server at REID_MILVUS_URI",
    )
    code = cli.run(_command, parser, argv)
    if argv is None:  # the process is this command: taking the libraries down bit by bit took 12 s on a busy machine
        sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
