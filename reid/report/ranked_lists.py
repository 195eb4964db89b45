"""Ranked lists: what a query found, best matches first."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ImageOps

from reid.evaluation.features import Features, Integers
from reid.report.strips import SIDE, Kind, Tile, readable
from reid.retrieval.distances import Distances
from reid.retrieval.matches import UNKNOWN
from reid.retrieval.metrics import Metrics

Split = Literal["query", "gallery"]


@dataclass(frozen=True)
class Match:
    """A gallery row in a query's ranking; `rank` counts from 1 without junk, whose own is None."""

    row: int
    kind: Kind
    rank: int | None
    distance: float


def pick_queries(metrics: Metrics, each: int = 4, seed: int = 0) -> dict[str, list[int]]:
    """Choose the `best`, `median` and `worst` queries by average precision, at most `each` of a kind and none twice.

    Among equals the choice is random, so that not all of them show one identity.
    """
    scored = np.random.default_rng(seed).permutation(np.flatnonzero(~np.isnan(metrics.average_precision)))
    order = scored[np.argsort(-metrics.average_precision[scored], kind="stable")].tolist()
    each = min(each, max(1, len(order) // 3))
    best, rest = order[:each], order[each:]
    middle, worst = rest[:-each], rest[-each:]
    start = (len(middle) - each + 1) // 2
    return {"best": best, "median": middle[max(start, 0) :][:each], "worst": worst}


def rank_gallery(
    features: Features, groups: tuple[Integers, Integers], distances: Distances, query: int, shown: int = 10
) -> list[Match]:
    """List the `shown` gallery rows nearest to a query, and the first right one if it comes later.

    `groups` (Q,) and (G,) are what the junk rule excludes. As in the metrics, a wrong row as far away as a right one
    comes first.
    """
    away = distances.rows(query, query + 1)[0].cpu().numpy()
    same = features.gallery_ids == features.query_ids[query]
    junk = same & (groups[1] == groups[0][query]) & (groups[1] != UNKNOWN)
    order = np.lexsort((same, away))
    ranks = np.cumsum(~junk[order])
    places = set(range(min(shown, len(order)))) | set(np.flatnonzero((same & ~junk)[order])[:1].tolist())

    def match(place: int) -> Match:
        row = int(order[place])
        kind: Kind = "junk" if junk[row] else "right" if same[row] else "wrong"
        return Match(row, kind, None if kind == "junk" else int(ranks[place]), float(away[row]))

    return [match(place) for place in sorted(places)]


def ranked_list(
    features: Features,
    groups: tuple[Integers, Integers],
    distances: Distances,
    query: int,
    *,
    similarity: bool,
    shown: int = 10,
) -> tuple[Tile, ...]:
    """Read the pictures of a query and its matches, with rank, camera and 1 - distance or else the distance.

    Raises FileNotFoundError or ValueError, naming the file, for an image that cannot be read.
    """
    tiles = [_tile(features, "query", query, "query", "query", ())]
    for match in rank_gallery(features, groups, distances, query, shown):
        heading = "junk" if match.rank is None else f"rank {match.rank}"
        score = f"{1 - match.distance if similarity else match.distance:.6f}"
        tiles.append(_tile(features, "gallery", match.row, match.kind, heading, (score,)))
    return tuple(tiles)


def list_title(kind: str, features: Features, metrics: Metrics, query: int) -> str:
    """What stands above a query's ranked list."""
    precision, hit = 100 * metrics.average_precision[query], metrics.first_hit[query]
    name = readable(Path(features.query_paths[query]).name)
    return f"{kind.capitalize()}: {name}, average precision {precision:.1f} %, first right match at rank {hit:.0f}"


def _tile(features: Features, split: Split, row: int, kind: Kind, heading: str, notes: tuple[str, ...]) -> Tile:
    camera = (features.query_cameras if split == "query" else features.gallery_cameras)[row]
    path = readable((features.query_paths if split == "query" else features.gallery_paths)[row])
    read = partial(features.picture, split, row)
    picture = ImageOps.contain(read(), (SIDE, SIDE))
    return Tile(
        picture,
        read,
        kind,
        heading,
        (*notes, f"camera {features.camera_name(camera)}") if camera != UNKNOWN else notes,
        path,
    )
