"""From the bytes of a photo to all that a gallery makes of its pixels."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

from PIL import Image

from reid.data.colours import to_srgb
from reid.data.images import decode, upright_size
from reid.data.preprocessing import AS_SHOWN, Decoding
from service.gallery.copies import copy_of, lossless
from service.records import Region, UnusableBox

THUMBNAIL_SIDE = 256  # pixels
GAP = 1.2  # times the thumbnail's size, from which it is resized with care; what is larger is averaged
SMALL_SIDE = 160  # of one for a grid, on a screen that has one pixel where others have two
SHOWN_SIDE = 1024  # of a picture with the model's attention over it; the model sees less, and people need no more

# Of a photo, or of a box in it: what the model sees, the same for people, and two files, a small JPEG and a lossless.
Want = Literal["view", "shown", "thumbnail", "picture"]
Made = Any  # a picture or the bytes of a file, by what was wanted


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted of each of some regions of a photo, and whether its `copy_of` is.

    `view` is the (height, width) to which the model's pictures are resized, `how` they are decoded.
    """

    wants: Sequence[Want]
    regions: Sequence[Region | None] = (None,)
    view: tuple[int, int] | None = None
    how: Decoding = AS_SHOWN
    copy: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """The size of an upright photo, for each region what was wanted, in that order, or why not, and the copy if wanted.

    Views and what is shown are RGB pictures, the others files.
    """

    width: int
    height: int
    parts: Sequence[Sequence[Made] | UnusableBox]
    copy: bytes | None = None


def render(data: bytes, order: Order) -> Rendered:
    """Do what is ordered with the bytes of a photo; raises as `decode`."""
    read = cache(partial(decode, data))  # once at each scale
    in_full = order.how.in_full
    parts = list[Sequence[Made] | UnusableBox]()
    for region in order.regions:
        try:  # boxes are cut from all pixels, as `read_image` does it
            crop = None if region is None else cut(read(in_full), region)
        except UnusableBox as error:
            parts.append(error)
        else:
            parts.append([_make(want, crop or read(_scale(want, order.how)), order) for want in order.wants])
    kept = order.how if set(order.regions) <= {None} else in_full
    copy = copy_of(data, read(kept), kept) if order.copy else None
    return Rendered(*upright_size(data), parts, copy)


def _scale(want: Want, how: Decoding) -> Decoding:
    """How the whole of a photo is decoded for what is wanted: no smaller than the model has it, and people need it."""
    match want:
        case "view":
            return how
        case "shown":
            return how.at_least(SHOWN_SIDE)
        case "thumbnail":
            return how.at_least(round(GAP * THUMBNAIL_SIDE))
        case "picture":
            return how.in_full


def cut(image: Image.Image, region: Region | None) -> Image.Image:
    """What a region shows of an upright picture, the whole of it without one; raises UnusableBox."""
    if region is None:
        return image
    region.require_inside(*image.size)
    return image.crop((region.x, region.y, region.x + region.w, region.y + region.h))


def _make(want: Want, image: Image.Image, order: Order) -> Made:
    match want:
        case "view":  # as the model's preprocessing resizes it, which then finds it done
            assert order.view is not None
            height, width = order.view
            return image.resize((width, height), Image.Resampling.BICUBIC)
        case "shown":
            return _small(image, SHOWN_SIDE, reducing_gap=2)
        case "thumbnail":
            return _jpeg(image, THUMBNAIL_SIDE)
        case "picture":
            return lossless(image)


def smaller(thumbnail: bytes) -> bytes:
    """A thumbnail of at most `SMALL_SIDE` pixels on a side of another one, which is given back if it is no larger."""
    image = Image.open(io.BytesIO(thumbnail))
    return thumbnail if max(image.size) <= SMALL_SIDE else _jpeg(image, SMALL_SIDE)


def _jpeg(image: Image.Image, side: int) -> bytes:
    written = io.BytesIO()
    _small(image, side, reducing_gap=GAP).save(written, "JPEG", quality=85)
    return written.getvalue()


def _small(image: Image.Image, side: int, reducing_gap: float) -> Image.Image:
    """A picture of at most `side` x `side` pixels, never enlarged, in sRGB and without metadata.

    Means of whole pixels make it at least `reducing_gap` times as large first, which halves the time or more.
    """
    scale = min(1, side / max(image.size))
    width, height = (max(1, round(scale * length)) for length in image.size)
    small = to_srgb(image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=reducing_gap), image.info)
    small.info = {}
    return small
