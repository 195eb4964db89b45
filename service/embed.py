"""Command `reid-embed`: features of many photos, by any number of processes and machines, for galleries to import."""

import argparse
import logging
import time
from pathlib import Path

from reid import cli
from reid.inference.pretrained import add_arguments as add_model
from reid.inference.pretrained import add_runtime, chosen_model, require_model
from reid.names import counted
from reid.progress import duration
from service.bulk.choosing import add_arguments, chosen_sources, tell_left_out
from service.bulk.shards import SHARD_SIZE
from service.settings import Backend, load

log = logging.getLogger("reid")


def _command(arguments: argparse.Namespace) -> None:
    if arguments.shard_size < 1:
        raise cli.UsageError(f"--shard-size {arguments.shard_size}: expected 1 or more")
    if arguments.camera_from == "device":
        raise cli.UsageError("--camera-from device is for reid-enrol, which takes these features, too")
    model = chosen_model(arguments)
    if model is None:
        raise cli.UsageError("give --checkpoint RUN, or --backbone NAME with --weights")
    sources = chosen_sources(arguments)
    require_model(model)
    from service.bulk.embedding import Share, embed_sources  # here, since it brings torch, which takes seconds

    share = Share.from_environment()
    began = time.monotonic()
    embedded, failures = embed_sources(
        model,
        sources,
        arguments.output,
        share,
        device=arguments.device,
        runtime=load(Backend, {"runtime": arguments.runtime}).runtime,
        shard_size=arguments.shard_size,
        retry=arguments.retry,
    )
    for failure in failures:
        log.warning("%s", failure)
    print(
        f"{share}{counted(embedded, 'photo has', 'photos have')} features in {arguments.output}, "
        f"{len(failures):,} cannot be used; {duration(time.monotonic() - began)}",
        flush=True,
    )
    tell_left_out(sources)


def main(argv: list[str] | None = None) -> int:
    """Run `reid-embed`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-embed",
        description="Embed photos into a folder of features, which reid-enrol --features puts into a gallery. Under "
        "torchrun, on one or many machines that see the same folders, processes share the work. Given again after an "
        "interruption, with any number of processes, it goes on where it was, with the photos as they were listed at "
        "first. Photos that cannot be used are named at the end.",
    )
    add_model(parser)
    parser.add_argument("--output", metavar="FEATURES", type=Path, required=True, help="made where it is not there")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add_runtime(parser)
    add_arguments(parser)
    parser.add_argument(
        "--shard-size",
        metavar="N",
        type=int,
        default=SHARD_SIZE,
        help=f"photos of a file, which is what a kill can cost a process (default: {SHARD_SIZE}); for a new FEATURES",
    )
    parser.add_argument("--retry", action="store_true", help="embed again where photos could not be used")
    return cli.run(_command, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
