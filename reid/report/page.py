"""The report on an evaluation: one HTML page to look at, and its figures as files beside it."""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reid.evaluation.features import Features, Integers
from reid.evaluation.protocol import MEANINGS
from reid.evaluation.scoring import Result
from reid.files import write_text
from reid.inference.embedder import Embedder
from reid.progress import Progress
from reid.report import figures, markup, parts, photo_map
from reid.report.attention import attended
from reid.report.cmc import cmc_curve, draw_cmc
from reid.report.markup import Section
from reid.report.projection import Projection, project
from reid.report.ranked_lists import list_title, pick_queries, ranked_list
from reid.report.strips import Strip, Tile, and_more
from reid.report.tables import Cell, Share, Table
from reid.retrieval.bootstrap import mean_intervals
from reid.retrieval.calibration import KNOWN_PROBABILITY, Calibration
from reid.retrieval.camera_pairs import CameraPairs, evaluate_camera_pairs
from reid.retrieval.distances import Distances
from reid.retrieval.metrics import Metrics, evaluate_distances
from reid.retrieval.verification import Verification

MATCHES_WITH_ATTENTION = 6
BAND_POINTS = 50  # of the ROC curve at which its interval is computed
FIGURES = ("cmc", "scores", "roc", "reliability", "camera_pairs", "ranked_lists", "attention", "embeddings")
TABLES = ("numbers", "verification")  # those of other names than their figures


def write_report(
    folder: Path,
    result: Result,
    features: Features,
    distances: Distances,
    *,
    model: str = "Stored features",
    embedder: Embedder | None = None,
    calibration: Calibration | None = None,
) -> Path:
    """Write `index.html`, its figures and tables and `metrics.json` into `folder`; returns the path of the page.

    `distances` (Q, G) are the ranking that gave `result`, of the queries and the gallery of `features`. `model` is what
    the title says of the method and the network. Attention maps
    need the `embedder` that the features come from. What cannot be shown is missing with a sentence that says why.

    Raises NotADirectoryError if `folder` is a file, and OSError if it cannot be written.
    """
    parts.prepare(folder, (*FIGURES, *TABLES))
    protocol = result.protocol
    groups = features.groups(protocol["junk"])
    per_query = result.metrics
    if result.draws:  # their ranks are those among the drawn images, and all images are shown below
        labels = (features.query_ids, groups[0], features.gallery_ids, groups[1])
        per_query = evaluate_distances(distances, *labels, ap=protocol["ap"])
    sections = [
        _numbers(folder, result, model),
        _cmc(folder, result),
        _verification(folder, result, features, calibration),
        _camera_pairs(folder, features, groups, distances, protocol["ap"]),
        *_pictures(folder, features, groups, distances, per_query, protocol, embedder),
        _projection(folder, features, project(features, protocol["distance"])),
    ]
    name = " ".join(str(protocol[key]) for key in ("dataset", "version") if protocol.get(key))
    write_text(folder / "metrics.json", json.dumps(result.as_full_json(), indent=2) + "\n")
    page = folder / "index.html"
    summary = f"{_counts(result.metrics)}; evaluated on {parts.today()}"
    write_text(page, markup.page(f"{model}: re-identification on {name}", summary, sections))
    return page


def _counts(metrics: Metrics) -> str:
    skipped = f", and {metrics.queries_skipped:,} skipped for want of a valid match" if metrics.queries_skipped else ""
    return f"{metrics.queries:,} queries scored{skipped}; {metrics.gallery:,} gallery images"


def _numbers(folder: Path, result: Result, model: str) -> Section:
    metrics, protocol = result.metrics, result.protocol
    values = {"mAP": metrics.mAP, **{f"Rank-{k}": metrics.cmc[k] for k in (1, 5, 10)}, "mINP": metrics.mINP}
    unknown = (np.nan, np.nan)
    shares = {name: Share.between(value, *result.intervals.get(name, unknown)) for name, value in values.items()}
    counts = {"queries": metrics.queries, "skipped": metrics.queries_skipped, "gallery": metrics.gallery}
    body = markup.headline(shares.items())
    body += markup.headline(counts.items())
    body += markup.paragraph(
        "In brackets: 95 % intervals by a bootstrap over the identities of the queries, those of one drawn together."
        if result.intervals
        else "There are no intervals: they take queries of two identities or more."
    )
    row = Table("Figures with their 95 % intervals", ("model", *shares), [(model, *shares.values())])
    body += markup.details("As a table", parts.table(folder, "numbers", row))
    if result.draws:
        spread = f"; mAP lies between {_range(draw.mAP for draw in result.draws)}" if len(result.draws) > 1 else ""
        body += markup.paragraph(f"Means of {len(result.draws)} random galleries{spread}.")
    if protocol.get("rerank"):
        body += markup.paragraph(
            "Re-ranked: every ranking used the other queries too, so a single query would not be answered like this."
        )
    body += parts.protocol_table(protocol, MEANINGS)
    return Section("numbers", "Numbers", body)


def _range(shares: Iterable[float]) -> str:
    values = list(shares)
    return f"{100 * min(values):.1f} % and {100 * max(values):.1f} %"


def _cmc(folder: Path, result: Result) -> Section:
    draws = result.draws or (result.metrics,)
    first_hit = np.stack([draw.first_hit for draw in draws])
    curve = cmc_curve("", first_hit, result.identities, min(draw.gallery for draw in draws))
    caption = "Share of the queries that have a right match among their first k gallery images, junk left out"
    caption += f", mean of {len(draws)} draws" if len(draws) > 1 else ""
    caption += "; the band is its 95 % interval." if result.intervals else "."
    shares = {rank: curve.share(rank) for rank in result.metrics.cmc if rank <= len(curve.shares)}
    words = ", ".join(f"Rank-{rank} {share.percent}" for rank, share in shares.items())
    chart = parts.chart(folder, "cmc", partial(draw_cmc, curves=[curve]), f"CMC curve: {words}.", caption)
    header = ("rank", "share of queries")
    values = markup.table("On the curve", header, [(f"Rank-{rank}", share) for rank, share in shares.items()])
    whole = [(str(rank), curve.share(rank)) for rank in range(1, len(curve.shares) + 1)]
    every = markup.details("Every rank", parts.table(folder, "cmc", Table("The curve", header, whole)))
    return Section("cmc", "CMC curve", markup.side_by_side(chart, values) + every)


def _verification(folder: Path, result: Result, features: Features, calibration: Calibration | None) -> Section:
    heading, verification = "Scores and thresholds", result.verification
    if verification is None:
        return Section(
            "scores", heading, markup.paragraph("There are no verification figures: not asked for, or not to be had.")
        )
    open_set, band = verification.open_set, _roc_band(verification, features.query_ids)
    pairs = f"{verification.positives:,} positive and {verification.negatives:,} negative pairs, junk left out"
    charts = [
        parts.chart(
            folder,
            "scores",
            partial(figures.draw_scores, verification=verification),
            f"Distribution of the scores of positive and negative pairs; threshold {open_set.threshold:.6f}.",
            f"Scores of {pairs}. The less the two overlap, the better a threshold tells them apart.",
        ),
        parts.chart(
            folder,
            "roc",
            partial(figures.draw_roc, verification=verification, band=band),
            f"ROC curve; equal error rate {100 * verification.equal_error_rate:.2f} %.",
            "Receiver operating characteristic of the same pairs; marked are the rates of the table. The band is the "
            "95 % interval of the true positive rate, thresholds kept.",
        ),
    ]
    body = markup.side_by_side(*charts) + _operating_points(folder, verification, features.query_ids)
    identified, missed, rejected = _open_set_shares(verification, features.query_ids)
    body += markup.paragraph(
        f"Open set, at a false-alarm rate of {100 * open_set.false_alarm_rate:g} %: with the threshold at "
        f"{open_set.threshold:.6f}, {identified} of {open_set.mated_trials:,} queries whose "
        f"subject is in the gallery are identified at rank 1, and {missed} are missed, their best "
        f"right match being below. With its own identity taken out of the gallery, a query is rejected in "
        f"{rejected} of {open_set.impostor_trials:,} trials"
        f"{'.' if open_set.measurable else ', which are too few to measure that rate.'} All scores are cosine "
        "similarities of the embeddings as they are, without re-ranking or expansion."
    )
    if calibration is not None:
        body += parts.chart(
            folder,
            "reliability",
            partial(figures.draw_reliability, bins=calibration.reliability),
            f"Reliability of the calibrated probabilities; calibration error {calibration.calibration_error:.3f}.",
            f"Calibration on {calibration.queries:,} queries of {calibration.identities:,} identities, each judged by "
            f"a map fitted without it: Brier score {calibration.brier_score:.3f}, calibration error "
            f"{calibration.calibration_error:.3f}. Bars are 95 % intervals as if the queries were independent. Known "
            f"from score {calibration.known_from:.6f} and a "
            f"probability of {100 * KNOWN_PROBABILITY:g} %, unknown below score {calibration.unknown_below:.6f}, else "
            "ambiguous.",
        )
    return Section("scores", heading, body)


def _open_set_shares(verification: Verification, identities: Integers) -> list[Share]:
    """The identified, the missed and the rejected, each with its interval over the identities of the queries."""
    threshold, mate, other = verification.open_set.threshold, verification.best_positive, verification.best_negative
    mated, impostors = ~np.isnan(mate), ~np.isnan(other)
    first = ~(other >= mate)  # also where there is no other
    shares = []
    for value, happened, trials in (
        (verification.open_set.identified, first & (mate >= threshold), mated),
        (verification.open_set.missed, mate < threshold, mated),
        (verification.open_set.rejected, other < threshold, impostors),
    ):
        (ends,) = mean_intervals(happened[trials].astype(np.float64)[None], identities[trials]).tolist()
        shares.append(Share.between(value, *ends))
    return shares


def _true_positives(verification: Verification, identities: Integers, threshold: float) -> list[float]:
    """The ends of the 95 % interval of the true positive rate at a threshold; pairs of one identity stay together."""
    found = (verification.positive_scores >= threshold).astype(np.float64)
    (ends,) = mean_intervals(found[None], identities[verification.positive_queries]).tolist()
    return list(ends)


def _roc_band(verification: Verification, identities: Integers) -> figures.Band:
    """False positive rates (K,) of some points of the curve, and the intervals (K, 2) there."""
    roc = verification.roc
    drawn = np.flatnonzero(roc.fpr > 0)
    chosen = drawn[np.unique(np.linspace(0, len(drawn) - 1, BAND_POINTS).round().astype(int))]
    ends = [_true_positives(verification, identities, threshold) for threshold in roc.thresholds[chosen].tolist()]
    return roc.fpr[chosen], np.array(ends)


def _operating_points(folder: Path, verification: Verification, identities: Integers) -> str:
    rows: list[list[Cell]] = []
    for rate, point in verification.tpr_at_fpr.items():
        if point is None:
            rows.append([f"FPR {rate:g}", f"not measurable with {verification.negatives:,} negative pairs", None, None])
        else:
            share = Share.between(point.tpr, *_true_positives(verification, identities, point.threshold))
            rows.append([f"FPR {rate:g}", share, f"{point.fpr:.2e}", f"{point.threshold:.6f}"])
    equal = f"equal error rate {100 * verification.equal_error_rate:.2f} %"
    rows.append([equal, None, None, f"{verification.equal_error_threshold:.6f}"])
    header = ("operating point", "true positive rate", "false positive rate", "score threshold")
    return parts.table(folder, "verification", Table("Verification of pairs", header, rows))


def _camera_pairs(
    folder: Path, features: Features, groups: tuple[Integers, Integers], distances: Distances, ap: Any
) -> Section:
    heading = "mAP by camera pair"
    pairs = evaluate_camera_pairs(
        distances,
        features.query_ids,
        features.query_cameras,
        features.gallery_ids,
        features.gallery_cameras,
        query_groups=groups[0],
        gallery_groups=groups[1],
        ap=ap,
        progress=Progress("camera pairs"),
    )
    if not pairs.queries.any():
        reason = "Cameras are unknown, or no query has a valid match whose camera is known, so there are no pairs."
        return Section("cameras", heading, markup.paragraph(reason))
    scored = pairs.mAP[pairs.queries > 0]
    left_out = f" {pairs.left_out} cameras with fewer queries are left out." if pairs.left_out else ""
    chart = parts.chart(
        folder,
        "camera_pairs",
        partial(figures.draw_camera_pairs, pairs=pairs, name=features.camera_name),
        f"Heat map of mAP by camera pair, from {100 * scored.min():.1f} % to {100 * scored.max():.1f} %.",
        "mAP in percent of the queries of one camera when only the gallery images of another are ranked; blank where "
        f"no query has a valid match.{left_out}",
        figures.camera_pairs_size(pairs),
    )
    table = parts.table(folder, "camera_pairs", _camera_table(pairs, features.camera_name))
    return Section("cameras", heading, chart + markup.details("The numbers behind it", table))


def _camera_table(pairs: CameraPairs, name: Callable[[int], str]) -> Table:
    rows: list[list[Cell]] = [
        [
            f"camera {name(pairs.query_cameras[row])}",
            f"camera {name(pairs.gallery_cameras[column])}",
            int(pairs.queries[row, column]),
            _camera_share(pairs, row, column),
        ]
        for row, column in np.argwhere(pairs.queries > 0).tolist()
    ]
    header = ("query", "gallery", "queries", "mAP")
    return Table("mAP by camera pair, with 95 % intervals where the queries show two identities or more", header, rows)


def _camera_share(pairs: CameraPairs, row: int, column: int) -> Share:
    return Share.between(float(pairs.mAP[row, column]), *pairs.ends[row, column].tolist())


class _List(NamedTuple):
    """A query and its matches under a title, of a gallery of so many images."""

    title: str
    tiles: tuple[Tile, ...]
    gallery: int

    def strip(self, tiles: tuple[Tile, ...]) -> Strip:
        """Some of its tiles, of which the first is the query, and how many gallery images are left out."""
        return Strip(self.title + and_more(self.gallery - (len(tiles) - 1), "gallery images"), tiles)


def _pictures(
    folder: Path,
    features: Features,
    groups: tuple[Integers, Integers],
    distances: Distances,
    metrics: Metrics,
    protocol: Mapping[str, Any],
    embedder: Embedder | None,
) -> list[Section]:
    """The ranked lists, and the attention over the first list of each kind."""
    headings = {"ranked_lists": "Best, median and worst queries", "attention": "Where the model looks"}

    def missing(name: str, reason: str) -> Section:
        return Section(name, headings[name], markup.paragraph(reason))

    if not features.query_paths or not features.gallery_paths:
        return [missing(name, "These features were stored without the paths of their images.") for name in headings]
    similarity = protocol["distance"] == "cosine" and not protocol.get("rerank")
    try:
        lists = {
            kind: [
                _List(
                    list_title(kind, features, metrics, query),
                    ranked_list(features, groups, distances, query, similarity=similarity),
                    len(features.gallery_ids),
                )
                for query in queries
            ]
            for kind, queries in pick_queries(metrics).items()
        }
    except (OSError, ValueError) as error:
        return [missing(name, f"Images cannot be read any more. {error}") for name in headings]
    everything = [one.strip(one.tiles) for some in lists.values() for one in some]
    others = and_more(metrics.queries - len(everything), "queries that were scored")
    measure = "cosine similarity" if similarity else "re-ranked distance" if protocol.get("rerank") else "distance"
    lead = markup.paragraph(
        "By average precision. \u2713 green: right; \u2717 red: wrong; \u25cb grey: junk, not counted. Below each "
        f"picture stand its {measure} and its camera, where known. The first right match is always shown, at the end "
        f"where it ranks low. Shown are {len(everything)} queries{others}."
    )
    shown = Section("ranked_lists", headings["ranked_lists"], lead + parts.strips(folder, "ranked_lists", everything))
    if embedder is None:
        return [
            shown,
            missing("attention", "Attention maps need the model, and these features were stored without it."),
        ]
    if not embedder.model.rolls_out:
        return [shown, missing("attention", "The network has no class token whose attention could be shown.")]
    looks = [
        some[0].strip(attended(some[0].tiles[:MATCHES_WITH_ATTENTION], embedder)) for some in lists.values() if some
    ]
    outlined = " Outlined are the patches that GLCA chose." if embedder.glca else ""
    lead = markup.paragraph(
        "Attention rollout of the class token, from the least (dark) to the most attended patch (bright) of each "
        f"picture.{outlined}"
    )
    return [shown, Section("attention", headings["attention"], lead + parts.strips(folder, "attention", looks))]


def _projection(folder: Path, features: Features, projection: Projection) -> Section:
    queries = int(np.sum(projection.is_query))
    every = len(features.query_ids) + len(features.gallery_ids)
    left_out = and_more(every - len(projection.is_query), "that are not drawn")
    caption = (
        f"{projection.method} of {queries:,} query and {len(projection.is_query) - queries:,} gallery embeddings: "
        f"{len(projection.names)} random identities in colour, others in grey{left_out}. Near points are "
        "alike; distances between far groups mean little."
    )
    draw = partial(figures.draw_projection, projection=projection)
    alternative = f"Embeddings in two dimensions by {projection.method}, coloured by identity."
    size, heading = (5.2, 5.4), "Embeddings in two dimensions"

    def section(over: str, pictures: str, below: str) -> Section:
        chart = parts.chart(folder, "embeddings", draw, alternative, caption, size, over)
        return Section("embeddings", heading, f'<div class="map">{chart}{pictures}</div>{below}')

    if not features.query_paths or not features.gallery_paths:
        return section("", "", "")
    try:
        pictures = photo_map.photos(features, projection)
    except (OSError, ValueError) as error:
        return section("", "", markup.paragraph(f"Photos of the points cannot be read any more. {error}"))
    over = photo_map.links(projection, figures.projection_places(projection, size), size)
    return section(over, pictures, markup.details("The points by name", photo_map.listed(features, projection)))
