"""Python client of the service: one method for each thing that it does, with the models of its answers.

with Client("http://127.0.0.1:8000") as client:
    for match in client.query("photo.jpg", cameras=["gate"]).matches:
        ...
"""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, TypeVar, Unpack, cast
from urllib.parse import quote
from uuid import uuid4

import httpx2
from pydantic import BaseModel, ValidationError

from service.fields import Filter, Filters
from service.import_client import ImportClient
from service.records import Box, Scope
from service.review_client import IdentityClient, ReviewClient
from service.wire.admin_schemas import (
    CreatedKey,
    Job,
    JobPage,
    Key,
    KeyList,
    LoggedQuery,
    Operation,
    OperationPage,
    QueryPage,
    Receipt,
    Session,
)
from service.wire.review_schemas import DecisionPage, IdentityPage
from service.wire.schemas import (
    MAX_PAGE,
    BoxesForm,
    Cameras,
    Changes,
    Classes,
    ClassifyAnswer,
    Counted,
    Days,
    DeletionAnswer,
    EditAnswer,
    EnrolAnswer,
    FieldError,
    FileResult,
    Item,
    ItemPage,
    Labels,
    Live,
    Metadata,
    Problem,
    QueryAnswer,
    Ready,
)
from service.wire.state_schemas import Disk, ModelFacts
from service.work_client import ShortlistClient, SubjectClient

FILES_AT_ONCE = 32  # a service takes so many in one request unless it is told otherwise
ITEMS_AT_ONCE = 256
BYTES_AT_ONCE = 48 * 2**20
TRIES = 4
SECONDS_BETWEEN_LOOKS = 1.0  # at a job

Photo = Path | str | bytes | BinaryIO  # text is a path
Model = TypeVar("Model", bound=BaseModel)
Page = TypeVar("Page", ItemPage, JobPage, OperationPage, QueryPage, IdentityPage, DecisionPage)
_File = tuple[str, bytes]


class ServiceError(Exception):
    """The service refused; `code` is for programs, `detail` for people, and `request_id` finds it in the log."""

    def __init__(self, status: int, code: str, detail: str, request_id: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.errors = tuple(errors)


class Client:
    """A service at a URL, asked with a key where it wants one; threads may share it.

    Methods raise ServiceError for what the service refuses, ConnectionError where it cannot be reached, and
    TimeoutError where it takes longer than `timeout` seconds. A request that does no harm when it is sent twice is sent
    up to TRIES times: when the connection broke, and when the service is busy, or the key has asked too often, and the
    answer says for how long. A service that starts is waited for, for `timeout` seconds. `review` and `identities` have
    the methods that tell who is who, `subjects` those of photos that are kept to be searched for, `imports` those of
    many files that the service enrols by itself.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", key: str | None = None, timeout: float = 60) -> None:
        headers = {} if key is None else {"X-API-Key": key}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout)
        self._timeout = timeout
        self.review = ReviewClient(self._get, self._pages, _conditions)
        self.identities = IdentityClient(self._get, self._pages)
        self.imports = ImportClient(self._get, self._send)
        self.shortlists = ShortlistClient(self._get, self._send)
        self.subjects = SubjectClient(self._get, self._send, _file, _box_texts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def query(
        self,
        *images: Photo,
        item_id: str | None = None,
        subject_id: str | None = None,
        box: Box | Sequence[Box | None] | None = None,
        top_k: int = 10,
        min_score: float = -1,
        group_by: Literal["none", "label", "identity"] = "none",
        **filters: Unpack[Filters],
    ) -> QueryAnswer:
        """Find the items most similar to the one subject of all images, or to an enrolled item, or a kept subject.

        `box` is (x, y, width, height) of the subject in pixels of the upright picture; of several images a list, with
        None for one that is meant as a whole. With `group_by="label"`, the best match alone stands for each label; with
        `"identity"` for each identity, whose probability follows from all its photos.
        """
        wanted = {"top_k": top_k, "min_score": min_score, "group_by": group_by, **_conditions(filters)}
        if item_id is not None:
            wanted["item_id"] = item_id
        if subject_id is not None:
            wanted["subject_id"] = subject_id
        if box is not None:
            wanted["box"] = _box_texts(box)
        files = [("image", _file(image)) for image in images]
        return self._get(QueryAnswer, "POST", "/v1/query", data=wanted, files=files or None)

    def enrol(
        self, photos: Sequence[Photo], metadata: Sequence[Metadata | Mapping[str, Any]] | None = None
    ) -> list[FileResult]:
        """Enrol photos, with what is said of each if anything, and tell in their order what became of each.

        A photo whose metadata has `boxes`, such as [(x, y, width, height), {"box": (...), "label": "ada"}] in pixels of
        the upright picture, is enrolled as these, each an item with a result of its own. They go out in portions, of
        which those before an error stay enrolled; sent again, they are `existing`. Raises ValueError for wrong
        metadata, or not as many as photos, and OSError for a file that cannot be read.
        """
        said = None if metadata is None else [_said(Metadata.model_validate(one)) for one in metadata]
        if said is not None and len(said) != len(photos):
            raise ValueError(f"{len(said)} metadata for {len(photos)} photos, expected as many")
        results: list[FileResult] = []
        start = 0
        for files in _portions(photos, [len(one.get("boxes") or [None]) for one in said or [{}] * len(photos)]):
            end = start + len(files)
            answer = self._get(
                EnrolAnswer,
                "POST",
                "/v1/items",
                files=[("images", file) for file in files],
                data=None if said is None else {"metadata": json.dumps(said[start:end])},
                headers={"Idempotency-Key": uuid4().hex},
            )
            results += [result.model_copy(update={"index": start + result.index}) for result in answer.results]
            start = end
        return results

    def enrol_boxes(self, item_id: str, boxes: Sequence[Box | Mapping[str, Any]]) -> list[FileResult]:
        """Enrol boxes in the photo of an item, which is not sent again, and tell what became of each.

        A box is (x, y, width, height) in pixels of the upright picture, or {"box": ..., "label": "ada"}.
        """
        wanted = BoxesForm.model_validate({"boxes": list(boxes)}).model_dump(mode="json", exclude_defaults=True)
        return self._get(EnrolAnswer, "POST", _path("items", item_id, "boxes"), json=wanted).results

    def classify(self, *images: Photo, top_k: int = 5) -> ClassifyAnswer:
        """The `top_k` most probable classes of each image, in their order; one that cannot be used has an `error`."""
        files = [("image", _file(image)) for image in images]
        return self._get(ClassifyAnswer, "POST", "/v1/classify", data={"top_k": top_k}, files=files or None)

    def classes(self) -> list[str]:
        """The names of all classes that the classifier knows."""
        return self._get(Classes, "GET", "/v1/classes").classes

    def items(
        self,
        media: str | None = None,
        order: Literal["oldest", "newest"] = "oldest",
        named: bool | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[Item]:
        """All items that pass, by enrolment; with `media` as items have it, those of one photo.

        `named` leaves those with a label, or those without.
        """
        wanted = _given({**_conditions(filters), "media": media, "order": order, "named": named})
        for page in self._pages(ItemPage, "/v1/items", wanted):
            yield from page.items

    def item(self, item_id: str) -> Item:
        """One item."""
        return self._get(Item, "GET", _path("items", item_id))

    def edit(self, item_id: str, **changes: Unpack[Changes]) -> Item:
        """Change what is said of an item; `timezone` is for a time whose zone is unknown."""
        wanted = {name: _sent(value) for name, value in changes.items()}
        return self._get(Item, "PATCH", _path("items", item_id), json=wanted)

    def delete(self, item_id: str) -> None:
        """Delete an item, and its photo with the last item of it; no later query finds it."""
        self._send("DELETE", _path("items", item_id), once=True)

    def delete_items(self, item_ids: Sequence[str], dry_run: bool = True) -> DeletionAnswer:
        """Delete those of up to 1,000 items that are there, or with `dry_run` only count them."""
        wanted = {"item_ids": list(item_ids), "dry_run": dry_run}
        return self._get(DeletionAnswer, "POST", "/v1/items/delete", json=wanted, once=True)

    def delete_matching(
        self, dry_run: bool = True, expected: int | None = None, **filters: Unpack[Filters]
    ) -> DeletionAnswer:
        """Delete all items that pass, or with `dry_run` only count them; no filter at all is passed by all items.

        To delete, `expected` must be their number as the dry run told it. More than 10,000 are deleted by a job, which
        the answer names.
        """
        wanted = {"filter": _conditions(filters), "dry_run": dry_run, "expected": expected}
        return self._get(DeletionAnswer, "POST", "/v1/items/delete", json=wanted, once=True)

    def edit_items(
        self,
        item_ids: Sequence[str],
        changes: Mapping[str, str | None] | None = None,
        shift_seconds: int = 0,
        *,
        dry_run: bool = True,
        named: bool | None = None,
    ) -> EditAnswer:
        """Say the same of up to 1,000 items, such as {"camera": "gate"}, and move their times; or count them."""
        return self._edit(
            item_ids=list(item_ids), changes=changes, shift_seconds=shift_seconds, dry_run=dry_run, named=named
        )

    def edit_matching(
        self,
        changes: Mapping[str, str | None] | None = None,
        shift_seconds: int = 0,
        *,
        dry_run: bool = True,
        expected: int | None = None,
        named: bool | None = None,
        **filters: Unpack[Filters],
    ) -> EditAnswer:
        """Say the same of all items that pass, and move their times, or with `dry_run` only count them.

        To change, `expected` must be their number as the dry run told it.
        """
        more = {"dry_run": dry_run, "expected": expected, "named": named}
        return self._edit(filter=_conditions(filters), changes=changes, shift_seconds=shift_seconds, **more)

    def _edit(self, **wanted: object) -> EditAnswer:
        headers = {"Idempotency-Key": uuid4().hex}  # so that it may be sent again where no answer came
        return self._get(EditAnswer, "POST", "/v1/items/edit", json=_given(wanted), headers=headers)

    def undo_edit(self, batch_id: str, dry_run: bool = False) -> EditAnswer:
        """Take back an edit of many items, by its `batch_id`."""
        wanted = {"batch_id": batch_id, "dry_run": dry_run}
        return self._get(EditAnswer, "POST", "/v1/items/edit/undo", json=wanted, once=True)

    def image(self, item_id: str, whole: bool = False) -> bytes:
        """What an item shows, lossless and without metadata; `whole` gives the photo also for a box in it.

        A JPEG file of a photo may tell by its EXIF orientation how to turn it upright, where boxes are measured.
        """
        return self._send("GET", _path("items", item_id, "image"), params={"whole": True} if whole else None).content

    def thumbnail(self, item_id: str, small: bool = False) -> bytes:
        """A copy of what an item shows as a JPEG file of at most 256 pixels on a side, or 160 for a `small` one."""
        params = {"small": True} if small else None
        return self._send("GET", _path("items", item_id, "thumbnail"), params=params).content

    def attention(self, item_id: str) -> bytes:
        """Where the model looks in what an item shows, as a PNG file."""
        return self._send("GET", _path("items", item_id, "attention")).content

    def attention_of(self, image: Photo, box: Box | None = None) -> bytes:
        """Where the model looks in a photo that is not enrolled, or in a box in it, as a PNG file."""
        wanted = None if box is None else {"box": _box_texts(box)}
        return self._send("POST", "/v1/attention", data=wanted, files=[("image", _file(image))]).content

    def catalogue(
        self,
        form: Literal["table", "wildbook"] = "table",
        species: str | None = None,
        likely: bool = False,
        **filters: Unpack[Filters],
    ) -> str:
        """Who is who among the items that pass, as CSV; `wildbook` is the sheet of its bulk import, of a species.

        A table with `likely` also tells whom items may be found to show that the review has not settled yet.
        """
        wanted = {**_given({"format": form, "species": species, "likely": likely}), **_conditions(filters)}
        return self._send("GET", "/v1/catalogue", params=wanted).content.decode("utf-8-sig")

    def days(self, named: bool | None = None, **filters: Unpack[Filters]) -> dict[date, int]:
        """The days, in UTC, on which the items that pass were captured, and how many were."""
        found = self._get(Days, "GET", "/v1/days", params=_given({**_conditions(filters), "named": named}))
        return {one.day: one.items for one in found.days}

    def cameras(self, **filters: Unpack[Filters]) -> list[Counted]:
        """The cameras of the items that pass; those with most items first."""
        return self._get(Cameras, "GET", "/v1/cameras", params=_conditions(filters)).cameras

    def labels(self, **filters: Unpack[Filters]) -> list[Counted]:
        """The labels of the items that pass; those with most items first."""
        return self._get(Labels, "GET", "/v1/labels", params=_conditions(filters)).labels

    def session(self) -> Session:
        """Who the service takes this client for, and what it may do."""
        return self._get(Session, "GET", "/v1/session")

    def live(self) -> Live:
        """Whether the process answers."""
        return self._get(Live, "GET", "/health/live")

    def ready(self) -> Ready:
        """Whether queries are answered; if not, the ServiceError says why."""
        return self._get(Ready, "GET", "/health/ready")

    def metrics(self) -> str:
        """Measurements of the service, in the text format of Prometheus."""
        return self._send("GET", "/metrics").text

    def backup(self, *, dry_run: bool = False) -> Job:
        """Start a job that writes the gallery to a folder which can be served in its place, or tells if that fits."""
        return self._get(Job, "POST", "/v1/admin/backup", params={"dry_run": dry_run}, once=True)

    def reindex(self, *, dry_run: bool = False) -> Job:
        """Start a job that embeds all enrolled photos by the model that is loaded, or counts what it would embed."""
        return self._get(Job, "POST", "/v1/admin/reindex", params={"dry_run": dry_run}, once=True)

    def disk(self) -> Disk:
        """How much room there is on the disk of the gallery, and what takes how much of it."""
        return self._get(Disk, "GET", "/v1/admin/disk")

    def model(self) -> ModelFacts:
        """The model that is loaded, its calibration, and how items are found."""
        return self._get(ModelFacts, "GET", "/v1/admin/model")

    def reconcile(self) -> Job:
        """Start a job that compares the search index on a server with the gallery, and mends what differs."""
        return self._get(Job, "POST", "/v1/admin/reconcile", once=True)

    def check(self) -> Job:
        """Start a job that reads all that is kept, and names items whose pictures or vectors are lost or damaged."""
        return self._get(Job, "POST", "/v1/admin/check", once=True)

    def expire(self, *, dry_run: bool = True) -> Job:
        """Start a job that deletes, or counts, the items whose time is over by REID_KEEP_DAYS."""
        return self._get(Job, "POST", "/v1/admin/expire", params={"dry_run": dry_run}, once=True)

    def erase(self, item_ids: Collection[str]) -> Receipt:
        """Delete items, and take every trace of them out of the gallery and its backups."""
        return self._get(Receipt, "POST", "/v1/admin/erase", json={"item_ids": list(item_ids)}, once=True)

    def jobs(self) -> Iterator[Job]:
        """All jobs, the newest first."""
        for page in self._pages(JobPage, "/v1/jobs"):
            yield from page.jobs

    def job(self, job_id: str) -> Job:
        """One job: how far it is, or how it ended."""
        return self._get(Job, "GET", _path("jobs", job_id))

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end: a queued one ends at once, a running one soon."""
        return self._get(Job, "POST", _path("jobs", job_id, "cancel"), once=True)

    def wait(self, job_id: str) -> Job:
        """Wait for a job to end, and return it; its `state` and `error` tell how it ended."""
        while (job := self.job(job_id)).state in ("queued", "running"):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return job

    def list_keys(self) -> list[Key]:
        """All keys, with those that were revoked."""
        return self._get(KeyList, "GET", "/v1/admin/keys").keys

    def add_key(
        self,
        name: str,
        scopes: Iterable[Scope],
        cameras: Iterable[str] | None = None,
        requests_per_minute: int | None = None,
    ) -> CreatedKey:
        """Make a key; its secret is told this once."""
        wanted = {
            "name": name,
            "scopes": list(scopes),
            "cameras": None if cameras is None else list(cameras),
            "requests_per_minute": requests_per_minute,
        }
        return self._get(CreatedKey, "POST", "/v1/admin/keys", json=wanted, once=True)

    def revoke_key(self, key_id: str) -> None:
        """Make a key worthless for good."""
        self._send("DELETE", _path("admin", "keys", key_id))

    def operations(
        self,
        *,
        kind: str | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        order: Literal["newest", "oldest"] = "newest",
    ) -> Iterator[Operation]:
        """Changes of the gallery, the newest first: of a kind, by the id of a key, and since <= time < until."""
        wanted = {"kind": kind, "actor": actor, "from": _sent(since), "to": _sent(until), "order": order}
        for page in self._pages(OperationPage, "/v1/admin/operations", _given(wanted)):
            yield from page.operations

    def logged_queries(
        self,
        *,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        order: Literal["newest", "oldest"] = "newest",
    ) -> Iterator[LoggedQuery]:
        """Queries that were answered, the newest first: by the id of a key, and since <= time < until."""
        wanted = {"actor": actor, "from": _sent(since), "to": _sent(until), "order": order}
        for page in self._pages(QueryPage, "/v1/admin/queries", _given(wanted)):
            yield from page.queries

    def _get(self, model: type[Model], method: str, path: str, **sent: Any) -> Model:
        return model.model_validate_json(self._send(method, path, **sent).content)

    def _pages(self, model: type[Page], path: str, params: Mapping[str, Any] | None = None) -> Iterator[Page]:
        wanted = {**(params or {}), "limit": MAX_PAGE}
        page = self._get(model, "GET", path, params=wanted)
        yield page
        while page.next_cursor is not None:
            page = self._get(model, "GET", path, params={**wanted, "cursor": page.next_cursor})
            yield page

    def _send(self, method: str, path: str, once: bool = False, **sent: Any) -> httpx2.Response:
        """The answer to a request that succeeds; `once` for one that must not be sent twice."""
        tries = 1 if once else TRIES
        latest = time.monotonic() + self._timeout
        while True:
            try:
                response = self._http.request(method, path, **sent)
            except httpx2.TimeoutException as error:
                raise TimeoutError(f"{self._http.base_url}: no answer within {self._timeout:g} s") from error
            except httpx2.TransportError as error:
                tries -= 1
                if tries:
                    continue
                raise ConnectionError(f"{self._http.base_url}: {error}") from error
            if response.is_success:
                return response
            refusal, pause = _refusal(response), response.headers.get("Retry-After", "")
            if refusal.code != "starting":
                tries -= 1
            elif time.monotonic() > latest:  # until then nothing was done, so that any request can be sent again
                tries = 0
            if not (tries and refusal.status in (429, 503) and pause.isdecimal() and int(pause) <= self._timeout):
                raise refusal
            time.sleep(int(pause))


def _refusal(response: httpx2.Response) -> ServiceError:
    try:
        told = Problem.model_validate_json(response.content)
    except ValidationError:  # from something between here and the service
        return ServiceError(response.status_code, "unknown", response.text[:200] or response.reason_phrase, "")
    return ServiceError(told.status, told.code, told.detail, told.request_id, told.errors)


def _path(*parts: str) -> str:
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _conditions(filters: Filters) -> dict[str, Any]:
    """The filters as they go over the wire."""
    wanted = Filter(**filters).spelled()
    for name, value in wanted.items():
        if value == [] and not name.startswith("exclude_"):  # which a form cannot say, so that all items would pass
            raise ValueError(f"{name} []: expected at least one name")
    return {name: _sent(value) for name, value in wanted.items()}


def _given(wanted: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in wanted.items() if value is not None}


def _sent(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _file(photo: Photo) -> _File:
    """The name and the bytes of an image file."""
    if isinstance(photo, bytes):
        return "photo", photo
    if isinstance(photo, Path | str):
        return Path(photo).name, Path(photo).read_bytes()
    return Path(str(getattr(photo, "name", "photo"))).name, photo.read()


def _said(metadata: Metadata) -> dict[str, Any]:
    said: dict[str, Any] = metadata.model_dump(mode="json", exclude=None if metadata.boxes else {"boxes"})
    return said


def _box_texts(box: Box | Sequence[Box | None]) -> list[str]:
    """A box for each image as forms have it; raises ValueError for none at all."""
    if not len(box):
        raise ValueError("box []: expected x, y, width and height, or for each image these or None")
    boxes = [box] if isinstance(box[0], Real) else box  # as are the numbers of numpy
    return ["" if one is None else ",".join(str(float(length)) for length in cast(Box, one)) for one in boxes]


def _portions(photos: Iterable[Photo], items: Iterable[int]) -> Iterator[list[_File]]:
    """Image files in lists that one request may bring, by how many items each becomes."""
    portion: list[_File] = []
    count = 0
    for photo, more in zip(photos, items, strict=True):
        file = _file(photo)
        size = sum(len(data) for _, data in portion)
        full = len(portion) == FILES_AT_ONCE or count + more > ITEMS_AT_ONCE
        if portion and (full or size + len(file[1]) > BYTES_AT_ONCE):
            yield portion
            portion, count = [], 0
        portion.append(file)
        count += more
    if portion:
        yield portion
