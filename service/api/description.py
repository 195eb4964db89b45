"""What the OpenAPI description shows beside what routes and models say: summaries and examples."""

import json
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from reid.data.formats import READ
from service.api.import_examples import import_examples
from service.api.problems import MEDIA_TYPE
from service.api.review_examples import review_examples
from service.api.state_examples import state_examples
from service.api.work_examples import work_examples
from service.fields import FIELDS, LONGEST

_REQUEST_ID = "b51f0c2e6d8f4a7e9c3b1a5d7f9e0c2b"
_KEY_ID = "4f0c9a1be2d34c5f8a6b7c8d9e0f1a2b"
_ITEM_ID = "6a1d0c3f5b7e49d28c4f6a8b0d2e4f60"
_JOB_ID = "0d9b7f5e3c1a4e6f8a2c4e6d8b0f1a3c"
_MODEL_ID = "3f6a0c1d9b2e4857"
_CLASSIFIER_ID = "9c4e1f7a2b8d0536"

_SAID = {
    "label": "ada",
    "camera": "gate",
    "captured_at": "2025-03-01T09:30:00Z",
    "viewpoint": "left",
    "site": "north shore",
    "origin": "camera trap",
}
_FILTER = {"cameras": ["gate"], "from": "2025-03-01T00:00:00Z", "attributes.coat": ["red"]}
_TOLD = {"key": "visit-0412", **_SAID, "attributes": {"coat": "red"}}
_ITEM = {
    "item_id": _ITEM_ID,
    **_TOLD,
    "captured_precision": "second",
    "latitude": -28.0,
    "longitude": 32.1,
    "identity_id": "c2a4e6081b3d4f5a97c8e0d2f4a6b8c0",
    "source": "visit-0412.jpg",
    "media": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "box": [120, 64, 96, 240],
    "width": 640,
    "height": 480,
    "created_at": "2025-03-01T10:00:00.123456Z",
    "image_url": f"/v1/items/{_ITEM_ID}/image",
    "thumbnail_url": f"/v1/items/{_ITEM_ID}/thumbnail",
}
_MATCH = {
    **{name: _ITEM[name] for name in ("item_id", "key", "identity_id", "latitude", "longitude", "box", *_SAID)},
    "rank": 1,
    "score": 0.93,
    "probability": 0.97,
    "identity_probability": 0.95,
    "thumbnail_url": _ITEM["thumbnail_url"],
}
_BOX = {"box": [120, 64, 96, 240], "label": "ada", "key": "visit-0412"}
_BOXED = {"camera": "gate", "captured_at": "2025-03-01T09:30:00Z", "boxes": [_BOX, [300, 40, 88, 250]]}
_CREATED = {
    "index": 0,
    "filename": "visit-0412.jpg",
    "box": _BOX["box"],
    "result": "created",
    "item": _ITEM,
    "error": None,
}
_REFUSED = {
    "index": 1,
    "filename": "notes.txt",
    "box": None,
    "result": "error",
    "item": None,
    "error": {
        "status": 415,
        "code": "unknown_format",
        "detail": f"the file is no {READ} image, or its header is damaged",
    },
}
_CLASSIFIED = {
    "index": 0,
    "filename": "albatross.jpg",
    "predictions": [{"rank": 1, "class": "Black-footed Albatross", "probability": 0.91}],
    "error": None,
}
_UNUSABLE = {"index": 1, "filename": "notes.txt", "predictions": [], "error": _REFUSED["error"]}
_KEY = {
    "key_id": _KEY_ID,
    "name": "gate 3",
    "scopes": ["read"],
    "cameras": ["gate"],
    "requests_per_minute": 600,
    "created_at": "2025-03-01T09:30:00.123456Z",
    "revoked_at": None,
}
_JOB = {
    "job_id": _JOB_ID,
    "kind": "backup",
    "state": "done",
    "done": 7200,
    "total": 7200,
    "progress": 1.0,
    "result": {"folder": f"20250301T093000Z-{_JOB_ID}", "items": 1200, "bytes": 48000000},
    "error": None,
    "actor": _KEY_ID,
    "created_at": "2025-03-01T09:30:00.123456Z",
    "started_at": "2025-03-01T09:30:00.130000Z",
    "finished_at": "2025-03-01T09:30:04.500000Z",
}
_LOGGED = {"time": "2025-03-01T09:30:00.123456Z", "actor": _KEY_ID, "request_id": _REQUEST_ID}
_OPERATION = {
    "seq": 7,
    **_LOGGED,
    "batch_id": "8e6c4a2f0d1b4395a7b9c1d3e5f70819",
    "kind": "item.edit",
    "target": _ITEM_ID,
    "before": {"label": None, "camera": "gate"},
    "after": {"label": "ada", "camera": "gate"},
}
_LOGGED_QUERY = {
    "seq": 42,
    **_LOGGED,
    "images": ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    "item_id": None,
    "conditions": {"cameras": ["gate"], "top_k": 10, "min_score": -1, "group_by": "none"},
    "candidates": 1200,
    "matches": [{"item_id": _ITEM_ID, "score": 0.93}],
}

# What a query string can ask of attributes, whose names a model of it cannot list.
ATTRIBUTES_ASKED = [
    {
        "name": f"{spelled}.NAME",
        "in": "query",
        "required": False,
        "schema": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": LONGEST}},
        "description": f"{words} of these texts is that of the attribute NAME, which stands for any",
    }
    for field in FIELDS
    if field.kind == "attributes"
    for words, spelled in zip(("one", "none"), field.spelled, strict=True)
]

# By the name of the schema: first what comes in, then what goes out.
EXAMPLES: dict[str, dict[str, Any]] = {
    "QueryForm": {"item_id": _ITEM_ID, "top_k": 5, "cameras": ["gate"], "from": "2025-03-01T00:00:00Z"},
    "ClassifyForm": {"image": ["(the bytes of a photo)"], "top_k": 3},
    "AttentionForm": {"image": "(the bytes of a photo)"},
    "EnrolForm": {"images": ["(the bytes of a photo)"], "metadata": json.dumps([_BOXED])},
    "BoxesForm": {"boxes": _BOXED["boxes"]},
    "ItemChanges": {"label": "ada", "camera": None, "latitude": -28.0, "longitude": 32.1},
    "Deletion": {"filter": {"cameras": ["gate"], "to": "2025-01-01T00:00:00Z"}, "dry_run": False, "expected": 12},
    "ItemsEdit": {
        "filter": {"cameras": ["gate"]},
        "named": False,
        "shift_seconds": 3600,
        "dry_run": False,
        "expected": 12,
    },
    "EditUndo": {"batch_id": "8e6c4a2f0d1b4395a7b9c1d3e5f70819", "dry_run": True},
    "EditAnswer": {"dry_run": False, "items": 12, "changed": 9, "batch_id": "8e6c4a2f0d1b4395a7b9c1d3e5f70819"},
    "Days": {"days": [{"day": "2025-03-01", "items": 117}, {"day": "2025-03-04", "items": 8}]},
    "Erasure": {"item_ids": [_ITEM["item_id"]]},
    "Receipt": {
        "erased_at": "2025-06-01T12:00:00Z",
        "gallery": {
            "items": 1,
            "pictures": 1,
            "operations": 2,
            "queries": 3,
            "replies": 0,
            "decisions": 1,
            "labels": 1,
        },
        "backups": {"20250501T000000Z-nightly": {"items": 1, "pictures": 1, "operations": 2}},
        "not_reached": ["the logs that the service printed"],
    },
    "KeyForm": {name: _KEY[name] for name in ("name", "scopes", "cameras", "requests_per_minute")},
    "Credentials": {"key": "(the secret of a key)"},
    "QueryAnswer": {
        "model_id": _MODEL_ID,
        "took_ms": 41.7,
        "filter": _FILTER,
        "candidates": 1200,
        "verdict": "known",
        "identity_id": _ITEM["identity_id"],
        "identity_probability": 0.95,
        "matches": [_MATCH],
    },
    "EnrolAnswer": {"model_id": _MODEL_ID, "results": [_CREATED, _REFUSED]},
    "Item": _ITEM,
    "ItemPage": {"items": [_ITEM], "next_cursor": 117},
    "DeletionAnswer": {"dry_run": False, "items": 12, "job_id": None},
    "Cameras": {"cameras": [{"name": "gate", "items": 1200}, {"name": "yard", "items": 45}]},
    "Labels": {"labels": [{"name": "ada", "items": 31}, {"name": "bob", "items": 4}]},
    "Live": {"status": "live"},
    "Ready": {
        "status": "ready",
        "reasons": [],
        "model_id": _MODEL_ID,
        "items": 1245,
        "trained_on": "msmt17",
        "runtime": "torch",
        "classifier": {"model_id": _CLASSIFIER_ID, "classes": 200},
    },
    "ClassifyAnswer": {"model_id": _CLASSIFIER_ID, "took_ms": 38.2, "results": [_CLASSIFIED, _UNUSABLE]},
    "Classes": {"model_id": _CLASSIFIER_ID, "classes": ["Black-footed Albatross", "Laysan Albatross"]},
    "Session": {"actor": _KEY_ID, "scopes": ["read"], "cameras": ["gate"]},
    "Key": _KEY,
    "CreatedKey": {**_KEY, "secret": "(told this once)"},
    "KeyList": {"keys": [_KEY]},
    "Operation": _OPERATION,
    "OperationPage": {"operations": [_OPERATION], "next_cursor": None},
    "LoggedQuery": _LOGGED_QUERY,
    "QueryPage": {"queries": [_LOGGED_QUERY], "next_cursor": None},
    "Job": _JOB,
    "JobPage": {"jobs": [_JOB], "next_cursor": None},
    **review_examples(_ITEM, _JOB_ID, _KEY_ID, _MODEL_ID),
    **work_examples(_ITEM, _REFUSED),
    **import_examples(_ITEM, _JOB_ID),
    **state_examples(_MODEL_ID),
}
# By the status of a problem: its code, and what it tells.
_PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("bad_request", "There was an error parsing the body"),
    401: ("unauthorized", "no key was sent; expected one with scope 'read' as Authorization: Bearer KEY"),
    403: ("forbidden", "this needs a key with scope 'write'; the one that was sent has ['read']"),
    404: ("not_found", f"no item '{_ITEM_ID}'"),
    409: ("conflict", f"job {_JOB_ID} of kind backup is running already"),
    413: ("too_large", "visit-0412.jpg: 31,457,280 bytes, expected at most 20,971,520"),
    415: ("unknown_format", f"the file is no {READ} image, or its header is damaged"),
    422: ("invalid_request", "query.limit: Input should be a valid integer, unable to parse string as an integer"),
    429: ("too_many_requests", "the key allows 600 requests a minute; try again in 2 s"),
    503: ("busy", "256 jobs are waiting, which is all that may; try again in 2 s"),
}


def install(app: FastAPI) -> None:
    """Have the description of `app` show a summary of each operation, and examples of what comes in and goes out.

    Files are told in the words of OpenAPI 3.0 as well, which are those that makers of clients look for.
    """
    describe = app.openapi

    def with_examples() -> dict[str, Any]:
        description = describe()
        for name, schema in description["components"]["schemas"].items():
            if name in EXAMPLES:
                schema["examples"] = [EXAMPLES[name]]
            for field in schema.get("properties", {}).values():
                for told in (field, field.get("items", {})):
                    if told.get("contentMediaType") == "application/octet-stream":
                        told["format"] = "binary"
        for operations in description["paths"].values():
            for operation in operations.values():
                operation["summary"] = operation["description"].partition("\n")[0].removesuffix(".")
                for status, answer in operation["responses"].items():
                    if shown := answer.get("content", {}).get(MEDIA_TYPE):  # which several statuses may share
                        answer["content"] = {MEDIA_TYPE: {**shown, "example": _problem(int(status))}}
        return description

    app.openapi = with_examples  # type: ignore[method-assign]


def _problem(status: int) -> dict[str, Any]:
    code, detail = _PROBLEMS[status]
    where, _, what = detail.partition(": ")
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": _REQUEST_ID,
        "errors": [{"field": where, "detail": what}] if status == HTTPStatus.UNPROCESSABLE_ENTITY else [],
    }
