"""What goes over the wire about the disk and the model; as `schemas`, it imports neither torch nor fastapi."""

from typing import Literal

from pydantic import BaseModel

PartName = Literal["pictures", "thumbnails", "database", "index", "subjects", "imports", "backups", "other"]


class DiskPart(BaseModel):
    """Files of one kind; a picture that a backup shares with the gallery counts in the gallery alone."""

    name: PartName
    files: int
    bytes: int


class WithinDatabase(BaseModel):
    """About how many bytes of the database, wherever it is, are vectors, the log of changes, and that of queries."""

    vectors: int
    changes: int
    queries: int


class Disk(BaseModel):
    """The disk of the gallery, in bytes.

    `warning` says that there is little room, as `/health/ready` does then. `room_for` is how many more photos of the
    size of those there fit; null without any. Parts without files are told, too, and those on another disk.
    """

    free: int
    total: int
    warning: str | None
    room_for: int | None
    parts: list[DiskPart]
    within_database: WithinDatabase


class CalibrationFacts(BaseModel):
    """On what probabilities and verdicts rest: the queries of an evaluation, and how well the map did on them."""

    identities: int
    queries: int
    gallery: int
    gallery_identities: int
    false_alarm_rate: float
    known_from: float
    unknown_below: float
    brier_score: float
    calibration_error: float


class EngineFacts(BaseModel):
    """What finds items: `how` says what it chose, `recall` the share of the 10 best that it finds, null where all."""

    name: str
    how: str
    items: int
    recall: float | None


class ModelFacts(BaseModel):
    """The model that is loaded.

    `source` names what it was loaded from, `checksum` is the SHA-256 of its weights and `embedding_size` E. Without
    `calibration` answers have no probability and no verdict; `probabilities` says in words where these come from, or
    why there are none.
    """

    model_id: str
    name: str
    source: str
    checksum: str
    trained_on: str | None
    epoch: int
    image_size: tuple[int, int]
    embedding_size: int
    features: str
    flip_test: bool
    device: str
    probabilities: str
    calibration: CalibrationFacts | None
    engine: EngineFacts
