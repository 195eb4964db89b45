"""The published Re-ID sets, read by their authors' rules, and the counts of a complete copy."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reid.data.samples import ReidDataset, Sample, is_image

# (images, identities) by split, for MSMT17 also by training split. Market's gallery is counted without its 3,819 junk
# images and with its distractors, identity 0.
OFFICIAL_COUNTS = {
    "market1501": {"train": (12_936, 751), "query": (3_368, 750), "gallery": (15_913, 751)},
    "dukemtmc": {"train": (16_522, 702), "query": (2_228, 702), "gallery": (17_661, 1_110)},
    "msmt17": {
        "train": (30_248, 1_041),
        "train+val": (32_621, 1_041),
        "query": (11_659, 3_060),
        "gallery": (82_161, 3_060),
    },
    "veri776": {"train": (37_778, 576), "query": (1_678, 200), "gallery": (11_579, 200)},
}
OFFICIAL_CAMERAS = {"market1501": 6, "dukemtmc": 8, "msmt17": 15, "veri776": 20}


@dataclass(frozen=True)
class NamedLayout:
    """A set that tells identity and camera in its file names.

    `places` are the folders, relative to the data root, in which people keep the set; `folders` hold train, query and
    gallery; `pattern` matches a file name without its extension, with the groups identity and camera (from 1).
    """

    title: str
    places: tuple[str, ...]
    folders: tuple[str, str, str]
    pattern: re.Pattern[str]

    def match(self, file: str) -> re.Match[str] | None:
        """Match the name of an image file."""
        return self.pattern.fullmatch(os.path.splitext(file)[0])


LAYOUTS = {
    "market1501": NamedLayout(
        "Market-1501",
        (".", "Market-1501-v15.09.15", "Market-1501", "Market1501", "market1501", "market1501/Market-1501-v15.09.15"),
        ("bounding_box_train", "query", "bounding_box_test"),
        re.compile(r"(-1|\d{4})_c(\d)s\d_\d{6}_\d{2}"),
    ),
    "dukemtmc": NamedLayout(
        "DukeMTMC-reID",
        (".", "DukeMTMC-reID", "DukeMTMC", "dukemtmcreid", "dukemtmc-reid", "dukemtmc", "dukemtmc-reid/DukeMTMC-reID"),
        ("bounding_box_train", "query", "bounding_box_test"),
        re.compile(r"(\d{4})_c(\d)_f\d+"),
    ),
    "veri776": NamedLayout(
        "VeRi-776",
        (".", "VeRi", "VeRi-776", "VeRi776", "veri", "veri776"),
        ("image_train", "image_query", "image_test"),
        re.compile(r"(\d{4})_c(\d+)_.+"),  # cameras have three digits: a pattern for one reads 0 everywhere
    ),
}

MSMT17_FOLDERS = {"v1": ("train", "test"), "v2": ("mask_train_v2", "mask_test_v2")}
MSMT17_PLACES = {
    version: (".", official, "MSMT17", "msmt17", f"MSMT17/{official}", f"msmt17/{official}")
    for version, official in (("v1", "MSMT17_V1"), ("v2", "MSMT17_V2"))
}
MSMT17_TRAIN_LISTS = {"train": ("list_train.txt",), "train+val": ("list_train.txt", "list_val.txt")}
MSMT17_TEST_LISTS = ("list_query.txt", "list_gallery.txt")


def official_counts(dataset: ReidDataset) -> dict[str, tuple[int, int]]:
    """(images, identities) of a complete copy by split, under the dataset's protocol; empty for a set of one's own."""
    if dataset.name not in OFFICIAL_COUNTS:
        return {}
    table = OFFICIAL_COUNTS[dataset.name]
    train_split = dataset.protocol.get("train_split", "train")
    return {"train": table[train_split], "query": table["query"], "gallery": table["gallery"]}


def recognise(root: Path) -> str | None:
    """Name the published set found at `root` or at its usual places below; for error messages."""
    for name, layout in LAYOUTS.items():
        home = _find(root, layout.places, layout.folders)
        if home and any(layout.match(file) for folder in layout.folders for file in _list_images(home / folder)[:1]):
            return name
    for version, folders in MSMT17_FOLDERS.items():
        if _find(root, MSMT17_PLACES[version], folders + MSMT17_TEST_LISTS):
            return f"msmt17, version={version}"
    return None


def read_named(name: str, layout: NamedLayout, root: Path) -> ReidDataset:
    """Read a set that tells identity and camera in its file names; images of identity -1 (Market's junk) are dropped.

    Raises FileNotFoundError, with every place looked at, where its three folders are not found, and ValueError where
    they hold images of another naming.
    """
    home = _find(root, layout.places, layout.folders)
    if home is None:
        raise _not_found(name, root, layout.places, layout.folders)
    warnings: list[str] = []
    train, query, gallery = (_read_folder(name, layout, home / folder, warnings) for folder in layout.folders)
    return ReidDataset(name, home, train, query, gallery, warnings=tuple(warnings))


def _read_folder(name: str, layout: NamedLayout, folder: Path, warnings: list[str]) -> tuple[Sample, ...]:
    files = _list_images(folder)
    samples = []
    strangers = []
    for file in files:
        match = layout.match(file)
        if match is None:
            strangers.append(file)
        elif match[1] != "-1":
            samples.append(Sample(folder / file, identity=int(match[1]), camera=int(match[2]) - 1))
    if strangers and len(strangers) == len(files):
        other = next((f": {other.title}-style names" for other in LAYOUTS.values() if other.match(files[0])), "")
        raise ValueError(f"{name}: expected {layout.title}-style names in {folder}, found {files[0]}{other}")
    if strangers:
        warnings.append(
            f"{name}: left out {len(strangers):,} of {len(files):,} images in {folder}, not named in {layout.title} "
            f"style, e.g. {strangers[0]}"
        )
    return tuple(samples)


def read_msmt17(root: Path, *, version: str = "v1", train_split: str = "train+val") -> ReidDataset:
    """Read MSMT17 by its list files; v2 is the release with faces and plates masked.

    The lists count test identities from 0 again; here they follow the training identities. Listed images that do not
    exist are left out with a warning.

    Raises ValueError for an unknown version or training split, for a broken list, and where another version than the
    one asked for is found; FileNotFoundError, with every place looked at, where none is.
    """
    if version not in MSMT17_FOLDERS:
        raise ValueError(f"msmt17: unknown version {version!r}; expected {' or '.join(MSMT17_FOLDERS)}")
    if train_split not in MSMT17_TRAIN_LISTS:
        raise ValueError(f"msmt17: unknown train_split {train_split!r}; expected {' or '.join(MSMT17_TRAIN_LISTS)}")
    train_lists = MSMT17_TRAIN_LISTS[train_split]
    home = _locate_msmt17(root, version, train_lists + MSMT17_TEST_LISTS)
    train_folder, test_folder = (home / folder for folder in MSMT17_FOLDERS[version])
    offset = OFFICIAL_COUNTS["msmt17"]["train"][1]
    warnings: list[str] = []
    train = [sample for file in train_lists for sample in _read_list(home / file, train_folder, 0, warnings)]
    query, gallery = (_read_list(home / file, test_folder, offset, warnings) for file in MSMT17_TEST_LISTS)
    return ReidDataset(
        "msmt17",
        home,
        tuple(train),
        tuple(query),
        tuple(gallery),
        protocol={"version": version, "train_split": train_split},
        warnings=tuple(warnings),
    )


def _locate_msmt17(root: Path, version: str, lists: Sequence[str]) -> Path:
    needed = (*MSMT17_FOLDERS[version], *lists)
    home = _find(root, MSMT17_PLACES[version], needed)
    if home:
        return home
    for other, folders in MSMT17_FOLDERS.items():
        home = _find(root, MSMT17_PLACES[other], folders + MSMT17_TEST_LISTS)
        if home and other != version:
            raise ValueError(
                f"msmt17: found version {other} ({', '.join(folders)}) in {home}, but version={version} was asked for; "
                f"use version={other} (results on v1 and v2 do not compare)"
            )
    raise _not_found("msmt17", root, MSMT17_PLACES[version], needed)


def _read_list(list_file: Path, folder: Path, offset: int, warnings: list[str]) -> list[Sample]:
    """The images of one list that exist; its lines read `0000/0000_000_01_0303morning_0015_0.jpg 0`."""
    samples = []
    for number, line in enumerate(list_file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        file, _, identity = line.strip().rpartition(" ")
        fields = file.rpartition("/")[2].split("_")
        if not (identity.isdecimal() and len(fields) > 3 and fields[2].isdecimal()):
            raise ValueError(
                f"{list_file} line {number}: expected 'PPPP/PPPP_III_CC_....jpg identity', found {line.strip()!r}"
            )
        samples.append(Sample(folder / file, identity=int(identity) + offset, camera=int(fields[2]) - 1))
    existing = [sample for sample in samples if sample.path.is_file()]
    if len(existing) < len(samples):
        missing = next(sample.path for sample in samples if not sample.path.is_file())
        warnings.append(
            f"msmt17: {len(samples) - len(existing):,} of {len(samples):,} images in {list_file.name} do not exist, "
            f"first {missing}"
        )
    return existing


def _find(root: Path, places: Sequence[str], needed: Sequence[str]) -> Path | None:
    return next((root / p for p in places if all((root / p / entry).exists() for entry in needed)), None)


def _not_found(name: str, root: Path, places: Sequence[str], needed: Sequence[str]) -> FileNotFoundError:
    looked = []
    for place in (root / place for place in places):
        present = [entry for entry in needed if (place / entry).exists()]
        lacking = [entry for entry in needed if entry not in present]
        looked.append(f"{place} (has no {', '.join(lacking)})" if present else str(place))
    other = recognise(root)
    hint = f"; found what looks like dataset {other}" if other else ""
    return FileNotFoundError(f"{name}: expected {', '.join(needed)} in one folder; looked in {', '.join(looked)}{hint}")


def _list_images(folder: Path) -> list[str]:
    return sorted(file for file in os.listdir(folder) if is_image(file))
