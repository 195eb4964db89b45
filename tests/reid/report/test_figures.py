import io

import numpy as np
import pytest
from PIL import Image

from reid.report import figures
from reid.retrieval.camera_pairs import CameraPairs


def test_the_cmc_curve_counts_queries_hit_by_each_rank():
    first_hit = np.array([1, 3, np.nan, 60, 3])
    curve = figures.cmc_curve(first_hit, 1000)
    assert len(curve) == 50
    for k in range(1, 51):
        assert curve[k - 1] == sum(hit <= k for hit in (1, 3, 60, 3)) / 4
    assert figures.cmc_curve(np.array([1.0]), 4).tolist() == [1, 1, 1, 1]


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


def test_a_theme_leaves_matplotlibs_settings_alone():
    before = dict(figures.mpl.rcParams)
    figures.png(draw_a_line, (1, 1), figures.DARK, 50)
    assert dict(figures.mpl.rcParams) == before


def test_every_camera_pair_has_its_number_and_blanks_have_none():
    mean = np.array([[np.nan, 0.5, 1.0], [0.25, np.nan, np.nan]])
    queries = np.array([[0, 3, 4], [2, 0, 0]])
    pairs = CameraPairs(np.array([2, 5]), np.array([2, 5, 9]), mean, queries, 0)
    drawn = []

    def draw(figure):
        figures.draw_camera_pairs(figure, pairs)
        axes = figure.axes[0]
        drawn.extend((text.get_position(), text.get_text()) for text in axes.texts)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "5", "9"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["2", "5"]

    figures.png(draw, figures.camera_pairs_size(pairs), figures.LIGHT, 50)
    assert sorted(drawn) == [((0, 1), "25"), ((1, 0), "50"), ((2, 0), "100")]


def test_one_number_for_all_pairs_is_drawn():
    pairs = CameraPairs(np.array([0]), np.array([1]), np.ones((1, 1)), np.ones((1, 1), np.int64), 0)
    assert figures.png(lambda figure: figures.draw_camera_pairs(figure, pairs), (3, 2), figures.LIGHT, 50)


def test_long_notes_of_the_drawing_end_where_the_tile_does():
    assert figures.shorten("012.Yellow_headed_Blackbird") == "012.Yellow_headed\N{HORIZONTAL ELLIPSIS}"
    assert figures.shorten("0.123456") == "0.123456"
