"""Whether evaluations of the same queries differ by more than the luck of the queries."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reid.cli import UsageError
from reid.names import counted
from reid.retrieval.bootstrap import FEW_IDENTITIES, Difference, paired_difference

Floats = npt.NDArray[np.float64]

RANKS = (1, 5, 10)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One file of `reid-eval --json`, a value a query; `model` is what its title says, or "" in earlier files.

    `identities` (Q,) are those of the queries, `first_hit` (D, Q) the ranks of their first right matches.
    `figures` maps a figure's name to (D, Q), fractions in [0, 1], one row a
    draw of the gallery, NaN for skipped queries; `protocol` holds the choices that should be alike where evaluations
    are compared, and the number of gallery images.
    """

    path: str
    model: str
    queries: tuple[Any, ...]
    identities: npt.NDArray[np.int64]
    first_hit: Floats
    figures: Mapping[str, Floats]
    protocol: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Figures of several evaluations, and how the later ones differ from the first, the baseline.

    `means` maps a figure's name to a fraction for each file, `differences` to one for each file after the first.
    `protocol_differences` maps the choices that are not alike to their values in each file.
    """

    files: tuple[str, ...]
    queries: int
    identities: int
    queries_skipped: int
    means: Mapping[str, tuple[float, ...]]
    differences: Mapping[str, tuple[Difference, ...]]
    protocol_differences: Mapping[str, tuple[Any, ...]]
    resamples: int
    confidence: float
    seed: int

    def as_json(self) -> dict[str, Any]:
        """Everything, fractions in [0, 1], ready for `json.dump`."""
        return asdict(self)

    def __str__(self) -> str:
        skipped = f" ({self.queries_skipped} skipped: no valid match)" if self.queries_skipped else ""
        lines = [
            f"{counted(self.queries, 'query', 'queries')} of {counted(self.identities, 'identity', 'identities')}"
            f"{skipped}; {100 * self.confidence:g} % intervals from {self.resamples} resamples of the identities, "
            f"seed {self.seed}; in percent",
            f"baseline: {self.files[0]}",
        ]
        for number, file in enumerate(self.files[1:]):
            lines += ["", f"{file} against the baseline"]
            for name, differences in self.differences.items():
                baseline, mean, difference = self.means[name][0], self.means[name][number + 1], differences[number]
                interval = f"[{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
                lines.append(
                    f"  {name:7} {100 * baseline:6.2f} -> {100 * mean:6.2f}  {100 * difference.mean:+6.2f}  "
                    f"{interval:16}  {verdict(difference)}"
                )
        if self.identities < FEW_IDENTITIES:
            lines.append(
                f"warning: the intervals rest on {self.identities} identities only; with fewer than {FEW_IDENTITIES} "
                "they are too narrow: of 95 % intervals 91.5 % hold the truth with 10, and 85 % with 4"
            )
        for name, values in self.protocol_differences.items():
            lines.append(f"warning: protocols differ in {name}: {', '.join(json.dumps(value) for value in values)}")
        return "\n".join(lines)


def compare(
    paths: Sequence[Path | str], *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> Comparison:
    """Compare evaluations written by `reid-eval --json` with the first of them, by a paired bootstrap over identities.

    Where a gallery was drawn repeatedly, a query counts in every draw. Raises ValueError for fewer than
    two files, one that is no evaluation of a single dataset with values a query, different queries or skipped ones, and
    options out of range; FileNotFoundError for a missing file.
    """
    if len(paths) < 2:
        raise UsageError(f"{len(paths)} evaluation given; expected a baseline and at least one to compare with it")
    if resamples < 1 or not 0 < confidence < 1 or seed < 0:
        raise UsageError(
            f"resamples={resamples}, confidence={confidence}, seed={seed}; expected at least 1, between 0 and 1, and "
            "at least 0"
        )
    baseline, *others = evaluations = [read_evaluation(Path(path)) for path in paths]
    for other in others:
        _refuse_other_queries(baseline, other)
    scored = ~np.isnan(baseline.figures["mAP"]).all(axis=0)
    return Comparison(
        files=tuple(evaluation.path for evaluation in evaluations),
        queries=int(scored.sum()),
        identities=len(np.unique(baseline.identities[scored])),
        queries_skipped=int((~scored).sum()),
        means={
            name: tuple(float(np.nanmean(evaluation.figures[name])) for evaluation in evaluations)
            for name in baseline.figures
        },
        differences={
            name: tuple(
                paired_difference(
                    values.ravel(),
                    other.figures[name].ravel(),
                    np.tile(baseline.identities, len(values)),
                    resamples=resamples,
                    confidence=confidence,
                    seed=seed,
                )
                for other in others
            )
            for name, values in baseline.figures.items()
        },
        protocol_differences=_protocol_differences(evaluations),
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )


def verdict(difference: Difference) -> str:
    """Whether a difference is more than noise, in words."""
    if difference.low <= 0 <= difference.high:
        return "within noise"
    return "higher" if difference.mean > 0 else "lower"


def read_evaluation(path: Path) -> Evaluation:
    """A file of `reid-eval --json`; raises FileNotFoundError, and ValueError, naming it, as `compare` does."""
    if not path.is_file():
        raise FileNotFoundError(f"evaluation {path}: no such file")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"evaluation {path}: cannot be read as JSON ({error})") from error
    if isinstance(stored, list):
        raise ValueError(
            f"evaluation {path}: holds {len(stored)} datasets; expected one, evaluated into a file of its own"
        )
    if not isinstance(stored, dict) or not isinstance(stored.get("protocol"), dict):
        raise ValueError(f"evaluation {path}: not a file of reid-eval --json; expected the keys mAP, protocol, ...")
    if "per_query" not in stored:
        raise ValueError(f"evaluation {path}: has no values a query (per_query); evaluate again with reid-eval --json")
    try:
        per_query = stored["per_query"]
        queries = tuple(per_query["query"])
        identities = np.array(per_query["identity"], np.int64)
        if identities.shape != (len(queries),):
            raise ValueError(f"{len(queries)} queries and identities of shape {identities.shape}")
        first_hit = _values(per_query["first_hit"], len(queries))
        figures = {
            "mAP": _values(per_query["average_precision"], len(queries)),
            "mINP": _values(per_query["inverse_negative_penalty"], len(queries)),
            **{f"Rank-{k}": np.where(np.isnan(first_hit), np.nan, first_hit <= k) for k in RANKS},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"evaluation {path}: per_query is damaged ({type(error).__name__}: {error})") from error
    if any(np.isnan(values).all() for values in figures.values()):
        raise ValueError(f"evaluation {path}: none of its {len(queries)} queries is scored")
    return Evaluation(
        str(path),
        str(stored.get("model", "")),
        queries,
        identities,
        first_hit,
        figures,
        {**stored["protocol"], "gallery images": stored.get("gallery")},
    )


def _values(stored: Any, queries: int) -> Floats:
    """Values of D draws, (D, Q), NaN for null, from a list or, where draws were repeated, a list of lists."""
    values = np.atleast_2d(np.array(stored, np.float64))
    if values.ndim != 2 or values.shape[1] != queries:
        raise ValueError(f"values of shape {values.shape} for {queries} queries")
    return values


def _refuse_other_queries(baseline: Evaluation, other: Evaluation) -> None:
    both = f"{baseline.path} and {other.path}"
    counts = len(baseline.queries), len(other.queries)
    for number, (a, b) in enumerate(zip_longest(baseline.queries, other.queries, fillvalue="missing")):
        if a != b:
            raise ValueError(
                f"{both}: of {counts[0]} and {counts[1]} queries number {number} (from 0) is the first to differ, "
                f"{a!r} and {b!r}; expected the same queries in the same order"
            )
    moved = np.flatnonzero(baseline.identities != other.identities)
    if len(moved):
        raise ValueError(
            f"{both}: {counted(len(moved), 'query shows', 'queries show')} other identities, the first is "
            f"{baseline.queries[moved[0]]!r}; "
            "expected the same queries in the same order"
        )
    for name, values in baseline.figures.items():
        if values.shape != other.figures[name].shape:
            raise ValueError(f"{both}: {len(values)} and {len(other.figures[name])} draws; expected the same")
        unpaired = np.flatnonzero((np.isnan(values) != np.isnan(other.figures[name])).any(axis=0))
        if len(unpaired):
            raise ValueError(
                f"{both}: {counted(len(unpaired), 'query is', 'queries are')} skipped in one of them only, the "
                f"first is {baseline.queries[unpaired[0]]!r}; expected the same junk rule, gallery and draws"
            )


def _protocol_differences(evaluations: Sequence[Evaluation]) -> dict[str, tuple[Any, ...]]:
    names = dict.fromkeys(name for evaluation in evaluations for name in evaluation.protocol)
    values = {name: tuple(evaluation.protocol.get(name) for evaluation in evaluations) for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}
