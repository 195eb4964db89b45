"""Files of every format that people have, by the name that they usually have: those that are read, and others."""

import struct
from collections.abc import Callable
from pathlib import Path

import pillow_heif
from PIL import Image, ImageDraw

from tests.drawn import encode, frames, sixteen_bit, zip_archive

pillow_heif.register_heif_opener()  # also writes HEIC here
CASES = Path(__file__).parent / "reid" / "data" / "cases"
TIFF_TAG = struct.Struct("<HHII")


def tiff_of(*tags: tuple[int, int, int], maker: bytes = b"") -> bytes:
    """The beginning of a TIFF file, with a first directory of short and long values."""
    entries = [TIFF_TAG.pack(tag, kind, 1, value) for tag, kind, value in tags]
    if maker:
        entries.append(TIFF_TAG.pack(271, 2, len(maker), 8 + 2 + 12 * (len(tags) + 1) + 4))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0\x08\0\0\0" + directory + maker + bytes(600)


def scene(number: int) -> Image.Image:
    """A small picture, another one for each number, of which every format leaves enough to recognise."""
    image = Image.new("RGB", (48, 36), (40 + 20 * (number % 9), 200 - 13 * number, 90))
    ImageDraw.Draw(image).ellipse((4 + number, 6, 24 + number, 30), "orange")
    return image


READ: dict[str, Callable[[], bytes]] = {
    "camera.jpg": lambda: encode(scene(0), "JPEG"),
    "camera.jpeg": lambda: encode(scene(1), "JPEG", progressive=True),
    "web.jfif": lambda: encode(scene(2), "JPEG"),
    "old.jpe": lambda: encode(scene(3).convert("L"), "JPEG"),
    "two_views.mpo": (CASES / "two_views.mpo").read_bytes,
    "no_suffix": lambda: encode(scene(4), "JPEG"),
    "misnamed.png": lambda: encode(scene(5), "JPEG"),
    "UPPER.JPG": lambda: encode(scene(6), "JPEG"),
    "screen.png": lambda: encode(scene(7), "PNG"),
    "grey16.png": lambda: encode(sixteen_bit(), "PNG"),
    "web.webp": lambda: encode(scene(8), "WEBP"),
    "paint.bmp": lambda: encode(scene(9), "BMP"),
    "frames.gif": lambda: frames("GIF"),
    "scan.tif": lambda: encode(scene(10), "TIFF", compression="tiff_lzw"),
    "grey16.tiff": lambda: encode(sixteen_bit(), "TIFF"),
    "phone.heic": (CASES / "phone.heic").read_bytes,
    "camera.heif": lambda: encode(scene(11), "HEIF"),
    "phone.avif": (CASES / "phone.avif").read_bytes,
    "map.ppm": lambda: encode(scene(12), "PPM"),
    "exif_broken.jpg": (CASES / "exif_broken.jpg").read_bytes,
}
# What is refused, with the words for it that people are shown.
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "phone.jxl": (lambda: b"\xff\x0a" + bytes(20), "a JPEG XL picture"),
    "scan.jp2": (lambda: encode(scene(0), "JPEG2000"), "a JPEG 2000 picture"),
    "raw.nef": (lambda: tiff_of((254, 4, 1), maker=b"NIKON CORPORATION\0"), "a camera RAW file (NEF)"),
    "raw.arw": (lambda: tiff_of((254, 4, 1), maker=b"SONY\0"), "a camera RAW file (ARW)"),
    "raw.dng": (lambda: tiff_of((50706, 1, 1)), "a camera RAW file (DNG)"),
    "raw.cr2": (lambda: b"II*\0\x10\0\0\0CR\2\0" + bytes(99), "a camera RAW file (CR2)"),
    "raw.cr3": (lambda: b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera RAW file (CR3)"),
    "raw.raf": (lambda: b"FUJIFILMCCD-RAW 0201", "a camera RAW file (RAF)"),
    "raw.orf": (lambda: b"IIRO\x08\0\0\0", "a camera RAW file (ORF)"),
    "raw.rw2": (lambda: b"IIU\0\x18\0\0\0", "a camera RAW file (RW2)"),
    "trap.mp4": (lambda: b"\0\0\0\x18ftypisom", "a video (MP4 or MOV)"),
    "trap.mov": (lambda: b"\0\0\0\x14ftypqt  ", "a video (MP4 or MOV)"),
    "trap.avi": (lambda: b"RIFF\x24\0\0\0AVI LIST", "a video (AVI)"),
    "trap.mkv": (lambda: b"\x1aE\xdf\xa3" + bytes(30), "a video (Matroska or WebM)"),
    "layers.psd": (lambda: b"8BPS\0\1" + bytes(30), "a Photoshop file (PSD)"),
    "drawing.svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a drawing (SVG)"),
    "all.zip": (zip_archive, "a ZIP archive"),
    "report.pdf": (lambda: b"%PDF-1.7\n", "a PDF document"),
    "page.html": (lambda: b"<!DOCTYPE html><title>Sign in</title>", "an HTML page"),
    # Those that lie about what they are.
    "zeros.jpg": (lambda: bytes(5000), "full of zeros"),
    "empty.jpg": (lambda: b"", "empty"),
    "really_raw.jpg": (lambda: tiff_of((262, 3, 32803)), "a camera RAW file (TIFF/EP)"),
    "cut_short.jpg": (lambda: encode(scene(0).resize((400, 300)), "JPEG")[:3000], "damaged or cut short"),
}


def write_all(folder: Path) -> Path:
    """Write all of them below a folder, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in READ.items():
        (folder / name).write_bytes(make())
    for name, (make, _) in REFUSED.items():
        (folder / name).write_bytes(make())
    return folder


def data_of(name: str) -> bytes:
    """The bytes of the file with this name."""
    return READ[name]() if name in READ else REFUSED[name][0]()
