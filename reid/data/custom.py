"""A user's own images: a CSV file, or one folder an identity."""

import csv
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from reid.data.official import recognise
from reid.data.samples import Box, ReidDataset, Sample, is_image

SPLITS = ("train", "query", "gallery")
REQUIRED_COLUMNS = ("path", "split", "identity")
BOX_COLUMNS = ("x", "y", "w", "h")
TRAIN_PERCENT = 70


def read_csv(root: Path) -> ReidDataset:
    """Read a CSV file: `root` itself, or the `images.csv` or only CSV file of the folder `root`.

    Columns: `path` (relative to the file), `split` (train, query or gallery), `identity`; optionally `camera` (empty or
    -1: unknown) and a box `x,y,w,h` in pixels (empty: the whole image). Any others are kept in `Sample.extra`.
    Identities and cameras are any text, numbered by `number_names`. Samples keep the order of the rows.

    Raises ValueError or FileNotFoundError naming the row and column of what is wrong.
    """
    table = _find_table(root)
    rows = _read_rows(table)
    identities = number_names(row["identity"] for _, row in rows)
    cameras = number_names(row["camera"] for _, row in rows if row.get("camera", "") not in ("", "-1"))
    splits: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    first_rows: dict[tuple[str, Path, Box | None], int] = {}
    missing = []
    for number, row in rows:
        sample = Sample(
            path=table.parent / row["path"],
            identity=identities[row["identity"]],
            camera=cameras.get(row.get("camera", ""), -1),
            box=_read_box(row, f"{table} row {number}"),
            extra={name: row[name] for name in row if name not in (*REQUIRED_COLUMNS, "camera", *BOX_COLUMNS)},
        )
        earlier = first_rows.setdefault((row["split"], sample.path, sample.box), number)
        if earlier != number:
            raise ValueError(f"{table} row {number}: the same image and split as row {earlier} ({row['path']})")
        if not sample.path.is_file():
            missing.append(f"{row['path']} (row {number})")
        splits[row["split"]].append(sample)
    if missing:
        raise FileNotFoundError(
            f"{table}, column 'path': {len(missing):,} of {len(rows):,} images do not exist below {table.parent}, "
            f"e.g. {', '.join(missing[:3])}"
        )
    return ReidDataset(
        "csv",
        table.parent,
        train=tuple(splits["train"]),
        query=tuple(splits["query"]),
        gallery=tuple(splits["gallery"]),
        protocol={"table": table.name},
        identity_names=_names_by_number(identities),
        camera_names=_names_by_number(cameras),
    )


def read_folder(root: Path) -> ReidDataset:
    """Read `root`/{train,query,gallery}/IDENTITY/*.jpg, or `root`/IDENTITY/*.jpg with a split made here.

    Images may lie in further folders below IDENTITY; there is no camera. The split made here orders identities by a
    hash of their name, trains on the first 70 % and holds out the rest. A held-out identity's first image by hash is a
    query and the others are gallery, but a single image is a gallery distractor.

    Raises FileNotFoundError where only some of the three split folders exist, ValueError for a published set.
    """
    known = recognise(root)
    if known:
        raise ValueError(f"folder: {root} holds what looks like dataset {known}, not one folder an identity")
    lacking = [split for split in SPLITS if not (root / split).is_dir()]
    warnings: tuple[str, ...] = ()
    if not lacking:
        splits = {split: images_by_folder(root / split) for split in SPLITS}
        protocol = {"split": "train, query and gallery folders"}
    elif len(lacking) < len(SPLITS):
        raise FileNotFoundError(
            f"folder: {root} has no {' and no '.join(lacking)}; expected the folders {', '.join(SPLITS)} (they may be "
            "empty), or one folder an identity"
        )
    else:
        splits = _split_by_hash(images_by_folder(root), root)
        protocol = {"split": f"automatic, {TRAIN_PERCENT} % of identities for training, by hash of their names"}
        warnings = (
            f"folder: {root} has no train, query and gallery folders, so the split is automatic: by a hash of their "
            f"names, {len(splits['train'])} identities for training, {len(splits['gallery'])} held out",
        )
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


def _read_rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """(line number, cells by column) of all rows that are not blank."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            columns = [name.strip() for name in next(reader, [])]
            _check_columns(table, columns)
            rows = [
                (reader.line_num, _read_row(f"{table} row {reader.line_num}", columns, cells))
                for cells in reader
                if any(cells)
            ]
        except UnicodeDecodeError:
            raise ValueError(f"{table}: not UTF-8 text; save it as CSV in UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{table} row {reader.line_num}: not readable as CSV ({error})") from None
    if not rows:
        raise ValueError(f"{table}: no rows below the first, which names the columns")
    return rows


def _check_columns(table: Path, columns: Sequence[str]) -> None:
    lacking = [name for name in REQUIRED_COLUMNS if name not in columns]
    if lacking and any(";" in name for name in columns):
        raise ValueError(f"{table} row 1: columns are separated by ';', expected ','")
    if lacking:
        raise ValueError(
            f"{table} row 1: missing column {', '.join(map(repr, lacking))}; found {','.join(columns) or 'nothing'}, "
            "expected path,split,identity and optionally camera and x,y,w,h"
        )
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise ValueError(f"{table} row 1: column {repeated[0]!r} appears twice")
    box_columns = [name for name in BOX_COLUMNS if name in columns]
    if box_columns and len(box_columns) < len(BOX_COLUMNS):
        raise ValueError(f"{table} row 1: found {','.join(box_columns)} of the box columns, expected x,y,w,h or none")


def _read_row(where: str, columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(columns):
        raise ValueError(f"{where}: {len(cells)} cells, expected {len(columns)} as in row 1")
    row = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
    for name in REQUIRED_COLUMNS:
        if not row[name]:
            raise ValueError(f"{where}, column {name!r}: empty")
    if row["split"] not in SPLITS:
        raise ValueError(f"{where}, column 'split': found {row['split']!r}, expected train, query or gallery")
    return row


def _read_box(row: Mapping[str, str], where: str) -> Box | None:
    cells = {name: row.get(name, "") for name in BOX_COLUMNS}
    if not any(cells.values()):
        return None
    values = []
    for name, cell in cells.items():
        least = 1 if name in ("w", "h") else 0
        try:
            value = float(cell)  # tables made with pandas write 12.0 once any cell of the column is empty
        except ValueError:
            value = -1.0
        if not value.is_integer() or value < least:
            raise ValueError(f"{where}, column {name!r}: found {cell!r}, expected whole pixels, {least} or more")
        values.append(int(value))
    x, y, width, height = values
    return x, y, width, height


def images_by_folder(folder: Path) -> dict[str, list[Path]]:
    """The sorted images below each folder of `folder`; hidden files and folders count for nothing."""
    images = {}
    for identity in folder.iterdir():
        if identity.is_dir() and not identity.name.startswith("."):
            images[identity.name] = sorted(
                path
                for path in identity.rglob("*")
                if is_image(path.name) and not any(part.startswith(".") for part in path.relative_to(identity).parts)
            )
    return {name: paths for name, paths in images.items() if paths}


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
