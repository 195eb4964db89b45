"""Is this copy of a dataset complete, readable, and free of test images in training?"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reid.data.datasets import load_dataset
from reid.data.folders import EVERYTHING, Patterns
from reid.data.images import read_image
from reid.data.official import OFFICIAL_CAMERAS, official_counts
from reid.data.overlap import number_copies, picture, shared_contents, shared_identities, shared_pictures
from reid.data.samples import Box, Sample
from reid.progress import track

COLUMNS = ("split", "images", "official", "identities", "official", "with one image", "cameras")  # of `SplitReport`
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


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a check of any kind of dataset finds; "test" is all that is not training.

    `path_overlap` are the images in both training and test; `content_overlap` pairs a training with a test image of the
    same bytes under another name, None where contents were not compared. `unreadable` says of each image what is wrong
    with it: without reading contents, only of empty files.
    """

    dataset: str
    root: str
    protocol: Mapping[str, str]
    splits: Mapping[str, Any]
    path_overlap: tuple[str, ...]
    content_overlap: tuple[tuple[str, str], ...] | None
    unreadable: tuple[str, ...]
    understood: str = ""
    warnings: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether every image can be used and no image is in both training and test."""
        return not (self.path_overlap or self.content_overlap or self.unreadable)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON types, with `usable`."""
        return {**asdict(self), "usable": self.usable}

    def as_table(self, columns: Sequence[str], own: Mapping[str, str]) -> str:
        """The report as a short table of the splits and a line for each finding, `own` ones first."""
        choices = ", ".join(f"{name} {value}" for name, value in self.protocol.items())
        hashed = self.content_overlap is not None
        pairs = [f"{train} = {test}" for train, test in self.content_overlap or ()]
        findings = {
            **own,
            "images in both training and test, by path": examples(self.path_overlap),
            "images in both training and test, by content": examples(pairs) if hashed else "not compared (--hash)",
            "images that cannot be read" if hashed else "empty files": examples(self.unreadable),
        }
        return "\n".join(
            [
                f"{self.dataset} in {self.root}{f' ({choices})' if choices else ''}",
                *filter(None, [self.understood]),
                "",
                *table(columns, ((split, *asdict(found).values()) for split, found in self.splits.items())),
                "",
                *(f"{what + ':':<46}{found}" for what, found in findings.items()),
                *(f"warning: {warning}" for warning in self.warnings),
            ]
        )


@dataclass(frozen=True, kw_only=True)
class DatasetReport(Report):
    """What `check` found; "test" is query and gallery together.

    `queries_without_match` counts queries with no gallery image of their identity from another camera, an unknown
    camera counting as another, but none finds itself. `queries_in_gallery` are the same file, or a copy of it,
    with the same box.
    """

    splits: Mapping[str, SplitReport]
    cameras: int
    official_cameras: int | None
    shared_identities: tuple[str, ...]
    queries_without_match: int
    queries_in_gallery: int

    def as_text(self) -> str:
        """The report as a short table and a line for each finding."""
        official = f" (official {self.official_cameras})" if self.official_cameras else ""
        unmatched = f"{self.queries_without_match:,}"
        if 0 < self.queries_without_match == self.splits["query"].images:
            unmatched += ", all that there are: none can be scored, unless a query's own camera counts (junk=none)"
        own = {
            "cameras": f"{self.cameras}{official}",
            "identities in both training and test": examples(self.shared_identities),
            "queries without a match from another camera": unmatched,
            "queries that are also in the gallery": f"{self.queries_in_gallery:,}",
        }
        return self.as_table(COLUMNS, own)


def check(
    name: str,
    root: Path,
    *,
    version: str | None = None,
    train_split: str | None = None,
    hash_contents: bool = False,
    columns: Mapping[str, str] | None = None,
    wanted: Patterns = EVERYTHING,
) -> DatasetReport:
    """Load a dataset and look for what spoils training or makes results too good; options as in `load_dataset`.

    With `hash_contents` every image is read whole, so that equal images under different names and broken ones are
    found. Raises what `load_dataset` raises.
    """
    dataset = load_dataset(name, root, version=version, train_split=train_split, columns=columns, wanted=wanted)
    test = dataset.query + dataset.gallery
    official = official_counts(dataset)
    content_overlap = None
    if hash_contents:
        unreadable = find_broken(dataset.train + test)
        content_overlap = shared_contents(dataset.train, test)
    else:
        unreadable = find_empty(dataset.train + test)
    copies = number_copies(dataset.query, dataset.gallery)
    gallery_images = {_content(sample, copies) for sample in dataset.gallery}
    return DatasetReport(
        dataset=name,
        root=str(dataset.root),
        protocol=dataset.protocol,
        splits={split: _report_split(samples, official.get(split)) for split, samples in dataset.splits.items()},
        cameras=len({sample.camera for sample in dataset.train + test} - {-1}),
        official_cameras=OFFICIAL_CAMERAS.get(name),
        shared_identities=shared_identities(dataset),
        queries_without_match=count_unmatched(dataset.query, dataset.gallery, copies),
        queries_in_gallery=sum(_content(sample, copies) in gallery_images for sample in dataset.query),
        path_overlap=shared_pictures(dataset.train, test),
        content_overlap=content_overlap,
        unreadable=tuple(unreadable),
        understood=dataset.understood,
        warnings=dataset.warnings,
    )


def count_unmatched(
    query: Sequence[Sample], gallery: Sequence[Sample], copies: Mapping[Path, int] = MappingProxyType({})
) -> int:
    """Count the queries all of whose identity's gallery images are junk: of the query's own camera, or its own picture.

    Of unknown cameras none is the same, so there a query's own picture in the gallery is junk by itself, as are its
    `copies` by `number_copies`.
    """
    identities = Counter(sample.identity for sample in gallery)
    known = Counter((sample.identity, sample.camera) for sample in gallery if sample.camera != -1)
    own = Counter((sample.identity, _content(sample, copies)) for sample in gallery if sample.camera == -1)
    return sum(
        identities[sample.identity]
        == (
            known[sample.identity, sample.camera]
            if sample.camera != -1
            else own[sample.identity, _content(sample, copies)]
        )
        for sample in query
    )


def _content(sample: Sample, copies: Mapping[Path, int]) -> tuple[Path | int, Box | None]:
    return copies.get(sample.path, sample.path), sample.box


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


def find_empty(samples: Iterable[Sample]) -> list[str]:
    """What is wrong with files that are empty or not there, sorted."""
    problems = []
    for path in {sample.path for sample in samples}:
        try:
            if path.stat().st_size == 0:
                problems.append(f"{path}: the file is empty")
        except OSError as error:  # a link to nowhere, say
            problems.append(f"{path}: {error.strerror}")
    return sorted(problems)


def find_broken(samples: Iterable[Sample]) -> list[str]:
    """What is wrong with images that cannot be read, sorted by path; every one is read whole."""
    images = sorted(set(map(picture, samples)), key=str)

    def read(image: tuple[Path, Box | None]) -> str:
        try:
            read_image(*image)
        except (OSError, ValueError) as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:  # Pillow works outside the interpreter lock
        return [problem for problem in track(pool.map(read, images), len(images), "reading") if problem]


def table(columns: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> list[str]:
    """Lines below their headings; "-" where nothing is known."""

    def cell(value: str | int | None) -> str:
        return "-" if value is None else value if isinstance(value, str) else f"{value:,}"

    lines = [columns, *(tuple(map(cell, row)) for row in rows)]
    return [f"{line[0]:<8}" + "".join(f"{value:>16}" for value in line[1:]) for line in lines]


def examples(found: Sequence[str]) -> str:
    """How many there are, and the first few."""
    if not found:
        return "0"
    more = ", ..." if len(found) > EXAMPLES else ""
    return f"{len(found):,}: {', '.join(found[:EXAMPLES])}{more}"
