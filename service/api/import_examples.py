"""Examples of what goes over the wire of imports, for the description of the service."""

from typing import Any

_IMPORT_ID = "7c9e1b3d5f704a26b8d0c2e4f6180a3c"
_BATCH_ID = "1f3d5b7c9e024a68b0d2c4e6f8a13579"


def import_examples(item: dict[str, Any], job_id: str) -> dict[str, Any]:
    """By the name of the schema: what comes in and what goes out."""
    settings = {
        "name": "Umfolozi, May",
        "timezone": "Africa/Johannesburg",
        "dates": "day-first",
        "camera_from": "folder",
        "table": "photos.csv",
        "columns": {"identity": "Animal"},
        "include": [],
        "exclude": ["*_thumb*"],
        "again": False,
        "update": True,
        "said": {"label": None, "camera": None, "site": "north shore", "captured_at": None},
    }
    file = {"name": "north/0412.jpg", "size": 3145728, "received": 1048576}
    refused = {"status": 422, "code": "unusable_file", "detail": "31,457,280 bytes, expected at most 20,971,520"}
    report = {
        "created": 117,
        "existing": 1,
        "updated": 2,
        "edited": 0,
        "differing": 0,
        "duplicate": 2,
        "deleted": 0,
        "failed": 1,
        "outage": 0,
    }
    one = {
        "import_id": _IMPORT_ID,
        "state": "done",
        "settings": settings,
        "files": 124,
        "bytes": 390070272,
        "files_received": 124,
        "bytes_received": 390070272,
        "job_id": job_id,
        "done": 123,
        "total": 123,
        "error": None,
        "report": {**report, "left_out": {".txt": 1}},
        "retryable": False,
        "edits": [{"batch_id": _BATCH_ID, "what": "update", "items": 2, "before": None, "undone": False}],
        "created_at": "2025-03-01T09:30:00.123456Z",
        "expires_at": "2025-03-08T09:34:00.123456Z",
    }
    columns = [
        {"heading": "File", "taken_for": "path", "samples": ["north/0412.jpg", "north/0413.jpg"]},
        {"heading": "Animal", "taken_for": "identity", "samples": ["ada", ""]},
        {"heading": "Coat", "taken_for": "", "samples": ["red", "grey"]},
    ]
    preview = {
        "tables": ["photos.csv"],
        "table": "photos.csv",
        "understood": "photos.csv: UTF-8 text with semicolons between cells; File as path, Animal as identity",
        "columns": columns,
        "fields": ["path", "key", "identity", "camera", "captured_at"],
        "photos": 124,
        "missing": 1,
        "missing_names": ["north/0999.jpg"],
        "ambiguous": 0,
        "ambiguous_names": [],
        "unusable": [],
        "there": 3,
        "twice": 2,
        "changed": 2,
        "changes": {"label": 2, "Coat": 1},
        "unlisted": 4,
        "left_out": {},
        "cameras": ["north", "south"],
        "labels": 31,
        "looked_at": 40,
        "zoneless": 12,
        "needs": ["timezone"],
        "problems": [],
    }
    became = {"name": "north/0412.jpg", "became": "created", "item_id": item["item_id"], "detail": ""}
    failed = {"name": "north/0413.jpg", "became": "failed", "item_id": None, "detail": "the image is damaged"}
    return {
        "ImportSettings": settings,
        "AnnouncedFiles": {"files": [{"name": file["name"], "size": file["size"]}]},
        "AnnouncedAnswers": {
            "files": [{**file, "error": None}, {"name": "big.jpg", "size": 31457280, "received": 0, "error": refused}]
        },
        "ReceivedFile": file,
        "ReceivedFiles": {"files": [file], "next_cursor": None},
        "Import": one,
        "ImportList": {"imports": [one]},
        "ImportPreview": preview,
        "ImportZone": {"timezone": "Africa/Johannesburg", "dry_run": False},
        "ImportUndo": {"batch_id": _BATCH_ID},
        "ImportedPhotos": {"photos": [became, failed], "next_cursor": None},
    }
