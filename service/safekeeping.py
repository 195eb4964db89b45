"""What `reid-gallery` does so that a gallery stays whole, and what shall not be kept is not: check, sweep and erase."""

import argparse
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reid.names import counted
from reid.progress import Progress
from service.records import Cause
from service.settings import BACKUPS_FOLDER, Backend, load
from service.storage.folder import require_gallery

if TYPE_CHECKING:
    from service.storage.database import Database

# What brings torch or the database's library is imported where it is used, as in `manage`.

OpenDatabase = Callable[[Path], "AbstractContextManager[Database]"]


def add_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    gallery: argparse.ArgumentParser,
    open_database: OpenDatabase,
) -> None:
    """Add `check`, `sweep` and `erase`; `open_database` opens that of a gallery."""
    _add_check(commands, gallery)
    _add_sweep(commands, gallery, open_database)
    _add_erase(commands, gallery, open_database)


def _add_check(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    check = commands.add_parser(
        "check",
        parents=[gallery],
        help="see that the database, its vectors and all pictures are whole",
        description="Read all that a gallery keeps, also while a service has it open, and name the items whose "
        "pictures or vectors are lost or damaged. Nothing is changed. Exit code 1 if anything is.",
    )
    check.add_argument("--json", action="store_true", help="print what was found as JSON")
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    url = load(Backend).database_url
    if url is None:
        require_gallery(arguments.gallery)
    from service.gallery.pictures import PICTURES_FOLDER, Pictures
    from service.storage.database import Database
    from service.upkeep.check import check, told

    with Database(arguments.gallery, url, read_only=True) as database:
        progress = Progress("checking")
        try:
            found = check(database, Pictures(arguments.gallery / PICTURES_FOLDER), progress)
        finally:
            progress.close()
    wrong = told(found)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(
            f"{arguments.gallery}: {counted(found['photos'], 'picture')} and {counted(found['vectors'], 'vector')} read"
        )
        print("\n".join(wrong or ["all are whole"]))
    return int(bool(wrong))


def _add_sweep(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    gallery: argparse.ArgumentParser,
    open_database: OpenDatabase,
) -> None:
    sweep = commands.add_parser(
        "sweep",
        parents=[gallery],
        help="remove pictures that belong to no item",
        description="Remove for good the pictures that a start found without an item, and set aside in "
        "pictures/orphans: those of a newer state, where an older database was put back, among them. Those whose items "
        "are there again go back to them.",
    )
    sweep.set_defaults(run=partial(_sweep, open_database))


def _sweep(open_database: OpenDatabase, arguments: argparse.Namespace) -> None:
    from service.gallery.pictures import PICTURES_FOLDER, PICTURES_LOCK, Pictures
    from service.storage.store import Store

    with open_database(arguments.gallery) as database, database.exclusive(PICTURES_LOCK):
        known = Store(database).contents()
        removed, size = Pictures(arguments.gallery / PICTURES_FOLDER).remove_orphans(known)
    print(f"{arguments.gallery}: {counted(removed, 'picture')} removed, {counted(size, 'byte')}")


def _add_erase(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    gallery: argparse.ArgumentParser,
    open_database: OpenDatabase,
) -> None:
    erase = commands.add_parser(
        "erase",
        parents=[gallery],
        help="take every trace of items out of a gallery and its backups",
        description="Delete items, and take all that is said of them out of the logs, replies and backups, so that "
        "no byte of it is left in their files. Items that were deleted before can be named, too. Prints a receipt as "
        "JSON: what was removed where, and what could not be reached.",
    )
    erase.add_argument("items", metavar="ITEM_ID", nargs="+", help="the public id of an item")
    erase.set_defaults(run=partial(_erase, open_database))


def _erase(open_database: OpenDatabase, arguments: argparse.Namespace) -> None:
    with open_database(arguments.gallery) as database:
        from service.gallery.holdings import Holdings
        from service.upkeep.erase import erase

        backups = load(Backend).backups or arguments.gallery / BACKUPS_FOLDER
        receipt = erase(database, Holdings(database), arguments.items, backups, Cause("reid-gallery"))
    print(json.dumps(receipt, indent=2))
