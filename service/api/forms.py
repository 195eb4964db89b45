"""Forms that bring files."""

from datetime import tzinfo
from typing import Annotated, Any, Literal, Self

from fastapi import UploadFile
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import from_json

from service.api.json_depth import MAX_DEPTH, depth
from service.records import Box, Details
from service.settings import MAX_FILES
from service.wire.schemas import MAX_TOP_K, Metadata, Name, Strict, Wanted


def _from_one_field(values: list[str]) -> Any:
    """The JSON value of a form field, which arrives in a list because a list is what comes out."""
    if len(values) != 1:
        raise ValueError(f"expected one field with a JSON list, found {len(values)}")
    if (deep := depth(values[0].encode(errors="replace"))) > MAX_DEPTH:
        raise ValueError(f"the JSON is nested {deep:,} deep, expected at most {MAX_DEPTH}")
    try:
        return from_json(values[0])  # a box that is not finite is refused by itself
    except ValueError as error:
        raise ValueError(f"expected a JSON list ({error})") from None


def _require_box(text: str) -> str:
    if text and _box_of(text) is None:
        raise ValueError("expected a box as x,y,w,h in pixels of the upright picture, as 10,20,64,128")
    return text


def _box_of(text: str) -> Box | None:
    try:
        x, y, w, h = map(float, text.split(","))
    except ValueError:
        return None
    return x, y, w, h


_NUMBER = r"-?\d+(\.\d+)?"
_SCHEMA = {"pattern": f"^({_NUMBER}(,{_NUMBER}){{3}})?$", "examples": ["10,20,64,128"]}
BoxText = Annotated[str, Field(max_length=200, json_schema_extra=_SCHEMA), AfterValidator(_require_box)]


class QueryForm(Wanted):
    """A query: image files of one subject, one that is kept, or an enrolled item, and which items may be found.

    `box` has for each image the box x,y,w,h of the subject in pixels of the upright picture, or nothing for the whole;
    of an item it is measured in the whole photo.
    """

    image: list[UploadFile] = Field([])
    box: list[BoxText] = Field([], max_length=MAX_FILES)
    item_id: Name | None = None
    subject_id: Name | None = Field(None, description="photos that are kept, as `POST /v1/subjects` answered")
    top_k: int = Field(10, ge=1, le=MAX_TOP_K)
    min_score: float = Field(-1, ge=-1, le=1)
    group_by: Literal["none", "label", "identity"] = Field(
        "none", description="the best match alone stands for each label, or identity, which all its photos speak for"
    )

    @model_validator(mode="after")
    def _require_one_subject(self) -> Self:
        if [bool(self.image), bool(self.item_id), bool(self.subject_id)].count(True) != 1:
            raise ValueError(
                "expected image files in the field image, or item_id, or subject_id, and one alone of these"
            )
        photos = 1 if self.item_id else len(self.image)
        if self.box and len(self.box) != photos and not self.subject_id:
            raise ValueError(f"{len(self.box)} box fields for {photos} images, expected one for each or none")
        return self

    def boxes(self) -> list[Box | None]:
        """The box of each image, if it has one."""
        return [_box_of(text) for text in self.box] or [None] * (1 if self.item_id else len(self.image))


class SubjectForm(Strict):
    """Image files of one subject, to be kept for a while, and the box of it in each, or nothing for the whole."""

    image: list[UploadFile] = Field(min_length=1)
    box: list[BoxText] = Field([], max_length=MAX_FILES)

    @model_validator(mode="after")
    def _require_as_many(self) -> Self:
        if self.box and len(self.box) != len(self.image):
            raise ValueError(f"{len(self.box)} box fields for {len(self.image)} images, expected one for each or none")
        return self

    def boxes(self) -> list[Box | None]:
        """The box of each image, if it has one."""
        return [_box_of(text) for text in self.box] or [None] * len(self.image)


class ClassifyForm(Strict):
    """One or several image files, each of which is classified for itself."""

    image: list[UploadFile] = Field(min_length=1)
    top_k: int = Field(5, ge=1, le=MAX_TOP_K, description="the best classes of each")


class AttentionForm(Strict):
    """One image file, and the box x,y,w,h in pixels of the upright picture, if not the whole is meant."""

    image: UploadFile
    box: BoxText = ""

    def region(self) -> Box | None:
        """The box, if there is one."""
        return _box_of(self.box)


class EnrolForm(Strict):
    """Image files, and optionally what is said of them: a JSON list with an object for each, in their order.

    A photo with `boxes` in its object is enrolled as these boxes, each an item of its own, instead of as a whole.
    """

    images: list[UploadFile] = Field(min_length=1)
    metadata: (
        Annotated[
            Annotated[list[Metadata], Field(max_length=MAX_FILES)],
            BeforeValidator(_from_one_field),
            WithJsonSchema({"type": "string", "contentMediaType": "application/json"}),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _require_as_many(self) -> Self:
        if self.metadata is not None and len(self.metadata) != len(self.images):
            raise ValueError(f"metadata has {len(self.metadata)} objects for {len(self.images)} images")
        if (count := sum(map(len, self.parts()))) > MAX_FILES:
            raise ValueError(f"metadata has {count} boxes and whole photos, expected at most {MAX_FILES} in a request")
        return self

    def zones(self) -> list[tzinfo | None]:
        """Where the clock of each image's camera was, if that is said."""
        return [said.zone for said in self.metadata or [Metadata()] * len(self.images)]

    def parts(self) -> list[list[tuple[Details, Box | None]]]:
        """What of each image is to be enrolled, with what is said of it."""
        return [said.parts() for said in self.metadata or [Metadata()] * len(self.images)]
