"""A map of embeddings whose points lead to their photos, by links and style alone: the page runs nothing."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from reid.data.preprocessing import Decoding
from reid.evaluation.features import Features
from reid.report import markup
from reid.report.projection import Projection
from reid.report.strips import readable
from reid.retrieval.matches import UNKNOWN

SIDE = 112  # pixels of a photo's longer side: 1,500 of them are in the page
UNITS = 10_000  # of the drawing's width, in which places are whole numbers
NEAR = 90  # so many units around a point belong to it


def links(projection: Projection, places: npt.NDArray[np.float64], size: tuple[float, float]) -> str:
    """An SVG over the map, with a link from each point, at its place (n, 2), to its photo."""
    height = round(UNITS * size[1] / size[0])
    # Queries last, so that they lie on top, as in the drawing.
    order = np.argsort(projection.is_query, kind="stable").tolist()
    points = "".join(
        f'<a href="#photo-{row}" tabindex="-1"><circle cx="{round(UNITS * places[row, 0])}" '
        f'cy="{round(height * places[row, 1])}" r="{NEAR}"></circle></a>'
        for row in order
    )
    return f'<svg viewBox="0 0 {UNITS} {height}" aria-hidden="true">{points}</svg>'


def photos(features: Features, projection: Projection) -> str:
    """The photos of all points, of which the page shows the one that is asked for.

    Raises FileNotFoundError or ValueError, naming the file, for an image that cannot be read.
    """
    items = "".join(_photo(features, projection, place) for place in range(len(projection.rows)))
    return f'<ol class="photos"><li class="hint">Press a point to see its photo.</li>{items}</ol>'


def _photo(features: Features, projection: Projection, place: int) -> str:
    split, row = _origin(features, projection, place)
    picture: Image.Image = features.picture(split, row, Decoding(enough=(SIDE, SIDE)))
    small = ImageOps.contain(picture, (SIDE, SIDE))
    path = readable(getattr(features, f"{split}_paths")[row])
    camera = getattr(features, f"{split}_cameras")[row]
    words = [_title(features, projection, place)]
    words += [f"camera {features.camera_name(camera)}"] if camera != UNKNOWN else []
    lines = "".join(f"<span>{escape(line)}</span>" for line in (*words, path))
    return f'<li id="photo-{place}"><img src="{markup.jpeg(small)}" alt="{escape(", ".join(words))}">{lines}</li>'


def listed(features: Features, projection: Projection) -> str:
    """The same links as text, by identity: for keyboards, and to find a file by its name."""
    groups = [(number, f"identity {name}") for number, name in enumerate(projection.names)] + [(-1, "others")]
    return "".join(
        f"<p>{escape(name)}: {' '.join(_named(features, projection, number))}</p>"
        for number, name in groups
        if (projection.identity == number).any()
    )


def _named(features: Features, projection: Projection, number: int) -> Iterator[str]:
    for place in np.flatnonzero(projection.identity == number).tolist():
        split, row = _origin(features, projection, place)
        name = readable(Path(getattr(features, f"{split}_paths")[row]).name)
        yield f'<a href="#photo-{place}">{escape(name)}</a>'


def _title(features: Features, projection: Projection, place: int) -> str:
    split, row = _origin(features, projection, place)
    what = "query" if split == "query" else "gallery image"
    return f"{what} of identity {getattr(features, f'{split}_ids')[row]}"


def _origin(features: Features, projection: Projection, place: int) -> tuple[Literal["query", "gallery"], int]:
    """Which row of the features a point is."""
    row = int(projection.rows[place])
    queries = len(features.query_ids)
    return ("query", row) if row < queries else ("gallery", row - queries)
