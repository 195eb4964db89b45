"""How well each camera's queries are found among the images of each other camera.

Q queries, G gallery rows, A query cameras, B gallery cameras.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid.retrieval.bootstrap import mean_intervals
from reid.retrieval.distances import Distances, Progress
from reid.retrieval.matches import UNKNOWN, Integers, Matches
from reid.retrieval.metrics import AveragePrecision, evaluate_distances, query_blocks


@dataclass(frozen=True, eq=False)
class CameraPairs:
    """mAP by the camera of the query and the camera of the gallery images, which alone are ranked.

    `query_cameras` (A,) and `gallery_cameras` (B,) ascend. `mAP` (A, B) is in [0, 1], NaN where no query of the one
    camera has a positive in the other; `queries` (A, B) counts those that have. `ends` (A, B, 2) are those of the 95 %
    intervals over their identities, NaN for fewer than two. `left_out` cameras were too many.
    """

    query_cameras: Integers
    gallery_cameras: Integers
    mAP: npt.NDArray[np.float64]
    queries: Integers
    ends: npt.NDArray[np.float64]
    left_out: int


def evaluate_camera_pairs(
    distances: Distances,
    query_ids: Integers,
    query_cameras: Integers,
    gallery_ids: Integers,
    gallery_cameras: Integers,
    *,
    query_groups: Integers,
    gallery_groups: Integers,
    ap: AveragePrecision = "hits",
    cameras: int = 20,
    progress: Progress | None = None,
) -> CameraPairs:
    """Score the queries of every camera against the gallery rows of every camera, in one pass over the distances.

    Identities, cameras and groups are (Q,) and (G,); groups are what the junk rule excludes, as in `Matches`, and may
    be the cameras themselves. Unknown cameras (-1) take no part, and of more than `cameras` only those with the most
    queries, then with the most gallery rows, do.
    """
    chosen, known = _busiest(query_cameras, gallery_cameras, cameras)
    asking = [camera for camera in chosen if camera in query_cameras]
    columns = {camera: np.flatnonzero(gallery_cameras == camera) for camera in chosen if camera in gallery_cameras}
    positives = [
        Matches(query_ids, query_groups, gallery_ids[rows], gallery_groups[rows]).positives for rows in columns.values()
    ]
    precision = np.full((len(query_ids), len(columns)), np.nan)
    for start, stop in query_blocks(Matches(query_ids, query_groups, gallery_ids, gallery_groups)):
        block = distances.rows(start, stop)
        for place, rows in enumerate(columns.values()):
            scored = start + np.flatnonzero(positives[place][start:stop])
            if len(scored):
                precision[scored, place] = evaluate_distances(
                    block[:, rows][scored - start],
                    query_ids[scored],
                    query_groups[scored],
                    gallery_ids[rows],
                    gallery_groups[rows],
                    ap=ap,
                ).average_precision
        if progress is not None:
            progress(stop, len(query_ids))
    shape = (len(asking), len(columns))
    parts = [precision[query_cameras == camera] for camera in asking]
    ends = [
        mean_intervals(part[:, [place]].T, query_ids[query_cameras == camera])
        for camera, part in zip(asking, parts, strict=True)
        for place in range(len(columns))
    ]
    queries = np.array([(~np.isnan(part)).sum(axis=0) for part in parts], np.int64).reshape(shape)
    totals = np.array([np.nansum(part, axis=0) for part in parts]).reshape(shape)
    means = np.where(queries > 0, totals / np.maximum(queries, 1), np.nan)
    between = np.array(ends).reshape(*shape, 2)
    cameras_of_queries, cameras_of_gallery = np.array(asking, np.int64), np.array([*columns], np.int64)
    return CameraPairs(cameras_of_queries, cameras_of_gallery, means, queries, between, known - len(chosen))


def _busiest(query_cameras: Integers, gallery_cameras: Integers, count: int) -> tuple[Integers, int]:
    """Choose at most `count` cameras, ascending, by their queries, then gallery rows; also how many there are."""
    known = np.setdiff1d(np.concatenate([query_cameras, gallery_cameras]), [UNKNOWN])
    queries, gallery = ((cameras == known[:, None]).sum(axis=1) for cameras in (query_cameras, gallery_cameras))
    return np.sort(known[np.lexsort((-gallery, -queries))[:count]]), len(known)
