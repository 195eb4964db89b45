"""The tables of a gallery, as queries name them; `migrations` makes them.

Times are microseconds since 1970, UTC. A `number` is internal and never used again; an `..._id` is public and opaque.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData()


def _text(name: str, *more: ForeignKey, **options: Any) -> Column[str]:
    # Compared by code points, as SQLite does, so that lists are sorted alike.
    return Column(name, Text(collation="C"), *more, **{"nullable": False, **options})


def _number(name: str, *more: ForeignKey | Identity, **options: Any) -> Column[int]:
    return Column(name, BigInteger, *more, **{"nullable": False, **options})


gallery = Table("gallery", metadata, _text("gallery_id"))  # one row

models = Table(
    "models",
    metadata,
    _text("model_id", primary_key=True),
    _number("dimension"),
    _text("description"),  # JSON
    _number("created_at"),
)

spaces = Table(
    "spaces",
    metadata,
    _text("space", primary_key=True),  # a kind of vectors
    _text("model_id", ForeignKey("models.model_id")),  # the active one
)

media = Table(
    "media",
    metadata,
    _number("number", Identity(), primary_key=True),
    _text("sha256", unique=True),
    _text("kind"),
    _number("width"),
    _number("height"),
    _number("captured_at", nullable=True),
    _text("source"),
    _number("retention_until", nullable=True),
    _text("copy_sha256", nullable=True),  # of the kept copy, whose name is the SHA-256 of what was sent
)

identities = Table(
    "identities",
    metadata,
    _number("number", Identity(), primary_key=True),
    _text("identity_id", unique=True),
    _text("name", unique=True, nullable=True),
    _text("aliases"),  # JSON list
    _text("attributes"),  # JSON
    _text("state"),
    _number("merged_into", ForeignKey("identities.number"), nullable=True),
    _text("notes", server_default=text("''")),
    _text("anchor", nullable=True, index=True),  # the public id of an item, which may be gone: the group of it
)

items = Table(
    "items",
    metadata,
    _number("number", Identity(), primary_key=True),
    _text("item_id", unique=True),
    _number("media_number", ForeignKey("media.number"), index=True),
    _text("key", unique=True, nullable=True),
    _number("identity_number", ForeignKey("identities.number"), nullable=True, index=True),
    _text("identity_source", nullable=True),  # human, machine or import
    _text("camera", nullable=True, index=True),
    _number("captured_at", nullable=True),
    _text("captured_precision", nullable=True),  # and the offset of the clock, as in "second +0200"
    _text("viewpoint", nullable=True),
    _text("site", nullable=True),
    Column("latitude", Double),
    Column("longitude", Double),
    Column("quality", Double),
    _text("attributes"),  # JSON
    _text("box", nullable=True),  # JSON, in pixels of the upright picture
    _number("frame", nullable=True),
    _text("track_id", nullable=True),
    _text("origin", nullable=True),
    _number("created_at"),
)
Index(
    "one_item_of_a_region",
    items.c.media_number,
    text("coalesce(box, '')"),
    text("coalesce(frame, -1)"),
    unique=True,
)

vectors = Table(
    "vectors",
    metadata,
    _text("owner_kind", primary_key=True),
    _number("owner_number", primary_key=True, autoincrement=False),
    _text("model_id", ForeignKey("models.model_id"), primary_key=True),
    _text("space", primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float32, little endian
    _number("checksum", nullable=True),  # CRC-32 of it
)

operations = Table(
    "operations",
    metadata,
    _number("seq", Identity(), primary_key=True),
    _number("time"),
    _text("actor"),
    _text("request_id"),
    _text("batch_id"),
    _text("kind"),
    _text("target"),
    _text("before", nullable=True),  # JSON
    _text("after", nullable=True),  # JSON
)

keys = Table(
    "keys",
    metadata,
    _number("number", Identity(), primary_key=True),
    _text("key_id", unique=True),
    _text("name"),
    _text("sha256", unique=True),  # of the secret, which is kept nowhere
    _text("scopes"),  # JSON list
    _text("cameras", nullable=True),  # JSON list; null: all
    _number("requests_per_minute", nullable=True),  # null: no limit
    _number("created_at"),
    _number("revoked_at", nullable=True),
)

jobs = Table(
    "jobs",
    metadata,
    _number("number", Identity(), primary_key=True),
    _text("job_id", unique=True),
    _text("kind"),
    _text("parameters"),  # JSON
    _text("state"),  # queued, running, done, failed or cancelled
    _text("cursor", nullable=True),  # JSON: where to go on after a kill
    _number("done", server_default=text("0")),
    _number("total", nullable=True),
    _text("result", nullable=True),  # JSON
    _text("error", nullable=True),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    _number("leased_until", nullable=True),
    _text("actor"),
    _text("request_id"),
    _number("created_at"),
    _number("started_at", nullable=True),
    _number("finished_at", nullable=True),
)
Index("one_open_job_of_a_kind", jobs.c.kind, unique=True, postgresql_where=jobs.c.state.in_(["queued", "running"]))

queries = Table(
    "queries",
    metadata,
    _number("seq", Identity(), primary_key=True),
    _number("time"),
    _text("actor"),
    _text("request_id"),
    _text("asked"),  # JSON: the SHA-256 of the images, or the item
    _text("conditions"),  # JSON
    _number("candidates"),
    _text("matches"),  # JSON list of public ids and scores
)

replies = Table(
    "replies",
    metadata,
    _text("actor", primary_key=True),
    _text("idempotency_key", primary_key=True),
    _text("request_sha256"),
    _text("reply"),  # JSON
    _number("created_at"),
)

indexes = Table(
    "indexes",
    metadata,
    _text("collection", primary_key=True),
    _text("model_id"),
    _number("filled", nullable=True),
    _number("cursor"),
)

secrets = Table("secrets", metadata, _text("name", primary_key=True), _text("value"))

# What was deleted and not enrolled again, by keyed hashes, so that nobody learns from them what was there.
tombstones = Table(
    "tombstones",
    metadata,
    _text("crop", primary_key=True),
    _text("photo", index=True),
    _text("box", nullable=True),
    _number("frame", nullable=True),
    _number("deleted_at"),
)

decisions = Table(
    "decisions",
    metadata,
    _number("number", Identity(), primary_key=True),
    _text("decision_id", unique=True),
    _text("question_id", nullable=True, index=True),
    _number("shown_at", nullable=True),
    _number("answered_at"),
    _text("actor"),
    _text("request_id"),
    _text("batch_id", index=True),
    _text("a", index=True),  # the public ids of items, which may be gone
    _text("b", index=True),
    _text("answer"),
    _text("basis"),
    _text("expected", nullable=True),  # the answer known before, of a gold question
    _text("model_id", nullable=True),
    Column("score", Double),
    Column("probability", Double),
    _text("evidence", nullable=True),  # JSON
    _number("supersedes", ForeignKey("decisions.number"), nullable=True, unique=True),
)

shortlists = Table(
    "shortlists",
    metadata,
    _number("number", Identity(), primary_key=True),
    _text("shortlist_id", unique=True),
    _text("name"),
    _text("notes"),
    _text("cameras", nullable=True),  # JSON list: those that its maker sees; null: all
    _text("entries"),  # JSON list of pairs, an item's public id and a note, in their order
    _number("created_at"),
    _number("changed_at"),
)

questions = Table(
    "questions",
    metadata,
    _text("question_id", primary_key=True),
    _text("a"),
    _text("b"),
    _text("actor"),
    _number("shown_at"),
    _number("leased_until", index=True),
    _text("reason"),
    _text("expected", nullable=True),
    _text("model_id"),
    Column("score", Double),
    Column("probability", Double),
    _text("evidence"),  # JSON
)
