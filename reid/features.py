"""Embeddings of a query and a gallery set, and the file they are stored in."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid.checkpoint import write_whole


@dataclass(frozen=True)
class Features:
    """Embeddings of a query and a gallery set: (Q, E) and (G, E) float32 with identities, cameras and image paths.

    Camera -1 is unknown; paths are empty where features come without images.
    """

    query: np.ndarray
    query_ids: np.ndarray
    query_cameras: np.ndarray
    gallery: np.ndarray
    gallery_ids: np.ndarray
    gallery_cameras: np.ndarray
    query_paths: tuple[str, ...] = ()
    gallery_paths: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write the `.npz` whose keys the README documents."""
        arrays = {
            "query_features": self.query,
            "query_ids": self.query_ids,
            "query_cameras": self.query_cameras,
            "gallery_features": self.gallery,
            "gallery_ids": self.gallery_ids,
            "gallery_cameras": self.gallery_cameras,
            "query_paths": np.array(self.query_paths, dtype=str),
            "gallery_paths": np.array(self.gallery_paths, dtype=str),
        }

        def write(temporary: Path) -> None:
            with open(temporary, "wb") as file:  # given a name, numpy would add .npz to it
                np.savez(file, allow_pickle=False, **arrays)

        write_whole(path, write)

    @classmethod
    def load(cls, path: Path) -> "Features":
        """Read a features file; raises FileNotFoundError, or ValueError naming what is missing or damaged."""
        if not path.is_file():
            raise FileNotFoundError(f"features {path}: no such file")
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (ValueError, zipfile.BadZipFile, EOFError, AttributeError, TypeError) as error:
            raise ValueError(f"features {path}: cannot be read as .npz ({' '.join(str(error).split())})") from error
        needed = [f"{split}_{part}" for split in ("query", "gallery") for part in ("features", "ids", "cameras")]
        missing = [name for name in needed if name not in arrays]
        if missing:
            raise ValueError(f"features {path}: missing {', '.join(missing)}; found {', '.join(arrays) or 'nothing'}")
        paths = [tuple(arrays.get(f"{split}_paths", np.array([], str)).tolist()) for split in ("query", "gallery")]
        return cls(*(arrays[name] for name in needed), *paths)
