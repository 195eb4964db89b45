"""Examples of what is sent and answered about identities, questions and decisions, by the name of the schema."""

from typing import Any

_BATCH_ID = "8e6c4a2f0d1b4395a7b9c1d3e5f70819"
_QUESTION_ID = "1c3e5a7092b4d6f8a0c2e4f6180a2c4e"
_OTHER_ID = "7b2d0e4c6a8f41e3b5d7f9a1c3e50718"


def review_examples(item: dict[str, Any], job_id: str, key_id: str, model_id: str) -> dict[str, Any]:
    """The examples, over the same item as all others."""
    item_id, identity_id = item["item_id"], item["identity_id"]
    decision = {
        "number": 118,
        "decision_id": "5f7091a3b5c7d9e1f3052749b6d8f0a2",
        "question_id": _QUESTION_ID,
        "shown_at": "2025-03-02T09:00:00Z",
        "answered_at": "2025-03-02T09:00:04.250000Z",
        "actor": key_id,
        "request_id": "b51f0c2e6d8f4a7e9c3b1a5d7f9e0c2b",
        "batch_id": _BATCH_ID,
        "a": item_id,
        "b": _OTHER_ID,
        "answer": "same",
        "basis": "visual",
        "model_id": model_id,
        "score": 0.81,
        "probability": 0.74,
        "superseded": False,
    }
    side = {
        "item": item,
        "item_id": item_id,
        "identity_id": identity_id,
        "label": "ada",
        "size": 5,
        "pictures": [item_id],
    }
    question = {
        "question_id": _QUESTION_ID,
        "a": {"item": None, "item_id": _OTHER_ID, "identity_id": None, "label": None, "size": 1, "pictures": []},
        "b": side,
        "reason": "likely",
        "why": "they are likely to be the same, and the answer joins two groups or keeps them apart",
        "probability": 0.74,
        "score": 0.81,
        "leased_until": "2025-03-02T09:10:00Z",
    }
    pair = {"a": item_id, "b": _OTHER_ID}
    moved = {"former": None, "identity_id": identity_id, "items": 1, "item_ids": [_OTHER_ID]}
    identity = {
        "identity_id": identity_id,
        "name": "ada",
        "aliases": ["Ada"],
        "notes": "notch in the left ear",
        "attributes": {"sex": "female"},
        "merged_into": None,
        "photos": 31,
        "cover": item_id,
        "cover_url": item["thumbnail_url"],
        "first_seen": "2024-06-01T05:12:00Z",
        "last_seen": "2025-03-01T09:30:00Z",
        "cameras": ["gate", "yard"],
        "sites": ["north shore"],
    }
    dispute = {**pair, "identity_id": identity_id, "part": [_OTHER_ID], "weakest": [pair]}
    return {
        "ReviewForm": {"filter": {"cameras": ["gate"]}, "error": 0.01, "gold": 0.02, "burst": 10},
        "NextQuestion": {"question": question},
        "NeighboursForm": {"item_ids": [item_id], "count": 5, "filter": {"cameras": ["gate"]}},
        "Neighbours": {
            "model_id": model_id,
            "nearest": [
                {"item_id": item_id, "neighbours": [{"item_id": _OTHER_ID, "score": 0.81, "probability": 0.74}]}
            ],
        },
        "Question": question,
        "DecisionsForm": {"decisions": [{"question_id": _QUESTION_ID, "answer": "same"}], "dry_run": False},
        "UndoForm": {"batch_id": _BATCH_ID, "dry_run": False},
        "Step": {
            "batch_id": _BATCH_ID,
            "dry_run": False,
            "identity_id": identity_id,
            "decision_ids": [decision["decision_id"]],
            "moved": [moved],
            "conflicts": [],
            "similar": [],
        },
        "Decision": decision,
        "DecisionPage": {"decisions": [decision], "next_cursor": None},
        "Disputes": {"conflicts": [dispute]},
        "ReviewStatus": {
            "job_id": job_id,
            "model_id": model_id,
            "filter": {"cameras": ["north"]},
            "items": 1200,
            "answers": 310,
            "machine_joins": 84,
            "groups": 241,
            "identities": 60.7,
            "low": 58,
            "high": 64,
            "settled": 0.93,
            "questions_left": 120,
            "next_changes": 2.1,
            "conflicts": 0,
            "weak": False,
            "words": "the next 100 questions would change about 2 items",
        },
        "Identity": identity,
        "IdentityPage": {"identities": [identity], "total": 61, "next_cursor": None},
        "IdentityDetail": {
            **identity,
            "merged": [{"identity_id": _OTHER_ID, "name": "Ada"}],
            "items": [item],
            "decisions": [decision],
            "conflicts": [],
            "similar": [],
        },
        "IdentityForm": {"name": "ada", "item_ids": [item_id], "dry_run": False},
        "IdentityChanges": {"name": "ada", "notes": "notch in the left ear"},
        "MergeForm": {"into": identity_id, "dry_run": True},
        "SplitForm": {"item_ids": [item_id], "name": "eva", "dry_run": True},
        "UnmergeForm": {"dry_run": True},
    }
