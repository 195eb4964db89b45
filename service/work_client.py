"""The parts of the client that are about the work of people: `client.subjects` and `client.shortlists`."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from service.records import Box
from service.wire.schemas import EnrolAnswer
from service.wire.work_schemas import Shortlist, ShortlistHead, ShortlistHeads, Subject, SubjectEnrolment


class SubjectClient:
    """Photos of somebody who is searched for, kept for a while; errors are those of the `Client`."""

    def __init__(
        self, get: Callable[..., Any], send: Callable[..., Any], file: Callable[..., Any], boxes: Callable[..., Any]
    ) -> None:
        self._get, self._send, self._file, self._boxes = get, send, file, boxes

    def add(self, *images: Any, box: Box | Sequence[Box | None] | None = None) -> Subject:
        """Keep photos of one subject, with boxes in them, as `Client.query` takes both."""
        files = [("image", self._file(image)) for image in images]
        told = {} if box is None else {"box": self._boxes(box)}
        found: Subject = self._get(Subject, "POST", "/v1/subjects", data=told, files=files, once=True)
        return found

    def get(self, subject_id: str) -> Subject:
        """One subject with its photos."""
        found: Subject = self._get(Subject, "GET", _path(subject_id))
        return found

    def photo(self, subject_id: str, index: int = 0) -> bytes:
        """One of its photos as a file without metadata."""
        content: bytes = self._send("GET", _path(subject_id, "photos", str(index))).content
        return content

    def enrol(self, subject_id: str, boxes: Sequence[Box | None] | None = None, **said: Any) -> EnrolAnswer:
        """Enrol its photos, or the boxes in them, with what is `said` of it: label="ada", camera="gate"."""
        told = SubjectEnrolment(**said, **({} if boxes is None else {"boxes": list(boxes)}))
        wanted = told.model_dump(mode="json", exclude_unset=True)
        answer: EnrolAnswer = self._get(EnrolAnswer, "POST", _path(subject_id, "items"), json=wanted, once=True)
        return answer

    def delete(self, subject_id: str) -> None:
        """Remove it before its time."""
        self._send("DELETE", _path(subject_id))


def _path(*parts: str) -> str:
    return "/".join(["/v1/subjects", *(quote(part, safe="") for part in parts)])


class ShortlistClient:
    """Items put together in an order, with notes; errors are those of the `Client`."""

    def __init__(self, get: Callable[..., Any], send: Callable[..., Any]) -> None:
        self._get, self._send = get, send

    def list(self) -> list[ShortlistHead]:
        """All shortlists, the one that was changed last first."""
        found: ShortlistHeads = self._get(ShortlistHeads, "GET", "/v1/shortlists")
        return found.shortlists

    def create(self, name: str, item_ids: Sequence[str] = (), notes: str = "") -> Shortlist:
        """Make a shortlist."""
        wanted = {"name": name, "item_ids": [*item_ids], "notes": notes}
        found: Shortlist = self._get(Shortlist, "POST", "/v1/shortlists", json=wanted, once=True)
        return found

    def get(self, shortlist_id: str) -> Shortlist:
        """One shortlist with its items."""
        found: Shortlist = self._get(Shortlist, "GET", _shortlist_path(shortlist_id))
        return found

    def edit(
        self,
        shortlist_id: str,
        *,
        name: str | None = None,
        notes: str | None = None,
        entries: Sequence[tuple[str, str]] | None = None,
    ) -> Shortlist:
        """Change the name, the notes, or all items with their order and notes, as pairs (item_id, note)."""
        told = None if entries is None else [{"item_id": item_id, "note": note} for item_id, note in entries]
        changes = {"name": name, "notes": notes, "entries": told}
        wanted = {field: value for field, value in changes.items() if value is not None}
        found: Shortlist = self._get(Shortlist, "PATCH", _shortlist_path(shortlist_id), json=wanted)
        return found

    def add(self, shortlist_id: str, item_ids: Sequence[str]) -> Shortlist:
        """Put items at its end that are not in it."""
        wanted = {"item_ids": [*item_ids]}
        found: Shortlist = self._get(Shortlist, "POST", _shortlist_path(shortlist_id, "items"), json=wanted)
        return found

    def table(self, shortlist_id: str) -> str:
        """It as a table in CSV."""
        content: bytes = self._send("GET", _shortlist_path(shortlist_id, "table")).content
        return content.decode("utf-8-sig")

    def report(self, shortlist_id: str) -> str:
        """It as one HTML file with its pictures in it."""
        text: str = self._send("GET", _shortlist_path(shortlist_id, "report")).text
        return text

    def delete(self, shortlist_id: str) -> None:
        """Remove it, and none of its items."""
        self._send("DELETE", _shortlist_path(shortlist_id))


def _shortlist_path(*parts: str) -> str:
    return "/".join(["/v1/shortlists", *(quote(part, safe="") for part in parts)])
