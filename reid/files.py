"""Files that appear whole or not at all, and the files of a run."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from reid.names import MODEL_FILE


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` make a file that appears at `path` whole or not at all: temporary name, fsync, rename.

    Raises OSError naming `path` when it cannot be written, say for a full disk; what stood there before stays.
    """
    path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        write(path)  # a device or a pipe cannot be renamed over
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.touch()
        readable = temporary.stat().st_mode & 0o777  # as the umask has it; safetensors makes files for one user alone
        write(temporary)
        temporary.chmod(readable)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors raise their own for a full disk
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(f"{path}: could not be written ({reason}); what was saved before is kept") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_whole` for text."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_whole(path, write)


def model_file(path: Path | str) -> Path:
    """The model file of a run folder, or `path` itself when it is a file; raises ValueError as `require_content`."""
    path = Path(path)
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"checkpoint {path}: no {'such file' if file == path else f'{MODEL_FILE} in this folder'}"
        )
    try:
        require_content(file)
    except ValueError as error:
        raise ValueError(f"checkpoint {file}: {error}") from None
    return file


def require_content(file: Path) -> None:
    """Raise ValueError where something else came in the place of a file: nothing, a web page, a pointer."""
    with open(file, "rb") as opened:
        start = opened.read(512).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        raise ValueError("a pointer of Git LFS in the place of the file; fetch it with `git lfs pull`")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError("a web page in the place of the file; the download went wrong")
    if not file.stat().st_size:
        raise ValueError("the file is empty")


def fingerprint(file: Path) -> str:
    """What tells one model file from every other: the SHA-256 of its bytes, in hexadecimal."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
