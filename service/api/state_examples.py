"""Examples of what an operator is told, for their description."""

from typing import Any

_DISK = {
    "free": 120_400_000_000,
    "total": 500_000_000_000,
    "warning": None,
    "room_for": 240_000,
    "parts": [
        {"name": "pictures", "files": 1245, "bytes": 560_250_000},
        {"name": "thumbnails", "files": 1245, "bytes": 14_940_000},
        {"name": "database", "files": 3, "bytes": 9_437_184},
        {"name": "index", "files": 0, "bytes": 0},
        {"name": "subjects", "files": 4, "bytes": 1_800_000},
        {"name": "imports", "files": 0, "bytes": 0},
        {"name": "backups", "files": 1247, "bytes": 9_440_000},
        {"name": "other", "files": 2, "bytes": 8_388_608},
    ],
    "within_database": {"vectors": 3_824_640, "changes": 1_230_000, "queries": 410_000},
}
_CALIBRATION = {
    "identities": 380,
    "queries": 2228,
    "gallery": 17_661,
    "gallery_identities": 1110,
    "false_alarm_rate": 0.01,
    "known_from": 0.61,
    "unknown_below": 0.42,
    "brier_score": 0.034,
    "calibration_error": 0.012,
}


def state_examples(model_id: str) -> dict[str, Any]:
    """By the name of the schema."""
    return {
        "Disk": _DISK,
        "ModelFacts": {
            "model_id": model_id,
            "name": "DCAL on vit_base",
            "source": "msmt17-vit_base-dcal",
            "checksum": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "trained_on": "msmt17",
            "epoch": 120,
            "image_size": [256, 128],
            "embedding_size": 1536,
            "features": "concat",
            "flip_test": False,
            "device": "cuda",
            "probabilities": "an evaluation on msmt17 with other individuals",
            "calibration": _CALIBRATION,
            "engine": {
                "name": "approximate",
                "how": "approximately, in 12 of 316 lists or more",
                "items": 100_000,
                "recall": 0.996,
            },
        },
    }
