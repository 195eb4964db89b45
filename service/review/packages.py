"""The catalogue of a gallery as a data package of camera traps (Camtrap DP 1.0.2)."""

import csv
import json
import mimetypes
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reid.data.cells import as_cells
from reid.files import write_text
from service.review.deployments import Deployment
from service.review.rows import Sighting

VERSION = "1.0.2"
SCHEMAS = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{VERSION}"
DEPLOYMENTS = ("deploymentID", "latitude", "longitude", "deploymentStart", "deploymentEnd", "cameraID")
MEDIA = ("mediaID", "deploymentID", "timestamp", "filePath", "filePublic", "fileName", "fileMediatype")
OBSERVATIONS = (
    *("observationID", "deploymentID", "mediaID", "eventStart", "eventEnd", "observationLevel", "observationType"),
    *("scientificName", "individualID", "bboxX", "bboxY", "bboxWidth", "bboxHeight", "classificationMethod"),
    *("classifiedBy", "classificationTimestamp", "classificationProbability"),
)


def write_package(
    folder: Path, rows: Iterable[Sighting], deployments: Sequence[Deployment], species: str, title: str
) -> tuple[int, int]:
    """Write `datapackage.json` and its three tables; returns how many items are in it, and how many are left out.

    Those left out have no time, or no camera of a deployment at that time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = _names(deployments)
    media: dict[str, dict[str, Any]] = {}
    observations: list[dict[str, Any]] = []
    left_out = 0
    for row in rows:
        item, time = row.item, row.item.details.captured_at
        stood = [
            name
            for name, one in names.items()
            if time is not None and one.camera == item.details.camera and one.start <= time <= one.end
        ]
        if time is None or not stood:
            left_out += 1
            continue
        name = Path(item.medium.source).name or f"{item.medium.sha256}.jpg"
        guessed = mimetypes.guess_type(name)[0] or ""
        media[item.medium.sha256] = {
            "mediaID": item.medium.sha256,
            "deploymentID": stood[0],
            "timestamp": _time(time),
            "filePath": f"media/{name.lstrip('.~') or item.medium.sha256}".replace("..", "_"),
            "filePublic": "false",
            "fileName": name,
            "fileMediatype": guessed if guessed.startswith("image/") else "image/jpeg",
        }
        observations.append({**_observation(row, stood[0], _time(time)), "scientificName": species})
    _write(folder / "deployments.csv", DEPLOYMENTS, [_deployment(name, one) for name, one in names.items()])
    _write(folder / "media.csv", MEDIA, list(media.values()))
    _write(folder / "observations.csv", OBSERVATIONS, observations)
    write_text(folder / "datapackage.json", json.dumps(_description(deployments, species, title), indent=2) + "\n")
    return len(observations), left_out


def _names(deployments: Sequence[Deployment]) -> dict[str, Deployment]:
    """Deployments by an id: that of the camera, with a number where it stood several times."""
    named: dict[str, Deployment] = {}
    for one in deployments:
        name, number = one.camera, 1
        while name in named:
            number += 1
            name = f"{one.camera}-{number}"
        named[name] = one
    return named


def _deployment(name: str, one: Deployment) -> dict[str, Any]:
    place = {"latitude": one.latitude, "longitude": one.longitude, "cameraID": one.camera}
    return {**place, "deploymentID": name, "deploymentStart": _time(one.start), "deploymentEnd": _time(one.end)}


def _observation(row: Sighting, deployment: str, time: str) -> dict[str, Any]:
    item, region = row.item, row.item.region
    told: dict[str, Any] = {
        "observationID": item.item_id,
        "deploymentID": deployment,
        "mediaID": item.medium.sha256,
        "eventStart": time,
        "eventEnd": time,
        "observationLevel": "media",
        "observationType": "animal",
        "individualID": row.individual,
    }
    if region is not None:
        width, height = item.medium.width, item.medium.height
        sides = region.x / width, region.y / height, region.w / width, region.h / height
        told |= zip(("bboxX", "bboxY", "bboxWidth", "bboxHeight"), (f"{side:.6f}" for side in sides), strict=True)
    if row.decided_by is not None and row.decided_at is not None:
        told["classificationMethod"] = "machine" if row.basis == "machine" else "human"
        told["classifiedBy"], told["classificationTimestamp"] = row.decided_by or "import", _time(row.decided_at)
        told["classificationProbability"] = f"{row.certainty:.4f}"
    return told


def _description(deployments: Sequence[Deployment], species: str, title: str) -> dict[str, Any]:
    places = [(one.longitude, one.latitude) for one in deployments]
    (west, south), (east, north) = map(min, zip(*places, strict=True)), map(max, zip(*places, strict=True))
    corners = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    start, end = min(one.start for one in deployments), max(one.end for one in deployments)
    return {
        "profile": f"{SCHEMAS}/camtrap-dp-profile.json",
        "created": _time(datetime.now(UTC)),
        "title": title,
        "contributors": [{"title": title, "role": "contact"}],
        "resources": [
            {
                "name": name,
                "path": f"{name}.csv",
                "profile": "tabular-data-resource",
                "format": "csv",
                "mediatype": "text/csv",
                "encoding": "utf-8",
                "schema": f"{SCHEMAS}/{name}-table-schema.json",
            }
            for name in ("deployments", "media", "observations")
        ],
        "project": {
            "title": title,
            "samplingDesign": "opportunistic",
            "captureMethod": ["activityDetection"],
            "individualAnimals": True,
            "observationLevel": ["media"],
        },
        "spatial": {"type": "Polygon", "coordinates": [corners]},
        "temporal": {"start": f"{start.date()}", "end": f"{end.date()}"},
        "taxonomic": [{"scientificName": species}],
    }


def _time(time: datetime) -> str:
    return time.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _write(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(map(as_cells, rows))
