"""Files of a request: how much they may bring, and how many requests are at work on theirs."""

from fastapi import UploadFile

from service.api.problems import TooLarge
from service.settings import Settings

SOURCE_LENGTH = 255

# Requests of each kind at a time; others wait. Those that enrol have threads of their own, so that they never take all
# those of queries, of which there are more than photos in a batch, so that the model need not wait for the next.
QUERYING, ENROLLING = 128, 4


def read(file: UploadFile, settings: Settings) -> bytes:
    """The bytes of an uploaded file; raises TooLarge."""
    if (file.size or 0) > settings.max_upload_bytes:
        raise TooLarge(f"{source(file)}: {file.size:,} bytes, expected at most {settings.max_upload_bytes:,}")
    return file.file.read()


def source(file: UploadFile) -> str:
    """The end of the name that the sender gave the file."""
    return (file.filename or "")[-SOURCE_LENGTH:]
