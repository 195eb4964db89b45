"""Photos of sources with the boxes that a detector found in them, each box a photo of its own to enrol."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from reid.data.detections import Detections
from reid.data.images import UnknownFormat, UnusableImage, upright_size
from reid.data.tables import BOX_COLUMNS, known_name
from reid.names import counted
from reid.progress import Progress
from service.bulk.sources import Photo, Source

log = logging.getLogger("reid")

NAMES = ("identity", "label", "key")  # cells that are of one subject, not of its photo


def with_boxes(sources: Sequence[Source], detections: Detections, *, whole: bool = False) -> list[Source]:
    """The same sources with a photo for each box; those without any are left out and counted, or `whole`.

    A row of a table that has a box keeps it. Where a photo has several boxes, the name in its row is left out, since it
    tells of one of them. Boxes have `origin` and the attributes `confidence` and `category`. Photos that cannot be read
    stay, so that whoever reads them says why. Their `photos` raise ValueError as `Detections.match` does.
    """
    boxed = _Boxed(sources, detections, whole)
    return [
        replace(source, description=f"{source.description}, {detections}{', or whole' * whole}", photos=boxed.of(place))
        for place, source in enumerate(sources)
    ]


class _Boxed:
    """All photos of some sources, listed once, since which folder a detector was given shows only in all of them."""

    def __init__(self, sources: Sequence[Source], detections: Detections, whole: bool) -> None:
        self._sources, self._detections, self._whole = sources, detections, whole
        self._listed = cache(self._list)

    def of(self, place: int) -> Callable[[], list[Photo]]:
        """What gives the photos of the source of this place."""
        return lambda: self._listed()[place]

    def _list(self) -> list[list[Photo]]:
        photos = [list(source.photos()) for source in self._sources]
        names = self._detections.match([photo.path for some in photos for photo in some])
        progress = Progress("placing boxes")
        counts: Counter[str] = Counter()
        boxed: list[list[Photo]] = []
        done, total = 0, sum(map(len, photos))
        try:
            for source, some in zip(self._sources, photos, strict=True):
                boxed.append([])
                for photo in some:
                    boxed[-1] += self._boxes(photo, names.get(photo.path), source, counts)
                    done += 1
                    progress(done, total)
        finally:
            progress.close()
        self._tell(counts, len(self._detections) - len(set(names.values())))
        if not any(boxed):
            raise ValueError(f"{self._detections}: none in any photo; see --min-confidence, --category and --whole")
        return boxed

    def _boxes(self, photo: Photo, name: str | None, source: Source, counts: Counter[str]) -> Iterator[Photo]:
        if any(photo.cells.get(column) for column in BOX_COLUMNS):
            yield photo
            return
        try:
            found = None if name is None else self._detections.of(name, upright_size(photo.path))
        except (OSError, UnknownFormat, UnusableImage):
            yield photo
            return
        except ValueError as error:
            log.warning("%s: %s", photo.name, error)
            source.left_out.add("with boxes that cannot be used")
            return
        if found:
            cells = {key: cell for key, cell in photo.cells.items() if len(found) == 1 or key not in NAMES}
            counts["unnamed"] += len(found) > 1 and any(known_name(photo.cells.get(key, "")) for key in NAMES)
            counts["photos"] += 1
            for box, confidence, category in found:
                counts[f"of {category}"] += 1
                said = {"origin": self._detections.origin, "category": category}
                if confidence is not None:
                    said["confidence"] = f"{confidence:g}"
                place = dict(zip(BOX_COLUMNS, map(str, box), strict=True))
                yield Photo(photo.path, photo.name, {**said, **cells, **place})
        elif self._whole:
            counts["whole"] += 1
            yield photo
        elif found is not None:
            source.left_out.add("without a box (--whole takes them whole)")
        else:
            told = "not told of in" if name is None else "that its detector could not read, says"
            source.left_out.add(f"{told} {self._detections.path.name} (--whole takes them whole)")

    def _tell(self, counts: Counter[str], unmatched: int) -> None:
        """Say in one line what became of the boxes."""
        kinds = {key.removeprefix("of "): boxes for key, boxes in counts.items() if key.startswith("of ")}
        named = ", ".join(f"{boxes:,} {kind}" for kind, boxes in sorted(kinds.items(), key=lambda one: -one[1]) if kind)
        words = [
            f"{counted(sum(kinds.values()), 'box', 'boxes')}{f' ({named})' if named else ''} of "
            f"{counted(counts['photos'], 'photo')} by "
            f"{self._detections.origin}"
        ]
        if counts["whole"]:
            words.append(f"photos without a box taken whole: {counts['whole']:,}")
        if left_out := +self._detections.left_out:
            words.append("boxes left out: " + ", ".join(f"{boxes:,} {why}" for why, boxes in left_out.most_common()))
        if self._detections.clipped:
            words.append(f"{self._detections.clipped:,} clipped to their picture")
        if counts["unnamed"]:
            words.append(f"names left out of photos that have several boxes: {counts['unnamed']:,}")
        if unmatched:
            words.append(f"{counted(unmatched, 'photo')} in {self._detections.path.name} not among these")
        log.info("%s", "; ".join(words))
