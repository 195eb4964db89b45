"""Pictures in a row, with what is to be said of each: ranked lists and attention maps are made of these."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image

Split = Literal["query", "gallery"]
Kind = Literal["query", "right", "wrong", "junk"]

SIDE = 224  # pixels of a tile's longer side: sharp at half the size on a phone's screen


@dataclass(frozen=True)
class Look:
    """How a kind of picture is told apart: by colour and by mark."""

    colour: str
    mark: str


LOOKS: dict[Kind, Look] = {
    "query": Look("#57606a", ""),
    "right": Look("#0b8457", "\N{CHECK MARK}"),
    "wrong": Look("#c8420a", "\N{BALLOT X}"),
    "junk": Look("#8b929b", "\N{WHITE CIRCLE}"),
}


@dataclass(frozen=True, eq=False)
class Tile:
    """A picture, 224 pixels wide or high, of a row of a split, with a heading, lines below, and its file's path."""

    picture: Image.Image
    split: Split
    row: int
    kind: Kind
    heading: str
    notes: tuple[str, ...]
    path: str


@dataclass(frozen=True, eq=False)
class Strip:
    """A query and its matches under a title."""

    title: str
    tiles: tuple[Tile, ...]
