"""Where a published dataset lies on a disk, and what to say where it does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar


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


AnyLayout = TypeVar("AnyLayout", bound=Layout)


def locate_any(
    name: str, layouts: Sequence[AnyLayout], root: Path, also: Sequence[str] = (), hint: str = ""
) -> tuple[AnyLayout, Path]:
    """The first of a set's layouts that is found, and its folder, `root` or one below.

    `also` are files that each of them needs. Raises FileNotFoundError with what was expected, every place looked at and
    what of it is missing there, and a `hint`, where none is.
    """
    for layout in layouts:
        home = layout.find(root, also)
        if home:
            return layout, home
    looked = []
    for place in dict.fromkeys(place for layout in layouts for place in layout.places):
        candidates = [(*layout.needed, *also) for layout in layouts if place in layout.places]
        lacking = min(
            ([entry for entry in needed if not (root / place / entry).exists()] for needed in candidates), key=len
        )
        partly = any(len(lacking) < len(needed) for needed in candidates)
        looked.append(f"{root / place} (has no {', '.join(lacking)})" if partly else str(root / place))
    expected = " or ".join(", ".join((*layout.needed, *also)) for layout in layouts)
    raise FileNotFoundError(f"{name}: expected {expected} in one folder; looked in {', '.join(looked)}{hint}")
