import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from reid.report import figures
from reid.report.projection import Projection
from reid.report.strips import SIDE, Strip, Tile
from reid.retrieval.camera_pairs import CameraPairs


def draw_a_line(figure):
    figure.subplots().plot([0, 1], color="C0")


@pytest.mark.parametrize(("colours", "paper"), [(figures.LIGHT, (255, 255, 255)), (figures.DARK, (21, 24, 28))])
def test_a_png_has_its_size_and_the_colours_of_its_theme(colours, paper):
    image = Image.open(io.BytesIO(figures.png(draw_a_line, (2, 1), colours, 100)))
    assert image.size == (200, 100)
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert tuple(pixels[0]) == paper
    line = tuple(int(colours["axes.prop_cycle"].by_key()["color"][0][i : i + 2], 16) for i in (1, 3, 5))
    assert (pixels == line).all(axis=1).any()


def test_an_svg_is_the_same_each_time_and_holds_its_text_as_paths():
    drawn = figures.svg(draw_a_line, (2, 1))
    assert drawn == figures.svg(draw_a_line, (2, 1))
    assert b"<svg" in drawn and b"<path" in drawn
    assert b"<text" not in drawn


def test_places_of_points_are_where_they_are_drawn():
    """Each point is coloured at its place in the picture."""
    random = np.random.default_rng(0)
    points = random.random((12, 2)).astype(np.float32)
    identity, query = np.zeros(12, np.int64), np.zeros(12, bool)
    projection = Projection(points, identity, (7,), query, "t-SNE", np.arange(12))
    size = (4.0, 4.0)
    picture = Image.open(io.BytesIO(figures.png(lambda f: figures.draw_projection(f, projection), size))).convert("RGB")
    places = figures.projection_places(projection, size)
    blue = np.array([0, 114, 178])
    for x, y in places.tolist():
        assert np.abs(np.array(picture.getpixel((x * picture.width, y * picture.height))) - blue).max() < 60


def test_a_theme_leaves_matplotlibs_settings_alone():
    before = dict(figures.mpl.rcParams)
    figures.png(draw_a_line, (1, 1), figures.DARK, 50)
    assert dict(figures.mpl.rcParams) == before


def test_every_camera_pair_has_its_number_and_blanks_have_none():
    mean = np.array([[np.nan, 0.5, 1.0], [0.25, np.nan, np.nan]])
    queries = np.array([[0, 3, 4], [2, 0, 0]])
    pairs = CameraPairs(np.array([2, 5]), np.array([2, 5, 9]), mean, queries, np.full((2, 3, 2), np.nan), 0)
    drawn = []

    def draw(figure):
        figures.draw_camera_pairs(figure, pairs, "site {}".format)
        axes = figure.axes[0]
        drawn.extend((text.get_position(), text.get_text()) for text in axes.texts)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["site 2", "site 5", "site 9"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["site 2", "site 5"]

    figures.png(draw, figures.camera_pairs_size(pairs), figures.LIGHT, 50)
    assert sorted(drawn) == [((0, 1), "25"), ((1, 0), "50"), ((2, 0), "100")]


def test_rates_are_numbers_for_people():
    """With mathematical text off, as names of files need it, matplotlib's own labels are $\\mathdefault{10^{-5}}$."""
    rates = np.logspace(-5, 0, 6)
    verification = SimpleNamespace(roc=SimpleNamespace(fpr=rates, tpr=rates), tpr_at_fpr={}, negatives=10**5)
    shown = []

    def draw(figure):
        figures.draw_roc(figure, verification)
        axis = figure.axes[0].xaxis
        labels = [label for ticks in (axis.get_majorticklabels(), axis.get_minorticklabels()) for label in ticks]
        shown.extend(label.get_text() for label in labels if label.get_text())

    figures.png(draw, (4, 3), figures.LIGHT, 50)
    assert {"1e-05", "0.001", "0.1"} <= set(shown)
    assert [label for label in shown if not re.fullmatch(r"10?|0\.0*1|1e-\d+", label)] == []


def test_one_number_for_all_pairs_is_drawn():
    one = np.ones((1, 1), np.int64)
    pairs = CameraPairs(np.array([0]), np.array([1]), np.ones((1, 1)), one, np.ones((1, 1, 2)), 0)
    assert figures.png(lambda figure: figures.draw_camera_pairs(figure, pairs), (3, 2), figures.LIGHT, 50)


def test_long_notes_of_the_drawing_end_where_the_tile_does():
    assert figures.shorten("012.Yellow_headed_Blackbird") == "012.Yellow_headed\N{HORIZONTAL ELLIPSIS}"
    assert figures.shorten("0.123456") == "0.123456"


@pytest.mark.parametrize("tiles", [1, 3, 7])
def test_a_long_title_of_a_strip_goes_on_below_and_is_whole(tiles):
    picture = Image.new("RGB", (SIDE, SIDE), (90, 90, 90))
    strips = [
        Strip(title, (Tile(picture, lambda how: picture, "query", "query", ("camera 1",), "a.jpg"),) * tiles)
        for title in (
            "Median: 0083_c2s1_000000_01.jpg, average precision 2.5 %, first right match at rank 91, and 539 more",
            "Short",
        )
    ]
    figure = Figure(figsize=figures.strips_size(strips), dpi=100)
    FigureCanvasAgg(figure)
    figures.draw_strips(figure, strips)
    drawn = [text for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert "".join(text.get_text() for text in drawn).replace(" ", "") == strips[0].title.replace(" ", "") + "Short"
    pictures = [image.get_window_extent() for image in figure.axes[0].get_images()]
    for text in drawn:
        extent = text.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width and 0 <= extent.y0 < extent.y1 <= figure.bbox.height
        assert not any(extent.overlaps(shown) for shown in pictures)
