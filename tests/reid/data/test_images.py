import numpy as np
import pytest
from PIL import Image

from reid.data.images import read_image


def picture(path, size=(30, 20), mode="RGB", **save):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **save)
    return path


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpg", "RGB"), ("a.png", "RGBA"), ("b.png", "L"), ("c.png", "P"), ("d.jpg", "CMYK"), ("e.png", "1")],
)
def test_every_mode_becomes_rgb(tmp_path, name, mode):
    image = read_image(picture(tmp_path / name, mode=mode))
    assert image.mode == "RGB"
    assert image.size == (30, 20)


def test_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: stored rows are the picture's columns
    assert read_image(picture(tmp_path / "turned.jpg", exif=exif)).size == (20, 30)


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
