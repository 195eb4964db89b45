"""The bytes that are kept of an enrolled photo: those that came, less their metadata, or its pixels written anew."""

import io
import re
import struct

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from reid.data.images import UnknownFormat, UnusableImage, decode, opened_picture
from reid.data.preprocessing import Decoding

WEBP_SIDE = 16_383  # pixels; the most that WebP can hold

_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PNG_CHUNKS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT"))
_WEBP_CHUNKS = frozenset((b"VP8 ", b"VP8L", b"ICCP"))
_ICC_FLAG = 0x20  # of a VP8X chunk, whose other flags are alpha, EXIF, XMP and animation


def copy_of(data: bytes, image: Image.Image, how: Decoding) -> bytes:
    """What to keep of a photo, JPEG, PNG or WebP, that `decode` made an `image` of in the same way.

    The bytes that came stay as they are but for their metadata, and for what lies behind the picture, where a browser
    shows them as the model sees them and they decode to the very same pixels. Others are written anew by `lossless`.
    """
    try:
        bare = _bare(data)
        if bare and (bare == data or np.array_equal(np.asarray(decode(bare, how)), np.asarray(image))):
            return bare
    except (UnknownFormat, UnusableImage, struct.error, IndexError):
        pass
    return lossless(image if how.enough is None else decode(data, how.in_full))


def lossless(image: Image.Image) -> bytes:
    """An RGB picture as a lossless WebP file, or PNG where it is too large for WebP or names its colours by number.

    It holds the pixels, the colour profile or coding that was not applied to them, and nothing else.
    """
    written = io.BytesIO()
    profile, coding = image.info.get("icc_profile"), image.info.get("coding")
    bare = image.copy()
    bare.info = {}
    if coding is not None or max(image.size) > WEBP_SIDE:
        named = PngInfo()
        if coding is not None:
            named.add(b"cICP", bytes([coding.primaries, coding.transfer, 0, coding.full]))
        bare.save(written, "PNG", compress_level=1, icc_profile=profile, pnginfo=named)
    else:
        # Method and quality mean effort here: the least takes a twentieth of the time of the default, for files a tenth
        # to a fifth larger.
        bare.save(written, "WEBP", lossless=True, method=0, quality=0, icc_profile=profile)
    return written.getvalue()


def _bare(data: bytes) -> bytes | None:
    """A file without metadata, None for one that no browser shows as it is read: transparent, of CMYK or 16 bits."""
    with opened_picture(io.BytesIO(data)) as opened:
        if opened.mode not in ("L", "RGB") or opened.has_transparency_data:
            return None
        orientation = opened.getexif().get(0x0112, 1) if opened.format in ("JPEG", "MPO") else 1
        form = opened.format
    if form in ("JPEG", "MPO"):
        return _bare_jpeg(data, orientation)
    if form == "PNG":
        return _bare_png(data)
    return _bare_webp(data) if form == "WEBP" else None


def _bare_jpeg(data: bytes, orientation: int) -> bytes | None:
    """The segments that decide the pixels, as far as the end of the first picture."""
    kept = [data[:2]]
    if orientation in range(2, 9):
        kept.append(_exif_of(orientation))
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xD9:
            return b"".join([*kept, data[place : place + 2]])
        if marker == 0xFF:  # fills
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        segment = data[place:end]
        if marker == 0xDA:
            found = _SCAN_END.search(data, end)
            if found is None:
                return None
            end = found.start()
            kept.append(data[place:end])
        elif _decides_pixels(marker, segment[4:]):
            kept.append(segment)
        place = end
    return None


def _decides_pixels(marker: int, content: bytes) -> bool:
    if marker == 0xFE or 0xE0 <= marker <= 0xEF:  # a comment; what programs add
        if marker == 0xE0:
            return content.startswith(b"JFIF\0") and len(content) == 14  # without a thumbnail, which may show more
        wanted = {0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}.get(marker)
        return wanted is not None and content.startswith(wanted)
    return True


def _exif_of(orientation: int) -> bytes:
    directory = struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    content = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + directory
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def _bare_png(data: bytes) -> bytes | None:
    kept, place = [data[:8]], 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        if kind in _PNG_CHUNKS:
            kept.append(data[place:end])
        if kind == b"IEND":
            return b"".join(kept)
        place = end
    return None


def _bare_webp(data: bytes) -> bytes | None:
    kept, place = [], 12
    while place + 8 <= len(data):
        kind = data[place : place + 4]
        (length,) = struct.unpack_from("<I", data, place + 4)
        end = place + 8 + length + length % 2
        if kind == b"VP8X":
            kept.append(data[place : place + 8] + bytes([data[place + 8] & _ICC_FLAG]) + data[place + 9 : end])
        elif kind in _WEBP_CHUNKS:
            kept.append(data[place:end])
        place = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
