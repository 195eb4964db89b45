"""Command `reid-gallery`: look after a gallery."""

import argparse
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from reid import cli
from reid.inference.pretrained import add_arguments as add_model
from reid.inference.pretrained import chosen_model, require_model
from reid.names import counted
from reid.progress import Progress
from service import naming, safekeeping
from service.bulk.choosing import add_arguments, chosen_sources, tell_left_out
from service.fields import Filter
from service.records import Cameras, Cause, Key, NewKey, NotFound, Scope
from service.settings import Backend, load
from service.storage.folder import require_free, require_gallery

if TYPE_CHECKING:
    from service.storage.database import Database

# What brings torch or the database's library is imported where it is used: either takes its time, and `--help`, wrong
# arguments, and a gallery that is not there or that another process has shall be told at once.

log = logging.getLogger("reid")

CAUSE = Cause("reid-gallery")


@contextmanager
def open_database(folder: Path, *, new: bool = False, beside: bool = False) -> "Iterator[Database]":
    """Open the database of a gallery, which no service has open unless it is a shared one; `new` makes one.

    `beside` opens it also where a service has it, for a change of keys or to read.

    It is in the folder, or where REID_DATABASE says. Raises FileNotFoundError where there is none, and what opening a
    `Database` raises.
    """
    url = load(Backend).database_url
    if url is None and not new:
        require_gallery(folder)
    with _opened(folder, url, beside=beside) as database:
        yield database


@contextmanager
def _opened(folder: Path, url: str | None, *, beside: bool = False) -> "Iterator[Database]":
    """Open a database; `beside` goes on where a service has it."""
    try:
        held = False
        if url is None:
            try:
                require_free(folder)
            except OSError as error:
                if not (beside and isinstance(error.__cause__, BlockingIOError)):
                    raise
                held = True
        from service.storage.database import Database

        database = Database(folder, url, beside=held)
    except OSError as error:
        if isinstance(error.__cause__, BlockingIOError):
            raise OSError(f"{error}; if that is the service, use its API instead") from error
        raise
    with database:
        yield database


def _add_keys(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    keys = commands.add_parser("keys", help="make, list and revoke the keys of a gallery, also while its service runs")
    actions = keys.add_subparsers(metavar="COMMAND", required=True)

    adder = actions.add_parser(
        "add",
        parents=[gallery],
        help="make a key",
        description="Make a key, and print its secret, which is shown this once. A gallery that is not there is made.",
    )
    adder.add_argument("name", metavar="NAME", help="whose key it is")
    adder.add_argument(
        "--scope",
        dest="scopes",
        action="append",
        choices=get_args(Scope),
        help="what it allows, read by default; write includes read, and admin includes both",
    )
    adder.add_argument(
        "--camera",
        dest="cameras",
        metavar="NAME",
        action="append",
        help="limit it to the items of this camera; can be given more than once",
    )
    adder.add_argument("--requests-per-minute", metavar="N", type=int, help="no limit by default")
    adder.set_defaults(run=_keys_add)

    lister = actions.add_parser("list", parents=[gallery], help="list all keys that were ever made")
    lister.set_defaults(run=_keys_list)

    revoker = actions.add_parser("revoke", parents=[gallery], help="make a key worthless for good")
    revoker.add_argument("key_id", metavar="KEY_ID", help="as `add` and `list` show it")
    revoker.set_defaults(run=_keys_revoke)


def _keys_add(arguments: argparse.Namespace) -> None:
    cameras = None if arguments.cameras is None else frozenset(arguments.cameras)
    scopes = frozenset(arguments.scopes or ["read"])
    try:
        new = NewKey(arguments.name, scopes, cameras, arguments.requests_per_minute)
    except ValueError as error:
        raise cli.UsageError(str(error)) from error
    with open_database(arguments.gallery, new=True, beside=True) as database:
        from service.storage.keys import Keys

        key, secret = Keys(database).add(new, CAUSE)
    log.info("%s", _line(key))
    print(secret)  # alone on stdout, for scripts


def _keys_list(arguments: argparse.Namespace) -> None:
    with open_database(arguments.gallery, beside=True) as database:
        from service.storage.keys import Keys

        for key in Keys(database).list():
            print(_line(key))


def _keys_revoke(arguments: argparse.Namespace) -> None:
    with open_database(arguments.gallery, beside=True) as database:
        from service.storage.keys import Keys

        try:
            Keys(database).revoke(arguments.key_id, CAUSE)
        except NotFound as error:
            raise ValueError(f"{arguments.gallery}: {error}") from error


def _line(key: Key) -> str:
    cameras = "all cameras" if key.cameras is None else f"cameras {json.dumps(sorted(key.cameras))}"
    rate = "no limit" if key.requests_per_minute is None else f"{key.requests_per_minute} requests a minute"
    made = f"made {key.created_at:%Y-%m-%d %H:%M}Z"
    revoked = "" if key.revoked_at is None else f", revoked {key.revoked_at:%Y-%m-%d %H:%M}Z"
    return f"{key.key_id}  {key.name}: {'+'.join(sorted(key.scopes))}, {cameras}, {rate}, {made}{revoked}"


def _add_backup(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    backup = commands.add_parser(
        "backup",
        parents=[gallery],
        help="write a gallery to a folder that can be served in its place",
        description="Write a gallery to a new folder that can be served in its place. On the same disk, pictures are "
        "links to the same files, so keep a backup on another disk, too.",
    )
    backup.add_argument("target", metavar="TARGET", type=Path, help="a folder that is not there yet")
    backup.set_defaults(run=_backup)


def _backup(arguments: argparse.Namespace) -> None:
    with open_database(arguments.gallery) as database:
        from service.gallery.pictures import PICTURES_FOLDER, Pictures
        from service.upkeep.backup import back_up

        progress = Progress("backing up")
        try:
            result = back_up(database, Pictures(arguments.gallery / PICTURES_FOLDER), arguments.target, progress)
        finally:
            progress.close()
    print(f"{arguments.target}: {counted(result['items'], 'item')}, {counted(result['bytes'], 'byte')}")
    if missing := result["missing"]:
        print(f"{counted(len(missing), 'item')} without picture, which is lost or damaged: {', '.join(missing)}")


def _add_restore(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    restore = commands.add_parser(
        "restore",
        parents=[gallery],
        help="write a backup to a new gallery, or move a gallery from its file to PostgreSQL",
        description="Write a backup, or a gallery in a file that no service has open, to a new gallery: to the folder "
        "DIR, with its tables in a file there, or where REID_DATABASE says. The source keeps all that it holds; one of "
        "an earlier version is brought up to this one first. Given again after an interruption, it goes on.",
    )
    restore.add_argument("source", metavar="SOURCE", type=Path, help="the folder of a backup or a gallery")
    restore.set_defaults(run=_restore)


def _restore(arguments: argparse.Namespace) -> None:
    require_gallery(arguments.source)
    if arguments.source.resolve() == arguments.gallery.resolve():
        raise cli.UsageError(f"{arguments.source} is both the source and --gallery; expected a new folder")
    with _opened(arguments.source, None) as source, open_database(arguments.gallery, new=True) as target:
        from service.upkeep.backup import restore

        progress = Progress("restoring")
        try:
            items = restore(source, target, progress)
        finally:
            progress.close()
    print(f"{arguments.gallery}: {counted(items, 'item')}")


def _add_reindex(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    reindex = commands.add_parser(
        "reindex",
        parents=[gallery],
        help="give a gallery to another model",
        description="Embed the photos of a gallery by another model, and give the gallery to it. Given again after an "
        "interruption, it goes on where it was.",
    )
    add_model(reindex)
    reindex.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    reindex.set_defaults(run=_reindex)


def _reindex(arguments: argparse.Namespace) -> None:
    model = chosen_model(arguments)
    if model is None:
        raise cli.UsageError("give --checkpoint RUN, or --backbone NAME with --weights")
    with open_database(arguments.gallery):
        pass  # it is there, and no service has it: told before the model is loaded
    require_model(model)
    from service.opening import open_gallery
    from service.upkeep.reindex import reindex

    with open_gallery(arguments.gallery, model, arguments.device, load(Backend)) as gallery:
        progress = Progress("re-indexing")
        try:
            result = reindex(gallery, progress, CAUSE)
        finally:
            progress.close()
    print(f"{arguments.gallery}: {counted(result['items'], 'item')} of model {result['model_id']}")
    if left_out := result["left_out"]:
        print(f"{len(left_out):,} of them left out, whose pictures cannot be read: {', '.join(left_out)}")


def _add_reconcile(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    reconcile = commands.add_parser(
        "reconcile",
        parents=[gallery],
        help="compare the index on a Milvus server with the gallery, and mend it",
        description="Compare the rows on the Milvus server at REID_MILVUS_URI with the gallery, one by one, and mend "
        "those that differ. A gallery that was never there is brought there.",
    )
    reconcile.add_argument("--check", action="store_true", help="change nothing; exit code 1 if anything differs")
    reconcile.add_argument("--json", action="store_true", help="print the counts as JSON")
    reconcile.set_defaults(run=_reconcile)


def _reconcile(arguments: argparse.Namespace) -> int:
    backend = load(Backend)
    if backend.engine != "milvus":
        raise cli.UsageError(
            f"REID_ENGINE is {backend.engine!r}, whose index is in memory and made at every start; expected milvus"
        )
    with open_database(arguments.gallery) as database:
        from service.opening import server_index
        from service.storage.models import Models
        from service.upkeep.reconcile import reconcile

        if (active := Models(database).active) is None:
            raise ValueError(f"{arguments.gallery}: has no model yet, so that there is nothing to compare")
        index = server_index(database, active.model_id, active.dimension, backend)
        progress = Progress("comparing")
        try:
            found = reconcile(index, progress, mend=not arguments.check)
        finally:
            progress.close()
    if arguments.json:
        print(json.dumps(found._asdict()))
    else:
        done = "found" if arguments.check else "mended"
        print(
            f"{counted(found.rows, 'row')}; {done}: "
            f"{found.missing:,} missing, {found.ghosts:,} left over, {found.wrong:,} wrong"
        )
    return int(arguments.check and any(found[1:]))


def _add_refresh(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    refresh = commands.add_parser(
        "refresh",
        parents=[gallery],
        help="fill in when, where and by which device photos were taken that were enrolled before",
        description="Fill in the time, place and device that cameras wrote into photos, for items that lack them: from "
        "the files, which are matched by their content, as the copies in a gallery have none of it. Never over what "
        "people said. Times that were taken for UTC are taken anew with --timezone.",
    )
    add_arguments(refresh)
    refresh.add_argument("--dry-run", action="store_true", help="tell what would be filled in, and change nothing")
    refresh.set_defaults(run=_refresh)


def _refresh(arguments: argparse.Namespace) -> int:
    chosen = chosen_sources(arguments)
    with open_database(arguments.gallery) as database:
        from service.bulk.refreshing import refresh
        from service.storage.store import Store

        counts = refresh(
            Store(database),
            [photo for source in chosen for photo in source.photos()],
            CAUSE,
            Cameras(arguments.timezone, named_by_device=arguments.camera_from == "device"),
            cameras_by_folder=arguments.camera_from == "folder",
            dry_run=arguments.dry_run,
        )
    parts = ", ".join(f"{counts[name]:,} {name}" for name in ("times", "places", "devices", "cameras") if counts[name])
    print(
        f"{counted(counts['filled'], 'item')} {'would be ' if arguments.dry_run else ''}filled in"
        f"{f' ({parts})' if parts else ''}, {counts['nothing']:,} as they were; "
        f"{counted(counts['elsewhere'], 'photo')} not in the gallery, {counts['failed']:,} cannot be read"
    )
    tell_left_out(chosen)
    return int(counts["failed"] > 0)


def _add_export(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    export = commands.add_parser(
        "export",
        parents=[gallery],
        help="write a gallery as tables and features that other programs read",
        description="Write a gallery to a new folder: a row of items.csv for each item, identities and decisions as "
        "tables where there are any, and the features as files of safetensors, in the order of the items. With its "
        "pictures the table also trains: reid-train --dataset csv.",
    )
    export.add_argument("target", metavar="TARGET", type=Path, help="a folder that is not there yet")
    export.add_argument("--pictures", action="store_true", help="the pictures, too")
    export.set_defaults(run=_export)
    taker = commands.add_parser(
        "import",
        parents=[gallery],
        help="bring an export into a new gallery",
        description="Bring what `export` wrote into a new gallery, with the same items, identities and decisions.",
    )
    taker.add_argument("source", metavar="SOURCE", type=Path, help="the folder of an export")
    taker.set_defaults(run=_import)


def _export(arguments: argparse.Namespace) -> None:
    with open_database(arguments.gallery) as database:
        from service.gallery.pictures import PICTURES_FOLDER, Pictures
        from service.upkeep.export import export

        pictures = Pictures(arguments.gallery / PICTURES_FOLDER) if arguments.pictures else None
        progress = Progress("exporting")
        try:
            items = export(database, arguments.target, progress, pictures)
        finally:
            progress.close()
    print(f"{arguments.target}: {counted(items, 'item')}")


def _import(arguments: argparse.Namespace) -> None:
    if not arguments.source.is_dir():
        raise FileNotFoundError(f"{arguments.source}: no such folder")
    with open_database(arguments.gallery, new=True) as database:
        from service.upkeep.export import take_in

        progress = Progress("importing")
        try:
            items, pictures = take_in(arguments.source, database, progress, CAUSE)
        finally:
            progress.close()
    print(f"{arguments.gallery}: {counted(items, 'item')}, {counted(pictures, 'picture')}")


def _add_info(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    info = commands.add_parser("info", parents=[gallery], help="tell what a gallery holds, also while its service runs")
    info.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> None:
    if (url := load(Backend).database_url) is None:
        require_gallery(arguments.gallery)
    from service.storage.database import Database

    with Database(arguments.gallery, url, read_only=url is None) as database:
        from service.storage.models import Models
        from service.storage.store import Store

        store, active = Store(database), Models(database).active
        counts = store.count(Filter()), len(store.cameras(Filter())), len(store.labels(Filter()))
        told = map(counted, counts, ("item", "camera", "label"))
        print("{} of {} and {}".format(*told))
        if active is None:
            print("no model yet")
        else:
            print(f"model {active.model_id}: embedding size {active.dimension}, {json.dumps(active.description)}")


def main(argv: list[str] | None = None) -> int:
    """Run `reid-gallery`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="reid-gallery",
        description="Look after a gallery: its keys and what it holds at any time, and all else while no service has "
        "it open; a running one does that by its API.",
    )
    gallery = argparse.ArgumentParser(add_help=False)
    gallery.add_argument("--gallery", metavar="DIR", type=Path, required=True, help="the folder of the gallery")
    # The main parser has --debug too: a value absent here must not overwrite one given before the command.
    gallery.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    adders = (_add_info, _add_keys, _add_backup, _add_restore, _add_reindex, _add_reconcile, _add_refresh, _add_export)
    for add in adders:
        add(commands, gallery)
    naming.add_commands(commands, gallery, open_database)
    safekeeping.add_commands(commands, gallery, open_database)
    return cli.run(lambda arguments: arguments.run(arguments), parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
