"""Command `reid-enrol`: put the photos of folders, tables and datasets into a gallery."""

import argparse
import logging
import signal
import threading
from pathlib import Path

from reid import cli
from reid.inference.pretrained import Pretrained, add_runtime, chosen_model, require_model
from reid.inference.pretrained import add_arguments as add_model
from reid.names import counted
from service.bulk.choosing import add_arguments, chosen_sources, tell_left_out
from service.bulk.shards import FeatureFolder
from service.bulk.sources import Source
from service.fields import Filter
from service.records import Cameras
from service.settings import Backend, load
from service.settling import settle
from service.storage.folder import require_free

log = logging.getLogger("reid")


def _command(arguments: argparse.Namespace) -> int:
    sources: list[Source] = []
    backend = load(Backend, {"runtime": arguments.runtime})
    if backend.database is None:
        require_free(arguments.gallery)
    cameras = Cameras(arguments.timezone, named_by_device=arguments.camera_from == "device")
    model = chosen_model(arguments)
    if arguments.features:
        if model is not None or arguments.dataset:
            raise cli.UsageError("--features needs no model and no --dataset; it says itself what it is of")
        if arguments.detections:
            raise cli.UsageError("--detections is for reid-embed, where features are made; these are of their photos")
        features = FeatureFolder.open(arguments.features)
        roots = [path.absolute() for path in arguments.sources]
        if roots and len(roots) != len(features.manifest.roots):
            raise cli.UsageError(
                f"{len(roots)} SOURCE for features of {len(features.manifest.roots)}: where each lies now, or none"
            )
        from service.bulk.enrolling import enrol_features, told  # here, since torch comes with it

        settle()
        counts, size = enrol_features(
            arguments.gallery,
            features,
            [path.parent if path.is_file() else path for path in roots],
            update=arguments.update,
            cameras=cameras,
            again=arguments.again,
        )
    elif model is not None:
        require_model(model)
        sources = chosen_sources(arguments)
        if arguments.watch:
            return _watch(arguments, sources, cameras, model, backend)
        photos = [photo for source in sources for photo in source.photos()]
        from service.bulk.enrolling import enrol, told  # here, since these bring torch, which takes seconds
        from service.opening import open_gallery

        with open_gallery(arguments.gallery, model, arguments.device, backend) as gallery:
            counts = enrol(gallery, photos, update=arguments.update, cameras=cameras, again=arguments.again)
            size = gallery.store.count(Filter())
    else:
        raise cli.UsageError("give either --checkpoint RUN, or --backbone NAME, with what to enrol, or --features")
    print(f"{told(counts)}; {arguments.gallery} holds {counted(size, 'item')}")
    if counts["pending"]:
        waiting = counted(counts["pending"], "waits", "wait")
        print(f"{waiting} for the search index, which is away, to be found when it is back")
    if counts["other"] and arguments.update:
        print(f"{counted(counts['other'], 'that was there before is', 'that were there before are')} updated")
    elif counts["other"]:
        print(f"of {counts['other']} there before something else is said here; --update takes it over")
    if counts["zoneless"]:
        log.warning(
            "%s the time of a clock without its zone, taken for UTC; --timezone, as Africa/Johannesburg or +02:00, "
            "says where clocks were",
            counted(counts["zoneless"], "photo has", "photos have"),
        )
    tell_left_out(sources)
    return 1 if counts["failed"] else 0


def _watch(
    arguments: argparse.Namespace, sources: list[Source], cameras: Cameras, model: Path | Pretrained, backend: Backend
) -> int:
    from service.bulk.watching import require_folders, watch  # here, since torch comes with it
    from service.opening import open_gallery

    if not arguments.sources or arguments.update or arguments.again:
        raise cli.UsageError("--watch takes folders as SOURCE, and neither --update nor --again")
    require_folders(arguments.sources)
    stop = threading.Event()
    for sent in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sent, lambda *_: stop.set())
    with open_gallery(arguments.gallery, model, arguments.device, backend) as gallery:
        log.info("watching %s", ", ".join(map(str, arguments.sources)))
        watch(gallery, sources, stop, cameras=cameras)
        print(f"{arguments.gallery} holds {counted(gallery.store.count(Filter()), 'item')}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run `reid-enrol`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-enrol",
        description="Put photos into a gallery. Those that are there already are skipped, so that it can be given "
        "again; files that cannot be used are named and skipped, and then the exit code is 1.",
    )
    add_model(parser)
    parser.add_argument(
        "--features",
        metavar="FEATURES",
        type=Path,
        help="instead of a model, the folder of reid-embed with all it is of; SOURCE then says where that lies now, if "
        "not where it did",
    )
    parser.add_argument("--gallery", metavar="DIR", type=Path, required=True, help="made where it is not there")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add_runtime(parser)
    add_arguments(parser)
    parser.add_argument("--update", action="store_true", help="label, camera and so on also for photos that are there")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="go on until stopped: enrol what comes to be written in the folders SOURCE, once a file does not change",
    )
    parser.add_argument("--again", action="store_true", help="also photos that were deleted from the gallery before")
    return cli.run(_command, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
