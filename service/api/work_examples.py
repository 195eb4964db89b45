"""Examples of what goes over the wire of the work of people, for the description of the service."""

from typing import Any

_SUBJECT_ID = "2b7d9f1c3e5a4860b1d3f5a7c9e0b2d4"


def work_examples(item: dict[str, Any], refused: dict[str, Any]) -> dict[str, Any]:
    """By the name of the schema: what comes in and what goes out."""
    photo = {
        "index": 0,
        "filename": item["source"],
        "width": item["width"],
        "height": item["height"],
        "box": [120.0, 64.0, 96.0, 240.0],
        "image_url": f"/v1/subjects/{_SUBJECT_ID}/photos/0",
    }
    head = {
        "shortlist_id": "5e7a9c1b3d5f4720a6c8e0b2d4f61830",
        "name": "For Monday",
        "notes": "Is it Ada?",
        "items": 1,
        "created_at": "2025-03-01T09:30:00.123456Z",
        "changed_at": "2025-03-01T10:30:00.123456Z",
    }
    return {
        "ShortlistForm": {"name": "For Monday", "notes": "Is it Ada?", "item_ids": [item["item_id"]]},
        "ShortlistChanges": {"notes": "It is.", "entries": [{"item_id": item["item_id"], "note": "left ear torn"}]},
        "ShortlistAddition": {"item_ids": [item["item_id"]]},
        "ShortlistHeads": {"shortlists": [head]},
        "Shortlist": {**head, "entries": [{"item": item, "note": "left ear torn"}]},
        "SubjectForm": {"image": ["(the bytes of a photo)"], "box": ["120,64,96,240"]},
        "SubjectEnrolment": {"label": "ada", "camera": "gate", "boxes": [[120.0, 64.0, 96.0, 240.0]]},
        "Subject": {
            "subject_id": _SUBJECT_ID,
            "created_at": "2025-03-01T09:30:00.123456Z",
            "expires_at": "2025-03-08T09:30:00.123456Z",
            "photos": [photo],
            "refused": [{name: refused[name] for name in ("index", "filename", "error")}],
        },
    }
