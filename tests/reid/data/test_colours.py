import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from reid.data.images import decode, upright_rgb
from reid.data.preprocessing import Decoding

# Colorants (X, Y, Z under D50) of Adobe RGB (1998) and of sRGB, as the ICC's profiles of both have them.
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
SRGB_FILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile(space, colorants=(), gamma=2.2):
    """An ICC profile of version 2 of the colours' matrix and a power law, as the specification lays it out."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    words = {b"desc": b"desc\0\0\0\0\0\0\0\2a\0" + bytes(80), b"cprt": b"text\0\0\0\0a\0\0\0"}
    tags = {b"wtpt": xyz((0.9642, 1, 0.8249)), **words}
    names = {b"RGB ": (b"rTRC", b"gTRC", b"bTRC"), b"GRAY": (b"kTRC",)}[space]
    tags |= dict.fromkeys(names, curve) | dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, colorants), strict=False))
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I", start + len(body)) + b"\0\0\0\0\2\x10\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    header += bytes(68 - len(header)) + struct.pack(">3i", 63190, 65536, 54061)
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + body


def to_screen(linear):
    """The transfer function of IEC 61966-2-1."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def noise(mode="RGB"):
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def encode(image, form="PNG", **save):
    written = io.BytesIO()
    image.save(written, form, **save)
    return written.getvalue()


def pixels(image):
    return np.asarray(image).astype(float)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_adobe_rgb_becomes_srgb(form):
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(noise(), form, icc_profile=profile(b"RGB ", ADOBE, 563 / 256), **options)
    linear = (pixels(noise()) / 255) ** (563 / 256)
    expected = to_screen(linear @ np.array(ADOBE) @ np.linalg.inv(np.array(SRGB)))
    image = decode(data)
    assert np.abs(pixels(image) - expected).max() <= 2
    assert np.abs(pixels(image) - pixels(noise())).max() > 30
    assert not image.info


def test_a_grey_profile_is_applied_to_grey_and_to_nothing_else():
    data = encode(noise("L"), icc_profile=profile(b"GRAY", gamma=1.5))
    expected = to_screen((pixels(noise("L")) / 255) ** 1.5)[..., None]
    assert np.abs(pixels(decode(data)) - expected).max() <= 2
    colour = encode(noise(), icc_profile=profile(b"GRAY", gamma=1.5))
    assert np.array_equal(pixels(decode(colour)), pixels(noise()))


@pytest.mark.parametrize("given", [SRGB_FILE, b"no profile", profile(b"RGB ", ADOBE)[:200]])
def test_pixels_stay_with_srgb_and_with_damaged_profiles(given):
    assert np.array_equal(pixels(decode(encode(noise(), "TIFF", icc_profile=given))), pixels(noise()))


def test_a_palette_and_what_is_transparent_are_converted_too():
    adobe = profile(b"RGB ", ADOBE)
    paletted = noise().quantize(16)
    expected = pixels(decode(encode(paletted.convert("RGB"), icc_profile=adobe)))
    assert np.array_equal(pixels(decode(encode(paletted, icc_profile=adobe))), expected)
    clear = noise().convert("RGBA")
    clear.putalpha(0)
    assert (pixels(decode(encode(clear, icc_profile=adobe))) == 255).all()


def test_cmyk_is_converted_by_its_profile_where_it_has_one():
    """Against the naive way, which is kept where there is none or another kind of profile."""
    naive = decode(encode(noise("CMYK"), "TIFF"))
    assert np.array_equal(pixels(naive), pixels(noise("CMYK").convert("RGB")))
    assert np.array_equal(pixels(decode(encode(noise("CMYK"), "TIFF", icc_profile=SRGB_FILE))), pixels(naive))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_gamma(data, gamma, *others):
    """A PNG file with these chunks after its header."""
    return data[:33] + b"".join([*others, chunk(b"gAMA", struct.pack(">I", gamma))]) + data[33:]


@pytest.mark.parametrize("gamma", [100_000, 55_556, 25_000])
def test_the_gamma_of_png_is_applied(gamma):
    expected = 255 * (pixels(noise()) / 255) ** (1 / (gamma / 100_000 * 2.2))
    assert np.abs(pixels(decode(with_gamma(encode(noise()), gamma))) - expected).max() <= 0.5 + 1e-6


def test_a_gamma_of_screens_and_one_beside_srgb_change_nothing():
    for data in (
        with_gamma(encode(noise()), 45_455),
        with_gamma(encode(noise()), 100_000, chunk(b"sRGB", b"\0")),
        with_gamma(encode(noise()), 0),
    ):
        assert np.array_equal(pixels(decode(data)), pixels(noise()))


def primaries(*values):
    return chunk(b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in values)))


def test_the_primaries_of_png_are_those_of_the_same_profile():
    """White, red, green and blue of Adobe RGB (1998), as cHRM and as ICC profile; and sRGB's own change nothing."""
    adobe = primaries(0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
    named = with_gamma(encode(noise()), round(100_000 / 2.19921875), adobe)
    profiled = encode(noise(), icc_profile=profile(b"RGB ", ADOBE, 2.19921875))
    assert np.abs(pixels(decode(named)) - pixels(decode(profiled))).max() <= 2
    assert np.abs(pixels(decode(named)) - pixels(noise())).max() > 20
    own = primaries(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
    assert np.array_equal(pixels(decode(with_gamma(encode(noise()), 45_455, own))), pixels(noise()))
    for senseless in (primaries(*[0.3] * 8), primaries(*[0] * 8)):
        assert np.array_equal(pixels(decode(with_gamma(encode(noise()), 45_455, senseless))), pixels(noise()))
    warm = primaries(0.3457, 0.3585, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)  # white of D50 stays white
    white = with_gamma(encode(Image.new("RGB", (9, 9), "white")), 45_455, warm)
    assert (pixels(decode(white)) >= 254).all()


def coded(form, *codes):
    """A picture of one colour whose file names primaries and transfer by number."""
    image = Image.new("RGB", (32, 32), (200, 80, 40))
    if form == "PNG":
        data = encode(image)
        return data[:33] + chunk(b"cICP", bytes([*codes, 0, 1])) + data[33:]
    if form == "HEIF":
        names = ("color_primaries", "transfer_characteristics", "matrix_coefficients", "full_range_flag")
        return encode(image, form, quality=100, chroma=444, **dict(zip(names, (*codes, 6, 1), strict=True)))
    data = encode(image, form, quality=100, subsampling="4:4:4")
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">HH", *codes) + data[place + 4 :]


# To sRGB's primaries from those of BT.2020 (Rec. ITU-R BT.2087) and of Display P3 (CSS Color 4).
BT2020 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
P3 = ((1.2249, -0.2249, 0), (-0.0421, 1.0421, 0), (-0.0196, -0.0786, 1.0983))
LINEAR = (np.array([200, 80, 40]) / 255 + 0.055) ** 2.4 / 1.055**2.4  # by sRGB's curve
# By PQ these are 1,574, 12.2 and 1.9 nits (ST 2084), of which 203 are white; by HLG 0.4213, 0.0328 and 0.0082 of the
# most that is there, and white 0.2650 (BT.2100), all to the power of 1.2.
PQ, HLG = np.array([1574, 12.2, 1.9]) / 203, (np.array([0.4213, 0.0328, 0.0082]) / 0.2650) ** 1.2


@pytest.mark.parametrize("form", ["PNG", "HEIF", "AVIF"])
@pytest.mark.parametrize(
    ("codes", "linear"),
    [
        ((1, 13), LINEAR),
        ((2, 2), LINEAR),
        ((1, 1), LINEAR),
        ((12, 13), P3 @ LINEAR),
        ((12, 1), P3 @ LINEAR),
        ((9, 14), BT2020 @ LINEAR),
        ((9, 16), BT2020 @ PQ),
        ((9, 18), BT2020 @ HLG),
        ((1, 8), np.array([200, 80, 40]) / 255),
    ],
)
def test_colours_named_by_number_become_srgb(form, codes, linear):
    data = coded(form, *codes)
    assert np.abs(pixels(decode(data))[16, 16] - to_screen(linear)).max() <= (1.5 if form == "PNG" else 4)
    stored = decode(data, Decoding(profiles=False))
    assert np.abs(pixels(stored)[16, 16] - (200, 80, 40)).max() <= 2
    assert np.array_equal(pixels(upright_rgb(stored)), pixels(decode(data)))


def test_numbers_go_before_a_profile_in_png_alone_and_may_mean_less_than_the_full_range():
    adobe = profile(b"RGB ", ADOBE)
    data = encode(noise(), icc_profile=adobe)
    data = data[:33] + chunk(b"cICP", bytes([1, 13, 0, 1])) + data[33:]
    assert np.array_equal(pixels(decode(data)), pixels(noise()))
    for unknown in ((200, 13), (1, 200)):
        assert (pixels(decode(coded("PNG", *unknown))) == (200, 80, 40)).all()
    profiled = encode(noise(), "AVIF", icc_profile=adobe)
    assert np.abs(pixels(decode(profiled)) - pixels(decode(profiled, Decoding(profiles=False)))).max() > 20
    narrow = np.rint(16 + pixels(noise()) / 255 * 219).astype(np.uint8)
    data = encode(Image.fromarray(narrow))
    data = data[:33] + chunk(b"cICP", bytes([1, 13, 0, 0])) + data[33:]
    assert np.abs(pixels(decode(data)) - pixels(noise())).max() <= 1.5
    for damaged in (data[:50], coded("AVIF", 12, 13)[:240]):
        with pytest.raises(ValueError, match="damaged"):
            decode(damaged)


def test_without_profiles_pixels_are_as_stored_and_can_be_converted_later():
    for data in (encode(noise(), icc_profile=profile(b"RGB ", ADOBE)), with_gamma(encode(noise()), 100_000)):
        stored = decode(data, Decoding(profiles=False))
        assert np.array_equal(pixels(stored), pixels(noise()))
        assert np.array_equal(pixels(upright_rgb(stored, Decoding(profiles=False))), pixels(noise()))
        assert np.array_equal(pixels(upright_rgb(stored)), pixels(decode(data)))
        assert not np.array_equal(pixels(decode(data)), pixels(noise()))


def test_sixteen_bit_grey_of_the_transparent_value_is_white():
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) * 109
    image = Image.fromarray(values)
    shown = pixels(decode(encode(image, transparency=int(values[3, 4]))))[..., 0]
    expected = np.rint(values / 257)
    expected[3, 4] = 255
    assert np.array_equal(shown, expected)


def test_lab_is_converted():
    lab = Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (255, 128, 128)])
    assert (pixels(decode(encode(lab, "TIFF"))) >= 254).all()
