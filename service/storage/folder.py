"""The folder of a gallery, which one process at a time holds; told at once, for nothing slow is imported here."""

import fcntl
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

GALLERY_FILE = "gallery.db"
LOCK_FILE = "gallery.lock"


def hold(folder: Path) -> BinaryIO:
    """Lock a folder for this process until the file returned is closed; a folder that is not there is made.

    Raises OSError where another process holds it or it cannot be written, and ValueError where it is no gallery.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
        # A disk that was just made holds lost+found, and an opening that was cut short the lock file alone.
        if GALLERY_FILE not in names and names - {LOCK_FILE, "lost+found"}:
            raise ValueError(
                f"{folder}: holds files but no {GALLERY_FILE}; expected a gallery, or a new or empty folder"
            )
        with ExitStack() as opened:
            file = opened.enter_context(open(folder / LOCK_FILE, "ab"))
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
