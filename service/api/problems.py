"""Every refusal in one shape: problem details by RFC 9457."""

import logging
from asyncio import CancelledError
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic.json_schema import models_json_schema
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reid.data.images import UnknownFormat, UnusableImage
from service.gallery.batcher import Busy, Closed
from service.gallery.decoders import Left, OverBudget
from service.gallery.imports import UnusableFile
from service.records import (
    Caller,
    Conflict,
    IndexUnavailable,
    KeyTaken,
    ModelMismatch,
    NotFound,
    NotServed,
    ReviewLoading,
    UnusableBox,
    UnusableText,
)
from service.storage.inspection import RESTORE, DamagedDatabase
from service.wire.schemas import FieldError, FileError, Problem

log = logging.getLogger("reid")

MEDIA_TYPE = "application/problem+json"
REQUEST_ID = "X-Request-ID"
INDEX_SECONDS = 5  # after which to ask again a search index that was away, or a review that is being made ready
MAX_ERRORS = 20  # told of one request, which may have a million


class TooLarge(ValueError):
    """More bytes or more files than one request may bring."""


class Forbidden(ValueError):
    """More than the key of a request allows; the message names what."""


_CODES = {
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.UNAUTHORIZED: "unauthorized",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
}
_KEPT = {"allow", "retry-after", "www-authenticate"}  # headers, in small letters
_ERRORS: dict[type[Exception], tuple[HTTPStatus, str]] = {
    NotFound: (HTTPStatus.NOT_FOUND, "not_found"),
    NotServed: (HTTPStatus.NOT_FOUND, "not_served"),
    Conflict: (HTTPStatus.CONFLICT, "conflict"),
    KeyTaken: (HTTPStatus.CONFLICT, "conflict"),
    TooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large"),
    UnknownFormat: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unknown_format"),
    UnusableText: (HTTPStatus.UNPROCESSABLE_ENTITY, "unusable_text"),
    UnusableImage: (HTTPStatus.UNPROCESSABLE_ENTITY, "unusable_image"),
    OverBudget: (HTTPStatus.UNPROCESSABLE_ENTITY, "over_budget"),
    UnusableBox: (HTTPStatus.UNPROCESSABLE_ENTITY, "unusable_box"),
    UnusableFile: (HTTPStatus.UNPROCESSABLE_ENTITY, "unusable_file"),
    Forbidden: (HTTPStatus.FORBIDDEN, "forbidden"),
    ModelMismatch: (HTTPStatus.SERVICE_UNAVAILABLE, "model_mismatch"),
    IndexUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, "index_unavailable"),
    ReviewLoading: (HTTPStatus.SERVICE_UNAVAILABLE, "review_loading"),
    Busy: (HTTPStatus.SERVICE_UNAVAILABLE, "busy"),
    Closed: (HTTPStatus.SERVICE_UNAVAILABLE, "stopping"),
    Left: (HTTPStatus.REQUEST_TIMEOUT, "client_left"),  # for log and metrics: nobody is there to read it
}


def file_error(error: Exception, caller: Caller | None = None) -> FileError:
    """What one file of several is told; raises KeyError for an error that no client may cause."""
    status, code = _ERRORS[type(error)]
    return FileError(status=status, code=code, detail=_told(error, caller))


def _told(error: Exception, caller: Caller | None) -> str:
    """What an error says, but for what the caller may not know of."""
    return error.told(caller.sees) if isinstance(error, KeyTaken) and caller is not None else str(error)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of a route, for its description."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def pictures_as(*media_types: str) -> dict[str, Any]:
    """The answer that is a picture of one of some types, for the description of a route."""
    return {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}}


def install(app: FastAPI) -> None:
    """Have every refusal of `app` answered as a problem, and every answer carry the id of its request."""
    for kind in _ERRORS:
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OSError, _disk)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(_OneShape)
    describe = app.openapi

    def with_problems() -> dict[str, Any]:
        description = describe()
        _, models = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
        description["components"]["schemas"] |= models["$defs"]
        return description

    app.openapi = with_problems  # type: ignore[method-assign]


def problem(
    scope: Scope,
    status: int,
    code: str,
    detail: str,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer to a request that is refused, with those of the headers that say what to do about it."""
    request_id = scope["state"]["request_id"]
    scope["state"]["code"] = code  # for metrics and log
    told = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
        errors=errors or [],
    )
    kept = {name: value for name, value in (headers or {}).items() if name.lower() in _KEPT}
    return Response(told.model_dump_json(), status, {**kept, REQUEST_ID: request_id}, MEDIA_TYPE)


def _refused(request: Request, error: Exception) -> Response:
    status, code = _ERRORS[type(error)]
    away = isinstance(error, IndexUnavailable | ReviewLoading)
    seconds = error.retry_after if isinstance(error, Busy) else INDEX_SECONDS if away else None
    headers = None if seconds is None else {"Retry-After": str(seconds)}
    told = _told(error, getattr(request.state, "caller", None))
    return problem(request.scope, status, code, told, headers=headers)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        FieldError(field=_text(".".join(map(str, one["loc"]))), detail=_detail(one["msg"]))
        for one in error.errors()[:MAX_ERRORS]
    ]
    detail = "; ".join(f"{one.field}: {one.detail}" for one in errors)
    return problem(request.scope, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", detail, errors)


def _detail(message: str) -> str:
    if message.startswith("Value error, Expected UploadFile"):
        return "expected a file, as curl sends one with -F image=@photo.jpg"
    return message.removeprefix("Value error, ")


def _text(name: str) -> str:
    return name.encode(errors="replace").decode()  # JSON can name a field with half a surrogate pair


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _plain(request.scope, error.status_code, str(error.detail), error.headers)


def _plain(scope: Scope, status: int, detail: str, headers: Mapping[str, str] | None) -> Response:
    code = _CODES.get(HTTPStatus(status), "refused")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and (limit := scope.get(MAX_BODY_SIZE_SCOPE_KEY)):
        detail = f"the body of the request has more than {limit:,} bytes, which is all that it may"
    return problem(scope, status, code, detail, headers=headers)


def _disk(request: Request, error: Exception) -> Response:
    log.error("request %s: %s", request.state.request_id, error)
    damaged = isinstance(error, DamagedDatabase)
    why = f"the gallery's database is damaged; {RESTORE}" if damaged else "the gallery cannot be read or written now"
    detail = f"{why}; the log of the service says more"
    return problem(request.scope, HTTPStatus.SERVICE_UNAVAILABLE, "storage_failed", detail)


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("request %s failed: %s", request.state.request_id, type(error).__name__)  # the server logs the traceback
    detail = "the service failed; its log has more under the request_id"
    return problem(request.scope, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail)


class _OneShape:
    """Gives each request an id, and turns a refusal that a middleware wrote in another shape into a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope.setdefault("state", {})["request_id"] = uuid4().hex
        started = replaced = False

        async def shaped(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                headers = Headers(raw=message["headers"])
                if message["status"] >= 400 and headers.get("content-type") != MEDIA_TYPE:
                    replaced = True
                    detail = HTTPStatus(message["status"]).phrase
                    await _plain(scope, message["status"], detail, headers)(scope, receive, send)
                    return
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            if not replaced:
                await send(message)

        try:
            await self._app(scope, receive, shaped)
        except CancelledError:  # the service stops and has waited long enough, say for the rest of an upload
            if not started:
                detail = "the service stops, and the request took too long to wait for its end"
                await problem(scope, HTTPStatus.SERVICE_UNAVAILABLE, "stopping", detail)(scope, receive, send)
