import numpy as np
import pytest
from PIL import ExifTags, Image

from reid.data.images import read_image, upright_size


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
        ("text.jpg", "not an image that Pillow can read"),
        ("half.jpg", "cannot be read as an image .*truncated"),
        ("half.png", "cannot be read as an image"),
    ]:
        with pytest.raises(ValueError, match=rf"{name}: {message}"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent.jpg: no such image"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(ValueError, match="cannot be read"):
        read_image(tmp_path)


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"a.png: too many pixels"):
        read_image(picture(tmp_path / "a.png"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_from_the_header_is_that_of_the_upright_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert upright_size(tmp_path / "a.jpg") == read_image(tmp_path / "a.jpg").size


def test_a_header_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a.jpg: cannot be read as an image"):
        upright_size(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError, match=r"b.jpg: no such image"):
        upright_size(tmp_path / "b.jpg")
