"""How many questions it takes to name everybody: ours beside the usual ways, on the same vectors in one run.

    python -m benchmarks.naming --data-root ../shared/data --weights FILE [--sets eth80 cub30 nyala] [--json OUT]
    python -m benchmarks.naming --from-features FILE.npz [--json OUT]
    python -m benchmarks.naming --speed 10000

A question is one answer about two items; what answers imply is not asked. Each of --seeds draws 80 % of the
identities; with --cut also those of which a third have one photo left. The reviewer is simulated: a share of the
answers, --reviewer-errors, is wrong, and every method but ours believes all of them. That share is known to ours, as
gold questions would tell it. `questions` are medians over the draws until B-cubed F1 is 0.90 and 0.95, null unless
most draws get there. The ways without questions have their best setting, which only the truth can tell.

Two published methods stand beside: `local_clusterings` (`naming_lca`), and `nested_sampling` (`naming_nested`), which
tells no groups, but a number; its interval is that after one answer for each item.

`likely` is of ours at B-cubed 0.90: how likely items that are not settled are said to be of a known group, by classes
of that probability, and how many of them are.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.special import expit

from benchmarks import naming_nested
from benchmarks.naming_lca import LocalClusterings
from reid.naming.agreement import adjusted_rand, b_cubed, exact_groups
from reid.naming.candidates import nearest
from reid.naming.decisions import LEAST_ERROR, Decision
from reid.naming.review import Review, answered

Integers = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Pair = tuple[int, int]

SETS = ("eth80", "cub30", "nyala")
LEVELS = (0.9, 0.95)
NEIGHBOURS = 20
AT_ONCE = 4  # questions leased at a time
SHARE = 0.8
MOST_QUESTIONS = 8  # times the items
ALL_PAIRS = 3000  # items up to which the methods that go through pairs are given all of them
FEWER_PAIRS = 100
STATUS_EVERY = 25
CHANCES = (0.05, 0.25, 0.5, 0.75, 0.9, 1.0)  # of suggestions, to tell how often each is right
SPEED_ANSWERS = 40


@dataclass(frozen=True, eq=False)
class Case:
    """Vectors (N, E), who they show (N,), which can be compared (N,), and pairs known to be one (of one sighting)."""

    vectors: Singles
    truth: Integers
    views: Integers
    known: tuple[Pair, ...] = ()

    def draw(self, seed: int, cut: bool) -> "Case":
        """80 % of the identities; with `cut` a third of those with one photo."""
        random = np.random.default_rng(seed)
        identities = np.unique(self.truth)
        drawn = random.choice(identities, round(SHARE * len(identities)), replace=False)
        kept = np.isin(self.truth, drawn)
        if cut:
            for identity in random.choice(drawn, len(drawn) // 3, replace=False):
                photos = np.nonzero(self.truth == identity)[0]
                kept[photos] = False
                kept[random.choice(photos)] = True
        place = np.cumsum(kept) - 1
        known = tuple((int(place[a]), int(place[b])) for a, b in self.known if kept[a] and kept[b])
        return Case(self.vectors[kept], self.truth[kept], self.views[kept], known)


@dataclass
class Run:
    """One method on one draw: questions at each level, and what else was seen, most of it of ours only."""

    questions: dict[float, int] = field(default_factory=dict)
    f1: float = 0.0
    ari: float = 0.0
    exact: float = 0.0
    joins: int = 0
    wrong: int = 0
    held: bool | None = None  # whether the interval held the true number at B-cubed 0.90
    width: float | None = None  # the interval there, over the true number
    lost: int = 0
    warned: int | None = None
    within: bool = True
    likely: list[tuple[float, bool]] | None = None  # suggestions there: their probability, and whether they are right

    def reach(self, labels: Integers, truth: Integers, asked: int) -> bool:
        """Note levels reached now; true once all are."""
        self.f1 = b_cubed(labels, truth)
        for level in LEVELS:
            if self.f1 >= level:
                self.questions.setdefault(level, asked)
        return len(self.questions) == len(LEVELS)

    def end(self, labels: Integers, truth: Integers) -> "Run":
        self.f1, self.ari = b_cubed(labels, truth), adjusted_rand(labels, truth)
        self.exact = exact_groups(labels, truth) / len(np.unique(truth))
        return self


def ours(case: Case, error: float, seed: int, budget: float) -> Run:
    random = np.random.default_rng(seed)
    truth, run, asked = case.truth, Run(), 0
    rows, scores = nearest(case.vectors, NEIGHBOURS, case.views)
    known = [Decision(a, b, "same", "context") for a, b in case.known]
    errors = {"reviewer": max(error, LEAST_ERROR)}
    review = Review(
        case.vectors, rows, scores, views=case.views, decisions=known, budget=budget, errors=errors, seed=seed
    )
    number = len(np.unique(truth))
    checked = 0
    candidates = NEIGHBOURS
    while asked < MOST_QUESTIONS * len(truth):
        questions = review.questions(AT_ONCE)
        if not questions and candidates < len(truth) - 1:
            candidates *= 2
            review.widen(*nearest(case.vectors, candidates, case.views))
            continue
        if not questions:
            break
        for question in questions:
            right = bool(truth[question.a] == truth[question.b]) ^ bool(random.random() < error)
            review.add([answered(question, "same" if right else "different", "reviewer")])
            asked += 1
        while joins := review.machine_joins():
            review.add(joins)
            run.joins += len(joins)
            run.wrong += sum(int(truth[join.a] != truth[join.b]) for join in joins)
        done = run.reach(review.groups.label, truth, asked)
        if LEVELS[0] in run.questions and run.held is None:
            status = review.status()
            run.held, run.width = status.low <= number <= status.high, (status.high - status.low) / number
            run.likely = suggestions(review, truth)
        if run.warned is None and asked - checked >= STATUS_EVERY:
            checked = asked
            run.warned = asked if review.status().weak else None
        if done:
            break
    run.within = run.wrong <= budget * run.joins
    run.lost = lost_silently(review, truth)
    return run.end(review.groups.label, truth)


def suggestions(review: Review, truth: Integers) -> list[tuple[float, bool]]:
    """How likely each item that is not settled is said to be of a known group, and whether most of that are its own."""
    other, chance = review.likely()
    found = []
    for item in np.nonzero(chance)[0]:
        theirs = truth[review.groups.label == review.groups.label[other[item]]]
        found.append((float(chance[item]), 2 * np.count_nonzero(theirs == truth[item]) > len(theirs)))
    return found


def lost_silently(review: Review, truth: Integers) -> int:
    """Individuals with several items of which no two are together, in a group mostly theirs, and none is open."""
    open_items, lost = review.open_items(), 0
    for identity in np.unique(truth):
        items = np.nonzero(truth == identity)[0]
        if len(items) < 2 or open_items[items].any():
            continue
        labels, counts = np.unique(review.groups.label[items], return_counts=True)
        sizes = [np.count_nonzero(review.groups.label == label) for label in labels]
        lost += not any(count > 1 and 2 * count > size for count, size in zip(counts, sizes, strict=True))
    return lost


def ask_pairs(case: Case, error: float, seed: int, pairs: Iterator[Pair]) -> Run:
    """Ask pairs in the order given, skipping what answers imply, and believe every answer."""
    random = np.random.default_rng(seed)
    truth, run, asked = case.truth, Run(), 0
    label = np.arange(len(truth))
    members = {item: [item] for item in range(len(truth))}
    apart: dict[int, set[int]] = {item: set() for item in range(len(truth))}
    group = label.tolist()

    def join(one: int, two: int) -> None:
        if len(members[one]) < len(members[two]):
            one, two = two, one
        moved = members.pop(two)
        for item in moved:
            group[item] = one
        label[moved] = one
        members[one] += moved
        for other in apart.pop(two):
            apart[other].discard(two)
            apart[other].add(one)
            apart[one].add(other)

    for a, b in case.known:
        if group[a] != group[b]:
            join(group[a], group[b])
    for a, b in pairs:
        one, two = group[a], group[b]
        if one == two or two in apart[one]:
            continue
        asked += 1
        if bool(truth[a] == truth[b]) ^ bool(random.random() < error):
            join(one, two)
            apart[group[a]].discard(group[a])
            if run.reach(label, truth, asked):
                break
        else:
            apart[one].add(two)
            apart[two].add(one)
        if asked >= MOST_QUESTIONS * len(truth):
            break
    return run.end(label, truth)


def falling_similarity(case: Case, error: float, seed: int, budget: float) -> Run:
    count = len(case.truth) - 1 if len(case.truth) <= ALL_PAIRS else FEWER_PAIRS
    rows, scores = nearest(case.vectors, count, case.views)
    first = np.repeat(np.arange(len(rows)), rows.shape[1])
    second = rows.ravel()
    one_way = (second >= 0) & ((first < second) | (count < len(case.truth) - 1))
    first, second, score = first[one_way], second[one_way], scores.ravel()[one_way]
    order = np.argsort(-score, kind="stable")
    return ask_pairs(case, error, seed, zip(first[order].tolist(), second[order].tolist(), strict=True))


def ten_nearest(case: Case, error: float, seed: int, budget: float) -> Run:
    rows, _ = nearest(case.vectors, 10, case.views)
    pairs = ((item, other) for item, others in enumerate(rows.tolist()) for other in others if other >= 0)
    return ask_pairs(case, error, seed, pairs)


def fitted_odds(case: Case, first: Integers, second: Integers) -> Callable[[Integers, Integers], Floats]:
    """Log odds that pairs are the same, by cosine alone, as fitted to the truth of some pairs."""
    from sklearn.linear_model import LogisticRegression

    unit = case.vectors / np.linalg.norm(case.vectors, axis=1, keepdims=True)

    def cosines(one: Integers, other: Integers) -> Floats:
        return np.einsum("ij,ij->i", unit[one], unit[other], dtype=np.float64)

    fitted = LogisticRegression(C=1e4).fit(cosines(first, second)[:, None], case.truth[first] == case.truth[second])
    slope, level = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return lambda one, other: slope * cosines(one, other) + level


def local_clusterings(case: Case, error: float, seed: int, budget: float) -> Run:
    random, truth, run = np.random.default_rng(seed), case.truth, Run()
    rows, _ = nearest(case.vectors, NEIGHBOURS, case.views)
    ends = np.stack([np.repeat(np.arange(len(rows)), rows.shape[1]), rows.ravel()])[:, rows.ravel() >= 0]
    first, second = np.unique(np.sort(ends, axis=0), axis=1)
    odds = fitted_odds(case, first, second)(first, second)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    graph = LocalClusterings(len(truth), dict(zip(pairs, odds.tolist(), strict=True)), case.known)

    def ask(a: int, b: int) -> bool:
        return bool(truth[a] == truth[b]) ^ bool(random.random() < error)

    for asked, labels in enumerate(graph.rounds(ask), 1):
        if run.reach(labels, truth, asked) or asked >= MOST_QUESTIONS * len(truth):
            break
    return run.end(graph.label, truth)


def nested_sampling(case: Case, error: float, seed: int, budget: float) -> Run:
    random, truth, run = np.random.default_rng(seed), case.truth, Run()
    first, second = np.triu_indices(len(truth), 1)
    comparable = case.views[first] == case.views[second]
    first, second = first[comparable], second[comparable]
    likeness = np.zeros((len(truth),) * 2)
    likeness[first, second] = likeness[second, first] = expit(fitted_odds(case, first, second)(first, second))

    def ask(a: int, b: int) -> bool:
        return bool(truth[a] == truth[b]) ^ bool(random.random() < error)

    _, low, high = naming_nested.count(likeness, ask, len(truth), random)
    number = len(np.unique(truth))
    run.held, run.width = low <= number <= high, (high - low) / number
    return run.end(np.arange(len(truth)), truth)


def at_best(case: Case, partitions: Iterator[Integers]) -> Run:
    """The partition, of several without a question, that agrees best with the truth."""
    best = max(partitions, key=lambda labels: b_cubed(labels, case.truth))
    run = Run()
    run.reach(best, case.truth, 0)
    return run.end(best, case.truth)


def distances(case: Case) -> npt.NDArray[np.float64]:
    unit = case.vectors / np.linalg.norm(case.vectors, axis=1, keepdims=True)
    between: npt.NDArray[np.float64] = 1 - (unit @ unit.T).astype(np.float64)
    between[case.views[:, None] != case.views[None]] = 2
    for a, b in case.known:
        between[a, b] = between[b, a] = 0
    np.fill_diagonal(between, 0)
    np.maximum(between, 0, out=between)
    return between


def linked(case: Case, method: str) -> Run:
    tree = linkage(squareform(distances(case), checks=False), method)
    heights = np.unique(np.quantile(tree[:, 2], np.linspace(0, 1, 100)))
    return at_best(case, (fcluster(tree, height, "distance").astype(np.int64) for height in heights))


def threshold_components(case: Case, error: float, seed: int, budget: float) -> Run:
    return linked(case, "single")


def average_linkage(case: Case, error: float, seed: int, budget: float) -> Run:
    return linked(case, "average")


def hdbscan(case: Case, error: float, seed: int, budget: float) -> Run:
    from sklearn.cluster import HDBSCAN

    between = distances(case)

    def partitions() -> Iterator[Integers]:
        for size in (2, 3, 5, 8):
            for selection in ("eom", "leaf"):
                found = HDBSCAN(size, metric="precomputed", cluster_selection_method=selection, copy=True)
                labels = found.fit(between).labels_.astype(np.int64)
                yield np.where(labels < 0, len(labels) + np.arange(len(labels)), labels)

    return at_best(case, partitions())


METHODS: dict[str, Callable[[Case, float, int, float], Run]] = {
    "ours": ours,
    "falling_similarity": falling_similarity,
    "ten_nearest": ten_nearest,
    "local_clusterings": local_clusterings,
    "nested_sampling": nested_sampling,
    "threshold_components": threshold_components,
    "average_linkage": average_linkage,
    "hdbscan": hdbscan,
}
WITHOUT_QUESTIONS = ("threshold_components", "average_linkage", "hdbscan")


def summary(runs: list[Run]) -> dict[str, Any]:
    """What `--json` holds of one method: medians over the draws."""
    questions: dict[str, float | None] = {}
    for level in LEVELS:
        reached = sorted(run.questions.get(level, np.inf) for run in runs)
        middle = statistics.median(reached)
        questions[f"{level:.2f}"] = float(middle) if np.isfinite(middle) else None
    held = [run.held for run in runs if run.held is not None]
    widths = [run.width for run in runs if run.width is not None]
    warned = [run.warned for run in runs if run.warned is not None]
    return {
        "questions": questions,
        "joins": statistics.median(run.joins for run in runs),
        "wrong_joins": statistics.median(run.wrong for run in runs),
        "within_budget": sum(run.within for run in runs),
        "coverage": sum(held) / len(held) if held else None,
        "width": statistics.median(widths) if widths else None,
        "f1": statistics.median(run.f1 for run in runs),
        "ari": statistics.median(run.ari for run in runs),
        "exact": statistics.median(run.exact for run in runs),
        "lost_silently": max(run.lost for run in runs),
        "warned": len(warned),
        "warned_at": statistics.median(warned) if warned else None,
        "likely": by_chance([one for run in runs for one in run.likely or ()]),
        "draws": len(runs),
    }


def by_chance(told: list[tuple[float, bool]]) -> list[dict[str, float]]:
    """Of the suggestions (probability, right) of each class: how many, their mean probability, the share right."""
    chance, right = np.array([one for one, _ in told]), np.array([one for _, one in told], float)
    place, found = np.digitize(chance, CHANCES[1:-1]), []
    for number in np.unique(place):
        of = place == number
        found.append(
            {"items": int(of.sum()), "probability": float(chance[of].mean()), "right": float(right[of].mean())}
        )
    return found


def measure(case: Case, cut: bool, options: argparse.Namespace) -> dict[str, Any]:
    """All methods on all draws of a set: by method at the first error, and under `errors` at every one."""
    by_error: dict[str, dict[str, Any]] = {}
    for error in options.reviewer_errors:
        found = by_error.setdefault(f"{error:g}", {})
        for name in options.methods:
            if name in WITHOUT_QUESTIONS and error != options.reviewer_errors[0]:
                continue  # nobody is asked
            started = time.perf_counter()
            seeds = range(options.seeds)
            runs = [METHODS[name](case.draw(seed, cut), error, seed, options.error) for seed in seeds]
            found[name] = summary(runs)
            print(f"  {error:g} {name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    draws = [case.draw(seed, cut) for seed in range(options.seeds)]
    return {
        **by_error[f"{options.reviewer_errors[0]:g}"],
        "errors": by_error,
        "items": statistics.median(len(draw.truth) for draw in draws),
        "identities": statistics.median(len(np.unique(draw.truth)) for draw in draws),
        "mAP": mean_average_precision(case),
    }


def mean_average_precision(case: Case) -> float:
    """mAP of each item among the others that can be compared with it, those known to be one with it left out."""
    precisions = []
    unit = case.vectors / np.linalg.norm(case.vectors, axis=1, keepdims=True)
    for item, vector in enumerate(unit):
        comparable = case.views == case.views[item]
        comparable[item] = False
        others = np.nonzero(comparable)[0]
        hits = case.truth[others][np.argsort(-(unit[others] @ vector), kind="stable")] == case.truth[item]
        if hits.any():
            precisions.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    return float(np.mean(precisions))


def table(name: str, found: dict[str, Any]) -> str:
    lines = [
        f"{name}: {found['items']:.0f} items of {found['identities']:.0f} identities, mAP {100 * found['mAP']:.1f}",
        "",
        "| reviewer | method | to .90 | to .95 | F1 | ARI | exact "
        "| joins | wrong | within | held | width | lost | warned |",
        "| --- " * 14 + "|",
    ]
    for error, methods in found["errors"].items():
        for method, seen in methods.items():
            asked = [
                f"{seen['questions'][level]:,.0f}" if seen["questions"][level] is not None else "-"
                for level in seen["questions"]
            ]
            cells = [
                f"{100 * float(error):g} %",
                method,
                *asked,
                f"{seen['f1']:.3f}",
                f"{seen['ari']:.3f}",
                f"{100 * seen['exact']:.0f} %",
            ]
            held = ["-", "-"]
            if seen["width"] is not None:
                held = [f"{100 * seen['coverage']:.0f} %", f"{seen['width']:.2f}"]
            if method == "ours":
                warned = f"{seen['warned']}, at {seen['warned_at']:.0f}" if seen["warned"] else "0"
                within = f"{seen['within_budget']} of {seen['draws']}"
                cells += [
                    f"{seen['joins']:.0f}",
                    f"{seen['wrong_joins']:.0f}",
                    within,
                    *held,
                    str(seen["lost_silently"]),
                    warned,
                ]
            else:
                cells += ["", "", "", *(held if seen["width"] is not None else ["", ""]), "", ""]
            lines.append("| " + " | ".join(cells) + " |")
    for error, methods in found["errors"].items():
        if classes := methods.get("ours", {}).get("likely"):
            said = [f"{one['items']} at {one['probability']:.2f}, {one['right']:.2f} right" for one in classes]
            lines += ["", f"suggestions at .90, reviewer {100 * float(error):g} %: {'; '.join(said)}"]
    return "\n".join(lines) + "\n"


def read_case(name: str, root: Path, weights: str, cache: Path) -> Case:
    """The test pictures of a set, embedded by a frozen ViT-Tiny once and kept in `cache`."""
    from reid.data.custom import read_csv

    if name == "cub30":
        from fgvc.datasets import load_dataset

        pictures = load_dataset("cub", root / name).test
        paths, truth = [sample.path for sample in pictures], [sample.identity for sample in pictures]
        views, sightings = [0] * len(paths), list(range(len(paths)))
    else:
        read = read_csv(root / name / "images.csv")
        samples = [*read.query, *read.gallery]
        paths, truth = [sample.path for sample in samples], [sample.identity for sample in samples]
        sides = {"": 0, "left": 0, "right": 1}
        views = [sides[sample.extra.get("view", "")] for sample in samples]
        sightings = [sample.camera for sample in samples] if name == "nyala" else list(range(len(samples)))
    stored = cache / f"{name}.npy"
    if not stored.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(stored, embed(paths, weights))
    by_sighting: dict[tuple[int, int], list[int]] = {}
    for item, sighting in enumerate(zip(truth, sightings, strict=True)):
        by_sighting.setdefault(sighting, []).append(item)
    known = tuple((items[0], other) for items in by_sighting.values() for other in items[1:])
    return Case(np.load(stored), np.array(truth, np.int64), np.array(views, np.int64), known)


def embed(paths: list[Path], weights: str) -> Singles:
    """Class tokens (N, 192) of a frozen ViT-Tiny at 224 x 224, of unit length."""
    import torch

    from reid.data.images import read_image
    from reid.data.preprocessing import Preprocessing
    from reid.data.transforms import evaluation_transform
    from reid.models.backbones import build_backbone

    model = build_backbone("vit_tiny", image_size=(224, 224), weights=weights)[0].eval()
    prepare = evaluation_transform(Preprocessing((224, 224), (0.5,) * 3, (0.5,) * 3))
    found = []
    with torch.inference_mode():
        for start in range(0, len(paths), 32):
            images = torch.stack([prepare(read_image(path)) for path in paths[start : start + 32]])
            tokens = model.forward_features(images)[:, 0]
            found.append(torch.nn.functional.normalize(tokens, dim=1).numpy())
    return np.concatenate(found)


def from_features(path: Path) -> Case:
    from reid.evaluation.features import Features

    features = Features.load(path)
    known = features.gallery_ids >= 0
    vectors = np.asarray(features.gallery)[known].astype(np.float32)
    return Case(vectors, features.gallery_ids[known], np.zeros(len(vectors), np.int64))


def measure_speed(items: int, answers: int = SPEED_ANSWERS) -> npt.NDArray[np.float64]:
    """Time a suggestion, and then what an answer takes until queue and groups are up to date, on synthetic vectors.

    Each by the clock and in brackets by the processor, which others on the machine hardly change. Returns both for each
    answer, (answers, 2), in seconds.
    """
    random = np.random.default_rng(0)
    truth = random.integers(0, items // 10, items)
    centres = random.normal(size=(items // 10, 384))
    vectors = (centres[truth] + 1.3 * random.normal(size=(items, 384))).astype(np.float32)
    del centres
    before = peak_memory()
    started = clocks()
    rows, scores = nearest(vectors, NEIGHBOURS)
    found = clocks()
    review = Review(vectors, rows, scores)
    review.questions(1)
    done = clocks()
    print(
        f"{items:,} items: neighbours {seconds(found - started)}, then suggestion {seconds(done - found)}; {machine()}"
    )
    print(f"peak memory {peak_memory():.2f} GiB, {before:.2f} of it before")
    taken = []
    for _ in range(answers):
        question = review.questions(1)[0]
        answer = answered(question, "same" if truth[question.a] == truth[question.b] else "different")
        started = clocks()
        review.add([answer])
        review.questions(1)
        taken.append(clocks() - started)
    middle, most = np.median(taken, axis=0), np.max(taken, axis=0)
    print(f"answer to next question: median {seconds(middle)}, longest {seconds(most)}")
    return np.array(taken)


def clocks() -> Floats:
    """Seconds by the clock and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def seconds(taken: Floats) -> str:
    return f"{taken[0]:.2f} s ({taken[1]:.2f} s)"


def peak_memory() -> float:
    """GiB that the process held at most."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def machine() -> str:
    import os

    return f"{os.cpu_count()} cores {platform.machine()}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from-features", type=Path, metavar="FILE", help="vectors and identities of its gallery part")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--data-root", type=Path, help="folder with eth80/, cub30/ and nyala/")
    parser.add_argument("--weights", help="of ViT-Tiny: imagenet, or a file")
    parser.add_argument("--cache", type=Path, default=Path("runs/naming"), help="vectors of the sets (runs/naming)")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=20, help="draws (20)")
    parser.add_argument("--reviewer-errors", nargs="+", type=float, default=[0.0, 0.02, 0.05])
    parser.add_argument(
        "--error", type=float, default=0.01, help="share of the machine's joins that may be wrong (0.01)"
    )
    parser.add_argument("--cut", action="store_true", help="also with a third of the identities cut to one photo")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--speed", type=int, metavar="ITEMS", help="time a suggestion and answers instead")
    options = parser.parse_args(argv)
    if options.speed:
        measure_speed(options.speed)
        return 0
    if options.from_features:
        cases = {options.from_features.stem: from_features(options.from_features)}
    elif options.data_root is None or options.weights is None:
        parser.error("--data-root and --weights are needed, or --from-features or --speed")
    else:
        cases = {name: read_case(name, options.data_root, options.weights, options.cache) for name in options.sets}
    found = {}
    for name, case in cases.items():
        for cut in (False, True) if options.cut else (False,):
            title = f"{name}-cut" if cut else name
            print(title, file=sys.stderr, flush=True)
            found[title] = measure(case, cut, options)
            print(table(title, found[title]), flush=True)
    if options.json:
        whole = {"machine": machine(), **(next(iter(found.values())) if len(found) == 1 else {}), "sets": found}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
