"""Parts of the logs of a gallery, by who, when and what."""

from sqlalchemy import Select, Table, select

from service.fields import microseconds
from service.records import LogPart


def part_of(log: Table, wanted: LogPart) -> Select[tuple[int, ...]]:
    """The rows of a log, operations or queries, in the order that is wanted."""
    chosen = select(log).order_by(log.c.seq.desc() if wanted.newest_first else log.c.seq).limit(wanted.limit)
    if wanted.cursor is not None:
        chosen = chosen.where(log.c.seq < wanted.cursor if wanted.newest_first else log.c.seq > wanted.cursor)
    if wanted.actor is not None:
        chosen = chosen.where(log.c.actor == wanted.actor)
    if wanted.since is not None:
        chosen = chosen.where(log.c.time >= microseconds(wanted.since))
    if wanted.until is not None:
        chosen = chosen.where(log.c.time < microseconds(wanted.until))
    if wanted.kind is not None:
        chosen = chosen.where(log.c.kind == wanted.kind)
    return chosen
