"""Small copies of what items show, made once; what is lost of them is made anew from the copies of photos."""

import logging
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from service.records import Crop
from service.storage.folder import as_its_folder, make_folder_within

log = logging.getLogger("reid")

THUMBNAILS_FOLDER = "thumbnails"  # of a gallery

_END = b"\xff\xd9"  # of a JPEG file; one without was not written to its end


class Thumbnails:
    """A folder of JPEG files, one for each photo or box of a photo that is an item; any thread may use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, crop: Crop) -> Path:
        """The file of a thumbnail, there or not, which never changes."""
        region = crop.region
        box = "" if region is None else f"-{region.x}-{region.y}-{region.w}-{region.h}"
        return self._folder / crop.sha256[:2] / f"{crop.sha256}{box}.jpg"

    def read(self, crop: Crop) -> bytes | None:
        """A thumbnail, None where there is no whole one."""
        with suppress(FileNotFoundError):
            if (data := self.path(crop).read_bytes()).endswith(_END):
                return data
        return None

    def keep(self, made: Mapping[Crop, bytes]) -> None:
        """Keep thumbnails; one that cannot be written is told in the log, and made again when it is wanted."""
        for crop, data in made.items():
            path = self.path(crop)
            unfinished = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
            try:
                make_folder_within(self._folder)
                make_folder_within(path.parent)
                with open(unfinished, "xb", opener=as_its_folder) as file:
                    file.write(data)
                unfinished.replace(path)
            except OSError as error:
                log.warning("warning: %s: could not be written (%s)", path, error.strerror)
                with suppress(OSError):
                    unfinished.unlink(missing_ok=True)

    def delete(self, crops: Iterable[Crop]) -> None:
        """Remove thumbnails; one that is not there is none."""
        for crop in crops:
            self.path(crop).unlink(missing_ok=True)

    def sweep(self, known: Container[str]) -> None:
        """Remove those of photos that are not known by their SHA-256, and what a kill left half written."""
        for path in self._folder.glob("??/*"):
            if path.name[:64] not in known:
                path.unlink(missing_ok=True)
