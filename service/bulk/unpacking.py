"""Archives that were sent, unpacked into the folder around them, where no name leads elsewhere."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from service.gallery.imports import ARCHIVE, DAMAGED, MOST_FILES, Imports, UnusableFile, safe_name
from service.storage.folder import as_its_folder, make_folder_within

AT_ONCE = 2**20  # bytes
_ENCRYPTED = 1  # bit of a file's flags
_UTF8 = 0x800  # the same: its name is UTF-8


def unpack_all(imports: Imports, import_id: str, tell: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Have the files of each archive of an import in its place; those that were unpacked before are.

    `tell` is called after each file, and may raise to end it. Returns why archives cannot be unpacked, by their names.
    """
    unusable = {}
    with imports.unpacking(import_id):  # one at a time: a second one finds nothing left to unpack
        for sent in imports.files(import_id):
            if sent.name.lower().endswith(ARCHIVE) and sent.received == sent.size:
                known = {one.name for one in imports.files(import_id)}
                path = imports.files_folder(import_id) / sent.name
                files: list[tuple[str, int]] = []
                try:
                    for file in _unpacked(path, imports.room_to_unpack(), known, Path(sent.name)):
                        files.append(file)
                        tell()
                except UnusableFile as error:
                    unusable[sent.name] = str(error)
                except DAMAGED as error:
                    clash = isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError)
                    if isinstance(error, OSError) and error.errno is not None and not clash:  # the disk is full, say
                        raise
                    unusable[sent.name] = f"it cannot be unpacked ({error})"
                else:
                    imports.replace_file(import_id, sent.name, files)
        imports.tidy(import_id)
    return unusable


def _unpacked(path: Path, room: int, known: set[str], sent: Path) -> Iterator[tuple[str, int]]:
    """Write the files of an archive beside it, and give their names with their sizes; none stay of one that is bad."""
    written: list[Path] = []
    try:
        yield from _written(path, room, known, sent, written)
    except (UnusableFile, *DAMAGED):
        for target in written:
            target.unlink(missing_ok=True)
        raise


def _written(path: Path, room: int, known: set[str], sent: Path, written: list[Path]) -> Iterator[tuple[str, int]]:
    with zipfile.ZipFile(path) as archive:
        inside = [one for one in archive.infolist() if not one.is_dir()]
        if len(inside) > MOST_FILES:
            raise UnusableFile(f"{len(inside):,} files in it, expected at most {MOST_FILES:,}")
        if (size := sum(one.file_size for one in inside)) > room:
            raise UnusableFile(f"{size:,} bytes unpacked, and {max(0, room):,} are left for imports")
        # Where another archive or the sender has given such a name already, what is in this one lies in its own folder.
        names = [(sent.parent / _name_of(one)).as_posix() for one in inside]
        below = sent.stem if not known.isdisjoint(names) else ""
        around = sent.parent / below
        if below:
            make_folder_within(path.parent / below)
        for one in inside:
            if one.flag_bits & _ENCRYPTED:
                raise UnusableFile("it is encrypted: pack it without a password")
            if Path(_name_of(one)).name == "Icon\r":  # of a Mac's folder
                continue
            try:
                name = safe_name(_name_of(one))
            except UnusableFile as error:
                raise UnusableFile(f"{one.filename!r}: {error}") from None
            target = path.parent / below / name
            if target == path:
                continue
            for above in reversed(Path(name).parents[:-1]):
                make_folder_within(path.parent / below / above)
            with archive.open(one) as source, open(target, "wb", opener=as_its_folder) as file:
                written.append(target)
                shutil.copyfileobj(source, file, AT_ONCE)
            yield (around / name).as_posix(), one.file_size


def _name_of(one: zipfile.ZipInfo) -> str:
    """The name of a file in an archive; that of many packers is UTF-8 without saying so."""
    if one.flag_bits & _UTF8:
        return one.filename
    try:
        return one.filename.encode("cp437").decode()
    except UnicodeError:
        return one.filename
