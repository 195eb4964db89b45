"""Pictures of every kind that people have, drawn for tests."""

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image, ImageCms

ORIENTATION, MAKER, GPS = 0x0112, 0x010F, 0x8825


def noise(size=(31, 21), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encode(image, form, **save):
    written = io.BytesIO()
    image.save(written, form, **save)
    return written.getvalue()


def oriented(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[MAKER] = "maker-of-cameras"
    exif[GPS] = {1: "N", 2: (52.0, 31.0, 12.0)}
    return exif


def sixteen_bit():
    return Image.fromarray((np.arange(600, dtype=np.uint16) * 109).reshape(20, 30))


def clear_palette():
    """A palette picture of which every other entry is transparent in another degree."""
    return encode(noise().convert("P"), "PNG", transparency=bytes(range(256)))


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width, height):
    """A PNG file of few bytes that is as large as it says."""
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 + width)) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


def zip_archive():
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("hidden.txt", "hidden words " * 10)
    return written.getvalue()


def frames(form):
    return encode(noise(), form, save_all=True, append_images=[noise(seed=1), noise(seed=2)])


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(image):
    return np.asarray(image)
