"""Command `reid-enrol`: put the photos of folders, tables and datasets into a gallery."""

import argparse
import logging
from pathlib import Path

from reid import cli
from reid.files import model_file
from service.bulk.shards import FeatureFolder
from service.bulk.sources import Source, add_arguments, chosen_sources, tell_left_out
from service.fields import Filter
from service.records import Cameras
from service.settings import Backend, load
from service.storage.folder import require_free

log = logging.getLogger("reid")


def _command(arguments: argparse.Namespace) -> int:
    sources: list[Source] = []
    backend = load(Backend)
    if backend.database is None:
        require_free(arguments.gallery)
    cameras = Cameras(arguments.timezone, named_by_device=arguments.camera_from == "device")
    if arguments.features:
        if arguments.checkpoint or arguments.dataset:
            raise cli.UsageError("--features needs no --checkpoint and no --dataset; it says itself what it is of")
        features = FeatureFolder.open(arguments.features)
        roots = [path.absolute() for path in arguments.sources]
        if roots and len(roots) != len(features.manifest.roots):
            raise cli.UsageError(
                f"{len(roots)} SOURCE for features of {len(features.manifest.roots)}: where each lies now, or none"
            )
        from service.bulk.enrolling import enrol_features, told  # here, since torch comes with it

        counts, size = enrol_features(
            arguments.gallery,
            features,
            [path.parent if path.is_file() else path for path in roots],
            update=arguments.update,
            cameras=cameras,
        )
    elif arguments.checkpoint:
        model_file(arguments.checkpoint)
        sources = chosen_sources(arguments)
        photos = [photo for source in sources for photo in source.photos()]
        from service.bulk.enrolling import enrol, told  # here, since these bring torch, which takes seconds
        from service.opening import open_gallery

        with open_gallery(arguments.gallery, arguments.checkpoint, arguments.device, backend) as gallery:
            counts = enrol(gallery, photos, update=arguments.update, cameras=cameras)
            size = gallery.store.count(Filter())
    else:
        raise cli.UsageError("give either --checkpoint RUN with what to enrol, or --features FEATURES")
    print(f"{told(counts)}; {arguments.gallery} holds {size} items")
    if counts["pending"]:
        print(f"{counts['pending']} wait for the search index, which is away, and will be found when it is back")
    if counts["other"] and arguments.update:
        print(f"{counts['other']} that were there before are updated")
    elif counts["other"]:
        print(f"of {counts['other']} there before something else is said here; --update takes it over")
    if counts["zoneless"]:
        log.warning(
            "%d photos have the time of a clock without its zone, taken for UTC; --timezone, as Africa/Johannesburg or "
            "+02:00, says where clocks were",
            counts["zoneless"],
        )
    tell_left_out(sources)
    return 1 if counts["failed"] else 0


def main(argv: list[str] | None = None) -> int:
    """Run `reid-enrol`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-enrol",
        description="Put photos into a gallery. Those that are there already are skipped, so that it can be given "
        "again; files that cannot be used are named and skipped, and then the exit code is 1.",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="RUN",
        type=Path,
        help="a run folder, its model file, or its export",
    )
    parser.add_argument(
        "--features",
        metavar="FEATURES",
        type=Path,
        help="instead of a model, the folder of reid-embed with all it is of; SOURCE then says where that lies now, if "
        "not where it did",
    )
    parser.add_argument("--gallery", metavar="DIR", type=Path, required=True, help="made where it is not there")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add_arguments(parser)
    parser.add_argument("--update", action="store_true", help="label, camera and so on also for photos that are there")
    return cli.run(_command, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
