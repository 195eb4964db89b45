"""What a service writes to standard error: lines for people, or a JSON object on each line for programs."""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal

# What a record's `extra` may add to its line. Nothing else is written, so that no header or key gets in by mistake.
FIELDS = ("request_id", "actor", "method", "path", "status", "ms", "code")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(format: Literal["text", "json"]) -> None:
    """Write all that the process logs to standard error, at INFO for the service and WARNING for the rest.

    `json` has a line for each request too; `text` is for a terminal.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if format == "json" else _Text())
    for name in ("reid", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
    logging.getLogger().handlers = [handler]
    logging.getLogger("reid").setLevel(logging.INFO)
    logging.getLogger("reid.access").setLevel(logging.INFO if format == "json" else logging.WARNING)
    logging.captureWarnings(format == "json")


class _Text(logging.Formatter):
    """The message; control characters in it are escaped, so that one message is one line. Tracebacks follow."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub(lambda found: repr(found[0])[1:-1], super().formatMessage(record))


class _JsonLines(logging.Formatter):
    """One JSON object, in ASCII, with time, level, logger, message, the `FIELDS` that are known, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
