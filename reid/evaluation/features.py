"""Embeddings of a query and a gallery set, and the file they are stored in."""

import logging
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from reid.data.images import read_image
from reid.data.overlap import number_copies
from reid.data.preprocessing import AS_SHOWN, Decoding
from reid.data.samples import ReidDataset
from reid.files import require_content, write_whole
from reid.retrieval.labels import number_groups, number_identities

Integers = npt.NDArray[np.int64]
log = logging.getLogger("reid")

SPLITS = ("query", "gallery")
LABELS = ("ids", "cameras", "sequences", "contents")


def _none() -> Integers:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Features:
    """Embeddings of a query and a gallery set: (Q, E) and (G, E) real with identities, cameras and image paths.

    Camera -1 is unknown. Where they are not known at all, paths and sequences are empty; so are boxes, (n, 4) int64 of
    x, y, width and height in pixels, where images are used whole. Rows of one number of `contents`, -1 for none, show
    files that are the same byte for byte; it is empty where no two are. `camera_names` are not stored.
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
    query_contents: Integers = field(default_factory=_none)
    gallery_contents: Integers = field(default_factory=_none)
    camera_names: Mapping[int, str] = field(default_factory=dict)

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

    def camera_name(self, camera: int) -> str:
        """What people call a camera, or else its number."""
        return self.camera_names.get(int(camera), str(camera))

    def queries_in_gallery(self) -> int:
        """How many queries are the very picture, by path or content and box, that is in the gallery too."""
        found = set(self._pictures("gallery"))
        return sum(picture in found for picture in self._pictures("query"))

    def gallery_beside_queries(self) -> Integers:
        """The rows of the gallery whose picture is no query's, as in `queries_in_gallery`; all without paths."""
        asked = set(self._pictures("query"))
        own = [picture in asked for picture in self._pictures("gallery")] or [False] * len(self.gallery)
        return np.flatnonzero(~np.array(own, bool))

    def _pictures(self, split: Literal["query", "gallery"]) -> list[tuple[Any, ...]]:
        """Path, or number of its content, and box of each row, none where paths are not known."""
        paths, boxes, contents = (getattr(self, f"{split}_{name}") for name in ("paths", "boxes", "contents"))
        names = (
            [str(n) if n >= 0 else path for n, path in zip(contents, paths, strict=True)] if len(contents) else paths
        )
        return [(name, *(boxes[row].tolist() if len(boxes) else ())) for row, name in enumerate(names)]

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

    def picture(self, split: Literal["query", "gallery"], index: int, how: Decoding = AS_SHOWN) -> Image.Image:
        """Read the image of a row, cropped to its box; raises, and takes `how`, as `read_image` does."""
        boxes = getattr(self, f"{split}_boxes")
        box = boxes[index].tolist() if len(boxes) and boxes[index][2] > 0 else None
        return read_image(getattr(self, f"{split}_paths")[index], tuple(box) if box else None, how)

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

        Identities, cameras and sequences may be whole numbers or text, which is numbered, or pandas' mixtures of these
        with None and NaN. Without cameras they are unknown. A Matlab file is read by the names that re-identification
        publishes features under, such as gallery_f, gallery_label and gallery_cam; its gallery images of label -1, the
        junk of Market-1501, are left out. Features of one column an image are turned, where the labels tell.
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
        arrays = {name: _as_text(values) if name.endswith("paths") else values for name, values in arrays.items()}
        arrays = {
            name: values if name.endswith(("features", "boxes")) else _flat(values) for name, values in arrays.items()
        }
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
                number = number_identities if name == "ids" else number_groups
                numbered = both if name == "boxes" else number(both[0], both[1], f"features {path}: {name}")
                values |= {f"{split}_{name}": part for split, part in zip(SPLITS, numbered, strict=True)}
            elif present:
                lacking = next(split for split in SPLITS if split not in present)
                raise ValueError(f"features {path}: missing {lacking}_{name}, while {present[0]}_{name} is there")
        values |= {
            f"{split}_cameras": np.full(len(values[split]), -1) for split in SPLITS if f"{split}_cameras" not in values
        }
        return cls(**values)


def _read_member(stored: Any, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an `.npz`; one of Python objects, as pandas leaves them, of numbers and text alone: no code runs."""
    try:
        array: np.ndarray = stored[name]
        return array
    except ValueError:
        with archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
            _, _, kind = read_header(file)
            if not kind.hasobject:
                raise
            return np.asarray(_PlainUnpickler(file).load())


class _PlainUnpickler(pickle.Unpickler):
    """Numbers, text and None in an array, and nothing that could do anything."""

    ALLOWED = ("_reconstruct", "ndarray", "dtype", "scalar")

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.ALLOWED:
            return super().find_class(module, name)
        raise ValueError(f"it holds a Python object of {module}.{name}; expected numbers and text, as by astype(str)")


def _flat(values: np.ndarray) -> np.ndarray:
    """One column or one row, as tables have it, as a list; anything else as it is."""
    return values.ravel() if values.ndim == 2 and 1 in values.shape else values


def _as_text(values: np.ndarray) -> np.ndarray:
    """Python objects that are all text as an array of text; anything else as it is."""
    return values.astype(str) if values.dtype.kind == "O" and all(isinstance(v, str) for v in values.flat) else values


# What features are called in Matlab files, after query_ and gallery_.
IN_MATLAB = {
    "features": ("f", "feat", "feature", "features"),
    "ids": ("label", "labels", "id", "ids", "pid", "pids"),
    "cameras": ("cam", "cams", "camid", "camids", "cameras"),
}


def _read_matlab(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat  # slow to import, for files of this kind alone

    try:
        stored = loadmat(str(path))
    except NotImplementedError:
        raise ValueError("a Matlab 7.3 file; expected one of version 7 (save -v7), or .npz") from None
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise ValueError(f"no Matlab file, or a damaged one: {error}") from None
    named = {name.lower(): values for name, values in stored.items() if not name.startswith("__")}
    found = {
        f"{split}_{ours}": next((named[f"{split}_{name}"] for name in names if f"{split}_{name}" in named), None)
        for split in SPLITS
        for ours, names in IN_MATLAB.items()
    }
    arrays = {
        name: values if name.endswith("features") else _uncelled(values.ravel())
        for name, values in found.items()
        if values is not None
    }
    for split in SPLITS:
        features, ids = (arrays.get(f"{split}_{part}", np.empty((0, 0))) for part in ("features", "ids"))
        if features.ndim == 2 and len(features) != len(ids) == features.shape[1]:  # one column an image
            arrays[f"{split}_features"] = features.T
    junk = arrays.get("gallery_ids", np.empty(0)) == -1
    if junk.any() and len(arrays.get("gallery_features", ())) == len(junk):
        log.warning("warning: features %s: %d gallery images of label -1 left out", path, np.count_nonzero(junk))
        arrays |= {name: values[~junk] for name, values in arrays.items() if name.startswith("gallery")}
    return arrays or {name: np.asarray(values) for name, values in named.items()}


def _uncelled(values: np.ndarray) -> np.ndarray:
    """What cells hold, such as text: loadmat gives each as an array of its own; anything else as it is."""
    if values.dtype.kind != "O":
        return values
    cells = [np.asarray(value).ravel() for value in values]
    return np.array([cell[0] if len(cell) else "" for cell in cells], object)


def label_rows(dataset: ReidDataset) -> Features:
    """The rows of a dataset's query and gallery without their embeddings, (Q, 0) and (G, 0).

    Raises ValueError where one of them is empty.
    """
    for name in SPLITS:
        if not dataset.splits[name]:
            raise ValueError(f"{dataset.name} at {dataset.root} has no {name} images, so it cannot be evaluated on")
    values: dict[str, Any] = {}
    both = [sample for name in SPLITS for sample in dataset.splits[name]]
    copies = number_copies(dataset.query, dataset.gallery)
    for name in SPLITS:
        samples = dataset.splits[name]
        values |= {
            name: np.empty((len(samples), 0), np.float32),
            f"{name}_ids": np.array([sample.identity for sample in samples], np.int64),
            f"{name}_cameras": np.array([sample.camera for sample in samples], np.int64),
            f"{name}_paths": tuple(str(sample.path) for sample in samples),
        }
        if copies:
            values[f"{name}_contents"] = np.array([copies.get(sample.path, -1) for sample in samples], np.int64)
        if any(sample.box for sample in both):
            values[f"{name}_boxes"] = np.array([sample.box or (-1, -1, -1, -1) for sample in samples], np.int64)
    if any("sequence" in sample.extra for sample in both):
        sequences = number_labels(np.array([sample.extra.get("sequence", "") for sample in both]))
        values["query_sequences"], values["gallery_sequences"] = np.split(sequences, [len(dataset.query)])
    cameras = {sample.camera for sample in both} - {-1}
    return Features(**values, camera_names={camera: dataset.camera_name(camera) for camera in cameras})


def _read(path: Path) -> Mapping[str, np.ndarray]:
    if not path.exists():
        raise FileNotFoundError(f"features {path}: no such file or folder")
    try:
        if path.is_dir():
            return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        require_content(path)
        with path.open("rb") as file:
            matlab = file.read(6) == b"MATLAB"
        if matlab or path.suffix.lower() == ".mat":
            return _read_matlab(path)
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise ValueError("a single array; expected several, by name")
        with stored, zipfile.ZipFile(path) as archive:
            return {name: _read_member(stored, archive, name) for name in stored.files}
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"features {path}: cannot be read as .npz, .npy or .mat ({reason})") from error


def number_labels(text: npt.NDArray[np.str_]) -> Integers:
    """Number text (n,) from 0 in sorted order; empty text is -1, unknown."""
    return np.unique(np.append(text, ""), return_inverse=True)[1][:-1] - 1  # the empty text sorts first
