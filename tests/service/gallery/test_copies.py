import io
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from reid.data.images import decode
from reid.data.preprocessing import AS_SHOWN, Decoding
from service.gallery.copies import WEBP_SIDE, copy_of

pillow_heif.register_heif_opener()  # also writes HEIC
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SECRETS = (b"maker-of-cameras", b"at home", b"hidden", b"GPS", b"http")

STORED = Decoding(profiles=False)


def noise(size=(31, 21), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encode(form, image=None, **save):
    written = io.BytesIO()
    (image or noise()).save(written, form, **save)
    return written.getvalue()


def exif(orientation=1):
    said = Image.Exif()
    said[0x0112], said[0x010F], said[0x8825] = orientation, "maker-of-cameras", {1: "N", 2: (52.0, 31.0, 12.0)}
    return said


def chatty_png(**save):
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", "at home")
    words.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>http</x:xmpmeta>")
    return encode("PNG", pnginfo=words, exif=exif(), **save) + b"hidden words"


def with_chunk(data, chunk):
    """A PNG file with a chunk of four bytes more."""
    return data[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def with_gamma(data):
    return with_chunk(data, b"gAMA" + struct.pack(">I", 100_000))


P3 = b"cICP" + bytes([12, 13, 0, 1])


def wide_avif():
    data = encode("AVIF")
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">HH", 12, 13) + data[place + 4 :]


KEPT = {
    "plain.jpg": lambda: encode("JPEG"),
    "chatty.jpg": lambda: encode("JPEG", exif=exif(), comment="taken at home", xmp=b"<x>http</x>") + b"hidden words",
    "progressive.jpg": lambda: encode("JPEG", noise((300, 200)), progressive=True, exif=exif()),
    "restarts.jpg": lambda: encode("JPEG", noise((300, 200)), restart_marker_blocks=2),
    "profile.jpg": lambda: encode("JPEG", icc_profile=SRGB, exif=exif()),
    "grey.jpg": lambda: encode("JPEG", noise().convert("L"), exif=exif()),
    "two.mpo": lambda: encode("MPO", save_all=True, append_images=[noise(seed=1)], exif=exif()),
    **{f"turned-{n}.jpg": lambda n=n: encode("JPEG", exif=exif(n)) for n in range(2, 9)},
    "chatty.png": chatty_png,
    "profile.png": lambda: chatty_png(icc_profile=SRGB),
    "gamma.png": lambda: with_gamma(chatty_png()),
    "coded.png": lambda: with_chunk(chatty_png(), P3),
    "animated.png": lambda: encode("PNG", save_all=True, append_images=[noise(seed=1)]),
    "chatty.webp": lambda: encode("WEBP", exif=exif(), xmp=b"<x>http</x>", icc_profile=SRGB),
    "lossless.webp": lambda: encode("WEBP", exif=exif(), lossless=True),
}
ANEW = {
    "turned.png": lambda: encode("PNG", exif=exif(6)),
    "cmyk.jpg": lambda: encode("JPEG", noise().convert("CMYK")),
    "clear.png": lambda: encode("PNG", noise().convert("RGBA")),
    "key.png": lambda: encode("PNG", transparency=(1, 2, 3)),
    "palette.png": lambda: encode("PNG", noise().convert("P")),
    "sixteen.png": lambda: encode("PNG", Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 109)),
    "animated.webp": lambda: encode("WEBP", save_all=True, append_images=[noise(seed=1)], lossless=True),
    "photo.heic": lambda: encode("HEIF", noise((80, 64)), exif=exif().tobytes()),
    "photo.avif": lambda: encode("AVIF", exif=exif()),
    "coded.avif": wide_avif,
    "moving.gif": lambda: encode("GIF", save_all=True, append_images=[noise(seed=1)]),
    "photo.bmp": lambda: encode("BMP"),
    "photo.tif": lambda: encode("TIFF", exif=exif().tobytes()),
}


def require_alike(copy, data):
    for profiles in (True, False):
        kept, sent = decode(copy, Decoding(profiles)), decode(data, Decoding(profiles))
        assert np.array_equal(np.asarray(kept), np.asarray(sent))
    assert not any(secret in copy for secret in SECRETS)


@pytest.mark.parametrize("name", KEPT)
def test_what_a_browser_shows_is_kept_less_its_metadata(name):
    data = KEPT[name]()
    copy = copy_of(data, decode(data), AS_SHOWN)
    require_alike(copy, data)
    assert (len(copy) <= len(data) + 40 and copy[:4] == data[:4]) or name.startswith("turned")
    with Image.open(io.BytesIO(copy)) as opened:
        assert opened.format == {"jpg": "JPEG", "mpo": "JPEG", "png": "PNG", "webp": "WEBP"}[name.rpartition(".")[2]]
        assert set(dict(opened.getexif())) <= {0x0112}
        assert getattr(opened, "n_frames", 1) == 1
    assert copy_of(copy, decode(copy), AS_SHOWN) == copy


@pytest.mark.parametrize("name", ANEW)
def test_other_pictures_are_written_anew(name):
    data = ANEW[name]()
    copy = copy_of(data, decode(data), AS_SHOWN)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(copy))), np.asarray(decode(data)))
    assert copy[:4] == b"RIFF" and not any(secret in copy for secret in SECRETS)


def test_the_scan_of_a_jpeg_is_untouched():
    data = KEPT["chatty.jpg"]()
    scan = data[data.index(b"\xff\xda") : data.index(b"hidden words")]
    assert copy_of(data, decode(data), AS_SHOWN).endswith(scan)


def test_a_picture_too_wide_for_webp_is_written_as_png():
    data = encode("TIFF", Image.new("RGB", (WEBP_SIDE + 1, 2), "red"))
    copy = copy_of(data, decode(data), AS_SHOWN)
    assert copy.startswith(b"\x89PNG")
    require_alike(copy, data)


def test_a_profile_that_was_not_applied_stays_with_what_is_written_anew():
    swapped = encode("TIFF", icc_profile=SRGB)
    copy = copy_of(swapped, decode(swapped, STORED), STORED)
    assert Image.open(io.BytesIO(copy)).info["icc_profile"] == SRGB


@pytest.mark.parametrize("data", [wide_avif(), with_chunk(encode("PNG", noise().convert("RGBA")), P3)])
def test_colours_named_by_number_stay_where_they_were_not_applied(data):
    copy = copy_of(data, decode(data, STORED), STORED)
    assert P3 in copy
    require_alike(copy, data)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of much on the way to its errors
def test_damage_behind_the_header_costs_no_more_than_a_new_file():
    chance = np.random.default_rng(0)
    for name in ("progressive.jpg", "chatty.png", "chatty.webp"):
        data = KEPT[name]()
        image = decode(data)
        for _ in range(100):
            damaged = bytearray(data)
            damaged[chance.integers(12, len(data))] = chance.integers(256)
            copy = copy_of(bytes(damaged), image, AS_SHOWN)
            assert np.array_equal(np.asarray(decode(copy)), np.asarray(image))


def test_a_file_without_metadata_is_not_read_again(monkeypatch):
    data = encode("JPEG")
    image = decode(data, STORED)
    monkeypatch.setattr("service.gallery.copies.decode", lambda *_: pytest.fail("decoded again"))
    assert copy_of(data, image, STORED) == data
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        copy_of(encode("JPEG", exif=exif()), image, STORED)
