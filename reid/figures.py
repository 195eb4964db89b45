"""Pictures of results, for people to look at."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reid.checkpoint import write_whole
from reid.data.images import read_image
from reid.features import Features
from reid.retrieval.distances import Distance, FeatureDistances
from reid.retrieval.metrics import Junk, Metrics

RIGHT, WRONG, JUNK = "#1a9850", "#d73027", "#999999"


def ranked_lists(
    features: Features,
    metrics: Metrics,
    path: Path,
    *,
    distance: Distance = "cosine",
    junk: Junk = "camera",
    queries: int = 6,
    shown: int = 10,
) -> Path:
    """Draw the best, middle and worst queries by average precision, each with its `shown` nearest gallery images.

    The ranking is by the `distance` and `junk` rule that the metrics were computed with. Green frames are right, red
    ones wrong, grey ones junk (the query's own identity and camera, which does not count).

    Raises ValueError for features without image paths.
    """
    if not features.query_paths or not features.gallery_paths:
        raise ValueError("ranked lists need the images, and these features were stored without image paths")
    scored = np.flatnonzero(~np.isnan(metrics.average_precision))
    order = scored[np.argsort(-metrics.average_precision[scored], kind="stable")]
    picked = order[np.unique(np.linspace(0, len(order) - 1, min(queries, len(order))).round().astype(int))]
    shown = min(shown, len(features.gallery))
    figure = Figure(figsize=(1.25 * (shown + 1) + 1.2, 1.7 * len(picked) + 0.5), layout="constrained", dpi=100)
    axes = figure.subplots(len(picked), shown + 1, squeeze=False)
    distances = FeatureDistances(features.query[picked], features.gallery, distance).rows(0, len(picked)).numpy()
    for row, query, away in zip(axes, picked, distances, strict=True):
        nearest = np.argsort(away, kind="stable")[:shown]
        hit = metrics.first_hit[query]
        _show(row[0], features.query_paths[query], "black", f"query  AP {100 * metrics.average_precision[query]:.0f} %")
        row[0].set_xlabel(f"first hit at {hit:.0f}", fontsize=8)
        for axis, index in zip(row[1:], nearest, strict=True):
            same = features.gallery_ids[index] == features.query_ids[query]
            camera = features.gallery_cameras[index]
            left_out = junk == "camera" and same and camera == features.query_cameras[query] and camera != -1
            colour = JUNK if left_out else RIGHT if same else WRONG
            _show(
                axis,
                features.gallery_paths[index],
                colour,
                f"{1 - away[index] if distance == 'cosine' else away[index]:.4f}",
            )
            axis.set_xlabel(f"camera {camera}" if camera >= 0 else "", fontsize=7)
    figure.suptitle(
        f"Best to worst queries: green right, red wrong, grey same camera (not counted); {distance} above", fontsize=9
    )
    write_whole(path, lambda temporary: figure.savefig(temporary, format="png"))
    return path


def _show(axis: Axes, path: str, colour: str, title: str) -> None:
    axis.imshow(read_image(path))
    axis.set_title(title, fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(edgecolor=colour, linewidth=3)
