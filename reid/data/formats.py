"""What a file is, by its first bytes and never by its name."""

import struct

READ = "JPEG, PNG, WebP, BMP, GIF, TIFF, HEIC, AVIF or PPM"  # to people
PILLOW = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "HEIF", "AVIF", "PPM")  # to Pillow, whose JPEG is MPO too
HEAD = 4096  # bytes that tell

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes, by which BMP is told from text that begins with BM
_HEIF_BRANDS = frozenset(b"avif avis heic heix heim heis hevc hevm hevs hevx mif1 mif2 msf1".split())

# What is in the ZIP archive that a workbook or a document is.
_OFFICE = (b"[Content_Types].xml", b"mimetypeapplication/vnd.oasis", b"docProps/", b"xl/workbook")
_EXPORT_RAW = "export it as JPEG or HEIC"
_EXPORT = "export it as JPEG or PNG"
_UNPACK = "unpack it and give the folder"
_FRAMES = "take pictures out of it, as ffmpeg does"
# Where a file begins so: what it is, and what to do about it.
_BEGINNINGS = (
    (b"\xff\x0a", "a JPEG XL picture", _EXPORT),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture", _EXPORT),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture", _EXPORT),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture", _EXPORT),
    (b"FUJIFILMCCD-RAW", "a camera RAW file (RAF)", _EXPORT_RAW),
    (b"FOVb", "a camera RAW file (X3F)", _EXPORT_RAW),
    (b"\0MRM", "a camera RAW file (MRW)", _EXPORT_RAW),
    (b"IIRO", "a camera RAW file (ORF)", _EXPORT_RAW),
    (b"IIRS", "a camera RAW file (ORF)", _EXPORT_RAW),
    (b"MMOR", "a camera RAW file (ORF)", _EXPORT_RAW),
    (b"IIU\0", "a camera RAW file (RW2)", _EXPORT_RAW),
    (b"II\x1a\0\0\0HEAPCCDR", "a camera RAW file (CRW)", _EXPORT_RAW),
    (b"8BPS", "a Photoshop file (PSD)", _EXPORT),
    (b"gimp xcf", "a GIMP file (XCF)", _EXPORT),
    (b"\0\0\1\0", "an icon (ICO)", _EXPORT),
    (b"v/1\1", "an OpenEXR picture", _EXPORT),
    (b"%PDF", "a PDF document", "export its pictures as JPEG or PNG"),
    (b"%!PS", "a PostScript file", _EXPORT),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", _FRAMES),
    (b"\0\0\1\xba", "a video (MPEG)", _FRAMES),
    (b"\0\0\1\xb3", "a video (MPEG)", _FRAMES),
    (b"FLV\1", "a video (FLV)", _FRAMES),
    (b"0&\xb2u\x8ef\xcf\x11", "a video (WMV)", _FRAMES),
    (b"PK\3\4", "a ZIP archive", _UNPACK),
    (b"PK\5\6", "an empty ZIP archive", "expected pictures"),
    (b"7z\xbc\xaf'\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"\0\5\x16\7", "what a Mac notes about another file (AppleDouble)", "it holds no picture"),
    (b"version https://git-lfs", "a pointer of git-lfs to a file that is not here", "fetch it with `git lfs pull`"),
)
_RAW_OF_MAKERS = {"nikon": "NEF", "sony": "ARW", "pentax": "PEF", "canon": "CR2", "samsung": "SRW", "hasselblad": "3FR"}
# In the first directory of a TIFF file.
_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _MAKE, _DNG_VERSION = 254, 262, 271, 50706
_SHORT = 3
_SENSOR = (32803, 34892)  # photometric interpretations of what no one has made colours of yet


def is_picture(head: bytes) -> bool:
    """Whether a file that begins with `head` (HEAD bytes) is a picture of a format that is read."""
    if head.startswith(_TIFF):
        return not _raw_kind(head)
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS)
        or (head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS)
        or (head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace())
    )


def recognise(head: bytes) -> str:
    """What a file is that is no picture of a format that is read, and what to do about it; "" where nobody knows."""
    if head.startswith(b"PK\3\4") and any(name in head for name in _OFFICE):
        return "an office document, such as a workbook of Excel or LibreOffice: save its table as CSV (UTF-8)"
    for beginning, what, advice in _BEGINNINGS:
        if head.startswith(beginning):
            return f"{what}: {advice}"
    if head.startswith(_TIFF) and (kind := _raw_kind(head)):
        return f"a camera RAW file ({kind}): {_EXPORT_RAW}"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return f"a video (AVI): {_FRAMES}"
    if head[4:8] == b"ftyp" and head[8:12] == b"crx ":
        return f"a camera RAW file (CR3): {_EXPORT_RAW}"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide") and head[8:12] not in _HEIF_BRANDS:
        return f"a video (MP4 or MOV): {_FRAMES}"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text):
        return f"a drawing (SVG): {_EXPORT}"
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, which a download that failed leaves: download it again"
    if head and not any(head):
        return "full of zeros, as a copy that failed leaves it: copy it again"
    return ""


def refusal(head: bytes) -> str:
    """Why a file is not read, in words that follow "the file is"."""
    if not head:
        return "empty"
    return recognise(head) or f"no {READ} image, or its header is damaged"


def _raw_kind(head: bytes) -> str:
    """The usual suffix of the camera RAW file that a TIFF file is, whose first picture is but a preview; "" if none."""
    if head[8:10] == b"CR":
        return "CR2"
    tags = _first_directory(head)
    if _DNG_VERSION in tags:
        return "DNG"
    if not tags.get(_NEW_SUBFILE_TYPE, 0) & 1 and tags.get(_PHOTOMETRIC) not in _SENSOR:
        return ""
    maker = head[tags.get(_MAKE, len(head)) :][:20].decode("ascii", "replace").lower()
    return next((kind for name, kind in _RAW_OF_MAKERS.items() if maker.startswith(name)), "TIFF/EP")


def _first_directory(head: bytes) -> dict[int, int]:
    """The tags of a TIFF file's first directory, as far as `head` reaches: a short or long value, else its place."""
    order = "<" if head[:2] == b"II" else ">"
    tags: dict[int, int] = {}
    try:
        (start,) = struct.unpack_from(f"{order}I", head, 4)
        (entries,) = struct.unpack_from(f"{order}H", head, start)
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", head, entry)
            (tags[tag],) = struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", head, entry + 8)
    except struct.error:  # the directory lies further back; those of camera RAW files do not
        pass
    return tags
