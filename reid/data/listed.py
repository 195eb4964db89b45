"""The published Re-ID sets that come with list files."""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from reid.data.official import LISTED_LAYOUTS, OFFICIAL_COUNTS, locate
from reid.data.samples import ReidDataset, Sample

MSMT17_TRAIN_LISTS = {"train+val": ("list_train.txt", "list_val.txt"), "train": ("list_train.txt",)}


def read_msmt17(root: Path, *, version: str, train_split: str) -> ReidDataset:
    """Read MSMT17 by its list files; v2 is the release with faces and plates masked.

    The lists count test identities from 0 again; here they follow the training identities. Listed images that do not
    exist are left out with a warning, here and in the other listed sets.

    Raises what `locate` raises, and ValueError for a broken list.
    """
    train_lists = MSMT17_TRAIN_LISTS[train_split]
    home = locate("msmt17", version, root, train_lists)
    train_folder, test_folder, *test_lists = (home / entry for entry in LISTED_LAYOUTS["msmt17", version].needed)
    test_offset = OFFICIAL_COUNTS["msmt17", version]["train"][1]
    warnings: list[str] = []

    def read(list_file: Path, folder: Path, offset: int) -> list[Sample]:
        parse = partial(_parse_msmt17, folder=folder, offset=offset)
        return _read_list("msmt17", list_file, parse, "'PPPP/PPPP_III_CC_....jpg identity'", warnings)

    train = [sample for file in train_lists for sample in read(home / file, train_folder, 0)]
    query, gallery = (read(file, test_folder, test_offset) for file in test_lists)
    return ReidDataset("msmt17", home, tuple(train), tuple(query), tuple(gallery), warnings=tuple(warnings))


def read_vehicleid(root: Path, *, version: str) -> ReidDataset:
    """Read PKU VehicleID; the versions are its test lists of 800, 1,600 and 2,400 vehicles. There is no camera.

    The lists do not tell query from gallery: one random image a vehicle is the gallery, all others are queries. This is
    one such draw, by a hash of the file names; the protocol averages over ten.

    Raises what `locate` raises, and ValueError for a broken list.
    """
    home = locate("vehicleid", version, root)
    images, *lists = (home / entry for entry in LISTED_LAYOUTS["vehicleid", version].needed)
    warnings: list[str] = []
    parse = partial(_parse_vehicleid, images=images)
    train, test = (_read_list("vehicleid", file, parse, "'NAME identity'", warnings) for file in lists)
    drawn: dict[int, Sample] = {}
    for sample in sorted(test, key=lambda sample: hashlib.sha256(sample.path.name.encode()).digest()):
        drawn.setdefault(sample.identity, sample)
    query = tuple(sample for sample in test if sample is not drawn[sample.identity])
    return ReidDataset("vehicleid", home, tuple(train), query, gallery=tuple(drawn.values()), warnings=tuple(warnings))


def read_veriwild(root: Path, *, version: str) -> ReidDataset:
    """Read VERI-Wild; the versions are its test lists of 3,000, 5,000 and 10,000 vehicles.

    Cameras keep the numbers of `vehicle_info.txt`, which have gaps.

    Raises what `locate` raises, and ValueError for a broken list and for an image without a camera.
    """
    home = locate("veriwild", version, root)
    images, info, *lists = (home / entry for entry in LISTED_LAYOUTS["veriwild", version].needed)
    warnings: list[str] = []
    parse = partial(_parse_veriwild, images=images, cameras=_read_cameras(info))
    expected = f"'VID/IMG', an image of {info.name}"
    train, query, gallery = (tuple(_read_list("veriwild", file, parse, expected, warnings)) for file in lists)
    return ReidDataset("veriwild", home, train, query, gallery, warnings=tuple(warnings))


def _parse_msmt17(line: str, *, folder: Path, offset: int) -> Sample | None:
    """A line reads `0000/0000_000_01_0303morning_0015_0.jpg 0`; the third field of the file name is the camera."""
    file, _, identity = line.rpartition(" ")
    fields = file.rpartition("/")[2].split("_")
    if not (identity.isdecimal() and len(fields) > 3 and fields[2].isdecimal()):
        return None
    return Sample(folder / file, identity=int(identity) + offset, camera=int(fields[2]) - 1)


def _parse_vehicleid(line: str, *, images: Path) -> Sample | None:
    """A line reads `0123456 12`, in some copies `0123456.jpg 12`."""
    fields = line.split()
    if len(fields) != 2 or not fields[1].isdecimal():
        return None
    return Sample(images / f"{fields[0].removesuffix('.jpg')}.jpg", identity=int(fields[1]))


def _parse_veriwild(line: str, *, images: Path, cameras: dict[str, int]) -> Sample | None:
    """A line reads `00001/000001`, in some copies with `.jpg`; the folder is the vehicle."""
    image = line.removesuffix(".jpg")
    vehicle = image.partition("/")[0]
    if image not in cameras or not vehicle.isdecimal():
        return None
    return Sample(images / f"{image}.jpg", identity=int(vehicle), camera=cameras[image])


def _read_cameras(info: Path) -> dict[str, int]:
    """Camera by image from lines `00001/000001;136;2018-03-08 13:22:00;...` below a line of column names."""
    cameras = {}
    for number, line in enumerate(read_lines(info), start=1):
        match = re.match(r"([^;]+);(\d+);", line)
        if match:
            cameras[match[1].removesuffix(".jpg")] = int(match[2])
        elif line and number > 1:
            raise ValueError(f"{info} line {number}: expected 'VID/IMG;camera;...', found {line!r}")
    return cameras


def _read_list(
    name: str, list_file: Path, parse: Callable[[str], Sample | None], expected: str, warnings: list[str]
) -> list[Sample]:
    """The images of one list that exist; `parse` returns None for a line that is not as `expected`."""
    samples = []
    for number, line in enumerate(read_lines(list_file), start=1):
        if not line:
            continue
        sample = parse(line)
        if sample is None:
            raise ValueError(f"{list_file} line {number}: expected {expected}, found {line!r}")
        samples.append(sample)
    return keep_existing(name, samples, list_file, warnings)


def keep_existing(name: str, samples: Sequence[Sample], list_file: Path, warnings: list[str]) -> list[Sample]:
    """The samples whose image exists, with a warning on those that a list names in vain."""
    existing = [sample for sample in samples if sample.path.is_file()]
    if len(existing) < len(samples):
        missing = next(sample.path for sample in samples if not sample.path.is_file())
        warnings.append(
            f"{name}: {len(samples) - len(existing):,} of {len(samples):,} images in {list_file.name} do not exist, "
            f"first {missing}"
        )
    return existing


def read_lines(file: Path) -> list[str]:
    """The lines of a text file without what is blank around them; bytes that are no UTF-8 become marks."""
    return [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
