"""What goes over the wire of the work of people: subjects that they search for, and shortlists."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from service.wire.schemas import (
    MAX_BOXES,
    MAX_PAGE,
    Answer,
    Box,
    FileError,
    Item,
    ItemMetadata,
    Name,
    Strict,
)

MAX_ENTRIES = 10_000  # of a shortlist
Notes = Annotated[str, Field(max_length=10_000)]


class SubjectPhoto(Answer, frozen=True):
    """One photo of a subject, by its place; `box` is the part of it that is meant."""

    index: int
    filename: str
    width: int
    height: int
    box: Box | None
    image_url: str


class RefusedPhoto(Answer, frozen=True):
    """A file that could not be used, by its place in the request, and why; the others are kept."""

    index: int
    filename: str
    error: FileError


class Subject(Answer, frozen=True):
    """What somebody searches for, kept until `expires_at`; `refused` are files of the request that made it."""

    subject_id: str
    created_at: datetime
    expires_at: datetime
    photos: list[SubjectPhoto]
    refused: list[RefusedPhoto] = Field([])


class SubjectEnrolment(ItemMetadata):
    """What is said of a subject that is enrolled, the same of all its photos.

    `boxes` has for each photo its box, or null for the whole; by default they are those of the subject.
    """

    boxes: Annotated[list[Box | None], Field(min_length=1, max_length=MAX_BOXES)] | None = None


class ShortlistForm(Strict):
    """A shortlist to be made, of some items or of none."""

    name: Name
    notes: Notes = ""
    item_ids: list[Name] = Field([], max_length=MAX_ENTRIES)


class ShortlistEntry(Strict):
    """An item, and what is said of it."""

    item_id: Name
    note: Notes = ""


class ShortlistChanges(Strict):
    """What to change; `entries` take the place of all there were, in their order."""

    name: Name | None = None
    notes: Notes | None = None
    entries: list[ShortlistEntry] | None = Field(None, max_length=MAX_ENTRIES)

    @model_validator(mode="after")
    def _require_each_once(self) -> Self:
        ids = [entry.item_id for entry in self.entries or ()]
        if len(set(ids)) < len(ids):
            raise ValueError("an item is there twice")
        return self


class ShortlistAddition(Strict):
    """Items to put at the end of a shortlist, but for those that are in it."""

    item_ids: list[Name] = Field(min_length=1, max_length=MAX_PAGE)


class ShortlistedItem(Answer, frozen=True):
    """An item of a shortlist, and what is said of it there."""

    item: Item
    note: str


class ShortlistHead(Answer, frozen=True):
    """A shortlist without its items, of which `items` are there and shown to whoever asks."""

    shortlist_id: str
    name: str
    notes: str
    items: int
    created_at: datetime
    changed_at: datetime


class ShortlistHeads(BaseModel):
    """All shortlists, the one that was changed last first."""

    shortlists: list[ShortlistHead]


class Shortlist(ShortlistHead, frozen=True):
    """A shortlist with its items, in its order; those that were deleted are left out."""

    entries: list[ShortlistedItem]
