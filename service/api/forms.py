"""Forms that bring files."""

from typing import Annotated, Any, Literal, Self

from fastapi import UploadFile
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import from_json

from service.records import Details
from service.settings import MAX_FILES
from service.wire.schemas import MAX_TOP_K, Conditions, Metadata, Name, Strict


def _from_one_field(values: list[str]) -> Any:
    """The JSON value of a form field, which arrives in a list because a list is what comes out."""
    if len(values) != 1:
        raise ValueError(f"expected one field with a JSON list, found {len(values)}")
    try:
        return from_json(values[0], allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"expected a JSON list ({error})") from None


class QueryForm(Conditions):
    """A query: one or several image files of one subject, or an enrolled item, and which items may be found."""

    image: list[UploadFile] = Field([])
    item_id: Name | None = None
    top_k: int = Field(10, ge=1, le=MAX_TOP_K)
    min_score: float = Field(-1, ge=-1, le=1)
    group_by: Literal["none", "label"] = Field("none", description="label: the best match alone stands for each label")

    @model_validator(mode="after")
    def _require_one_subject(self) -> Self:
        if bool(self.image) == bool(self.item_id):
            raise ValueError("expected image files in the field image, or item_id, and not both")
        return self


class ClassifyForm(Strict):
    """One or several image files, each of which is classified for itself."""

    image: list[UploadFile] = Field(min_length=1)
    top_k: int = Field(5, ge=1, le=MAX_TOP_K, description="the best classes of each")


class AttentionForm(Strict):
    """One image file."""

    image: UploadFile


class EnrolForm(Strict):
    """Image files, and optionally what is said of them: a JSON list with an object for each, in their order."""

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
        return self

    def details(self) -> list[Details]:
        """What is said of each image."""
        return [said.details() for said in self.metadata or [Metadata()] * len(self.images)]
