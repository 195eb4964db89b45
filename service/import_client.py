"""The part of the client that is about imports: `client.imports`."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from service.wire.import_schemas import (
    MAX_ANNOUNCED,
    AnnouncedAnswer,
    AnnouncedAnswers,
    Import,
    ImportedPhoto,
    ImportedPhotos,
    ImportList,
    ImportPreview,
    ImportSettings,
    ReceivedFile,
    ReceivedFiles,
)
from service.wire.schemas import MAX_PAGE, EditAnswer

PART = 8 * 2**20  # bytes of one request
SECONDS_BETWEEN_LOOKS = 1.0


class ImportClient:
    """Files that are sent part by part and enrolled by a job of the service; errors are those of the `Client`."""

    def __init__(self, get: Callable[..., Any], send: Callable[..., Any]) -> None:
        self._get, self._send = get, send

    def list(self) -> list[Import]:
        """All imports, the newest first."""
        found: ImportList = self._get(ImportList, "GET", _path())
        return found.imports

    def create(self, **settings: Any) -> Import:
        """Make an import, with the fields of `ImportSettings`: name="May", camera_from="folder"."""
        wanted = ImportSettings(**settings).model_dump(mode="json", exclude_unset=True)
        headers = {"Idempotency-Key": uuid4().hex}
        found: Import = self._get(Import, "POST", _path(), json=wanted, headers=headers)
        return found

    def get(self, import_id: str) -> Import:
        """One import: how far it is, or what became of it."""
        found: Import = self._get(Import, "GET", _path(import_id))
        return found

    def edit(self, import_id: str, **settings: Any) -> Import:
        """Change how it is to be read, before it is started."""
        wanted = ImportSettings(**settings).model_dump(mode="json", exclude_unset=True)
        found: Import = self._get(Import, "PATCH", _path(import_id), json=wanted)
        return found

    def send(self, import_id: str, *sources: str | Path) -> Sequence[AnnouncedAnswer]:
        """Send files, and all files below folders, by their paths from there; what was sent before is not sent again.

        Returns those that the service does not take, each with its `error`.
        """
        files = dict(_files(sources))
        refused = []
        names = [*files]
        for start in range(0, len(names), MAX_ANNOUNCED):
            some = [{"name": name, "size": files[name].stat().st_size} for name in names[start : start + MAX_ANNOUNCED]]
            told: AnnouncedAnswers = self._get(
                AnnouncedAnswers, "POST", _path(import_id, "files"), json={"files": some}
            )
            for answer, asked in zip(told.files, some, strict=True):
                if answer.error is not None:
                    refused.append(answer)
                else:
                    self._send_file(import_id, answer, files[str(asked["name"])])
        return refused

    def file(self, import_id: str, name: str) -> ReceivedFile:
        """How much of a file is there."""
        found: ReceivedFile = self._get(ReceivedFile, "GET", _path(import_id, "files", name))
        return found

    def files(self, import_id: str, *, missing: bool = False) -> Iterator[ReceivedFile]:
        """Its files, or those that have not come whole, with how much of each is there."""
        cursor: int | None = 0
        while cursor is not None:
            wanted = {"missing": missing, "cursor": cursor, "limit": MAX_PAGE}
            page: ReceivedFiles = self._get(ReceivedFiles, "GET", _path(import_id, "files"), params=wanted)
            yield from page.files
            cursor = page.next_cursor

    def preview(self, import_id: str) -> ImportPreview:
        """How the files that have come would be read, and what has to be said first."""
        found: ImportPreview = self._get(ImportPreview, "POST", _path(import_id, "preview"))
        return found

    def start(self, import_id: str, *, incomplete: bool = False) -> Import:
        """Have it enrolled; with `incomplete`, without the files that have not come whole."""
        wanted = {"incomplete": incomplete}
        found: Import = self._get(Import, "POST", _path(import_id, "start"), params=wanted)
        return found

    def wait(self, import_id: str) -> Import:
        """Wait for its job to end; its `state`, `error` and `report` tell how."""
        while (found := self.get(import_id)).state in ("queued", "running"):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return found

    def cancel(self, import_id: str) -> Import:
        """Have its job end soon."""
        found: Import = self._get(Import, "POST", _path(import_id, "cancel"), once=True)
        return found

    def retry(self, import_id: str) -> Import:
        """Go on with what an outage, a failure or a cancellation kept out."""
        found: Import = self._get(Import, "POST", _path(import_id, "retry"), once=True)
        return found

    def photos(self, import_id: str, *became: str) -> Iterator[ImportedPhoto]:
        """What became of each photo, or of those that became one of these."""
        cursor: int | None = 0
        while cursor is not None:
            wanted = {"became": [*became], "cursor": cursor, "limit": MAX_PAGE}
            page: ImportedPhotos = self._get(ImportedPhotos, "GET", _path(import_id, "photos"), params=wanted)
            yield from page.photos
            cursor = page.next_cursor

    def place_in(self, import_id: str, timezone: str, *, dry_run: bool = False) -> EditAnswer:
        """Say in which zone the clocks were of one that was done; its items whose times do not tell it are moved."""
        wanted = {"timezone": timezone, "dry_run": dry_run}
        found: EditAnswer = self._get(EditAnswer, "POST", _path(import_id, "timezone"), json=wanted, once=True)
        return found

    def undo(self, import_id: str, batch_id: str) -> Import:
        """Take back one of its `edits` of items."""
        found: Import = self._get(Import, "POST", _path(import_id, "undo"), json={"batch_id": batch_id}, once=True)
        return found

    def remove_file(self, import_id: str, name: str) -> None:
        """Take a file out of it, such as an archive that cannot be unpacked."""
        self._send("DELETE", _path(import_id, "files", name))

    def delete(self, import_id: str) -> None:
        """Remove it with its files and its report, and none of the items that came of it."""
        self._send("DELETE", _path(import_id))

    def _send_file(self, import_id: str, file: AnnouncedAnswer, path: Path) -> None:
        there, size = file.received, file.size
        with path.open("rb") as opened:
            while there < size or (size == 0 and there == 0):
                opened.seek(there)
                part = opened.read(PART)
                if not part and size:
                    raise ValueError(f"{path}: it has become shorter while it was sent")
                headers = {"Content-Type": "application/octet-stream"}
                sent = {"content": part, "params": {"offset": there}, "headers": headers}
                told: ReceivedFile = self._get(
                    ReceivedFile, "PUT", _path(import_id, "files", file.name), once=True, **sent
                )
                there = told.received
                if size == 0:
                    return


def _files(sources: Sequence[str | Path]) -> Iterator[tuple[str, Path]]:
    for source in map(Path, sources):
        if not source.is_dir():
            yield source.name, source
            continue
        for path in sorted(source.rglob("*")):
            if path.is_file():
                yield path.relative_to(source.parent).as_posix(), path


def _path(*parts: str) -> str:
    return "/".join(["/v1/imports", *(quote(part, safe="") for part in parts)])
