"""Colours that a file names by number (Rec. ITU-T H.273): `cICP` of PNG, `nclx` of HEIC and AVIF."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

MOST = 4_000_000  # bytes of what an AVIF file says of its pictures; usual ones take some hundred
WHITE_NITS = 203  # what white paper has in PQ's light (Rec. ITU-R BT.2408)
HLG_WHITE = 0.75  # the value of white paper in HLG (Rec. ITU-R BT.2408)
HLG_A, HLG_B, HLG_C, HLG_SYSTEM = 0.17883277, 0.28466892, 0.55991073, 1.2  # Rec. ITU-R BT.2100

_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
# x, y of white, red, green and blue by number. Others, and 2, leave colours as they are.
PRIMARIES = {
    1: (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),  # BT.709 and sRGB
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),  # NTSC of 1953
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),  # PAL
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # NTSC
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # P3 of cinemas
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
# How values become light, by number. All others are taken as sRGB's: so screens show BT.709's, too.
_EXPONENTS = {4: 2.2, 5: 2.8, 8: 1.0}
PQ, HLG = 16, 18


class Coding(NamedTuple):
    """What of colours is named by number; `full` says that values go from 0 to 255, not from 16 to 235."""

    primaries: int
    transfer: int
    full: bool = True

    @property
    def is_srgb(self) -> bool:
        """Whether it leaves the pixels as they are, as it does where nothing is known of its numbers."""
        others = self.primaries in PRIMARIES.keys() - {1} or self.transfer in (*_EXPONENTS, PQ, HLG)
        return self.full and not others

    def light(self) -> npt.NDArray[np.float64]:
        """The light (256,) of each value of 8 bits, white being 1; more than white (PQ, HLG) is above it."""
        values = np.arange(256) / 255
        if not self.full:
            values = ((255 * values - 16) / 219).clip(0, 1)
        if self.transfer in _EXPONENTS:
            return np.asarray(values ** _EXPONENTS[self.transfer])
        if self.transfer == PQ:  # SMPTE ST 2084
            root = values ** (32 / 2523)
            light = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
            return np.asarray(10_000 / WHITE_NITS * light ** (8192 / 1305))
        if self.transfer == HLG:
            return np.asarray((_hlg(values) / _hlg(np.array(HLG_WHITE))) ** HLG_SYSTEM)
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1


def _hlg(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(values <= 0.5, values**2 / 3, (np.exp((values - HLG_C) / HLG_A) + HLG_B) / 12)


def coding_of(file: BinaryIO, head: bytes) -> Coding | None:
    """What a PNG or AVIF file, which begins with `head`, says of its colours by number; None where it says nothing.

    The file is left at its beginning. Pillow tells of HEIC alone.
    """
    try:
        if head.startswith(b"\x89PNG"):
            return _of_png(file)
        return _of_avif(file) if head[4:8] == b"ftyp" and b"avi" in head[8:12] + head[16:64] else None
    except (struct.error, LookupError, ValueError):  # damaged, which the decoder finds too
        return None
    finally:
        file.seek(0)


def _of_png(file: BinaryIO) -> Coding | None:
    file.seek(8)
    while len(start := file.read(8)) == 8 and start[4:] not in (b"IDAT", b"IEND"):
        if start[4:] == b"cICP":
            primaries, transfer, _, full = file.read(4)
            return Coding(primaries, transfer, bool(full))
        file.seek(4 + int.from_bytes(start[:4], "big"), 1)
    return None


def _of_avif(file: BinaryIO) -> Coding | None:
    """What the first picture's properties say (ISO/IEC 23008-12)."""
    file.seek(0)
    while len(start := file.read(8)) == 8:
        size = int.from_bytes(start[:4], "big")
        if start[4:] == b"meta":
            return _of_properties(file.read(min(size - 8, MOST)))
        if size < 8:
            return None
        file.seek(size - 8, 1)
    return None


def _of_properties(meta: bytes) -> Coding | None:
    parts = dict(_boxes(meta[4:]))
    properties = dict(_boxes(parts.get(b"iprp", b"")))
    kept = list(_boxes(properties.get(b"ipco", b"")))
    for number in _properties_of(parts[b"pitm"], properties[b"ipma"]):
        kind, content = kept[number - 1]
        if kind == b"colr" and content[:4] == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            return Coding(primaries, transfer)  # the decoder has made full range of it
    return None


def _properties_of(first: bytes, associations: bytes) -> list[int]:
    """The numbers, from 1, of the properties that the first picture has."""
    wanted = int.from_bytes(first[4:8] if first[0] else first[4:6], "big")
    version, wide = associations[0], associations[3] & 1
    (entries,) = struct.unpack_from(">I", associations, 4)
    place = 8
    for _ in range(entries):
        item, place = _number(associations, place, 4 if version else 2)
        count, place = _number(associations, place, 1)
        numbers = []
        for _ in range(count):
            number, place = _number(associations, place, 2 if wide else 1)
            numbers.append(number & (0x7FFF if wide else 0x7F))
        if item == wanted:
            return numbers
    return []


def _number(data: bytes, place: int, length: int) -> tuple[int, int]:
    """An unsigned number, and the place behind it; raises IndexError where there is no more."""
    if place + length > len(data):
        raise IndexError(place)
    return int.from_bytes(data[place : place + length], "big"), place + length


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if size < 8:
            return
        yield data[place + 4 : place + 8], data[place + 8 : place + size]
        place += size
