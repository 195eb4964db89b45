"""The folder of a gallery, which one process at a time holds; told at once, for nothing slow is imported here."""

import fcntl
import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

GALLERY_FILE = "gallery.db"
LOCK_FILE = "gallery.lock"


def make_folder(path: Path) -> None:
    """Make the folder of a gallery where it is not there, for its owner alone; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def make_folder_within(path: Path) -> None:
    """Make a folder within that of a gallery where it is not there, as open as the one around it; raises OSError."""
    path.mkdir(mode=path.parent.stat().st_mode & 0o777, exist_ok=True)


def as_its_folder(path: str, flags: int) -> int:
    """What `open` takes as `opener` for a file that is as open as its folder."""
    return os.open(path, flags, os.stat(os.path.dirname(path) or ".").st_mode & 0o666)


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that only reads the file of a gallery, also where nothing can be written beside it.

    Raises sqlite3.Error for a file that cannot be read, say one on a read-only disk that was not closed well.
    """
    # SQLite writes a file beside one that it only reads, unless it is told that nobody else writes it either.
    alone = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    address = f"file:{quote(str(path))}?{'immutable=1' if alone else 'mode=ro'}"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


def hold(folder: Path) -> BinaryIO:
    """Lock a folder for this process until the file returned is closed; a folder that is not there is made.

    Raises OSError where another process holds it or it cannot be written, and ValueError where it is no gallery.
    """
    try:
        make_folder(folder)
        names = {path.name for path in folder.iterdir()}
        # A disk that was just made holds lost+found, and an opening that was cut short the lock file alone.
        if GALLERY_FILE not in names and names - {LOCK_FILE, "lost+found"}:
            raise ValueError(
                f"{folder}: holds files but no {GALLERY_FILE}; expected a gallery, or a new or empty folder"
            )
        with ExitStack() as opened:
            file = opened.enter_context(open(folder / LOCK_FILE, "ab", opener=as_its_folder))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened.pop_all()
            return file
    except BlockingIOError as error:
        raise OSError(f"{folder}: another process has this gallery open") from error
    except OSError as error:
        raise OSError(f"{folder}: not a folder that can be written ({error.strerror})") from error


def require_free(folder: Path) -> None:
    """Raise what `hold` would raise, but leave alone a folder that is not there."""
    if folder.exists():
        hold(folder).close()


def require_gallery(folder: Path) -> None:
    """Raise FileNotFoundError for a folder without the file of a gallery."""
    if not (folder / GALLERY_FILE).exists():
        raise FileNotFoundError(f"{folder}: no gallery, for there is no {GALLERY_FILE} in it")
