import io
import random
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image, ImageFile

from reid.data.images import (
    MAX_SIDE,
    UnknownFormat,
    UnusableImage,
    decode,
    max_pixels,
    read_image,
    upright_rgb,
    upright_size,
)
from reid.data.preprocessing import Decoding
from tests.drawn import (
    SRGB,
    clear_palette,
    encode,
    frames,
    noise,
    oriented,
    pixels,
    png_chunk,
    png_of_size,
    sixteen_bit,
    zip_archive,
)
from tests.formats import tiff_of

pillow_heif.register_heif_opener()  # also writes HEIC here
CASES = Path(__file__).with_name("cases")
FORMS = {"jpg": "JPEG", "tif": "TIFF", "png": "PNG", "heic": "HEIF", "avif": "AVIF"}


def picture_of(size=(30, 20)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def picture(path, size=(30, 20), mode="RGB", **save):
    picture_of(size).convert(mode).save(path, **save)
    return path


def stored(size=(30, 20)):
    return np.asarray(picture_of(size))


def test_eight_bits_a_channel_stay_as_they_are(tmp_path):
    for name in ("a.png", "a.bmp", "a.ppm"):
        assert np.array_equal(np.asarray(read_image(picture(tmp_path / name))), stored())
    with Image.open(picture(tmp_path / "a.jpg")) as opened:
        assert np.array_equal(np.asarray(read_image(tmp_path / "a.jpg")), np.asarray(opened))


def test_grey_and_palettes_become_their_colours(tmp_path):
    grey = read_image(picture(tmp_path / "grey.png", mode="L"))
    assert np.array_equal(np.asarray(grey), np.repeat(np.asarray(picture_of().convert("L"))[..., None], 3, axis=2))
    paletted = picture_of().quantize(16)
    paletted.save(tmp_path / "palette.png")
    colours = np.array(paletted.getpalette()).reshape(-1, 3)
    assert np.array_equal(np.asarray(read_image(tmp_path / "palette.png")), colours[np.asarray(paletted)])
    bits = np.random.default_rng(0).integers(0, 2, (20, 30)).astype(bool)
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "bits.png"))[..., 1], 255 * bits)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", np.uint16), ("a.tif", np.uint16), ("big.tif", ">u2"), ("a.tif", np.int32), ("a.pgm", np.int32)],
)
def test_sixteen_bits_keep_their_brightness(tmp_path, name, kind):
    values = np.random.default_rng(0).integers(0, 65536, (20, 30))
    values[0, :4] = 0, 128, 129, 65535
    if name == "a.pgm":
        (tmp_path / name).write_bytes(b"P5 30 20 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values.astype(kind)).save(tmp_path / name)
    image = read_image(tmp_path / name)
    expected = np.array([[round(255 * int(value) / 65535) for value in row] for row in values])
    assert image.mode == "RGB"
    assert all(np.array_equal(np.asarray(channel), expected) for channel in image.split())


def test_sixteen_bits_have_a_fixed_range(tmp_path):
    Image.fromarray(np.array([[-5, 0, 65535, 10**6]], np.int32)).save(tmp_path / "a.tif")
    assert np.asarray(read_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 0, 255, 255]


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((3, 3), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a.tif: .* floating-point numbers of unknown range, expected 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["rgba.png", "rgba.webp", "grey.png", "palette.png", "key.png"])
def test_the_transparent_lies_over_white(tmp_path, name):
    colours, alpha = stored(), np.tile(np.array([0, 1, 100, 254, 255]), (20, 6))
    layer = Image.fromarray(np.dstack([colours, alpha.astype(np.uint8)]))
    if name == "grey.png":
        layer = layer.convert("LA")
        colours = np.asarray(layer)[..., :1]
        layer.save(tmp_path / name)
    elif name == "palette.png":
        paletted = picture_of().quantize(16)
        levels = np.arange(0, 256, 17)
        colours = np.array(paletted.getpalette()).reshape(-1, 3)[np.asarray(paletted)]
        alpha = levels[np.asarray(paletted)]
        paletted.save(tmp_path / name, transparency=bytes(levels.tolist()))
    elif name == "key.png":
        alpha = np.where((colours == colours[3, 3]).all(axis=2), 0, 255)
        picture_of().save(tmp_path / name, transparency=tuple(colours[3, 3].tolist()))
    else:
        layer.save(tmp_path / name, lossless=True, exact=True)
    shown = np.asarray(read_image(tmp_path / name)).astype(float)
    share = alpha[..., None] / 255
    assert (alpha == 0).any() and (alpha == 255).any()
    assert np.abs(shown - (share * colours + (1 - share) * 255)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("marked", [True, False])
def test_cmyk_is_inverted_as_adobe_does(tmp_path, marked):
    """Red, as no cyan, all magenta and yellow; also where the marker of Adobe is missing."""
    path = tmp_path / "red.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100)
    data = path.read_bytes()
    assert data[2:4] == b"\xff\xee" and data[6:11] == b"Adobe"
    if not marked:
        path.write_bytes(data[:2] + data[4 + int.from_bytes(data[4:6], "big") :])
    assert read_image(path).getpixel((8, 8)) == (255, 0, 0)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_the_first_frame_counts(tmp_path, name):
    colours = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    colours[0].save(
        tmp_path / name, save_all=True, append_images=colours[1:], **{"lossless": True} if "w" in name else {}
    )
    with Image.open(tmp_path / name) as opened:
        assert opened.n_frames == 3
    assert read_image(tmp_path / name).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_pictures_are_turned_upright(tmp_path, name):
    """By where the EXIF standard says that row 0 and column 0 of what is stored lie in the picture."""
    as_it_lies = np.asarray(read_image(picture(tmp_path / name)))
    upright = {
        1: as_it_lies,  # row 0 at the top, column 0 at the left
        2: as_it_lies[:, ::-1],  # top, right
        3: as_it_lies[::-1, ::-1],  # bottom, right
        4: as_it_lies[::-1],  # bottom, left
        5: as_it_lies.transpose(1, 0, 2),  # left, top
        6: as_it_lies.transpose(1, 0, 2)[:, ::-1],  # right, top
        7: as_it_lies.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
        8: as_it_lies.transpose(1, 0, 2)[::-1],  # left, bottom
    }
    for orientation, expected in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert np.array_equal(np.asarray(read_image(picture(tmp_path / name, exif=exif))), expected)


def test_box_is_cut_in_upright_pixels(tmp_path):
    whole = picture(tmp_path / "a.png")
    box = read_image(whole, (5, 4, 10, 6))
    assert box.size == (10, 6)
    assert np.array_equal(np.array(box), np.array(read_image(whole))[4:10, 5:15])


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 31, 5), (0, 0, 5, 0), (25, 18, 5, 3)])
def test_a_box_outside_is_refused(tmp_path, box):
    with pytest.raises(ValueError, match=r"a.png: box x=.* lies outside the image of 30x20 pixels"):
        read_image(picture(tmp_path / "a.png"), box)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "half.jpg").write_bytes(picture(tmp_path / "a.jpg", (200, 200)).read_bytes()[:3000])
    (tmp_path / "half.png").write_bytes(picture(tmp_path / "a.png", (200, 200)).read_bytes()[:3000])
    for name, message in [
        ("empty.jpg", "the file is empty"),
        ("text.jpg", "the file is no JPEG, PNG, .* image, or its header is damaged"),
        ("half.jpg", r"the image is damaged or cut short \(.*truncated"),
        ("half.png", "the image is damaged or cut short"),
    ]:
        with pytest.raises(ValueError, match=rf"{name}: {message}"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent.jpg: no such image"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(ValueError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png", "a.heic", "a.avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_from_the_header_is_that_of_the_upright_image(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    encoded = encode(Image.new("RGB", (150, 100)), FORMS[name[2:]], exif=exif.tobytes())
    (tmp_path / name).write_bytes(encoded)
    assert upright_size(tmp_path / name) == read_image(tmp_path / name).size
    assert read_image(tmp_path / name).size == ((100, 150) if orientation >= 5 else (150, 100))


def test_a_header_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a.jpg: the file is no JPEG, PNG, .* image"):
        upright_size(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"b.jpg: no such image"):
        upright_size(tmp_path / "b.jpg")


ACCEPTED = (
    {
        "rgb.jpg": lambda: encode(noise(), "JPEG"),
        "progressive.jpg": lambda: encode(noise(), "JPEG", progressive=True),
        "grey.jpg": lambda: encode(noise().convert("L"), "JPEG"),
        "cmyk.jpg": lambda: encode(noise().convert("CMYK"), "JPEG"),
        "profile.jpg": lambda: encode(noise(), "JPEG", icc_profile=SRGB, comment="taken at home"),
        "several.jpg": lambda: frames("MPO"),  # as many phones write it
        "jpeg_and_zip.jpg": lambda: encode(noise(), "JPEG") + zip_archive(),
        "jpeg_and_html.jpg": lambda: encode(noise(), "JPEG") + b"<html><script>alert(1)</script></html>",
        "rgb.png": lambda: encode(noise(), "PNG"),
        "alpha.png": lambda: encode(Image.merge("RGBA", [*noise().split(), noise().convert("L")]), "PNG"),
        "grey_alpha.png": lambda: encode(Image.merge("LA", noise().split()[:2]), "PNG"),
        "key.png": lambda: encode(noise(), "PNG", transparency=noise().getpixel((3, 3))),
        "one_bit.png": lambda: encode(noise().convert("1"), "PNG"),
        "sixteen_bit.png": lambda: encode(sixteen_bit(), "PNG"),
        "palette.png": lambda: encode(noise().convert("P"), "PNG"),
        "palette_clear.png": clear_palette,
        "animated.png": lambda: frames("PNG"),
        "profile.png": lambda: encode(noise(), "PNG", icc_profile=SRGB),
        "wide.png": lambda: encode(noise((MAX_SIDE, 1)), "PNG"),
        "lossy.webp": lambda: encode(noise(), "WEBP"),
        "alpha.webp": lambda: encode(noise().convert("RGBA"), "WEBP", lossless=True),
        "animated.webp": lambda: frames("WEBP"),
        "first.gif": lambda: frames("GIF"),
        "first.tif": lambda: frames("TIFF"),
        "lzw.tif": lambda: encode(noise(), "TIFF", compression="tiff_lzw"),
        "rgb.avif": lambda: encode(noise(), "AVIF"),
        "rgb.heic": lambda: encode(noise(), "HEIF"),
        "rgb.ppm": lambda: encode(noise(), "PPM"),
        "rgb.bmp": lambda: encode(noise(), "BMP"),
        "palette.bmp": lambda: encode(noise().convert("P"), "BMP"),
        "jpeg_inside.png": lambda: encode(noise(), "JPEG"),  # the bytes decide, not the name
    }
    | {
        f"orientation_{n}.{extension}": lambda n=n, form=form: encode(noise(), form, exif=oriented(n))
        for n in range(1, 9)
        for extension, form in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"))
    }
)
UNKNOWN = {
    "empty": lambda: b"",
    "text": lambda: b"no image at all",
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>',
    "icon": lambda: encode(noise(), "ICO"),
    "html_before_jpeg": lambda: b"<html>" + encode(noise(), "JPEG"),
    "zip": zip_archive,
    "only_magic": lambda: b"\xff\xd8\xff",
}
UNUSABLE = {
    "half_jpeg": lambda: encode(noise((200, 200)), "JPEG")[:8000],
    "half_png": lambda: encode(noise((200, 200)), "PNG")[:8000],
    "half_webp": lambda: encode(noise((200, 200)), "WEBP")[:4000],
    "half_bmp": lambda: encode(noise((200, 200)), "BMP")[:8000],
    "too_many_pixels": lambda: png_of_size(10_001, 12_000),
    "bomb_that_pillow_warns_of": lambda: png_of_size(12_000, 12_000),
    "bomb_that_pillow_refuses": lambda: png_of_size(14_000, 14_000),
    "too_wide": lambda: png_of_size(MAX_SIDE + 1, 1),
    "too_high": lambda: png_of_size(1, MAX_SIDE + 1),
    "text_bomb": lambda: (
        png_of_size(2, 2)[:33] + png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7))) + png_of_size(2, 2)[33:]
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_upload_has_the_pixels_that_are_measured(tmp_path, name):
    data = ACCEPTED[name]()
    (tmp_path / name).write_bytes(data)
    image, measured = decode(data), read_image(tmp_path / name)
    assert image.mode == "RGB"
    assert np.array_equal(pixels(image), pixels(measured))
    assert not image.info and not measured.info


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_no_picture_of_ours_is_refused(name):
    with pytest.raises(UnknownFormat, match=r"^the file is (empty|no JPEG, PNG, .* or PPM image.*|an? .*: .*)$"):
        decode(UNKNOWN[name]())


@pytest.mark.parametrize("name", UNUSABLE)
def test_damaged_and_huge_pictures_are_refused(name):
    with pytest.raises(UnusableImage, match=r"^the image (is damaged or cut short \(.+\)|has .* expected at most .*)$"):
        decode(UNUSABLE[name]())


@pytest.mark.parametrize("size", [(12_000, 12_000), (10_001, 12_000), (MAX_SIDE + 1, 1)])
def test_too_large_is_refused_by_the_header(monkeypatch, size):
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
    with pytest.raises(UnusableImage, match="expected at most"):
        decode(png_of_size(*size))
    assert decoded == []


def test_the_limit_is_a_setting(monkeypatch):
    with pytest.raises(
        UnusableImage, match=r"12,000 x 12,000 = 144,000,000 pixels, expected at most 120,000,000 \(REID_"
    ):
        decode(png_of_size(12_000, 12_000))
    monkeypatch.setenv("REID_MAX_MEGAPIXELS", "0.0006")
    assert decode(png_of_size(20, 30)).size == (20, 30)
    with pytest.raises(UnusableImage, match="21 x 30 = 630 pixels, expected at most 600 "):
        decode(png_of_size(21, 30))


def test_pillows_own_limit_of_89_megapixels_does_not_hold():
    assert decode(png_of_size(10_000, 9_000)).size == (10_000, 9_000)


@pytest.mark.parametrize("given", ["0", "-1", "many", "inf", "nan"])
def test_a_limit_that_is_none_is_refused_by_its_name(monkeypatch, given):
    monkeypatch.setenv("REID_MAX_MEGAPIXELS", given)
    with pytest.raises(
        ValueError, match=rf"^REID_MAX_MEGAPIXELS is '{given}', expected a number above 0, such as 120$"
    ):
        max_pixels()


@pytest.mark.filterwarnings("ignore")  # Pillow warns of much on the way to its errors
def test_damage_of_any_kind_gives_a_picture_or_one_clear_line(monkeypatch):
    monkeypatch.setenv("REID_MAX_MEGAPIXELS", "1")
    chance = random.Random(0)
    whole = [ACCEPTED[name]() for name in ACCEPTED if name != "wide.png"]
    refused = 0
    for _ in range(2_000):
        damaged = bytearray(chance.choice(whole))
        for _ in range(chance.choice((1, 3, 20))):
            damaged[chance.randrange(min(len(damaged), 300))] = chance.randrange(256)
        try:
            assert decode(bytes(damaged)).mode == "RGB"
        except (UnknownFormat, UnusableImage) as error:
            refused += 1
            assert str(error).isprintable()
            assert not any(sign in str(error) for sign in ("/", "BytesIO", "0x"))
    assert 100 < refused < 2_000


REFUSED = {
    "a JPEG XL picture: export it": [b"\xff\x0a" + bytes(20), b"\0\0\0\x0cJXL \r\n\x87\n"],
    "a camera RAW file (NEF): export it as JPEG or HEIC": [tiff_of((254, 4, 1), maker=b"NIKON CORPORATION\0")],
    "a camera RAW file (ARW): export it as JPEG or HEIC": [tiff_of((254, 4, 1), maker=b"SONY\0")],
    "a camera RAW file (DNG): export it as JPEG or HEIC": [tiff_of((50706, 1, 1))],
    "a camera RAW file (TIFF/EP): export it as JPEG or HEIC": [tiff_of((262, 3, 32803))],
    "a camera RAW file (CR2): export it as JPEG or HEIC": [b"II*\0\x10\0\0\0CR\2\0" + bytes(99)],
    "a camera RAW file (CR3): export it as JPEG or HEIC": [b"\0\0\0\x18ftypcrx \0\0\0\1"],
    "a camera RAW file (RAF): export it as JPEG or HEIC": [b"FUJIFILMCCD-RAW 0201"],
    "a video (MP4 or MOV): ": [b"\0\0\0\x18ftypisom", b"\0\0\0\x14ftypqt  ", b"\0\0\0\x08wide\0\0\0\0mdat"],
    "a video (AVI): ": [b"RIFF\x24\0\0\0AVI LIST"],
    "a Photoshop file (PSD): ": [b"8BPS\0\1"],
    "a drawing (SVG): ": [b"<svg xmlns='a'/>", b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg/>"],
    "a ZIP archive: unpack it and give the folder": [zip_archive()],
    "an HTML page, ": [b"\n<!DOCTYPE html><title>Sign in</title>", b"<html lang='en'>"],
    "a pointer of git-lfs to a file that is not here: fetch it with `git lfs pull`": [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    ],
    "what a Mac notes about another file (AppleDouble): ": [b"\0\5\x16\7"],
    "full of zeros, ": [bytes(5000)],
    "empty": [b""],
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_people_send_instead_is_called_by_its_name(tmp_path, said):
    for data in REFUSED[said]:
        with pytest.raises(UnknownFormat) as refused:
            decode(data)
        assert str(refused.value).startswith(f"the file is {said}")
        (tmp_path / "photo.jpg").write_bytes(data)
        with pytest.raises(UnknownFormat) as refused:
            read_image(tmp_path / "photo.jpg")
        assert str(refused.value).startswith(f"{tmp_path}/photo.jpg: the file is {said}")


def test_a_phones_heic_and_avif_are_read_upright():
    for name, size in (("phone.heic", (240, 320)), ("phone.avif", (320, 240))):
        assert read_image(CASES / name).size == upright_size(CASES / name) == size


def test_of_two_views_the_first_counts():
    data = (CASES / "two_views.mpo").read_bytes()
    first = Image.open(io.BytesIO(data))
    assert first.n_frames == 2 and np.array_equal(pixels(decode(data)), pixels(first.convert("RGB")))


def test_damaged_exif_leaves_a_picture_as_it_lies():
    """Its pixels are those of the same file without the segment."""
    data = (CASES / "exif_broken.jpg").read_bytes()
    start = data.index(b"\xff\xe1")
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    image = decode(data)
    assert np.array_equal(pixels(image), pixels(decode(data[:start] + data[start + 2 + length :])))
    assert upright_size(CASES / "exif_broken.jpg") == image.size == (320, 240)
    assert np.array_equal(pixels(upright_rgb(image)), pixels(image))  # again, as an Embedder does it


def photo(size=(800, 600)):
    """Large shapes with texture, as of a camera."""
    fine = np.random.default_rng(0).normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(picture_of((16, 12)).resize(size, 3)) + fine).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("enough", "size"),
    [
        ((600, 800), (800, 600)),
        ((301, 100), (800, 600)),
        ((300, 400), (400, 300)),
        ((300, 300), (400, 300)),
        ((150, 160), (200, 150)),
        ((75, 100), (100, 75)),
        ((2, 2), (100, 75)),
        ((2000, 2), (800, 600)),
    ],
)
def test_large_jpegs_are_decoded_at_a_scale_that_is_enough(tmp_path, enough, size):
    how = Decoding(enough=enough)
    for form in ("JPEG", "MPO"):
        for orientation in (1, 6):
            data = encode(photo(), form, exif=oriented(orientation), quality=95)
            upright = size if orientation == 1 else size[::-1]
            wanted = how if orientation == 1 else Decoding(enough=enough[::-1])
            assert decode(data, wanted).size == upright
            (tmp_path / "a.jpg").write_bytes(data)
            assert read_image(tmp_path / "a.jpg", how=wanted).size == upright
            assert read_image(tmp_path / "a.jpg", (0, 0, 600, 600), wanted).size == (600, 600)  # a box has its pixels
            assert (
                upright_size(data) == upright_size(tmp_path / "a.jpg") == ((800, 600)[:: 1 if orientation == 1 else -1])
            )
            with Image.open(tmp_path / "a.jpg") as opened:
                assert upright_rgb(opened, wanted).size == upright
    for other in (encode(photo(), "PNG"), encode(photo().convert("CMYK"), "JPEG")):
        assert decode(other, how).size == (800, 600)


def test_a_scaled_picture_shows_the_same():
    """Once more reduced, to what a model takes, it is the whole picture reduced, but for the last bit or two."""
    data = encode(photo(), "JPEG", quality=95)
    scaled = decode(data, Decoding(enough=(300, 400))).resize((100, 75), Image.Resampling.BICUBIC)
    whole = decode(data).resize((100, 75), Image.Resampling.BICUBIC)
    difference = pixels(scaled).astype(int) - pixels(whole)
    assert np.abs(difference).mean() < 0.5 and abs(difference.mean()) < 0.05 and np.abs(difference).max() <= 4
