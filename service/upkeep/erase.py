"""Taking every trace of items out of a gallery and its backups, with a receipt of what was removed where."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Table, and_, bindparam, delete, or_, select, update

from service.gallery.holdings import Holdings
from service.gallery.imports import erase_imports
from service.gallery.kept_rows import forget_rows
from service.gallery.pictures import ORPHANS, PICTURES_FOLDER
from service.gallery.subjects import erase_subjects
from service.records import Cause
from service.storage.columns import json_text, portions
from service.storage.database import Database
from service.storage.folder import GALLERY_FILE
from service.storage.shortlists import erase_from_shortlists
from service.storage.tables import decisions, identities, items, jobs, operations, queries, questions, replies
from service.storage.transaction import Transaction

ERASED = "erased"
ROWS_AT_ONCE = 1000
FEW = 8  # ids or labels, each of which is sought sooner than all ids that a text may hold are taken out of it
NOT_REACHED = (
    "the logs that the service printed",
    "backups and exports in other folders",
    "features of reid-embed",
)


def erase(
    database: Database, holdings: Holdings, item_ids: Collection[str], backups: Path, cause: Cause
) -> dict[str, Any]:
    """Take items, there or deleted before, and all that is said of them out of a gallery and each backup in a folder.

    A photo goes with the last of its items, and a label of which no item is left. Logs keep their entries, in which
    fields become `erased`; that the photo was deleted is kept as a keyed hash, so that it does not come back by itself,
    and in decisions the items have other ids. The receipt tells what was removed where, and what could not be reached.
    Raises as a `Database` does.
    """
    erased_at, unknown = datetime.now(UTC).isoformat(), set(item_ids) - _known(database, item_ids)
    ours = _erase(database, holdings, item_ids, cause)
    theirs: dict[str, dict[str, int]] = {}
    not_reached = [*NOT_REACHED, *(["the files and the write-ahead log of the server"] if database.shared else [])]
    for folder in sorted(path.parent for path in backups.glob(f"*/{GALLERY_FILE}")):
        try:
            with Database(folder) as backup:
                unknown -= _known(backup, item_ids)
                held = Holdings(backup)
                theirs[folder.name] = _erase(backup, held, item_ids, cause)
                held.space.spend()  # which is for a gallery at work
        except (OSError, ValueError) as error:  # damaged, say, which keeps nothing from the others
            not_reached.append(f"backup {folder.name}: {error}")
    not_reached += [f"item {one}: there is none, nor was there before" for one in sorted(unknown)]
    receipt = {"erased_at": erased_at, "gallery": ours, "backups": theirs, "not_reached": not_reached}
    with database.transaction() as connection:
        Transaction(connection, cause).log("gallery.erase", uuid4().hex, None, receipt)
    return receipt


def _erase(database: Database, holdings: Holdings, item_ids: Collection[str], cause: Cause) -> dict[str, int]:
    gone = holdings.delete(item_ids, cause)
    holdings.tombstones.of_photos(["0" * 64])  # which takes over what the log knows of deletions, before that is erased
    with database.transaction() as connection:
        logged = _logged(connection, item_ids)
        photos = {state["sha256"] for state in logged if "sha256" in state}
        photos -= holdings.store.contents(photos)
        names = _forget_identities(connection, {state["identity_id"] for state in logged if state.get("identity_id")})
        ids = _Words({*item_ids, *photos})
        counts = {
            "items": len(gone),
            "pictures": len({item.medium.sha256 for item in gone} & photos),
            "operations": _blot_operations(connection, set(item_ids), ids, names),
            "queries": _blot(
                connection, queries, ("asked", "conditions", "matches"), _Words({*item_ids, *photos}, names)
            ),
            "jobs": _blot(connection, jobs, ("parameters", "result", "error"), ids),
            "replies": _drop_replies(connection, ids),
            "decisions": _rename_in_decisions(connection, item_ids),
            "shortlists": erase_from_shortlists(connection, item_ids),
            "labels": len(names),
        }
    for photo in photos:
        holdings.pictures.delete(photo)
        for orphan in (database.folder / PICTURES_FOLDER / ORPHANS).glob(f"*/{photo}.webp"):
            orphan.unlink()
            counts["pictures"] += 1
    counts["subjects"] = erase_subjects(database.folder, photos)
    counts["imports"] = erase_imports(database.folder, item_ids, photos)
    forget_rows(database.folder)
    database.scrub()
    return counts


def _known(database: Database, item_ids: Collection[str]) -> set[str]:
    """Those of some items that are there, or were."""
    told = select(operations.c.target)
    logged = (database.read(told.where(operations.c.target.in_(some))) for some in portions(item_ids))
    return {target for rows in logged for (target,) in rows}


def _logged(connection: Connection, item_ids: Collection[str]) -> list[dict[str, Any]]:
    """What the log says of items, there or gone."""
    told = select(operations.c.before, operations.c.after)
    rows = [row for some in portions(item_ids) for row in connection.execute(told.where(operations.c.target.in_(some)))]
    return [json.loads(state) for row in rows for state in row if state is not None]


def _forget_identities(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """Blot out those of some identities that have no item any more, and return their names with their ids."""
    used = select(items.c.identity_number).where(items.c.identity_number == identities.c.number).exists()
    empty = select(identities.c.number, identities.c.identity_id, identities.c.name, identities.c.aliases).where(~used)
    found = [
        row for some in portions(ids) for row in connection.execute(empty.where(identities.c.identity_id.in_(some)))
    ]
    blank = {"name": None, "aliases": "[]", "attributes": "{}", "notes": "", "state": ERASED}
    _change(connection, identities, {number: blank for number, *_ in found})
    return {
        one: identity_id
        for _, identity_id, name, aliases in found
        for one in (name, *json.loads(aliases))
        if one is not None
    }


class _Words:
    """What is to go: ids and SHA-256 wherever they stand, and labels where they are all of a text."""

    def __init__(self, ids: Collection[str], labels: Collection[str] = ()) -> None:
        self._ids, self._whole = set(ids), {*ids, *labels}
        written = {json_text(label)[1:-1] for label in labels}
        self._quoting = {label for label in written if '"' in label}
        self._labels = written - self._quoting
        self._quoted = {f'"{label}"' for label in self._labels}

    def within(self, text: str) -> bool:
        """Whether a text of JSON may hold any; others are told soon, however many are sought."""
        return (
            self._with_id(text)
            or (
                any(map(text.__contains__, self._quoted))
                if len(self._quoted) <= FEW
                else not self._labels.isdisjoint(text.split('"'))
            )
            or any(map(text.__contains__, self._quoting))
        )

    def are(self, text: str) -> bool:
        """Whether all of a text has to go: also of a sentence, since the log takes no change but to what is erased."""
        return text in self._whole or (self._with_id(text) and any(one in text for one in self._ids))

    def cut(self, text: str) -> str:
        """A text of people without the ids."""
        for one in self._ids if self._with_id(text) else ():
            text = text.replace(one, ERASED)
        return text

    def _with_id(self, text: str) -> bool:
        if len(self._ids) <= FEW:
            return any(map(text.__contains__, self._ids))
        runs = _RUNS.findall(text)
        longer = [run for run in runs if len(run) not in (32, 64)]  # such as one behind the name of a file
        return not self._ids.isdisjoint(runs) or any(one in run for run in longer for one in self._ids)


_RUNS = re.compile("[0-9a-f]{32,}")  # of letters of which an id or a SHA-256 is made


def _blot_operations(connection: Connection, own: set[str], ids: _Words, names: Mapping[str, str]) -> int:
    """Blot out all that entries about the items and their labels say, and the ids in others."""
    whole = own | set(names.values())
    changed = {}
    for seq, target, *states in _rows(connection, operations, "seq", "target", "before", "after"):
        if target in whole:
            after = [None if state is None else _blank(state) for state in states]
        else:
            after = [None if state is None else _without(state, ids) for state in states]
        if target in own or after != states:
            changed[seq] = {"target": ERASED if target in own else target, "before": after[0], "after": after[1]}
    _change(connection, operations, changed)
    return len(changed)


def _blot(connection: Connection, table: Table, columns: Sequence[str], words: _Words) -> int:
    """Take words out of columns of a table, and return of how many rows."""
    changed = {}
    for number, *values in _rows(connection, table, next(iter(table.primary_key)).name, *columns):
        after = [None if value is None else _without(value, words) for value in values]
        if after != values:
            changed[number] = dict(zip(columns, after, strict=True))
    _change(connection, table, changed)
    return len(changed)


def _drop_replies(connection: Connection, ids: _Words) -> int:
    gone = [
        {"of": actor, "named": key}
        for actor, key, reply in _rows(connection, replies, "actor", "idempotency_key", "reply")
        if _without(reply, ids) != reply
    ]
    named = and_(replies.c.actor == bindparam("of"), replies.c.idempotency_key == bindparam("named"))
    if gone:
        connection.execute(delete(replies).where(named), gone)
    return len(gone)


def _rename_in_decisions(connection: Connection, item_ids: Collection[str]) -> int:
    """Give items other ids in what was decided about them, so that others stay together and nobody finds these."""
    others = {item_id: uuid4().hex for item_id in item_ids}
    count = 0
    for some in portions(others):
        connection.execute(delete(questions).where(or_(questions.c.a.in_(some), questions.c.b.in_(some))))
        for table, side in ((decisions, decisions.c.a), (decisions, decisions.c.b), (identities, identities.c.anchor)):
            found = connection.execute(select(table.c.number, side).where(side.in_(some))).fetchall()
            _change(connection, table, {number: {side.name: others[item_id]} for number, item_id in found})
            count += len(found) if table is decisions else 0
    return count


def _rows(connection: Connection, table: Table, *columns: str) -> Iterator[Sequence[Any]]:
    """All rows of a table, a portion at a time; only at the end may it be changed."""
    told = select(*(table.c[name] for name in columns))
    yield from connection.execute(told, execution_options={"yield_per": ROWS_AT_ONCE})


def _change(connection: Connection, table: Table, changed: Mapping[int, Mapping[str, Any]]) -> None:
    """Give rows, by their numbers, other values in the same columns."""
    if changed:
        names = list(next(iter(changed.values())))
        new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names}
        rows = [{"of": number, **{f"new_{name}": row[name] for name in names}} for number, row in changed.items()]
        key = next(iter(table.primary_key))
        connection.execute(update(table).where(key == bindparam("of")).values(new), rows)


def _blank(state: str) -> str:
    """All that a state says but for the numbers of items, which those who follow the log need."""
    kept = {name: value for name, value in json.loads(state).items() if name in ("number", "numbers", "merged_into")}
    return json_text({"said": ERASED, **kept})


def _without(text: str, words: _Words) -> str:
    """A text of JSON, or of people, in which these words are erased."""
    if not words.within(text):
        return text
    try:
        without = json_text(_replaced(json.loads(text), words))
    except ValueError:  # an error message, say
        return words.cut(text)
    return without if f'"{ERASED}"' in without else text  # what looked like one was none


def _replaced(value: Any, words: _Words) -> Any:
    if isinstance(value, str):
        return ERASED if words.are(value) else value
    if isinstance(value, list):
        return [_replaced(one, words) for one in value]
    if isinstance(value, dict):
        return {_replaced(name, words): _replaced(one, words) for name, one in value.items()}
    return value
