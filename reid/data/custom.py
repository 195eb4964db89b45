"""A user's own images: a table, or one folder an identity."""

import hashlib
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from reid.data.folders import EVERYTHING, LeftOut, Patterns, pictures_below
from reid.data.official import recognise
from reid.data.samples import Box, ReidDataset, Sample
from reid.data.tables import BOX_COLUMNS, Table, known_name, open_table, read_box
from reid.names import counted

SPLITS = ("train", "query", "gallery")
# How tables call their splits; val and test are given a part by `_read_splits`.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("query", "queries", "probe"), "query"),
    "gallery": "gallery",
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
REQUIRED_COLUMNS = ("path", "split", "identity")
TRAIN_PERCENT = 70


def read_csv(root: Path, *, columns: Mapping[str, str] | None = None) -> ReidDataset:
    """Read a table: `root` itself, or the `images.csv` or only CSV file of the folder `root`.

    Columns: `path` (relative to the file), `split` (train, query or gallery), `identity`; optionally `camera` (empty or
    -1: unknown) and a box `x,y,w,h` in pixels (empty: the whole image); `columns` maps these names to the table's own
    headings, where `open_table` would not know them. Any others are kept in `Sample.extra`. Identities and cameras are
    any text, numbered by `number_names`. Samples keep the order of the rows.

    An image whose identity is not known is left out of training, and elsewhere has an identity of its own, without a
    name. Images of a split `test` are what a table that has only queries or only a gallery lacks; where it has
    neither, those of `val` and `test` are both: each is a query among the others.

    Raises ValueError or FileNotFoundError naming the row and column of what is wrong.
    """
    table = open_table(_find_table(root), columns)
    _require_columns(table)
    rows = list(table.rows())
    if not rows:
        raise ValueError(f"{table.path}: no rows below the first, which names the columns")
    splits, words = _read_splits(table, rows)
    names = [known_name(row["identity"]) for _, row in rows]
    identities = number_names(name for name in names if name is not None)
    own_numbers = itertools.count(max(identities.values(), default=-1) + 1)  # of images of nobody known
    places = [known_name(row.get("camera", "")) for _, row in rows]
    cameras = number_names(place for place in places if place is not None)
    samples: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    first_rows: dict[tuple[str, Path, Box | None], int] = {}
    missing, unknown = [], Counter[str]()
    for (number, row), name, place in zip(rows, names, places, strict=True):
        split = row["split"]
        sample = Sample(
            path=table.path.parent / row["path"],
            identity=next(own_numbers) if name is None else identities[name],
            camera=-1 if place is None else cameras[place],
            box=read_box(table, number, row),
            extra={name: row[name] for name in row if name not in (*REQUIRED_COLUMNS, "camera", *BOX_COLUMNS)},
        )
        earlier = first_rows.setdefault((split, sample.path, sample.box), number)
        if earlier != number:
            raise ValueError(f"{table.path} row {number}: the same image and split as row {earlier} ({row['path']})")
        if not sample.path.is_file():
            missing.append(f"{row['path']} (row {number})")
        for place_in in splits[split]:
            unknown[place_in] += name is None
            if name is not None or place_in != "train":
                samples[place_in].append(sample)
    if missing:
        raise FileNotFoundError(
            f"{table.path}, column {table.headings['path']!r}: "
            f"{len(missing):,} of {counted(len(rows), 'image does', 'images do')} not exist "
            f"below {table.path.parent}, e.g. {', '.join(missing[:3])}"
        )
    return ReidDataset(
        "csv",
        table.path.parent,
        train=tuple(samples["train"]),
        query=tuple(samples["query"]),
        gallery=tuple(samples["gallery"]),
        protocol={"table": table.path.name},
        identity_names=_names_by_number(identities),
        camera_names=_names_by_number(cameras),
        understood="; ".join([table.understood(), *words]),
        warnings=tuple(_describe_unknown(table, unknown)),
    )


def read_folder(root: Path, *, wanted: Patterns = EVERYTHING) -> ReidDataset:
    """Read `root`/{train,query,gallery}/IDENTITY/*.jpg, or `root`/IDENTITY/*.jpg with a split made here.

    Folders may have the other names of splits too, as in tables: beside train each image of `test` or `val` is a query
    among the others. Images, by content, may lie in further folders below IDENTITY, and only those are taken that are
    `wanted` by their paths below `root`; a warning counts what else there is.
    Cameras are known where all names of files tell them as published sets do, such as 0001_c2s1_000301_00.jpg. The
    split made here orders identities by a hash of their name, trains on the first 70 % and holds out the rest. A
    held-out identity's first image by hash is a query and the others are gallery, but a single image is a gallery
    distractor.

    Raises FileNotFoundError where only some of the split folders exist, ValueError for a published set, and for a
    folder whose identities lie in one more folder.
    """
    known = recognise(root)
    if known:
        raise ValueError(f"folder: {root} holds what looks like dataset {known}, not one folder an identity")
    called = _split_folders(root)
    left_out = LeftOut()
    warnings: tuple[str, ...] = ()
    words: list[str] = []
    if called:
        parts, words = _split_parts(Counter(called.values()))
        found = images_by_folder(root, left_out, list(called), wanted)
        splits: dict[str, dict[str, list[Path]]] = {split: {} for split in SPLITS}
        for folder, word in called.items():
            for split in parts[word]:
                for name, paths in found[folder].items():
                    splits[split].setdefault(name, []).extend(paths)
        *others, last = called
        protocol = {"split": f"{', '.join(others)} and {last} folders"}
    else:
        by_name = images_by_folder(root, left_out, wanted=wanted)[""]
        _require_no_folder_between(root, by_name)
        splits = _split_by_hash(by_name, root)
        protocol = {"split": f"automatic, {TRAIN_PERCENT} % of identities for training, by hash of their names"}
        warnings = (
            f"folder: {root} has no train, query and gallery folders, so the split is automatic: by a hash of their "
            f"names, {counted(len(splits['train']), 'identity', 'identities')} for training, "
            f"{len(splits['gallery'])} held out",
        )
    if left_out:
        warnings = (*warnings, f"folder: {left_out}")
    numbers = number_names(name for images in splits.values() for name in images)
    places = _cameras_in_names([path for images in splits.values() for paths in images.values() for path in paths])
    cameras = number_names(places.values())
    if cameras:
        first = next(iter(places))
        words = [
            *words,
            f"{counted(len(cameras), 'camera')}, from the names of files: {first.name} is of camera {places[first]}",
        ]
    train, query, gallery = (
        tuple(
            Sample(path, numbers[name], cameras[places[path]] if cameras else -1)
            for name, paths in sorted(splits[split].items())
            for path in paths
        )
        for split in SPLITS
    )
    return ReidDataset(
        "folder",
        root,
        train,
        query,
        gallery,
        protocol=protocol,
        identity_names=_names_by_number(numbers),
        camera_names=_names_by_number(cameras),
        understood="; ".join([f"folder {root.name}", *words]) if words else "",
        warnings=warnings,
    )


def _require_no_folder_between(root: Path, images: Mapping[str, Sequence[Path]]) -> None:
    """Raise ValueError where all identities lie in one more folder, which would be the only identity."""
    if len(images) == 1:
        [(name, paths)] = images.items()
        inner = {path.relative_to(root / name).parts[0] for path in paths if path.parent != root / name}
        if len(inner) > 1:
            raise ValueError(
                f"folder: {root} has one folder with images, {name}, and {len(inner)} folders in it, such as "
                f"{min(inner)}; expected one folder an identity: give {root / name} as data root if these are they"
            )


def _split_folders(root: Path) -> dict[str, str]:
    """The folders of `root` that are called as splits, with our word for each; none where it has one an identity.

    Raises FileNotFoundError where they do not make a training and a test set.
    """
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    order = list(SPLIT_WORDS)  # as people tell them: training first
    names = sorted((name for name in names if name.casefold() in order), key=lambda name: order.index(name.casefold()))
    called = {name: SPLIT_WORDS[name.casefold()] for name in names}
    if not {"train", "query", "gallery"} & set(called.values()):
        return {}
    parts = _split_parts(Counter(called.values()))[0]
    there = {split for word in called.values() for split in parts[word]}
    lacking = [split for split in SPLITS if split not in there]
    if lacking:
        raise FileNotFoundError(
            f"folder: {root} has no {' and no '.join(lacking)}; expected the folders {', '.join(SPLITS)} (they may be "
            "empty), or train and test, or one folder an identity"
        )
    return called


# As Market-1501, DukeMTMC, VeRi-776, CUHK03-NP and what is made of them name their files.
CAMERA_IN_NAME = re.compile(r"_c(\d{1,3})(?:s\d+)?_")


def _cameras_in_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The camera that the name of each file tells; none where any tells none."""
    found = {path: CAMERA_IN_NAME.search(path.name) for path in paths}
    told = {path: str(int(match[1])) for path, match in found.items() if match}
    return told if len(told) == len(found) else {}


def number_names(names: Iterable[str]) -> dict[str, int]:
    """Number names: whole numbers keep their value if all names are different ones, else sorted order from 0."""
    distinct = sorted(set(names))
    if all(name.isascii() and name.isdecimal() and len(name) <= 18 for name in distinct):  # 18 digits fit in int64
        values = {name: int(name) for name in distinct}
        if len(set(values.values())) == len(distinct):  # not so with both 7 and 007
            return values
    return {name: number for number, name in enumerate(distinct)}


def _names_by_number(numbers: Mapping[str, int]) -> dict[int, str]:
    return {number: name for name, number in numbers.items()}


def _find_table(root: Path) -> Path:
    if root.is_file():
        return root
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() == ".csv" and not path.name.startswith("."))
    if root / "images.csv" in tables:
        return root / "images.csv"
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise ValueError(f"csv: {root} holds {len(tables)} CSV files ({names}); give the path of one as data root")
    if not tables:
        known = recognise(root)
        hint = f", but what looks like dataset {known}" if known else ""
        raise FileNotFoundError(f"csv: no CSV file in {root}{hint}")
    return tables[0]


def _require_columns(table: Table) -> None:
    lacking = [name for name in REQUIRED_COLUMNS if name not in table.columns]
    if lacking:
        hint = ""
        if lacking == ["split"]:
            hint = f"; `reid-data split {table.path.name}` writes a table that has one"
        raise ValueError(
            f"{table.path}: missing column {', '.join(map(repr, lacking))}; found {table.found}, expected "
            f"path,split,identity and optionally camera and x,y,w,h (--columns {lacking[0]}=HEADING names one){hint}"
        )


def _read_splits(table: Table, rows: Sequence[tuple[int, dict[str, str]]]) -> tuple[dict[str, list[str]], list[str]]:
    """Of which of `SPLITS` an image of each split of the table is, and what to tell of that; rows get our words."""
    for number, row in rows:
        word = SPLIT_WORDS.get(row["split"].casefold())
        if word is None:
            where = table.where(number, "split")
            raise ValueError(f"{where}: found {row['split']!r}, expected train, query or gallery, or val or test")
        row["split"] = word
    found = Counter(row["split"] for _, row in rows)
    parts, words = _split_parts(found)
    return parts, [", ".join(f"{count:,} {split}" for split, count in found.items()), *words]


def _split_parts(found: Mapping[str, int]) -> tuple[dict[str, list[str]], list[str]]:
    """Of which of `SPLITS` what is called by one of our words is, among those `found`, and what to tell of that."""
    tested = [split for split in ("query", "gallery") if found.get(split)]
    parts = {split: [split] for split in SPLITS}
    words: list[str] = []
    held_out = [split for split in ("val", "test") if found.get(split)]
    if not tested:
        parts |= {"val": ["query", "gallery"], "test": ["query", "gallery"]}
        words += [f"each image of {' and '.join(held_out)} is a query among the others"] if held_out else []
    else:
        other = [split for split in ("query", "gallery") if split not in tested]
        parts |= {"val": [], "test": other}
        words += [f"test is the {other[0]}"] if other and found.get("test") else []
        unused = [split for split in held_out if not parts[split]]
        words += [f"{' and '.join(unused)} are not used beside query and gallery"] if unused else []
    return parts, words


def _describe_unknown(table: Table, unknown: Mapping[str, int]) -> Iterator[str]:
    """A sentence on the images of nobody known, counted by split."""
    total = sum(unknown.values())
    if total:
        what = [f"{unknown['train']:,} left out of training"] if unknown["train"] else []
        what += [f"{unknown['gallery']:,} in the gallery as distractors"] if unknown["gallery"] else []
        what += [f"{unknown['query']:,} among the queries, without a match"] if unknown["query"] else []
        yield (
            f"{table.path.name}, column {table.headings['identity']!r}: images of nobody known (empty, unknown, nan): "
            f"{', '.join(what)}"
        )


def images_by_folder(
    folder: Path, left_out: LeftOut, splits: Sequence[str] = (), wanted: Patterns = EVERYTHING
) -> dict[str, dict[str, list[Path]]]:
    """The sorted images below `folder`/SPLIT/NAME that are `wanted`, by split and name, all else `left_out`.

    Without `splits` those below `folder`/NAME, under the split "". Splits are read each for itself: a link may make one
    of them another, or of what lies elsewhere in `folder`.
    """
    found: dict[str, dict[str, list[Path]]] = {split: {} for split in splits or ("",)}
    for split, images in found.items():
        for inside in pictures_below(folder / split, left_out):
            if len(inside.parts) < 2:
                left_out.add("beside the folders that name what they show")
            elif option := wanted.refuse(Path(split) / inside):
                left_out.add(f"by {option}")
            else:
                images.setdefault(inside.parts[0], []).append(folder / split / inside)
    if splits:
        left_out.add(f"outside the folders {', '.join(splits)}", _files_outside(folder, splits))
    return {split: {name: sorted(paths) for name, paths in images.items()} for split, images in found.items()}


def _files_outside(folder: Path, splits: Sequence[str]) -> int:
    read = {os.path.realpath(folder / split) for split in splits}
    files = 0
    for here, folders, names in os.walk(os.path.realpath(folder)):
        folders[:] = [name for name in folders if os.path.join(here, name) not in read]
        files += len(names)
    return files


def _split_by_hash(images: Mapping[str, list[Path]], root: Path) -> dict[str, dict[str, list[Path]]]:
    names = sorted(images, key=_stable_hash)
    train_size = (TRAIN_PERCENT * len(names) + 50) // 100
    query, gallery = {}, {}
    for name in names[train_size:]:
        first = min(images[name], key=lambda path: _stable_hash(path.relative_to(root).as_posix()))
        alone = len(images[name]) == 1
        query[name] = [] if alone else [first]
        gallery[name] = [path for path in images[name] if alone or path != first]
    return {"train": {name: images[name] for name in names[:train_size]}, "query": query, "gallery": gallery}


def _stable_hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()  # Python's own hash of text differs from run to run
