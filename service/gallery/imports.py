"""Imports: files that are sent to be enrolled, as far as they came, and what became of each photo in them."""

import fcntl
import hashlib
import json
import lzma
import os
import re
import shutil
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, Literal, NamedTuple, get_args
from uuid import uuid4

from service.gallery.pictures import sync
from service.gallery.space import LOW, LOW_SHARE
from service.records import Cause, Conflict, NotFound
from service.storage.bulk_edits import BulkEdits
from service.storage.database import Database
from service.storage.folder import as_its_folder, make_folder_within
from service.storage.transaction import Transaction

IMPORTS_FOLDER = "imports"  # of a gallery
FILES = "files"  # of an import: what was sent, by its names
RECORD, ANNOUNCED, RESULTS = "import.json", "files.jsonl", "results.jsonl"
HASHES = "hashes.jsonl"  # of files that are whole, as far as they are known
SHOWN = "shown.json"  # what items said that it would change, when somebody looked at it
LOCK, UNPACKING, EDITING = "lock", "unpacking", "editing"
UNPACKED = "unpacked.jsonl"  # archives in whose place their files are
MOST_FILES = 100_000  # of an import
LONGEST_NAME, LONGEST_PART = 1000, 255  # bytes
MOST_BYTES_OF_TABLE = 64 * 2**20
FOLLOWED = 4  # imports whose files and results are kept in memory
TABLES = (".csv", ".tsv")
ARCHIVE = ".zip"

Became = Literal["created", "existing", "updated", "edited", "differing", "duplicate", "deleted", "failed", "outage"]
BECAME: tuple[Became, ...] = get_args(Became)
_ID = re.compile(r"[0-9a-f]{32}")


# What zipfile raises for an archive that is damaged or encrypted.
DAMAGED = (zipfile.BadZipFile, OSError, RuntimeError, EOFError, UnicodeDecodeError, zlib.error, lzma.LZMAError)


class UnusableFile(ValueError):
    """A file that is not taken into an import; the message says why, in the sender's words."""


class Sent(NamedTuple):
    """A file of an import by its name, its size, and how many bytes of it have come."""

    name: str
    size: int
    received: int


class Result(NamedTuple):
    """What became of a photo; `detail` is why there is no item, and for a duplicate which photo it is the same as.

    For one that was there it names what else is said of it now, or was edited meanwhile, with commas between. `clock`
    is its time as a clock showed it which does not tell its zone, in ISO 8601.
    """

    name: str
    became: Became
    item_id: str | None = None
    detail: str = ""
    clock: str = ""


@dataclass(frozen=True, slots=True)
class Import:
    """An import; `cameras` are those that its maker sees, None for all, `wanted` is how it is to be read.

    `report` are the counts of the last job that ended; once it is `settled`, its files are gone. `files` and `bytes`
    tell how many came, once it was started. `edits` are those of items that it made, each with its `batch_id`; of one
    that has `begun`, the `batch_id` and the `values` that fields have once it is done.
    """

    import_id: str
    actor: str
    cameras: frozenset[str] | None
    wanted: Mapping[str, Any]
    created_at: datetime
    changed_at: datetime
    started_at: datetime | None = None
    job_id: str | None = None
    report: Mapping[str, Any] | None = None
    settled: bool = False
    files: int = 0
    bytes: int = 0
    edits: Sequence[Mapping[str, Any]] = ()
    begun: Mapping[str, Any] | None = None


class Imports:
    """The imports of a gallery, in a folder beside it; threads and processes may share it.

    It is no part of a backup. Methods raise NotFound for an import that is not there, and OSError where the disk cannot
    be read or written.
    """

    def __init__(self, database: Database, most_bytes: int, most_bytes_of_photo: int) -> None:
        """All imports together take up to `most_bytes`; a photo has up to `most_bytes_of_photo`."""
        self._database = database
        self._folder = database.folder / IMPORTS_FOLDER
        self._most_bytes, self._most_bytes_of_photo = most_bytes, most_bytes_of_photo
        self._known: OrderedDict[str, tuple[tuple[int, int], dict[str, int]]] = OrderedDict()  # files, last asked for
        self._followed: OrderedDict[str, _Results] = OrderedDict()
        self._following = Lock()

    def create(self, wanted: Mapping[str, Any], cameras: frozenset[str] | None, cause: Cause) -> Import:
        """Make an import without files."""
        now = datetime.now(UTC)
        made = Import(uuid4().hex, cause.actor, cameras, wanted, now, now)
        make_folder_within(self._folder)
        folder = self._folder / f".{made.import_id}.tmp"
        make_folder_within(folder)
        make_folder_within(folder / FILES)
        _write(folder, made)
        folder.rename(self._folder / made.import_id)
        self._log("import.create", made.import_id, cause)
        return made

    def all(self) -> list[Import]:
        """All of them, the newest first."""
        found = (_read(folder) for folder in _folders(self._folder))
        return sorted((one for one in found if one is not None), key=lambda one: one.created_at, reverse=True)

    def get(self, import_id: str) -> Import:
        """The import of a public id."""
        found = _read(self._folder / import_id) if _ID.fullmatch(import_id) else None
        if found is None:
            raise NotFound(f"no import {import_id!r}: it was never there, or its time is over")
        return found

    def change(self, import_id: str, **values: Any) -> Import:
        """Give fields of an import other values."""
        with self._alone(import_id):
            after = replace(self.get(import_id), changed_at=datetime.now(UTC), **values)
            _write(self._folder / import_id, after)
        return after

    def files_folder(self, import_id: str) -> Path:
        """Where its files are."""
        return self._folder / import_id / FILES

    def announce(self, import_id: str, wanted: Sequence[tuple[str, int]]) -> list[Sent | UnusableFile]:
        """Take note of files that will be sent, by name and size, with how much of each is there already.

        One that was announced before with the same size stays as it is, and an archive that was unpacked is there.
        """
        with self._alone(import_id):
            known = dict(self._announced(import_id))
            folders = {str(above) for name in known for above in PurePosixPath(name).parents}
            unpacked = self._pairs(import_id, UNPACKED)
            room, new, found = self._room(), list[tuple[str, int]](), list[Sent | UnusableFile]()
            for given, size in wanted:
                try:
                    name = safe_name(given)
                    if name not in known and unpacked.get(name) == size:
                        found.append(Sent(name, size, size))
                        continue
                    if known.get(name, size) != size:
                        raise UnusableFile(f"{size:,} bytes, where {known[name]:,} were announced before")
                    if name not in known:
                        self._require_room(name, size, room, len(known))
                        above = {str(one) for one in PurePosixPath(name).parents}
                        if name in folders or known.keys() & above:
                            raise UnusableFile("a folder and a file have this name")
                        folders |= above
                        room -= size
                        known[name] = size
                        new.append((name, size))
                    found.append(self._sent(import_id, name, size))
                except UnusableFile as error:
                    found.append(error)
            lines = "".join(json.dumps({"name": name, "size": size}) + "\n" for name, size in new)
            self._append(import_id, ANNOUNCED, lines)
            if new:
                self._forget_shown(import_id)
        return found

    def files(self, import_id: str) -> list[Sent]:
        """All files that were announced, in their order, with how much of each is there."""
        announced = self._announced(import_id).items()
        if self.get(import_id).settled:
            return [Sent(name, size, size) for name, size in announced]
        return [self._sent(import_id, name, size) for name, size in announced]

    def file(self, import_id: str, name: str) -> Sent:
        """One of its files; raises NotFound for one that was not announced."""
        size, settled = self._announced(import_id).get(name), self.get(import_id).settled
        if size is None:
            raise NotFound(f"import {import_id} has no file {name!r}: announce it first")
        return Sent(name, size, size) if settled else self._sent(import_id, name, size)

    def open(self, import_id: str, name: str, offset: int) -> "Writing":
        """Begin to write a part of a file at `offset`, which is how much of it is there.

        Raises NotFound, and Conflict for another offset, for a file that another request is writing, and once the
        import was started.
        """
        with self._alone(import_id):
            sent = self.file(import_id, name)
            if self.get(import_id).job_id is not None:
                raise Conflict(f"import {import_id} was started, and takes no more files")
            path = self.files_folder(import_id) / name
            for above in reversed(PurePosixPath(name).parents[:-1]):
                make_folder_within(self.files_folder(import_id) / above)
            return Writing(path, sent, offset, lambda sha256: self._note_hashes(import_id, {name: sha256}))

    def remove_file(self, import_id: str, name: str) -> None:
        """Forget a file of an import, whether it has come or not; raises NotFound."""
        with self._alone(import_id):
            self.file(import_id, name)
            there = self._announced(import_id).items()
            lines = [json.dumps({"name": one, "size": size}) + "\n" for one, size in there if one != name]
            hashes = [json.dumps(one) + "\n" for one in self._pairs(import_id, HASHES).items() if one[0] != name]
            _replace(self._folder / import_id / HASHES, "".join(hashes).encode())
            _replace(self._folder / import_id / ANNOUNCED, "".join(lines).encode())
            (self.files_folder(import_id) / name).unlink(missing_ok=True)
            self._forget_shown(import_id)

    def reread(self, import_id: str, wanted: Mapping[str, Any]) -> Import:
        """Have an import be read in another way, of which nobody has seen yet what it would change."""
        before = self.get(import_id).wanted
        if any(value != before.get(name) for name, value in wanted.items() if name not in ("name", "update")):
            self._forget_shown(import_id)
        return self.change(import_id, wanted=wanted)

    def tidy(self, import_id: str) -> None:
        """Remove what lies there of no announced file, as a kill or a cancelled job leaves it, and empty folders."""
        with self._alone(import_id):
            folder, announced = str(self.files_folder(import_id)), self._announced(import_id)
            for above, _, names in os.walk(folder, topdown=False):
                for path in (os.path.join(above, name) for name in names):
                    if path[len(folder) + 1 :] not in announced:
                        os.unlink(path)
                if above != folder:
                    with suppress(OSError):  # it is not empty
                        os.rmdir(above)

    def sha256s(self, import_id: str, paths: Iterable[Path]) -> dict[Path, str]:
        """The SHA-256 of files of an import by their places; each is read for it once at most."""
        folder, known, new = self.files_folder(import_id), self._pairs(import_id, HASHES), dict[str, str]()
        found = {}
        for path in paths:
            name = path.relative_to(folder).as_posix()
            if name not in known:
                with open(path, "rb") as file:
                    known[name] = new[name] = hashlib.file_digest(file, "sha256").hexdigest()
            found[path] = known[name]
        self._note_hashes(import_id, new)
        return found

    def drop_missing(self, import_id: str) -> None:
        """Forget the files that have not come whole."""
        with self._alone(import_id):
            kept = []
            for sent in self.files(import_id):
                if sent.received == sent.size:
                    kept.append({"name": sent.name, "size": sent.size})
                else:
                    (self.files_folder(import_id) / sent.name).unlink(missing_ok=True)
            _replace(self._folder / import_id / ANNOUNCED, "".join(json.dumps(one) + "\n" for one in kept).encode())

    def replace_file(self, import_id: str, name: str, files: Iterable[tuple[str, int]]) -> None:
        """Have files, which lie there already, in the place of an archive that held them."""
        with self._alone(import_id):
            there = {**dict(files), **self._announced(import_id)}
            self._append(import_id, UNPACKED, json.dumps([name, there[name]]) + "\n")
            lines = "".join(json.dumps({"name": one, "size": there[one]}) + "\n" for one in there if one != name)
            _replace(self._folder / import_id / ANNOUNCED, lines.encode())
            (self.files_folder(import_id) / name).unlink(missing_ok=True)

    @contextmanager
    def unpacking(self, import_id: str) -> Iterator[None]:
        """Let no other thread or process unpack archives of an import; raises NotFound."""
        with self._holding(import_id, UNPACKING):
            yield

    @contextmanager
    def editing(self, import_id: str) -> Iterator[Import]:
        """An import, whose edits of items no other thread or process changes meanwhile; raises NotFound."""
        with self._holding(import_id, EDITING):
            yield self._after_step(import_id)

    @contextmanager
    def step(self, import_id: str, batch_id: str, **values: Any) -> Iterator[None]:
        """Around a step of edits of items: once it is done, the import has these values of its fields.

        That is noted before, so that a kill between the two loses neither. Raises NotFound.
        """
        self.change(import_id, begun={"batch_id": batch_id, "values": values})
        try:
            yield
        finally:
            self._after_step(import_id)

    def finish_steps(self) -> None:
        """Have imports tell of steps of edits that were done when a kill kept that from being noted."""
        for one in self.all():
            if one.begun is not None:
                with suppress(NotFound), self.editing(one.import_id):
                    pass

    def _after_step(self, import_id: str) -> Import:
        """An import as it is after the step that has begun, if one has and by whether the log knows of it."""
        one = self.get(import_id)
        if one.begun is None:
            return one
        batch_id, values = one.begun["batch_id"], one.begun["values"]
        changed = BulkEdits(self._database).changed_by(batch_id)
        if not changed:
            return self.change(import_id, begun=None)
        edits = [{**edit, "items": changed} if edit["batch_id"] == batch_id else edit for edit in values["edits"]]
        return self.change(import_id, **{**values, "edits": edits, "begun": None})

    def room_to_unpack(self) -> int:
        """Bytes that more files may take."""
        return self._room()

    def results(self, import_id: str) -> dict[str, Result]:
        """What became of its photos by now, by their names, in the order in which they came first."""
        with self._following:
            return dict(self._results(import_id).found)

    def counts(self, import_id: str) -> dict[str, int]:
        """How many of its photos became what by now."""
        with self._following:
            counts = self._results(import_id).counts
            return {name: counts[name] for name in BECAME}

    def add_results(self, import_id: str, results: Iterable[Result]) -> None:
        """Keep what became of some photos, in the place of what became of them before."""
        self._append(import_id, RESULTS, "".join(json.dumps(list(one)) + "\n" for one in results))

    def count(self, import_id: str) -> None:
        """Note how many files and bytes there are, since no more will come."""
        sizes = self._announced(import_id).values()
        self.change(import_id, files=len(sizes), bytes=sum(sizes))

    def settle(self, import_id: str, report: Mapping[str, Any]) -> None:
        """Keep the counts of a job that ended; where no photo waits for another one, the files go."""
        done = not report.get("outage")
        self.change(import_id, report=dict(report), settled=done)  # first: a kill leaves files behind, not half of them
        if done:
            for name in (HASHES, SHOWN):  # which an erasure would have to look for
                (self._folder / import_id / name).unlink(missing_ok=True)
            shutil.rmtree(self.files_folder(import_id), ignore_errors=True)

    def keep_shown(self, import_id: str, shown: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what items say in the place of what the import says, by their ids and names, as somebody is shown it."""
        with self._alone(import_id):
            _replace(self._folder / import_id / SHOWN, json.dumps(shown).encode())

    def shown(self, import_id: str) -> Mapping[str, Mapping[str, Any]] | None:
        """What was kept so last; None where nobody looked since the import was changed."""
        with suppress(FileNotFoundError):
            told: dict[str, dict[str, Any]] = json.loads((self._folder / import_id / SHOWN).read_text())
            return told
        return None

    def delete(self, import_id: str, cause: Cause) -> None:
        """Remove an import with its files and its report, and no item."""
        self.get(import_id)
        _remove(self._folder / import_id)
        self._log("import.delete", import_id, cause)

    def prune(self, keep: timedelta, running: Collection[str]) -> int:
        """Remove those that nothing happened to for so long, and tell how many; those that are running stay."""
        gone, latest = 0, datetime.now(UTC) - keep
        for folder in _folders(self._folder):
            one = _read(folder)
            if folder.name in running or (one is not None and one.changed_at >= latest):
                continue
            newest = max((path.stat().st_mtime for path in [folder, *_below(folder)]), default=0.0)
            if newest < latest.timestamp():
                _remove(folder)
                gone += 1
        return gone

    @contextmanager
    def _alone(self, import_id: str) -> Iterator[None]:
        """Let no other thread or process change what is said of an import; raises NotFound."""
        with self._holding(import_id, LOCK):
            yield

    @contextmanager
    def _holding(self, import_id: str, name: str) -> Iterator[None]:
        self.get(import_id)
        with open(self._folder / import_id / name, "ab", opener=as_its_folder) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _forget_shown(self, import_id: str) -> None:
        (self._folder / import_id / SHOWN).unlink(missing_ok=True)

    def _announced(self, import_id: str) -> dict[str, int]:
        """The sizes of its files by their names, read anew where they have changed."""
        path = self._folder / import_id / ANNOUNCED
        try:
            state = path.stat()
        except FileNotFoundError:
            return {}
        told = (state.st_ino, state.st_size)
        known = self._known.get(import_id)
        if known is None or known[0] != told:
            found: dict[str, int] = {}
            for line in path.read_text().splitlines():
                with suppress(ValueError):  # the last one, after a kill
                    one = json.loads(line)
                    found[one["name"]] = one["size"]
            known = told, found
        with self._following:
            self._known[import_id] = known
            self._known.move_to_end(import_id)
            if len(self._known) > FOLLOWED:
                self._known.popitem(last=False)
        return known[1]

    def _results(self, import_id: str) -> "_Results":
        """What its file of results tells, of which only what is new since the last time is read."""
        followed = self._followed.setdefault(import_id, _Results())
        self._followed.move_to_end(import_id)
        if len(self._followed) > FOLLOWED:
            self._followed.popitem(last=False)
        followed.read_on(self._folder / import_id / RESULTS)
        return followed

    def _pairs(self, import_id: str, name: str) -> dict[str, Any]:
        """What a file tells of files by their names."""
        found = {}
        with suppress(FileNotFoundError):
            for line in (self._folder / import_id / name).read_text().splitlines():
                with suppress(ValueError):  # the last one, after a kill
                    file, told = json.loads(line)
                    found[file] = told
        return found

    def _note_hashes(self, import_id: str, new: Mapping[str, str]) -> None:
        self._append(import_id, HASHES, "".join(json.dumps(one) + "\n" for one in new.items()), lasting=False)

    def _sent(self, import_id: str, name: str, size: int) -> Sent:
        try:
            received = (self.files_folder(import_id) / name).stat().st_size
        except FileNotFoundError:
            received = 0
        return Sent(name, size, received)

    def _room(self) -> int:
        """Bytes that more files may take: those of other imports count in full, also before they have come."""
        announced = there = 0
        for folder in _folders(self._folder):
            one = _read(folder)
            if one is None or one.settled:
                continue
            for sent in (self._sent(folder.name, *file) for file in self._announced(folder.name).items()):
                announced += sent.size
                there += sent.received
        disk = shutil.disk_usage(self._database.folder)
        free = disk.free - int(min(LOW, LOW_SHARE * disk.total)) - (announced - there)
        return min(self._most_bytes - announced, free)

    def _require_room(self, name: str, size: int, room: int, files: int) -> None:
        kind = PurePosixPath(name).suffix.lower()
        most = MOST_BYTES_OF_TABLE if kind in TABLES else self._most_bytes_of_photo
        if kind != ARCHIVE and size > most:
            raise UnusableFile(f"{size:,} bytes, expected at most {most:,}")
        if files >= MOST_FILES:
            raise UnusableFile(f"beyond the {MOST_FILES:,} files of one import: send it in another one")
        if size > room:
            raise UnusableFile(
                f"{size:,} bytes, and {max(0, room):,} are left for imports, by REID_IMPORT_MB and the disk"
            )

    def _append(self, import_id: str, name: str, lines: str, lasting: bool = True) -> None:
        if lines:
            path = self._folder / import_id / name
            with open(path, "ab+", opener=as_its_folder) as file:
                if file.tell() and not _ends_a_line(path):  # after a kill
                    file.write(b"\n")
                file.write(lines.encode())
                file.flush()
                if lasting:
                    os.fdatasync(file.fileno())

    def _log(self, kind: str, import_id: str, cause: Cause) -> None:
        with self._database.transaction() as connection:
            Transaction(connection, cause).log(kind, import_id, None, {})


class _Results:
    """What became of the photos of an import, as far as its file was read."""

    def __init__(self) -> None:
        self._begin(0)

    def _begin(self, inode: int) -> None:
        self.found: dict[str, Result] = {}
        self.counts: Counter[Became] = Counter()
        self._inode, self._read = inode, 0

    def read_on(self, path: Path) -> None:
        """Read what has come since the last time, up to the last line that is whole."""
        try:
            file = open(path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            self._begin(0)
            return
        with file:
            state = os.fstat(file.fileno())
            if state.st_ino != self._inode or state.st_size < self._read:
                self._begin(state.st_ino)
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            with suppress(ValueError):  # one that a kill cut short
                self._add(Result(*json.loads(line)))

    def _add(self, one: Result) -> None:
        if one.name in self.found:
            self.counts[self.found[one.name].became] -= 1
        self.found[one.name] = one
        self.counts[one.became] += 1


class Writing:
    """A file that is being written from a place on; nobody else writes it meanwhile, and what came stays."""

    def __init__(self, path: Path, sent: Sent, offset: int, whole: Callable[[str], None]) -> None:
        """Raises Conflict where the file does not end at `offset`, and while another request writes it.

        `whole` is told the SHA-256 of the file once all of it is there.
        """
        self._path, self._whole = path, whole
        self._digest = hashlib.sha256() if offset == 0 else None
        self._file = open(path, "ab", opener=as_its_folder)  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = self._file.tell()
            if offset != there:
                raise Conflict(f"{sent.name}: offset {offset:,}, but {there:,} bytes are there; go on from these")
        except BlockingIOError:
            self._file.close()
            raise Conflict(f"{sent.name}: another request is sending it; ask how much is there by then") from None
        except Conflict:
            self._file.close()
            raise
        self._sent, self._there = sent, there

    def write(self, data: bytes) -> None:
        """Write what comes next; raises UnusableFile, and writes none of it, for more than was announced."""
        if self._there + len(data) > self._sent.size:
            raise UnusableFile(f"{self._sent.name}: more than the {self._sent.size:,} bytes that were announced")
        self._file.write(data)
        self._there += len(data)
        if self._digest is not None:
            self._digest.update(data)

    def close(self) -> Sent:
        """Have what was written on the disk, and tell how much is there."""
        self._file.flush()
        if self._there == self._sent.size:
            os.fdatasync(self._file.fileno())
            if self._digest is None:
                with open(self._path, "rb") as file:
                    self._whole(hashlib.file_digest(file, "sha256").hexdigest())
            else:
                self._whole(self._digest.hexdigest())
        self._file.close()
        return self._sent._replace(received=self._there)


def safe_name(given: str) -> str:
    """A path as it is kept below the folder of an import; raises UnusableFile for one that might lead elsewhere."""
    name = given.replace("\\", "/")
    parts = name.split("/")
    try:
        long = len(name.encode()) > LONGEST_NAME or any(len(part.encode()) > LONGEST_PART for part in parts)
    except UnicodeEncodeError:
        raise UnusableFile("its name is no text") from None
    if any(part in ("", ".", "..") for part in parts):
        raise UnusableFile("expected a name, or a path below a folder, as north/1.jpg")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise UnusableFile("its name has characters that cannot be shown")
    if long:
        raise UnusableFile(f"its name is longer than {LONGEST_NAME} bytes, or a part of it than {LONGEST_PART}")
    return name


def erase_imports(gallery: Path, item_ids: Collection[str], sha256s: Collection[str]) -> int:
    """Remove from the folder of a gallery the imports with one of these items or photos, and tell how many."""
    ids, wanted, gone = set(item_ids), set(sha256s), 0
    for folder in _folders(gallery / IMPORTS_FOLDER):
        texts = [path.read_text() for path in (folder / RESULTS, folder / SHOWN) if path.exists()]
        named = any(one in text for one in ids for text in texts)
        if named or any(not wanted.isdisjoint(_hashes(path)) for path in _below(folder / FILES)):
            _remove(folder)
            gone += 1
    return gone


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _hashes(path: Path) -> Iterator[str]:
    """The SHA-256 of a file, or of the files in an archive that is whole."""
    with open(path, "rb") as file:
        yield hashlib.file_digest(file, "sha256").hexdigest()
    with suppress(*DAMAGED), zipfile.ZipFile(path) as archive:
        for one in archive.infolist():
            with archive.open(one) as inside:
                yield hashlib.file_digest(inside, "sha256").hexdigest()  # type: ignore[arg-type]


def _ends_a_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _folders(imports: Path) -> list[Path]:
    return [path for path in imports.iterdir() if path.is_dir()] if imports.exists() else []


def _remove(folder: Path) -> None:
    (folder / RECORD).unlink(missing_ok=True)  # first, so that nobody finds half of it
    shutil.rmtree(folder, ignore_errors=True)


def _read(folder: Path) -> Import | None:
    """The import in a folder; None where there is none, or not all of it."""
    try:
        told: dict[str, Any] = json.loads((folder / RECORD).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    for name in ("created_at", "changed_at", "started_at"):
        told[name] = None if told[name] is None else datetime.fromisoformat(told[name])
    cameras = None if told["cameras"] is None else frozenset(told["cameras"])
    return Import(**{**told, "cameras": cameras})


def _write(folder: Path, one: Import) -> None:
    times = {name: getattr(one, name) for name in ("created_at", "changed_at", "started_at")}
    told = {
        **asdict(one),
        "cameras": None if one.cameras is None else sorted(one.cameras),
        **{name: None if time is None else time.isoformat() for name, time in times.items()},
    }
    _replace(folder / RECORD, json.dumps(told).encode())


def _replace(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with open(unfinished, "xb", opener=as_its_folder) as file:
            file.write(data)
        sync(unfinished)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
