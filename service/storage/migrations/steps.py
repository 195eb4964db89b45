"""The versions of a gallery's tables; an older gallery is brought to the newest when it is opened."""

from typing import Any, NamedTuple
from uuid import uuid4

from service.storage.columns import json_text, now
from service.storage.migrations import version_1, version_2, version_3, version_4, version_5


class Step(NamedTuple):
    """What brings the tables from one version to the next, in the SQL of each kind of database."""

    sqlite: str
    postgresql: str


# The k-th leads to version k; what has been released is never changed. On PostgreSQL the first version was 3.
STEPS = (
    Step(version_1.SQLITE, ""),
    Step(version_2.SQLITE, ""),
    Step(version_3.SQLITE, ""),
    Step(version_4.SQLITE, version_4.POSTGRESQL),
    Step(version_5.SQLITE, version_5.POSTGRESQL),
)

LOG_UPGRADE = """
INSERT INTO operations (time, actor, request_id, batch_id, kind, target, before, after)
SELECT :time, '', '', :batch_id, 'gallery.upgrade', gallery_id, :before, :after FROM gallery
"""


def newest_version() -> int:
    """The version of a new gallery."""
    return len(STEPS)


def steps_after(version: int, name: str) -> tuple[Step, ...]:
    """The steps that a gallery still has to take; raises ValueError, naming it, for one of a newer version."""
    if version > (newest := newest_version()):
        raise ValueError(f"{name}: a gallery of version {version}, but this program knows versions up to {newest} only")
    return STEPS[version:]


def upgrade_entry(version: int) -> dict[str, Any]:
    """The values of `LOG_UPGRADE` for a gallery that was of an older version."""
    before, after = (json_text({"version": number}) for number in (version, newest_version()))
    return {"time": now(), "batch_id": uuid4().hex, "before": before, "after": after}
