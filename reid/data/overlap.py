"""Pictures that are where they should not be: in training and test, or in the query and the gallery set."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reid.data.samples import Box, ReidDataset, Sample
from reid.names import counted

END = 256  # bytes, by which compressed pictures of one size differ


def picture(sample: Sample) -> tuple[Path, Box | None]:
    """What makes two samples the same picture: the file, and the box in it."""
    return sample.path, sample.box


def shared_identities(dataset: ReidDataset) -> tuple[str, ...]:
    """The names of those who are in both training and test, in the order of their numbers."""
    shared = {sample.identity for sample in dataset.train} & {s.identity for s in (*dataset.query, *dataset.gallery)}
    return tuple(map(dataset.identity_name, sorted(shared)))


def shared_pictures(train: Sequence[Sample], test: Sequence[Sample]) -> tuple[str, ...]:
    """The paths of pictures that are in both training and test, sorted."""
    return tuple(sorted({str(path) for path, _ in set(map(picture, train)) & set(map(picture, test))}))


def shared_contents(train: Sequence[Sample], test: Sequence[Sample]) -> tuple[tuple[str, str], ...]:
    """Pairs of a training and a test picture of the same bytes and box under two names, one for each of test; sorted.

    Only files of one size and end are read whole; those that cannot be are left out.
    """
    trained, tested = (set(map(picture, samples)) for samples in (train, test))
    keys: dict[Path, object] = {path: None for path, _ in trained | tested}
    with ThreadPoolExecutor() as pool:
        for look in (_size, _end, _digest):
            paths = list(keys)
            seen = dict(zip(paths, zip(keys.values(), pool.map(look, paths), strict=True), strict=True))
            both = {seen.get(path) for path, _ in trained} & {seen.get(path) for path, _ in tested}
            keys = {path: key for path, key in seen.items() if key in both}
    known = {(keys[path], box): path for path, box in sorted(trained, key=str) if path in keys}
    twins = ((known.get((keys[path], box)), path) for path, box in tested if path in keys)
    return tuple(sorted({(str(twin), str(path)) for twin, path in twins if twin not in (None, path)}))


def describe_shared_pictures(name: str, train: Sequence[Sample], test: Sequence[Sample]) -> Iterator[str]:
    """A sentence on pictures, or copies of them, in both training and test of a dataset of this name, if any are."""
    pictures, copies = shared_pictures(train, test), shared_contents(train, test)
    better = "the figures are better than on new pictures"
    if pictures:
        both = counted(len(pictures), "picture is", "pictures are")
        yield f"{name}: {both} in both training and test, e.g. {pictures[0]}: {better}"
    if copies:
        twin, path = copies[0]
        also = counted(len(copies), "picture of test is", "pictures of test are")
        yield f"{name}: {also} also in training, e.g. {path} is {twin}: {better}"


def describe_overlap(dataset: ReidDataset) -> Iterator[str]:
    """Sentences on what is in both training and test, which makes figures better than on new pictures."""
    told = list(describe_shared_pictures(dataset.name, dataset.train, (*dataset.query, *dataset.gallery)))
    identities = shared_identities(dataset)
    yield from told
    if identities and not told:
        yield (
            f"{dataset.name}: {counted(len(identities), 'identity is', 'identities are')} in both training and test, "
            f"e.g. {identities[0]}: the figures are those of individuals that the model knows"
        )


def number_copies(query: Sequence[Sample], gallery: Sequence[Sample]) -> dict[Path, int]:
    """Numbers of the files of queries that the gallery holds byte for byte under other names, and of those: 0, 1, ...

    Looked for among the pictures of one identity. Only files of one size are read; those that cannot be are left out.
    """
    asked, found = ({(s.identity, s.path) for s in samples} for samples in (query, gallery))
    by_identity: dict[int, set[Path]] = defaultdict(set)
    for identity, path in asked | found:
        by_identity[identity].add(path)
    numbers: dict[Path, int] = {}
    known: dict[object, int] = {}
    for identity, paths in sorted(by_identity.items()):
        contents: dict[object, set[tuple[int, Path]]] = defaultdict(set)
        for alike in _of_one_size(paths):
            for path in alike:
                contents[_digest(path)].add((identity, path))
        for digest, copies in contents.items():
            if len(copies) > 1 and copies & asked and copies & found:
                numbers |= dict.fromkeys((path for _, path in copies), known.setdefault(digest, len(known)))
    return numbers


def _of_one_size(paths: set[Path]) -> Iterator[list[Path]]:
    sizes: dict[int, list[Path]] = defaultdict(list)
    for path in paths if len(paths) > 1 else ():
        try:
            sizes[path.stat().st_size].append(path)
        except OSError:
            continue
    return (alike for alike in sizes.values() if len(alike) > 1)


def _size(path: Path) -> object:
    try:
        return path.stat().st_size
    except OSError:
        return path


def _end(path: Path) -> object:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - END))
            return file.read()
    except OSError:
        return path


def _digest(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return path
