"""The commands of `reid-gallery` that tell who is who, and take the catalogue home."""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reid import cli
from reid.names import counted
from reid.progress import Progress
from service.records import Cause

if TYPE_CHECKING:
    from service.storage.database import Database

# As in `manage`, what takes its time to import is imported where it is used.

CAUSE = Cause("reid-gallery")
FORMATS = ("table", "wildbook", "camtrap-dp", "secr", "marked")


def add_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    gallery: argparse.ArgumentParser,
    open_database: "Callable[..., AbstractContextManager[Database]]",
) -> None:
    """Add `suggest`, `catalogue` and `name`; `open_database` opens that of a gallery."""
    gallery.set_defaults(open_database=open_database)
    _add_suggest(commands, gallery)
    _add_catalogue(commands, gallery)
    _add_name(commands, gallery)


def _add_suggest(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    suggest = commands.add_parser(
        "suggest",
        parents=[gallery],
        help="find likely groups of photos of one individual",
        description="Find which photos are likely to show one individual: what is certain is joined, and the rest is "
        "asked about by the service that opens the gallery next. Given again, it goes on from all that was decided.",
    )
    suggest.add_argument(
        "--error", metavar="SHARE", type=float, default=0.01, help="of the machine's joins that may be wrong (0.01)"
    )
    suggest.add_argument("--neighbours", metavar="K", type=int, default=20, help="candidates of each item (20)")
    suggest.add_argument(
        "--gold", metavar="SHARE", type=float, default=0.02, help="of the questions whose answer is known (0.02)"
    )
    suggest.add_argument(
        "--speed", metavar="KM/H", type=float, default=100.0, help="beyond which nobody moves; 0 to leave out (100)"
    )
    suggest.add_argument(
        "--burst", metavar="SECONDS", type=float, default=0.0, help="within which a camera's photos show one (never)"
    )
    for name, words in (
        ("photos", "boxes of one photo that hardly overlap may be one"),
        ("tracks", "a track may be several"),
        ("sides", "left and right flanks can be compared"),
        ("names", "individuals of different names may be one"),
    ):
        suggest.add_argument(f"--no-{name}", dest=name, action="store_false", help=words)
    suggest.add_argument(
        "--only", metavar="FIELD=VALUE", action="append", default=[], help="as cameras=gate; may be given again"
    )
    suggest.add_argument("--json", action="store_true", help="print where the review stands as JSON")
    suggest.set_defaults(run=_suggest)


def _suggest(arguments: argparse.Namespace) -> None:
    told = {name: getattr(arguments, name) for name in ("error", "neighbours", "gold", "speed", "burst")}
    rules = {name: getattr(arguments, name) for name in ("photos", "tracks", "sides", "names")}
    with arguments.open_database(arguments.gallery) as database:
        from service.review.reviews import suggest
        from service.review.scope import Plan, read_conditions

        try:
            plan = Plan(**told, **rules, chosen=read_conditions(arguments.only))
        except ValueError as error:
            raise cli.UsageError(str(error)) from error
        progress = Progress("suggesting")
        try:
            found = suggest(database, plan, progress, CAUSE)
        finally:
            progress.close()
    if arguments.json:
        print(json.dumps(found))
        return
    print(
        f"{counted(found['groups'], 'group')}; about {found['identities']:.0f} individuals ({found['low']:,} to "
        f"{found['high']:,}); {found['settled']:.0%} of the items settled; about {found['questions_left']:,} questions "
        f"left: {found['words']}"
    )


def _add_catalogue(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    catalogue = commands.add_parser(
        "catalogue",
        parents=[gallery],
        help="write who is who as a table, for Wildbook, as Camtrap DP, or as capture histories",
        description="Write which individual each photo shows, also while the service runs. `table` also tells who "
        "decided it and how sure it is; `table` and `wildbook` can be read again by `reid-gallery name`. `camtrap-dp` "
        "is a folder with a data package, `secr` one with captures and traps, `marked` a table of capture histories.",
    )
    catalogue.add_argument("--as", dest="kind", choices=FORMATS, default="table")
    catalogue.add_argument(
        "--output", metavar="PATH", type=Path, required=True, help="the file or, of camtrap-dp and secr, the folder"
    )
    catalogue.add_argument("--species", metavar="NAME", help="genus and epithet, of wildbook and camtrap-dp")
    catalogue.add_argument(
        "--deployments",
        metavar="FILE",
        type=Path,
        help="a table with camera, latitude, longitude, start and end; of camtrap-dp, secr and marked",
    )
    catalogue.add_argument(
        "--occasion",
        metavar="LENGTH",
        default="7d",
        help="of a capture history, as 7d or 12h (7d), or a table with the start and end of each",
    )
    catalogue.add_argument(
        "--only", metavar="FIELD=VALUE", action="append", default=[], help="as cameras=gate; may be given again"
    )
    catalogue.add_argument(
        "--likely",
        action="store_true",
        help="tell in the table whom unsettled photos may be found to show; takes about as long as suggest",
    )
    catalogue.set_defaults(run=_catalogue)


def _catalogue(arguments: argparse.Namespace) -> None:
    kind, output = arguments.kind, arguments.output
    if kind in ("wildbook", "camtrap-dp") and not arguments.species:
        raise cli.UsageError(f"--as {kind} needs --species, as 'Tragelaphus angasii'")
    if kind in ("camtrap-dp", "secr", "marked") and arguments.deployments is None:
        raise cli.UsageError(f"--as {kind} needs --deployments, a table of where cameras stood and when")
    if arguments.likely and kind != "table":
        raise cli.UsageError(f"--likely with --as {kind}: expected --as table, since nobody is named by a suggestion")
    with arguments.open_database(arguments.gallery, beside=True) as database:
        from service.review.deployments import (
            read_deployments,
            read_length,
            read_occasions,
            regular_occasions,
        )
        from service.review.histories import histories, write_marked, write_secr
        from service.review.packages import write_package
        from service.review.reviews import likely
        from service.review.rows import sightings
        from service.review.scope import read_conditions
        from service.review.sheets import write_table, write_wildbook

        try:
            chosen = read_conditions(arguments.only)
            length = None if Path(arguments.occasion).is_file() else read_length(arguments.occasion)
        except ValueError as error:
            raise cli.UsageError(str(error)) from error
        suggested = likely(database) if arguments.likely else {}
        rows, left_out = sightings(database, chosen, likely=suggested), 0
        if kind in ("table", "wildbook"):
            output.parent.mkdir(parents=True, exist_ok=True)
            # Excel needs a mark at the beginning, which Wildbook takes for a part of the first heading.
            with output.open("w", encoding="utf-8-sig" if kind == "table" else "utf-8", newline="") as file:
                sheet = write_table if kind == "table" else partial(write_wildbook, species=arguments.species)
                written = sheet(file, rows)
        else:
            deployments = read_deployments(arguments.deployments)
            if kind == "camtrap-dp":
                title = arguments.gallery.resolve().name
                written, left_out = write_package(output, rows, deployments, arguments.species, title)
            else:
                if length is None:
                    occasions = read_occasions(Path(arguments.occasion))
                else:
                    occasions = regular_occasions(deployments, length)
                found = histories(rows, deployments, occasions)
                written, left_out = len(found.captures), found.left_out
                if kind == "secr":
                    write_secr(output, found, deployments, occasions)
                else:
                    write_marked(output, found)
    print(f"{output}: {written:,} {'captures' if kind in ('secr', 'marked') else 'rows'}")
    if left_out:
        needed = "camera that stood then, or individual" if kind in ("secr", "marked") else "or camera that stood then"
        print(f"{counted(left_out, 'item')} left out: without time, {needed}", file=sys.stderr)


def _add_name(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", gallery: argparse.ArgumentParser
) -> None:
    name = commands.add_parser(
        "name",
        parents=[gallery],
        help="give photos the names of a table that `catalogue` wrote",
        description="Give photos the names of a table that `catalogue --as table` or `--as wildbook` wrote, in this "
        "gallery or another one with the same photos.",
    )
    name.add_argument("table", metavar="TABLE", type=Path)
    name.set_defaults(run=_name)


def _name(arguments: argparse.Namespace) -> int:
    with arguments.open_database(arguments.gallery) as database:
        from service.review.sheets import read_names

        found = read_names(database, arguments.table, CAUSE)
    print(f"{arguments.gallery}: {counted(found.named, 'item')} named, {found.same:,} so already")
    if found.missing:
        more = f" and {len(found.missing) - 3} more" if len(found.missing) > 3 else ""
        print(f"not in the gallery: {', '.join(found.missing[:3])}{more}", file=sys.stderr)
    return int(bool(found.missing))
