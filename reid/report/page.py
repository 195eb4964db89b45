"""The report on an evaluation: one HTML page to look at, and its figures as files beside it."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reid.evaluation.features import Features, Integers
from reid.evaluation.scoring import Result
from reid.files import write_text
from reid.inference.embedder import Embedder
from reid.progress import Progress
from reid.report import figures, markup, parts
from reid.report.attention import attended
from reid.report.markup import Section
from reid.report.projection import Projection, project
from reid.report.ranked_lists import list_title, pick_queries, ranked_list
from reid.report.strips import Strip
from reid.retrieval.calibration import Calibration
from reid.retrieval.camera_pairs import CameraPairs, evaluate_camera_pairs
from reid.retrieval.distances import Distances
from reid.retrieval.metrics import Metrics, evaluate_distances
from reid.retrieval.verification import Verification

MATCHES_WITH_ATTENTION = 6
FIGURES = ("cmc", "scores", "roc", "reliability", "camera_pairs", "ranked_lists", "attention", "embeddings")

# What a choice of the protocol means, for readers who do not know our words.
MEANINGS = {
    "dataset": "whose queries and gallery images these are",
    "trained_on": "dataset that the model was trained on",
    "features": "tokens that make the embedding",
    "flip_test": "whether the mirrored image is embedded too",
    "precision": "number format of the model's arithmetic",
    "junk": "a gallery image of the query's identity does not count if it also shares this with the query",
    "ap": "how average precision is summed",
    "distance": "how embeddings are compared",
    "gallery": "which gallery images are ranked",
    "draws": "random galleries whose figures are averaged",
    "rerank": "k-reciprocal re-ranking, with the help of the other queries",
    "query_expansion": "nearest gallery images added to each query",
    "database_augmentation": "nearest neighbours added to each gallery image",
}


def write_report(
    folder: Path,
    result: Result,
    features: Features,
    distances: Distances,
    *,
    embedder: Embedder | None = None,
    calibration: Calibration | None = None,
) -> Path:
    """Write `index.html`, its figures as PNG files and `metrics.json` into `folder`; returns the path of the page.

    `distances` (Q, G) are the ranking that gave `result`, of the queries and the gallery of `features`. Attention maps
    need the `embedder` that the features come from. What cannot be shown is missing with a sentence that says why.

    Raises NotADirectoryError if `folder` is a file, and OSError if it cannot be written.
    """
    parts.prepare(folder, FIGURES)
    protocol = result.protocol
    groups = features.groups(protocol["junk"])
    per_query = result.metrics
    if result.draws:  # their ranks are those among the drawn images, and all images are shown below
        labels = (features.query_ids, groups[0], features.gallery_ids, groups[1])
        per_query = evaluate_distances(distances, *labels, ap=protocol["ap"])
    sections = [
        _numbers(result),
        _cmc(folder, result),
        _verification(folder, result.verification, calibration),
        _camera_pairs(folder, features, groups, distances, protocol["ap"]),
        *_pictures(folder, features, groups, distances, per_query, protocol, embedder),
        _projection(folder, project(features, protocol["distance"])),
    ]
    name = " ".join(str(protocol[key]) for key in ("dataset", "version") if protocol.get(key))
    write_text(folder / "metrics.json", json.dumps(result.as_full_json(), indent=2) + "\n")
    page = folder / "index.html"
    write_text(page, markup.page(f"Re-identification on {name}", _counts(result.metrics), sections))
    return page


def _counts(metrics: Metrics) -> str:
    skipped = f", and {metrics.queries_skipped:,} skipped for want of a valid match" if metrics.queries_skipped else ""
    return f"{metrics.queries:,} queries scored{skipped}; {metrics.gallery:,} gallery images"


def _numbers(result: Result) -> Section:
    metrics, protocol = result.metrics, result.protocol
    shares = {"mAP": metrics.mAP, **{f"Rank-{k}": metrics.cmc[k] for k in (1, 5, 10)}, "mINP": metrics.mINP}
    counts = {"queries": metrics.queries, "skipped": metrics.queries_skipped, "gallery": metrics.gallery}
    body = markup.headline((name, f"{100 * share:.1f} %") for name, share in shares.items())
    body += markup.headline((name, f"{count:,}") for name, count in counts.items())
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
    metrics, draws = result.metrics, result.draws or (result.metrics,)
    steps = {f"Rank-{rank}": f"{100 * share:.1f} %" for rank, share in metrics.cmc.items()}
    caption = "Share of the queries that have a right match among their first k gallery images, junk left out"
    caption += "; the band holds all draws." if len(draws) > 1 else "."
    draw = partial(figures.draw_cmc, draws=draws)
    words = ", ".join(f"{name} {share}" for name, share in steps.items())
    chart = parts.chart(folder, "cmc", draw, f"CMC curve: {words}.", caption)
    values = markup.table("On the curve", ("rank", "share of queries"), steps.items())
    return Section("cmc", "CMC curve", markup.side_by_side(chart, values))


def _verification(folder: Path, verification: Verification | None, calibration: Calibration | None) -> Section:
    heading = "Scores and thresholds"
    if verification is None:
        return Section(
            "scores", heading, markup.paragraph("There are no verification figures: not asked for, or not to be had.")
        )
    open_set = verification.open_set
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
            partial(figures.draw_roc, verification=verification),
            f"ROC curve; equal error rate {100 * verification.equal_error_rate:.2f} %.",
            "Receiver operating characteristic of the same pairs; marked are the rates of the table.",
        ),
    ]
    body = markup.side_by_side(*charts) + _operating_points(verification)
    body += markup.paragraph(
        f"Open set, at a false-alarm rate of {100 * open_set.false_alarm_rate:g} %: with the threshold at "
        f"{open_set.threshold:.6f}, {100 * open_set.identified:.1f} % of {open_set.mated_trials:,} queries whose "
        f"subject is in the gallery are identified at rank 1, and {100 * open_set.missed:.1f} % are missed, their best "
        f"right match being below. With its own identity taken out of the gallery, a query is rejected in "
        f"{100 * open_set.rejected:.1f} % of {open_set.impostor_trials:,} trials"
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
            f"{calibration.calibration_error:.3f}. Known from score {calibration.known_from:.6f}, unknown below "
            f"{calibration.unknown_below:.6f}, ambiguous between.",
        )
    return Section("scores", heading, body)


def _operating_points(verification: Verification) -> str:
    rows = []
    for rate, point in verification.tpr_at_fpr.items():
        if point is None:
            rows.append((f"FPR {rate:g}", f"not measurable with {verification.negatives:,} negative pairs", "", ""))
        else:
            rows.append((f"FPR {rate:g}", f"{100 * point.tpr:.2f} %", f"{point.fpr:.2e}", f"{point.threshold:.6f}"))
    equal = f"equal error rate {100 * verification.equal_error_rate:.2f} %"
    rows.append((equal, "", "", f"{verification.equal_error_threshold:.6f}"))
    header = ("operating point", "true positive rate", "false positive rate", "score threshold")
    return markup.table("Verification of pairs", header, rows)


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
        partial(figures.draw_camera_pairs, pairs=pairs),
        f"Heat map of mAP by camera pair, from {100 * scored.min():.1f} % to {100 * scored.max():.1f} %.",
        "mAP in percent of the queries of one camera when only the gallery images of another are ranked; blank where "
        f"no query has a valid match.{left_out}",
        figures.camera_pairs_size(pairs),
    )
    return Section("cameras", heading, chart + markup.details("The numbers behind it", _camera_table(pairs)))


def _camera_table(pairs: CameraPairs) -> str:
    rows = [
        [
            f"camera {camera}",
            *(f"{100 * value:.1f} ({count})" if count else "" for value, count in zip(*row, strict=True)),
        ]
        for camera, *row in zip(pairs.query_cameras, pairs.mAP, pairs.queries, strict=True)
    ]
    header = ["query", *(f"camera {camera}" for camera in pairs.gallery_cameras)]
    return markup.table("mAP in percent, and the number of queries in brackets", header, rows)


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
                Strip(
                    list_title(kind, features, metrics, query),
                    ranked_list(features, groups, distances, query, similarity=similarity),
                )
                for query in queries
            ]
            for kind, queries in pick_queries(metrics).items()
        }
    except (OSError, ValueError) as error:
        return [missing(name, f"Images cannot be read any more. {error}") for name in headings]
    everything = [strip for strips in lists.values() for strip in strips]
    measure = "cosine similarity" if similarity else "re-ranked distance" if protocol.get("rerank") else "distance"
    lead = markup.paragraph(
        "By average precision. \u2713 green: right; \u2717 red: wrong; \u25cb grey: junk, not counted. Below each "
        f"picture stand its {measure} and its camera, where known. The first right match is always shown, at the end "
        "where it ranks low."
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
        Strip(strips[0].title, attended(strips[0].tiles[:MATCHES_WITH_ATTENTION], embedder))
        for strips in lists.values()
        if strips
    ]
    outlined = " Outlined are the patches that GLCA chose." if embedder.glca else ""
    lead = markup.paragraph(
        "Attention rollout of the class token, from the least (dark) to the most attended patch (bright) of each "
        f"picture.{outlined}"
    )
    return [shown, Section("attention", headings["attention"], lead + parts.strips(folder, "attention", looks))]


def _projection(folder: Path, projection: Projection) -> Section:
    queries = int(np.sum(projection.is_query))
    caption = (
        f"{projection.method} of {queries:,} query and {len(projection.is_query) - queries:,} gallery embeddings: "
        f"{len(projection.names)} random identities in colour, others in grey. Near points are alike; distances "
        "between far groups mean little."
    )
    draw = partial(figures.draw_projection, projection=projection)
    alternative = f"Embeddings in two dimensions by {projection.method}, coloured by identity."
    chart = parts.chart(folder, "embeddings", draw, alternative, caption, (5.2, 5.4))
    return Section("embeddings", "Embeddings in two dimensions", chart)
