"""Embeddings of a query and a gallery set, and the file they are stored in."""

import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from reid.data.images import read_image
from reid.files import write_whole

Integers = npt.NDArray[np.int64]
log = logging.getLogger("reid")

SPLITS = ("query", "gallery")
LABELS = ("ids", "cameras", "sequences")


def _none() -> Integers:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Features:
    """Embeddings of a query and a gallery set: (Q, E) and (G, E) real with identities, cameras and image paths.

    Camera -1 is unknown. Where they are not known at all, paths and sequences are empty; so are boxes, (n, 4) int64 of
    x, y, width and height in pixels, where images are used whole.
    """

    query: np.ndarray
    query_ids: Integers
    query_cameras: Integers
    gallery: np.ndarray
    gallery_ids: Integers
    gallery_cameras: Integers
    query_paths: tuple[str, ...] = ()
    gallery_paths: tuple[str, ...] = ()
    query_sequences: Integers = field(default_factory=_none)
    gallery_sequences: Integers = field(default_factory=_none)
    query_boxes: Integers = field(default_factory=_none)
    gallery_boxes: Integers = field(default_factory=_none)

    def groups(self, junk: Literal["camera", "sequence", "none"]) -> tuple[Integers, Integers]:
        """What a gallery image must share with a query of its identity to be junk, (Q,) and (G,), -1 for nothing.

        A query of which nothing is known to share, and whose own picture is in the gallery too, shares a group with it
        alone, so that it does not find itself. Raises ValueError for `sequence` where sequences are not known.
        """
        query, gallery = self._known_groups(junk)
        pictures, found = self._pictures("query"), self._pictures("gallery")
        both = set(pictures) & set(found)
        free = 1 + int(max(query.max(initial=-1), gallery.max(initial=-1)))
        own = {picture: free + number for number, picture in enumerate(sorted(both))}
        for groups, names in ((query, pictures), (gallery, found)) if both else ():
            alone = [own.get(name, -1) for name in names]
            groups[groups == -1] = np.array(alone, np.int64)[groups == -1]
        return query, gallery

    def queries_in_gallery(self) -> int:
        """How many queries are the very picture, by path and box, that is in the gallery too."""
        found = set(self._pictures("gallery"))
        return sum(picture in found for picture in self._pictures("query"))

    def gallery_beside_queries(self) -> Integers:
        """The rows of the gallery whose picture, by path and box, is no query's; all where paths are not known."""
        asked = set(self._pictures("query"))
        own = [picture in asked for picture in self._pictures("gallery")] or [False] * len(self.gallery)
        return np.flatnonzero(~np.array(own, bool))

    def _pictures(self, split: Literal["query", "gallery"]) -> list[tuple[Any, ...]]:
        """Path and box of each row, none where paths are not known."""
        paths, boxes = getattr(self, f"{split}_paths"), getattr(self, f"{split}_boxes")
        return [(path, *(boxes[row].tolist() if len(boxes) else ())) for row, path in enumerate(paths)]

    def _known_groups(self, junk: Literal["camera", "sequence", "none"]) -> tuple[Integers, Integers]:
        if junk == "none":
            return np.full(len(self.query), -1), np.full(len(self.gallery), -1)
        if junk == "camera":
            return self.query_cameras.copy(), self.gallery_cameras.copy()
        if not len(self.query_sequences) or not len(self.gallery_sequences):
            raise ValueError(
                "junk=sequence: sequences are not known here; expected a column `sequence` in the CSV file, or "
                "query_sequences and gallery_sequences beside stored features"
            )
        return self.query_sequences.copy(), self.gallery_sequences.copy()

    def picture(self, split: Literal["query", "gallery"], index: int, *, profiles: bool = True) -> Image.Image:
        """Read the image of a row, cropped to its box; raises, and takes `profiles`, as `read_image` does."""
        boxes = getattr(self, f"{split}_boxes")
        box = boxes[index].tolist() if len(boxes) and boxes[index][2] > 0 else None
        return read_image(getattr(self, f"{split}_paths")[index], tuple(box) if box else None, profiles=profiles)

    def save(self, path: Path) -> None:
        """Write the `.npz` whose keys docs/evaluation.md documents."""
        arrays: dict[str, np.ndarray] = {}
        for split in SPLITS:
            arrays[f"{split}_features"] = getattr(self, split)
            for name in (*LABELS, "boxes"):
                values = getattr(self, f"{split}_{name}")
                if len(values):
                    arrays[f"{split}_{name}"] = values
            arrays[f"{split}_paths"] = np.array(getattr(self, f"{split}_paths"), dtype=str)

        def write(temporary: Path) -> None:
            with open(temporary, "wb") as file:  # given a name, numpy would add .npz to it
                np.savez(file, allow_pickle=False, **arrays)

        write_whole(path, write)

    @classmethod
    def load(cls, path: Path) -> "Features":
        """Read a features file, or a folder with one `.npy` a key, whose features stay on disk.

        Identities, cameras and sequences may be integers or text, which is numbered. Without cameras they are unknown.
        Raises FileNotFoundError, or ValueError naming what is missing, damaged or of the wrong length.
        """
        arrays = _read(path)
        needed = [f"{split}_{part}" for split in SPLITS for part in ("features", "ids")]
        missing = [name for name in needed if name not in arrays]
        if missing:
            raise ValueError(f"features {path}: missing {', '.join(missing)}; found {', '.join(arrays) or 'nothing'}")
        known = [f"{split}_{part}" for split in SPLITS for part in ("features", *LABELS, "boxes", "paths")]
        strange = [name for name in arrays if name not in known]
        if strange:
            log.warning("warning: features %s: %s not read; known are %s", path, ", ".join(strange), ", ".join(known))
        for name in set(known) & set(arrays):
            dimensions = 2 if name.endswith(("features", "boxes")) else 1
            if arrays[name].ndim != dimensions or (name in needed and not len(arrays[name])):
                raise ValueError(
                    f"features {path}: {name} has shape {arrays[name].shape}; expected {dimensions} dimensions and rows"
                )
            if name.endswith("paths") and len(arrays[name]) and arrays[name].dtype.kind != "U":
                raise ValueError(f"features {path}: {name} is of type {arrays[name].dtype}; expected text")
        values: dict[str, Any] = {split: arrays[f"{split}_features"] for split in SPLITS}
        for name in (*LABELS, "boxes", "paths"):
            present = [split for split in SPLITS if len(arrays.get(f"{split}_{name}", ()))]
            for split in present:
                rows, expected = len(arrays[f"{split}_{name}"]), len(values[split])
                if rows != expected:
                    raise ValueError(f"features {path}: {split}_{name} has {rows} rows, {split}_features {expected}")
            if name == "paths":
                values |= {f"{split}_paths": tuple(arrays[f"{split}_paths"].tolist()) for split in present}
            elif len(present) == len(SPLITS):
                both = [arrays[f"{split}_{name}"] for split in SPLITS]
                numbered = both if name == "boxes" else _number(both, f"features {path}: {name}")
                values |= {f"{split}_{name}": part for split, part in zip(SPLITS, numbered, strict=True)}
            elif present:
                lacking = next(split for split in SPLITS if split not in present)
                raise ValueError(f"features {path}: missing {lacking}_{name}, while {present[0]}_{name} is there")
        values |= {
            f"{split}_cameras": np.full(len(values[split]), -1) for split in SPLITS if f"{split}_cameras" not in values
        }
        return cls(**values)


def _read(path: Path) -> Mapping[str, np.ndarray]:
    if not path.exists():
        raise FileNotFoundError(f"features {path}: no such file or folder")
    try:
        if path.is_dir():
            return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise ValueError("a single array; expected several, by name")
        with stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError, TypeError) as error:
        raise ValueError(f"features {path}: cannot be read as .npz or .npy ({' '.join(str(error).split())})") from error


def _number(both: list[np.ndarray], what: str) -> list[Integers]:
    """Labels of the two splits as integers: as they are, or text numbered."""
    if all(part.dtype.kind in "iu" for part in both):
        return [part.astype(np.int64) for part in both]
    if any(part.dtype.kind != "U" for part in both):
        raise ValueError(f"{what} are of type {', '.join(str(part.dtype) for part in both)}; expected integers or text")
    numbers = number_labels(np.concatenate(both))
    return [numbers[: len(both[0])], numbers[len(both[0]) :]]


def number_labels(text: npt.NDArray[np.str_]) -> Integers:
    """Number text (n,) from 0 in sorted order; empty text is -1, unknown."""
    return np.unique(np.append(text, ""), return_inverse=True)[1][:-1] - 1  # the empty text sorts first
