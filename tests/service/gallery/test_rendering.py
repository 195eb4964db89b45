import io

import numpy as np
import pytest
import torch
from PIL import Image

from reid.data.images import decode
from reid.data.preprocessing import AS_SHOWN, Decoding, Preprocessing
from reid.data.transforms import evaluation_transform
from service.gallery import rendering
from service.gallery.copies import copy_of
from service.gallery.rendering import Order, render, smaller
from service.records import Region, UnusableBox
from tests.drawn import SRGB, encode, noise, oriented, pixels


@pytest.mark.parametrize("resize", [None, (40, 24)])
@pytest.mark.parametrize("size", [(16, 32), (24, 40), (7, 9), (300, 200)])
def test_the_view_is_what_the_model_sees(resize, size):
    """The model's own preprocessing makes the same numbers of it as of the photo."""
    preprocessing = Preprocessing((32, 16), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), resize)
    transform = evaluation_transform(preprocessing)
    photo = noise(size)
    rendered = render(encode(photo, "PNG"), Order(["view"], view=preprocessing.resized))
    assert torch.equal(transform(rendered.parts[0][0]), transform(photo))


def test_each_region_gets_what_is_wanted_in_that_order():
    data = encode(noise(), "PNG", exif=oriented(6))
    upright = pixels(decode(data))
    regions = (None, Region(3, 5, 10, 16), Region(20, 20, 9, 9))
    rendered = render(data, Order(["picture", "thumbnail"], regions, copy=True))
    assert (rendered.width, rendered.height) == (21, 31)
    assert rendered.copy == copy_of(data, decode(data), AS_SHOWN)
    whole, box, outside = rendered.parts
    assert np.array_equal(pixels(decode(whole[0])), upright)
    assert np.array_equal(pixels(decode(box[0])), upright[5:21, 3:13])
    assert Image.open(io.BytesIO(box[1])).size == (10, 16)
    assert (
        isinstance(outside, UnusableBox) and str(outside) == f"{regions[2]} is not within the picture of 21x31 pixels"
    )


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((400, 200), 256, (256, 128)), ((100, 300), 30, (10, 30)), ((40, 30), 256, (40, 30)), ((900, 1), 90, (90, 1))],
)
def test_thumbnails_are_small_jpeg_files(monkeypatch, size, side, expected):
    monkeypatch.setattr(rendering, "THUMBNAIL_SIDE", side)
    flat = encode(Image.new("RGB", size, (200, 30, 60)), "PNG", exif=oriented(1))
    thumbnail = Image.open(io.BytesIO(render(flat, Order(["thumbnail"])).parts[0][0]))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", expected)
    assert np.abs(pixels(thumbnail).astype(int) - (200, 30, 60)).max() < 5
    assert not thumbnail.getexif()


@pytest.mark.parametrize(
    ("size", "expected"), [((256, 128), (160, 80)), ((30, 256), (19, 160)), ((160, 90), (160, 90))]
)
def test_a_thumbnail_is_made_smaller_but_never_larger(size, expected):
    thumbnail = encode(Image.new("RGB", size, (200, 30, 60)), "JPEG")
    small = smaller(thumbnail)
    made = Image.open(io.BytesIO(small))
    assert (made.format, made.size) == ("JPEG", expected)
    assert np.abs(pixels(made).astype(int) - (200, 30, 60)).max() < 5
    assert (small == thumbnail) == (size == expected)


def test_people_see_colours_by_their_profile_and_a_model_without_does_not():
    """A profile that swaps red and blue: what the model of before profiles sees, and what a screen shows."""
    data = encode(
        Image.new("RGB", (8, 8), (200, 30, 60)),
        "PNG",
        icc_profile=SRGB.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ"),
    )
    model, shown = render(data, Order(["view", "shown"], view=(8, 8), how=Decoding(profiles=False))).parts[0]
    assert model.getpixel((0, 0)) == (200, 30, 60)
    assert np.abs(pixels(shown).astype(int) - pixels(decode(data)).astype(int)).max() <= 2
    assert shown.getpixel((0, 0)) != (200, 30, 60)


def test_the_whole_is_decoded_as_small_as_each_may_have_it(monkeypatch):
    """A photo is decoded once at each scale; a box, and what must not change, from all pixels."""
    asked = []
    monkeypatch.setattr(rendering, "decode", lambda data, how: asked.append(how.enough) or decode(data, how))
    data = encode(noise((4000, 1600)).resize((4000, 1600)), "JPEG")
    rendered = render(
        data, Order(["view", "thumbnail", "shown"], view=(8, 8), how=Decoding(enough=(32, 32)), copy=True)
    )
    assert (rendered.width, rendered.height) == (4000, 1600)
    view, thumbnail, shown = rendered.parts[0]
    assert view.size == (8, 8) and shown.size == (1024, 410)
    assert Image.open(io.BytesIO(thumbnail)).size == (256, 102)
    assert asked[:3] == [(32, 32), (307, 307), (1024, 1024)]
    assert rendered.copy == copy_of(data, decode(data), AS_SHOWN)
    asked.clear()
    render(
        data, Order(["view", "thumbnail"], [Region(0, 0, 40, 40), Region(9, 9, 40, 40)], (8, 8), Decoding(True, (8, 8)))
    )
    assert asked == [None]
