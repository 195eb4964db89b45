"""The pictures below a folder, by content, and a count of all else that lies there: one walk for every reader."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from reid.data.formats import HEAD, is_picture, recognise
from reid.data.samples import is_image
from reid.names import counted

log = logging.getLogger("reid")

# What systems and programs leave beside people's photos, in lower case: thumbnails, rubbish bins, notes.
CLUTTER_FOLDERS = ("@eadir", "__macosx", ".trash", ".trashes", "#recycle", "$recycle.bin", "lost+found")
CLUTTER_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store")
KINDS_TOLD = 12
_LINK, _LINK_AGAIN, _IRREGULAR = "broken link", "link to a folder that is read already", "that is no regular file"
_SEVERAL = {  # what several of a kind are called, where that differs
    _LINK: "broken links",
    _LINK_AGAIN: "links to folders that are read already",
    _IRREGULAR: "that are no regular files",
}


class LeftOut:
    """What lies below folders and is not taken, counted by kind."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()

    def add(self, kind: str, files: int = 1) -> None:
        """Count files of a kind, which is told after their number, as `.txt` is."""
        if files:
            self._kinds[kind] += files

    @property
    def total(self) -> int:
        """The number of files."""
        return self._kinds.total()

    @property
    def kinds(self) -> dict[str, int]:
        """The number of files of each kind, the most frequent first."""
        return dict(sorted(self._kinds.items(), key=lambda kind: (-kind[1], kind[0])))

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def __str__(self) -> str:
        """Such as `18 files left out: 14 .nef (a camera RAW file: export it as JPEG), 3 .txt, 1 broken link`."""
        kinds = list(self.kinds.items())
        told = [counted(files, kind, _SEVERAL.get(kind, kind)) for kind, files in kinds[:KINDS_TOLD]]
        if others := sum(files for _, files in kinds[KINDS_TOLD:]):
            told.append(f"{others:,} of {counted(len(kinds) - KINDS_TOLD, 'other kind')}")
        return f"{counted(self.total, 'file')} left out: {', '.join(told)}"


@dataclass(frozen=True)
class Patterns:
    """Which files below a folder are wanted, by shell patterns in any case; without `include`, all are.

    One with a slash is compared with the path below the folder, another with the names of the file and of the folders
    above it.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def refuse(self, inside: Path) -> str:
        """The option that leaves a file out, "" for one that is wanted."""
        if any(_matches(inside, pattern) for pattern in self.exclude):
            return "--exclude"
        if self.include and not any(_matches(inside, pattern) for pattern in self.include):
            return "--include"
        return ""

    def __str__(self) -> str:
        parts = [("only", self.include), ("without", self.exclude)]
        return "".join(f", {word} {' '.join(patterns)}" for word, patterns in parts if patterns)


EVERYTHING = Patterns()


def pictures_below(folder: Path, left_out: LeftOut, wanted: Patterns = EVERYTHING) -> Iterator[Path]:
    """The pictures below a folder, relative to it, in the order of the parts of their paths; all else is `left_out`.

    A file whose name ends as that of a picture counts as one, whether or not it can be read; of others the first bytes
    tell. Links to folders are followed after all else, each folder once. Hidden files and folders, and what systems put
    beside photos, count for nothing, and what may not be read is told. One folder's names are in memory at a time.
    """
    walk = _Walk(folder, left_out, wanted)
    yield from walk.below(Path())
    while walk.links:
        link = walk.links.pop(0)
        if walk.is_new(link):
            yield from walk.below(link)
        else:
            left_out.add(_LINK_AGAIN)


def is_clutter(name: str) -> bool:
    """Whether a folder is one of those that systems make beside people's photos, or hidden."""
    return name.startswith(".") or name.lower() in CLUTTER_FOLDERS


class _Walk:
    def __init__(self, folder: Path, left_out: LeftOut, wanted: Patterns) -> None:
        self.links: list[Path] = []  # to folders, relative to the root
        self._folder, self._left_out, self._wanted = folder, left_out, wanted
        self._seen: set[tuple[int, int]] = set()
        self.is_new(Path())

    def is_new(self, inside: Path) -> bool:
        """Whether a folder has not been read yet; from now on it has."""
        status = os.stat(self._folder / inside)
        identity = (status.st_dev, status.st_ino)
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True

    def below(self, inside: Path) -> Iterator[Path]:
        try:
            with os.scandir(self._folder / inside) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except (PermissionError, FileNotFoundError) as error:  # such as lost+found, or one deleted meanwhile
            log.warning("warning: %s: %s; left out", self._folder / inside, error.strerror)
            return
        for entry in entries:
            path = inside / entry.name
            if _is_folder(entry):
                if is_clutter(entry.name):
                    hidden = entry.name.lower() not in CLUTTER_FOLDERS
                    self._left_out.add("in hidden folders" if hidden else f"in {entry.name}", _count(entry.path))
                elif entry.is_symlink():
                    self.links.append(path)
                elif self.is_new(path):
                    yield from self.below(path)
                else:  # a link that came first led here
                    self._left_out.add("in a folder that is read already", _count(entry.path))
            elif kind := self._refuse(entry, path):
                self._left_out.add(kind)
            else:
                yield path

    def _refuse(self, entry: "os.DirEntry[str]", inside: Path) -> str:
        """Of what kind a file is that is no picture, or not wanted; "" for a picture that is."""
        name = entry.name.lower()
        if name.startswith("._"):
            return "._* (what a Mac notes about files)"
        if name in CLUTTER_FILES:
            return entry.name
        if name.startswith("."):
            return "hidden"
        if not (entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)):
            return _LINK if entry.is_symlink() else _IRREGULAR
        if option := self._wanted.refuse(inside):
            return f"by {option}"
        return "" if is_image(name) else _kind(entry)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """As `entry.is_dir`, which raises OSError for a link that cannot be followed, such as one to itself."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _kind(entry: "os.DirEntry[str]") -> str:
    suffix = Path(entry.name).suffix.lower() or "without suffix"
    try:
        with open(entry.path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return f"{suffix} ({error.strerror})"
    if is_picture(head):
        return ""
    said = recognise(head)
    return f"{suffix} ({said})" if said else suffix


def _count(folder: str) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _matches(inside: Path, pattern: str) -> bool:
    pattern = pattern.lower()
    if "/" in pattern:
        return fnmatchcase(inside.as_posix().lower(), pattern)
    return any(fnmatchcase(part.lower(), pattern) for part in inside.parts)
