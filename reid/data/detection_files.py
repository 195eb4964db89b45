"""Files of detections as MegaDetector, COCO and YOLO write them, by content; `detections` gives photos their boxes."""

import json
import math
import os
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FORMS = "expected MegaDetector's JSON, COCO's JSON, or a folder of YOLO's text files"
NAMES = ("classes.txt", "obj.names")  # of categories, a line each, beside YOLO's files of photos


class Detection(NamedTuple):
    """A box as left, top, width and height, shares of the picture's sides, or pixels of `size` where that is `pixels`.

    `size` is the (width, height) of the picture it was drawn on, where that is said.
    """

    box: tuple[float, float, float, float]
    confidence: float | None = None
    category: str = ""
    pixels: bool = False
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Listing:
    """What a file says: who made it, the detections of each photo by its name there, categories, and boxes of crowds.

    None stands for a photo that the detector could not read.
    """

    kind: str
    origin: str
    photos: Mapping[str, list[Detection] | None]
    categories: Collection[str]
    crowds: int = 0


def read_listing(path: Path) -> Listing:
    """Read a JSON file of MegaDetector's or COCO's form; raises ValueError for any other, and FileNotFoundError."""
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); {FORMS}") from None
    images = said.get("images") if isinstance(said, dict) else None
    if not isinstance(images, list):
        results = isinstance(said, list) and bool(said) and isinstance(said[0], dict) and "image_id" in said[0]
        what = "COCO's results, which do not name photos" if results else "another JSON"
        raise ValueError(f"{path}: {what}; {FORMS}")
    if not images:
        raise ValueError(f"{path}: it lists no photo")
    kind = "COCO" if "annotations" in said else "MegaDetector"
    try:
        return _coco(said) if kind == "COCO" else _megadetector(said)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: not as {kind} writes it ({told}); {FORMS}") from None


def _megadetector(said: Mapping[str, Any]) -> Listing:
    categories, info = said.get("detection_categories") or {}, said.get("info") or {}
    photos: dict[str, list[Detection] | None] = {}
    for image in said["images"]:
        detections = None if image.get("failure") else image["detections"]
        photos[plain(image["file"])] = detections and [
            Detection(
                _four(one["bbox"]), float(one["conf"]), str(categories.get(str(one["category"]), one["category"]))
            )
            for one in detections
        ]
    return Listing(
        "MegaDetector", str(info.get("detector") or "MegaDetector"), photos, {*map(str, categories.values())}
    )


def _coco(said: Mapping[str, Any]) -> Listing:
    names = {one["id"]: str(one["name"]) for one in said.get("categories") or ()}
    by_id = {one["id"]: one for one in said["images"]}
    photos: dict[str, list[Detection]] = {plain(one["file_name"]): [] for one in said["images"]}
    crowds = 0
    for one in said["annotations"]:
        if not one.get("bbox"):  # a category of the whole photo
            continue
        if one.get("iscrowd"):
            crowds += 1
            continue
        image = by_id[one["image_id"]]
        size = (int(image["width"]), int(image["height"])) if image.get("width") and image.get("height") else None
        score = one.get("score")
        category = names.get(one.get("category_id"), str(one.get("category_id", "")))
        photos[plain(image["file_name"])].append(
            Detection(_four(one["bbox"]), None if score is None else float(score), category, pixels=True, size=size)
        )
    return Listing("COCO", "COCO", dict(photos), {*names.values()}, crowds)


def read_yolo(path: Path, names: Mapping[int, str]) -> list[Detection]:
    """The lines `class x y w h [confidence]` of a photo's text file: centre and sides, as shares of the picture's.

    Raises ValueError naming a line of another form.
    """
    detections = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        try:
            values = [float(cell) for cell in line.split()]
        except ValueError:
            values = [math.nan]
        if not values:
            continue
        if len(values) not in (5, 6) or not all(map(math.isfinite, values)):
            raise ValueError(
                f"{path} line {number}: found {line[:60]!r}, expected class x y w h, and perhaps a confidence; "
                "polygons and key points are to be exported as boxes"
            )
        kind, x, y, w, h = values[:5]
        if max(map(abs, (x, y, w, h))) > 2:
            raise ValueError(f"{path} line {number}: {line[:60]!r} are pixels, expected shares of the picture's sides")
        confidence = values[5] if len(values) == 6 else None
        detections.append(Detection((x - w / 2, y - h / 2, w, h), confidence, names.get(int(kind), f"{kind:g}")))
    return detections


def yolo_files(folder: Path) -> list[Path]:
    """The text files of photos below a folder; raises ValueError where there is none."""
    files = [path for path in sorted(folder.rglob("*.txt")) if path.name not in NAMES]
    if not files:
        raise ValueError(f"{folder}: no .txt file in it, {FORMS}")
    return files


def yolo_names(folder: Path) -> dict[int, str]:
    """The names of categories that lie beside labels or one or two folders above: data.yaml, or a line each.

    Raises ValueError for a data.yaml without them.
    """
    for place in (folder, *folder.absolute().parents[:2]):
        if (path := place / "data.yaml").is_file():
            try:
                names = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
                pairs = names.items() if isinstance(names, dict) else enumerate(names)
                return {int(number): str(name) for number, name in pairs}
            except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError):
                raise ValueError(f"{path}: no names of categories in it, expected such as names: [cat, dog]") from None
        for path in (place / name for name in NAMES):
            if path.is_file():
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                return {number: line.strip() for number, line in enumerate(lines)}
    return {}


def plain(name: str) -> str:
    """A path with slashes and composed letters, whatever system wrote it."""
    return unicodedata.normalize("NFC", os.fspath(name).replace("\\", "/")).removeprefix("./")


def _four(values: Any) -> tuple[float, float, float, float]:
    x, y, w, h = map(float, values) if len(values) == 4 else (math.nan,) * 4
    if not all(map(math.isfinite, (x, y, w, h))):
        raise ValueError(f"bbox {values!r}, expected four numbers")
    return x, y, w, h
