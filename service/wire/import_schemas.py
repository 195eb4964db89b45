"""What goes over the wire of imports: what is wanted, files that are sent, and what became of their photos."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.wire.schemas import MAX_NUMBER, MAX_PAGE, Answer, FileError, Name, Strict, Time, Zone

MAX_ANNOUNCED = 5000  # files in one request
MAX_PATTERNS = 50
FilePath = Annotated[str, Field(min_length=1, max_length=1000)]
ImportState = Literal["receiving", "queued", "running", "done", "failed", "cancelled"]
Need = Literal["timezone", "dates", "columns"]
PhotoBecame = Literal[
    "created", "existing", "updated", "edited", "differing", "duplicate", "deleted", "failed", "outage"
]


class ImportSaid(Strict):
    """What is said of all photos of an import of which its table says nothing else."""

    label: Name | None = None
    camera: Name | None = None
    site: Name | None = None
    captured_at: Time | None = None


class ImportSettings(Strict):
    """How an import is to be read.

    `table` names the file that lists the photos; by default the only one that is a table does, and "" is none.
    `columns` gives for names of ours the heading of the table, or "" for none. `timezone` is where the clocks were
    whose times do not say it, `dates` how 05/03/2026 is meant, `camera_from` what names the cameras, and `again` takes
    photos that were deleted before. Photos that are in the gallery already are told with what else is said of them
    here; `update` has their items say it, too. `include` and `exclude` are shell patterns of names of files.
    """

    name: str = Field("", max_length=200)
    timezone: Zone | None = None
    dates: Literal["day-first", "month-first"] | None = None
    camera_from: Literal["folder", "device"] | None = None
    table: str | None = Field(None, max_length=1000)
    columns: dict[Name, Annotated[str, Field(max_length=1000)]] = Field({}, max_length=100)
    include: list[Name] = Field([], max_length=MAX_PATTERNS)
    exclude: list[Name] = Field([], max_length=MAX_PATTERNS)
    again: bool = False
    update: bool | None = None
    said: ImportSaid = ImportSaid()


class AnnouncedFile(Strict):
    """A file that will be sent: its name, or its path below a folder with / between, and its size in bytes."""

    name: FilePath
    size: int = Field(ge=0, le=MAX_NUMBER)


class AnnouncedFiles(Strict):
    """Files that will be sent."""

    files: list[AnnouncedFile] = Field(min_length=1, max_length=MAX_ANNOUNCED)


class ReceivedFile(Answer, frozen=True):
    """A file of an import: of its `size` bytes, `received` are there, and the next part begins there."""

    name: str
    size: int
    received: int


class AnnouncedAnswer(Answer, frozen=True):
    """What of an announced file is there; `error` says why it is not taken, and then it is not to be sent."""

    name: str
    size: int
    received: int
    error: FileError | None


class AnnouncedAnswers(BaseModel):
    """Each of the announced files, in their order."""

    files: list[AnnouncedAnswer]


class ReceivedFiles(BaseModel):
    """A page of the files of an import, in the order in which they were announced."""

    files: list[ReceivedFile]
    next_cursor: int | None


class FilesQuery(Strict):
    """A page of the files; `missing` leaves those that have not come whole."""

    missing: bool = False
    cursor: int = Field(0, ge=0, le=MAX_NUMBER)
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class ImportReport(Answer, frozen=True):
    """How many photos became what.

    `created` are enrolled, `existing` were in the gallery, `updated` too, and their items say now what is said of them
    here, `edited` too, but somebody has edited their items since the preview, or since the start where there was none,
    and they stay as they are, `differing` too, and what else is said of them here was left out. A `duplicate` is the
    same as another photo of the import, `deleted` were deleted from the gallery before, `failed` cannot be used, and an
    `outage` can be tried again. `left_out` are files that are no photos of the import, by kind.
    """

    created: int
    existing: int
    updated: int = 0
    edited: int = 0
    differing: int = 0
    duplicate: int
    deleted: int
    failed: int
    outage: int
    left_out: dict[str, int]


class ImportEdit(Answer, frozen=True):
    """What an import changed of items, as one step: those that were there before, or the time zone of its own.

    `batch_id` takes it back, unless that is `undone`; `before` is the time zone that there was.
    """

    batch_id: str
    what: Literal["update", "timezone"]
    items: int
    before: str | None
    undone: bool


class Import(Answer, frozen=True):
    """An import: the files as far as they came, then the job that enrols them, then what became of them.

    It is `retryable` when photos are left that an outage, a failure or a cancellation kept out. `edits` are what it
    changed of items, the oldest first.
    """

    import_id: str
    state: ImportState
    settings: ImportSettings
    files: int
    bytes: int
    files_received: int
    bytes_received: int
    job_id: str | None
    done: int
    total: int | None
    error: str | None
    report: ImportReport | None
    retryable: bool
    edits: list[ImportEdit]
    created_at: datetime
    expires_at: datetime | None


class ImportList(BaseModel):
    """All imports, the newest first."""

    imports: list[Import]


class TableColumn(Answer, frozen=True):
    """A column of a table: its heading, what it is taken for ("" for an attribute of its own name), and some cells."""

    heading: str
    taken_for: str
    samples: list[str]


class UnusableArchive(Answer, frozen=True):
    """An archive that cannot be unpacked, and why; the import cannot be started before it is removed."""

    name: str
    detail: str


class ImportPreview(Answer, frozen=True):
    """How an import would be read.

    `understood` tells in words how the `table` is read, of the `tables` that there are. Of its `photos` some are
    `missing`, several pictures that were sent have the name of an `ambiguous` one, and of the pictures some are
    `unlisted`; `fields` are the names that a column can have. Of the photos some are `there` in the gallery, and some
    are `twice` in the import; of those that are there something else is said here of `changed`, which `changes` counts
    by field. Archives that are `unusable` have to be removed first.
    Of `looked_at` photos, `zoneless` have a time by a clock whose zone neither they nor the settings say.
    `needs` are settings without which it cannot be started, and `problems` say why.
    """

    tables: list[str]
    table: str | None
    understood: str
    columns: list[TableColumn]
    fields: list[str]
    photos: int
    missing: int
    missing_names: list[str]
    ambiguous: int
    ambiguous_names: list[str]
    unusable: list[UnusableArchive]
    there: int
    twice: int
    changed: int
    changes: dict[str, int]
    unlisted: int
    left_out: dict[str, int]
    cameras: list[str]
    labels: int
    looked_at: int
    zoneless: int
    needs: list[Need]
    problems: list[str]


class ImportZone(Strict):
    """The time zone in which the clocks of an import were; by default items are counted, and none is changed."""

    timezone: Zone
    dry_run: bool = Field(True, strict=True)


class ImportUndo(Strict):
    """Which of the edits of an import to take back."""

    batch_id: Name


class PhotosQuery(Strict):
    """A page of what became of photos; `became` leaves those of one kind, or of several."""

    became: list[PhotoBecame] = Field([], max_length=10)
    cursor: int = Field(0, ge=0, le=MAX_NUMBER)
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class ImportedPhoto(Answer, frozen=True):
    """What became of one photo, or a box in one; `item_id` is null where there is no item by now."""

    name: str
    became: PhotoBecame
    item_id: str | None
    detail: str


class ImportedPhotos(BaseModel):
    """A page of what became of photos, in the order in which they were read."""

    photos: list[ImportedPhoto]
    next_cursor: int | None


def settings_of(wanted: Mapping[str, Any]) -> ImportSettings:
    """The settings as they are kept."""
    return ImportSettings.model_validate(wanted)
