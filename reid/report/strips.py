"""Pictures in a row, with what is to be said of each: ranked lists and attention maps are made of these."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image

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
    """A picture, 224 pixels wide or high, with a heading, lines below, and its file's path.

    `read` gives it unscaled, or decoded as in `read_image`.
    """

    picture: Image.Image
    read: Callable[..., Image.Image]
    kind: Kind
    heading: str
    notes: tuple[str, ...]
    path: str


@dataclass(frozen=True, eq=False)
class Strip:
    """Pictures under a title."""

    title: str
    tiles: tuple[Tile, ...]


def and_more(number: int, what: str = "") -> str:
    """What is said where a list is cut: how many more there are, if any."""
    return f", and {number:,} more{f' {what}' if what else ''}" if number > 0 else ""


def readable(path: str) -> str:
    """A path with marks for the bytes that are no UTF-8, which neither a page nor a figure can hold."""
    return os.fsencode(path).decode("utf-8", "replace")
