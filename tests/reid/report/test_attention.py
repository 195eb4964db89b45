import numpy as np
import pytest
from PIL import Image

from reid.data.preprocessing import AS_SHOWN, Decoding
from reid.inference.predictor import Attention
from reid.report.attention import OUTLINE, attended, overlay
from reid.report.strips import Tile


def grid(rows, columns, *bright):
    attention = np.full((rows, columns), 0.01, np.float32)
    for place in bright:
        attention[place] = 0.1
    return attention


def test_heat_lies_over_the_attended_patch():
    """A grid of 2 x 5 over a picture of 200 x 60 pixels: row 1, column 3 spans x 120 to 160 and y 30 to 60."""
    drawn = overlay(Image.new("RGB", (200, 60), "gray"), Attention(grid(2, 5, (1, 3)), None))
    assert drawn.size == (200, 60)
    brightness = np.asarray(drawn.convert("L"), float)
    patches = brightness.reshape(2, 30, 5, 40).mean(axis=(1, 3))
    assert np.unravel_index(patches.argmax(), patches.shape) == (1, 3)
    y, x = np.unravel_index(brightness.argmax(), brightness.shape)
    assert 120 <= x < 160
    assert 30 <= y < 60


def outlined(chosen, size):
    attention = Attention(np.ones(chosen.shape, np.float32), chosen)
    return (np.asarray(overlay(Image.new("RGB", size, "black"), attention)) == OUTLINE).all(axis=2)


def test_a_chosen_patch_is_framed_at_its_pixels():
    chosen = np.zeros((4, 3), bool)
    chosen[2, 1] = True
    lines = outlined(chosen, (90, 80))  # patches 30 wide and 20 high
    expected = np.zeros((80, 90), bool)
    expected[40, 30:61] = expected[60, 30:61] = True
    expected[40:61, 30] = expected[40:61, 60] = True
    np.testing.assert_array_equal(lines, expected)


def test_neighbours_share_one_outline_and_the_edge_of_the_picture_is_drawn():
    chosen = np.zeros((4, 3), bool)
    chosen[3, 1:] = True
    lines = outlined(chosen, (90, 80))
    expected = np.zeros((80, 90), bool)
    expected[60, 30:] = expected[79, 30:] = True
    expected[60:, 30] = expected[60:, 89] = True
    np.testing.assert_array_equal(lines, expected)


def test_sizes_that_the_grid_does_not_divide():
    chosen = np.ones((3, 3), bool)
    lines = outlined(chosen, (100, 50))
    assert lines[0].all()
    assert lines[49].all()
    assert lines[:, 0].all()
    assert lines[:, 99].all()
    assert not lines[1:-1, 1:-1].any()


def test_even_attention_is_no_heat():
    picture = Image.new("RGB", (8, 8), (200, 200, 200))
    even = overlay(picture, Attention(np.full((2, 2), 0.1, np.float32), None))
    nothing = overlay(picture, Attention(np.zeros((2, 2), np.float32), None))
    assert np.array_equal(np.asarray(even), np.asarray(nothing))


class Recorder:
    """Stands for an embedder of old, without profiles: its attention lies on the left half of every picture."""

    decoding = Decoding(profiles=False)

    def attention(self, pictures):
        self.sizes, self.applied = zip(*((picture.size, picture.info["applied"]) for picture in pictures), strict=True)
        return [Attention(np.array([[1.0, 0.0]], np.float32), None) for _ in pictures]


def reader(size):
    def read(how=AS_SHOWN):
        picture = Image.new("RGB", size)
        picture.info["applied"] = how.profiles
        return picture

    return read


def test_tiles_get_the_attention_of_the_whole_picture_and_keep_the_rest():
    tiles = [
        Tile(Image.new("RGB", (10, 8), "gray"), reader((50, 40)), "query", "query", (), "a"),
        Tile(Image.new("RGB", (15, 10), "gray"), reader((30, 20)), "right", "rank 1", ("0.9",), "b"),
    ]
    embedder = Recorder()
    drawn = attended(tiles, embedder)
    assert embedder.sizes == ((50, 40), (30, 20))
    assert embedder.applied == (False, False)
    for before, after in zip(tiles, drawn, strict=True):
        assert (after.kind, after.heading, after.notes, after.path) == (
            before.kind,
            before.heading,
            before.notes,
            before.path,
        )
        assert after.picture.size == before.picture.size
        pixels = np.asarray(after.picture.convert("L"), float)
        assert pixels[:, 0].mean() > pixels[:, -1].mean() + 20


@pytest.mark.parametrize("size", [(1, 1), (224, 3)])
def test_tiny_pictures_are_drawn(size):
    chosen = np.array([[True, False], [False, True]])
    assert overlay(Image.new("RGB", size), Attention(grid(2, 2, (0, 0)), chosen)).size == size
