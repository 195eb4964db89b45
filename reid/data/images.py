"""Reading one picture, the same way for training, evaluation, enrolment, classification and over HTTP."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from reid.data.colour_codes import Coding, coding_of
from reid.data.colours import lab_to_rgb, to_srgb
from reid.data.formats import HEAD, PILLOW, is_picture, refusal
from reid.data.preprocessing import AS_SHOWN, Decoding

MAX_MEGAPIXELS = 120.0  # beyond today's phones, of 108
MAX_SIDE = 65_535  # pixels; the most that JPEG can hold

# By EXIF orientation: how what is stored becomes upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnknownFormat(ValueError):
    """The bytes are no picture of a format that is read."""


class UnusableImage(ValueError):
    """The bytes are a picture, but too large, damaged, cut short or of floating-point pixels."""


def read_image(path: Path | str, box: tuple[int, int, int, int] | None = None, how: Decoding = AS_SHOWN) -> Image.Image:
    """Read an image file as `upright_rgb`, cropped to `box` = (x, y, width, height) in upright pixels.

    The format is what the bytes say, whatever the file is called; of several frames the first counts. What a box is cut
    from is decoded in full. Raises
    FileNotFoundError for a missing file, UnknownFormat and UnusableImage, which are ValueErrors, naming the path, for
    one that is no picture or cannot be used, and ValueError for a box outside the image.
    """
    with _named(path), open(path, "rb") as file, opened_picture(file) as opened:
        image = upright_rgb(opened, how if box is None else how.in_full)
    if box is None:
        return image
    if problem := outside(path, box, *image.size):
        raise ValueError(problem)
    x, y, width, height = box
    return image.crop((x, y, x + width, y + height))


def outside(path: Path | str, box: tuple[int, int, int, int] | None, width: int, height: int) -> str:
    """What to say of a box (x, y, width, height) that does not lie within an image of this size; else nothing."""
    if box is None or (box[2] >= 1 <= box[3] and 0 <= box[0] <= width - box[2] and 0 <= box[1] <= height - box[3]):
        return ""
    x, y, w, h = box
    return f"{path}: box x={x} y={y} w={w} h={h} lies outside the image of {width}x{height} pixels"


def decode(data: bytes, how: Decoding = AS_SHOWN) -> Image.Image:
    """Turn the bytes of an image file into the picture that `read_image` gives.

    Raises UnknownFormat and UnusableImage, whose messages are one line to show to the sender.
    """
    with opened_picture(io.BytesIO(data)) as opened:
        return upright_rgb(opened, how)


def upright_size(picture: Path | str | bytes) -> tuple[int, int]:
    """(width, height) in upright pixels from the header alone; raises as `read_image`, or `decode` for bytes."""
    if isinstance(picture, bytes):
        with opened_picture(io.BytesIO(picture)) as opened:
            return _upright_size(opened)
    with _named(picture), open(picture, "rb") as file, opened_picture(file) as opened:
        return _upright_size(opened)


def upright_rgb(opened: Image.Image, how: Decoding = AS_SHOWN) -> Image.Image:
    """Load a picture that Pillow has opened, the first frame of several, and make it RGB of 8 bits a channel.

    It is turned as its EXIF orientation says, or left as it is where that is damaged, and what is transparent lies over
    white, as browsers mostly show it. Grey of more than 8 bits goes to [0, 255], rounded. With `profiles`, embedded
    colour profiles, colours named by number (cICP, nclx) and PNG's gamma and primaries are converted to sRGB. Without,
    pixels of 8-bit RGB stay as they are stored, CMYK is read as Adobe writes it, inverted, and the result's `info` has
    the `icc_profile`, `coding`, `gamma` and the like that were not applied; it never has other metadata. Where less is
    `enough`, a JPEG is smaller than it is stored.

    Raises UnusableImage for floating-point pixels, and whatever Pillow raises for a damaged file.
    """
    # Of JPEGs in other colours, the copy that a gallery keeps is none; of other formats EXIF data are read by loading.
    if how.enough is not None and opened.format in ("JPEG", "MPO") and opened.mode in ("L", "RGB"):
        opened.draft(None, how.enough if _orientation(opened) >= 5 else how.enough[::-1])
    opened.load()  # verify() would pass a file cut in half
    info = opened.info
    turn = _TURNS.get(_orientation(opened))
    image = opened if turn is None else opened.transpose(turn)
    if image.mode == "F":
        raise UnusableImage(
            "the image's pixels are floating-point numbers of unknown range, expected 8 or 16 bits a channel"
        )
    if image.mode.startswith("I"):
        image = _eight_bits(image, info.get("transparency"))
    elif image.mode == "LAB":
        image = lab_to_rgb(image)
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    described = image.mode in ("L", "RGB")  # by what can be kept beside RGB
    if how.profiles:
        image = to_srgb(image, info)
    image = image.convert("RGB") if image is opened or image.mode != "RGB" else image
    # No GPS position and the like; and an orientation left here could turn the picture twice.
    unapplied = () if how.profiles or not described else ("icc_profile", "gamma", "srgb", "chromaticity", "coding")
    image.info = {name: info[name] for name in unapplied if name in info}
    return image


def max_pixels() -> int:
    """The most pixels of a picture that is read: REID_MAX_MEGAPIXELS, by default 120 million.

    Raises ValueError where that is no number above 0.
    """
    given = os.environ.get("REID_MAX_MEGAPIXELS", "")
    try:
        pixels = int(1e6 * float(given or MAX_MEGAPIXELS))
    except (ValueError, OverflowError):
        pixels = 0
    if pixels < 1:
        raise ValueError(f"REID_MAX_MEGAPIXELS is {given!r}, expected a number above 0, such as {MAX_MEGAPIXELS:g}")
    return pixels


def _eight_bits(image: Image.Image, transparency: object) -> Image.Image:
    """Grey of 16 bits as grey of 8; what has the value that is transparent is white."""
    values = np.asarray(image).clip(0, 65535).astype(np.uint32)  # Pillow's own conversion clips at 255
    grey = ((values + 128) // 257).astype(np.uint8)
    if isinstance(transparency, int):
        grey[values == transparency] = 255
    return Image.fromarray(grey)


def _upright_size(opened: Image.Image) -> tuple[int, int]:
    width, height = opened.size
    # What Pillow turns by itself has the size of the upright picture from the start.
    lies = opened.format != "TIFF" and _orientation(opened) >= 5
    return (height, width) if lies else (width, height)


def _orientation(image: Image.Image) -> int:
    try:
        orientation: int = image.getexif().get(ExifTags.Base.Orientation, 1)
        return orientation if orientation in _TURNS else 1
    except Exception:  # of many types, for EXIF data that is damaged
        return 1


@contextmanager
def opened_picture(file: BinaryIO) -> Iterator[Image.Image]:
    """A picture of a file whose header has been read, and found to be within the limits, before any pixel is decoded.

    Raises UnknownFormat and UnusableImage, also in place of whatever is raised while it is open.
    """
    most = max_pixels()
    head = file.read(HEAD)
    file.seek(0)
    if not is_picture(head):  # Pillow takes the preview of a camera RAW file for a TIFF picture
        raise UnknownFormat(f"the file is {refusal(head)}")
    _prepare_pillow()
    coding = coding_of(file, head)
    try:
        with Image.open(file, formats=PILLOW) as opened:
            _require_size(*opened.size, most)
            _name_colours(opened, coding)
            yield opened
    except UnidentifiedImageError:
        raise UnknownFormat(f"the file is {refusal(head)}") from None
    except (UnknownFormat, UnusableImage):
        raise
    except Exception as error:  # Pillow's readers raise errors of many types for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnusableImage(f"the image is damaged or cut short ({reason})") from error


def _name_colours(opened: Image.Image, coding: Coding | None) -> None:
    """Put into `info` what the file names by number, where that counts."""
    if nclx := opened.info.get("nclx_profile"):
        coding = Coding(int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))
    if coding is not None and (opened.format == "PNG" or "icc_profile" not in opened.info):
        opened.info["coding"] = coding


@cache
def _prepare_pillow() -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    Image.MAX_IMAGE_PIXELS = None  # ours is checked in its place, and is a setting


def _require_size(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise UnusableImage(
            f"the image has {width:,} x {height:,} = {width * height:,} pixels, expected at most {most:,} "
            "(REID_MAX_MEGAPIXELS)"
        )
    if max(width, height) > MAX_SIDE:
        raise UnusableImage(f"the image has {width:,} x {height:,} pixels, expected at most {MAX_SIDE:,} a side")


@contextmanager
def _named(path: Path | str) -> Iterator[None]:
    """Have errors name the file."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (UnknownFormat, UnusableImage) as error:
        raise type(error)(f"{path}: {error}") from error.__cause__
