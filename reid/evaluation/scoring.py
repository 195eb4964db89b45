"""From embeddings to a result: ranking, expansion, re-ranking and metrics, with the protocol beside the figures."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from reid.config import EvalOptions
from reid.data.samples import ReidDataset
from reid.distributed.world import ALONE, World
from reid.evaluation.features import Features, Integers, label_rows
from reid.evaluation.protocol import describe_protocol
from reid.inference.embedder import Embedder
from reid.names import counted
from reid.progress import Progress
from reid.retrieval.bootstrap import mean_intervals
from reid.retrieval.distances import Distances, FeatureDistances
from reid.retrieval.expansion import augment_database, expand_queries
from reid.retrieval.metrics import Metrics, evaluate_distances
from reid.retrieval.reranking import PRESETS, KReciprocal, RerankedDistances, memory_estimate
from reid.retrieval.single_shot import evaluate_redrawn, evaluate_single_shot, mean_of_draws
from reid.retrieval.verification import Verification, verify

log = logging.getLogger("reid")


@dataclass(frozen=True, eq=False)
class Result:
    """Metrics with the choices that decide whether two of them may be compared.

    `queries` (Q,) name the queries, by path below the folder they share, or by row, and `identities` (Q,) whom they
    show. `draws` are the metrics of each random
    gallery where the protocol draws some; `metrics` are then their means. `verification` tells how well scores separate
    known from unknown.
    """

    metrics: Metrics
    protocol: Mapping[str, Any]
    queries: tuple[str, ...]
    identities: Integers
    draws: tuple[Metrics, ...] = ()
    verification: Verification | None = None

    def interval(self, values: np.ndarray) -> np.ndarray:
        """The 95 % intervals (K, 2) of the means over queries of `values` (K, D, Q), where D draws were made or 1.

        NaN where fewer than two identities are scored.
        """
        identities = np.tile(self.identities, values.shape[1])
        return mean_intervals(values.reshape(len(values), -1).astype(np.float64), identities)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of mAP, of Rank-k by its name, and of mINP; none where too few identities are scored."""
        draws = self.draws or (self.metrics,)
        first_hit = np.stack([draw.first_hit for draw in draws])
        skipped = np.isnan(first_hit)
        figures = {
            "mAP": np.stack([draw.average_precision for draw in draws]),
            **{f"Rank-{k}": np.where(skipped, np.nan, first_hit <= k) for k in self.metrics.cmc},
            "mINP": np.stack([draw.inverse_negative_penalty for draw in draws]),
        }
        ends = self.interval(np.stack(list(figures.values())))
        if np.isnan(ends).any():
            return {}
        return {name: (float(low), float(high)) for name, (low, high) in zip(figures, ends, strict=True)}

    def as_json(self) -> dict[str, Any]:
        """The metrics JSON: fractions in [0, 1], and `protocol`."""
        values = {**self.metrics.as_json(), "intervals_95": self._intervals_as_json(), "protocol": dict(self.protocol)}
        if self.draws:
            values["draws"] = [{"mAP": draw.mAP, "cmc": draw.as_json()["cmc"]} for draw in self.draws]
        if self.verification:
            values["verification"] = self.verification.as_json()
        return values

    def _intervals_as_json(self) -> dict[str, Any] | None:
        """In the shape of the metrics; None where they are unknown."""
        found = self.intervals
        ranks = {name.removeprefix("Rank-"): list(ends) for name, ends in found.items() if name.startswith("Rank-")}
        return {"mAP": list(found["mAP"]), "mINP": list(found["mINP"]), "cmc": ranks} if found else None

    def as_full_json(self) -> dict[str, Any]:
        """The metrics JSON with each query's figures, which `reid-eval compare` needs; null for the skipped."""
        names = ("average_precision", "inverse_negative_penalty", "first_hit")
        per_query: dict[str, Any] = {"query": list(self.queries), "identity": self.identities.tolist()}
        for name in names:
            rows = [_nullable(getattr(metrics, name)) for metrics in self.draws or (self.metrics,)]
            per_query[name] = rows if self.draws else rows[0]
        return {**self.as_json(), "per_query": per_query}

    def __str__(self) -> str:
        metrics = self.metrics
        ranks = "  ".join(f"Rank-{k} {100 * value:5.1f}" for k, value in metrics.cmc.items())
        skipped = f" ({metrics.queries_skipped} skipped: no valid match)" if metrics.queries_skipped else ""
        lines = [
            f"mAP {100 * metrics.mAP:5.1f}  {ranks}  mINP {100 * metrics.mINP:5.1f}",
            f"{counted(metrics.queries, 'query', 'queries')}{skipped}, {counted(metrics.gallery, 'gallery image')}; "
            f"{describe_protocol(self.protocol)}",
        ]
        if self.intervals:
            ends = "  ".join(
                f"{name} {100 * low:.1f} to {100 * high:.1f}" for name, (low, high) in self.intervals.items()
            )
            scored = len(np.unique(self.identities[~np.isnan(metrics.first_hit)]))
            lines.append(f"95 % intervals over {scored} identities: {ends}")
        if len(self.draws) > 1:
            spread = 100 * np.std([draw.mAP for draw in self.draws], ddof=1)
            lines.append(f"mean of {len(self.draws)} random galleries, standard deviation of mAP {spread:.1f}")
        if self.protocol.get("rerank"):
            lines.append("re-ranked with the help of the other queries: not what a single query would be answered")
        if self.verification:
            lines += describe_verification(self.verification)
        return "\n".join(lines)


def describe_verification(verification: Verification) -> list[str]:
    """Two lines: how well pairs are told apart, and what the threshold does to known and unknown queries."""
    points = verification.tpr_at_fpr.items()
    rates = [f"{100 * point.tpr:.1f} % at FPR {rate:g}" for rate, point in points if point]
    few = [f"{rate:g}" for rate, point in points if point is None]
    unmeasured = f" (too few pairs to measure FPR {', '.join(few)})" if few else ""
    found = verification.open_set
    coarse = "" if found.measurable else f" ({found.impostor_trials} trials cannot measure the rate asked for)"
    return [
        f"pairs by cosine: TPR {', '.join(rates) or 'unknown'}{unmeasured}; "
        f"equal error rate {100 * verification.equal_error_rate:.1f} %",
        f"unknown queries by cosine: {100 * found.rejected:.1f} % rejected at score {found.threshold:.6f}{coarse}, "
        f"where {100 * found.identified:.1f} % of the known are found first and {100 * found.missed:.1f} % missed",
    ]


def extract(
    embedder: Embedder, dataset: ReidDataset, workers: int = -1, world: World = ALONE, rows: Features | None = None
) -> Features:
    """Embed a dataset's query and gallery; raises ValueError when one of them is empty.

    `rows` are those of `label_rows`, where they are there already. The work is shared out over the processes of
    `world`; the main one has all embeddings, the others none.
    """
    rows = label_rows(dataset) if rows is None else rows
    known = embedder.side_info

    def embed(split: str) -> np.ndarray:
        samples = dataset.splits[split]
        sides = known.of_samples(dataset, samples) if known else None
        return embedder.embed_samples(samples, sides=sides, what=split, workers=workers, world=world)

    query = embed("query")
    return replace(rows, query=query, gallery=query if dataset.query == dataset.gallery else embed("gallery"))


def data_protocol(dataset: ReidDataset) -> dict[str, Any]:
    """What a result must say of its images, and a checkpoint of what it was trained on."""
    split = dataset.protocol.get("train_split", dataset.protocol.get("split", dataset.protocol.get("table")))
    return {"dataset": dataset.name, "version": dataset.protocol.get("version"), "split": split}


def embedding_protocol(trained_on: Mapping[str, Any], embedder: Embedder) -> dict[str, Any]:
    """What a result must say of its embeddings; `trained_on` is the `data_protocol` of the training.

    Of a network that was not trained here it says what that is, for on what is not known.
    """
    names = [trained_on.get(name) for name in ("dataset", "version", "split")]
    also = f" and {trained_on['also']}" if trained_on.get("also") else ""
    known = {"trained_on": " ".join(str(name) for name in names if name) + also}
    return {
        **({"pretrained": trained_on["pretrained"]} if "pretrained" in trained_on else known),
        "features": embedder.features,
        "flip_test": embedder.flip_test,
        "precision": str(embedder.precision).removeprefix("torch."),
    }


def rank(features: Features, options: EvalOptions, device: str = "cpu") -> Distances:
    """The distances by which the options rank the gallery: of expanded features if they say so, or re-ranked.

    Raises ValueError for features that cannot be compared, naming rows.
    """
    query, gallery = features.query, features.gallery
    if options.database_augmentation:
        gallery = augment_database(
            gallery,
            options.database_augmentation,
            options.alpha,
            device=device,
            progress=Progress("database augmentation"),
        )
    if options.query_expansion:
        query = expand_queries(
            query, gallery, options.query_expansion, options.alpha, device=device, progress=Progress("query expansion")
        )
    parameters = reranking(options)
    if parameters is None:
        return FeatureDistances(query, gallery, options.distance, device)
    needed = memory_estimate(len(query), len(gallery), query.shape[1], parameters)
    log.info("re-ranking %d images: about %.2f GiB of memory", len(query) + len(gallery), needed / 2**30)
    return RerankedDistances(
        query, gallery, parameters, distance=options.distance, device=device, progress=Progress("re-ranking")
    )


def reranking(options: EvalOptions) -> KReciprocal | None:
    """The parameters of re-ranking: the preset's, unless given; None where it is off."""
    if options.rerank == "none":
        return None
    preset = PRESETS[options.rerank]
    return KReciprocal(
        preset.k1 if options.rerank_k1 is None else options.rerank_k1,
        preset.k2 if options.rerank_k2 is None else options.rerank_k2,
        preset.weight if options.rerank_lambda is None else options.rerank_lambda,
    )


def score(
    features: Features,
    distances: Distances,
    options: EvalOptions,
    protocol: Mapping[str, Any],
    *,
    verification: bool = False,
) -> Result:
    """Score a ranking by the protocol that `options` choose; `protocol` names the data it comes from.

    `verification` is of the features' own cosine similarities, whatever the ranking is by, as a search would see them.

    Raises ValueError if no query can be scored, and for a junk rule whose labels are not known.
    """
    groups = features.groups("none" if options.gallery == "redrawn" else options.junk)
    labels = (features.query_ids, groups[0], features.gallery_ids, groups[1])
    drawing: dict[str, Any] = {
        "draws": options.draws,
        "seed": options.draw_seed,
        "progress": Progress("random galleries"),
    }
    draws: tuple[Metrics, ...] = ()
    identities = features.query_ids
    queries = _names(features.query_paths) or tuple(f"row {row}" for row in range(len(features.query)))
    if options.gallery == "all":
        metrics = evaluate_distances(distances, *labels, ap=options.ap, progress=Progress("ranking"))
    elif options.gallery == "single":
        draws = evaluate_single_shot(distances, *labels, **drawing)
    else:
        added = features.gallery_beside_queries()  # each picture once, lest one in the pool finds its twin
        pool = np.concatenate([features.query, features.gallery[added]])
        identities = np.concatenate([features.query_ids, features.gallery_ids[added]])
        gallery = _names(features.gallery_paths) or tuple(f"gallery row {row}" for row in range(len(features.gallery)))
        queries += tuple(gallery[row] for row in added)
        draws = evaluate_redrawn(pool, identities, distance=options.distance, device=distances.device, **drawing)
    if draws:
        metrics = mean_of_draws(draws)
    separation = None
    if verification:
        progress = Progress("verification")
        try:
            cosine = FeatureDistances(features.query, features.gallery, "cosine", distances.device)
            separation = verify(cosine, *labels, false_alarm_rate=options.false_alarm, progress=progress)
        except ValueError as error:  # such as a gallery of one identity, which has its metrics all the same
            log.warning("warning: no verification figures: %s", error)
    return Result(metrics, {**protocol, **_choices(options)}, queries, identities, draws, separation)


def _choices(options: EvalOptions) -> dict[str, Any]:
    parameters = reranking(options)
    drawn = {"draws": options.draws, "draw_seed": options.draw_seed} if options.gallery != "all" else {}
    added = {"query_expansion": options.query_expansion, "database_augmentation": options.database_augmentation}
    return {
        "junk": "none" if options.gallery == "redrawn" else options.junk,
        "ap": options.ap,
        "distance": options.distance,
        "gallery": options.gallery,
        **drawn,
        "rerank": {"k1": parameters.k1, "k2": parameters.k2, "lambda": parameters.weight} if parameters else None,
        **{name: {"k": k, "alpha": options.alpha} if k else None for name, k in added.items()},
    }


def _names(paths: Sequence[str]) -> tuple[str, ...]:
    """Paths below the folder they share, so that they are the same wherever the dataset lies."""
    if len({os.path.isabs(path) for path in paths}) != 1:
        return tuple(paths)
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])
    return tuple(os.path.relpath(path, shared or ".") for path in paths)


def _nullable(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
