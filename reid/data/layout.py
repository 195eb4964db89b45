"""Where a published dataset lies on a disk, and what to say where it does not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from reid.data.formats import HEAD, recognise


@dataclass(frozen=True)
class Layout:
    """How people keep one version of a published set.

    `places` are the folders, relative to the data root, that may hold it; `needed` are the folders and lists that it
    has there.
    """

    places: tuple[str, ...]
    needed: tuple[str, ...]

    def find(self, root: Path, also: Sequence[str] = ()) -> Path | None:
        """The first place that has all that is needed, and the files `also`; None where no place has."""
        needed = (*self.needed, *also)
        return next((root / p for p in self.places if all((root / p / entry).exists() for entry in needed)), None)


def require_folder(name: str, root: Path) -> None:
    """Raise FileNotFoundError where a set's data root is not there, and NotADirectoryError where it is a file."""
    if not root.exists():
        raise FileNotFoundError(f"{name}: the data root {root} does not exist")
    if not root.is_dir():
        with root.open("rb") as file:
            said = recognise(file.read(HEAD))
        raise NotADirectoryError(f"{name}: the data root {root} is {said or 'a file, expected a folder'}")


AnyLayout = TypeVar("AnyLayout", bound=Layout)


def locate_any(
    name: str, layouts: Sequence[AnyLayout], root: Path, also: Sequence[str] = (), hint: Callable[[], str] = str
) -> tuple[AnyLayout, Path]:
    """The first of a set's layouts that is found, and its folder, `root` or one below.

    `also` are files that each of them needs. Raises FileNotFoundError with what was expected, every place looked at and
    what of it is missing there, and what `hint` returns, where none is.
    """
    for layout in layouts:
        home = layout.find(root, also)
        if home:
            return layout, home
    looked = []
    for place in dict.fromkeys(place for layout in layouts for place in layout.places):
        candidates = [(*layout.needed, *also) for layout in layouts if place in layout.places]
        lacks = [[entry for entry in needed if not (root / place / entry).exists()] for needed in candidates]
        partly = [some for some, needed in zip(lacks, candidates, strict=True) if len(some) < len(needed)]
        nearest = min(partly, key=len, default=[])
        lacking = f" (has no {', '.join(nearest)})" if nearest else ""
        looked.append(f"{root / place}{lacking}")
    every = sorted(((*layout.needed, *also) for layout in layouts), key=lambda needed: -sum(map(len, needed)))
    # Of those that differ only in how deep things lie, the last, where they lie highest.
    expected = " or ".join({tuple(Path(one).name for one in needed): ", ".join(needed) for needed in every}.values())
    raise FileNotFoundError(f"{name}: expected {expected} in one folder; looked in {', '.join(looked)}{hint()}")
