"""What goes over the wire about keys, sessions, logs and jobs; as `schemas`, it imports neither torch nor fastapi."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from service.records import MAX_NAME, MAX_RATE, Caller, JobState, LogPart, NewKey, Scope
from service.records import Job as StoredJob
from service.records import Key as StoredKey
from service.records import Operation as StoredOperation
from service.records import Query as StoredQuery
from service.wire.schemas import MAX_NUMBER, MAX_PAGE, Time


class KeyForm(BaseModel):
    """A key to be made: scope `write` includes `read`, and `admin` includes both and sees all cameras."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=MAX_NAME)
    scopes: list[Scope] = Field(min_length=1, max_length=3)
    cameras: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None, min_length=1, max_length=1000, description="limit it to their items"
    )
    requests_per_minute: int | None = Field(None, strict=True, ge=1, le=MAX_RATE)

    def new_key(self) -> NewKey:
        """The same as the store takes it; raises ValueError for what contradicts itself."""
        cameras = None if self.cameras is None else frozenset(self.cameras)
        return NewKey(self.name, frozenset(self.scopes), cameras, self.requests_per_minute)

    @model_validator(mode="after")
    def _require_sound(self) -> Self:
        self.new_key()
        return self


class Key(BaseModel):
    """A key without its secret; `scopes` holds all that it allows."""

    key_id: str
    name: str
    scopes: list[Scope]
    cameras: list[str] | None
    requests_per_minute: int | None
    created_at: datetime
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: StoredKey) -> "Key":
        """The key of a record."""
        return Key(
            key_id=key.key_id,
            name=key.name,
            scopes=sorted(key.scopes),
            cameras=None if key.cameras is None else sorted(key.cameras),
            requests_per_minute=key.requests_per_minute,
            created_at=key.created_at,
            revoked_at=key.revoked_at,
        )


class CreatedKey(Key):
    """A new key with its secret, which is told this once."""

    secret: str


class KeyList(BaseModel):
    """All keys that were ever made."""

    keys: list[Key]


class Credentials(BaseModel):
    """The secret of a key."""

    model_config = ConfigDict(extra="forbid")

    key: SecretStr = Field(max_length=200)


class Session(BaseModel):
    """Who is asking: the id of a key, or `local` for this machine; `cameras` are those whose items it shows."""

    actor: str
    scopes: list[Scope]
    cameras: list[str] | None

    @classmethod
    def of(cls, caller: Caller) -> "Session":
        """What a caller may do."""
        cameras = None if caller.cameras is None else sorted(caller.cameras)
        return cls(actor=caller.actor, scopes=sorted(caller.scopes), cameras=cameras)


class LogQuery(BaseModel):
    """A page of a log, the newest entries first or the oldest: those beyond `cursor`, the `seq` of the last one seen.

    `actor` is who did it, and times are half open, `from` <= time < `to`.
    """

    model_config = ConfigDict(extra="forbid")

    cursor: int | None = Field(None, ge=0, le=MAX_NUMBER)
    limit: int = Field(100, ge=1, le=MAX_PAGE)
    order: Literal["newest", "oldest"] = "newest"
    actor: str | None = Field(None, max_length=200)
    since: Time | None = Field(None, alias="from")
    until: Time | None = Field(None, alias="to")

    def part(self) -> LogPart:
        """The same as a record, with one entry more, which tells whether there is another page."""
        return LogPart(self.cursor or None, self.limit + 1, self.order == "newest", self.actor, self.since, self.until)


class OperationQuery(LogQuery):
    """A page of the operation log; `kind` is one of its kinds, such as `item.edit`."""

    kind: str | None = Field(None, max_length=200)

    def part(self) -> LogPart:
        """The same as a record."""
        return super().part()._replace(kind=self.kind)


class Operation(BaseModel):
    """One change. Those that were made together share `batch_id`; `before` and `after` are null where nothing was."""

    seq: int
    time: datetime
    actor: str
    request_id: str
    batch_id: str
    kind: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @classmethod
    def of(cls, change: StoredOperation) -> Self:
        """The operation of a record."""
        return cls.model_validate(change, from_attributes=True)


class OperationPage(BaseModel):
    """Operations, the newest last; `next_cursor` is null on the last page."""

    operations: list[Operation]
    next_cursor: int | None


class Shown(BaseModel):
    """A match that was shown; the item may be gone by now."""

    item_id: str
    score: float


class LoggedQuery(BaseModel):
    """One query that was answered: `images` are the SHA-256 of the files that were sent, `conditions` its fields."""

    seq: int
    time: datetime
    actor: str
    request_id: str
    images: list[str]
    item_id: str | None
    conditions: dict[str, Any]
    candidates: int
    matches: list[Shown]

    @classmethod
    def of(cls, logged: StoredQuery) -> Self:
        """The query of a record."""
        asked = logged.asked
        return cls(
            seq=logged.seq,
            time=logged.time,
            actor=asked.cause.actor,
            request_id=asked.cause.request_id,
            images=list(asked.images),
            item_id=asked.item_id,
            conditions=dict(asked.conditions),
            candidates=asked.candidates,
            matches=[Shown(item_id=item_id, score=score) for item_id, score in asked.matches],
        )


class QueryPage(BaseModel):
    """Queries, the newest last; `next_cursor` is null on the last page."""

    queries: list[LoggedQuery]
    next_cursor: int | None


class JobQuery(BaseModel):
    """A page of the jobs: `cursor` is `next_cursor` of the page before."""

    model_config = ConfigDict(extra="forbid")

    cursor: int | None = Field(None, ge=0, le=MAX_NUMBER)
    limit: int = Field(100, ge=1, le=MAX_PAGE)


class Job(BaseModel):
    """Long work. `progress` is `done` of `total` steps, from 0 to 1; `error` says on one line why it failed."""

    job_id: str
    kind: str
    state: JobState
    done: int
    total: int | None
    progress: float | None
    result: dict[str, Any] | None
    error: str | None
    actor: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: StoredJob) -> Self:
        """The job of a record."""
        return cls(
            job_id=job.job_id,
            kind=job.kind,
            state=job.state,
            done=job.done,
            total=job.total,
            progress=1.0 if job.state == "done" else min(1.0, job.done / job.total) if job.total else None,
            result=None if job.result is None else dict(job.result),
            error=job.error,
            actor=job.actor,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class JobPage(BaseModel):
    """Jobs, the newest first; `next_cursor` is null on the last page."""

    jobs: list[Job]
    next_cursor: int | None


class Erasure(BaseModel):
    """Items to take every trace of away, by their public ids; those that were deleted before can be named, too."""

    model_config = ConfigDict(extra="forbid")

    item_ids: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=1000)]


class Receipt(BaseModel):
    """What an erasure removed, in numbers: from the gallery, and from each backup by the name of its folder."""

    erased_at: datetime
    gallery: dict[str, int]
    backups: dict[str, dict[str, int]]
    not_reached: list[str]
