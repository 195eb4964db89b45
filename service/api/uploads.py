"""Bodies of requests: how much they may bring, and how many requests are at work on theirs."""

from fastapi import Request, UploadFile
from fastapi.exceptions import RequestValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import TooLarge, problem
from service.settings import Settings

SOURCE_LENGTH = 255
MAX_JSON = 2**20  # bytes of a body without files, which is read at once and may take 25 times the memory

# Requests of each kind at a time; others wait. Those that enrol have threads of their own, so that they never take all
# those of queries, of which there are more than photos in a batch, so that the model need not wait for the next.
QUERYING, ENROLLING = 128, 4


def read(file: UploadFile, settings: Settings) -> bytes:
    """The bytes of an uploaded file; raises TooLarge."""
    if (file.size or 0) > settings.max_upload_bytes:
        raise TooLarge(f"{source(file)}: {file.size:,} bytes, expected at most {settings.max_upload_bytes:,}")
    return file.file.read()


def refuse_query(request: Request) -> None:
    """Refuse fields in the address of a request that has a form: a filter there would be ignored.

    Raises RequestValidationError.
    """
    if names := sorted(set(request.query_params)):
        wrong = {"type": "extra_forbidden", "msg": "expected in the form, not in the address"}
        raise RequestValidationError([{**wrong, "loc": ("query", name), "input": None} for name in names])


def source(file: UploadFile) -> str:
    """The end of the name that the sender gave the file."""
    return (file.filename or "")[-SOURCE_LENGTH:]


class Utf8Forms:
    """Refuses multipart forms that declare another charset than UTF-8, before their body is read.

    Python would decode their fields by any codec it has: punycode takes 12 s for 1 MB, and others make text that cannot
    be stored.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = Headers(scope=scope).get("content-type") if scope["type"] == "http" else None
        kind, options = parse_options_header(declared)
        charset = options.get(b"charset", b"utf-8").lower()
        if kind.startswith(b"multipart/") and charset not in (b"utf-8", b"utf8"):
            detail = f"charset {charset.decode('latin-1')!r}: expected a form in UTF-8"
            await problem(scope, 400, "bad_request", detail)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
