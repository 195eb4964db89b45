"""A gallery as files that other programs read, and back: tables of what is in it and features.

n are the items of a file of features, E is the embedding size.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sqlalchemy import Connection, Table, func, insert, select

from reid.data.cells import as_cell, from_cell
from reid.files import write_whole
from service.fields import microseconds, time_from
from service.gallery.pictures import PICTURES_FOLDER, PICTURES_LOCK, Pictures
from service.records import APPEARANCE, NOBODY, Cause, NotFound, Vectors
from service.storage.columns import json_text, now, portions
from service.storage.database import Database
from service.storage.models import Models
from service.storage.tables import decisions, identities, items, media, models, operations, shortlists, spaces, vectors
from service.storage.transaction import Transaction
from service.storage.vectors import add_vectors, of_items, require_unit

Progress = Callable[[int, int], None]

AT_ONCE = 4096  # items of a file of features
ITEMS_FILE, MODEL_FILE, FEATURES_FOLDER = "items.csv", "model.json", "features"
SPLIT = "train"  # so that the table trains as it stands
_BOX = ("x", "y", "w", "h")
_TIMES = {"captured_at", "created_at", "retention_until", "shown_at", "answered_at", "changed_at", "time"}
_OF_ITEMS = [
    column for column in items.columns if column.name not in ("number", "media_number", "identity_number", "box")
]
_OF_MEDIA = [column for column in media.columns if column.name not in ("number", "sha256", "captured_at")]
_COLUMNS = [
    *("path", "split", "identity", "identity_id", "media", *_BOX),
    *(column.name for column in (*_OF_ITEMS, *_OF_MEDIA)),
]
_CELLS = {column.name: column for column in (*_OF_ITEMS, *_OF_MEDIA)}
# Tables with their public ids, and the column whose rows refer to others of theirs, if any does.
_TABLES: dict[str, tuple[Table, str, str | None]] = {
    "identities.csv": (identities, "identity_id", "merged_into"),
    "decisions.csv": (decisions, "decision_id", "supersedes"),
    "shortlists.csv": (shortlists, "shortlist_id", None),
}
# What the log tells of identities, without which a merge or the making of one could not be taken back.
_LOG_FILE, _LOGGED = "identity_log.csv", ("identity.create", "identity.merge")
_OF_LOG = [column.name for column in operations.columns if column.name != "seq"]
_ENDINGS = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp"}  # by how a picture begins


def export(database: Database, folder: Path, progress: Progress, pictures: Pictures | None = None) -> int:
    """Write a gallery that nobody changes meanwhile to a new folder, with its pictures if they are given.

    `items.csv` has a row for each item, and is a table that `reid-train --dataset csv` reads where there are pictures;
    `features` has files of float32 (n, E) in its order, of the active model. Returns the number of items. Raises
    FileExistsError for a folder that is there, ValueError for a gallery without model, and OSError when the folder
    cannot be written.
    """
    active = Models(database).active
    if active is None:
        raise ValueError(f"{database.name}: has no model yet, so that there is nothing to export")
    folder.mkdir(parents=True)
    (folder / FEATURES_FOLDER).mkdir()
    if pictures is not None:
        (folder / PICTURES_FOLDER).mkdir()
    ((total,),) = database.read(select(func.count()).select_from(items))
    done = 0
    with _new_table(folder / ITEMS_FILE, _COLUMNS) as write:
        for rows in _rows(database):
            for row in rows:
                path = row["source"] if pictures is None else _copied(pictures, row["media"], folder)
                write([_cell(name, value) for name, value in {**row, "path": path, "split": SPLIT}.items()])
            features = _features(database, active.model_id, [row["number"] for row in rows], active.dimension)
            write_whole(
                folder / FEATURES_FOLDER / f"{done:08d}.safetensors", partial(save_file, {"features": features})
            )
            done += len(rows)
            progress(done, total)
    for name, (table, public_id, refers) in _TABLES.items():
        kept = [column for column in table.columns if column.name not in ("number", refers)]
        chosen, columns = select(*kept), [column.name for column in kept]
        if refers is not None:
            other = table.alias()
            chosen = chosen.add_columns(other.c[public_id])
            chosen = chosen.outerjoin_from(table, other, table.c[refers] == other.c.number)
            columns.append(refers)
        if rows_of_table := database.read(chosen.order_by(table.c.number)):
            with _new_table(folder / name, columns) as write:
                for values in rows_of_table:
                    write([_cell(column, value) for column, value in zip(columns, values, strict=True)])
    _write_log(database, folder / _LOG_FILE)
    described = {"model_id": active.model_id, "dimension": active.dimension, "description": dict(active.description)}
    (folder / MODEL_FILE).write_text(json.dumps(described, indent=2), encoding="utf-8")  # last: then it is whole
    return done


def take_in(folder: Path, database: Database, progress: Progress, cause: Cause = NOBODY) -> tuple[int, int]:
    """Bring what `export` wrote into a gallery that is empty; returns the numbers of items and of pictures.

    Raises FileNotFoundError and ValueError for a folder that is no whole export, for pictures that are not those which
    were written, and for a gallery that is not empty, and OSError when it cannot be written. Then nothing but pictures
    has come in.
    """
    if not (folder / MODEL_FILE).exists():
        raise FileNotFoundError(f"{folder}: no whole export, for there is no {MODEL_FILE} in it")
    model = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
    pictures = Pictures(database.folder / PICTURES_FOLDER)
    with database.exclusive(PICTURES_LOCK):
        with database.transaction() as connection:
            database.require_empty(connection)
        rows = list(_read_table(folder / ITEMS_FILE, _COLUMNS))
        kept = _take_pictures(folder, rows, pictures, lambda done: progress(done, 2 * len(rows)))
        with database.transaction() as connection:
            described = {"description": json_text(model["description"]), "created_at": now()}
            connection.execute(
                insert(models).values(model_id=model["model_id"], dimension=model["dimension"], **described)
            )
            connection.execute(insert(spaces).values(space=APPEARANCE, model_id=model["model_id"]))
            for name, tables in _TABLES.items():
                _fill_table(connection, folder / name, *tables)
            _fill_items(connection, rows)
            numbers = dict(map(tuple, connection.execute(select(items.c.item_id, items.c.number))))
            _fill_log(connection, folder / _LOG_FILE, numbers)
            for start in range(0, len(rows), AT_ONCE):
                part = rows[start : start + AT_ONCE]
                features = _read_features(folder / FEATURES_FOLDER / f"{start:08d}.safetensors", len(part), model)
                named = zip(part, features, strict=True)
                embedded = {numbers[row["item_id"]]: vector for row, vector in named if vector.any()}
                add_vectors(connection, model["model_id"], APPEARANCE, embedded)
                progress(len(rows) + start + len(part), 2 * len(rows))
            Transaction(connection, cause).log("gallery.import", model["model_id"], None, {"items": len(rows)})
    return len(rows), kept


def _rows(database: Database) -> Iterator[list[dict[str, Any]]]:
    """All items by rising number, in lists for a file of features; what is not in the table but `number` comes last."""
    after = 0
    chosen = (
        select(identities.c.name, identities.c.identity_id, media.c.sha256, items.c.box, *_OF_ITEMS, *_OF_MEDIA)
        .add_columns(items.c.number)
        .select_from(items.join(media).outerjoin(identities))
        .order_by(items.c.number)
        .limit(AT_ONCE)
    )
    while found := database.read(chosen.where(items.c.number > after)):
        after = found[-1][-1]
        rows = []
        for name, identity_id, sha256, box, *others, number in found:
            row = {"path": None, "split": None, "identity": name, "identity_id": identity_id, "media": sha256}
            row |= zip(_BOX, json.loads(box) if box else [None] * 4, strict=True)
            row |= zip(_CELLS, others, strict=True)
            rows.append({**row, "number": number})
        yield rows


def _cell(name: str, value: Any) -> Any:
    return time_from(value).isoformat() if name in _TIMES and value is not None else value


def _copied(pictures: Pictures, sha256: str, folder: Path) -> str:
    """Where a picture is in an export, copied there if it is not yet; empty where it is lost."""
    try:
        data = pictures.read(sha256)
    except NotFound:
        return ""
    path = f"{PICTURES_FOLDER}/{sha256}{_ENDINGS.get(data[:2], '')}"
    if not (folder / path).exists():
        (folder / path).write_bytes(data)
    return path


def _features(database: Database, model_id: str, numbers: Sequence[int], dimension: int) -> Vectors:
    """The vectors (n, E) of items; zeros for one without, as of a re-index that left it out."""
    between = vectors.c.owner_number.between(numbers[0], numbers[-1])
    chosen = select(vectors.c.owner_number, vectors.c.vector).where(of_items(model_id, APPEARANCE), between)
    found = dict(database.read(chosen))
    features = np.zeros((len(numbers), dimension), np.float32)
    for row, number in enumerate(numbers):
        if number in found:
            features[row] = np.frombuffer(found[number], "<f4")
    return features


@contextmanager
def _new_table(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], Any]]:
    with open(path, "x", newline="", encoding="utf-8") as file:
        written = csv.writer(file)
        written.writerow(columns)
        yield lambda values: written.writerow(map(as_cell, values[: len(columns)]))


def _read_table(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        read = csv.DictReader(file)
        if missing := [column for column in columns if column not in (read.fieldnames or ())]:
            raise ValueError(f"{path}: has no column {missing[0]!r}; expected a table as an export writes it")
        for row in read:
            yield {name: from_cell(cell or "") for name, cell in row.items() if name}


def _value(path: Path, name: str, cell: str, column: Any) -> Any:
    """What a cell says; empty is nothing, where a column may have that."""
    if cell == "" and column.nullable:
        return None
    try:
        return microseconds(datetime.fromisoformat(cell)) if name in _TIMES else column.type.python_type(cell)
    except ValueError as error:
        raise ValueError(f"{path}: {name} {cell!r}: {error}") from None


def _fill_table(connection: Connection, path: Path, table: Table, public_id: str, refers: str | None) -> None:
    """Add the rows of a table; what refers to a later row gets its reference when all are there.

    Decisions refer to earlier ones, and are never changed.
    """
    if not path.exists():
        return
    columns = [column.name for column in table.columns if column.name not in ("number", refers)]
    referring, numbers = {}, dict[str, int]()
    for row in _read_table(path, [*columns, *filter(None, [refers])]):
        values = {name: _value(path, name, row[name], table.c[name]) for name in columns}
        if refers is None:
            pass
        elif row[refers] in numbers:
            values[refers] = numbers[row[refers]]
        elif row[refers]:
            referring[row[public_id]] = row[refers]
        added = insert(table).values(**values).returning(table.c.number)
        numbers[row[public_id]] = connection.execute(added).scalar_one()
    for one, other in referring.items():
        if other not in numbers:
            raise ValueError(f"{path}: {refers} {other!r}: no row has this {public_id}")
        connection.execute(table.update().where(table.c[public_id] == one).values({refers: numbers[other]}))


def _fill_items(connection: Connection, rows: Sequence[Mapping[str, str]]) -> None:
    path = Path(ITEMS_FILE)
    known = dict(map(tuple, connection.execute(select(identities.c.identity_id, identities.c.number))))
    of_media: dict[str, int] = {}
    for row in rows:
        if row["identity_id"] and row["identity_id"] not in known:
            raise ValueError(f"{path}: identity_id {row['identity_id']!r}: identities.csv has none")
        if row["media"] not in of_media:
            values = {column.name: _value(path, column.name, row[column.name], column) for column in _OF_MEDIA}
            added = insert(media).values(sha256=row["media"], **values).returning(media.c.number)
            of_media[row["media"]] = connection.execute(added).scalar_one()
        box = [int(row[name]) for name in _BOX] if row["x"] else None
        values = {column.name: _value(path, column.name, row[column.name], column) for column in _OF_ITEMS}
        connection.execute(
            insert(items).values(
                media_number=of_media[row["media"]],
                identity_number=known.get(row["identity_id"]),
                box=None if box is None else json_text(box),
                **values,
            )
        )


def _write_log(database: Database, path: Path) -> None:
    """Write what the log tells of identities, with items by their ids; those that are gone are left out."""
    chosen = select(*(operations.c[name] for name in _OF_LOG)).where(operations.c.kind.in_(_LOGGED))
    told = [dict(zip(_OF_LOG, row, strict=True)) for row in database.read(chosen.order_by(operations.c.seq))]
    if not told:
        return
    known = [number for row in told for number in _items_of(row["before"])]
    ids: dict[int, str] = {}
    for portion in portions(known):
        there = select(items.c.number, items.c.item_id).where(items.c.number.in_(portion))
        ids |= dict(map(tuple, database.read(there)))
    with _new_table(path, _OF_LOG) as write:
        for row in told:
            row["before"] = _with_items(row["before"], ids)
            write([_cell(name, value) for name, value in row.items()])


def _fill_log(connection: Connection, path: Path, numbers: Mapping[str, int]) -> None:
    if not path.exists():  # of a gallery without identities, or written by an earlier version
        return
    for row in _read_table(path, _OF_LOG):
        values = {name: _value(path, name, row[name], operations.c[name]) for name in _OF_LOG}
        values["before"] = _with_items(values["before"], numbers)
        connection.execute(insert(operations).values(**values))


def _items_of(before: str | None) -> list[Any]:
    told = json.loads(before) if before else None
    return list(told.get("items", ())) if isinstance(told, dict) and isinstance(told.get("items"), list) else []


def _with_items(before: str | None, others: Mapping[Any, Any]) -> str | None:
    """An entry of the log with its items called as `others` has them."""
    if not (there := _items_of(before)):
        return before
    return json_text({**json.loads(before or ""), "items": [others[one] for one in there if one in others]})


def _take_pictures(
    folder: Path, rows: Sequence[Mapping[str, str]], pictures: Pictures, progress: Callable[[int], None]
) -> int:
    """Keep the pictures that an export has, each if it is what was written; returns how many."""
    kept = set[str]()
    there = (folder / PICTURES_FOLDER).is_dir()  # else the paths are those that the photos came from
    for done, row in enumerate(rows, 1):
        path = folder / row["path"]
        if there and row["path"] and row["media"] not in kept:
            if path.parent != folder / PICTURES_FOLDER or not path.is_file():
                raise ValueError(f"{folder / ITEMS_FILE}: path {row['path']!r}: no picture in {PICTURES_FOLDER}")
            data = path.read_bytes()
            if row["copy_sha256"] and hashlib.sha256(data).hexdigest() != row["copy_sha256"]:
                raise ValueError(f"{path}: is not the picture that was exported")
            pictures.save({row["media"]: data})
            kept.add(row["media"])
        progress(done)
    return len(kept)


def _read_features(path: Path, rows: int, model: Mapping[str, Any]) -> Vectors:
    try:
        features: Vectors = load_file(path)["features"]
    except (OSError, KeyError, SafetensorError) as error:
        raise ValueError(f"{path}: no file of features ({error})") from error
    if features.shape != (rows, model["dimension"]) or features.dtype != np.float32:
        expected = (rows, model["dimension"])
        raise ValueError(f"{path}: {features.shape} {features.dtype}; expected {expected} float32")
    for row, vector in enumerate(features):
        if vector.any():
            require_unit(vector, model["dimension"], f"{path}, row {row}")
    return features
