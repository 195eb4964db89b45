"""Boxes that a detector or a person drew around the subjects of photos, given to the photos that they are of.

All are of the upright picture. MegaDetector and YOLO give shares of its sides; COCO's pixels are scaled to the picture
where its file says of what size they are, so that boxes drawn on a smaller copy fit.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from reid.data.boxes import same_box, whole_box
from reid.data.detection_files import Detection, plain, read_listing, read_yolo, yolo_files, yolo_names
from reid.data.samples import Box
from reid.names import counted

# From here on MegaDetector's authors take a detection for one; below it their files list thousands of guesses.
MEGADETECTOR_LEAST = 0.2
ROUNDED = 0.001  # of a side, by which a box may pass it for want of digits
SAMPLE = 100  # photos by which the folder that the detector was given is found


class Move(NamedTuple):
    """A folder of ours, and what the detector called it; each ends with a slash or is empty."""

    ours: str
    theirs: str


class Found(NamedTuple):
    """A subject in a photo: its box in whole upright pixels, and what the detector said of it."""

    box: Box
    confidence: float | None
    category: str


class Detections:
    """The detections of a file, or of a folder of YOLO's, by photo; `origin` names who made them.

    Those of a confidence below `least` do not count, nor those of other `categories` where some are given. What becomes
    of boxes is counted in `left_out` and `clipped`. Raises FileNotFoundError, and ValueError for a file of no such form
    or a category that it does not have.
    """

    def __init__(self, path: Path, *, least: float | None = None, categories: Collection[str] = ()) -> None:
        self.path = path
        self.left_out: Counter[str] = Counter()
        self.clipped = 0
        self._names: dict[int, str] = {}
        self._photos: Mapping[str, list[Detection] | Path | None]
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file of detections")
        if path.is_dir():
            self.kind = self.origin = "YOLO"
            self._photos = {plain(str(one.relative_to(path).with_suffix(""))): one for one in yolo_files(path)}
            self._names = yolo_names(path)
            known = set(self._names.values())
        else:
            listing = read_listing(path)
            self.kind, self.origin, self._photos = listing.kind, listing.origin, listing.photos
            self.left_out["of a crowd"] += listing.crowds
            known = {one.category for found in listing.photos.values() for one in found or ()} | {*listing.categories}
        self._least = least if least is not None else MEGADETECTOR_LEAST if self.kind == "MegaDetector" else 0.0
        self._wanted = {name.casefold() for name in categories}
        if known and (lacking := self._wanted - {name.casefold() for name in known}):
            raise ValueError(f"{path}: no category {min(lacking)!r}; found {', '.join(sorted(known))}")

    def __len__(self) -> int:
        """How many photos are told of."""
        return len(self._photos)

    @property
    def chosen(self) -> str:
        """Which of them count, in words."""
        of = f" of {', '.join(sorted(self._wanted))}" if self._wanted else ""
        return f"boxes{of} from a confidence of {self._least:g} by {self.kind}"

    def __str__(self) -> str:
        return f"{self.chosen} in {self.path}"

    def match(self, photos: Sequence[Path]) -> dict[Path, str]:
        """What the file calls each of these photos that it tells of, by the folders and the name that both write.

        The folder that the detector was given may lie above or below the photos' own, or on another machine, but is one
        for all. Raises ValueError where that leaves open which photo is meant, and where it tells of none of them.
        """
        wholes = {photo: self._key(photo) for photo in photos}
        moves = self._moves(list(wholes.values()))
        if not moves:
            raise ValueError(
                f"{self.path}: none of its {counted(len(self), 'photo')} is among the {len(photos):,} given; it has "
                f"{next(iter(self._photos), 'none')}, they have {photos[0] if photos else 'none'}"
            )
        # Folders with the same names of files in them, as cameras number photos, make many that explain next to none.
        likely = sorted(moves, key=lambda move: (-moves[move], _length(move)))[:SAMPLE]
        found = [(self._explained(move, wholes), move) for move in likely]
        named, move = min(found, key=lambda one: (-len(one[0]), _length(one[1])))
        taken = {name: photo for photo, name in named.items()}
        others = {photo: whole for photo, whole in wholes.items() if photo not in named}
        for other in (other for other in moves if others and _length(other) <= _length(move)):
            for photo, name in self._explained(other, others).items():
                if name in taken:
                    raise ValueError(
                        f"{self.path}: its {name} could be {taken[name]} and {photo}; give the folder as SOURCE that "
                        "the detector was given"
                    )
        return named

    def of(self, name: str, size: tuple[int, int]) -> list[Found] | None:
        """The subjects of a photo of this upright (width, height), by its name here, the surest first.

        None stands for a photo that the detector could not read. Raises ValueError where the photo's own file cannot be
        understood, and for boxes of a picture of another shape.
        """
        told = self._photos[name]
        detections = read_yolo(told, self._names) if isinstance(told, Path) else told
        if detections is None:
            return None
        found: list[Found] = []
        for one in sorted(detections, key=lambda one: -1.0 if one.confidence is None else -one.confidence):
            if one.confidence is not None and one.confidence < self._least:
                self.left_out[f"below a confidence of {self._least:g}"] += 1
            elif self._wanted and one.category.casefold() not in self._wanted:
                self.left_out["of other categories"] += 1
            elif (box := self._within(one, size)) is None:
                self.left_out["outside their picture"] += 1
            elif any(same_box(box, other.box) for other in found):
                self.left_out["like another within 1 %"] += 1
            else:
                found.append(Found(box, one.confidence, one.category))
        return found

    def _key(self, photo: Path) -> str:
        whole = plain(str(photo.absolute()))
        if self.kind != "YOLO":
            return whole
        above, images, below = whole.rpartition("/images/")  # beside which YOLO's sets have a folder labels
        return str(PurePosixPath(f"{above}/labels/{below}" if images else whole).with_suffix(""))

    def _moves(self, wholes: Sequence[str]) -> Counter[Move]:
        """The folder of ours that may stand for which of the detector's, by what their paths have in common.

        Each with how many photos of a sample it explains.
        """
        by_name: dict[str, list[str]] = defaultdict(list)
        for name in self._photos:
            by_name[name.rpartition("/")[2]].append(name)
        moves: Counter[Move] = Counter()
        known = [whole for whole in wholes if whole.rpartition("/")[2] in by_name]
        for whole in known[:: len(known) // SAMPLE + 1]:
            ours = whole.split("/")
            for name in by_name[ours[-1]]:
                theirs = name.split("/")
                pairs = zip(reversed(ours), reversed(theirs), strict=False)
                alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
                moves[Move(*("/".join([*parts[: len(parts) - alike], ""]) for parts in (ours, theirs)))] += 1
        return moves

    def _explained(self, move: Move, wholes: Mapping[Path, str]) -> dict[Path, str]:
        names = {
            photo: move.theirs + whole.removeprefix(move.ours)
            for photo, whole in wholes.items()
            if whole.startswith(move.ours)
        }
        return {photo: name for photo, name in names.items() if name in self._photos}

    def _within(self, one: Detection, size: tuple[int, int]) -> Box | None:
        """The part of a box that lies in a picture of this (width, height); None if none does.

        Raises ValueError for a box of a picture of another shape.
        """
        across, down = float(size[0]), float(size[1])
        if one.pixels:
            _require_shape(one.size or size, size)
            across, down = (across / one.size[0], down / one.size[1]) if one.size else (1.0, 1.0)
        x, y, w, h = (value * scale for value, scale in zip(one.box, (across, down, across, down), strict=True))
        left, top, right, bottom = max(0.0, x), max(0.0, y), min(float(size[0]), x + w), min(float(size[1]), y + h)
        if right <= left or bottom <= top:
            return None
        # Detectors write shares with few digits.
        beyond = max(left - x, x + w - right) > ROUNDED * size[0] or max(top - y, y + h - bottom) > ROUNDED * size[1]
        self.clipped += beyond
        box = whole_box(left, top, right - left, bottom - top)
        return box[0], box[1], min(box[2], size[0] - box[0]), min(box[3], size[1] - box[1])


def _length(move: Move) -> int:
    return move.ours.count("/") + move.theirs.count("/")


def _require_shape(said: tuple[int, int], size: tuple[int, int]) -> None:
    if abs(said[0] * size[1] - said[1] * size[0]) > 0.01 * said[0] * size[1]:
        turned = ", before it was turned upright," if said == size[::-1] else ""
        raise ValueError(
            f"its boxes are of a picture of {said[0]}x{said[1]} pixels{turned} and it has {size[0]}x{size[1]} upright"
        )
