"""Is this copy of a dataset complete, readable, and free of test images in training?"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reid.data.datasets import load_dataset
from reid.data.images import read_image
from reid.data.official import OFFICIAL_CAMERAS, official_counts
from reid.data.samples import Box, Sample
from reid.progress import track

EXAMPLES = 3  # of each finding, in the text; the JSON names all


@dataclass(frozen=True)
class SplitReport:
    """One split: what was found beside the official counts, None where there are none."""

    images: int
    official_images: int | None
    identities: int
    official_identities: int | None
    single_image_identities: int
    cameras: int


@dataclass(frozen=True)
class DatasetReport:
    """What `check` found; "test" is query and gallery together.

    `queries_without_match` counts queries with no gallery image of their identity from another camera, an unknown
    camera counting as another, but none finds itself. `queries_in_gallery` are the same file with the same box.
    `path_overlap` are the images in both training and test; `content_overlap` pairs a training with a test image of the
    same bytes under another name, None where contents were not compared. `unreadable` says of each image what is wrong
    with it: without reading contents, only of empty files.
    """

    dataset: str
    root: str
    protocol: Mapping[str, str]
    splits: Mapping[str, SplitReport]
    cameras: int
    official_cameras: int | None
    shared_identities: tuple[str, ...]
    queries_without_match: int
    queries_in_gallery: int
    path_overlap: tuple[str, ...]
    content_overlap: tuple[tuple[str, str], ...] | None
    unreadable: tuple[str, ...]
    understood: str
    warnings: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether every image can be used and no image is in both training and test."""
        return not (self.path_overlap or self.content_overlap or self.unreadable)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON types, with `usable`."""
        return {**asdict(self), "usable": self.usable}

    def as_text(self) -> str:
        """The report as a short table and a line for each finding."""
        choices = ", ".join(f"{name} {value}" for name, value in self.protocol.items())
        official = f" (official {self.official_cameras})" if self.official_cameras else ""
        hashed = self.content_overlap is not None
        pairs = [f"{train} = {test}" for train, test in self.content_overlap or ()]
        findings = {
            "cameras": f"{self.cameras}{official}",
            "identities in both training and test": _examples(self.shared_identities),
            "queries without a match from another camera": f"{self.queries_without_match:,}",
            "queries that are also in the gallery": f"{self.queries_in_gallery:,}",
            "images in both training and test, by path": _examples(self.path_overlap),
            "images in both training and test, by content": _examples(pairs) if hashed else "not compared (--hash)",
            "images that cannot be read" if hashed else "empty files": _examples(self.unreadable),
        }
        return "\n".join(
            [
                f"{self.dataset} in {self.root}{f' ({choices})' if choices else ''}",
                *filter(None, [self.understood]),
                "",
                *_table(self.splits),
                "",
                *(f"{what + ':':<46}{found}" for what, found in findings.items()),
                *(f"warning: {warning}" for warning in self.warnings),
            ]
        )


def check(
    name: str,
    root: Path,
    *,
    version: str | None = None,
    train_split: str | None = None,
    hash_contents: bool = False,
    columns: Mapping[str, str] | None = None,
) -> DatasetReport:
    """Load a dataset and look for what spoils training or makes results too good; options as in `load_dataset`.

    With `hash_contents` every image is read whole, so that equal images under different names and broken ones are
    found. Raises what `load_dataset` raises.
    """
    dataset = load_dataset(name, root, version=version, train_split=train_split, columns=columns)
    test = dataset.query + dataset.gallery
    official = official_counts(dataset)
    content_overlap = None
    if hash_contents:
        contents, unreadable = _read_contents(dataset.train + test)
        content_overlap = _content_overlap(dataset.train, test, contents)
    else:
        unreadable = _find_empty({sample.path for sample in dataset.train + test})
    shared = {sample.identity for sample in dataset.train} & {sample.identity for sample in test}
    gallery_images = set(map(_image, dataset.gallery))
    return DatasetReport(
        dataset=name,
        root=str(dataset.root),
        protocol=dataset.protocol,
        splits={split: _report_split(samples, official.get(split)) for split, samples in dataset.splits.items()},
        cameras=len({sample.camera for sample in dataset.train + test} - {-1}),
        official_cameras=OFFICIAL_CAMERAS.get(name),
        shared_identities=tuple(dataset.identity_names.get(identity, str(identity)) for identity in sorted(shared)),
        queries_without_match=count_unmatched(dataset.query, dataset.gallery),
        queries_in_gallery=sum(_image(sample) in gallery_images for sample in dataset.query),
        path_overlap=_path_overlap(dataset.train, test),
        content_overlap=content_overlap,
        unreadable=tuple(unreadable),
        understood=dataset.understood,
        warnings=dataset.warnings,
    )


def count_unmatched(query: Sequence[Sample], gallery: Sequence[Sample]) -> int:
    """Count the queries all of whose identity's gallery images are junk: of the query's own camera, or its own picture.

    Of unknown cameras none is the same, so there a query's own picture in the gallery is junk by itself.
    """
    identities = Counter(sample.identity for sample in gallery)
    known = Counter((sample.identity, sample.camera) for sample in gallery if sample.camera != -1)
    own = Counter((sample.identity, _image(sample)) for sample in gallery if sample.camera == -1)
    return sum(
        identities[sample.identity]
        == (known[sample.identity, sample.camera] if sample.camera != -1 else own[sample.identity, _image(sample)])
        for sample in query
    )


def _report_split(samples: Sequence[Sample], official: tuple[int, int] | None) -> SplitReport:
    identities = Counter(sample.identity for sample in samples)
    official_images, official_identities = official or (None, None)
    return SplitReport(
        images=len(samples),
        official_images=official_images,
        identities=len(identities),
        official_identities=official_identities,
        single_image_identities=sum(count == 1 for count in identities.values()),
        cameras=len({sample.camera for sample in samples} - {-1}),
    )


def _image(sample: Sample) -> tuple[Path, Box | None]:
    return sample.path, sample.box


def _path_overlap(train: Sequence[Sample], test: Sequence[Sample]) -> tuple[str, ...]:
    return tuple(sorted({str(path) for path, _ in set(map(_image, train)) & set(map(_image, test))}))


def _content_overlap(
    train: Sequence[Sample], test: Sequence[Sample], contents: Mapping[Path, str]
) -> tuple[tuple[str, str], ...]:
    """Pairs of a training and a test image of the same content and box; one pair for each test image."""
    known = {(contents[sample.path], sample.box): sample.path for sample in train if sample.path in contents}
    pairs = set()
    for sample in test:
        twin = known.get((contents.get(sample.path, ""), sample.box))
        if twin is not None and twin != sample.path:
            pairs.add((str(twin), str(sample.path)))
    return tuple(sorted(pairs))


def _find_empty(paths: Iterable[Path]) -> list[str]:
    problems = []
    for path in paths:
        try:
            if path.stat().st_size == 0:
                problems.append(f"{path}: the file is empty")
        except OSError as error:  # a link to nowhere, say
            problems.append(f"{path}: {error.strerror}")
    return sorted(problems)


def _read_contents(samples: Sequence[Sample]) -> tuple[dict[Path, str], list[str]]:
    """SHA-256 of each file that holds a readable image, and what is wrong with the others."""
    images = sorted(set(map(_image, samples)), key=str)

    def read(image: tuple[Path, Box | None]) -> tuple[str, str]:
        path, box = image
        try:
            read_image(path, box)
            return hashlib.sha256(path.read_bytes()).hexdigest(), ""
        except (OSError, ValueError) as error:
            return "", str(error)

    with ThreadPoolExecutor() as pool:  # Pillow and hashlib work outside the interpreter lock
        results = list(track(pool.map(read, images), len(images), "reading"))
    contents = {path: digest for (path, _), (digest, _) in zip(images, results, strict=True) if digest}
    return contents, [problem for _, problem in results if problem]


def _table(splits: Mapping[str, SplitReport]) -> list[str]:
    def cell(count: int | None) -> str:
        return "-" if count is None else f"{count:,}"

    columns = ("split", "images", "official", "identities", "official", "with one image", "cameras")
    rows = [
        (
            split,
            cell(found.images),
            cell(found.official_images),
            cell(found.identities),
            cell(found.official_identities),
            cell(found.single_image_identities),
            cell(found.cameras),
        )
        for split, found in splits.items()
    ]
    return [f"{row[0]:<8}" + "".join(f"{value:>16}" for value in row[1:]) for row in [columns, *rows]]


def _examples(found: Sequence[str]) -> str:
    if not found:
        return "0"
    more = ", ..." if len(found) > EXAMPLES else ""
    return f"{len(found):,}: {', '.join(found[:EXAMPLES])}{more}"
