"""A user's own images: a table, or one folder an identity."""

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from reid.data.folders import LeftOut, pictures_below
from reid.data.official import recognise
from reid.data.samples import Box, ReidDataset, Sample
from reid.data.tables import BOX_COLUMNS, Table, known_name, open_table, read_box

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
            f"{table.path}, column {table.headings['path']!r}: {len(missing):,} of {len(rows):,} images do not exist "
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


def read_folder(root: Path) -> ReidDataset:
    """Read `root`/{train,query,gallery}/IDENTITY/*.jpg, or `root`/IDENTITY/*.jpg with a split made here.

    Images, by content, may lie in further folders below IDENTITY; there is no camera. A warning counts what else lies
    there. The split made here orders identities by a
    hash of their name, trains on the first 70 % and holds out the rest. A held-out identity's first image by hash is a
    query and the others are gallery, but a single image is a gallery distractor.

    Raises FileNotFoundError where only some of the three split folders exist, ValueError for a published set.
    """
    known = recognise(root)
    if known:
        raise ValueError(f"folder: {root} holds what looks like dataset {known}, not one folder an identity")
    lacking = [split for split in SPLITS if not (root / split).is_dir()]
    left_out = LeftOut()
    warnings: tuple[str, ...] = ()
    if not lacking:
        splits = images_by_folder(root, left_out, SPLITS)
        protocol = {"split": "train, query and gallery folders"}
    elif len(lacking) < len(SPLITS):
        raise FileNotFoundError(
            f"folder: {root} has no {' and no '.join(lacking)}; expected the folders {', '.join(SPLITS)} (they may be "
            "empty), or one folder an identity"
        )
    else:
        splits = _split_by_hash(images_by_folder(root, left_out)[""], root)
        protocol = {"split": f"automatic, {TRAIN_PERCENT} % of identities for training, by hash of their names"}
        warnings = (
            f"folder: {root} has no train, query and gallery folders, so the split is automatic: by a hash of their "
            f"names, {len(splits['train'])} identities for training, {len(splits['gallery'])} held out",
        )
    if left_out:
        warnings = (*warnings, f"folder: {left_out}")
    numbers = number_names(name for images in splits.values() for name in images)
    train, query, gallery = (
        tuple(Sample(path, numbers[name]) for name, paths in sorted(splits[split].items()) for path in paths)
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
        warnings=warnings,
    )


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
        found = ",".join(filter(None, table.columns))
        hint = ""
        if lacking == ["split"]:
            hint = f"; `reid-data split {table.path.name}` writes a table that has one"
        raise ValueError(
            f"{table.path}: missing column {', '.join(map(repr, lacking))}; found {found}, expected path,split,identity"
            f" and optionally camera and x,y,w,h (--columns {lacking[0]}=HEADING names one){hint}"
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
    tested = [split for split in ("query", "gallery") if found[split]]
    parts = {split: [split] for split in SPLITS}
    words = [", ".join(f"{count:,} {split}" for split, count in found.items())]
    held_out = [split for split in ("val", "test") if found[split]]
    if not tested:
        parts |= {"val": ["query", "gallery"], "test": ["query", "gallery"]}
        words += [f"each image of {' and '.join(held_out)} is a query among the others"] if held_out else []
    else:
        other = [split for split in ("query", "gallery") if split not in tested]
        parts |= {"val": [], "test": other}
        words += [f"test is the {other[0]}"] if other and found["test"] else []
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


def images_by_folder(folder: Path, left_out: LeftOut, splits: Sequence[str] = ()) -> dict[str, dict[str, list[Path]]]:
    """The sorted images below `folder`/SPLIT/NAME by split and name, all else `left_out`.

    Without `splits` those below `folder`/NAME, under the split "". Splits are read each for itself: a link may make one
    of them another, or of what lies elsewhere in `folder`.
    """
    found: dict[str, dict[str, list[Path]]] = {split: {} for split in splits or ("",)}
    for split, images in found.items():
        for inside in pictures_below(folder / split, left_out):
            if len(inside.parts) < 2:
                left_out.add("beside the folders that name what they show")
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
