"""The room that is left in memory and on a gallery's disk, where some is kept back, so that deletion always works."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from service.storage.folder import as_its_folder
from service.storage.sqlite import LOG_BYTES

CGROUP = Path("/sys/fs/cgroup")
RESERVE_FILE = "reserve"  # in the folder of a gallery
RESERVE = LOG_BYTES + 8 * 2**20  # bytes: what the deletion of some thousand items writes until their pictures are gone
LEFT = 2**16  # bytes of it that may become the file system's own
LOW, LOW_SHARE = 2**30, 0.05  # bytes, and of the disk, whichever is less: below, somebody should know


class Space:
    """The disk of a folder, with a file there that takes the room which deletion may need."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reserve = folder / RESERVE_FILE
        self.refill()

    @property
    def free(self) -> int:
        """Bytes that can be written."""
        return shutil.disk_usage(self._folder).free

    @property
    def total(self) -> int:
        """Bytes of the whole disk."""
        return shutil.disk_usage(self._folder).total

    @property
    def low(self) -> str | None:
        """Where there is little room left, how much."""
        usage = shutil.disk_usage(self._folder)
        if usage.free >= min(LOW, LOW_SHARE * usage.total):
            return None
        return f"{usage.free / 2**20:,.0f} MiB are free on the disk of {self._folder}"

    def refill(self) -> None:
        """Take the room that is kept back, where there is as much again; else at another time."""
        with suppress(OSError):
            if self.free > 2 * RESERVE and (not self._reserve.exists() or self._reserve.stat().st_size < RESERVE):
                self._take(RESERVE)

    def take_back(self) -> None:
        """Take what is left of the room that was spent, before others do."""
        with suppress(OSError):
            if not self._reserve.exists():
                self._take(min(RESERVE, self.free - LEFT))

    def _take(self, size: int) -> None:
        if size > 0:
            with open(self._reserve, "wb", opener=as_its_folder) as file:
                os.posix_fallocate(file.fileno(), 0, size)

    def spend(self) -> bool:
        """Give back the room that was kept; tells whether there was any."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True


def free_memory() -> int | None:
    """Bytes of memory that this process can have, of the machine or the container; None where that is not known."""
    found = []
    with suppress(OSError, ValueError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    with suppress(OSError, ValueError):  # a container's own, unless its limit is "max"
        most, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        found.append(most - used + int(cached["inactive_file"]))
    return min(found, default=None)
