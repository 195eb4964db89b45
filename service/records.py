"""The words of the search service: what is enrolled, what is asked, and what is found.

Public ids are opaque strings; inside, an item is known by its number, which is never used again.
E is the embedding size.
"""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from math import isfinite
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt

from reid.data.boxes import same_box, whole_box
from reid.naming.decisions import Answer, Basis
from service.fields import Fact, Filter, NewlySaid, Said

Vectors = npt.NDArray[np.float32]
Scope = Literal["read", "write", "admin"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
EngineName = Literal["memory", "approximate", "faiss-ivf", "milvus"]  # faiss-ivf is what approximate was called
Consistency = Literal["Strong", "Session", "Bounded", "Eventually"]  # of reads, in the words of Milvus
MilvusIndex = Literal["flat", "hnsw", "ivf", "auto"]

ALL_SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
MAX_NAME = 200  # characters of a key's name
MAX_RATE = 1_000_000  # requests a minute
DECODE_SECONDS = 5.0  # of a processor that the smallest photo may take to be decoded
_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # of the direction of text
APPEARANCE = "appearance"  # the space, or kind of vectors, by which items are searched


class NotFound(LookupError):
    """No such item; the message names what was asked for."""


class NotServed(LookupError):
    """What is asked for needs a gallery, a classifier or a backbone that this service was not given; it says which."""


class Conflict(ValueError):
    """What is asked contradicts what is there, such as a key that another photo has; the message names both."""


class KeyTaken(Conflict):
    """The key of an item that another one has; `camera` is that of the other, which not everybody may know of."""

    def __init__(self, key: str | None, holder: str, camera: str | None, other: str) -> None:
        super().__init__(f"key {key!r} belongs to item {holder}, so {other} cannot have it")
        self.key = key
        self.camera = camera

    def told(self, sees: Callable[[str | None], bool]) -> str:
        """What it says, but for what somebody who sees some cameras may not know of."""
        return str(self) if sees(self.camera) else f"key {self.key!r} cannot be given with this key of the service"


class ModelMismatch(ValueError):
    """The gallery belongs to another model; the message names both."""


class IndexUnavailable(ConnectionError):
    """The search engine's server cannot be reached or is not ready; the message names it, without secrets, and why."""


class ReviewLoading(ConnectionError):
    """The review is being made ready, after a start or for another model; it will answer in a moment."""


class IndexLost(LookupError):
    """The search engine's server is there and the rows are not, so that they must be published anew."""


class UnusableBox(ValueError):
    """A box that is empty, not finite or not wholly within its picture; the message names it."""


class DeletedBefore(ValueError):
    """A photo, or a box of one, that was deleted and is not wanted back, for nobody said so."""


class UnusableText(ValueError):
    """A text that the database of the gallery cannot keep, or a name that a list cannot show; the message names it."""


def require_name(what: str, name: str) -> None:
    """Raise UnusableText for a name that cannot be seen, or that has what is around it read otherwise than it stands.

    These are names of spaces and marks alone, and with control characters, line breaks or bidirectional overrides.
    """
    if name.isprintable() and name.strip(" "):  # as nearly all are; what is not may still be a name
        return
    kinds = [unicodedata.category(character) for character in name]
    if all(kind[0] in "CZ" for kind in kinds):
        raise UnusableText(f"{what} {name!r} has nothing to be seen; expected a name, or none")
    for character, kind in zip(name, kinds, strict=True):
        if kind in ("Cc", "Zl", "Zp") or character in _OVERRIDES:
            raise UnusableText(f"{what} {name!a} holds U+{ord(character):04X}, which a list cannot show as it is")


@dataclass(frozen=True, slots=True)
class Medium:
    """One stored photo: the SHA-256 of the bytes that were sent, and the size in pixels of the upright picture.

    `copy_sha256` is that of the copy that is kept; None for a photo that was enrolled before there were any, until the
    next check.
    """

    sha256: str
    width: int
    height: int
    source: str = ""
    copy_sha256: str | None = None


Box = tuple[float, float, float, float]  # x, y, width and height in pixels of the upright picture


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a photo, a box in whole pixels of the upright picture; in a video, of the frame of a number."""

    x: int
    y: int
    w: int
    h: int
    frame: int | None = None

    @classmethod
    def around(cls, x: float, y: float, w: float, h: float, frame: int | None = None) -> Self:
        """All pixels that a box touches; raises UnusableBox for one that is empty or not finite."""
        if not all(map(isfinite, (x, y, w, h, x + w, y + h))) or w <= 0 or h <= 0:
            raise UnusableBox(f"box {x:g},{y:g},{w:g},{h:g} is empty or not finite; expected x,y,w,h in pixels")
        return cls(*whole_box(x, y, w, h), frame)

    def require_inside(self, width: int, height: int) -> None:
        """Raise UnusableBox for a box that is empty or not wholly within a picture of this size."""
        inside = self.x >= 0 and self.y >= 0 and self.x + self.w <= width and self.y + self.h <= height
        if not inside or self.w < 1 or self.h < 1:
            raise UnusableBox(f"{self} is not within the picture of {width}x{height} pixels")

    def __str__(self) -> str:
        box = f"box {self.x},{self.y},{self.w},{self.h}"
        return box if self.frame is None else f"{box} of frame {self.frame}"


class Crop(NamedTuple):
    """What an item shows, and no other does: a photo by its SHA-256, whole or a region of it."""

    sha256: str
    region: Region | None = None

    def agrees(self, other: "Crop") -> bool:
        """Whether both show one subject: of the same photo, and boxes of one frame that agree within 1 % of a side."""
        if self == other:
            return True
        one, two = self.region, other.region
        if self.sha256 != other.sha256 or one is None or two is None or one.frame != two.frame:
            return False
        return same_box((one.x, one.y, one.w, one.h), (two.x, two.y, two.w, two.h))


@dataclass(frozen=True, slots=True, kw_only=True)
class Details(Said):
    """What is said of an item, by people or by its camera: also a key, which is its alone, and whatever else.

    `captured_at` has the offset with which it was said, or that of the camera's clock; `captured_precision` is `second`
    or `subsecond` where a camera said it, and tells where its zone is unknown. `latitude` and `longitude` are degrees.
    """

    key: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    captured_precision: str | None = None
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class Cameras:
    """How to take what cameras say: in which zone clocks are that do not tell it, and whether devices name cameras."""

    zone: tzinfo | None = None
    named_by_device: bool = False


ANY_CAMERA = Cameras()


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of an image file, its name, and what is said of it, or of the box in it that is meant.

    Where the bytes are the copy that is kept of an enrolled photo, `sha256` is that of the photo.
    """

    name: str
    data: bytes
    details: Details
    cameras: Cameras = ANY_CAMERA
    box: Box | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class NewItem:
    """A photo or a region of one to be enrolled, with its unit embedding (E,) float32."""

    medium: Medium
    vector: Vectors
    details: Details = Details()
    region: Region | None = None

    @property
    def crop(self) -> Crop:
        """What it shows."""
        return Crop(self.medium.sha256, self.region)

    @property
    def name(self) -> str:
        """What errors call it."""
        source = self.medium.source or self.medium.sha256
        return source if self.region is None else f"{source}, {self.region}"


@dataclass(frozen=True, slots=True)
class Item:
    """An enrolled photo or region of one. `identity_id` is that of its label."""

    number: int
    item_id: str
    medium: Medium
    details: Details
    identity_id: str | None
    created_at: datetime
    region: Region | None = None

    @property
    def crop(self) -> Crop:
        """What it shows."""
        return Crop(self.medium.sha256, self.region)


class Enrolled(NamedTuple):
    """The item of a photo: `created` is false for one that was there before, `pending` true while no query finds it."""

    item: Item
    created: bool
    pending: bool = False


class ItemEdit(NewlySaid, total=False):
    """New values for some of an item's `Details`; `attributes` takes the place of all there were.

    A time has no precision, unless that is given with it.
    """

    key: str | None
    captured_precision: str | None
    latitude: float | None
    longitude: float | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """What a search engine keeps of an item; `facts` are those of its `FIELDS` that are known, by name."""

    number: int
    vector: Vectors
    facts: Mapping[str, Fact] = field(default_factory=dict)


class Cause(NamedTuple):
    """Who wants something done, as the id of a key or the name of a command, and in which request."""

    actor: str = ""
    request_id: str = ""


NOBODY = Cause()


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone with a key: what it allows, and the cameras whose items it shows; None is all of them.

    An item without camera is shown only to those who see all.
    """

    actor: str
    scopes: frozenset[Scope]
    cameras: frozenset[str] | None = None

    def sees(self, camera: str | None) -> bool:
        """Whether items of a camera exist for this caller."""
        return self.cameras is None or camera in self.cameras

    def covers(self, cameras: frozenset[str] | None) -> bool:
        """Whether this caller sees all that somebody sees who sees these cameras; None is all."""
        return self.cameras is None or (cameras is not None and cameras <= self.cameras)

    def narrow(self, chosen: Filter) -> Filter:
        """The same filter over the items that this caller sees."""
        return chosen if self.cameras is None else chosen.narrowed_to(self.cameras)


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key shall be called and allow: `write` includes `read`, and `admin` includes both.

    `cameras` are those whose items it shows; None is all. `requests_per_minute` None is no limit. Raises ValueError for
    a name that cannot be shown on one line, for no or unknown scopes, for limits that leave nothing, and for an admin
    limited to cameras, who could make a key without that limit.
    """

    name: str
    scopes: frozenset[Scope]
    cameras: frozenset[str] | None = None
    requests_per_minute: int | None = None

    def __post_init__(self) -> None:
        if not (0 < len(self.name) <= MAX_NAME and self.name.isprintable()):
            raise ValueError(f"name {self.name[:MAX_NAME]!r}: expected 1 to {MAX_NAME} printable characters")
        if not self.scopes or not self.scopes <= ALL_SCOPES:
            raise ValueError(f"scopes {sorted(self.scopes)}: expected one or more of {sorted(ALL_SCOPES)}")
        if self.cameras is not None and not self.cameras:
            raise ValueError("cameras []: expected at least one, or null for all")
        if self.cameras is not None and "admin" in self.scopes:
            raise ValueError(f"cameras {sorted(self.cameras)}: a key with scope 'admin' cannot be limited to cameras")
        if self.requests_per_minute is not None and not 1 <= self.requests_per_minute <= MAX_RATE:
            raise ValueError(f"requests_per_minute {self.requests_per_minute}: expected 1 to {MAX_RATE}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret; `scopes` holds all that it allows."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    cameras: frozenset[str] | None
    requests_per_minute: int | None
    created_at: datetime
    revoked_at: datetime | None = None

    def caller(self) -> Caller:
        """Someone who shows this key."""
        return Caller(self.key_id, self.scopes, self.cameras)


class Hit(NamedTuple):
    """An item found: its number and its cosine similarity to the query, in [-1, 1]."""

    number: int
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to one query: hits by falling score, ties by rising number; `candidates` passed the filter."""

    hits: tuple[Hit, ...]
    candidates: int


@dataclass(frozen=True, slots=True)
class LoggedQuery:
    """One answered query, for the log: `images` are the SHA-256 of what was sent, `matches` public ids and scores.

    `conditions` are those of the request, as JSON.
    """

    cause: Cause
    images: tuple[str, ...]
    item_id: str | None
    conditions: Mapping[str, Any]
    candidates: int
    matches: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was answered, as the log has it: `seq` rises, and is never used again."""

    seq: int
    time: datetime
    asked: LoggedQuery


class LogPart(NamedTuple):
    """The first `limit` entries of a log, the newest first or the oldest, beyond `cursor`, a `seq`.

    They are by `actor`, of a `kind`, and since <= time < until; None is any.
    """

    cursor: int | None = None
    limit: int = 1000
    newest_first: bool = False
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    kind: str | None = None


FIRST = LogPart()


@dataclass(frozen=True, slots=True)
class Operation:
    """One change: `target` is the public id of what changed, and the changes of one transaction share `batch_id`."""

    seq: int
    time: datetime
    actor: str
    request_id: str
    batch_id: str
    kind: str
    target: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer about items `a` and `b`, by their public ids, with what was shown and known at the time.

    A number is never used again, and rises with each decision. `supersedes` is the number of an earlier one that holds
    no more; where that is only taken back, the answer is `withdrawn`. `superseded` tells that this one holds no more.
    `expected` is the answer that was known before, of a gold question.
    """

    number: int
    decision_id: str
    question_id: str | None
    shown_at: datetime | None
    answered_at: datetime
    actor: str
    request_id: str
    batch_id: str
    a: str
    b: str
    answer: Answer
    basis: Basis
    expected: Answer | None
    model_id: str | None
    score: float | None
    probability: float | None
    evidence: Mapping[str, Any] | None
    supersedes: int | None
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """Long work of one kind. `done` of `total` steps are behind it; `error` is one line.

    A number is never used again, and rises with each job.
    """

    number: int
    job_id: str
    kind: str
    parameters: Mapping[str, Any]
    state: JobState
    done: int
    total: int | None
    result: Mapping[str, Any] | None
    error: str | None
    actor: str
    request_id: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def cause(self) -> Cause:
        """Who started it, and in which request."""
        return Cause(self.actor, self.request_id)
